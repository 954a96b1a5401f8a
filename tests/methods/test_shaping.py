"""Shaped rewards: hand-computed cases, what shaping leaves alone to rounding error, and the honeypot's thresholds."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hepo_isaac.methods.advantages import gae
from hepo_isaac.methods.shaping import (
    horizon_discount,
    horizon_reward,
    learned_potential_target,
    look_ahead_potential,
    state_potential,
)

GAMMA = 0.99
F64 = torch.float64


def _flags(*columns):
    return torch.tensor(columns, dtype=torch.bool).T


class TestByHand:
    """gamma 0.5."""

    h = torch.tensor([[1.0, 1.0, 1.0], [2.0, 2.0, 2.0], [4.0, 4.0, 4.0]])
    running, ended = [False, False, False], [False, True, False]

    def test_look_ahead(self):
        """Columns: running, terminated by step 1, cut by the time limit at step 1; c = 10."""
        got = look_ahead_potential(
            self.h,
            _flags(self.running, self.ended, self.running),
            _flags(self.running, self.running, self.ended),
            0.5,
            10,
        )
        # F_0 = .5*20 - 10 = 0 everywhere; F_1 = .5*40 - 20 = 0 | 0 - 20 | .5*20 - 20 = -10
        assert got.tolist() == [[0.0, 0.0, 0.0], [0.0, -20.0, -10.0]]

    def test_state_potential(self):
        phi, final = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, float("nan"), 8.0])
        got = state_potential(phi, final, torch.tensor([False, True, False]), 0.5)
        assert got.tolist() == [0.0, -2.0, 1.0]

    def test_learned_potential_target(self):
        got = learned_potential_target(
            torch.tensor([1.0, 1.0]), torch.tensor([6.0, float("nan")]), torch.tensor([False, True]), 0.5
        )
        assert got.tolist() == [2.0, -1.0]

    def test_horizon_reward(self):
        r, h = torch.tensor([[1.0, 1.0], [1.0, 1.0]]), torch.tensor([[4.0, 4.0], [4.0, float("nan")]])
        terminated = torch.tensor([[False, False], [False, True]])
        # 1 + (1 - .75) * .5 * 4 = 1.5; a termination pays the task reward alone
        assert horizon_reward(r, h, terminated, 0.5, 0.75).tolist() == [[1.5, 1.5], [1.5, 1.0]]
        # lambda of their own per column
        lam = torch.tensor([1.0, 0.0])
        assert horizon_reward(r, h, terminated, 0.5, lam).tolist() == [[1.0, 3.0], [1.0, 1.0]]
        assert torch.as_tensor(horizon_discount(0.5, lam)).tolist() == [0.5, 0.0]


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_types_and_any_batch_shape_are_kept(dtype):
    h = torch.ones(4, 2, 3, dtype=dtype)
    flags = torch.zeros(4, 2, 3, dtype=torch.bool)
    assert look_ahead_potential(h, flags, flags, 0.9).shape == (3, 2, 3)
    outputs = (
        look_ahead_potential(h, flags, flags, 0.9),
        state_potential(h, h, flags, 0.9),
        learned_potential_target(h, h, flags, 0.9),
        horizon_reward(h, h, flags, 0.9, 0.5),
    )
    assert {x.dtype for x in outputs} == {dtype}


class TestInvariance:
    """Fifty random steps of three envs: one terminates at step 30, one is cut at 30 by the time limit, one runs on."""

    T = 50

    def _problem(self):
        g = torch.Generator().manual_seed(0)
        r, value, phi = (torch.randn(self.T, 3, generator=g, dtype=F64) for _ in range(3))
        # s_{t+1} before any reset: the next row, except where an episode ended
        final_phi = torch.cat((phi[1:], torch.randn(1, 3, generator=g, dtype=F64)))
        final_value = torch.cat((value[1:], torch.randn(1, 3, generator=g, dtype=F64)))
        terminated, time_out = (torch.zeros(self.T, 3, dtype=torch.bool) for _ in range(2))
        terminated[30, 0], time_out[30, 1] = True, True
        final_phi[30, :2] = torch.randn(2, generator=g, dtype=F64)
        final_value[30, :2] = torch.randn(2, generator=g, dtype=F64)
        return r, value, phi, final_value, final_phi, terminated, time_out

    @staticmethod
    def _gae(reward, value, final_value, terminated, time_out, lam):
        column = gae(
            reward.unsqueeze(-1),
            value.unsqueeze(-1),
            final_value[-1].unsqueeze(-1),
            terminated,
            time_out,
            final_value.unsqueeze(-1),
            GAMMA,
            lam,
        )
        return column.squeeze(-1)

    @pytest.mark.parametrize("lam", [0.0, 0.5, 0.95, 1.0])
    def test_a_state_potential_changes_no_advantage(self, lam):
        """With the critic shifted to V - Phi, at terminations and time limits alike."""
        r, value, phi, final_value, final_phi, terminated, time_out = self._problem()
        shaped = r + state_potential(phi, final_phi, terminated, GAMMA)
        before = self._gae(r, value, final_value, terminated, time_out, lam)
        after = self._gae(shaped, value - phi, final_value - final_phi, terminated, time_out, lam)
        assert (after - before).abs().max().item() < 1e-14
        assert before.abs().max().item() > 1.0

    @pytest.mark.parametrize("lam", [0.0, 0.95])
    def test_a_potential_left_at_a_terminal_is_paid_out_in_the_last_advantage(self, lam):
        r, value, phi, final_value, final_phi, terminated, time_out = self._problem()
        wrong = r + state_potential(phi, final_phi, torch.zeros_like(terminated), GAMMA)
        before = self._gae(r, value, final_value, terminated, time_out, lam)
        after = self._gae(wrong, value - phi, final_value - final_phi, terminated, time_out, lam)
        assert (after - before)[30, 0].item() == pytest.approx(GAMMA * final_phi[30, 0].item(), abs=1e-14)
        assert (after - before)[:, 1:].abs().max().item() < 1e-14

    def test_a_potential_zeroed_at_a_time_limit_is_not_invariant(self):
        r, value, phi, final_value, final_phi, terminated, time_out = self._problem()
        wrong = r + state_potential(phi, final_phi, terminated | time_out, GAMMA)
        before = self._gae(r, value, final_value, terminated, time_out, 0.95)
        after = self._gae(wrong, value - phi, final_value - final_phi, terminated, time_out, 0.95)
        assert (after - before)[30, 1].item() == pytest.approx(-GAMMA * final_phi[30, 1].item(), abs=1e-14)

    @pytest.mark.parametrize("column, expected_end", [(0, "nothing"), (1, "kept")])
    def test_returns_telescope(self, column, expected_end):
        """sum gamma^t F_t = gamma^L Phi_L - Phi_0 over the episode of steps 0..30, for both kinds of potential."""
        _, _, phi, _, final_phi, terminated, time_out = self._problem()
        discount = GAMMA ** torch.arange(31, dtype=F64)
        end = {"nothing": 0.0, "kept": final_phi[30, column]}[expected_end]
        state = state_potential(phi, final_phi, terminated, GAMMA)[:31, column]
        assert (discount * state).sum().item() == pytest.approx(float(GAMMA**31 * end - phi[0, column]), abs=1e-13)
        # phi as the per-step reward h: at the time limit the last potential seen stands in
        end = {"nothing": 0.0, "kept": phi[30, column]}[expected_end]
        ahead = look_ahead_potential(phi, terminated, time_out, GAMMA, 2.0)[:31, column]
        expected = 2.0 * float(GAMMA**31 * end - phi[0, column])
        assert (discount * ahead).sum().item() == pytest.approx(expected, abs=1e-13)

    def test_an_action_dependent_potential_biases_the_advantage(self):
        """One state, two actions, two steps: Phi(s, a) = h(a), no reward at all. Nothing to gain, yet the shaped
        problem prefers the action of smaller h: A'(a) = -(h(a) - E h). Only the return's telescoping is left."""
        h = torch.tensor([[0.0, 1.0], [0.5, 0.5], [9.0, 9.0]], dtype=F64)  # columns: the two first actions
        terminated = torch.tensor([[False, False], [True, True], [False, False]])
        shaped = look_ahead_potential(h, terminated, torch.zeros_like(terminated), 1.0)
        q = shaped.sum(0)
        assert q.tolist() == [0.0, -1.0]
        assert (q - q.mean()).tolist() == [0.5, -0.5]


class Honeypot:
    """Ten states in a row, {stay, right}. Leaving the right end pays r = 1 and ends; s_0 has h = c = 0.1."""

    LENGTH, C = 10, 0.1

    def rows(self):
        """r, s', terminated as (LENGTH, 2)."""
        state = torch.arange(self.LENGTH)
        successor = torch.stack((state, state + 1), 1)
        terminated = successor == self.LENGTH
        return terminated.to(F64), successor.clamp_max(self.LENGTH - 1), terminated

    def reaches_goal(self, reward, discount):
        """Greedy at s_0 under value iteration."""
        _, successor, terminated = self.rows()
        alive = (~terminated).to(F64)
        value = torch.zeros(self.LENGTH, dtype=F64)
        for _ in range(5000):
            q = reward + discount * alive * value[successor]
            value = q.max(1).values
        return bool(q[0, 1] > q[0, 0])


class TestHoneypot(Honeypot):
    def _hurl(self, lam):
        r, successor, terminated = self.rows()
        h = self.C * (successor == 0).to(F64)  # emitted by the step into s'
        return self.reaches_goal(horizon_reward(r, h, terminated, GAMMA, lam), horizon_discount(GAMMA, lam))

    def test_hurl_reaches_the_goal_above_its_threshold(self):
        """Goal iff (lam gamma)^9 > (1 - lam) gamma c / (1 - lam gamma): lam = .77822."""
        low, high = 0.5, 0.99
        for _ in range(60):
            middle = 0.5 * (low + high)
            goal = (middle * GAMMA) ** 9 > (1 - middle) * GAMMA * self.C / (1 - middle * GAMMA)
            low, high = (low, middle) if goal else (middle, high)
        assert low == pytest.approx(0.77822, abs=5e-6)
        assert self._hurl(low + 1e-4)
        assert not self._hurl(low - 1e-4)

    @pytest.mark.parametrize("scale", [0.1, 10.0, -10.0])
    def test_a_potential_never_traps(self, scale):
        r, successor, terminated = self.rows()
        phi = scale * (torch.arange(self.LENGTH) == 0).to(F64)
        reward = r + state_potential(phi.unsqueeze(1).expand(-1, 2), phi[successor], terminated, GAMMA)
        assert self.reaches_goal(reward, GAMMA)
        # the same h as a bonus does trap, so the test can fail
        bonus = r + self.C * (successor == 0).to(F64)
        assert not self.reaches_goal(bonus, GAMMA)


class TestHurlInGeneral:
    def _mdp(self, seed):
        rng = np.random.default_rng(seed)
        return torch.tensor(rng.dirichlet(np.ones(5), size=(5, 3))), torch.tensor(rng.normal(size=(5, 3)))

    @staticmethod
    def _optimal(transition, reward, discount):
        value = torch.zeros(5, dtype=F64)
        for _ in range(600):
            q = reward + discount * transition @ value
            value = q.max(1).values
        return value, q.argmax(1)

    @pytest.mark.parametrize("seed", range(5))
    @pytest.mark.parametrize("lam", [0.0, 0.5, 0.9])
    def test_the_true_value_as_heuristic_keeps_the_optimum(self, seed, lam):
        transition, reward = self._mdp(seed)
        value, policy = self._optimal(transition, reward, 0.9)
        expected_h = transition @ value
        shaped = horizon_reward(reward, expected_h, torch.zeros(5, 3, dtype=torch.bool), 0.9, lam)
        assert self._optimal(transition, shaped, horizon_discount(0.9, lam))[1].tolist() == policy.tolist()

    def test_a_learned_potential_turns_into_h(self):
        """Phi of one fixed policy, iterated to its fixed point: E[gamma Phi(s', a') - Phi(s, a)] = h(s, a)."""
        transition, h = self._mdp(0)
        policy = torch.full((5, 3), 1 / 3, dtype=F64)
        phi, none = torch.zeros(5, 3, dtype=F64), torch.zeros(5, 3, dtype=torch.bool)
        for _ in range(600):
            phi = learned_potential_target(h, transition @ (policy * phi).sum(1), none, 0.9)
        bonus = state_potential(phi, transition @ (policy * phi).sum(1), none, 0.9)
        torch.testing.assert_close(bonus, h)

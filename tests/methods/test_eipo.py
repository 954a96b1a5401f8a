"""EIPO's two utilities on random finite MDPs with exact values, and the sign of its multiplier."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hepo_isaac.methods.eipo import SWITCH_RULES, constraint_gap, leave_stage, max_stage_utility, min_stage_utility
from hepo_isaac.methods.multiplier import Multiplier, MultiplierConfig

GAMMA = 0.9
ALPHAS = [-0.5, 0.0, 0.7, 5.0]


class _MDP:
    """Six states, three actions, uniform start; two random policies pi and pi_J with exact values."""

    def __init__(self, seed, states=6, actions=3):
        rng = np.random.default_rng(seed)
        self.transition = rng.dirichlet(np.ones(states), size=(states, actions))
        self.r, self.h = rng.normal(size=(states, actions)), rng.normal(size=(states, actions))
        self.pi, self.pi_j = rng.dirichlet(np.ones(actions), size=(2, states))

    def value(self, reward, policy):
        matrix = np.einsum("sa,sat->st", policy, self.transition)
        return np.linalg.solve(np.eye(len(reward)) - GAMMA * matrix, (policy * reward).sum(1))

    def ret(self, reward, policy):
        """Expected discounted return of any (states, actions) table."""
        return float(self.value(np.asarray(reward), policy).mean())

    def advantage(self, reward, policy):
        value = self.value(reward, policy)
        return torch.tensor(reward + GAMMA * self.transition @ value - value[:, None])

    def lagrangian(self, alpha):
        j, j_ref = self.ret(self.r, self.pi), self.ret(self.r, self.pi_j)
        return (1 + alpha) * j + self.ret(self.h, self.pi) - alpha * j_ref


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("seed", range(5))
class TestIdentities:
    def test_max_stage(self, seed, alpha):
        """E_pi[sum gamma^t U_max] = L."""
        mdp = _MDP(seed)
        r, h = torch.tensor(mdp.r), torch.tensor(mdp.h)
        utility = max_stage_utility(r, h, mdp.advantage(mdp.r, mdp.pi_j), alpha)
        assert mdp.ret(utility, mdp.pi) == pytest.approx(mdp.lagrangian(alpha), abs=1e-10)

    def test_min_stage(self, seed, alpha):
        """E_pi_J[sum gamma^t U_min] = -L."""
        mdp = _MDP(seed)
        r, h = torch.tensor(mdp.r), torch.tensor(mdp.h)
        a_r, a_h = mdp.advantage(mdp.r, mdp.pi), mdp.advantage(mdp.h, mdp.pi)
        utility = min_stage_utility(r, h, a_r, a_h, torch.tensor(alpha, dtype=torch.float64))
        assert mdp.ret(utility, mdp.pi_j) == pytest.approx(-mdp.lagrangian(alpha), abs=1e-10)

    def test_the_forms_with_values_are_the_same(self, seed, alpha):
        mdp = _MDP(seed)
        r, h = torch.tensor(mdp.r), torch.tensor(mdp.h)
        v_j = mdp.value(mdp.r, mdp.pi_j)
        expected = (1 + alpha) * mdp.r + mdp.h + alpha * (GAMMA * mdp.transition @ v_j - v_j[:, None])
        got = max_stage_utility(r, h, mdp.advantage(mdp.r, mdp.pi_j), alpha)
        np.testing.assert_allclose(got.numpy(), expected, atol=1e-12)
        v = (1 + alpha) * mdp.value(mdp.r, mdp.pi) + mdp.value(mdp.h, mdp.pi)
        expected = alpha * mdp.r + GAMMA * mdp.transition @ v - v[:, None]
        got = min_stage_utility(r, h, mdp.advantage(mdp.r, mdp.pi), mdp.advantage(mdp.h, mdp.pi), alpha)
        np.testing.assert_allclose(got.numpy(), expected, atol=1e-12)


def test_the_rlpyt_form_of_the_min_stage_is_not_the_lagrangian():
    """(alpha - 1) r - h + A_r + A_h: off by alpha J(pi), a constant for pi_J but not for the switching rules."""
    mdp = _MDP(0)
    a_r, a_h = mdp.advantage(mdp.r, mdp.pi).numpy(), mdp.advantage(mdp.h, mdp.pi).numpy()
    for alpha in ALPHAS:
        error = mdp.ret((alpha - 1) * mdp.r - mdp.h + a_r + a_h, mdp.pi_j) + mdp.lagrangian(alpha)
        assert error == pytest.approx(alpha * mdp.ret(mdp.r, mdp.pi), abs=1e-10)
        assert (abs(error) < 1e-9) == (alpha == 0.0)


class TestConstraintGap:
    def test_by_hand(self):
        ratio, advantage = torch.tensor([1.5, 0.5, 1.5, 0.5]), torch.tensor([1.0, 1.0, -1.0, -1.0])
        # min(1.5, 1.2) + min(.5, .8) + min(-1.5, -1.2) + min(-.5, -.8) = 1.2 + .5 - 1.5 - .8
        assert constraint_gap(ratio, advantage, 0.2).item() == pytest.approx(-0.6 / 4)
        assert constraint_gap(ratio.expand(3, 4), advantage, 0.2).shape == (3,)

    def test_unclipped_it_is_the_gap_per_step(self):
        """E over d_pi_J x pi_J of rho A is E over pi, the surrogate of (1 - gamma) (J(pi) - J(pi_J)): exact in a
        bandit, and of the same sign for policies close to each other."""
        mdp = _MDP(1)
        near = 0.98 * mdp.pi_j + 0.02 * mdp.pi
        matrix = np.einsum("sa,sat->st", mdp.pi_j, mdp.transition)
        visits = (1 - GAMMA) * np.linalg.solve((np.eye(6) - GAMMA * matrix).T, np.full(6, 1 / 6))
        weight = torch.tensor(visits[:, None] * mdp.pi_j) * 18  # 18 equally likely cells
        ratio, advantage = torch.tensor(near / mdp.pi_j), mdp.advantage(mdp.r, mdp.pi_j)
        got = constraint_gap(ratio.flatten(), (weight * advantage).flatten(), 1e9).item()
        expected = (1 - GAMMA) * (mdp.ret(mdp.r, near) - mdp.ret(mdp.r, mdp.pi_j))
        assert got == pytest.approx(expected, rel=0.1)
        assert abs(expected) > 1e-4

    @pytest.mark.parametrize("better", [True, False])
    def test_alpha_falls_if_pi_beats_the_reference(self, better):
        """Two arms paying 1 and 0, pi_J at .5: its advantages are +-.5. pi moves to the first or the second arm."""
        p = 0.55 if better else 0.45
        ratio = torch.tensor([[p / 0.5, (1 - p) / 0.5]])
        gap = constraint_gap(ratio, torch.tensor([[0.5, -0.5]]), 0.2)
        assert gap.item() == pytest.approx(p - 0.5)
        alpha = Multiplier(MultiplierConfig(init=0.5, lr=0.01, gradient_clip=0.05), 1, torch.device("cpu"))
        alpha.record(gap)
        alpha.update()
        assert (alpha.value.item() < 0.5) == better
        assert alpha.value.item() != 0.5


class TestLeaveStage:
    def _leave(self, rule, mean, previous=0.0, seen=True, iterations=1, **kwargs):
        got = leave_stage(
            torch.tensor([mean]),
            torch.tensor([previous]),
            torch.tensor([seen]),
            torch.tensor([iterations]),
            rule,
            **kwargs,
        )
        assert got.dtype == torch.bool
        return got.item()

    @pytest.mark.parametrize("mean, previous, leave", [(1.0, 2.0, True), (2.0, 2.0, True), (3.0, 2.0, False)])
    def test_difference(self, mean, previous, leave):
        assert self._leave("difference", mean, previous) is leave
        assert self._leave("difference", mean, previous, seen=False) is False

    def test_difference_reads_nothing_on_a_first_visit(self):
        assert self._leave("difference", -1.0, float("nan"), seen=False) is False

    @pytest.mark.parametrize("mean, leave", [(-1e-3, True), (0.0, False), (1.0, False)])
    def test_win_lose(self, mean, leave):
        assert self._leave("win_lose", mean) is leave

    def test_alternate(self):
        assert self._leave("alternate", 1.0, seen=False) is True

    @pytest.mark.parametrize("rule", SWITCH_RULES)
    def test_no_stage_is_kept_for_ever(self, rule):
        assert self._leave(rule, 1.0, 0.0, iterations=16) is True
        assert self._leave(rule, 1.0, 0.0, iterations=3, max_iterations=3) is True
        assert self._leave(rule, 1.0, 0.0, iterations=15) is (rule == "alternate")

    def test_runs_decide_for_themselves(self):
        ones = torch.ones(3, dtype=torch.int64)
        got = leave_stage(
            torch.tensor([1.0, 2.0, 1.0]),
            torch.tensor([1.5] * 3),
            torch.tensor([True, True, False]),
            ones,
            "difference",
        )
        assert got.tolist() == [True, False, False]

    def test_unknown_rule_is_named(self):
        with pytest.raises(ValueError, match="win_lose"):
            self._leave("diff", 1.0)

"""Problems whose answer is known: what HEPO's objective wants, and what its multiplier and mixing do about it."""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest
import torch

from hepo_isaac.methods.advantages import constrained_weights, gae, standardize
from hepo_isaac.methods.contrast import ADVANTAGE_CONTRASTS, advantage_contrast
from hepo_isaac.methods.multiplier import Multiplier, MultiplierConfig

GAMMA = 0.99
F64 = torch.float64


def _multiplier(runs=1, **config):
    config.setdefault("allow_negative", config.get("minimum", 0.0) < 0.0)
    return Multiplier(MultiplierConfig(**config), runs, torch.device("cpu"))


def _drive(multiplier, gap):
    multiplier.record(gap)
    multiplier.update()


def _mixed_reward(task, heuristic, alpha, heuristic_weight=1.0):
    """The reward pi maximises, from the weights the agent uses."""
    w = constrained_weights(torch.tensor([alpha], dtype=torch.float64), heuristic_weight)[0].numpy()
    return w[0] * task + w[1] * heuristic


class TestHoneypot:
    """Ten states in a row. Staying at the left end pays h = 0.1 for ever; leaving the right end pays r = 1 and ends."""

    def _reaches_goal(self, alpha, heuristic_weight=1.0, length=11):
        """Greedy policy by value iteration over {stay, right}; does it leave the left end?"""
        task, heuristic = np.zeros((length, 2)), np.zeros((length, 2))
        heuristic[0, 0] = 0.1
        task[length - 2, 1] = 1.0
        reward = _mixed_reward(task, heuristic, alpha, heuristic_weight)
        value = np.zeros(length)
        for _ in range(6000):
            stay, right = reward[:, 0] + GAMMA * value, reward[:, 1] + GAMMA * np.append(value[1:], 0.0)
            new = np.maximum(stay, right)
            new[length - 1] = 0.0  # the goal is terminal
            value = new
        return reward[0, 1] + GAMMA * value[1] > reward[0, 0] + GAMMA * value[0]

    # c / ((1 - gamma) gamma^9): the tenth move pays. 1 + alpha must exceed 10.947.
    THRESHOLD = 0.1 / ((1 - GAMMA) * GAMMA**9)

    @pytest.mark.parametrize("factor, goal", [(1.01, True), (0.99, False)])
    def test_alpha_that_frees_pi(self, factor, goal):
        assert pytest.approx(10.947, abs=1e-3) == self.THRESHOLD
        assert self._reaches_goal(self.THRESHOLD * factor - 1.0) is np.bool_(goal)

    def test_plain_hepo_stays_hacked(self):
        """J(pi_H) = 0, so the constraint is vacuous and alpha = 0: the limit the method has, on record."""
        assert not self._reaches_goal(0.0)

    @pytest.mark.parametrize("factor, goal", [(0.99, True), (1.01, False)])
    def test_fixed_weight_threshold(self, factor, goal):
        assert self._reaches_goal(0.0, factor / self.THRESHOLD) is np.bool_(goal)


class TestTwoArms:
    """Arm 1 pays r = 1, arm 2 pays h = c."""

    @staticmethod
    def _advantages(probability, c, n=1000):
        first = int(n * probability)
        r = torch.cat((torch.ones(first), torch.zeros(n - first)))
        return torch.stack((r - r.mean(), c * (1 - r) - (c * (1 - r)).mean()), -1).unsqueeze(0)

    @pytest.mark.parametrize("c", [0.5, 2.0, 100.0])
    @pytest.mark.parametrize("alpha, arm", [(-0.5, 2), (1.0, 1), (9.0, 1)])
    def test_standardised_mixing_switches_at_alpha_zero_for_every_scale_of_h(self, c, alpha, arm):
        z = standardize(self._advantages(0.3, c), dim=(1,))
        mixed = (z * constrained_weights(torch.tensor([alpha]), 1.0).unsqueeze(1)).sum(-1)[0]
        assert (mixed[0] > mixed[-1]).item() == (arm == 1)

    @pytest.mark.parametrize("c", [0.5, 2.0, 100.0])
    def test_at_alpha_zero_there_is_no_gradient(self, c):
        z = standardize(self._advantages(0.3, c), dim=(1,))
        mixed = (z * constrained_weights(torch.tensor([0.0]), 1.0).unsqueeze(1)).sum(-1)
        assert mixed.abs().max().item() < 1e-5

    @pytest.mark.parametrize("c, alpha, arm", [(2.0, 0.5, 2), (2.0, 1.5, 1), (0.5, 0.0, 1)])
    def test_raw_mixing_switches_at_c(self, c, alpha, arm):
        raw = self._advantages(0.3, c)
        mixed = (raw * constrained_weights(torch.tensor([alpha]), 1.0).unsqueeze(1)).sum(-1)[0]
        assert (mixed[0] > mixed[-1]).item() == (arm == 1)


class TestTwoArmsForLong:
    """Arm 1 pays r = 1, arm 2 pays h = c; exact policy gradients of pi and pi_H, alpha stepped every iteration."""

    def _train(self, c, standardized, minimum):
        """(J at the end, its peak) for each c; 4000 iterations, rates ten times the release's over 40 000."""
        c = torch.tensor(c)
        alpha = _multiplier(len(c), lr=1e-3, minimum=minimum)
        logit, logit_h = torch.zeros_like(c), torch.zeros_like(c)
        peak = torch.zeros_like(c)
        for _ in range(4000):
            p, q = torch.sigmoid(logit), torch.sigmoid(logit_h)
            weights = constrained_weights(alpha.value, 1.0)
            # gradients of p and -p times their advantages' scale: c apart raw, one standard deviation otherwise
            scale = torch.where(torch.tensor(standardized), (p * (1 - p)).rsqrt(), torch.ones_like(p))
            size = torch.ones_like(c) if standardized else c
            logit = logit + 0.2 * p * (1 - p) * scale * (weights[:, 0] - size * weights[:, 1])
            logit_h = logit_h - 0.2 * q * (1 - q) * size
            peak = torch.maximum(peak, p)
            _drive(alpha, p - q)
        return torch.sigmoid(logit).tolist(), peak.tolist()

    def test_a_bounded_alpha_keeps_a_good_policy(self):
        """c = .5: J + H is right for ever. c = 2: the hack, as J(pi_H) = 0 makes the constraint vacuous."""
        (good, hacked), _ = self._train([0.5, 2.0], False, 0.0)
        assert good == pytest.approx(0.997, abs=1e-3)
        assert hacked == pytest.approx(0.001, abs=1e-3)

    def test_the_released_bound_ends_in_the_hack_even_so(self):
        """alpha_min = -.99, c = .5: pi first learns the task, then alpha < -.5 turns it round."""
        (final,), (peak,) = self._train([0.5], False, -0.99)
        assert peak == pytest.approx(0.95, abs=0.01)
        assert final < 0.003

    def test_standardised_it_is_undecided_at_zero_and_hacked_below(self):
        assert self._train([0.5, 2.0, 100.0], True, 0.0)[0] == pytest.approx([0.5] * 3)
        assert max(self._train([0.5, 2.0, 100.0], True, -0.99)[0]) < 1e-3


def _random_mdp(rng, states=5, actions=3):
    transition = rng.dirichlet(np.ones(states), size=(states, actions))
    return transition, rng.normal(size=(states, actions)), rng.normal(size=(states, actions))


def _optimal(transition, reward, gamma=0.9):
    value = np.zeros(len(reward))
    for _ in range(400):
        q = reward + gamma * transition @ value
        value = q.max(1)
    return q.argmax(1)


def _return(transition, reward, policy, gamma=0.9):
    rows = np.arange(len(policy))
    matrix = np.eye(len(policy)) - gamma * transition[rows, policy]
    return np.linalg.solve(matrix, reward[rows, policy]).mean()


@pytest.mark.parametrize("alpha", [-0.9, 0.0, 2.0])
def test_the_constraint_is_slack_at_exact_optima(alpha):
    """w (J(pi*) - J(pi_H)) >= H(pi_H) - H(pi*) >= 0 for every w > 0: with exact solvers alpha never has to rise."""
    rng = np.random.default_rng(0)
    for _ in range(60):
        transition, task, heuristic = _random_mdp(rng)
        pi = _optimal(transition, _mixed_reward(task, heuristic, alpha))
        pi_h = _optimal(transition, heuristic)
        assert _return(transition, task, pi) >= _return(transition, task, pi_h) - 1e-9


def test_the_constraint_binds_against_an_arbitrary_reference():
    """The same inequality against random policies fails sometimes, so the test above can fail."""
    rng = np.random.default_rng(0)
    violated = 0
    for _ in range(200):
        transition, task, heuristic = _random_mdp(rng)
        pi = _optimal(transition, _mixed_reward(task, heuristic, 0.0))
        violated += _return(transition, task, pi) < _return(transition, task, rng.integers(3, size=5))
    assert 0 < violated < 100


def test_alpha_falls_to_its_bound_when_pi_is_always_better():
    """The slackness lemma in the agent's own loop: positive contrasts drive alpha to its minimum and keep it."""
    multiplier = Multiplier(MultiplierConfig(init=1.0, lr=0.05), 1, torch.device("cpu"))
    g = torch.Generator().manual_seed(0)
    for _ in range(60):
        own = torch.randn(1, 2, 200, generator=g)
        cross = torch.randn(1, 2, 200, generator=g) + torch.tensor([-0.5, 0.5]).view(1, 2, 1)
        multiplier.record(advantage_contrast(own, cross, "raw_gae"))
        multiplier.update()
    assert multiplier.value.item() == 0.0


class TestDegenerateRewards:
    """What the rows look like when a reward says nothing, or says the other one."""

    def _advantages(self, seed=0, zero=None):
        """(1, 2, 60, 2) [r, h] advantages of both policies by a zero critic; channel ``zero`` is never paid."""
        g = torch.Generator().manual_seed(seed)
        reward = torch.randn(60, 2, 2, generator=g)
        if zero is not None:
            reward[..., zero] = 0.0
        none = torch.zeros(60, 2, dtype=torch.bool)
        advantages = gae(reward, torch.zeros_like(reward), torch.zeros(2, 2), none, none, torch.zeros(2, 2), 0.99, 0.95)
        return advantages.transpose(0, 1).unsqueeze(0)

    @staticmethod
    def _mixed(advantages, alpha):
        z = standardize(advantages, dim=(2,))
        return (z * constrained_weights(torch.tensor([alpha]), 1.0)).sum(-1), z

    def test_no_task_reward_leaves_alpha_alone_and_pi_follows_h(self):
        rows = self._advantages(zero=0)
        alpha = _multiplier(init=0.5)
        for mode in ADVANTAGE_CONTRASTS:
            _drive(alpha, advantage_contrast(rows[..., 0], rows[..., 0].flip(1), mode))
        assert alpha.value.item() == 0.5
        mixed, z = self._mixed(rows, 0.5)
        torch.testing.assert_close(mixed, z[..., 1] / 1.5)

    def test_no_heuristic_leaves_the_task_alone(self):
        mixed, z = self._mixed(self._advantages(zero=1), 0.5)
        assert torch.equal(mixed, z[..., 0])
        assert torch.equal(z[..., 1], torch.zeros_like(z[..., 1]))

    def test_a_heuristic_that_is_the_task_doubles_the_step(self):
        rows = self._advantages()[..., :1].expand(-1, -1, -1, 2)
        mixed, z = self._mixed(rows, 0.0)
        torch.testing.assert_close(mixed, 2.0 * z[..., 0])

    @pytest.mark.parametrize("mode", ADVANTAGE_CONTRASTS)
    def test_equal_policies_have_no_gap_on_average(self, mode):
        """500 draws of two policies with the same law; each gap is within noise, their mean four times closer still."""
        g = torch.Generator().manual_seed(0)
        own, cross = torch.randn(500, 2, 64, generator=g), torch.randn(500, 2, 64, generator=g)
        gaps = advantage_contrast(own, cross, mode)
        assert gaps.mean().abs().item() < 4 * gaps.std().item() / sqrt(500)
        assert gaps.std().item() < 0.3

    def test_a_constant_heuristic_pays_for_staying_alive_and_nothing_else(self):
        """h = 1, gamma = .9. All episodes of 10 steps and a critic that knows the time: no advantage. If every second
        env may end at step 4, a critic that cannot foresee it is disappointed there and nowhere else."""
        left = torch.tensor([(1 - 0.9 ** (10 - t)) / 0.1 for t in range(10)], dtype=F64).view(10, 1, 1).expand(10, 2, 1)
        ends = torch.zeros(10, 2, dtype=torch.bool)
        ends[9] = True
        nothing = torch.zeros(2, 1, dtype=F64)

        def advantages():
            return gae(torch.ones(10, 2, 1, dtype=F64), left, nothing, ends, torch.zeros_like(ends), nothing, 0.9, 0.95)

        assert advantages().abs().max().item() < 1e-13
        assert torch.equal(standardize(advantages(), dim=(0, 1)), torch.zeros_like(left))
        ends[4, 1] = True
        early = advantages()[..., 0]
        assert early[4, 1].item() == pytest.approx(-0.9 * left[5, 0, 0].item())
        assert (early[:5, 1] < 0).all()
        assert early[:, 0].abs().max().item() < 1e-13

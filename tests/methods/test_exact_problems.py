"""Problems whose answer is known: what HEPO's objective wants, and what its multiplier and mixing do about it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hepo_isaac.methods.advantages import constrained_weights, standardize
from hepo_isaac.methods.contrast import advantage_contrast
from hepo_isaac.methods.multiplier import Multiplier, MultiplierConfig

GAMMA = 0.99


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

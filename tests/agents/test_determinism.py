"""The same seed is the same training to the bit, another one is not; twenty iterations are ten and ten.

That six on Push2D are three and three is in test_presets.py, for every method and its variants."""

from __future__ import annotations

import copy

import pytest
import torch

from hepo_isaac.locate import group_names, robot_tasks
from tests.agents.test_seeds import train

# annealing and the like included: every file of cfg/algo
METHODS = group_names("algo")
MORE = {"ppo_lagrangian": ("algo.threshold=0.1",), "ppo_lagrangian_pid": ("algo.threshold=0.1",)}
SLOW_TASKS = ("FrankaCabinet", "Cartpole", "Survival")


def state(task, algo, seed, iterations, **more):
    return train((seed,), *MORE.get(algo, ()), task=task, algo=algo, iterations=iterations, **more).agent


def flat(agent):
    return agent.learner.policies.net.flat.detach().clone()


def assert_pairs(task, algo):
    first, again, other = (flat(state(task, algo, seed, 2)) for seed in (3, 3, 4))
    assert torch.equal(first, again) and not torch.equal(first, other)


def assert_goes_on(task, algo, iterations):
    whole = state(task, algo, 3, iterations)
    half = state(task, algo, 3, iterations, stop_at=iterations // 2)
    rest = state(task, algo, 3, iterations, states=[copy.deepcopy(half.get_run_state(0))])
    assert torch.equal(flat(whole), flat(rest))


@pytest.mark.parametrize("algo", METHODS)
def test_a_seed_is_a_training(algo):
    assert_pairs("Push2D", algo)


@pytest.mark.slow
@pytest.mark.parametrize("algo", METHODS)
@pytest.mark.parametrize("task", SLOW_TASKS)
def test_a_seed_is_a_training_on_other_tasks(task, algo):
    assert_pairs(task, algo)


@pytest.mark.slow
@pytest.mark.parametrize("algo", METHODS)
@pytest.mark.parametrize("task", robot_tasks())
def test_twenty_iterations_are_ten_and_ten(task, algo):
    assert_goes_on(task, algo, 20)

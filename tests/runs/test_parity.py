"""The comparison of engines, with MuJoCo C in both places: it must find nothing, and see a small change."""

from __future__ import annotations

import torch

from hepo_isaac.runs.parity.steps import CHAOTIC, Trio, single_steps
from tests.tasks.robots import actions, make


def trio(task, *overrides):
    return Trio(make(task, 8, *overrides), make(task, 8), make(task, 8))


def test_the_same_engine_departs_by_nothing():
    three = trio("Ant")
    run = single_steps(three, actions(three.reference, 1, 26), 10)
    assert run.off.shape == run.chaos.shape == (20, 8)
    assert run.off.max() == 0.0
    assert 0.0 < run.chaos.median() < CHAOTIC  # a state changed by rounding departs by about that
    assert run.calm.float().mean() > 0.8
    assert run.share(0.0) == 1.0
    assert three.sound()


def test_a_changed_parameter_is_seen():
    three = trio("Ant", "task.physics.joints.damping=0.103")
    run = single_steps(three, actions(three.reference, 1, 26), 10)
    assert run.worst() > 3e-4


def test_only_what_comes_before_a_reset_is_compared_where_draws_differ():
    three = trio("Cartpole")
    three._same_draws = False
    three.warp.task.streams.rand(5)  # from now on it starts other episodes
    three.reference.reset()
    three.reference.progress[:4] = three.reference.max_episode_length - 1
    three.align()
    off, _ = three.step(torch.zeros(8, 1))
    assert three.warp.progress[:4].max() == 0
    assert off.max() == 0.0
    obs = [env.task.observe() for env in (three.warp, three.reference)]
    assert not torch.equal(*obs)

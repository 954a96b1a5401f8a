"""Every poison at every place: whoever was first is named, what was recorded and kept before it is as in a sound run,
and numbers that are merely large do no harm. Each case is three iterations of a small run, poisoned in the second.

python -m pytest --slow tests/agents/test_poisons.py      # the other tasks and methods too
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pytest
import torch

from hepo_isaac.errors import UnstablePhysicsError, UserError
from tests.agents.test_seeds import Recorder, train

ENVS, HORIZON, AT = 16, 16, 20  # the fifth step of the second iteration
VALUES = {"nan": float("nan"), "inf": float("inf"), "-inf": float("-inf"), "1e38": 1e38}
# The two policies of hepo act in the first and in the second half of the envs.
WHERE = {"one of pi": [3], "one of pi_H": [12], "all": list(range(ENVS))}
SAID = {
    "action": "iteration 2, step 5: the policy's actions",
    "observation": "iteration 2, step 5: the observations of task %s",
    "task_reward": "iteration 2, step 5: the task reward of %s",
    "heuristic": "iteration 2, step 5: heuristic default",
    "term": "iteration 2, step 5: heuristic default",
    "metric": "iteration 2, step 5: a metric of task %s",
}


def every_result(env, name, plant):
    """``plant`` changes what ``env.task.<name>()`` returns, from the step AT on."""
    inner = getattr(env.task, name)

    def outer():
        found = inner()
        return plant(found) if env.clock == AT + 1 else found

    setattr(env.task, name, outer)


def planted(place, value, rows):
    """A hook for an environment."""

    def put(tensor):
        tensor = tensor.clone()
        tensor[rows] = value
        return tensor

    def hook(env):
        step, env.clock = env.step, 0

        def counted(actions):
            env.clock += 1
            if place == "action" and env.clock == AT + 1:
                actions = put(actions)
            return step(actions)

        env.step = counted
        if place == "observation":
            every_result(env, "observe", put)
        elif place == "metric":
            every_result(env, "metrics", lambda found: {**found, "planted": put(found["planted"])})
        elif place == "term":
            every_result(
                env, "rewards", lambda r: dataclasses.replace(r, terms={k: put(x) for k, x in r.terms.items()})
            )
        elif place == "task_reward":
            every_result(env, "rewards", lambda r: dataclasses.replace(r, task=put(r.task)))
        elif place == "heuristic":
            every_result(env, "rewards", lambda r: dataclasses.replace(r, heuristic=put(r.heuristic)))

    return hook


class Keeper(Recorder):
    """Keeps the state after every recorded iteration, as a checkpoint would; ``break_it(agent)`` follows the first."""

    def __init__(self, break_it=None):
        super().__init__()
        self.kept, self.break_it = [], break_it

    def on_iteration(self, agent, metrics):
        self.kept.append([x.clone() for x in tensors(agent.get_run_state(0))])
        if self.break_it is not None and agent.iteration == 1:
            self.break_it(agent)
        return super().on_iteration(agent, metrics)


def tensors(node):
    """Floating point tensors of a run's state, but for those whose infinities say that there is nothing yet: alpha's
    records, and what hepo_plus knows of its members."""
    if isinstance(node, dict):
        return [x for key, value in node.items() if key not in ("records", "experience") for x in tensors(value)]
    if isinstance(node, (list, tuple)):
        return [x for value in node for x in tensors(value)]
    return [node] if isinstance(node, torch.Tensor) and node.is_floating_point() else []


def with_a_metric(env):
    """A task of the suite has none of its own."""
    inner = env.task.metrics
    env.task.metrics = lambda: {**inner(), "planted": torch.zeros(ENVS)}


def run(task, algo, plant=None, break_it=None):
    """The observer and what ended the run, None if nothing did."""
    observer, ended = Keeper(break_it), None

    def hook(env):
        with_a_metric(env)
        if plant is not None:
            plant(env)

    physics = task in ("Ant", "FrankaCabinet", "Cartpole")
    more = ["sim.threads=1"] if physics else []
    try:
        train((5,), *more, task=task, algo=algo, iterations=3, env_hook=hook, observer=observer)
    except UserError as error:
        ended = error
    return observer, ended


@functools.cache
def sound(task, algo):
    observer, ended = run(task, algo)
    assert ended is None and len(observer.kept) == 3
    return observer.kept


def assert_stopped_in_time(observer, task, algo):
    """Only the first iteration was recorded, and what was kept of it is the sound run's to the bit."""
    assert len(observer.rows) == len(observer.kept) == 1
    assert all(torch.equal(a, b) for a, b in zip(observer.kept[0], sound(task, algo)[0]))
    assert all(x.isfinite().all() for x in observer.kept[0])


OFTEN = ("Push2D", "hepo")
MORE = [("Ant", "hepo"), ("FrankaCabinet", "hepo_plus"), ("Survival", "ppo_jh"), ("Cartpole", "eipo")]
CASES = [
    pytest.param(task, algo, place, value, where, id="-".join((task, algo, place, value, where)), marks=marks)
    for (task, algo), marks in [(OFTEN, []), *((other, [pytest.mark.slow]) for other in MORE)]
    for place in SAID
    for value in VALUES
    for where in WHERE
]


@pytest.mark.parametrize(("task", "algo", "place", "value", "where"), CASES)
def test_a_number_that_is_none_is_named_and_never_kept(task, algo, place, value, where):
    observer, ended = run(task, algo, planted(place, VALUES[value], WHERE[where]))
    said = SAID[place] % task if "%s" in SAID[place] else SAID[place]
    assert ended is not None and str(ended).startswith(said), ended
    assert "in %d cases" % len(WHERE[where]) in str(ended)
    assert_stopped_in_time(observer, task, algo)


@pytest.mark.parametrize("place", ["observation", "task_reward", "heuristic"])
@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("value", [9e14, -9e14])
def test_what_is_only_large_does_no_harm(place, where, value):
    observer, ended = run(*OFTEN, planted(place, value, WHERE[where]))
    assert ended is None and len(observer.rows) == 3
    assert all(x.isfinite().all() for kept in observer.kept for x in kept)


# ---- behind the environment's guard: what an update could leave ------------------------------------------------------


def in_weights(agent, value):
    agent.learner.policies.net.flat.data[-1, 7] = value


def in_observation_mean(agent, value):
    agent.learner.policies.obs_norm.mean[0, 1] = value


def in_observation_variance(agent, value):
    agent.learner.policies.obs_norm.var[0, 1] = value


def in_value_mean(agent, value):
    agent.learner.policies.value_norm.mean[0, 0] = value


def in_value_variance(agent, value):
    agent.learner.policies.value_norm.var[0, 0] = value


def in_alpha(agent, value):
    agent.learner.multiplier.value.fill_(value)


INSIDE = (in_weights, in_observation_mean, in_observation_variance, in_value_mean, in_value_variance, in_alpha)


@pytest.mark.parametrize("place", INSIDE, ids=[p.__name__ for p in INSIDE])
@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_what_an_update_left_is_found_before_it_is_kept(place, value):
    observer, ended = run(*OFTEN, break_it=lambda agent: place(agent, VALUES[value]))
    assert ended is not None and str(ended).startswith("iteration 2"), ended
    assert "the update left NaN" in str(ended) or "the policy's actions" in str(ended)
    assert_stopped_in_time(observer, *OFTEN)


# ---- a velocity: the physics diverges, and that is another sentence --------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("task", ["Ant", "FrankaCabinet", "Cartpole"])
@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("value", ["nan", "inf", "1e38"])
def test_worlds_that_diverge_start_anew_or_end_the_run(task, where, value):
    def hook(env):
        step, count = env.step, iter(range(10**6))

        def outer(actions):
            if next(count) == AT:
                only = torch.zeros(ENVS, dtype=torch.bool)
                only[WHERE[where]] = True
                sim, root = env.sim, env.sim.root_state.clone()
                root[..., 7:] = VALUES[value]
                with np.errstate(invalid="ignore"):  # infinity - infinity, while the pose is turned
                    sim.set_state(only, sim.dof_pos.clone(), torch.full_like(sim.dof_vel, VALUES[value]), root)
            return step(actions)

        env.step = outer

    observer, ended = run(task, "hepo", hook)
    assert isinstance(ended, UnstablePhysicsError) and "%d of 16 worlds diverged" % len(WHERE[where]) in str(ended)
    assert_stopped_in_time(observer, task, "hepo")

"""NaN is named by who was first, stops its own run alone, and is never saved."""

from __future__ import annotations

import math

import pytest
import torch

from hepo_isaac.envs.faults import FAULTS
from hepo_isaac.errors import UnstablePhysicsError, UserError
from tests.agents.test_agent import Recorder, train
from tests.agents.test_seeds import Recorder as SeedsRecorder
from tests.agents.test_seeds import train as train_seeds
from tests.toy import PointMass

SAID = {
    "action": "the policy's actions",
    "observation": "the observations of task PointMass",
    "task_reward": "the task reward of PointMass",
    "heuristic": "heuristic toy",
    "potential": "potential none",
    "metric": "a metric of task PointMass",
}


class Faulty(PointMass):
    """Reports faults in chosen steps, counted from the start: {step: [(env, fault), ...]}."""

    def __init__(self, plan, num_envs=16):
        super().__init__(num_envs)
        self.plan, self.steps = plan, 0

    def step(self, actions):
        found = super().step(actions)
        for env, fault in self.plan.get(self.steps, []):
            found[3]["faults"][env, FAULTS.index(fault)] = True
        self.steps += 1
        return found


def failing(plan, observer=None, **options):
    observer = observer or Recorder()
    with pytest.raises(UserError) as caught:
        train(env=Faulty(plan), observer=observer, **options)
    return str(caught.value), observer


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_stops_the_run_before_it_is_recorded_and_names_who(fault):
    horizon = train(max_iterations=1).agent.train_cfg.horizon_length
    said, observer = failing({horizon + 2: [(3, fault), (5, fault)]})
    assert said.startswith("iteration 2, step 3: %s: NaN, infinity or beyond 1e+15 in 2 cases; expected" % SAID[fault])
    assert [row["iteration"] for row in observer.rows] == [1.0] and observer.rows[0]["nonfinite"] == 0.0
    assert isinstance(observer.failure, UserError) and not observer.finished


def test_the_first_one_is_named_whoever_follows():
    assert "step 3: the task reward" in failing({2: [(0, "task_reward")], 3: [(k, "observation") for k in range(9)]})[0]


def test_in_one_step_the_cause_is_named():
    assert "step 4: the policy's actions" in failing({3: [(2, "task_reward"), (1, "heuristic"), (7, "action")]})[0]


@pytest.mark.parametrize("algo", ["hepo", "ppo_h", "hepo_plus", "eipo", "hurl", "hepo_release2"])
def test_an_update_that_breaks_the_weights_is_named_and_not_recorded(algo, monkeypatch):
    monkeypatch.setattr("hepo_isaac.config.check_numbers", lambda *args, **kwargs: None)  # it would refuse such rates
    observer = SeedsRecorder()
    with pytest.raises(UserError, match=r"iteration \d+: the update left NaN .* a smaller train\.learning_rate"):
        train_seeds((5,), "train.learning_rate=1e30", "train.max_lr=1e38", algo=algo, iterations=20, observer=observer)
    assert all(math.isfinite(value) for (row,) in observer.rows for key, value in row.items() if "loss" in key)


def test_statistics_that_break_are_seen_too():
    class Poisoned(Recorder):
        def on_iteration(self, agent, metrics):
            agent.learner.policies.obs_norm.var[0, 1] = float("inf")
            return super().on_iteration(agent, metrics)

    with pytest.raises(UserError, match="iteration 2: the update left NaN"):
        train(observer=Poisoned())


def test_a_fault_right_after_a_resume_is_seen():
    state = train(max_iterations=2).agent.get_full_state_weights()
    said, _ = failing({0: [(0, "heuristic")]}, Recorder(state))
    assert said.startswith("iteration 3, step 1: heuristic toy")


# ---- runs side by side --------------------------------------------------------------------------------------------


class Several(SeedsRecorder):
    """Keeps which runs failed."""

    def __init__(self):
        super().__init__()
        self.failures = {}

    def on_run_failure(self, run, error):
        self.failures[run] = (self.agent.iteration, error)


def together(poison=None, iterations=4):
    def hook(env):
        if poison is not None:
            step, count = env.step, iter(range(10**6))

            def poisoned(actions):
                result = step(actions)
                poison(next(count), result, env)
                return result

            env.step = poisoned

    return train_seeds((5, 6, 7), iterations=iterations, env_hook=hook, observer=Several())


def test_a_run_that_fails_takes_no_neighbour_along():
    """Its observations are really poisoned, behind the environment's own guard."""

    def poison(step, result, env):
        if step == 20:
            result.obs[16:32] = float("nan")

    clean, hurt = together(), together(poison)
    iteration, error = hurt.failures.pop(1)
    assert not hurt.failures and iteration == 2 and "iteration 2, step 6: the policy's actions" in str(error)
    assert not hurt.agent.get_run_state(1)["learner"]["flat"].isfinite().all()
    for run in (0, 2):
        a, b = (r.agent.get_run_state(run)["learner"]["flat"] for r in (clean, hurt))
        assert torch.equal(a, b)
    assert len(hurt.rows) == 4


def test_physics_that_diverges_in_one_run_is_counted_against_its_own_worlds():
    def poison(step, result, env):
        if step == 20:
            result.bad[16:20] = True  # 4 of 16 worlds of the second run, of 48 in all

    hurt = together(poison)
    assert set(hurt.failures) == {1} and isinstance(hurt.failures[1][1], UnstablePhysicsError)
    assert "4 of 16 worlds diverged" in str(hurt.failures[1][1])


def test_when_the_last_run_fails_all_are_named():
    def poison(step, result, env):
        if step in (20, 40):
            rows = slice(16, 32) if step == 20 else slice(None)
            result.faults[rows, FAULTS.index("task_reward")] = True

    with pytest.raises(UserError, match=r"3 of 3 runs failed: seed 5: .*; seed 6: .*; seed 7: "):
        together(poison)

"""The agent through rl-games' Runner: learning, exact resume, no host reads, failure handling."""

from __future__ import annotations

import functools
import math
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from rl_games.common.algo_observer import AlgoObserver

from hepo_isaac.agents.learner import Learner
from hepo_isaac.agents.player import HepoPlayer
from hepo_isaac.agents.register import register, register_env, run_evaluation, run_training, runner_params
from hepo_isaac.envs.rl_games import RlGamesVecEnv
from hepo_isaac.errors import UnstablePhysicsError, UserError
from hepo_isaac.runs.record.running import RunningMeans
from tests.host_reads import HostReads
from tests.tasks.franka import make as make_franka
from tests.tasks.robots import make as make_task
from tests.tasks.sampled import CHOSEN
from tests.toy import METHODS, TRAIN, PointMass

ROOT = Path(__file__).resolve().parents[2]


class Recorder(AlgoObserver):
    """Keeps the metrics; optionally a state to start from, and an iteration to stop at."""

    def __init__(self, state=None, stop_at=None):
        super().__init__()
        self.rows, self.state, self.stop_at = [], state, stop_at
        self.finished, self.failure, self.agent = False, None, None

    def after_init(self, algo):
        self.agent = algo
        if self.state is not None:
            algo.set_full_state_weights(self.state)

    def on_iteration(self, agent, metrics):
        assert len(metrics) == agent.num_runs
        self.rows.append(dict(metrics[0]))
        return agent.iteration == self.stop_at

    def on_finish(self, agent):
        self.finished = True

    def on_failure(self, agent, error):
        self.failure = error


def settings(algo="hepo", num_envs=16, seed=0, method=None, **train):
    return {
        "num_envs": num_envs,
        "device": "cpu",
        "torch_threads": 1,
        "seed": seed,
        "algo": {**METHODS[algo], **(method or {})},
        "train": {**TRAIN, **train},
    }


def train(algo="hepo", env=None, observer=None, seed=0, num_envs=16, method=None, **options):
    observer = observer or Recorder()
    env = env or PointMass(num_envs, seed=seed)
    run_training(settings(algo, num_envs, seed, method, **options), env, observer)
    return observer


def test_rl_games_runner_trains_the_same():
    """With the agent in its factory, and its environments by name."""
    from rl_games.torch_runner import Runner

    ours, theirs = train(), Recorder()
    cfg = settings()
    register_env(PointMass(16, seed=0))
    runner = Runner(theirs)
    register(runner)
    runner.load({"params": runner_params(cfg, [cfg["seed"]])})
    runner.run({"train": True, "play": False, "checkpoint": None, "sigma": None})
    assert theirs.finished
    assert torch.equal(theirs.agent.learner.policies.net.flat, ours.agent.learner.policies.net.flat)


def test_a_training_imports_no_compiler():
    """rl-games' Runner would bring torch's, 2.3 s and 125 MB that nothing here uses."""
    code = (
        "import sys; from hepo_isaac.runs.launch import main; "
        "main(['task=TwoArm', 'train.max_iterations=1', 'tensorboard=false', 'plot=false', 'run_root=%s']); "
        "print([m for m in ('torch._dynamo', 'torch._inductor', 'rl_games.torch_runner') if m in sys.modules])"
    )
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([sys.executable, "-c", code % folder], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == "[]", done.stdout + done.stderr


@pytest.mark.parametrize("algo", sorted(METHODS))
def test_every_method_runs_and_reports(algo):
    recorder = train(algo)
    assert recorder.finished and len(recorder.rows) == 5
    row = recorder.rows[-1]
    policies = ["pi", "pi_h"] if algo.startswith("hepo") else ["pi"]
    for policy in policies:
        for key in (
            "return_task",
            "return_heuristic",
            "episode_length",
            "episode/at_goal",
            "terms/distance",
            "learning_rate",
            "kl",
            "sigma",
            "loss_actor",
            "loss_critic",
            "clip_fraction_own",
        ):
            assert math.isfinite(row["%s/%s" % (key, policy)]), key
    assert ("alpha" in row) == (algo.startswith("hepo"))
    assert row["env_steps"] == 5 * 16 * 8 and row["iteration"] == 5


@pytest.mark.parametrize(
    "algo, judged",
    [("ppo_j", "return_task"), ("ppo_jh", "return_task"), ("ppo_h", "return_heuristic"), ("hepo", "return_task")],
)
def test_learning(algo, judged):
    """From random starts the point learns to sit where its method wants it: 0 for r, 0.6 for ppo_h's h."""
    offset = 0.6 if algo == "ppo_h" else 0.0
    scores = []
    for iterations in (1, 100):
        agent = train(
            algo,
            PointMass(64, seed=1, offset=offset),
            num_envs=64,
            max_iterations=iterations,
            minibatch_size=128,
            mini_epochs=4,
            kl_threshold=0.016,
        ).agent
        result = run_evaluation(
            settings(algo, 64), PointMass(64, seed=2, offset=offset), agent.get_full_state_weights(), episodes=64
        )
        scores.append(sum(result[judged]) / len(result[judged]))
    before, after = scores
    if judged == "return_heuristic":
        assert after > 0.5 * before, scores  # a cost, at least halved
    else:
        assert before < 0.2 and after > 0.4, scores


def test_no_host_read_inside_an_iteration():
    """Collect and learn on toy and real environment; the flush at the end is the only place that may read."""
    for env, num_envs in ((PointMass(16), 16), (RlGamesVecEnv(make_franka(16)), 16)):
        agent = train(env=env, num_envs=num_envs, max_iterations=2).agent
        with HostReads() as reads:
            agent.learn(agent.collect())
        assert reads.found == []


def test_the_counter_of_host_reads_counts():
    with HostReads() as reads:
        x = torch.ones(3)
        float(x.sum())
        x[x > 0]
        if (x > 0).all():
            pass
    assert len(reads.found) >= 3


def of_task(name):
    """Environments of a dexterous task, whose episodes begin anew within the six iterations; one in the default run."""
    made = functools.partial(make_task, name, 16, "task.episode_length=20", seed=3)
    marks = [pytest.mark.slow] if name in CHOSEN[1:] else []
    return pytest.param(lambda: RlGamesVecEnv(made()), id=name, marks=marks)


@pytest.mark.parametrize(
    "make_env",
    [
        pytest.param(lambda: PointMass(16, seed=3), id="toy"),
        pytest.param(lambda: RlGamesVecEnv(make_franka(16, seed=3)), id="franka"),
        *(of_task(name) for name in CHOSEN),
    ],
)
def test_resume_is_bit_exact(make_env):
    """6 iterations in one go equal 3 + 3 through a checkpoint, in every parameter, alpha, normaliser and env."""
    whole = train(env=make_env(), max_iterations=6)
    half = train(env=make_env(), max_iterations=6, observer=Recorder(stop_at=3))
    state = half.agent.get_full_state_weights()
    rest = train(env=make_env(), max_iterations=6, observer=Recorder(state=state), seed=99)
    a, b = whole.agent.get_full_state_weights(), rest.agent.get_full_state_weights()
    _assert_equal(a, b)
    keys = [k for k in whole.rows[-1] if k.split("/")[0] not in ("env_steps_per_second", "rollout_s", "update_s")]
    for mine, theirs in zip(whole.rows[3:], rest.rows):
        for key in keys:
            assert mine[key] == theirs[key] or (math.isnan(mine[key]) and math.isnan(theirs[key])), key


def _assert_equal(a, b, path="state"):
    assert type(a) is type(b), path
    if isinstance(a, dict):
        assert a.keys() == b.keys(), path
        for key in a:
            _assert_equal(a[key], b[key], "%s.%s" % (path, key))
    elif isinstance(a, (list, tuple)):
        for i, (x, y) in enumerate(zip(a, b)):
            _assert_equal(x, y, "%s[%d]" % (path, i))
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b), path
    else:
        assert a == b, path


def test_checkpoint_holds_only_plain_data(tmp_path):
    state = train().agent.get_full_state_weights()
    torch.save(state, tmp_path / "x.pt")
    _assert_equal(torch.load(tmp_path / "x.pt", weights_only=True), state)


@pytest.mark.parametrize("kind", ["agent", "player"])
def test_restoring_a_file_on_another_device(tmp_path, kind):
    """Random states must stay on the CPU wherever the tensors go; meta stands for a GPU."""
    state = train(seed=3).agent.get_full_state_weights()
    torch.save({"agent": state}, tmp_path / "x.pt")
    if kind == "agent":
        other = train(seed=4).agent
        learner = other.learner
    else:
        params = runner_params(settings(), [5])
        params["config"]["player"] = {"episodes": 1, "deterministic": True, "policy": "pi", "record": False}
        other = HepoPlayer(params, PointMass(16))
        learner = other
    other._device = torch.device("meta")
    other.restore(str(tmp_path / "x.pt"))
    assert torch.equal(learner.policies.net.flat, state["learner"]["flat"])
    if kind == "agent":
        _assert_equal(other.get_full_state_weights(), state)


def test_two_runs_are_equal_and_another_seed_differs():
    a, b, c = (train(seed=s).agent.learner.policies.net.flat for s in (4, 4, 5))
    assert torch.equal(a, b) and not torch.equal(a, c)


def test_seed_zero_is_a_seed():
    a, b = (train(seed=0).agent.learner.policies.net.flat for _ in range(2))
    assert torch.equal(a, b)


def test_each_env_keeps_its_policy():
    """pi drives the first half, pi_H the second, and episodes are counted for their owner."""
    env = PointMass(16)
    recorder = Recorder()
    train(env=env, observer=recorder)
    agent = recorder.agent
    agent.meter.take()
    env.rewards = lambda: torch.stack((torch.cat((torch.ones(8), 5 * torch.ones(8))), torch.zeros(16)), 1)
    for _ in range(6):  # long enough for whole episodes of 20 steps under the new rewards
        agent.collect()
        totals = agent.meter.take()
    columns = agent.meter.column_names()
    task, length = columns.index("return_task"), columns.index("episode_length")
    assert (totals[:, task] / totals[:, length]).tolist() == [1.0, 5.0]
    means = agent.buffer.rewards[..., 0]
    assert (means[:, 0] == 1.0).all() and (means[:, 1] == 5.0).all()


def test_time_limit_bootstraps_the_final_observation():
    """h = -1 every step, episodes end only by the time limit: the exact value of every state is -1/(1-gamma)."""
    env = PointMass(32, episode_length=8)
    env.rewards = lambda: torch.stack((torch.zeros(32), -torch.ones(32)), 1)
    agent = train(
        "ppo_h",
        env,
        num_envs=32,
        max_iterations=150,
        gamma=0.9,
        minibatch_size=256,
        mini_epochs=4,
        learning_rate=3e-3,
        lr_schedule="fixed",
    ).agent
    values = agent.learner.policies.values(env._obs().unsqueeze(0))[0, :, 1]
    assert values.mean().item() == pytest.approx(-10.0, abs=1.0)


def test_diverging_worlds_stop_the_run_with_a_saved_state():
    """A world that diverges in every step of an iteration is one world: 3 of 16, not 24."""
    env = PointMass(16)
    env.bad[:3] = True
    recorder = Recorder()
    with pytest.raises(UnstablePhysicsError, match="3 of 16 worlds diverged in iteration 1.*max_bad_fraction"):
        train(env=env, observer=recorder)
    assert isinstance(recorder.failure, UnstablePhysicsError) and not recorder.rows


def test_few_diverging_worlds_are_reported_and_training_goes_on():
    env = PointMass(16)
    step, calls = env.step, []

    def failing(actions):
        calls.append(1)
        env.bad[5] = len(calls) == 9
        return step(actions)

    env.step = failing
    recorder = train(env=env, max_bad_fraction=0.1)
    assert [r["bad_worlds"] for r in recorder.rows] == [0, 1, 0, 0, 0]


def test_counters_are_reported_per_iteration():
    """The engine counts overflows since its start; the observer adds the metric up over iterations."""
    env = PointMass(16)
    statistics, calls = env.statistics, []

    def growing():
        calls.append(1)
        return {**statistics(), "overflow": torch.tensor([2, 2, 7, 7, 8][len(calls) - 1])}

    env.statistics = growing
    assert [r["overflow"] for r in train(env=env).rows] == [2, 0, 5, 0, 1]


def test_a_world_that_turns_nan_is_reset_and_training_goes_on():
    """On the real engine: one world's state is poisoned before an iteration, and nothing of it reaches the learner."""
    env = make_franka(16)
    recorder = Recorder()
    on_iteration = recorder.on_iteration

    def poison(agent, metrics):
        if agent.iteration == 1:
            env.sim.batch.bind("qpos")[5, 2] = float("nan")
        return on_iteration(agent, metrics)

    recorder.on_iteration = poison
    agent = train(env=RlGamesVecEnv(env), observer=recorder, max_iterations=4, max_bad_fraction=0.1).agent
    assert [r["bad_worlds"] for r in recorder.rows] == [0, 1, 0, 0]
    assert torch.isfinite(agent.learner.policies.net.flat).all() and torch.isfinite(agent.buffer.obs).all()
    assert torch.isfinite(env.sim.dof_pos).all()


def test_player_counts_whole_episodes():
    recorder = train(num_envs=16)
    result = run_evaluation(
        settings(),
        PointMass(16, episode_length=10),
        recorder.agent.get_full_state_weights(),
        episodes=40,
        deterministic=False,
        policy="pi_h",
    )
    assert len(result["return_task"]) == 48 and result["diverged"] == 0  # 3 per env
    with pytest.raises(UserError, match="has no policy 'pi_x'; it has: pi, pi_h"):
        run_evaluation(settings(), PointMass(16), recorder.agent.get_full_state_weights(), 10, policy="pi_x")


class Falling(PointMass):
    """Falls over 5 steps after the start of an episode, in every other env."""

    def step(self, actions):
        self.x.zero_()
        self.x[::2] = torch.where(self.clock[::2] == 4, torch.full_like(self.x[::2], 1.9), self.x[::2])
        return super().step(actions)


def test_means_wait_until_long_episodes_can_have_ended():
    """Two lengths of 20 steps in iterations of 8: from the fifth on. Where no episode is cut short nothing waits."""
    recorder = train(env=Falling(16, episode_length=20), max_iterations=8)
    rows = recorder.rows
    horizon = train(max_iterations=1).agent.train_cfg.horizon_length
    first = -(-40 // horizon)
    ended = [row["episodes/pi"] > 0 or row["episodes/pi_h"] > 0 for row in rows]
    assert [row["length_biased"] for row in rows] == [float(k + 1 < first and ended[k]) for k in range(8)]
    assert any(row["length_biased"] for row in rows)
    both = [row["episodes/pi"] > 0 and row["episodes/pi_h"] > 0 and not row["length_biased"] for row in rows]
    assert recorder.agent.learner.multiplier.count.tolist() == [sum(both)]  # alpha waits too
    assert len({row["alpha"] for row in rows[: first - 1]}) == 1 < len({row["alpha"] for row in rows})
    means = RunningMeans()
    for row in rows[: first - 1]:
        means.update(row)
    assert means.episodes("return_task/pi") == 0

    class Whole(PointMass):
        def step(self, actions):
            self.x.zero_()
            return super().step(actions)

        def reset(self, random_start=True):
            return super().reset(False)

    assert not any(row["length_biased"] for row in train(env=Whole(16, episode_length=20), max_iterations=8).rows)


def test_schedules_run_over_the_length_that_a_run_began_with(monkeypatch):
    totals, learn = [], Learner.learn

    def watched(self, buffer, last_obs, facts):
        totals.append(facts.total)
        return learn(self, buffer, last_obs, facts)

    monkeypatch.setattr(Learner, "learn", watched)
    train(max_iterations=3)
    train(max_iterations=3, schedule_iterations=2)
    assert totals == [3, 3, 3, 2, 2, 2]


class Diverging(PointMass):
    """World 2 diverges in the 5th and the 40th step; a step is worth 1."""

    def reset(self, random_start=True):
        return super().reset(False)

    def step(self, actions):
        self.x.zero_()
        self.bad[2] = self.steps in (4, 39)
        self.steps += 1
        self.clock[2] = 10**6 if self.bad[2] else self.clock[2]  # such a world starts anew
        obs, rewards, done, infos = super().step(actions)
        return obs, torch.ones_like(rewards), done, infos

    def rewards(self):
        return torch.ones(self.num_envs, 2)


def test_an_episode_that_diverged_counts_nowhere_and_is_reported():
    env = Diverging(4, episode_length=10)
    env.steps, env.offset = 0, 0.0
    agent = train(num_envs=16).agent
    found = run_evaluation(settings(), env, agent.get_full_state_weights(), episodes=12, policy="pi")
    assert found["diverged"] == 1 and set(found["return_task"]) == {10.0} and set(found["episode_length"]) == {10.0}
    assert len(found["return_task"]) == 11  # four envs x 30 steps: the world that diverged lost one episode's time


class Watched(PointMass):
    """Only critics see the clock, the last column."""

    def get_env_info(self):
        return {**super().get_env_info(), "state_size": 1}


@pytest.mark.parametrize("algo", ["ppo_h", "hepo"])
def test_critics_may_see_more_than_actors(algo):
    """What only critics see changes values and no action, is learned from, and goes through checkpoint and player."""
    options = {"network": {"units": [32, 16], "critic_units": [8]}}
    agent = train(algo, Watched(16), **options).agent
    obs = torch.rand(16, 3)
    other = torch.cat((obs[:, :2], 1.0 - obs[:, 2:]), 1)
    policies = agent.learner.policies
    (mean, values), (moved_mean, moved) = (
        policies.mean_and_values(x.expand(policies.num_policies, -1, -1)) for x in (obs, other)
    )
    assert torch.equal(mean, moved_mean) and (values != moved).all()
    first = train(algo, Watched(16), Recorder(stop_at=1), **options).agent
    heads = policies.net.value_head_mask() == 1
    assert (policies.net.flat != first.learner.policies.net.flat)[:, heads].all()
    half = train(algo, Watched(16), Recorder(stop_at=2), **options).agent
    rest = train(algo, Watched(16), Recorder(state=half.get_full_state_weights()), **options).agent
    _assert_equal(agent.get_full_state_weights(), rest.get_full_state_weights())
    result = run_evaluation(settings(algo, **options), Watched(16), agent.get_full_state_weights(), episodes=16)
    assert len(result["return_task"]) == 16

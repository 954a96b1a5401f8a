"""Runs side by side: nothing leaks between them, and each is what it would have been alone."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from rl_games.common.algo_observer import AlgoObserver

from hepo_isaac.agents.evaluation import evaluate_policies
from hepo_isaac.agents.register import run_training
from hepo_isaac.envs.make import make_env
from hepo_isaac.envs.rl_games import RlGamesVecEnv
from hepo_isaac.errors import UserError
from hepo_isaac.locate import group_names
from hepo_isaac.runs import launch
from hepo_isaac.runs.train.seeds import mean_metrics, seed_list

SMALL = ("num_envs=16", "train.minibatch_size=64", "train.mini_epochs=2", "train.network.units=[16]", "sim.threads=1")
ALGOS = [a for a in group_names("algo") if a not in ("ppo_lagrangian_pid", "annealing")]


class Recorder(AlgoObserver):
    """Keeps every run's metrics; may restore states first and stop early."""

    def __init__(self, states=None, stop_at=None):
        super().__init__()
        self.rows, self.states, self.stop_at, self.agent = [], states, stop_at, None

    def after_init(self, algo):
        self.agent = algo
        if self.states is not None:
            algo.set_run_states(self.states)

    def on_iteration(self, agent, metrics):
        self.rows.append(metrics)
        return agent.iteration == self.stop_at

    def on_finish(self, agent):
        pass

    def on_failure(self, agent, error):
        pass


def settings(*overrides, task="Survival", algo="hepo"):
    from hepo_isaac.overrides import compose

    given = ["task=" + task, "algo=" + algo, "torch_threads=1", *SMALL[: -1 if task != "FrankaCabinet" else None]]
    given += list(overrides)
    return launch.prepare(compose(given), given)


def train(
    seeds,
    *overrides,
    task="Survival",
    algo="hepo",
    iterations=4,
    states=None,
    stop_at=None,
    env_hook=None,
    observer=None,
):
    cfg = {**settings(*overrides, task=task, algo=algo), "run_seeds": list(seeds)}
    cfg["train"]["max_iterations"] = iterations
    env = make_env(cfg)
    if env_hook is not None:
        env_hook(env)
    recorder = observer or Recorder(states, stop_at)
    run_training(cfg, RlGamesVecEnv(env), recorder)
    return recorder


def _poison_second_run(env):
    """Rewards of the second half of all envs become huge and random; its episodes end at other times."""
    rewards, terminated = env.task.rewards, env.task.terminated
    noise = torch.Generator().manual_seed(99)
    half = env.num_envs // 2

    def poisoned():
        found = rewards()
        found.task[half:] += 100.0 * torch.randn(half, generator=noise)
        found.heuristic[half:] *= -50.0
        return found

    def ends():
        found = terminated().clone()
        found[half:] |= torch.rand(half, generator=noise) < 0.3
        return found

    env.task.rewards, env.task.terminated = poisoned, ends


def _assert_same(a, b, path="state"):
    assert type(a) is type(b), path
    if isinstance(a, dict):
        assert a.keys() == b.keys(), path
        for key in a:
            _assert_same(a[key], b[key], "%s.%s" % (path, key))
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), path
        for i, (x, y) in enumerate(zip(a, b)):
            _assert_same(x, y, "%s[%d]" % (path, i))
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b), path
    else:
        assert a == b, path


@pytest.mark.parametrize("algo", ALGOS)
def test_poisoning_one_run_leaves_the_other_bit_identical(algo):
    """Rewards and episode ends of the second run change, in an environment whose resets draw random numbers."""
    clean = train((3, 4), algo=algo).agent
    poisoned = train((3, 4), algo=algo, env_hook=_poison_second_run).agent
    first, second = clean.get_run_state(0), poisoned.get_run_state(0)
    _assert_same(first, second)
    changed = [a.get_run_state(1)["learner"]["flat"] for a in (clean, poisoned)]
    assert not torch.equal(*changed)


@pytest.mark.parametrize("algo", ["hepo", "ppo_h", "eipo", "hepo_plus"])
@pytest.mark.parametrize("task", ["Survival", "FrankaCabinet"])
def test_a_run_among_others_is_the_run_alone(task, algo):
    """Same random streams: only the rounding of batched products may differ."""
    together = train((5, 6, 7), task=task, algo=algo, iterations=2).agent.get_run_state(1)
    alone = train((6,), task=task, algo=algo, iterations=2).agent.get_full_state_weights()
    torch.testing.assert_close(together["learner"]["flat"], alone["learner"]["flat"], rtol=1e-3, atol=2e-4)
    torch.testing.assert_close(together["meter"]["length"], alone["meter"]["length"])
    _assert_same(together["learner"]["generators"], alone["learner"]["generators"])
    _assert_same(together["env"]["streams"], alone["env"]["streams"])


def test_seeds_differ():
    flat = train((5, 6)).agent.learner.policies.net.flat
    assert not torch.allclose(flat[:2], flat[2:])


@pytest.mark.parametrize("algo", ["hepo", "pbrs", "eipo", "hepo_plus"])
@pytest.mark.parametrize("task", ["Survival", "FrankaCabinet"])
def test_cut_apart_and_put_together_is_the_same_training(task, algo):
    whole = train((1, 2, 3), task=task, algo=algo, iterations=6)
    half = train((1, 2, 3), task=task, algo=algo, iterations=6, stop_at=3)
    states = [copy.deepcopy(half.agent.get_run_state(run)) for run in range(3)]
    rest = train((1, 2, 3), task=task, algo=algo, iterations=6, states=states)
    _assert_same(whole.agent.get_full_state_weights(), rest.agent.get_full_state_weights())
    for key in ("kl/pi", "loss_actor/pi", "episodes/pi"):
        assert [run[key] for run in rest.rows[-1]] == [run[key] for run in whole.rows[-1]]


def test_one_run_of_several_can_go_on_alone():
    half = train((1, 2), stop_at=3)
    alone = train((2,), states=[half.agent.get_run_state(1)])
    whole = train((1, 2))
    expected = whole.agent.get_run_state(1)["learner"]["flat"]
    torch.testing.assert_close(alone.agent.learner.policies.net.flat.detach(), expected, rtol=1e-3, atol=2e-4)
    assert alone.agent.env_steps == whole.agent.env_steps == 4 * 16 * 16


def test_metrics_are_those_of_each_run():
    rows = train((5, 6)).rows[-1]
    alone = train((6,)).rows[-1][0]
    assert rows[1]["kl/pi"] == pytest.approx(alone["kl/pi"], rel=1e-2)
    assert rows[1]["return_heuristic/pi"] == pytest.approx(alone["return_heuristic/pi"], rel=1e-3)
    assert rows[0]["return_heuristic/pi"] != rows[1]["return_heuristic/pi"]
    assert rows[1]["env_steps"] == alone["env_steps"]


def test_evaluation_leaves_the_agent_as_it_was():
    agent = train((5, 6)).agent
    before = copy.deepcopy(agent.get_full_state_weights())
    found = evaluate_policies(agent, 20)
    _assert_same(before, agent.get_full_state_weights())
    assert len(found) == 2 and found[0]["episodes"] == 24  # 8 envs a policy: 3 episodes each
    assert found[0]["pi"]["return_task_se"] > 0 and found[0] != found[1]
    assert evaluate_policies(agent, 20) == found


def test_evaluation_counts_whole_episodes_from_their_beginning():
    """Honest returns: r = 1 in every step of episodes of known length, whatever the random start phases were."""

    def hook(env):
        rewards = env.task.rewards

        def ones():
            found = rewards()
            found.task.fill_(1.0)
            return found

        env.task.rewards = ones

    agent = train((5,), task="Push2D", env_hook=hook, iterations=1).agent
    found = evaluate_policies(agent, 8)[0]
    assert found["pi"]["return_task"] == 100.0 and found["pi_h"]["return_task_se"] == 0.0


@pytest.mark.parametrize("seeds, expected", [(1, [7]), (3, [7, 8, 9]), ([4, 2], [4, 2])])
def test_seed_list(seeds, expected):
    assert seed_list(7, seeds) == expected


def test_mean_over_runs_leaves_out_runs_without_an_episode():
    rows = [{"return_task/pi": float("nan"), "episodes/pi": 0.0}, {"return_task/pi": 2.0, "episodes/pi": 3.0}]
    assert mean_metrics(rows) == {"return_task/pi": 2.0, "episodes/pi": 3.0}


class TestCommand:
    def run(self, tmp_path, *overrides):
        arguments = ["task=Survival", *SMALL[:-1], "train.max_iterations=3", "run_root=%s" % tmp_path]
        return launch.main([*arguments, "tensorboard=false", "plot=false", *overrides])

    def test_a_folder_per_seed_that_stands_alone(self, tmp_path, capfd):
        assert self.run(tmp_path, "seeds=[3,9]", "evaluation_episodes=8") == 0
        folders = sorted((tmp_path / "Survival" / "hepo").iterdir())
        assert [f.name.rsplit("_", 1)[1] for f in folders] == ["seed3", "seed9"]
        configs = [OmegaConf.load(f / "config.yaml") for f in folders]
        assert [(c.seed, c.seeds, c.num_envs) for c in configs] == [(3, 1, 16), (9, 1, 16)]
        summaries = [OmegaConf.load(f / "summary.json") for f in folders]
        assert all(s.evaluation.episodes == 8 and s.env_steps == 3 * 16 * 16 for s in summaries)
        assert summaries[0].evaluation != summaries[1].evaluation
        # one of them goes on alone, both go on together
        assert launch.main(["resume=%s" % folders[1], "train.max_iterations=4"]) == 0
        assert "%d" % OmegaConf.load(folders[1] / "summary.json").iterations == "4"
        assert launch.main(["resume=%s,%s" % tuple(folders), "train.max_iterations=6"]) == 2
        assert "only from the same iteration" in capfd.readouterr().err
        assert launch.main(["resume=%s" % folders[0], "train.max_iterations=4"]) == 0
        assert launch.main(["resume=%s,%s" % tuple(folders), "train.max_iterations=6"]) == 0
        assert [OmegaConf.load(f / "summary.json").iterations for f in folders] == [6, 6]

    def test_a_finished_run_becomes_a_frozen_reference(self, tmp_path, capfd):
        assert self.run(tmp_path, "algo=ppo_h") == 0
        (folder,) = (tmp_path / "Survival" / "ppo_h").iterdir()
        assert self.run(tmp_path, "algo.frozen_reference=%s" % folder, "seeds=2") == 0
        trained = torch.load(folder / "checkpoints" / "last.pt", weights_only=True)["agent"]["learner"]["flat"][0]
        for run in (tmp_path / "Survival" / "hepo").iterdir():
            flat = torch.load(run / "checkpoints" / "last.pt", weights_only=True)["agent"]["learner"]["flat"]
            assert torch.equal(flat[1, :32], trained[:32]) and not torch.equal(flat[0, :32], trained[:32])
        assert self.run(tmp_path, "algo.frozen_reference=%s/nothing" % tmp_path) == 2
        assert "expected a run folder or a checkpoint" in capfd.readouterr().err

    @pytest.mark.parametrize(
        "setting, message",
        [("seeds=0", "at least 1"), ("seeds=[1,1]", "names a seed twice"), ("seeds=x", "a number of runs or a list")],
    )
    def test_bad_seeds(self, tmp_path, setting, message, capfd):
        assert self.run(tmp_path, setting) == 2
        assert message in capfd.readouterr().err

    def test_runs_that_differ_do_not_go_side_by_side(self, tmp_path):
        for extra in ("train.gamma=0.9", "train.gamma=0.95"):
            assert self.run(tmp_path, extra) == 0
        folders = sorted((tmp_path / "Survival" / "hepo").iterdir())
        with pytest.raises(UserError, match="train differs"):
            launch.resume("%s,%s" % tuple(folders), ["train.max_iterations=9"])


@pytest.mark.slow
def test_returns_have_the_same_distribution_side_by_side_and_alone():
    """Two-sample Kolmogorov-Smirnov over 24 seeds of a short training whose outcome varies."""

    def final(rows):
        """Each run's mean over its last iterations, in some of which none of its episodes may have ended."""
        return np.nanmean([[run["return_task/pi"] for run in row] for row in rows[-8:]], axis=0)

    task = {"task": "Survival", "algo": "hepo", "iterations": 25}
    together = final(train(range(100, 124), **task).rows)
    alone = [final(train((seed,), **task).rows)[0] for seed in range(200, 224)]
    both = np.sort(np.concatenate((together, alone)))
    steps = [np.searchsorted(np.sort(x), both, side="right") / len(x) for x in (together, alone)]
    statistic = np.abs(steps[0] - steps[1]).max()
    assert np.isfinite(both).all()
    assert np.std(together) > 0
    assert statistic < 1.63 * np.sqrt(2 / 24)  # the 1 % point

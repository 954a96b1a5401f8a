"""hepo_isaac.train, load and evaluate: the command line's runs, as objects."""

from __future__ import annotations

import csv
import json
import os
import random
import shutil
import signal
import sys
import threading

import numpy as np
import pytest
import torch
import yaml

import hepo_isaac
from hepo_isaac.config import plain
from hepo_isaac.errors import CheckpointError, UserError
from hepo_isaac.runs.launch import main as launch
from hepo_isaac.runs.play.command import evaluate as evaluate_run
from hepo_isaac.runs.record.bundled import entries
from hepo_isaac.runs.record.checkpoint import load_checkpoint, save_checkpoint
from hepo_isaac.runs.record.stored import SIGNATURE, read_run

SETTINGS = {
    "train.max_iterations": 4,
    "train.horizon_length": 8,
    "train.mini_epochs": 2,
    "train.minibatch_size": 64,
    "train.fused": False,
    "task.episode_length": 10,
    "plot": False,
    "tensorboard": False,
}


def train(root, **arguments):
    settings = {**SETTINGS, "run_root": root, **arguments.pop("settings", {})}
    arguments = {"algo": "hepo", "num_envs": 16, "seed": 3, "quiet": True, **arguments}
    return hepo_isaac.train("Push2D", settings=settings, **arguments)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return train(tmp_path_factory.mktemp("runs"), settings={"evaluation_episodes": 16})


@pytest.fixture
def copy(run, tmp_path):
    """The same run in a folder that a test may spoil."""
    return shutil.copytree(run.path, tmp_path / "copy")


def restated(checkpoint, index, obs):
    """A policy's mean action in plain torch, from the names of rl-games' A2CNetwork and the stored statistics."""
    learner = checkpoint["agent"]["learner"]
    norm = learner["obs_norm"]
    x = torch.as_tensor(obs, dtype=torch.float64).clamp(-5, 5)
    x = ((x - norm["mean"][0]) / (norm["var"][0] + 1e-5).sqrt()).clamp(-5, 5).float()
    flat, sizes = learner["flat"][index], [6, 64, 64]
    at = 0
    for fan_in, fan_out in [*zip(sizes[:-1], sizes[1:]), (sizes[-1], 3 + 2)]:
        weight = flat[at : at + fan_in * fan_out].view(fan_in, fan_out)
        bias = flat[at + fan_in * fan_out : at + fan_in * fan_out + fan_out]
        at += fan_in * fan_out + fan_out
        x = x @ weight + bias
        if fan_out != 5:
            x = torch.nn.functional.elu(x)
    assert at + 3 == len(flat)
    return x[:, :3].clamp(-1, 1), flat[-3:].exp()


def test_the_run_is_what_lies_in_its_folder(run):
    summary = json.loads((run.path / "summary.json").read_text())
    assert (run.task, run.algo, run.seed, run.status) == ("Push2D", "hepo", 3, "finished")
    assert run.policies == ("pi", "pi_h") and run.summary == summary and summary["iterations"] == 4
    for policy in run.policies:
        row, found = summary["evaluation"][policy], run.final[policy]
        assert found["task_return"].mean == row["return_task"]
        assert found["task_return"].std_error == row["return_task_se"]
        assert found["heuristic_return"].mean == row["return_heuristic"]
        assert found["heuristic_return"].n == summary["evaluation"]["episodes"] >= 16
    with open(run.path / "metrics.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 and run.metrics["iteration"].tolist() == [1, 2, 3, 4]
    np.testing.assert_array_equal(run.metrics["alpha"], [float(row["alpha"]) for row in rows])
    assert run.checkpoints["last"] == run.path / "checkpoints" / "last.pt"
    assert repr(run).startswith("Run(Push2D / hepo, seed 3, finished, J(pi) = ")
    again = hepo_isaac.Run(run.path)
    assert again.final == run.final and again.metadata["task"] == "Push2D"


def test_it_trains_what_the_command_line_trains(run, tmp_path, capsys):
    """The same settings typed on the command line: the same weights to the bit."""
    typed = ["%s=%s" % (key, str(value).lower()) for key, value in SETTINGS.items()]
    arguments = ["task=Push2D", "algo=hepo", "num_envs=16", "seed=3", "evaluation_episodes=16"]
    assert launch([*arguments, *typed, "run_root=%s" % tmp_path]) == 0
    capsys.readouterr()
    (other,) = tmp_path.rglob("last.pt")
    mine, theirs = (load_checkpoint(file)["agent"]["learner"] for file in (run.checkpoints["last"], other))
    assert torch.equal(mine["flat"], theirs["flat"]) and mine["flat"].abs().sum() > 0


def test_a_second_training_is_the_first_and_the_process_is_as_before(run, tmp_path, capsys):
    torch.manual_seed(5), np.random.seed(5), random.seed(5)
    before = torch.rand(3), np.random.rand(3), random.random()
    torch.manual_seed(5), np.random.seed(5), random.seed(5)
    threads = torch.get_num_threads()
    handler = signal.getsignal(signal.SIGINT)
    again = train(tmp_path, settings={"evaluation_episodes": 16})
    assert capsys.readouterr().out == ""  # quiet
    assert torch.equal(torch.rand(3), before[0]) and np.array_equal(np.random.rand(3), before[1])
    assert random.random() == before[2] and torch.get_num_threads() == threads
    assert signal.getsignal(signal.SIGINT) is handler
    mine, first = (load_checkpoint(r.checkpoints["last"])["agent"]["learner"]["flat"] for r in (again, run))
    assert torch.equal(mine, first)


def test_seeds_give_a_list(tmp_path):
    runs = train(tmp_path, algo="ppo_h", seeds=[4, 9], settings={"evaluation_episodes": 0})
    assert [r.seed for r in runs] == [4, 9] and all(r.status == "finished" for r in runs)
    assert np.isnan(runs[0].final["pi"]["task_return"].std_error) and runs[0].final["pi"]["task_return"].n == 0
    assert train(tmp_path, algo="ppo_h", seeds=1, settings={"evaluation_episodes": 0})[0].policies == ("pi",)


def test_a_policy_is_the_checkpoints(run):
    obs = np.random.default_rng(0).normal(size=(20, 6)).astype(np.float32) * 3
    checkpoint = load_checkpoint(run.checkpoints["last"])
    for index, name in enumerate(run.policies):
        policy = run.policy(name, "last")
        expected, _ = restated(checkpoint, index, obs)
        np.testing.assert_allclose(policy(obs), expected, atol=2e-6)
        assert (policy.name, policy.iteration, policy.task, policy.algo) == (name, 4, "Push2D", "hepo")
        assert (policy.num_obs, policy.num_actions, policy.env_steps) == (6, 3, 4 * 8 * 16)
    assert not np.allclose(run.policy("pi", "last")(obs), run.policy("pi_h", "last")(obs))


def test_a_policy_says_what_its_j_is(run, copy, tmp_path):
    """Measured by an evaluation of these very weights, else in training, where it is π's; else it does not say any."""
    evaluated = json.loads((run.path / "summary.json").read_text())["evaluation"]
    for name in run.policies:
        policy, row = run.policy(name, "last"), evaluated[name]
        said = "J = %.4g ± %.2g over %d episodes at the end of training" % (
            row["return_task"], row["return_task_se"], evaluated["episodes"],
        )  # fmt: skip
        assert said in repr(policy) and policy.task_return == row["return_task"] and policy.measured in said
    file = copy / "checkpoints" / "last.pt"
    payload = load_checkpoint(file)
    in_training = payload["runs"]["best_return"]
    save_checkpoint(file, {**payload, "iteration": 3})  # weights that the evaluation has not seen
    assert "iteration 3, J = %.4g in training, 6" % in_training in repr(hepo_isaac.load(file))
    assert hepo_isaac.load(file).task_return == in_training
    assert "iteration 3, J not measured, 6" in repr(hepo_isaac.load(file, "pi_h"))
    assert np.isnan(hepo_isaac.load(file, "pi_h").task_return)
    (copy / "summary.json").write_text('{"iterations": 3, "evaluation": {"episodes": "many", "pi": 7}}')
    assert "J = %.4g in training" % in_training in repr(hepo_isaac.load(file))
    final = run.final["pi"]["task_return"]
    assert repr(run).startswith("Run(Push2D / hepo, seed 3, finished, J(pi) = %s, " % final.text())
    alone = train(tmp_path, algo="ppo_h", settings={"evaluation_episodes": 0})
    assert "J(pi) = %.4g in training, " % alone.final["pi"]["task_return"].mean in repr(alone)


def test_a_policy_takes_arrays_and_tensors_one_or_many(run):
    policy = hepo_isaac.load(run.path)
    obs = np.random.default_rng(1).normal(size=(5, 6))
    many = policy(obs)
    assert isinstance(many, np.ndarray) and many.shape == (5, 3) and many.dtype == np.float32
    np.testing.assert_allclose(policy(obs[2]), many[2], atol=1e-6)
    np.testing.assert_allclose(policy(obs.tolist()), many, atol=1e-6)
    tensors = policy(torch.as_tensor(obs))
    assert isinstance(tensors, torch.Tensor) and not tensors.requires_grad
    np.testing.assert_allclose(tensors.numpy(), many, atol=1e-6)
    assert policy(torch.zeros(6)).shape == (3,) and policy(np.zeros((0, 6))).shape == (0, 3)
    policy._policies.obs_norm.var.fill_(1e4)  # so that the normaliser's own bound is far away
    np.testing.assert_array_equal(policy(np.full(6, 50.0)), policy(np.full(6, 5.0)))  # environments clip there, too
    assert not np.array_equal(policy(np.full(6, 4.0)), policy(np.full(6, 5.0)))
    for wrong in (np.zeros(5), np.zeros((2, 7)), np.zeros((1, 2, 6)), np.zeros(()), "obs", None):
        with pytest.raises(UserError, match=r"expected (an array|\(6,\) or \(N, 6\))"):
            policy(wrong)


def test_draws_have_the_policys_spread(run):
    policy = run.policy("pi", "last")
    mean, std = restated(load_checkpoint(run.checkpoints["last"]), 0, np.zeros((1, 6)))
    torch.manual_seed(0)
    drawn = policy.act(np.zeros((20000, 6)), deterministic=False)
    torch.manual_seed(0)
    np.testing.assert_array_equal(drawn, policy.act(np.zeros((20000, 6)), deterministic=False))
    inside = np.abs(mean.numpy() + 0.0) + 0.3 < 1  # thresholds inside of [-1, 1], where clamping changes nothing
    from statistics import NormalDist

    for k in np.flatnonzero(inside[0]):
        share = (drawn[:, k] < mean[0, k].item() + 0.3).mean()
        assert share == pytest.approx(NormalDist(0, std[k].item()).cdf(0.3), abs=0.015)
    assert inside.any() and np.abs(drawn).max() <= 1


def test_an_evaluation_is_that_of_the_command_line(run):
    """The same episodes: mean actions, the run's environments, the same seed."""
    config = {**plain(read_run(run.path)), "num_envs": 8, "seed": 1, "eval": {"episodes": 16, "deterministic": True}}
    theirs = evaluate_run(config, load_checkpoint(run.checkpoints["last"]))["pi"]
    env = hepo_isaac.make("Push2D", 8, seed=1, task__episode_length=10)
    mine = hepo_isaac.evaluate(run.policy("pi", "last"), env, episodes=16)
    for one, name in ((mine.task_return, "returns_task"), (mine.heuristic_return, "returns_heuristic")):
        assert one.n == theirs[name]["n"] == 16
        assert (one.mean, one.std_error) == pytest.approx((theirs[name]["mean"], theirs[name]["std_error"]), abs=1e-5)
    assert mine.episode_length.mean == theirs["lengths"]["mean"]
    assert mine.score == pytest.approx((mine.task_return.mean - 0.0001) / (0.85646 - 0.0001))
    assert "J = " in str(mine) and "over 16 episodes" in str(mine)
    env.close()
    found = run.evaluate("last", episodes=16)
    assert found is run.evaluate("last", episodes=16) and found.task_return.n == 16


def test_an_evaluation_counts_whole_episodes_the_same_in_every_env():
    """Cartpole: one env is pushed over and begins again and again, the others fall later; each counts its share."""
    env = hepo_isaac.make("Cartpole", 3, reward="sum", output="torch")
    calls = []

    def push_one(obs):
        calls.append(1)
        return torch.tensor([[1.0], [0.0], [0.0]])

    found = hepo_isaac.evaluate(push_one, env, episodes=4, seed=0)
    assert found.task_return.n == found.episode_length.n == 6 and len(calls) < 499
    assert found.task_return.mean == pytest.approx((found.episode_length.mean - 1) / 499, rel=1e-5)
    assert found.metrics["survived"].mean == 0
    env.close()
    env = hepo_isaac.make("Push2D", 8, random_start=True, task__episode_length=9)
    found = hepo_isaac.evaluate(lambda obs: np.zeros((8, 3)), env, episodes=8)
    assert (found.episode_length.mean, found.episode_length.std_error) == (9, 0)  # none that began half way
    env.close()


def test_ctrl_c_saves_and_the_run_goes_on(tmp_path):
    threading.Timer(1.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    stopped = train(tmp_path, settings={"train.max_iterations": 100_000, "evaluation_episodes": 0})
    assert stopped.status == "interrupted" and stopped.final == {} and "last" in stopped.checkpoints
    at = stopped.policy(checkpoint="last").iteration
    assert 0 < at < 100_000
    assert stopped.resume(train__max_iterations=at + 2) is stopped
    assert stopped.status == "finished" and stopped.metrics["iteration"][-1] == at + 2
    with pytest.raises(UserError, match="cannot be set"):
        stopped.resume(train__gamma=0.5)


def of_a_stranger(copy, **changed):
    """The run as somebody else's, with other settings."""
    (copy / SIGNATURE).unlink()
    config = yaml.safe_load((copy / "config.yaml").read_text())
    (copy / "config.yaml").write_text(yaml.safe_dump({**config, **changed}))
    return copy


def test_loading_runs_no_code_and_evaluating_asks(copy, tmp_path, monkeypatch):
    (tmp_path / "strangers_code.py").write_text("import os\nos.environ['STRANGER'] = '1'\ndef h(s):\n    return s\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    of_a_stranger(copy, heuristic="strangers_code:h")
    assert hepo_isaac.load(copy)(np.zeros(6)).shape == (3,)
    with pytest.raises(UserError, match=r"would run code that it names .*trust=true"):
        hepo_isaac.Run(copy).evaluate(episodes=2)
    with pytest.raises(UserError, match="would run code"):
        hepo_isaac.Run(copy).resume(train__max_iterations=6)
    assert "STRANGER" not in os.environ and "strangers_code" not in sys.modules


def test_checkpoints_of_before_sizes_were_written(copy, run, tmp_path):
    """The task is asked, which for a stranger's code takes consent."""
    file = copy / "checkpoints" / "last.pt"
    payload = load_checkpoint(file)
    assert [payload.pop(name) for name in ("num_obs", "num_states", "num_actions")] == [6, 0, 3]
    save_checkpoint(file, payload)
    obs = np.ones((3, 6))
    np.testing.assert_array_equal(hepo_isaac.load(copy)(obs), run.policy(checkpoint="last")(obs))
    of_a_stranger(copy, heuristic="no_such_module:h")
    with pytest.raises(UserError, match="would run code"):
        hepo_isaac.load(copy)
    save_checkpoint(file, {**payload, "num_obs": 7, "num_states": 0, "num_actions": 3})
    with pytest.raises(CheckpointError, match="does not fit this run"):
        hepo_isaac.load(copy)
    save_checkpoint(file, {**payload, "num_obs": 6, "num_states": 0, "num_actions": 1 << 40})
    with pytest.raises(UserError):
        hepo_isaac.load(copy)


def test_what_else_load_says(copy, run):
    with pytest.raises(UserError, match="unknown policy of algo hepo 'pi_x': .*valid: pi, pi_h"):
        hepo_isaac.load(copy, "pi_x")
    with pytest.raises(UserError, match="device=nowhere cannot be used"):
        hepo_isaac.load(copy, device="nowhere")
    with pytest.raises(UserError, match="has no checkpoint 'first'; it has: .*last"):
        run.policy(checkpoint="first")
    (copy / "checkpoints" / "last.pt").write_bytes(b"junk")
    for path in (copy, copy / "checkpoints" / "last.pt"):
        with pytest.raises(CheckpointError, match="truncated or is not a checkpoint"):
            hepo_isaac.load(path)
    (copy / "config.yaml").write_bytes(b"\x00\x01")
    with pytest.raises(UserError, match="config.yaml"):
        hepo_isaac.load(copy)


def test_critics_that_see_more_leave_the_policy_alone(tmp_path):
    settings = {"task.asymmetric_observations": True, "task.observation_type": "openai", "run_root": tmp_path}
    settings.update({"train.max_iterations": 1, "train.horizon_length": 2, "train.mini_epochs": 1})
    settings.update({"train.minibatch_size": 4, "plot": False, "tensorboard": False, "evaluation_episodes": 0})
    run = hepo_isaac.train("ShadowHand", "ppo_h", 2, quiet=True, settings={**settings, "train.fused": False})
    policy = run.policy()
    assert (policy.num_obs, policy.num_states, policy.num_actions) == (42, 211, 20)
    assert policy(np.zeros((2, 42))).shape == (2, 20)


def test_a_function_of_a_module_is_written_by_its_name(tmp_path, monkeypatch):
    (tmp_path / "shaping_of_mine.py").write_text("def near(state):\n    return state.pos[:, 0] * 0.0 + 1.0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import shaping_of_mine

    run = train(tmp_path, algo="ppo_h", heuristic=shaping_of_mine.near)
    assert run.config["heuristic"] == "shaping_of_mine:near"
    assert run.final["pi"]["heuristic_return"].mean == pytest.approx(10.0)


def test_the_name_of_a_task_loads_the_policy_that_came_along(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    policy = hepo_isaac.load("Ant")
    assert (policy.task, policy.num_obs, policy.num_actions) == ("Ant", 60, 8)
    assert "J = %.4g" % entries()["Ant"]["policies"]["pi"]["J"]["mean"] in repr(policy)  # as measured, not of training
    shutil.copytree(run.path, tmp_path / "Ant")  # what lies here is meant
    assert hepo_isaac.load("Ant").task == "Push2D"
    with pytest.raises(UserError, match="no run folder or checkpoint at AllegroHand"):
        hepo_isaac.load("AllegroHand")

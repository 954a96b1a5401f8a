"""Policies that come along: every one loads as plain data, plays, and is worth what policies.yaml says."""

from __future__ import annotations

import io
import math
import re
import zipfile
from pathlib import Path

import pytest
import torch

from hepo_isaac import cli
from hepo_isaac.config import plain
from hepo_isaac.locate import robot_tasks
from hepo_isaac.runs.export.command import read_metadata
from hepo_isaac.runs.export.source import acts, find_source
from hepo_isaac.runs.play.command import evaluate
from hepo_isaac.runs.record import bundled
from hepo_isaac.runs.record.checkpoint import load_checkpoint
from hepo_isaac.runs.record.folder import RunFolder
from hepo_isaac.runs.record.stored import foreign_code, read_run
from hepo_isaac.studies import bundle_policies
from tests.runs.export_lab import make_run

ROOT = Path(__file__).resolve().parents[2]
ENTRIES = bundled.entries()


def command(capfd, *arguments):
    capfd.readouterr()
    code = cli.main(list(arguments))
    out, err = capfd.readouterr()
    return code, out, err


# ---- what is there --------------------------------------------------------------------------------------------------


def test_index_and_folders_agree():
    folders = {path.name for path in bundled.FOLDER.iterdir() if path.is_dir()}
    assert folders == set(ENTRIES) <= set(robot_tasks())
    assert {"Ant", "Cartpole", "FrankaCabinet"} <= folders


@pytest.mark.parametrize("task", ENTRIES)
def test_a_policy_is_small_plain_and_described(task):
    folder, entry = bundled.bundled_run(task), ENTRIES[task]
    files = [path for path in folder.rglob("*") if path.is_file()]
    with zipfile.ZipFile(io.BytesIO(), "w", zipfile.ZIP_DEFLATED) as wheel:
        for path in files:
            wheel.write(path)
        size = sum(item.compress_size for item in wheel.infolist())
    assert size <= 300_000 and size == pytest.approx(entry["bytes"], abs=1000)
    assert {path.suffix for path in files} <= {".yaml", ".json", ".pt"}
    text = "".join(path.read_text() for path in files if path.suffix != ".pt") + str(entry)
    assert not re.search(r"(/tmp|/home|/work|/root|/mnt)\b", text)
    assert re.fullmatch("[0-9a-f]{40}", entry["commit"])
    assert entry["command"].startswith("python train.py task=%s " % task)
    config = plain(read_run(folder))  # without trust=true
    assert foreign_code(config) == []
    assert (config["algo"]["name"], config["seed"]) == (entry["method"], entry["seed"])
    checkpoint = load_checkpoint(folder / "checkpoints" / "best.pt", task, entry["method"])
    assert (checkpoint["iteration"], checkpoint["env_steps"]) == (entry["iteration"], entry["env_steps"])


@pytest.mark.parametrize("task", ENTRIES)
def test_a_policy_is_clearly_better_than_random_actions(task):
    """By the index, of at least 64 episodes; that the index is right is tested below, and by its maker."""
    mine, chance = ENTRIES[task]["policies"]["pi"]["J"], ENTRIES[task]["random"]["J"]
    assert mine["episodes"] >= 64 and chance["episodes"] >= 64
    assert mine["mean"] - chance["mean"] > 3.0 * math.hypot(mine["std_error"], chance["std_error"])


@pytest.mark.parametrize("task", ENTRIES)
def test_a_policy_plays(task):
    from hepo_isaac.agents.trained import restored_policies
    from hepo_isaac.envs.make import make_env

    source = find_source(str(bundled.bundled_run(task)), None, False)
    env = make_env({**source.cfg, "num_envs": 2}, random_start=False)
    sizes = (env.num_obs, env.num_actions, env.num_states)
    policies = restored_policies(source.cfg["algo"], source.cfg["train"], source.checkpoint["agent"], *sizes)
    obs = env.reset()
    for _ in range(5):
        result = env.step(acts(policies, 0, obs))
        assert result.rewards.isfinite().all()
        assert not result.bad.any()
        obs = result.obs
    env.close()


def test_j_of_the_index_is_the_policys():
    """Cartpole, 32 episodes of another seed: within three standard errors, and a hundredth for the rest."""
    folder, entry = bundled.bundled_run("Cartpole"), ENTRIES["Cartpole"]["policies"]["pi"]["J"]
    config = plain(read_run(folder))
    config.update(seed=77, num_envs=32, eval={"episodes": 32, "deterministic": True})
    found = evaluate(config, load_checkpoint(folder / "checkpoints" / "best.pt"))["pi"]["returns_task"]
    error = math.hypot(found["std_error"], entry["std_error"])
    assert abs(found["mean"] - entry["mean"]) <= 3.0 * error + 0.01


# ---- what shows them ------------------------------------------------------------------------------------------------


def test_policies_lists_them(capfd, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = command(capfd, "policies")
    assert code == 0
    for task, entry in ENTRIES.items():
        assert "│ %s " % task in out  # not cut off on 80 columns
        assert "│ %.0f %%" % (100 * entry["policies"]["pi"][entry["success"]]["mean"]) in out
        assert entry["commit"][:8] in out
        assert entry["command"] in out
    assert command(capfd, "policies", "please")[0] == 2


def test_eval_without_a_run_takes_what_came_along(capfd):
    code, out, err = command(capfd, "eval", "task=Cartpole", "episodes=4")
    assert (code, err) == (0, "")
    assert "Cartpole / %s" % ENTRIES["Cartpole"]["method"] in out
    assert "best.pt" in out


def test_play_without_a_run_writes_its_film_here(capfd, tmp_path, monkeypatch):
    """Not into the package, which may be read-only. (The film itself: tests of play.)"""
    from hepo_isaac.runs.play import film as play

    asked = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(play, "draw", lambda cfg, film, target, every: asked.append(target) or target)
    assert command(capfd, "play", "task=Cartpole")[0] == 0
    assert [target.resolve() for target in asked] == [tmp_path / "Cartpole.mp4"]


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["eval", "task=Push2D"], ["task=Push2D", "Cartpole", "run="]),
        (["play", "task=Nothing"], ["Nothing", "Cartpole"]),
        (["eval"], ["run=", "hepo-isaac policies", "random"]),
        (["eval", "run=", "task=Cartpole"], ["run="]),
        (["eval", "task=Cartpole", "algo=eipo"], ["eipo"]),
    ],
)
def test_what_did_not_come_along_is_said(capfd, tmp_path, monkeypatch, arguments, names):
    monkeypatch.chdir(tmp_path)
    code, _, err = command(capfd, *arguments)
    assert code == 2
    assert err.count("\n") == 1
    for name in names:
        assert name in err
    assert list(tmp_path.iterdir()) == []


def test_the_loop_of_the_docs_keeps_a_pole_upright(capfd, tmp_path, monkeypatch):
    """The lines of docs/export.md, with a simulated robot that reads in SI units and knows no observation."""
    from tests.tasks.robots import make

    page = (ROOT / "docs" / "export.md").read_text()
    (lines,) = re.findall(r"```python\n(import json.*?)```", page, re.S)
    assert len([line for line in lines.splitlines() if line and not line.startswith("import")]) <= 10
    monkeypatch.chdir(tmp_path)
    assert command(capfd, "export", "task=Cartpole")[0] == 0
    about = read_metadata(tmp_path / "Cartpole_pi.onnx", "onnx")
    assert about["commit"] == ENTRIES["Cartpole"]["commit"]
    assert about["J"]["mean"] == ENTRIES["Cartpole"]["policies"]["pi"]["J"]["mean"]

    class Robot:
        def __init__(self):
            self.env, self.steps, self.fell = make("Cartpole", 1, seed=3), 0, False
            self.env.reset()

        def running(self):
            return self.steps < 200 and not self.fell

        def read(self, name):
            column = {"cart_pos": 0, "pole_angle": 1}
            sim = self.env.sim
            return float(sim.dof_pos[0, column[name]] if name in column else sim.dof_vel[0, int(name == "pole_vel")])

        def effort(self, names, newtons):
            assert names == [self.env.sim.dof_names[0]]
            force = torch.zeros(1, 2)
            force[0, 0] = float(newtons[0])
            self.env.sim.set_dof_effort(force)
            self.env.sim.step()
            self.steps += 1
            self.fell = bool(self.env.task.terminated()[0])

    robot = Robot()
    slept = []
    monkeypatch.setattr("time.sleep", slept.append)
    exec(lines, {"robot": robot})
    assert (robot.steps, robot.fell) == (200, False)
    assert len(slept) == 200 and max(slept) <= 0.0166
    assert robot.env.sim.dof_pos[0, 1].abs() < 0.2  # rad
    robot.env.close()


# ---- how they are made ----------------------------------------------------------------------------------------------


def test_a_policy_that_is_not_better_than_chance_is_left_out(capsys, tmp_path, monkeypatch):
    """One that always pushes to the right, and beside it one that does nothing, which falls later than random actions
    make it fall."""
    monkeypatch.setattr(bundle_policies, "FOLDER", tmp_path / "policies")

    def push(policies, bias):
        policies.net.flat.data.zero_()
        policies.net.flat.data[:, -4] = bias  # behind it: two biases of values and log sigma

    path, _ = make_run(tmp_path / "right", "task=Cartpole", "algo=hepo", change=lambda p: push(p, 5.0))
    assert bundle_policies.bundle("Cartpole", [RunFolder.open(path)], 64) is None
    assert "not clearly above random" in capsys.readouterr().out
    assert not (tmp_path / "policies").exists()
    path, _ = make_run(tmp_path / "idle", "task=Cartpole", "algo=hepo", change=lambda p: push(p, 0.0))
    made = bundle_policies.bundle("Cartpole", [RunFolder.open(path)], 64)
    assert made["policies"]["pi"]["J"]["episodes"] == 64
    assert made["bytes"] == bundle_policies.size_of(tmp_path / "policies" / "Cartpole")


def test_what_is_stored_acts_as_the_run(tmp_path):
    """Within what half precision leaves of the weights, and with every setting that decides about the task."""
    path, policies = make_run(tmp_path, "task=Ant", "algo=hepo", "task.physics.friction=0.7")
    stored = tmp_path / "small" / "Ant"
    bundle_policies.store(RunFolder.open(path), stored)
    config, saved = plain(read_run(stored)), load_checkpoint(stored / "checkpoints" / "best.pt", "Ant", "hepo")
    assert config["task"]["physics"]["friction"] == 0.7
    assert config["run_root"] == "runs"
    flat = saved["agent"]["learner"]["flat"]
    assert flat.dtype == torch.float16
    torch.testing.assert_close(flat.float(), policies.net.flat.detach(), rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(saved["agent"]["learner"]["obs_norm"]["mean"], policies.obs_norm.mean)


def test_the_command_is_kept_without_places(tmp_path):
    folder = RunFolder.create("Push2D", "hepo", 1, {"a": 1}, tmp_path)
    folder.metadata_file.write_text(
        '{"command": "python train.py task=Push2D \'seeds=[1,2]\' run_root=/somewhere plot=false wandb.mode=offline"}'
    )
    assert bundle_policies.command_of(folder) == "python train.py task=Push2D 'seeds=[1,2]'"
    folder.release()

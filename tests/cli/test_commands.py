"""The commands as a user types them: exit codes, one line on stderr, and a whole short run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from hepo_isaac import cli
from hepo_isaac.errors import UnstablePhysicsError, UserError
from hepo_isaac.runs import launch
from hepo_isaac.runs.machine import doctor
from hepo_isaac.sim.isaacgym import install as isaacgym_install

ROOT = Path(__file__).resolve().parents[2]


def run(capfd, main, *arguments):
    """Exit code, stdout and stderr of a command run in this process."""
    code = main(list(arguments))
    out, err = capfd.readouterr()
    return code, out, err


def assert_one_line(code, err, *names):
    assert code == 2
    assert err.count("\n") == 1
    assert "Traceback" not in err
    for name in names:
        assert name in err


# ---- as a process -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "names"),
    [
        (["train.py", "num_env=4"], ["num_env", "'num_envs'"]),
        (["train.py", "num_envs=511"], ["num_envs=511"]),  # found after Hydra has taken over
        (["-m", "hepo_isaac.cli", "trian"], ["trian", "'train'"]),
    ],
)
def test_exit_code_of_the_process(command, names, tmp_path):
    env = dict(os.environ, HYDRA_FULL_ERROR="1", PYTHONPATH=str(ROOT))
    script = [str(ROOT / command[0])] if command[0].endswith(".py") else [command[0]]
    done = subprocess.run(
        [sys.executable, *script, *command[1:]], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert_one_line(done.returncode, done.stderr, *names)
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []  # neither Hydra nor we leave a folder behind


# ---- in this process --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["task=Franka"], ["unknown task 'Franka'"]),
        (["heuristic=h13"], ["heuristic", "'h13'", "'h1"]),
        (["algo.multiplier.minimum=-0.5"], ["algo.multiplier.minimum"]),
        (["sim=isaacgym"], ["Isaac Gym"]),
        (["test=True"], ["checkpoint="]),
        (["test=True", "checkpoint=no/such/file.pt"], ["no/such/file.pt"]),
        (["resume=no/such/run"], ["no/such/run"]),
        (["-m", "resume=no/such/run"], ["--multirun"]),
        (["run_root=/dev/null/runs"], ["/dev/null/runs"]),
    ],
)
def test_train_refuses(capfd, monkeypatch, tmp_path, arguments, names):
    monkeypatch.chdir(tmp_path)
    code, _, err = run(capfd, launch.main, *arguments)
    assert_one_line(code, err, *names)


def test_hydras_own_flags_still_work(capfd):
    code, out, _ = run(capfd, launch.main, "--cfg", "job", "num_envs=12")
    assert code == 0
    assert "num_envs: 12" in out


@pytest.mark.parametrize(
    ("error", "code", "traceback"),
    [(UserError("two\nlines"), 2, False), (UnstablePhysicsError("NaN"), 1, False), (ValueError("a bug"), 1, True)],
)
def test_only_bugs_show_a_traceback(capfd, monkeypatch, tmp_path, error, code, traceback):
    def explode(cfg, overrides):
        raise error

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(launch, "run_job", explode)
    found, _, err = run(capfd, launch.main)
    assert found == code
    assert ("Traceback" in err) == traceback
    assert traceback or err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["comapre"], ["unknown command 'comapre'"]),
        (["eval"], ["run="]),
        (["play", "runs/x"], ["'runs/x'", "key=value"]),
        (["eval", "run=no/such/run"], ["no/such/run"]),
        (["eval", "run=x", "episode=3"], ["'episode'", "'eval.episodes'"]),
        (["tasks", "please"], ["'please'"]),
        (["bench", "--tasks", "Push2D"], ["unknown robot task 'Push2D'", "FrankaCabinet"]),
    ],
)
def test_cli_refuses(capfd, monkeypatch, tmp_path, arguments, names):
    monkeypatch.chdir(tmp_path)
    code, _, err = run(capfd, cli.main, *arguments)
    assert_one_line(code, err, *names)


def test_help_lists_every_command(capfd):
    code, out, _ = run(capfd, cli.main)
    assert code == 0
    assert all("  %s " % name in out for name in cli.COMMANDS)


def test_tasks_lists_sizes_engines_and_budgets(capfd):
    rows = {row[0]: row for row in cli.task_rows()}
    assert rows["FrankaCabinet"][1] == "23/9"
    assert "h1 … h12" in rows["FrankaCabinet"][3]
    assert "mujoco_batch" in rows["FrankaCabinet"][4]
    assert "4096 × 1500" in rows["FrankaCabinet"][5]
    code, out, _ = run(capfd, cli.main, "tasks")
    assert code == 0
    assert "FrankaCabinet" in out


def test_doctor_survives_a_probe_that_breaks(monkeypatch):
    def broken():
        raise RuntimeError("driver gone")

    monkeypatch.setattr(doctor, "_gpu", broken)
    monkeypatch.setattr(doctor, "_video", lambda: doctor.Finding("video", doctor.OK, "skipped"))
    states = {f.name: f for f in doctor.examine()}
    assert states["broken"].state == doctor.BAD
    assert "driver gone" in states["broken"].text
    assert states["torch"].state == doctor.OK


def findings(monkeypatch, *names):
    """What doctor says under each of ``names``, which may be the beginning of several; films are not tried."""
    monkeypatch.setattr(doctor, "_video", lambda: doctor.Finding("video", doctor.OK, "skipped"))
    return [f for f in doctor.examine() if f.name.startswith(names)]


def test_doctor_names_the_command_for_what_is_missing(monkeypatch):
    monkeypatch.setattr(doctor, "version", lambda package: None)
    found = {f.name: f for f in findings(monkeypatch, "MuJoCo Warp", "torch", "wandb")}
    assert "[cuda]" in found["MuJoCo Warp"].mend
    assert found["torch"].state == doctor.BAD
    assert found["wandb"].state == doctor.NOTE


@pytest.fixture
def python38(monkeypatch):
    """Doctor in the Python of Isaac Gym."""
    monkeypatch.setattr(doctor.sys, "version_info", (3, 8, 18, "final", 0))


GYM = ("Isaac Gym", "NVIDIA's assets")


def test_doctor_has_one_line_for_an_isaacgym_that_is_not_there(monkeypatch):
    monkeypatch.setattr(isaacgym_install, "package_folder", lambda: None)
    (found,) = findings(monkeypatch, *GYM)
    assert found.state == doctor.NOTE
    assert "developer.nvidia.com/isaac-gym" in found.mend


def test_doctor_names_all_that_isaacgym_lacks_where_nothing_else_runs(monkeypatch, python38):
    monkeypatch.setattr(isaacgym_install, "package_folder", lambda: None)
    monkeypatch.setattr(isaacgym_install, "_driver_loads", lambda: False)
    monkeypatch.setattr(isaacgym_install, "_torch_version", lambda: "1.13.1")
    monkeypatch.setattr(isaacgym_install.shutil, "which", lambda tool: None)
    found = {f.name: f for f in findings(monkeypatch, *GYM)}
    for name in ("package", "torch", "driver", "ninja", "g++"):
        assert found["Isaac Gym: " + name].state == doctor.BAD
        assert found["Isaac Gym: " + name].mend


def test_doctor_finds_isaacgym_and_nvidias_assets(monkeypatch, tmp_path):
    monkeypatch.setattr(isaacgym_install, "problems", list)
    monkeypatch.setattr(isaacgym_install, "package_folder", lambda: tmp_path)
    monkeypatch.setattr(isaacgym_install, "nvidia_assets", lambda: tmp_path)
    monkeypatch.setattr(doctor, "_asset_files", lambda: ["mjcf/nv_ant.xml"])
    gym, assets = findings(monkeypatch, *GYM)
    assert gym.state == doctor.OK
    assert (assets.state, "lacks mjcf/nv_ant.xml" in assets.text) == (doctor.NOTE, True)
    (tmp_path / "mjcf").mkdir()
    (tmp_path / "mjcf/nv_ant.xml").write_text("")
    assert findings(monkeypatch, *GYM)[1].state == doctor.OK
    no_gpu = isaacgym_install.Problem("CUDA", "no GPU", "use device=cpu")
    monkeypatch.setattr(isaacgym_install, "problems", lambda: [no_gpu])
    assert [f.state for f in findings(monkeypatch, *GYM)] == [doctor.OK, doctor.NOTE, doctor.OK]
    monkeypatch.setattr(isaacgym_install, "problems", list)
    monkeypatch.setattr(isaacgym_install, "nvidia_assets", lambda: None)
    assert "sim.assets" in findings(monkeypatch, *GYM)[1].mend


def test_doctor_says_what_runs_on_python_38(monkeypatch, python38):
    monkeypatch.setattr(doctor, "version", lambda package: "1.0" if package == "mujoco" else None)
    found = {f.name: f for f in findings(monkeypatch, "sim=auto", "mujoco", "MuJoCo Warp", "torch")}
    assert "sim=isaacgym" in found["sim=auto"].text
    assert found["sim=auto"].state == doctor.NOTE
    assert "Python 3.11" in found["mujoco"].text
    assert "Python 3.11" in found["MuJoCo Warp"].text
    assert "constraints-py38.txt" in found["torch"].mend


def test_resume_takes_only_harmless_settings():
    cfg = OmegaConf.create({
        "task": {"name": "T"}, "algo": {"name": "hepo"}, "train": {"max_iterations": 10, "gamma": 0.9},
        "wandb": {"enabled": False}, "seed": 1,
    })  # fmt: skip
    changed = launch.resumed_config(cfg, ["train.max_iterations=20", "wandb.enabled=true", "task=T", "algo=hepo"])
    assert changed.train == {"max_iterations": 20, "gamma": 0.9, "schedule_iterations": 10}
    assert changed.wandb.enabled is True
    for refused in ("train.gamma=0.5", "seed=2", "task=Other", "algo=ppo_h", "nonsense=1"):
        with pytest.raises(UserError, match=refused.split("=")[0]):
            launch.resumed_config(cfg, [refused])
    with pytest.raises(UserError, match="whole number"):
        launch.resumed_config(cfg, ["train.max_iterations=many"])


def test_train_resume_evaluate(capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = ["num_envs=4", "train.max_iterations=2", "train.mini_epochs=1", "torch_threads=1", "sim.threads=1"]
    code, out, err = run(capfd, launch.main, "task=FrankaCabinet", "algo=hepo", *small)
    assert code == 0, err
    assert "demonstration" in out
    assert "budget=paper" in out
    (folder,) = (tmp_path / "runs" / "FrankaCabinet" / "hepo").iterdir()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["runs"]
    saved = OmegaConf.load(folder / "config.yaml")
    assert (saved.num_envs, saved.sim.name, saved.budget.name) == (4, "mujoco_batch", "demo")

    code, _, err = run(capfd, launch.main, "resume=%s" % folder)
    assert_one_line(code, err, "complete", "train.max_iterations")
    code, _, err = run(capfd, launch.main, "resume=%s" % folder, "num_envs=8")
    assert_one_line(code, err, "num_envs cannot be set")
    code, _, err = run(capfd, launch.main, "resume=%s" % folder, "train.max_iterations=3")
    assert code == 0, err
    assert len((folder / "metrics.csv").read_text().splitlines()) == 1 + 3
    saved = OmegaConf.load(folder / "config.yaml").train
    assert (saved.max_iterations, saved.schedule_iterations) == (3, 2)

    code, _, err = run(capfd, cli.main, "eval", "run=%s" % folder, "algo=ppo_h")
    assert_one_line(code, err, "trained with algo=hepo")
    code, out, err = run(capfd, cli.main, "eval", "run=%s" % folder, "episodes=2", "task.episode_length=20")
    assert code == 0, err
    assert "n=2" in out
    assert "pi_h" in out


def test_random_actions_are_evaluated_without_a_run(capfd):
    outs = []
    for seed in (1, 1, 2):
        arguments = ("task=Cartpole", "run=random", "episodes=4", "seed=%d" % seed, "sim=mujoco_batch")
        code, out, err = run(capfd, cli.main, "eval", *arguments)
        assert code == 0, err
        outs.append(out)
    assert "random actions" in outs[0]
    assert "n=4" in outs[0]
    assert "pi_h" not in outs[0]
    assert outs[0] == outs[1] != outs[2]

"""Whole command lines on the fake Isaac Gym, in processes of their own, as a user with the real one would type them."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import fake_gym

ROOT = Path(__file__).resolve().parents[2]


def run(folder, *arguments, code=0):
    """``python <arguments>`` with the fake as the installed Isaac Gym; torch must not come first here."""
    env = fake_gym.environment()
    env.pop("FAKE_ISAACGYM_AFTER_TORCH", None)
    env["PYTHONPATH"] = os.pathsep.join([env["PYTHONPATH"], str(ROOT)])
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=str(folder), env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def iterations(folder):
    rows = csv.DictReader((folder / "metrics.csv").read_text().splitlines())
    return [int(float(row["iteration"])) for row in rows]


def test_train_resume_and_evaluate(tmp_path):
    small = ["num_envs=8", "train.horizon_length=8", "train.minibatch_size=32", "train.mini_epochs=2"]
    quiet = [
        "torch_threads=1",
        "tensorboard=false",
        "plot=false",
        "checkpoint_every=2",
        "run_root=%s" % (tmp_path / "runs"),
    ]
    train = [str(ROOT / "train.py"), "task=FrankaCabinet", "algo=hepo", "sim=isaacgym", "device=cpu"]
    text = run(tmp_path, *train, "train.max_iterations=4", *small, *quiet)
    assert "building 8 environments on isaacgym" in text
    (folder,) = (tmp_path / "runs" / "FrankaCabinet" / "hepo").iterdir()
    assert iterations(folder) == list(range(1, 5))
    assert (folder / "checkpoints" / "last.pt").is_file()
    run(tmp_path, str(ROOT / "train.py"), "resume=%s" % folder, "train.max_iterations=6")
    assert iterations(folder) == list(range(1, 7))
    text = run(tmp_path, "-m", "hepo_isaac.cli", "eval", "run=%s" % folder, "episodes=4")
    assert "FrankaCabinet / hepo, mean actions" in text
    assert "drawer_open" in text


def test_films_are_made_elsewhere(tmp_path):
    text = run(
        tmp_path, "-m", "hepo_isaac.cli", "play", "task=Cartpole", "run=random", "sim=isaacgym", "device=cpu", code=2
    )
    assert "sim=isaacgym makes no films" in text
    assert "sim=mujoco_batch" in text

"""kill -9 at any moment of a run that saves after every iteration: what is on disk is whole and goes on."""

from __future__ import annotations

import csv
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hepo_isaac.runs import launch
from hepo_isaac.runs.record.checkpoint import load_checkpoint
from hepo_isaac.runs.record.folder import FINISHED, INTERRUPTED, RunFolder

ROOT = Path(__file__).resolve().parents[2]
ENDLESS = (
    "task=Push2D", "algo=hepo_plus", "num_envs=16", "train.minibatch_size=64", "train.max_iterations=100000", "seed=1",
    "train.network.units=[16]", "plot=false", "torch_threads=1", "train.fused=false", "checkpoint_every=1",
    "evaluation_episodes=0", "device=cpu", "tensorboard=false",
)  # fmt: skip


def killed(root, seconds):
    """A run that is killed so long after its first checkpoint; its folder."""
    command = [sys.executable, str(ROOT / "train.py"), *ENDLESS, "run_root=%s" % root]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT)
    deadline = time.monotonic() + 60.0
    while not list(root.rglob("last.pt")) and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(seconds)
    child.kill()
    child.wait()
    (file,) = root.rglob("config.yaml")
    return RunFolder(file.parent)


def assert_whole(folder):
    assert folder.status() == INTERRUPTED
    saved = load_checkpoint(folder.checkpoints / "last.pt")["iteration"]
    code = launch.main(["resume=%s" % folder.path, "train.max_iterations=%d" % (saved + 2)])
    assert code == 0 and folder.status() == FINISHED
    assert load_checkpoint(folder.checkpoints / "last.pt")["iteration"] == saved + 2
    with open(folder.metrics_file, newline="") as file:
        rows = list(csv.reader(file))
    assert {len(row) for row in rows} == {len(rows[0])}
    column = rows[0].index("iteration")
    assert [int(row[column]) for row in rows[1:]] == list(range(1, saved + 3))
    kept = {"checkpoints", "config.yaml", "metadata.json", "metrics.csv", "status.json", "summary.json"}
    found = {path.name for path in folder.path.iterdir()}
    assert found == kept | {".lock", ".config.signature"}
    assert not [path for path in folder.path.rglob("*") if path.name.endswith(".tmp")]


@pytest.mark.parametrize("seconds", [0.0, 0.137])
def test_a_killed_run_goes_on(tmp_path, seconds):
    assert_whole(killed(tmp_path, seconds))


@pytest.mark.slow
@pytest.mark.parametrize("trial", range(100))
def test_a_hundred_killed_runs_go_on(tmp_path, trial):
    assert_whole(killed(tmp_path, random.Random(trial).uniform(0.0, 1.0)))

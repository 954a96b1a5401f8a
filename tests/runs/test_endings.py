"""A run ends well whenever it is stopped: in training, while it saves, and in what comes after the last iteration."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hepo_isaac.runs import launch
from hepo_isaac.runs.record.checkpoint import load_checkpoint
from hepo_isaac.runs.record.folder import FINISHED, INTERRUPTED, RunFolder

ROOT = Path(__file__).resolve().parents[2]
FAKE_AGENT = Path(__file__).with_name("fake_agent.py")
SMALL = (
    "task=Push2D", "algo=hepo", "num_envs=16", "train.minibatch_size=64", "train.max_iterations=3", "seed=1",
    "train.network.units=[16]", "tensorboard=false", "torch_threads=1", "train.fused=false", "device=cpu",
)  # fmt: skip


def trained(root, *more):
    command = [sys.executable, str(ROOT / "train.py"), *SMALL, "run_root=%s" % root, *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)


def wait_for(condition, seconds=60.0):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError("nothing after %.0f s" % seconds)


def last_iteration(root):
    """The one folder, once last.pt holds the last iteration."""
    for file in root.rglob("last.pt"):
        if load_checkpoint(file)["iteration"] == 3:
            return RunFolder(file.parent.parent)
    return None


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_what_comes_after_the_last_iteration_can_be_stopped_and_is_done_by_resume(capfd, tmp_path, number, code):
    child = trained(tmp_path, "evaluation_episodes=1000000", "plot=true")
    folder = wait_for(lambda: last_iteration(tmp_path))
    time.sleep(0.5)  # in the evaluation
    sent = time.monotonic()
    child.send_signal(number)
    _, err = child.communicate(timeout=60)
    assert child.returncode == code and time.monotonic() - sent < 10.0, err
    assert "Traceback" not in err
    assert folder.status() == INTERRUPTED and not folder.summary_file.exists()
    assert launch.main(["resume=%s" % folder.path, "evaluation_episodes=32"]) == 0, capfd.readouterr().err
    assert folder.status() == FINISHED and folder.plot_file.exists()
    assert json.loads(folder.summary_file.read_text())["evaluation"]["episodes"] >= 16
    assert len(folder.metrics_file.read_text().splitlines()) == 1 + 3


def test_a_plot_that_was_never_drawn_is_drawn_by_resume(capfd, tmp_path):
    assert launch.main([*SMALL, "run_root=%s" % tmp_path, "evaluation_episodes=0"]) == 0
    folder = last_iteration(tmp_path)
    folder.plot_file.unlink()
    capfd.readouterr()
    assert launch.main(["resume=%s" % folder.path]) == 0
    assert str(folder.plot_file) in capfd.readouterr().out.replace("\n", "") and folder.plot_file.exists()
    assert launch.main(["resume=%s" % folder.path]) == 2
    assert "is complete (iteration 3 of 3)" in capfd.readouterr().err


def hammered(root, gaps):
    """SIGINT after each gap, in a run that saves after every iteration; (exit code, stderr, folder)."""
    child = subprocess.Popen(
        [sys.executable, str(FAKE_AGENT), str(root), "100000", "0.01"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ, PYTHONPATH=str(ROOT)),
    )  # fmt: skip
    rows = wait_for(lambda: [f for f in root.rglob("metrics.csv") if len(f.read_text().splitlines()) > 2])
    for gap in gaps:
        time.sleep(gap)
        child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=60)
    return child.returncode, err, RunFolder(rows[0].parent)


def assert_ended_well(code, err, folder):
    assert code in (3, 130, 1, -2), err  # 3: saved and stopped; else StoppedError goes through, as Python lets it
    assert folder.status() == INTERRUPTED
    state = json.loads(folder.status_file.read_text())
    assert state["status"] == "interrupted" and "resume=" in state["resume"]
    saved = load_checkpoint(folder.checkpoints / "last.pt")["iteration"]
    assert saved == state.get("iteration", state.get("saved_iteration"))
    assert not list(folder.path.rglob(".*.tmp"))


@pytest.mark.parametrize("gaps", [(0.05,), (0.05, 0.0), (0.05, 0.003), (0.0, 0.0, 0.0), (0.02, 0.02, 0.0)])
def test_ctrl_c_once_twice_and_three_times(tmp_path, gaps):
    assert_ended_well(*hammered(tmp_path, gaps))


@pytest.mark.slow
@pytest.mark.parametrize("trial", range(30))
def test_ctrl_c_three_times_at_random(tmp_path, trial):
    draw = random.Random(trial)
    assert_ended_well(
        *hammered(tmp_path, [draw.choice([0.0, draw.uniform(0.0, 0.01), draw.uniform(0.0, 0.1)]) for _ in range(3)])
    )

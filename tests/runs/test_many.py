"""Many runs in one process, and many iterations in one run: memory, files and threads stay as they are."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from hepo_isaac.runs import launch
from hepo_isaac.runs.train.seeds import SeedsObserver

ROOT = Path(__file__).resolve().parents[2]
SMALL = (
    "algo=hepo", "num_envs=16", "train.minibatch_size=64", "train.network.units=[16]", "evaluation_episodes=16",
    "plot=true", "torch_threads=1", "device=cpu", "checkpoint_every=1",
)  # fmt: skip


def held():
    """(MiB, open files, threads) of this process."""
    gc.collect()
    process = psutil.Process()
    return process.memory_info().rss / 2**20, process.num_fds(), threading.active_count()


def train(root, task, iterations, *more):
    given = ["task=" + task, "train.max_iterations=%d" % iterations, "run_root=%s" % root]
    assert launch.main([*SMALL, *given, *more]) == 0


def test_a_second_run_leaves_no_file_open_and_no_thread(capfd, tmp_path):
    train(tmp_path, "Push2D", 1)
    before = held()
    for _ in range(2):
        train(tmp_path, "Push2D", 2)
    assert held()[1:] == before[1:]


TWENTY = """
import contextlib, io, json, sys
from tests.runs.test_many import SMALL, held
from hepo_isaac.runs import launch
found = []
for k in range(20):
    with contextlib.redirect_stdout(io.StringIO()):
        assert launch.main([*SMALL, "task=" + sys.argv[1], "train.max_iterations=3", "run_root=" + sys.argv[2]]) == 0
    if k in (4, 19):
        found.append(held())
print(json.dumps(found))
"""


@pytest.mark.slow
@pytest.mark.parametrize("task", ["Push2D", "Cartpole"])
def test_twenty_runs_in_one_process(tmp_path, task):
    """In a process of their own: what a test runner keeps is not ours."""
    command = [sys.executable, "-c", TWENTY, task, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    before, after = json.loads(done.stdout.splitlines()[-1])
    assert after[1:] == before[1:] and after[0] - before[0] < 10.0, (before, after)


@pytest.mark.slow
def test_two_thousand_iterations(capfd, tmp_path, monkeypatch):
    found, observed = {}, SeedsObserver.on_iteration

    def looking(self, agent, metrics):
        if agent.iteration in (500, 2000):
            found[agent.iteration] = held()
        return observed(self, agent, metrics)

    monkeypatch.setattr(SeedsObserver, "on_iteration", looking)
    train(tmp_path, "Push2D", 2000, "checkpoint_every=100")
    assert found[2000][1:] == found[500][1:] and found[2000][0] - found[500][0] < 10.0, found

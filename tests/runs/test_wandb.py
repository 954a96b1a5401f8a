"""wandb itself against a stand-in of its server: every iteration once, whatever ended and continued the run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from hepo_isaac.runs.record.metrics_csv import MetricsCsv
from hepo_isaac.runs.record.tracking import Tracker
from hepo_isaac.runs.record.wandb_record import sync_appends
from hepo_isaac.runs.record.wandb_sink import WandbSink
from tests.runs.wandb_server import WandbServer

pytest.importorskip("wandb")
# Together half a minute of a CPU, and 62 MB of wandb: make test-slow. test_tracking.py has what needs no wandb.
pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
SMALL = [
    "task=Push2D", "algo=ppo_h", "num_envs=4", "train.max_iterations=3", "torch_threads=1", "tensorboard=false",
    "plot=false",
]  # fmt: skip


@pytest.fixture
def server(monkeypatch, tmp_path):
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    with WandbServer() as found:
        for name, value in {**found.environment, "HOME": str(tmp_path / "home")}.items():
            monkeypatch.setenv(name, value)
        yield found


class Run:
    """A run folder whose W&B record is written part by part."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.said = []
        self.folder.mkdir(parents=True, exist_ok=True)

    def part(self, first, last, saved=None, killed=False, mode="online", agent=True, **options):
        """Iterations ``first`` to ``last``, resumed from the checkpoint of ``first - 1``."""
        csv_file = MetricsCsv(self.folder / "metrics.csv", first - 1 if first > 1 else None)
        given = {"project": "p", "mode": mode, **options}
        sink = WandbSink(given, csv_file.path, {"seed": 7}, self.said.append, first - 1, agent)
        tracker = Tracker(csv_file, {"W&B": sink}, self.said.append)
        for i in range(first, last + 1):
            tracker.write({"iteration": i, "env_steps": 64 * i, "x": i / 2})
        tracker.saved(last if saved is None else saved)
        if killed:
            while sink._message is not None:  # not sent yet
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGKILL)
        tracker.close()

    def killed_part(self, first, last, saved, mode="online"):
        """``part`` in a process of its own, which is killed; W&B's process outlives it."""
        code = "from tests.runs.test_wandb import Run; Run(%r).part(%d, %d, %d, True, %r)"
        given = (str(self.folder), first, last, saved, mode)
        env = dict(os.environ, PYTHONPATH=str(ROOT))
        done = subprocess.run([sys.executable, "-c", code % given], env=env, timeout=60)
        assert done.returncode == -signal.SIGKILL
        handed, deadline = self.folder / "wandb" / "handed.json", time.monotonic() + 30
        while not (handed.exists() and json.loads(handed.read_text())["closed"]) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert json.loads(handed.read_text()) == {"iteration": saved, "closed": True}

    @property
    def id(self):
        return (self.folder / "wandb_id").read_text().strip()

    def sync(self):
        """``wandb sync`` as docs/sweeps.md has it."""
        records = [str(p) for p in sorted((self.folder / "wandb").glob("offline-run-*"))]
        command = [sys.executable, "-m", "wandb", "sync", *records]
        done = subprocess.run(command, cwd=str(self.folder), capture_output=True, text=True, timeout=60)
        assert "ERROR" not in done.stderr, done.stderr
        return done


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path / "runs" / "2026-01-01_seed7")


def upto(last):
    return list(range(1, last + 1))


def test_a_run_is_recorded(server, run):
    run.part(1, 5)
    assert server.iterations(run.id) == server.steps(run.id) == upto(5)
    found = server.runs[run.id]
    assert (found["displayName"], found["project"], found["exit"]) == ("2026-01-01_seed7", "p", 0)
    assert found["config"]["seed"]["value"] == 7
    assert run.said == []


def test_a_killed_run_that_is_resumed_goes_on_in_its_record(server, run):
    run.killed_part(1, 28, 20)
    assert server.runs[run.id]["exit"] == 1
    first = run.id
    run.part(21, 30)
    assert run.id == first and list(server.runs) == [first]
    assert server.iterations(first) == server.steps(first) == upto(30)
    assert run.said == []


def test_what_wandb_lost_is_handed_over_by_the_resume(server, run):
    run.part(1, 20)
    del server.runs[run.id]["history"][12:]
    run.part(21, 22)
    assert server.iterations(run.id) == server.steps(run.id) == upto(22)


def test_going_back_begins_a_record_that_has_every_iteration(server, run):
    run.part(1, 28)
    old = run.id
    run.part(11, 15)
    assert server.iterations(old) == upto(28)
    assert run.id != old
    assert server.iterations(run.id) == server.steps(run.id) == upto(15)
    assert server.runs[run.id]["displayName"] == "2026-01-01_seed7-from10"
    (said,) = run.said
    assert old in said and run.id in said and "which is at 10" in said


def test_what_wandb_refuses_is_said_once(server, run):
    server.refuse = 400
    run.part(1, 5)
    said = [
        text for text in run.said if "400 encountered" not in text
    ]  # wandb shows it only while nothing else is shown
    assert len(said) == 1 and "Some run data will not be synced" in said[0]
    server.refuse = None
    run.part(6, 7)
    assert server.iterations(run.id) == upto(7), "the next resume makes up for it"


# ---- offline --------------------------------------------------------------------------------------------------------


def test_offline_killed_resumed_and_synced(server, run):
    run.killed_part(1, 28, 20, mode="offline")
    run.part(21, 30, mode="offline")
    run.sync()
    assert list(server.runs) == [run.id]
    assert server.iterations(run.id) == server.steps(run.id) == upto(30)


def test_offline_going_back_and_synced(server, run):
    run.part(1, 28, mode="offline")
    run.part(11, 15, mode="offline")
    run.sync()
    assert list(server.runs) == [run.id], "nobody had seen the iterations after 10"
    assert server.iterations(run.id) == server.steps(run.id) == upto(15)


def test_offline_a_torn_record_does_not_stop_the_others(server, run):
    run.part(1, 5, mode="offline")
    (record,) = (run.folder / "wandb").glob("offline-run-*/*.wandb")
    record.write_bytes(record.read_bytes()[:100])
    run.part(6, 8, mode="offline")
    run.sync()
    assert server.iterations(run.id) == upto(8)


def test_offline_synced_in_between(server, run):
    run.part(1, 10, mode="offline")
    run.sync()
    run.part(11, 15, mode="offline")
    run.sync()
    assert server.iterations(run.id) == server.steps(run.id) == upto(15)
    if not sync_appends():
        assert len(server.runs) == 2, "a record of its own, as this wandb sync would write over the first"
        return
    assert list(server.runs) == [run.id]
    run.part(13, 14, mode="offline")  # back behind what W&B has
    run.sync()
    assert len(server.runs) == 2
    assert server.iterations(run.id) == server.steps(run.id) == upto(14)
    assert "goes on as the W&B run " + run.id in run.said[0]


def test_offline_then_online(server, run):
    run.part(1, 10, mode="offline")
    run.part(11, 12)
    assert not run.sync().stdout
    assert list(server.runs) == [run.id]
    assert server.iterations(run.id) == server.steps(run.id) == upto(12)


def test_online_then_offline(server, run):
    run.part(1, 10)
    old = run.id
    run.part(11, 12, mode="offline")
    run.sync()
    assert server.iterations(old) == upto(10)
    assert server.iterations(run.id) == server.steps(run.id) == upto(12)


# ---- agents ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def agent(server, tmp_path):
    """Run ``wandb agent`` with one job for train.py; returns what it printed."""

    def work(args, *command):
        program = str(ROOT / "train.py")
        parts = ["${env}", "${interpreter}", "${program}", "wandb.enabled=true", "wandb.mode=online", *SMALL, *command]
        parameters = {name: {"values": [value]} for name, value in args.items()}
        server.sweep = yaml.safe_dump(
            {"program": program, "method": "grid", "parameters": parameters, "command": [*parts, "${args_no_hyphens}"]}
        )
        given = {name: {"value": value} for name, value in args.items()}
        server.jobs = [{"type": "run", "run_id": "agents01", "program": program, "args": given}]
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        done = subprocess.run(
            [sys.executable, "-m", "wandb", "agent", "--count", "1", "me/theirs/sweep1"],
            cwd=tmp_path,
            env=dict(os.environ, PATH=path, PYTHONPATH=str(ROOT)),
            capture_output=True,
            text=True,
            timeout=120,
        )
        return done.stdout + done.stderr

    return work


def test_an_agents_job_is_the_agents_run(server, agent, tmp_path):
    said = agent({"seed": 5})
    assert list(server.runs) == ["agents01"], said
    found = server.runs["agents01"]
    assert (found["project"], found["sweep"], found["exit"]) == ("theirs", "sweep1", 0)
    assert server.iterations("agents01") == upto(3)


def test_seeds_under_an_agent_are_a_run_each_in_one_group(server, agent, tmp_path):
    said = agent({"seeds": 3})
    ids = [p.read_text().strip() for p in sorted(tmp_path.glob("runs/Push2D/ppo_h/*/wandb_id"))]
    assert len(set(ids)) == 3 and ids[0] == "agents01", said
    assert set(server.runs) == set(ids)
    for k, run in enumerate(ids):
        found = server.runs[run]
        assert server.iterations(run) == server.steps(run) == upto(3)
        assert (found["project"], found["groupName"]) == ("theirs", "seeds-agents01")
        assert found["sweep"] == ("sweep1" if k == 0 else None)
        assert found["config"]["seed"]["value"] == 42 + k


def test_several_jobs_under_an_agent_are_refused(server, agent):
    said = agent({"seed": 5}, "-m")
    assert "error: a W&B agent has one run for one job, and -m starts several" in said
    assert server.runs == {}

"""``torchrun --nproc_per_node=2 train.py …`` as a user types it: one run folder, one voice, one end."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from hepo_isaac.errors import UserError
from hepo_isaac.runs import launch
from hepo_isaac.runs.record.metrics_csv import read_metrics
from hepo_isaac.runs.train import spread

ROOT = Path(__file__).resolve().parents[2]
SMALL = [
    "task=Push2D",
    "num_envs=16",
    "task.episode_length=12",
    "train.horizon_length=8",
    "train.minibatch_size=64",
    "train.mini_epochs=2",
    "train.network.units=[16,16]",
    "plot=false",
    "tensorboard=false",
]
HEURISTIC = """
import os, torch

def nan_on_one(s, _calls=[0]):
    _calls[0] += 1
    h = 0.0 * s.progress if hasattr(s, "progress") else torch.zeros(len(next(iter(vars(s).values()))))
    if os.environ["RANK"] == "1" and _calls[0] > 20:
        h[0] = float("nan")
    return h

def raises_on_one(s, _calls=[0]):
    _calls[0] += 1
    if os.environ["RANK"] == "1" and _calls[0] > 20:
        raise RuntimeError("the heuristic of this rank alone")
    return torch.zeros(len(next(iter(vars(s).values()))))
"""


def start(folder: Path, *overrides: str, processes: int = 2) -> subprocess.Popen:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=%d" % processes, "--standalone"]
    command += [str(ROOT / "train.py"), *overrides]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(folder)))}
    env.pop("OMP_NUM_THREADS", None)
    return subprocess.Popen(command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(folder: Path, *overrides: str, processes: int = 2):
    process = start(folder, *overrides, processes=processes)
    out, err = process.communicate(timeout=240)
    return process.returncode, out, err


def errors(err: str):
    return [line for line in err.splitlines() if line.startswith("error: ")]


def json_of(path: Path):
    return json.loads(path.read_text())


def runs_of(folder: Path):
    return sorted(folder.glob("runs/*/*/*"))


def test_two_processes_train_two_runs_side_by_side_and_one_goes_on_alone(tmp_path, monkeypatch):
    code, out, err = run(tmp_path, *SMALL, "seeds=2", "train.max_iterations=4", "evaluation_episodes=4")
    assert code == 0, err[-2000:]
    assert out.count("2 runs finished") == 1
    first, second = runs_of(tmp_path)
    for folder in (first, second):
        assert json_of(folder / "status.json")["status"] == "finished"
        described = json_of(folder / "metadata.json")
        assert (described["processes"], described["backend"]) == (2, "gloo")
        rows = list(csv.DictReader((folder / "metrics.csv").read_text().splitlines()))
        assert [float(row["env_steps"]) for row in rows] == [128.0, 256.0, 384.0, 512.0]
        state = torch.load(folder / "checkpoints" / "last.pt", weights_only=True)
        assert state["num_envs"] == 16 and len(state["agent"]["env"]["progress"]) == 16
        assert len(state["agent"]["ranks"]) == 2
    assert (first / "metrics.csv").read_text() != (second / "metrics.csv").read_text()
    monkeypatch.chdir(tmp_path)
    assert launch.main(["resume=%s" % first, "train.max_iterations=6"]) == 0
    assert json_of(first / "summary.json")["iterations"] == 6


@pytest.mark.slow
def test_what_cannot_be_shared_out_is_said_once(tmp_path):
    rest = [o for o in SMALL if not o.startswith(("num_envs", "train.minibatch_size"))]
    code, _, err = run(tmp_path, *rest, "num_envs=18", "train.minibatch_size=72")
    assert code == 1  # torchrun's own
    (said,) = errors(err)
    assert "num_envs=18 cannot be split over 2 processes" in said and "16 or 20" in said
    assert not (tmp_path / "runs").exists()


@pytest.fixture
def two(monkeypatch):
    """The variables that torchrun gives the first of two processes."""
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    for name, value in {**shared, "RANK": "0", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)


def test_a_rank_that_is_not_the_first_says_nothing_of_it(two, tmp_path, monkeypatch, capfd):
    """And ends after the first, whose sentence a launcher would cut off else."""
    waited = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(spread.time, "sleep", waited.append)
    assert launch.main([*SMALL, "num_envs=18", "train.minibatch_size=72"]) == 2
    assert capfd.readouterr() == ("", "") and waited == [spread.PATIENCE_S]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "overrides, sentence",
    [
        (("num_envs=18", "train.minibatch_size=72"), "num_envs=18 cannot be split over 2 processes"),
        (("num_envs=18", "algo=ppo_h", "train.minibatch_size=9"), "nearest that can: 8, 6"),
        (("-m", "seed=1,2"), "this is a multirun"),
        (("test=true", "checkpoint=x"), "this is an evaluation"),
        (("skip_finished=true",), "this is skip_finished=true"),
    ],
)
def test_what_torchrun_cannot_do_is_refused(overrides, sentence, two, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert launch.main([*SMALL, *overrides]) == 2
    (said,) = errors(capsys.readouterr().err)
    assert sentence in said
    assert not list(tmp_path.iterdir())


def test_more_processes_than_gpus_are_refused(two, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    cfg = {"num_envs": 16, "algo": {"objectives": ["task"]}, "train": {"minibatch_size": 64, "horizon_length": 8}}
    spread.check({**cfg, "device": "cpu"})
    with pytest.raises(UserError, match="2 processes here, and torch sees 1 GPU.*--nproc_per_node=1"):
        spread.check({**cfg, "device": "cuda:0"})


def test_processes_share_cores_and_take_their_own_gpu(two, monkeypatch):
    monkeypatch.setattr(spread, "usable_cores", lambda: 8)
    monkeypatch.setenv("LOCAL_RANK", "1")
    shared = spread.share_cores({"torch_threads": 4, "update_threads": 8}, "auto")
    assert (shared["torch_threads"], shared["update_threads"]) == (2, 4)
    assert spread.share_cores({"torch_threads": 3, "update_threads": 3}, 3)["torch_threads"] == 3
    assert spread.own_device("cuda:0") == "cuda:1" and spread.own_device("cpu") == "cpu"


def test_a_broken_number_of_one_rank_stops_all_with_its_name(tmp_path):
    (tmp_path / "mine.py").write_text(HEURISTIC)
    code, _, err = run(tmp_path, *SMALL, "heuristic=mine:nan_on_one", "train.max_iterations=50")
    assert code == 1
    (said,) = errors(err)
    assert "heuristic" in said and "mine:nan_on_one" in said
    (folder,) = runs_of(tmp_path)
    assert json_of(folder / "status.json")["status"] == "failed"
    last = torch.load(folder / "checkpoints" / "last.pt", weights_only=True)
    assert last["agent"]["learner"]["flat"].isfinite().all()


def wait_for(folder: Path, process: subprocess.Popen) -> Path:
    """Until a first checkpoint is there."""
    for _ in range(600):
        found = list(folder.glob("runs/*/*/*/checkpoints/last.pt"))
        if found:
            return found[0].parents[1]
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.1)
    raise AssertionError("no checkpoint after a minute")


def rank_process(process: subprocess.Popen, rank: int) -> psutil.Process:
    return next(p for p in psutil.Process(process.pid).children() if p.environ().get("RANK") == str(rank))


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_rank_ends_all_with_one_sentence(rank, tmp_path):
    process = start(tmp_path, *SMALL, "train.max_iterations=1000000", "checkpoint_every=5")
    folder = wait_for(tmp_path, process)
    others = psutil.Process(process.pid).children()
    rank_process(process, rank).kill()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert len(errors(err)) == 1 and "another process of this run ended or was killed" in errors(err)[0]
    assert not any(other.is_running() for other in others)
    code, _, err = run(tmp_path, "resume=%s" % folder, "train.max_iterations=%d" % (saved(folder) + 3))
    assert code == 0, err[-2000:]


def saved(folder: Path) -> int:
    return torch.load(folder / "checkpoints" / "last.pt", weights_only=True)["iteration"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_torchrun_saves_first(number, tmp_path):
    process = start(tmp_path, *SMALL, "train.max_iterations=1000000", "checkpoint_every=1000000")
    folder = wait_for(tmp_path, process)
    time.sleep(1.0)
    process.send_signal(number)
    out, _ = process.communicate(timeout=60)
    status = json_of(folder / "status.json")
    assert status["status"] == "interrupted" and status["iteration"] == saved(folder)
    assert "torchrun --nproc_per_node=2 train.py resume=" in out


@pytest.mark.slow
def test_an_error_of_one_rank_alone_is_shown_and_ends_all(tmp_path):
    (tmp_path / "mine.py").write_text(HEURISTIC)
    code, _, err = run(tmp_path, *SMALL, "heuristic=mine:raises_on_one", "train.max_iterations=1000")
    assert code == 1
    assert "the heuristic of this rank alone" in err
    (folder,) = runs_of(tmp_path)
    assert json_of(folder / "status.json")["status"] == "failed"


@pytest.mark.slow
def test_two_processes_learn_as_much_as_one(tmp_path):
    """Eight seeds of one command on two processes and on one: the policies' returns are the same within their error."""
    learn = ["task=Push2D", "algo=ppo_h", "num_envs=32", "train.minibatch_size=256", "train.network.units=[32,32]"]
    learn += ["seeds=8", "train.max_iterations=40", "evaluation_episodes=64", "plot=false", "tensorboard=false"]
    start, end = {}, {}
    for processes in (1, 2):
        code, _, err = run(tmp_path, *learn, "run_root=%s" % (tmp_path / str(processes)), processes=processes)
        assert code == 0, err[-2000:]
        runs = [file.parent for file in (tmp_path / str(processes)).rglob("summary.json")]
        assert len(runs) == 8
        found = [json_of(folder / "summary.json")["evaluation"]["pi"]["return_heuristic"] for folder in runs]
        column = [read_metrics(folder / "metrics.csv")["return_heuristic/pi"] for folder in runs]
        start[processes] = torch.tensor([float(x[np.isfinite(x)][0]) for x in column])  # of the first that ended
        end[processes] = torch.tensor(found)
    for one, two in (start.values(), end.values()):
        assert (one.mean() - two.mean()).abs() < 3.5 * ((one.var() + two.var()) / 8).sqrt(), (one, two)
    gained = end[1] - start[1]
    assert gained.mean() > 3.0 * gained.std() / 8**0.5  # and they have learned

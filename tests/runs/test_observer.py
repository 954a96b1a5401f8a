from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from hepo_isaac.errors import CheckpointError, Notice, UnstablePhysicsError
from hepo_isaac.runs.record.checkpoint import load_checkpoint
from hepo_isaac.runs.record.folder import RunFolder, locate_resume
from hepo_isaac.runs.record.metrics_csv import read_metrics

FAKE_AGENT = Path(__file__).with_name("fake_agent.py")


def test_a_finished_run_leaves_everything(folder, make_observer, fake):
    observer = make_observer(checkpoint_every=10, keep_checkpoints=2, plot=True)
    fake.FakeAgent(40).train(observer)
    names = sorted(p.name for p in folder.checkpoints.iterdir())
    assert names == ["best.pt", "iteration_000030.pt", "iteration_000040.pt", "last.pt"]
    assert folder.status() == "finished"
    summary = json.loads(folder.summary_file.read_text())
    assert summary["status"] == "finished"
    assert summary["iterations"] == 40
    assert summary["env_steps"] == 40 * fake.STEPS
    assert summary["totals"]["bad_worlds"] == 40
    # 4 episodes every second iteration, window 100: the entries of iterations 2 … 40 hold only 80 episodes
    assert summary["final"]["return_task/pi"] == pytest.approx(sum(range(2, 41, 2)) / 20 / 100)
    assert read_metrics(folder.metrics_file)["iteration"].size == 40
    assert folder.plot_file.stat().st_size > 10_000
    text = observer._progress.stream.getvalue()
    for word in ("Fake", "hepo", "none", "cpu", str(folder.path), str(folder.plot_file), "J(π_H)", "drawer_open 0.25"):
        assert word in text
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", text), "control characters where there is no terminal"
    assert len(text.splitlines()) < 40


def test_ppo_with_one_policy_and_no_alpha(folder, make_observer, fake):
    agent = fake.FakeAgent(4, policies=("pi",))
    observer = make_observer(plot=True)
    observer.after_init(agent)
    while agent.iteration < 4:
        metrics = agent.step()
        del metrics["alpha"]
        observer.on_iteration(agent, metrics)
    observer.on_finish(agent)
    text = observer._progress.stream.getvalue()
    assert "π_H" not in text
    assert "α" not in text
    assert folder.plot_file.is_file()


def test_nothing_known_yet_is_no_trouble(folder, make_observer, fake):
    agent = fake.FakeAgent(2)
    observer = make_observer(plot=True)
    observer.after_init(agent)
    for _ in range(2):
        nothing = {k: math.nan for k in agent.metrics() if "/" in k or k == "alpha"}
        assert observer.on_iteration(agent, agent.step(**nothing)) is False
    observer.on_finish(agent)
    assert "J(π) –" in observer._progress.stream.getvalue()
    summary = json.loads(folder.summary_file.read_text(), parse_constant=lambda name: pytest.fail("not JSON: " + name))
    assert summary["best_return_task"] is None
    assert not (folder.checkpoints / "best.pt").exists()
    assert folder.policy_checkpoint().name == "last.pt"


def abandon(observer):
    """What the death of the process does: handlers and open files go, nothing is written."""
    observer.stop.remove()
    observer._tracker.close()


def run_with_returns(observer, agent, returns):
    """One iteration per return, 4 episodes of π each."""
    for value in returns:
        observer.on_iteration(agent, agent.step(**{"return_task/pi": value, "episodes/pi": 4.0}))


def best_of(folder):
    return load_checkpoint(folder.checkpoints / "best.pt")["iteration"]


def test_best_is_the_highest_running_return_and_survives_a_resume(folder, make_observer, fake):
    agent = fake.FakeAgent(99)
    observer = make_observer(best_every=1, checkpoint_every=1)
    observer.running.window = 4
    observer.after_init(agent)
    run_with_returns(observer, agent, [0.1, 0.9, 0.5])
    assert best_of(folder) == 2
    abandon(observer)

    again = make_observer(resume=load_checkpoint(folder.checkpoints / "last.pt"), best_every=1)
    again.running.window = 4
    agent = fake.FakeAgent(99)
    again.after_init(agent)
    assert agent.iteration == 3
    run_with_returns(again, agent, [0.8])
    assert best_of(folder) == 2, "a worse policy has replaced the best one after a resume"
    run_with_returns(again, agent, [0.95])
    assert best_of(folder) == 5
    abandon(again)


def test_best_needs_enough_episodes(folder, make_observer, fake):
    agent = fake.FakeAgent(99)
    observer = make_observer(best_every=1, min_episodes=12)
    observer.after_init(agent)
    run_with_returns(observer, agent, [5.0, 0.1])
    assert not (folder.checkpoints / "best.pt").exists()
    run_with_returns(observer, agent, [0.1])
    assert best_of(folder) == 3
    abandon(observer)


class Sink:
    """An extra record of a run that keeps what it is told."""

    def __init__(self):
        self.told = []

    def write(self, metrics):
        self.told.append(metrics["iteration"])

    def saved(self, iteration):
        self.told.append("saved %d" % iteration)

    def close(self, finished):
        self.told.append("finished" if finished else "ended")


def test_extra_records_are_told_what_is_saved_and_how_it_ended(folder, make_observer, fake):
    for iterations, failing, expected in (
        (3, False, [1, "saved 1", 2, "saved 2", 3, "saved 3", "finished"]),
        (9, True, [4, 5, "ended"]),
    ):
        agent = fake.FakeAgent(iterations)
        resume = load_checkpoint(folder.checkpoints / "last.pt") if failing else None
        observer = make_observer(resume=resume, checkpoint_every=100 if failing else 2)
        observer.after_init(agent)
        sink = observer._tracker._extras["sink"] = Sink()
        while agent.iteration < (5 if failing else 3):
            observer.on_iteration(agent, agent.step())
        observer.on_failure(agent, ValueError()) if failing else observer.on_finish(agent)
        assert sink.told == expected


def test_resume_continues_without_gap_or_duplicate(folder, make_observer, fake):
    first = make_observer(checkpoint_every=5)
    agent = fake.FakeAgent(20)
    first.after_init(agent)
    for _ in range(8):  # killed after 8, last.pt is of 5
        first.on_iteration(agent, agent.step())
    abandon(first)
    payload = load_checkpoint(folder.checkpoints / "last.pt", "Fake", "hepo")
    assert payload["iteration"] == 5
    folder.begin_resume()
    agent = fake.FakeAgent(20)
    agent.train(make_observer(resume=payload))
    assert torch.equal(agent.weight, torch.full((3,), 20.0))
    assert read_metrics(folder.metrics_file)["iteration"].tolist() == list(range(1, 21))
    summary = json.loads(folder.summary_file.read_text())
    assert summary["totals"]["bad_worlds"] == 20
    assert summary["final"]["return_task/pi"] == pytest.approx(sum(range(2, 21, 2)) / 10 / 100)


def test_a_failure_keeps_the_last_good_state(folder, make_observer, fake):
    agent = fake.FakeAgent(20)
    observer = make_observer(checkpoint_every=5)
    observer.after_init(agent)
    for _ in range(7):
        observer.on_iteration(agent, agent.step())
    agent.weight = torch.full((3,), math.nan)
    observer.on_failure(agent, UnstablePhysicsError("3 % of worlds diverged"))
    assert folder.status() == "failed"
    assert "3 % of worlds" in folder.status_file.read_text()
    assert load_checkpoint(folder.checkpoints / "last.pt")["iteration"] == 5
    assert load_checkpoint(folder.checkpoints / "failed.pt")["iteration"] == 7
    assert not folder.summary_file.exists()
    assert folder.resume_command() in observer._progress.stream.getvalue()


def test_a_checkpoint_that_finds_no_room_is_a_warning(folder, make_observer, fake, monkeypatch):
    agent = fake.FakeAgent(20)
    observer = make_observer(checkpoint_every=1)
    observer.after_init(agent)

    def full(*_):
        raise OSError(28, "No space left on device")

    assert observer.on_iteration(agent, agent.step()) is False
    monkeypatch.setattr(os, "replace", full)
    assert observer.on_iteration(agent, agent.step()) is False
    monkeypatch.undo()
    assert "No space left" in observer._progress.stream.getvalue()
    assert observer.on_iteration(agent, agent.step()) is False
    assert load_checkpoint(folder.checkpoints / "last.pt")["iteration"] == 3
    abandon(observer)


def test_a_missing_matplotlib_is_one_line(folder, make_observer, fake, monkeypatch):
    for name in [m for m in sys.modules if m.split(".")[0] == "matplotlib"] + ["matplotlib"]:
        monkeypatch.setitem(sys.modules, name, None)
    observer = make_observer(plot=True)
    fake.FakeAgent(4).train(observer)
    assert folder.status() == "finished"
    assert "pip install 'hepo-isaac[report]'" in observer._progress.stream.getvalue()


def test_handlers_are_put_back(make_observer, fake):
    before = signal.getsignal(signal.SIGTERM)
    observer = make_observer()
    agent = fake.FakeAgent(2)
    observer.after_init(agent)
    assert signal.getsignal(signal.SIGTERM) != before
    observer.on_failure(agent, RuntimeError("x"))
    assert signal.getsignal(signal.SIGTERM) == before


# ---- signals, in a process of their own -----------------------------------------------------------------------------


def start(*arguments):
    command = [sys.executable, str(FAKE_AGENT)] + [str(a) for a in arguments]
    env = dict(os.environ, PYTHONIOENCODING="utf-8")
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)


def wait_for_rows(root, count):
    """The run folder, as soon as that many iterations are recorded."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for path in Path(root).glob("*/*/*/metrics.csv"):
            if len(path.read_text().splitlines()) > count:
                return RunFolder.open(path.parent)
        time.sleep(0.02)
    return pytest.fail("the run never started")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_saves_and_says_how_to_resume(tmp_path, number):
    child = start(tmp_path, 100000, 0.01)
    folder = wait_for_rows(tmp_path, 5)
    assert folder.status() == "running"
    child.send_signal(number)
    out, err = child.communicate(timeout=60)
    assert child.returncode == 3, err
    assert folder.status() == "interrupted"
    assert not folder.summary_file.exists()
    saved = load_checkpoint(folder.checkpoints / "last.pt", "Fake", "hepo")
    assert saved["iteration"] == read_metrics(folder.metrics_file)["iteration"][-1]
    command = "python train.py resume=%s" % folder.path
    assert command in out

    child = start(tmp_path, saved["iteration"] + 3, 0.0, folder.path)
    out, err = child.communicate(timeout=60)
    assert child.returncode == 0, err
    assert folder.status() == "finished"
    steps = read_metrics(folder.metrics_file)["iteration"].tolist()
    assert steps == list(range(1, saved["iteration"] + 4))
    weight = load_checkpoint(folder.checkpoints / "last.pt")["agent"]["weight"]
    assert torch.equal(weight, torch.full((3,), float(saved["iteration"] + 3)))


def test_a_second_ctrl_c_stops_at_once(tmp_path):
    child = start(tmp_path, 3, 0.01)
    child.communicate(timeout=60)
    child = start(tmp_path / "slow", 100000, 0.3)
    folder = wait_for_rows(tmp_path / "slow", 1)
    child.send_signal(signal.SIGINT)
    time.sleep(0.05)
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=60)
    assert "stopped by SIGINT" in err
    assert folder.status() == "interrupted"


def test_a_killed_run_is_not_taken_for_a_running_one(tmp_path):
    child = start(tmp_path, 100000, 0.01)
    folder = wait_for_rows(tmp_path, 2)
    child.kill()
    child.communicate()
    assert json.loads(folder.status_file.read_text())["status"] == "running"
    assert folder.status() == "interrupted"


def test_a_run_being_written_is_not_resumed_by_another(tmp_path):
    child = start(tmp_path, 100000, 0.01)
    folder = wait_for_rows(tmp_path, 2)
    try:
        with pytest.raises(Exception, match="still being written by process %d" % child.pid):
            folder.begin_resume()
    finally:
        child.kill()
        child.communicate()


def test_a_damaged_last_is_refused_and_a_named_one_accepted(folder, make_observer, fake):
    fake.FakeAgent(10).train(make_observer(checkpoint_every=5))
    last = folder.checkpoints / "last.pt"
    last.write_bytes(last.read_bytes()[:1000])
    _, path = locate_resume(folder.path)
    with pytest.raises(CheckpointError, match="iteration_000010"):
        load_checkpoint(path)
    same, path = locate_resume(folder.checkpoints / "iteration_000005.pt")
    assert same.path == folder.path
    assert load_checkpoint(path)["iteration"] == 5


def test_a_notice_is_said_once_and_kept_with_its_traceback(folder, make_observer, fake):
    agent = fake.FakeAgent(4)
    early, late = Notice("the engine is slow"), Notice("the update runs without a CUDA graph", "Traceback: lines")
    agent.said = [early]
    observer = make_observer()
    observer.after_init(agent)
    printed = observer._progress.stream
    assert printed.getvalue().splitlines()[-1] == "warning: the engine is slow"
    agent.said.append(late)
    for _ in range(3):
        observer.on_iteration(agent, agent.step())
    assert printed.getvalue().count("warning: the update runs without a CUDA graph (traceback in metadata.json)") == 1
    kept = folder.metadata["warnings"]
    assert [(k["text"], k["traceback"]) for k in kept] == [tuple(early), tuple(late)]
    agent.step()
    observer.on_finish(agent)
    assert printed.getvalue().count("the update runs without a CUDA graph") == 2  # and once more where the run ends

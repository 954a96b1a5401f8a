"""One writer per folder, and readers who can tell whether it lives: killed processes, other hosts, no locks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from hepo_isaac.errors import UserError
from hepo_isaac.runs.record import lock as module
from hepo_isaac.runs.record.folder import INTERRUPTED, RUNNING, RunFolder
from hepo_isaac.runs.record.lock import SILENT_S, FileLock, HeldError, alive

HOLD = """
import sys, time
from pathlib import Path
from hepo_isaac.runs.record.lock import FileLock
lock = FileLock(Path(sys.argv[1]))
lock.acquire()
print("held", flush=True)
time.sleep(60)
"""


RESUME = """
import sys, time
from hepo_isaac.errors import UserError
from hepo_isaac.runs.record.folder import RunFolder
folder = RunFolder.open(sys.argv[1])
time.sleep(max(0.0, float(sys.argv[2]) - time.time()))
try:
    folder.begin_resume()
    print("won", flush=True)
    time.sleep(1.0)
except UserError as error:
    print(error)
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / ".lock"


@pytest.fixture
def holder(path):
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def written_by(path, host, seconds_ago, **more):
    path.write_text(json.dumps({"pid": 1, "host": host, "writing": True, **more}))
    os.utime(path, (time.time() - seconds_ago,) * 2)


def test_a_second_one_is_refused_and_told_who(path, holder):
    with pytest.raises(HeldError, match=r"process %d on .*, last sign of life \d+ s ago" % holder.pid):
        FileLock(path).acquire()
    assert alive(path) is True


def test_one_that_was_killed_is_gone_at_once(path, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert alive(path) is False
    lock = FileLock(path)
    assert lock.acquire() and alive(path) is True
    lock.release()
    assert alive(path) is False


def test_two_in_one_process_exclude_each_other(path):
    first, second = FileLock(path), FileLock(path)
    first.acquire()
    with pytest.raises(HeldError, match="process %d" % os.getpid()):
        second.acquire()
    first.release()
    second.acquire()
    second.release()


def test_looking_does_not_put_a_writer_off(path):
    written_by(path, module.platform.node(), 0.0)
    for _ in range(50):
        assert alive(path) is False  # nobody holds it
        lock = FileLock(path)
        lock.acquire()
        assert alive(path) is True
        lock.release()


@pytest.mark.parametrize(("seconds_ago", "lives"), [(1.0, True), (SILENT_S + 5.0, False)])
def test_another_host_is_judged_by_its_last_sign_of_life(path, seconds_ago, lives):
    """As a container that is gone: the kernel knows of no lock, and its host has a name of its own."""
    written_by(path, "gone-1", seconds_ago)
    lock = FileLock(path)
    if lives:
        with pytest.raises(HeldError, match="process 1 on gone-1, last sign of life 1 s ago"):
            lock.acquire()
    else:
        assert alive(path) is False
        lock.acquire()
        lock.release()


@pytest.mark.parametrize(("seconds_ago", "lives"), [(1.0, True), (SILENT_S + 5.0, False)])
def test_without_locks_everybody_is(monkeypatch, path, seconds_ago, lives):
    monkeypatch.setattr(module, "_lock", lambda descriptor, shared=False: False)
    written_by(path, module.platform.node(), seconds_ago)
    assert alive(path) is lives
    lock = FileLock(path)
    if lives:
        with pytest.raises(HeldError):
            lock.acquire()
    else:
        assert lock.acquire() is False and lock.held
        lock.release()


def test_whoever_gave_it_back_does_not_count(path):
    written_by(path, "elsewhere", 0.0, writing=False)
    assert alive(path) is False
    FileLock(path).acquire()


def test_signs_of_life_keep_coming(path, monkeypatch):
    monkeypatch.setattr(module, "BEAT_S", 0.05)
    monkeypatch.setattr(module, "_thread", None)
    lock = FileLock(path)
    lock.acquire()
    os.utime(path, (1.0, 1.0))
    deadline = time.time() + 5.0
    while module.age(path) > 5.0 and time.time() < deadline:
        time.sleep(0.02)
    assert module.age(path) < 5.0
    lock.release()


def test_a_clock_that_went_back_is_no_death(path):
    written_by(path, "elsewhere", -3600.0)
    assert alive(path) is True


# ---- run folders ----------------------------------------------------------------------------------------------------


def test_of_two_that_resume_at_the_same_moment_one_wins(tmp_path):
    folder = RunFolder.create("Task", "algo", 1, {"seed": 1}, tmp_path)
    folder.release()
    moment = str(time.time() + 4.0)
    both = [
        subprocess.Popen([sys.executable, "-c", RESUME, str(folder.path), moment], stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    said = sorted(process.communicate(timeout=60)[0] for process in both)
    assert said.count("won\n") == 1
    assert sum("is still being written by" in text for text in said) == 3


def test_status_follows_the_writer(tmp_path):
    folder = RunFolder.create("Task", "algo", 1, {"seed": 1}, tmp_path)
    assert RunFolder.open(folder.path).status() == RUNNING
    folder.release()
    assert RunFolder.open(folder.path).status() == INTERRUPTED


def test_a_folder_of_somebody_else_is_one_sentence(tmp_path, monkeypatch):
    folder = RunFolder.create("Task", "algo", 1, {"seed": 1}, tmp_path)
    folder.release()

    def refuse(path, *arguments, **more):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(module.os, "open", refuse)
    with pytest.raises(
        UserError, match="cannot write in the run folder .*: Permission denied; expected a folder of yours"
    ):
        RunFolder.open(folder.path).begin_resume()

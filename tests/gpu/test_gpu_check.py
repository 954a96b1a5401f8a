"""The rehearsal of hepo-isaac gpu-check, and what it says where it cannot run."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time

import pytest

from hepo_isaac.errors import UserError
from hepo_isaac.runs.machine import gpu_check, rig
from hepo_isaac.sim import registry

TASKS = ["FrankaCabinet", "Ant", "Cartpole"]


@pytest.mark.slow
def test_the_rehearsal_of_three_tasks(tmp_path):
    pytest.importorskip("mujoco_warp")
    out = tmp_path / "out"
    command = [sys.executable, "-m", "hepo_isaac.cli", "gpu-check", "--fake", "--tasks", *TASKS, "--out", str(out)]
    start = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert time.monotonic() - start < 180.0
    rows = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    found = {(row["job"], row["check"]): row for row in rows}
    assert not [row for row in rows if row["ok"] is False]
    for task in TASKS:
        assert found[task, "first steps"]["ok"] is True
        assert found[task, "first steps"]["numbers"]["compiled"] > 0
        assert found[task, "what CUDA would refuse"]["numbers"] == {"refused": 0, "captures": 2}
        assert found[task, "training"]["numbers"]["hepo"] > 0
    assert found["update", "method eipo"]["ok"] is None  # torch's CPU device captures nothing
    assert [row["job"] for row in rows if row["check"] == "first steps"] == TASKS
    table = (out / "results.md").read_text()
    assert "imitated sm_90" in table
    assert table.strip() in done.stdout
    assert "FrankaCabinet" in (out / "profile.txt").read_text()


@pytest.mark.slow
def test_without_graphs_nothing_is_captured(tmp_path):
    pytest.importorskip("mujoco_warp")
    command = [sys.executable, "-m", "hepo_isaac.cli", "gpu-check", "--fake", "--only", "tasks", "--tasks", "Cartpole"]
    done = subprocess.run([*command, "--no-graph", "--out", str(tmp_path)], capture_output=True, text=True)
    rows = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    refused = next(row for row in rows if row["check"] == "what CUDA would refuse")
    assert refused["numbers"] == {"refused": 0, "captures": 0}
    assert done.returncode == 0


@pytest.mark.parametrize("given", ["cuda", "cuda:0"])
def test_a_device_without_an_index_is_the_first_one(monkeypatch, given):
    monkeypatch.setattr(registry, "_gpus", lambda: 1)
    monkeypatch.setattr(registry, "_installed", lambda module: True)
    assert gpu_check._device(argparse.Namespace(fake=False, device=given)) == "cuda:0"


def test_without_warp_one_sentence_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr(registry, "_installed", lambda module: False)
    for arguments in ([], ["--fake"], ["--device", "cuda"], ["--device", "cpu"]):
        with pytest.raises(UserError, match=r"not installed: run pip install 'hepo-isaac\[cuda\]'"):
            gpu_check.main([*arguments, "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--tasks", "FrankaCabinett"], "FrankaCabinet"),
        (["--fake", "--arch", "sm_91"], "sm_90"),
        (["--device", "gpu"], "device=cuda:0"),
    ],
)
def test_mistakes_are_named(arguments, said):
    with pytest.raises(UserError, match=said):
        gpu_check.main(arguments)


def test_help_needs_nothing(capsys):
    with pytest.raises(SystemExit):
        gpu_check.main(["--help"])
    assert "--fake" in capsys.readouterr().out


def test_a_capture_that_failed_fails_the_check(capsys):
    class Step:
        why_eager = "capture failed: ValueError"

    class Agent:
        class learner:  # noqa: N801
            minibatch_step = Step()

        def notices(self):
            return [gpu_notice]

    from hepo_isaac.errors import Notice

    gpu_notice = Notice("the update runs without a CUDA graph", "Traceback: whole")
    ok, said = rig.captured(Agent())
    assert ok is False
    assert "NOT captured: the update runs without a CUDA graph" in said
    assert "Traceback: whole" in capsys.readouterr().out  # in a job, this is log.txt

"""Checks in processes of their own (hepo_isaac/runs/machine/jobs.py)."""

from __future__ import annotations

import json
import time

import pytest

from hepo_isaac.runs.machine.jobs import Job, Runner
from tests.runs import gpu_jobs


@pytest.fixture
def run(tmp_path):
    """Run jobs of gpu_jobs; returns (job, check, ok, said) of every result."""
    runner = Runner(tmp_path / "out", ["hepo_isaac.runs.machine.jobs"])

    def run(*names, limit=30.0, unjudged=(), args=()):
        for name in names:
            runner.run(Job(name, getattr(gpu_jobs, name), args, limit, unjudged))
        return [(r.job, r.check, r.ok, r.said) for r in runner.results]

    run.out = tmp_path / "out"
    return run


def test_results_are_shown_and_written_as_they_come(run, capsys):
    assert run("passing", args=(7,)) == [
        ("passing", "good", True, "found 7"),
        ("passing", "timing", None, "3 per second"),
    ]
    rows = [json.loads(line) for line in (run.out / "results.jsonl").read_text().splitlines()]
    assert [(row["check"], row["ok"], row["numbers"]) for row in rows] == [
        ("good", True, {"value": 7}),
        ("timing", None, {}),
    ]
    first, second = capsys.readouterr().out.splitlines()
    assert " ok " in first and "found 7" in first
    assert " - " in second


def test_a_check_that_raises_fails_and_the_next_one_runs(run):
    (_, _, ok, said), after = run("raising")
    assert ok is False
    assert said.startswith("KeyError: 'missing' [gpu_jobs.py:")
    assert after[2] is True
    assert "Traceback" in (run.out / "log.txt").read_text()


def test_nothing_is_tried_on_a_broken_context_but_the_next_job_is(run):
    first, after, other = run("broken_context", "noisy")
    assert first[2] is False
    assert "more lines" not in first[3]
    assert after[2:] == (None, "not run: the CUDA context may be broken")
    assert other[2] is True


def test_a_job_that_hangs_is_ended_at_its_limit(run):
    start = time.monotonic()
    results = run("hanging", limit=6.0)
    assert time.monotonic() - start < 20.0
    assert results == [("hanging", "good", True, "fine"), ("hanging", "hangs", False, "no answer within 6 s, ended")]
    assert "hanging" in (run.out / "log.txt").read_text()  # where it was, by faulthandler


def test_a_job_that_dies_is_a_failed_check(run):
    ((job, check, ok, said),) = run("dying")
    assert (job, check, ok) == ("dying", "dies", False)
    assert said.startswith("died of SIGSEGV")


def test_a_job_that_raises_outside_of_its_checks_has_failed(run):
    good, failed = run("failing_outside")
    assert good[2] is True
    assert failed[2] is False
    assert "exit code 1" in failed[3]
    assert "outside of any check" in (run.out / "log.txt").read_text()


def test_what_checks_print_goes_to_the_log(run, capsys):
    run("noisy")
    assert "printed by a check" not in capsys.readouterr().out
    assert "printed by a check" in (run.out / "log.txt").read_text()


def test_an_unjudged_check_is_run_and_not_judged(run):
    ((_, _, ok, said), after) = run("raising", unjudged=("broken",))
    assert ok is None
    assert said.startswith("not judged here: KeyError")
    assert after[2] is True

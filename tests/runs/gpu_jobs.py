"""Jobs for test_gpu_jobs.py: a process that is forked from a server must be able to import them."""

from __future__ import annotations

import os
import signal
import time

from hepo_isaac.runs.machine.jobs import Outcome


def passing(report, value):
    report.run("good", lambda: Outcome(True, "found %d" % value, {"value": value}))
    report.run("timing", lambda: Outcome(None, "3 per second"))


def raising(report):
    report.run("broken", lambda: {}["missing"])
    report.run("after it", lambda: Outcome(True, "still run"))


def broken_context(report):
    def fails():
        raise RuntimeError("CUDA error: an illegal memory access was encountered\nmore lines")

    report.run("poisons", fails)
    report.run("after it", lambda: Outcome(True, "must not run"))


def hanging(report):
    report.run("good", lambda: Outcome(True, "fine"))
    report.run("hangs", time.sleep, 60)


def dying(report):
    report.run("dies", os.kill, os.getpid(), signal.SIGSEGV)


def failing_outside(report):
    report.run("good", lambda: Outcome(True, "fine"))
    raise ValueError("outside of any check")


def noisy(report):
    def loud():
        print("printed by a check")
        return Outcome(True, "quiet here")

    report.run("loud", loud)

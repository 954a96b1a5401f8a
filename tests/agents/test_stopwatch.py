from __future__ import annotations

import time

import pytest
import torch

from hepo_isaac.agents.stopwatch import Stopwatch


def test_on_the_cpu_it_is_the_clock():
    watch = Stopwatch(torch.device("cpu"))
    watch.start()
    time.sleep(0.05)
    watch.mark()
    watch.mark()
    first, second = watch.seconds()
    assert 0.05 <= first < 1.0
    assert second < 0.05


def test_on_a_gpu_it_waits_for_nothing(monkeypatch):
    """Events on the stream; only the caller knows when the device has passed them."""

    class Event:
        clock = 0.0

        def __init__(self, enable_timing=False):
            assert enable_timing

        def record(self):
            Event.clock += 250.0
            self.at = Event.clock

        def elapsed_time(self, other):
            return other.at - self.at  # ms

    def wait(*args):
        raise AssertionError("the host waits")

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", wait)
    watch = Stopwatch(torch.device("cuda:0"))
    for _ in range(2):
        watch.start()
        watch.mark()
        watch.mark()
        assert watch.seconds() == [pytest.approx(0.25), pytest.approx(0.25)]

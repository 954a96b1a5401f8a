"""What the detector of host waits counts, with the two remarks that torch makes (seen on an H200, torch 2.11)."""

from __future__ import annotations

import warnings

import torch

from hepo_isaac.runs.machine.host_waits import HostWaits

REMARK = "Synchronization debug mode is a prototype feature and does not yet detect all synchronizing operations"
WAIT = "called a synchronizing CUDA operation (Triggered internally at /pytorch/c10/cuda/CUDAFunctions.cpp:200.)"


def counted(*said):
    with HostWaits(torch.device("cpu")) as waits:
        for text in said:
            warnings.warn(text, stacklevel=1)
    return sum(waits.found.values())


def test_a_wait_is_counted_every_time():
    assert counted(WAIT, WAIT) == 2


def test_that_the_detector_is_new_is_no_wait():
    assert counted(REMARK) == 0


def test_other_warnings_are_none():
    assert counted("the profiler clears events") == 0

"""How the Warp engine launches: streams, captures that fail, and what a first start says."""

from __future__ import annotations

import functools
import io

import pytest

from tests.gpu.test_imitated import run

pytestmark = pytest.mark.slow
pytest.importorskip("mujoco_warp")


@functools.cache
def seen():
    (found,) = run("-m", "tests.gpu.launches")
    return found


def test_a_stream_used_twice_is_not_forgotten_after_the_inner_use():
    assert seen()["streams"] == {"same": True, "interleaved": True}


def test_a_capture_that_fails_is_said_and_launched_kernel_by_kernel():
    assert seen()["captured"] == ["settle", "step"]
    failed = seen()["failed"]
    ((text, trace),) = failed["notices"]
    assert "without a CUDA graph" in text and "CUDA error 900" in text
    assert trace.startswith("Traceback") and "refuse" in trace
    assert failed["captured"] == []
    assert failed["loops"] is False  # whose ends the host would have to ask for
    assert failed["state kept"] is True


def test_a_newer_driver_takes_the_same_kernels(monkeypatch, tmp_path):
    monkeypatch.setenv("WARP_CACHE_PATH", str(tmp_path))
    (found,) = run("-m", "tests.gpu.launches", "13040")
    assert ".cubin" in found["kinds"] and ".ptx" not in found["kinds"]


def test_a_driver_that_warp_refuses_is_named():
    (found,) = run("-m", "tests.gpu.launches", "12080")
    assert "needs an NVIDIA driver for CUDA 13.0 or newer, this one is for CUDA 12.8" in found["said"]


def test_every_compiled_module_is_counted():
    ours, theirs = seen()["compiled"]
    assert ours == theirs


def test_a_first_start_says_what_it_waits_for(monkeypatch):
    from hepo_isaac.sim.mujoco import warp_compile as compiling

    clock = iter([0.0, 1.0, 4.0, 6.0, 7.0, 12.0])
    monkeypatch.setattr(compiling.time, "monotonic", lambda: next(clock))
    printed = io.StringIO()
    log = compiling.CompileLog(printed)
    log.info("Warp 1.19.0 initialized")
    log.info("Module mujoco_warp._src.smooth 0123abc load on device 'cuda:0' took 3.10 ms  (cached)")
    for _ in range(6):
        log.info("Module mujoco_warp._src.smooth 0123abc load on device 'cuda:0' took 1203.10 ms  (compiled)")
    first, *later = printed.getvalue().splitlines()
    assert log.compiled == 6
    assert first.startswith("compiling Warp's kernels for cuda:0; they are kept in ")
    assert later == ["  4 of about 42 modules, 6 s, about 57 s left", "  6 of about 42 modules, 12 s, about 72 s left"]
    assert compiling.progress(50, 60.0) == "50 of about 50 modules, 60 s, almost done"

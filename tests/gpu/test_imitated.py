"""MuJoCo Warp on an imitated GPU: kernels are compiled for it, graphs captured, and nothing is asked that CUDA refuses.

A new robot task is covered without a line here. Slow: NVRTC compiles for minutes the first time.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hepo_isaac.locate import robot_tasks
from hepo_isaac.sim.mujoco.imitated_driver import ARCHITECTURES, MAX_THREADS, Driver, Record
from tests.tasks.sampled import without_others

ROOT = Path(__file__).resolve().parents[2]


def run(*command):
    """The JSON objects that a Python process prints."""
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *command], cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


@pytest.mark.slow
@pytest.mark.parametrize("task", without_others(robot_tasks(engine="mujoco_warp")))
def test_a_task_asks_nothing_that_cuda_refuses(task):
    pytest.importorskip("mujoco_warp")
    few, many, eager = run("-m", "tests.gpu.imitated", task)
    for case in (few, many, eager):
        assert case["illegal"] == case["late_modules"] == case["unknown"] == []
        assert case["waits"] == {}
        assert case["launches"] > 100 and case["peak_bytes"] > 0
    assert few["captures"] >= 3 and few["replays"] >= 5  # randomisation makes the graphs anew
    assert many["captures"] >= 2 and many["replays"] >= 5
    assert eager["captures"] == eager["replays"] == 0


@pytest.mark.slow
def test_a_loop_that_asks_the_host_is_found():
    """Each round of the solver would wait if its loop's end were not decided on the device."""
    pytest.importorskip("mujoco_warp")
    few, _, eager = run("-m", "tests.gpu.imitated", "Cartpole", "--loops")
    assert few["waits"] == {}
    ((what, count),) = eager["waits"].items()
    assert what.startswith("condition of a loop: mujoco/warp.py:") and "solver.py" in what and count > 0


@functools.cache
def planted():
    (found,) = run("-m", "tests.gpu.planted")
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "where", "what"),
    [
        ("allocate_in_a_loop", "illegal", "allocation in the body of a captured loop or branch"),
        ("allocate_in_a_branch", "illegal", "allocation in the body of a captured loop or branch"),
        ("allocate_without_a_pool", "illegal", "cudaMalloc during a capture"),
        ("copy_to_the_host", "illegal", "copy of 4 bytes to the host during a capture"),
        ("copy_from_the_host", "illegal", "copy of 12 bytes from the host during a capture"),
        ("synchronise_in_torch", "illegal", "torch.cuda.synchronize during a capture"),
        ("compute_in_torch", "illegal", "torch's aten::ones during a capture"),
        ("load_late", "late_modules", "wp_late_"),
    ],
)
def test_a_planted_fault_is_found_with_its_line(fault, where, what):
    pytest.importorskip("warp")
    found = planted()[fault]
    said = found[where][0]
    assert said.startswith(what)
    assert any(line in said for line in found["lines"]), found
    assert found["unknown"] == [] and found["raised"] == ""


@pytest.mark.slow
def test_warp_itself_refuses_to_wait_for_its_streams_in_a_capture():
    pytest.importorskip("warp")
    assert "while graph capture is active" in planted()["synchronise_a_stream"]["raised"]


@pytest.mark.slow
def test_a_sound_capture_is_not_blamed():
    pytest.importorskip("warp")
    found = planted()["nothing"]
    assert found["illegal"] == found["late_modules"] == found["unknown"] == [] and found["raised"] == ""


PROGRAM = """
import json, sys
from hepo_isaac.sim.mujoco.imitated_cuda import install
record = install(int(sys.argv[1]))
assert install(int(sys.argv[1])) is record
import warp as wp
wp.config.log_level, wp.config.kernel_cache_dir = wp.LOG_WARNING, sys.argv[2]
wp.init()
device = wp.get_device("cuda:0")
wp.zeros(4, dtype=int, device=device)
import hepo_isaac.sim.mujoco.warp_kernels as kernels
wp.load_module(kernels, device=device)
print(json.dumps({"name": device.name, "arch": device.arch, "compiled": record.compiled, "unknown": record.unknown}))
"""


@pytest.mark.slow
@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_our_kernels_compile_for_every_architecture(architecture, tmp_path):
    pytest.importorskip("warp")
    (found,) = run("-c", PROGRAM, str(architecture), str(tmp_path))
    assert found["name"] == "imitated sm_%d" % architecture and found["arch"] == architecture
    assert len(found["compiled"]) == 1 and found["unknown"] == []
    assert [path.name.split(".")[-2:] for path in tmp_path.rglob("*.cubin")] == [["sm%d" % architecture, "cubin"]]


# -- the driver alone, without Warp ---------------------------------------------------------------------------------


def call(driver, name, *args):
    function = driver.find(name)
    assert function is not None
    return function(*args)


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_shared_memory_and_threads_have_the_limits_of_the_architecture(architecture):
    driver = Driver(Record(), architecture)
    most = call(driver, "wp_cuda_device_get_max_shared_memory", 0)
    assert most == ARCHITECTURES[architecture].shared_bytes

    def launch(block, shared):
        call(driver, "wp_cuda_launch_kernel", 0, 1, 10, 0, block, 1, 1, shared, None, None, None)

    launch(MAX_THREADS, most)
    assert driver.record.illegal == [] and driver.record.launches == 1
    launch(MAX_THREADS + 1, 0)
    launch(32, most + 1)
    assert [said.partition(":")[0] for said in driver.record.illegal] == [
        "a block of %d threads" % (MAX_THREADS + 1),
        "%d bytes of shared memory" % (most + 1),
    ]
    assert "gpu/test_imitated.py" in driver.record.illegal[0]


def test_memory_is_counted():
    driver = Driver(Record(), 90)
    first = call(driver, "wp_alloc_device_async", 0, 1000, 0, None)
    second = call(driver, "wp_alloc_device", 0, 500, None)
    call(driver, "wp_free_device_async", 0, first, 0)
    record = driver.record
    assert (record.allocated_bytes, record.peak_bytes) == (500, 1500)
    record.reset()
    assert (record.allocated_bytes, record.peak_bytes) == (500, 500)
    call(driver, "wp_free_device", 0, second)
    assert record.allocated_bytes == 0


def test_what_is_not_imitated_is_unknown_and_what_needs_no_gpu_is_left_to_warp():
    driver = Driver(Record(), 90)
    assert call(driver, "wp_cuda_invented", 1, 2) == call(driver, "wp_mesh_refit_device", 1) == 0
    assert [name.partition(":")[0] for name in driver.record.unknown] == ["wp_cuda_invented", "wp_mesh_refit_device"]
    for name in (
        "wp_cuda_compile_program",
        "wp_cuda_toolkit_version",
        "wp_array_copy_host",
        "wp_nvrtc_supported_archs",
    ):
        assert driver.find(name) is None


def test_a_host_wait_is_counted_by_its_line_and_refused_in_a_capture_only():
    driver = Driver(Record(), 90)
    call(driver, "wp_cuda_stream_synchronize", 5)
    ((what, count),) = driver.record.waits.items()
    assert what.startswith("synchronisation of a stream: ") and "test_imitated.py" in what and count == 1
    assert driver.record.illegal == []
    driver.capturing[5] = 1
    call(driver, "wp_cuda_stream_synchronize", 5)
    assert len(driver.record.illegal) == 1

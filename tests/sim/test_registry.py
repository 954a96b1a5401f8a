"""sim= and device=: what is chosen, and what a user reads when it cannot be."""

from __future__ import annotations

import pytest
import torch
from simlab import workshop

from hepo_isaac.errors import UserError
from hepo_isaac.sim import registry
from hepo_isaac.sim.registry import available_engines, make_simulation, resolve_engine

CPU = torch.device("cpu")


@pytest.fixture
def machine(monkeypatch):
    """Pretend to have GPUs and packages."""

    def pretend(gpus=0, packages=("mujoco_warp", "warp")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        monkeypatch.setattr(registry, "_installed", lambda name: name in packages)

    return pretend


def message(name, device):
    with pytest.raises(UserError) as caught:
        resolve_engine(name, device)
    text = str(caught.value)
    assert "\n" not in text
    assert ". " not in text  # one sentence
    return text


def test_names():
    assert available_engines() == ["mujoco_batch", "mujoco_warp", "isaacgym", "analytic"]


@pytest.mark.parametrize(
    ("gpus", "packages", "name", "device", "expected"),
    [
        (0, ("mujoco_warp", "warp"), "auto", "auto", ("mujoco_batch", "cpu")),
        (1, ("mujoco_warp", "warp"), "auto", "auto", ("mujoco_warp", "cuda:0")),
        (1, (), "auto", "auto", ("mujoco_batch", "cpu")),
        (1, ("mujoco_warp", "warp"), "auto", "cpu", ("mujoco_batch", "cpu")),
        (1, ("mujoco_warp", "warp"), "mujoco_batch", "auto", ("mujoco_batch", "cpu")),
        (2, ("mujoco_warp", "warp"), "auto", "cuda:1", ("mujoco_warp", "cuda:1")),
        (2, ("mujoco_warp", "warp"), "mujoco_warp", "cuda", ("mujoco_warp", "cuda:0")),
        (2, ("mujoco_warp", "warp"), "mujoco_warp", "auto", ("mujoco_warp", "cuda:0")),
        (0, ("mujoco_warp", "warp"), "mujoco_warp", "warp-cpu", ("mujoco_warp", "cpu")),
        (0, ("mujoco_warp", "warp"), "auto", "warp-cpu", ("mujoco_warp", "cpu")),
    ],
)
def test_choice(machine, gpus, packages, name, device, expected):
    machine(gpus, packages)
    assert resolve_engine(name, device) == (expected[0], torch.device(expected[1]))


def test_unknown_engine_names_the_nearest():
    text = message("mujoco_wrap", "auto")
    assert "mujoco_warp" in text
    assert "mujoco_batch" in text


def test_unknown_device():
    assert "device=cuda:0" in message("auto", "gpu")


def test_batch_refuses_a_gpu(machine):
    machine(gpus=1)
    text = message("mujoco_batch", "cuda:0")
    assert "device=cpu" in text
    assert "sim=mujoco_warp" in text


def test_warp_without_a_gpu(machine):
    machine(gpus=0)
    for device in ("auto", "cpu", "cuda:0"):
        text = message("mujoco_warp", device)
        assert "pip install 'hepo-isaac[cuda]'" in text
        assert "sim=mujoco_batch" in text


def test_warp_without_its_packages(machine):
    machine(gpus=1, packages=())
    text = message("mujoco_warp", "auto")
    assert "pip install 'hepo-isaac[cuda]'" in text
    assert "sim=mujoco_batch" in text
    # Asking for the GPU without naming an engine must not fall back to the CPU in silence.
    assert "pip install 'hepo-isaac[cuda]'" in message("auto", "cuda:0")


def test_missing_gpu_index(machine):
    machine(gpus=1)
    assert "1 GPU" in message("mujoco_warp", "cuda:3")


def test_isaacgym(machine):
    machine(packages=())
    text = message("isaacgym", "auto")
    for word in ("Preview 4", "Python 3.8", "pip install -e isaacgym/python", "sim=mujoco_batch"):
        assert word in text
    machine(packages=("isaacgym",))
    assert "no adapter" in message("isaacgym", "auto")


def test_make():
    sim = make_simulation("mujoco_batch", workshop(), 2, CPU, threads=1)
    assert sim.num_envs == 2
    with pytest.raises(UserError, match="unknown sim"):
        make_simulation("bullet", workshop(), 2, CPU)
    with pytest.raises(UserError, match="Preview 4"):
        make_simulation("isaacgym", workshop(), 2, CPU)

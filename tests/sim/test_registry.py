"""sim= and device=: what is chosen, and what a user reads when it cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from simlab import workshop

from hepo_isaac.errors import UserError
from hepo_isaac.sim import registry
from hepo_isaac.sim.isaacgym import install as isaacgym_install
from hepo_isaac.sim.registry import available_engines, make_simulation, resolve_engine

CPU = torch.device("cpu")
ROOT = Path(__file__).resolve().parents[2]


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


def test_isaacgym_that_is_not_installed(machine, monkeypatch):
    monkeypatch.setattr(isaacgym_install, "package_folder", lambda: None)
    machine(gpus=1)
    for device in ("auto", "cpu", "cuda:0"):
        text = message("isaacgym", device)
        for word in ("Preview 4", "Python 3.8", "pip install --no-deps -e isaacgym/python", "sim=mujoco_batch"):
            assert word in text


@pytest.mark.parametrize(
    ("gpus", "device", "expected"),
    [(1, "auto", "cuda:0"), (2, "cuda", "cuda:0"), (2, "cuda:1", "cuda:1"), (1, "cpu", "cpu"), (0, "cpu", "cpu")],
)
def test_isaacgym_device(machine, monkeypatch, gpus, device, expected):
    machine(gpus)
    monkeypatch.setattr(isaacgym_install, "package_folder", lambda: ROOT)  # a stand-in without bindings …
    monkeypatch.setattr(isaacgym_install, "_import", lambda module: None)  # … that can be imported
    assert resolve_engine("isaacgym", device) == ("isaacgym", torch.device(expected))


def test_isaacgym_without_a_gpu_names_device_cpu(machine, monkeypatch):
    machine(gpus=0)
    monkeypatch.setattr(isaacgym_install, "package_folder", lambda: ROOT)
    monkeypatch.setattr(isaacgym_install, "_import", lambda module: None)
    for device in ("auto", "cuda:0"):
        assert "device=cpu" in message("isaacgym", device)
    machine(gpus=1)
    assert "1 GPU" in message("isaacgym", "cuda:2")
    assert "sim=mujoco_warp" in message("isaacgym", "warp-cpu")


@pytest.mark.parametrize("name", ["auto", "mujoco_batch", "mujoco_warp"])
def test_mujocos_engines_need_a_newer_python(machine, monkeypatch, name):
    machine(gpus=1)
    monkeypatch.setattr(registry.sys, "version_info", (3, 8, 18, "final", 0))
    text = message(name, "auto")
    assert "Python 3.11" in text
    assert "this is Python 3.8.18" in text
    assert "sim=isaacgym" in text
    assert resolve_engine("analytic", "cpu") == ("analytic", CPU)


def test_reckoning_with_given_gpus(machine):
    machine(gpus=0)
    assert resolve_engine("auto", "auto", gpus=1) == ("mujoco_warp", torch.device("cuda:0"))
    machine(gpus=1)
    assert resolve_engine("auto", "auto", gpus=0) == ("mujoco_batch", CPU)


def test_make(monkeypatch):
    monkeypatch.setattr(isaacgym_install, "package_folder", lambda: None)
    sim = make_simulation("mujoco_batch", workshop(), 2, CPU, threads=1)
    assert sim.num_envs == 2
    with pytest.raises(UserError, match="unknown sim"):
        make_simulation("bullet", workshop(), 2, CPU)
    with pytest.raises(UserError, match="Preview 4"):
        make_simulation("isaacgym", workshop(), 2, CPU)

"""Engine names: what there is, what a command line means by "auto", and how to build one.

Nothing here imports an engine until one is asked for, so that a machine without it can still list and explain.
"""

from __future__ import annotations

import importlib.util
import sys
from typing import Any, List, Optional, Tuple

import torch

from hepo_isaac.errors import UserError, unknown
from hepo_isaac.sim.base import Simulation
from hepo_isaac.sim.engines import CPU_ENGINE, CUDA_ENGINE, ENGINES, NO_PHYSICS, PHYSX_ENGINE
from hepo_isaac.sim.isaacgym import install as isaacgym_install
from hepo_isaac.sim.spec import SceneSpec

# Warp's host device runs the CUDA engine's kernels without a GPU, far slower than mujoco_batch: for tests only, and
# therefore never chosen by "auto" nor by a plain "cpu".
WARP_CPU = "warp-cpu"


def available_engines() -> List[str]:
    """Every engine name that ``sim=`` knows, installed or not."""
    return list(ENGINES)


def resolve_engine(name: str, device: str, gpus: Optional[int] = None) -> Tuple[str, torch.device]:
    """Turn ``sim=`` and ``device=``, each possibly "auto", into an engine and a device that work together.

    Args:
        name: of the engine, or "auto".
        device: "auto", "cpu", "cuda", "cuda:k", or "warp-cpu" (mujoco_warp's kernels on the host, for tests).
        gpus: how many GPUs to reckon with; None asks torch.

    Raises:
        UserError: the name is unknown, the pair does not fit, or something it needs is missing; the message says what
            to install or to choose instead.
    """
    if name != "auto" and name not in ENGINES:
        raise unknown("sim", name, ("auto", *ENGINES))
    gpus = _gpus() if gpus is None else gpus
    wanted = _device(device, gpus)
    if name == NO_PHYSICS:
        return name, _torch_device(device, wanted, gpus)
    if name == PHYSX_ENGINE:
        return name, _isaacgym_device(device, wanted, gpus)
    if name == "auto":  # the physics engines: a task that needs none says so in its file (hepo_isaac/config.py)
        name = CUDA_ENGINE if _warp_wanted(device, wanted) else CPU_ENGINE
    _need_python(name)
    if name == CPU_ENGINE:
        return name, _cpu(device, wanted)
    return name, _warp_device(device, wanted, gpus)


def make_simulation(name: str, spec: SceneSpec, num_envs: int, device: torch.device, **options: Any) -> Simulation:
    """Build ``num_envs`` copies of ``spec`` on an engine and device that ``resolve_engine`` returned.

    options: the engine's own: ``threads`` for mujoco_batch, ``graph`` and ``refine`` for mujoco_warp, ``assets`` for
        isaacgym.

    Raises:
        UserError: the name is unknown, or this machine lacks something that the engine needs.
    """
    if name in ENGINES:
        _need_python(name)
    if name == CPU_ENGINE:
        from hepo_isaac.sim.mujoco.batch import MujocoBatchSimulation

        return MujocoBatchSimulation(spec, num_envs, **options)
    if name == CUDA_ENGINE:
        from hepo_isaac.sim.mujoco.warp import MujocoWarpSimulation

        return MujocoWarpSimulation(spec, num_envs, device=str(device), **options)
    if name == NO_PHYSICS:
        from hepo_isaac.sim.analytic import AnalyticSimulation

        return AnalyticSimulation(spec, num_envs, device, **options)
    if name == PHYSX_ENGINE:
        isaacgym_install.require_isaacgym(str(device))
        from hepo_isaac.sim.isaacgym.engine import IsaacGymSimulation

        return IsaacGymSimulation(spec, num_envs, device=str(device), **options)
    raise unknown("sim", name, ENGINES)


def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _gpus() -> int:
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _need_python(name: str) -> None:
    if tuple(sys.version_info[:2]) < ENGINES[name].python:
        raise UserError(
            "sim=%s needs MuJoCo's batched engines, for Python 3.11 or newer, but this is Python %s: make an"
            " environment with a newer Python, or use sim=isaacgym here" % (name, isaacgym_install.python_version())
        )


def _device(text: str, gpus: int) -> torch.device:
    """The device ``text`` names; "auto" stands for the first GPU if there is one."""
    if text in ("auto", "cuda"):
        found = gpus > 0 or text == "cuda"
        return torch.device("cuda:0" if found else "cpu")
    if text == WARP_CPU:
        return torch.device("cpu")
    try:
        parsed = torch.device(text)
    except RuntimeError:
        parsed = None
    if parsed is None or parsed.type not in ("cpu", "cuda"):
        raise UserError("unknown device %r: use device=auto, device=cpu or device=cuda:0" % text)
    return parsed


def _warp_wanted(text: str, device: torch.device) -> bool:
    if text == WARP_CPU:
        return True
    if device.type != "cuda":
        return False
    return text != "auto" or _installed("mujoco_warp")


def _cpu(text: str, device: torch.device) -> torch.device:
    if text != "auto" and (device.type != "cpu" or text == WARP_CPU):
        raise UserError(
            "sim=mujoco_batch runs on the CPU, but device=%s was asked for: use device=cpu, or sim=mujoco_warp for a"
            " GPU" % text
        )
    return torch.device("cpu")


def _torch_device(text: str, device: torch.device, gpus: int) -> torch.device:
    """A device that torch can use; sim=analytic runs on any."""
    if text == WARP_CPU:
        raise UserError("device=warp-cpu is for sim=mujoco_warp; use device=cpu or device=cuda:0")
    if device.type == "cuda":
        _need_cuda(text, device, gpus, "device=cpu")
        return torch.device("cuda", device.index or 0)
    return device


def _need_cuda(text: str, device: torch.device, gpus: int, instead: str) -> None:
    if not gpus:
        raise UserError(
            "device=%s needs an NVIDIA GPU, but torch sees none (hepo-isaac doctor says why): use %s, or install the"
            " NVIDIA driver and a CUDA build of torch with pip install 'hepo-isaac[cuda]'" % (text, instead)
        )
    if (device.index or 0) >= gpus:
        raise UserError("device=%s does not exist, torch sees %d GPU(s): use device=cuda:0" % (text, gpus))


def _warp_device(text: str, device: torch.device, gpus: int) -> torch.device:
    if not _installed("mujoco_warp") or not _installed("warp"):
        raise UserError(
            "sim=mujoco_warp needs the packages mujoco-warp and warp-lang, which are not installed: run"
            " pip install 'hepo-isaac[cuda]', or use sim=mujoco_batch device=cpu"
        )
    if text == WARP_CPU:
        return device
    if device.type == "cpu":
        reason = "torch sees none" if text == "auto" else "device=%s was asked for" % text
        raise UserError(
            "sim=mujoco_warp needs an NVIDIA GPU, but %s: use sim=mujoco_batch device=cpu, or on a machine with a GPU"
            " run pip install 'hepo-isaac[cuda]' with a CUDA build of torch" % reason
        )
    _need_cuda(text, device, gpus, "sim=mujoco_batch device=cpu")
    return torch.device("cuda", device.index or 0)


def _isaacgym_device(text: str, device: torch.device, gpus: int) -> torch.device:
    """PhysX runs on the CPU only where that is asked for: without a GPU, "auto" is refused."""
    if text == WARP_CPU:
        raise UserError("device=warp-cpu is for sim=mujoco_warp; with sim=isaacgym use device=cuda:0 or device=cpu")
    if text == "auto":
        device = torch.device("cuda:0")
    isaacgym_install.require_isaacgym(str(device))
    if device.type == "cpu":
        return device
    _need_cuda(text, device, gpus, "device=cpu")
    return torch.device("cuda", device.index or 0)

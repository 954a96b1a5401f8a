"""Is NVIDIA Isaac Gym Preview 4 usable here, and if not, what is wrong and what mends it?

Isaac Gym is a manual download with compiled bindings for Python 3.6 to 3.8, and must be imported before torch:
``import_first``, called by hepo_isaac/__init__.py, sees to that. Nothing here imports torch on its own.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import importlib.util
import io
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Iterable, List, Optional, Tuple

from hepo_isaac.errors import UserError
from hepo_isaac.sim.engines import CPU_ENGINE, ENGINES

PYTHON = (3, 8)  # Preview 4 also has bindings for 3.6 and 3.7, which hepo_isaac does not run on
MUJOCO_PYTHON = ENGINES[CPU_ENGINE].python
TORCH_OLDEST, TORCH_NEWEST = (2, 0), (2, 4)  # torch 2.4 is the last for Python 3.8
TORCH_INSTALL = "run pip install -c constraints-py38.txt torch"
_BINDINGS = Path("_bindings", "linux-x86_64")


@dataclass(frozen=True)
class Problem:
    """Something that keeps ``sim=isaacgym`` from running.

    name: a word or two.  text: what is wrong.  remedy: what to do about it; neither ends with a full stop.
    """

    name: str
    text: str
    remedy: str

    @property
    def sentence(self) -> str:
        """The whole as one sentence."""
        others = ""
        if tuple(sys.version_info[:2]) >= MUJOCO_PYTHON:
            others = "; sim=mujoco_batch (CPU) and sim=mujoco_warp (GPU) need no Isaac Gym"
        return "sim=isaacgym: %s: %s%s" % (self.text, self.remedy, others)


# What import_first met: a broken installation must not disturb runs on other engines.
_first_error: Optional[Exception] = None


def import_first() -> None:
    """Import isaacgym while torch is not yet imported; an error is kept until sim=isaacgym is asked for."""
    global _first_error
    if "torch" not in sys.modules:
        _first_error = _import("isaacgym.gymapi")


def _import(module: str) -> Optional[Exception]:
    """Import ``module`` without its greetings on stdout; returns what went wrong."""
    if module in sys.modules:
        return None
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            importlib.import_module(module)
    except Exception as error:  # a missing library, a foreign Python, torch first: _import_problem tells them apart
        return error
    return None


def package_folder() -> Optional[Path]:
    """Folder of the package isaacgym, or None where it is not installed."""
    try:
        spec = importlib.util.find_spec("isaacgym")
    except ValueError:  # a stand-in in sys.modules without a spec
        return None
    if spec is None:
        return None
    return Path(spec.origin).parent if spec.origin else Path()


def problems(device: str = "cuda:0") -> List[Problem]:
    """Everything that keeps ``sim=isaacgym device=<device>`` from running, the most basic first; empty: it runs.

    A package without compiled bindings (a stand-in for tests) is judged by its import alone.
    """
    folder = package_folder()
    found = [_missing_package() if folder is None else None]
    if folder is None or (folder / _BINDINGS).is_dir():
        found += [_wrong_python(folder), _wrong_torch(), _no_driver()]
        found += [_no_build_tool("ninja", "pip install ninja"), _no_build_tool(*_compiler())]
    if folder is not None and not any(found):
        found.append(_import_problem())
    if device.startswith("cuda") and not any(p is not None and p.name in ("torch", "driver") for p in found):
        found.append(_no_cuda())
    return [p for p in found if p is not None]


def require_isaacgym(device: str) -> None:
    """Import isaacgym and gymtorch, ready for use.

    Args:
        device: "cpu" (PhysX on the CPU) or "cuda:k".

    Raises:
        UserError: the first of the ``problems``, or gymtorch cannot be compiled.
    """
    found = problems(device)
    if found:
        raise UserError(found[0].sentence)
    error = _import("isaacgym.gymtorch")  # compiles its C++ part the first time
    if error is not None:
        raise UserError(_gymtorch_problem(error).sentence) from error


def check_assets(folder: str, files: Iterable[str]) -> Path:
    """The folder that ``sim.assets`` names, after a look for the ``files`` (relative to it) that a task loads.

    Raises:
        UserError: the folder or some of the files do not exist.
    """
    path, wanted = Path(folder).expanduser(), list(files)
    remedy = "name the folder assets of the Isaac Gym package or of IsaacGymEnvs, or leave it out to use our own models"
    if not path.is_dir():
        raise UserError("sim.assets=%s is no folder: %s" % (folder, remedy))
    missing = [f for f in wanted if not (path / f).is_file()]
    if missing:
        raise UserError("sim.assets=%s lacks %s: %s" % (folder, ", ".join(missing), remedy))
    return path


def nvidia_assets() -> Optional[Path]:
    """The folder ``assets`` of an unpacked Isaac Gym that was installed with ``pip install -e``, or None."""
    folder = package_folder()
    if folder is None or len(folder.parents) < 2:
        return None
    assets = folder.parents[1] / "assets"
    return assets if assets.is_dir() else None


# ---- one look each ----------------------------------------------------------------------------------------------


def python_version() -> str:
    """Version of this interpreter, such as "3.8.18"."""
    return ".".join(str(part) for part in sys.version_info[:3])


def _missing_package() -> Problem:
    return Problem(
        "package",
        "Isaac Gym Preview 4 is not installed, and pip cannot fetch it",
        "download it by hand from developer.nvidia.com/isaac-gym, unpack it and, under Python 3.8, run"
        " pip install --no-deps -e isaacgym/python",
    )


def _wrong_python(folder: Optional[Path]) -> Optional[Problem]:
    fits = tuple(sys.version_info[:2]) == PYTHON
    if fits and (folder is None or (folder / _BINDINGS / "gym_38.so").is_file()):
        return None
    return Problem(
        "Python",
        "Isaac Gym Preview 4 has bindings for Python 3.6 to 3.8 only and hepo_isaac needs 3.8, but this is Python %s"
        % python_version()
        if not fits
        else "the installed Isaac Gym has no bindings for Python 3.8 (%s)" % (_BINDINGS / "gym_38.so"),
        "make an environment with python3.8 -m venv and install both there (docs/isaacgym.md)"
        if not fits
        else "unpack IsaacGym_Preview_4_Package.tar.gz again and run pip install --no-deps -e isaacgym/python",
    )


def _torch_version() -> Optional[str]:
    try:
        import torch
    except ImportError:
        return None
    return str(torch.__version__)


def _release(version: str) -> Tuple[int, ...]:
    """(major, minor) of "2.4.1+cu121"."""
    return tuple(int(part) for part in version.split("+")[0].split(".")[:2])


def _wrong_torch() -> Optional[Problem]:
    version = _torch_version()
    if version is None:
        return Problem("torch", "torch is not installed", TORCH_INSTALL)
    if TORCH_OLDEST <= _release(version) <= TORCH_NEWEST:
        return None
    return Problem("torch", "torch %s is installed, but Isaac Gym needs torch 2.0 to 2.4" % version, TORCH_INSTALL)


def _driver_loads() -> bool:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def _no_driver() -> Optional[Problem]:
    if _driver_loads():
        return None
    return Problem(
        "driver",
        "no NVIDIA driver was found (libcuda.so.1), which Isaac Gym needs even for device=cpu",
        "install the driver on a machine with an NVIDIA GPU, or give the container the GPU with docker run --gpus all",
    )


def _compiler() -> Tuple[str, str]:
    return os.environ.get("CXX") or "g++", "install a C++ compiler, on Debian and Ubuntu with apt install g++"


def _no_build_tool(tool: str, remedy: str) -> Optional[Problem]:
    # pip puts ninja beside python, which need not be on the PATH: torch looks at the PATH alone
    if shutil.which(tool) is not None:
        return None
    beside = Path(sys.executable).parent / tool
    if beside.is_file():
        remedy = "activate the environment, so that %s is on the PATH" % beside.parent
    return Problem(tool, "%s, with which isaacgym.gymtorch is compiled, is not on the PATH" % tool, remedy)


def _import_problem() -> Optional[Problem]:
    error = _first_error or _import("isaacgym.gymapi")
    if error is None:
        return None
    text = " ".join(str(error).split()) or type(error).__name__
    if "torch" in text.lower() and "before" in text.lower():
        return Problem(
            "import order",
            "torch was imported before isaacgym, which Isaac Gym does not allow",
            "put import hepo_isaac, or import isaacgym, above import torch in your script",
        )
    if "libpython" in text:
        library = text.split(":")[0]
        return Problem(
            "libpython",
            "%s cannot be found" % library,
            "run export LD_LIBRARY_PATH=%s, or on Debian and Ubuntu apt install libpython3.8"
            % os.path.join(sys.base_prefix, "lib"),
        )
    return Problem(
        "import",
        "import isaacgym fails (%s: %s)" % (type(error).__name__, text.rstrip(".")),
        "unpack and install Isaac Gym anew, and try isaacgym/python/examples/1080_balls_of_solitude.py without us",
    )


def _gymtorch_problem(error: Exception) -> Problem:
    lines = [line.strip() for line in str(error).splitlines() if "error" in line.lower()] or [type(error).__name__]
    return Problem(
        "gymtorch",
        "isaacgym.gymtorch cannot be compiled (%s)" % lines[0].rstrip(".:"),
        "install g++ and ninja, and remove ~/.cache/torch_extensions if torch was changed since it was last compiled",
    )


def _no_cuda() -> Optional[Problem]:
    try:
        import torch
    except ImportError:
        return None
    if torch.cuda.is_available():
        return None
    if torch.version.cuda is None:
        return Problem(
            "CUDA",
            "this torch (%s) is built for the CPU" % torch.__version__,
            "%s for a CUDA build, or use device=cpu (PhysX on the CPU)"
            % TORCH_INSTALL.replace("torch", "--force-reinstall torch"),
        )
    return Problem(
        "CUDA",
        "torch %s sees no NVIDIA GPU" % torch.__version__,
        "see what nvidia-smi says, or use device=cpu (PhysX on the CPU)",
    )

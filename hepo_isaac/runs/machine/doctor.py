"""``hepo-isaac doctor``: what is installed, what a run would use, what is missing and the command that mends it."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from typing import Callable, Dict, List, Optional, Union

from hepo_isaac.config import usable_cores
from hepo_isaac.sim.isaacgym import install as isaacgym_install

OK, NOTE, BAD = "ok", "optional", "missing"
_GL_PROBE = "import mujoco; c = mujoco.GLContext(16, 16); c.make_current(); c.free()"


@dataclass
class Finding:
    """One line of the report; ``mend`` is the command that would make it good."""

    name: str
    state: str
    text: str
    mend: str = ""


def main() -> int:
    """Print the report; 1 if something that every run needs is missing."""
    from rich.console import Console
    from rich.table import Table

    findings = examine()
    table = Table(title="hepo-isaac doctor")
    for column in ("what", "state", "found", "to mend it"):
        table.add_column(column, overflow="fold")
    colours = {OK: "green", NOTE: "yellow", BAD: "red"}
    for found in findings:
        # escaping: "[cuda]" is an extra, not a style
        mend = found.mend.replace("[", "\\[")
        table.add_row(found.name, "[%s]%s[/]" % (colours[found.state], found.state), found.text, mend)
    Console().print(table)
    return int(any(found.state == BAD for found in findings))


def examine() -> List[Finding]:
    """Look at everything a run may need; nothing here raises."""
    probes: List[Callable[[], Union[Finding, List[Finding]]]] = [
        _python,
        lambda: _package("torch", ""),
        _gpu,
        _mujoco,
        lambda: _package("rl-games", ""),
        _warp,
        _isaacgym,
        _engine,
        _update,
        _plots,
        _export,
        _video,
        lambda: _package("wandb", "wandb"),
    ]
    findings: List[Finding] = []
    for probe in probes:
        try:
            found = probe()
            findings += found if isinstance(found, list) else [found]
        except Exception as error:  # a broken installation is what a doctor is for
            findings.append(
                Finding(
                    getattr(probe, "__name__", "probe").strip("_"),
                    BAD,
                    "%s: %s" % (type(error).__name__, error),
                    _install(""),
                )
            )
    return findings


def version(package: str) -> Optional[str]:
    """Installed version, or None."""
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _install(extra: str) -> str:
    """Command that installs the project, with an extra."""
    from hepo_isaac.locate import bundled

    suffix = "[%s]" % extra if extra else ""
    if bundled():
        return "pip install 'hepo-isaac%s'" % suffix
    return "pip install -c constraints%s.txt -e '.%s'" % ("-py38" if _old_python() else "", suffix)


def _package(name: str, extra: str) -> Finding:
    found = version(name)
    if found is not None:
        return Finding(name, OK, found)
    return Finding(name, NOTE if extra else BAD, "not installed", _install(extra))


def _python() -> Finding:
    return Finding(
        "python", OK, "%s on %s, %d usable cores" % (platform.python_version(), platform.platform(), usable_cores())
    )


def _gpu() -> Finding:
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        return Finding("CUDA", OK, "%s, CUDA %s" % (", ".join(names), torch.version.cuda))
    if shutil.which("nvidia-smi") is None:
        return Finding("CUDA", NOTE, "no NVIDIA driver on this machine; runs use the CPU")
    if torch.version.cuda is None:
        return Finding(
            "CUDA",
            NOTE,
            "there is a GPU, but this torch is built for the CPU",
            "pip install --force-reinstall --no-deps torch==%s" % torch.__version__.split("+")[0],
        )
    return Finding(
        "CUDA",
        NOTE,
        "there is a GPU, but torch (CUDA %s) cannot use it; is the driver too old?" % torch.version.cuda,
        "nvidia-smi",
    )


def _old_python() -> bool:
    """Whether this is the Python of Isaac Gym, on which MuJoCo only compiles models."""
    return tuple(sys.version_info[:2]) < isaacgym_install.MUJOCO_PYTHON


def _mujoco() -> Finding:
    found = _package("mujoco", "")
    if found.state == OK and _old_python():
        found.text += ", compiles models for sim=isaacgym; sim=mujoco_batch needs Python 3.11"
    return found


def _warp() -> Finding:
    if _old_python():
        return Finding("MuJoCo Warp", NOTE, "needs Python 3.11 or newer")
    warp, mjw = version("warp-lang"), version("mujoco-warp")
    if warp and mjw:
        return Finding("MuJoCo Warp", OK, "mujoco-warp %s, warp-lang %s" % (mjw, warp))
    return Finding("MuJoCo Warp", NOTE, "not installed; needed by sim=mujoco_warp (NVIDIA GPU)", _install("cuda"))


def _isaacgym() -> List[Finding]:
    """One line for each thing that sim=isaacgym lacks; they matter where no other engine runs."""
    found = isaacgym_install.problems()
    if isaacgym_install.package_folder() is None and not _old_python():
        text = "not installed; needed by sim=isaacgym only, which needs Python 3.8"
        return [Finding("Isaac Gym", NOTE, text, found[0].remedy)]
    # without a GPU, device=cpu still runs
    states = [NOTE if p.name == "CUDA" or not _old_python() else BAD for p in found]
    rows = [Finding("Isaac Gym: " + p.name, state, p.text, p.remedy) for p, state in zip(found, states)]
    if all(p.name == "CUDA" for p in found):
        rows = [Finding("Isaac Gym", OK, "can be imported"), *rows, _nvidia_assets()]
    return rows


def _nvidia_assets() -> Finding:
    """NVIDIA's models, which a user may choose instead of ours, and which of the files that our tasks name it lacks."""
    name, folder = "NVIDIA's assets", isaacgym_install.nvidia_assets()
    if folder is None:
        return Finding(name, NOTE, "not beside the package; our own models are used", "sim.assets=<folder>")
    missing = sorted(f for f in _asset_files() if not (folder / f).is_file())
    if missing:
        text = "%s lacks %s; our own models are used" % (folder, ", ".join(missing))
        return Finding(name, NOTE, text, "sim.assets=<IsaacGymEnvs>/assets")
    return Finding(name, OK, "used with sim.assets=%s, else our own models are" % folder)


def _asset_files() -> List[str]:
    """NVIDIA's files that cfg/task names, relative to NVIDIA's folder."""
    from omegaconf import OmegaConf

    from hepo_isaac.locate import cfg_dir

    files = []
    for path in sorted((cfg_dir() / "task").glob("*.yaml")):
        actors = OmegaConf.select(OmegaConf.load(path), "task.physics.options.isaacgym.actors") or {}
        files += [str(a.nvidia.file) for a in actors.values() if "nvidia" in a]
    return sorted(set(files))


def _engine() -> Finding:
    """What ``sim=auto`` and ``budget=auto`` will choose, and whether it can run."""
    import torch

    cuda = torch.cuda.is_available()
    if _old_python():
        text = "mujoco_%s, which needs Python 3.11; on this Python robots run with sim=isaacgym"
        return Finding("sim=auto", NOTE, text % ("warp" if cuda else "batch"), "name sim=isaacgym")
    if not cuda:
        return Finding("sim=auto", OK, "mujoco_batch on the CPU, budget=demo")
    if version("mujoco-warp") is None:
        return Finding(
            "sim=auto", BAD, "mujoco_warp on CUDA, which is not installed; sim=mujoco_batch works", _install("cuda")
        )
    return Finding("sim=auto", OK, "mujoco_warp on cuda:0, budget=paper")


def _update() -> Finding:
    from hepo_isaac.agents.fused import library

    loaded, where = library()
    if loaded is not None:
        return Finding("gradient step", OK, "compiled for this CPU: " + where)
    return Finding("gradient step", NOTE, "eager on the CPU, at half the speed: " + where)


def _plots() -> Finding:
    found = version("matplotlib")
    if found:
        return Finding("plots", OK, "matplotlib " + found)
    return Finding("plots", NOTE, "matplotlib is not installed", _install("report"))


def _export() -> Finding:
    found = [name for name in ("onnx", "onnxruntime") if version(name) is None]
    if found:
        return Finding(
            "export", NOTE, "%s is not installed; torchscript and rl_games work" % found[0], _install("export")
        )
    return Finding("export", OK, "onnx %s, onnxruntime %s" % (version("onnx"), version("onnxruntime")))


def _video() -> Finding:
    """Whether a film can be rendered without a display; every backend needs a process of its own."""
    if version("imageio") is None or version("imageio-ffmpeg") is None:
        return Finding("video", NOTE, "imageio is not installed", _install("video"))
    for backend in ("egl", "osmesa"):
        env: Dict[str, str] = dict(os.environ, MUJOCO_GL=backend, PYOPENGL_PLATFORM=backend)
        try:
            done = subprocess.run([sys.executable, "-c", _GL_PROBE], env=env, capture_output=True, timeout=60)
        except subprocess.TimeoutExpired:
            continue
        if done.returncode == 0:
            return Finding("video", OK, "headless OpenGL through " + backend)
    return Finding("video", NOTE, "no headless OpenGL (EGL or OSMesa)", "apt install libegl1 libosmesa6 (as root)")

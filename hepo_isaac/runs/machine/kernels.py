"""Warp's kernels of robot tasks, compiled for a GPU that is not there, in a process of its own.

``python -m hepo_isaac.runs.machine.kernels --arch 90 Ant Humanoid`` with WARP_CACHE_PATH set: Warp's loader and its
NVRTC run against an imitated GPU (hepo_isaac/sim/mujoco/imitated_cuda.py), which leaves the binaries under the names by
which the real GPU's process finds them. That process then compiles nothing.
"""

from __future__ import annotations

import argparse
import gc
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, List, Optional, Sequence, Set

from hepo_isaac.errors import UserError, report_errors
from hepo_isaac.runs.machine.ticker import Ticker

# The number of worlds chooses between variants of a few kernels; the larger is where training is.
NUM_ENVS = (64, 4096)
FIELDS = ("body_mass", "friction", "gravity", "dof_damping", "dof_armature", "drive_stiffness", "drive_damping")
KEPT = (".cubin", ".meta")  # what Warp's loader opens; sources and intermediate code stay behind


def compile_kernels(tasks: Sequence[str], architecture: int, cache: Path) -> None:
    """Compile the kernels of ``tasks`` into ``cache``, Warp's cache of compiled kernels.

    Raises:
        UserError: the other process failed; what it said is above.
    """
    environment = dict(os.environ, WARP_CACHE_PATH=str(cache), CUDA_VISIBLE_DEVICES="")
    command = [sys.executable, "-m", __name__, "--arch", str(architecture), *tasks]
    done = subprocess.run(command, env=environment)
    if done.returncode:
        raise UserError(
            "compiling Warp's kernels for sm_%d failed (exit code %d, see above); fewer --tasks may show which it is"
            % (architecture, done.returncode)
        )


def keep_binaries(cache: Path, architecture: int, to: Path) -> int:
    """Copy from a kernel cache what a GPU of ``architecture`` needs; returns the number of binaries.

    Raises:
        UserError: there are none, so that the bundle would compile everything on the node.
    """
    count = 0
    for path in sorted(cache.rglob("*")):
        if path.suffix not in KEPT or (path.suffix == ".cubin" and ".sm%d" % architecture not in path.name):
            continue
        target = to / path.relative_to(cache)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(str(path), str(target))
        count += path.suffix == ".cubin"
    if not count:
        raise UserError(
            "Warp's kernel cache %s holds no binary for sm_%d after compiling; expected files *.sm%d.cubin, and this "
            "Warp may name them otherwise: use the pinned version, pip install 'hepo-isaac[cuda]'"
            % (cache, architecture, architecture)
        )
    return count


def touch_everything(task: str, num_envs: int, randomize: bool) -> None:
    """Build a task's environments and call whatever launches a kernel: reset, steps and, besides, the rarer calls.

    Args:
        randomize: also call what domain randomisation, operational-space control and a resumed run call.
    """
    import torch

    from hepo_isaac.envs.make import make_env
    from hepo_isaac.runs.machine.rig import warp_settings

    env = make_env(warp_settings(task, "cpu", num_envs), random_start=False)  # "cpu" plays the imitated GPU
    env.reset()
    for _ in range(2):
        env.step(torch.zeros(num_envs, env.num_actions))
    if not randomize:
        return
    sim: Any = env.sim  # randomisation is no part of the contract yet
    everyone = torch.ones(num_envs, dtype=torch.bool)
    for field in FIELDS:
        names = sim.randomizable_names(field)
        if names or field == "gravity":
            sim.randomize(field, everyone, torch.ones(num_envs, 3 if field == "gravity" else len(names)))
    sim.mass_matrix()
    sim.jacobian(sim.body_names[0])
    sim.load_state(sim.get_state())
    sim.step()


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Compile, and say per task what was compiled and what CUDA would refuse."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arch", type=int, default=90)
    parser.add_argument("tasks", nargs="+")
    args = parser.parse_args(arguments)
    import torch

    from hepo_isaac.sim.mujoco import imitated_cuda
    from hepo_isaac.sim.mujoco.warp_compile import compile_log

    torch.set_num_threads(1)  # tensors here only have shapes; a pool of threads would compete with the compiler
    record = imitated_cuda.install(args.arch)
    compile_log().quiet = True  # the ticker below says how far the whole is
    total = len(args.tasks) * len(NUM_ENVS)
    ticker, said = Ticker("kernels", total, interval=0.0), set()  # type: ignore[var-annotated]
    for index, task in enumerate(args.tasks):
        for pass_, num_envs in enumerate(NUM_ENVS):
            record.reset()
            touch_everything(task, num_envs, pass_ == 0)
            gc.collect()
            modules = "%s with %d envs: %d modules compiled" % (task, num_envs, len(record.compiled))
            ticker.at(index * len(NUM_ENVS) + pass_ + 1, modules)
            _warn(task, [*record.illegal, *("module loaded in a capture: %s" % m for m in record.late_modules)], said)
    return 0


def _warn(task: str, refused: List[str], said: Set[str]) -> None:
    """What would fail on CUDA is said once and stops nothing: with sim.graph=false the kernels serve all the same."""
    for text in refused:
        if text not in said:
            said.add(text)
            print("  warning: %s: CUDA would refuse while it captures: %s" % (task, text), flush=True)


if __name__ == "__main__":
    sys.exit(report_errors(main))

"""What each engine is and can do, in one table. Nothing is imported for it: see registry.py for building one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, List, Tuple


@dataclass(frozen=True)
class Engine:
    """One choice of ``sim=``.

    name: as in ``sim=`` and cfg/sim.
    devices: kinds of device it runs on, "cpu" or "cuda".
    automatic: the device that device=auto stands for: "cpu", "cuda", or "any" for CUDA where there is one.
    packages: distributions that its results depend on.
    modules: packages to import for it; none where it comes along.
    physics: whether it simulates bodies; without, it is for tasks that integrate their own equations.
    films: whether its states can be drawn.
    starts: what building its environments takes, as a sentence goes on; empty: no time to speak of.
    compiles: whether it compiles kernels for minutes the first time, on its CPU device too.
    python: oldest Python that it runs on.
    """

    name: str
    devices: Tuple[str, ...]
    automatic: str
    packages: Tuple[str, ...] = ()
    modules: Tuple[str, ...] = ()
    physics: bool = True
    films: bool = True
    starts: str = ""
    compiles: bool = False
    python: Tuple[int, int] = (3, 8)


CPU_ENGINE = "mujoco_batch"  # the reference: MuJoCo C, which every other engine is held against
CUDA_ENGINE = "mujoco_warp"
PHYSX_ENGINE = "isaacgym"
NO_PHYSICS = "analytic"

ENGINES: Dict[str, Engine] = {
    e.name: e
    for e in (
        Engine(CPU_ENGINE, ("cpu",), "cpu", ("mujoco",), ("mujoco",), python=(3, 11)),
        Engine(
            CUDA_ENGINE,
            ("cuda",),
            "cuda",
            ("mujoco_warp", "warp_lang"),
            ("mujoco_warp", "warp"),
            starts="seconds, and a minute or two the first time, when its kernels are compiled",
            compiles=True,
            python=(3, 11),
        ),
        Engine(
            PHYSX_ENGINE,
            ("cuda", "cpu"),
            "cuda",
            (),
            ("isaacgym",),
            films=False,
            starts="seconds for a thousand, and a minute more the first time, when gymtorch is compiled",
        ),
        Engine(NO_PHYSICS, ("cpu", "cuda"), "any", physics=False, films=False),
    )
}


def physics_engines() -> List[str]:
    """Names of the engines that simulate bodies, the reference first."""
    return [e.name for e in ENGINES.values() if e.physics]

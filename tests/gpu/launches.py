"""How the Warp engine launches, on an imitated GPU; ``python -m tests.gpu.launches`` prints what was seen as JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Dict, List

import torch

from hepo_isaac.errors import UserError
from hepo_isaac.sim.mujoco import imitated_driver
from hepo_isaac.sim.mujoco.imitated_cuda import install
from tests.tasks.robots import make


class Streams:
    """Warp's library, with an eye on which of torch's streams it knows."""

    def __init__(self, core: Any) -> None:
        self._core = core
        self.known: List[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._core, name)

    def wp_cuda_stream_register(self, context: Any, stream: Any) -> None:
        """Warp's own set forgets how often a stream was put into it."""
        if int(stream or 0) not in self.known:
            self.known.append(int(stream or 0))

    def wp_cuda_stream_unregister(self, context: Any, stream: Any) -> None:
        """Once is enough to be forgotten."""
        self.known.remove(int(stream or 0))


def nested_streams(sim: Any, core: Streams) -> Dict[str, bool]:
    """Whether the outer stream is still known after an inner use of the same, and of another one."""
    seen = {}
    outer, other = torch.cuda.Stream(), torch.cuda.Stream()
    with torch.cuda.stream(outer), sim.graphs.launching():
        with sim.graphs.launching():
            pass
        seen["same"] = outer.cuda_stream in core.known
        with torch.cuda.stream(other), sim.graphs.launching(), torch.cuda.stream(outer), sim.graphs.launching():
            pass
        seen["interleaved"] = outer.cuda_stream in core.known
    return seen


def failed_capture(sim: Any, context: Any) -> Dict[str, Any]:
    """A capture that CUDA refuses: what the engine says, and that it goes on."""
    begin = context.capture_begin

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("CUDA error 900: operation not permitted when stream is capturing")

    before = sim.dof_target_pos.clone()
    sim.graphs.clear()
    import warp as wp

    wp.capture_begin = refuse
    sim.step()
    sim.step()
    wp.capture_begin = begin
    sim.step()
    return {
        "notices": [list(n) for n in sim.notices()],
        "captured": sim.graphs.names(),
        "loops": bool(sim.wp_model.opt.graph_conditional),
        "state kept": bool(torch.equal(before, sim.dof_target_pos)),
    }


def other_driver() -> None:
    """What lands in the kernel cache, or what is said where Warp refuses the driver."""
    from hepo_isaac.sim.mujoco.warp_compile import start_warp

    try:
        start_warp(torch.device("cuda:0"))
    except UserError as error:
        print(json.dumps({"said": str(error)}))
        return
    import warp as wp

    make("Cartpole", 64, "budget=paper", engine="mujoco_warp").reset()
    kinds = {path.suffix for path in Path(wp.config.kernel_cache_dir).rglob("*.*")}
    print(json.dumps({"kinds": sorted(kinds)}))


def main() -> None:
    """Cartpole, the smallest. With a number behind it: on that version of the driver (13040 is 13.4), a step alone."""
    if sys.argv[1:]:
        imitated_driver.DRIVER_VERSION = int(sys.argv[1])
    record = install()
    if sys.argv[1:]:
        other_driver()
        return
    torch.set_num_threads(1)
    env = make("Cartpole", 64, "budget=paper", engine="mujoco_warp")
    env.reset()
    env.step(torch.zeros(64, env.num_actions))
    from warp._src import context

    from hepo_isaac.sim.mujoco.warp_compile import compile_log

    core = context.runtime.core = Streams(context.runtime.core)
    found: Dict[str, Any] = {"streams": nested_streams(env.sim, core), "captured": env.sim.graphs.names()}
    found["compiled"] = [compile_log().compiled, len(record.compiled)]
    found["failed"] = failed_capture(env.sim, context)
    print(json.dumps(found))


if __name__ == "__main__":
    main()

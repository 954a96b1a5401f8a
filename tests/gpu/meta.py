"""Tasks and methods on torch's device meta, which stands for cuda:0: it has shapes and no values.

A value read on the host cannot be had there, tensors of two devices do not mix, and everything that a GPU's host would
have to copy is on another device: so an iteration shows, without a GPU, what would stall or break on one.

``python -m tests.gpu.meta TASK METHOD…`` prints what an iteration of each method finds.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import sys
import traceback
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple
from unittest import mock

import numpy as np
import torch
from rl_games.common.algo_observer import AlgoObserver
from torch.overrides import TorchFunctionMode

from hepo_isaac.agents.agent import HepoAgent
from hepo_isaac.agents.register import build_agent, runner_params
from hepo_isaac.config import plain, resolve
from hepo_isaac.envs.rl_games import RlGamesVecEnv
from hepo_isaac.envs.streams import Streams
from hepo_isaac.envs.task_env import TaskEnv
from hepo_isaac.locate import task_class
from hepo_isaac.overrides import compose
from hepo_isaac.sim.analytic import AnalyticSimulation
from tests import host_reads
from tests.host_reads import HostReads, where

META = torch.device("meta")
NUM_ENVS = 64
# Every line of an iteration runs with these, most of them often enough.
SHORT = ("num_envs=%d" % NUM_ENVS, "train.horizon_length=4", "train.mini_epochs=2")
Found = List[Tuple[str, str]]

host_reads.SKIPPED.add(__file__)


# -- what is watched ------------------------------------------------------------------------------------------------


class MetaReads(HostReads):
    """HostReads, and every tensor that is on the host: there all are to be on meta. Quiet until ``watching``."""

    watching = False

    def note(self, what: str) -> None:
        if self.watching:
            super().note(what)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Tuple[Any, ...] = (), kwargs: Optional[Dict[str, Any]] = None
    ) -> Any:
        before = len(self.found)
        if func.overloadpacket.__name__ == "_local_scalar_dense":
            self.note("value read on the host")
            return 1  # any: with it the iteration goes on and finds more
        try:
            out = super().__torch_dispatch__(func, types, args, kwargs)
        except Exception:  # a mask's indices, say, which nobody knows on meta: said in words, watching or not
            self.found.append((host_reads.stall(func, args, kwargs or {}) or func.name(), where()))
            raise
        outputs = out if isinstance(out, (list, tuple)) else [out]
        on_host = any(isinstance(x, torch.Tensor) and x.device != META for x in outputs)
        if on_host and len(self.found) == before:
            self.note("%s makes a tensor on the host" % func.name())
        return out


class PythonData(TorchFunctionMode):
    """Tensors made from Python data straight on a device, and lists as indices: operators do not show these."""

    makers = (torch.tensor, torch.as_tensor, torch.asarray, torch.from_numpy, torch.Tensor.new_tensor)
    indexing = (torch.Tensor.__getitem__, torch.Tensor.__setitem__)

    def __init__(self, reads: MetaReads) -> None:
        super().__init__()
        self.reads = reads

    def __torch_function__(
        self, func: Any, types: Any, args: Tuple[Any, ...] = (), kwargs: Optional[Dict[str, Any]] = None
    ) -> Any:
        if func in self.makers and not (args and func is torch.as_tensor and isinstance(args[0], torch.Tensor)):
            self.reads.note("%s copies Python data" % func.__name__)
        elif func in self.indexing and _has_list(args[1]):
            self.reads.note("indexing with a list")
        return func(*args, **(kwargs or {}))


def _has_list(index: Any) -> bool:
    if isinstance(index, tuple):
        return any(_has_list(part) for part in index)
    return isinstance(index, (list, np.ndarray))


@contextlib.contextmanager
def watch() -> Iterator[MetaReads]:
    """Notes what an iteration asks of the host while ``watching`` is set; what it raises is the last finding."""
    reads = MetaReads()
    try:
        with reads, PythonData(reads):
            yield reads
    except Exception as error:  # whatever a tensor without values refuses, a GPU waits for or refuses, too
        line = where(traceback.extract_tb(error.__traceback__))
        if not reads.found or reads.found[-1][1] != line:
            reads.found.append(("%s: %s" % (type(error).__name__, str(error).partition("\n")[0]), line))


# -- what stands in for a GPU ---------------------------------------------------------------------------------------


class HostGenerator(torch.Generator):
    """meta has no generators; one of the CPU draws there as well."""

    def __new__(cls, device: Any = "cpu") -> HostGenerator:
        return super().__new__(cls, "cpu")


@contextlib.contextmanager
def simulated(task: str) -> Iterator[Any]:
    """A task's engine on meta, the analytic one or the torch side of MuJoCo Warp's, and what torch needs for it."""
    cfg = settings(task, "hepo")
    scene = task_class(task).scene
    with mock.patch.object(torch, "Generator", HostGenerator):
        if cfg["sim"]["name"] == "analytic":
            yield AnalyticSimulation(scene(cfg["task"], "analytic"), NUM_ENVS, META)
            return
        from tests.gpu.meta_warp import meta_warp

        with meta_warp(scene(cfg["task"], "mujoco_warp"), NUM_ENVS) as sim:
            yield sim


@functools.cache
def settings(task: str, algo: str) -> Dict[str, Any]:
    """Resolved settings of the published budget, with few environments, steps and epochs."""
    given = ["task=" + task, "algo=" + algo, "device=cpu", "budget=paper", *SHORT]
    cfg = plain(resolve(compose(given), given, cuda=False))
    return {**cfg, "device": "meta"}


def make_agent(cfg: Dict[str, Any], sim: Any) -> HepoAgent:
    """An agent of ``cfg["algo"]`` and its environments on ``sim``."""
    task_type = task_class(cfg["task"]["name"])
    streams = Streams([torch.Generator(META).manual_seed(1)], NUM_ENVS, META, sim.may_select)
    potential = task_type.find_heuristic(cfg["potential"]) if cfg.get("potential") else None
    env = TaskEnv(task_type(cfg["task"], sim, streams), True, potential)
    return build_agent(runner_params(cfg, [1]), RlGamesVecEnv(env), AlgoObserver())


def iteration(cfg: Dict[str, Any], sim: Any) -> Found:
    """Inside ``simulated``: what a method's second iteration asks of the host; the first makes what is made once."""
    with watch() as reads:
        agent = make_agent(cfg, sim)
        agent.learn(agent.collect())
        reads.watching = True
        agent.learn(agent.collect())
        reads.watching = False
        task = agent.vec_env.env.task
        reads.found += [("tensor of the task on the host", name) for name in on_host(vars(task), type(task).__name__)]
    return sorted(set(reads.found))


def on_host(value: Any, name: str, depth: int = 4) -> List[str]:
    """Names of the tensors in an object's attributes, lists and dicts that are not on meta."""
    if isinstance(value, torch.Tensor):
        return [] if value.device == META else [name]
    if depth == 0:
        return []
    if dataclasses.is_dataclass(value):
        value = vars(value) if hasattr(value, "__dict__") else {}
    items: Sequence[Tuple[Any, Any]] = []
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, (list, tuple)):
        items = list(enumerate(value))
    return [found for key, part in items for found in on_host(part, "%s.%s" % (name, key), depth - 1)]


def main() -> None:
    """Print what one task and the named methods find."""
    task, *algos = sys.argv[1:]
    with simulated(task) as sim:
        for algo in algos:
            for what, line in iteration(settings(task, algo), sim):
                print("%s: %s: %s" % (algo, line, what))


if __name__ == "__main__":
    main()

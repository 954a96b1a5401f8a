"""``hepo-isaac bench``: ratios against competitors that run in the same process, in turns.

Absolute numbers mean nothing on a shared machine, so every comparison alternates short blocks of both sides and
reports the median of the block-by-block ratios with the quartiles. The bare engine replays the very controls of the
environment block before it, from the same state.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Sequence, Tuple

import torch

from hepo_isaac.arguments import Parser, check_file, whole
from hepo_isaac.envs.make import make_env
from hepo_isaac.envs.task_env import TaskEnv
from hepo_isaac.limits import MAX_ENVS
from hepo_isaac.locate import robot_tasks
from hepo_isaac.runs.machine.ratios import summary
from hepo_isaac.runs.machine.rig import make_agent, settings
from hepo_isaac.runs.machine.scaling import bench_scaling
from hepo_isaac.runs.machine.ticker import Ticker

PEERS = ("rl-games", "CleanRL", "skrl", "SB3")

# name -> (bound, whether the ratio must stay above or below it)
TARGETS: Dict[str, Tuple[float, str]] = {
    "env.step / bare engine": (0.75, ">="),
    "HEPO rollout / PPO": (1.1, "<="),
    "HEPO update / PPO": (2.0, "<="),
    "HEPO iteration / PPO": (1.7, "<="),
    "eager update / compiled": (1.6, ">="),
    **{"%s / ours, %s" % (peer, part): (1.8, ">=") for peer in PEERS for part in ("iteration", "update")},
}


def main(arguments: Sequence[str]) -> int:
    """Run the benchmark and print its table; returns 0 whatever the ratios are."""
    parser = Parser("bench", "Speed, as ratios to bare physics and to PPO, measured in turns in one process.")
    parser.add_argument(
        "--tasks",
        nargs="+",
        default=["FrankaCabinet"],
        help="names, or all: every robot task, or bidex: dexterous hands",
    )
    parser.add_argument("--env-only", action="store_true", help="leave out the HEPO / PPO comparison")
    parser.add_argument("--peers", action="store_true", help="against PPO of rl-games, CleanRL, skrl and SB3 instead")
    parser.add_argument(
        "--processes",
        type=whole(1, 64),
        nargs="+",
        help="one run on so many processes, each with --train-envs, instead",
    )
    parser.add_argument(
        "--env-envs", type=whole(1, MAX_ENVS), default=256, help="environments of the env.step comparison"
    )
    parser.add_argument(
        "--train-envs", type=whole(1, MAX_ENVS), default=512, help="environments of the HEPO / PPO comparison"
    )
    parser.add_argument("--blocks", type=whole(1, 10_000), default=15, help="alternations per comparison")
    parser.add_argument("--out", type=Path, help="also write the numbers to this JSON file")
    args = parser.parse_args(list(arguments))
    check_file("--out", args.out)
    tasks = robot_tasks(args.tasks)
    for task in tasks:  # what is wrong with the numbers of environments, before minutes of the first comparison
        if not (args.peers or args.processes):
            settings(task, args.env_envs, "hepo")
        if not args.env_only:
            settings(task, args.train_envs, "hepo")
    found: Dict[str, Dict[str, Any]] = {}
    for task in tasks:
        if args.processes:
            found[task] = bench_scaling(task, args.train_envs, args.processes, args.blocks)
        elif args.peers:
            found[task] = bench_peers(task, args.train_envs, args.blocks)
        else:
            found[task] = bench_env(task, args.env_envs, args.blocks)
        if not (args.peers or args.env_only or args.processes):
            found[task].update(bench_algorithms(task, args.train_envs, args.blocks))
        print("%s, device %s, torch threads %d" % (task, _device_name(), torch.get_num_threads()))
        _print(found[task])
    if args.out:
        args.out.write_text(json.dumps(found, indent=2) + "\n")
    return 0


def _device_name() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"


# ---- the environment against its engine --------------------------------------------------------------------------


def bench_env(task: str, num_envs: int, blocks: int, steps: int = 60) -> Dict[str, Any]:
    """Steps/s of the whole environment step over those of the bare physics step on the same states and controls."""
    cfg = settings(task, num_envs, "hepo")
    torch.set_num_threads(int(cfg["torch_threads"]))  # as in training: more would fight the physics threads
    env = make_env(cfg)
    env.reset()
    generator = torch.Generator(env.device).manual_seed(0)
    bare = _bare_step(env)
    ratios, speeds = [], []
    ticker = Ticker("%s, env.step against the bare engine" % task, blocks + 1, sys.stderr, unit="blocks")
    for block in range(blocks + 1):
        actions = 2.0 * torch.rand(steps, num_envs, env.num_actions, generator=generator, device=env.device) - 1.0
        start = env.sim.get_state()
        controls: List[Any] = []

        def step_env(i: int, actions: torch.Tensor = actions, controls: List[Any] = controls) -> None:
            env.step(actions[i])
            controls.append(bare.controls())

        def step_bare(i: int, controls: List[Any] = controls) -> None:
            bare.step(controls[i])

        whole = _time(step_env, steps)
        end = env.sim.get_state()
        env.sim.load_state(start)
        alone = _time(step_bare, steps)
        env.sim.load_state(end)
        if block:  # the first one warms up
            ratios.append(alone / whole)
            speeds.append(num_envs * steps / whole)
        ticker.at(block + 1)
    env.close()
    return {"env.step / bare engine": summary(ratios), "env.step steps/s": summary(speeds)}


class _BareBatch:
    """MuJoCo C: Batch.step with fresh positions and velocities, and the controls it last ran with."""

    def __init__(self, env: TaskEnv) -> None:
        import mujoco

        sim: Any = env.sim
        self._batch, self._nstep = sim.batch, sim.spec.substeps
        self._stage, self._ctrl = int(mujoco.mjtStage.mjSTAGE_VEL), sim.batch.bind("ctrl")

    def controls(self) -> Any:
        return self._ctrl.copy()

    def step(self, controls: Any) -> None:
        self._ctrl[...] = controls
        self._batch.step(nstep=self._nstep, stage=self._stage)


class _BareSimulation:
    """Any other engine: Simulation.step alone (on CUDA one graph launch), replaying position targets."""

    def __init__(self, env: TaskEnv) -> None:
        self._sim = env.sim

    def controls(self) -> torch.Tensor:
        return self._sim.dof_target_pos.clone()

    def step(self, controls: torch.Tensor) -> None:
        self._sim.set_dof_target_pos(controls)
        self._sim.step()


def _bare_step(env: TaskEnv) -> Any:
    return _BareBatch(env) if hasattr(env.sim, "batch") else _BareSimulation(env)


def _time(step: Callable[[int], Any], steps: int) -> float:
    """Seconds for ``steps`` calls."""
    _wait()
    start = time.perf_counter()
    for i in range(steps):
        step(i)
    _wait()
    return time.perf_counter() - start


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


# ---- HEPO against PPO ---------------------------------------------------------------------------------------------


def bench_algorithms(task: str, num_envs: int, blocks: int) -> Dict[str, Any]:
    """Seconds of a HEPO iteration over those of a PPO iteration, and of HEPO's eager update over those of its compiled
    one: same environments, networks and settings."""
    kinds = {"ppo_h": ("ppo_h",), "hepo": ("hepo",), "eager": ("hepo", "train.fused=false")}
    agents: Dict[str, Any] = {}
    for kind, (algo, *more) in kinds.items():
        cfg = settings(task, num_envs, algo, *more)
        torch.set_num_threads(int(cfg["torch_threads"]))  # as in training
        agents[kind] = make_agent(cfg)
    if agents["hepo"].learner.fused is None:
        del agents["eager"]  # it would be the same once more
    times: Dict[str, List[Tuple[float, float]]] = {kind: [] for kind in agents}
    ticker = Ticker("%s, HEPO against PPO" % task, blocks + 1, sys.stderr, unit="blocks")
    for block in range(blocks + 1):
        for kind, agent in agents.items():
            metrics = agent.train_epoch()[0]
            if block:
                times[kind].append((metrics["rollout_s"], metrics["update_s"]))
        ticker.at(block + 1)
    pairs = list(zip(times["hepo"], times["ppo_h"]))
    steps = num_envs * agents["hepo"].train_cfg.horizon_length
    gains = [eager[1] / mine[1] for eager, mine in zip(times.get("eager", []), times["hepo"])]
    return {
        **({"eager update / compiled": summary(gains)} if gains else {}),
        "HEPO rollout / PPO": summary([h[0] / p[0] for h, p in pairs]),
        "HEPO update / PPO": summary([h[1] / p[1] for h, p in pairs]),
        "HEPO iteration / PPO": summary([sum(h) / sum(p) for h, p in pairs]),
        "PPO steps/s": summary([steps / sum(p) for _, p in pairs]),
        "HEPO steps/s": summary([steps / sum(h) for h, _ in pairs]),
    }


# ---- against other libraries ----------------------------------------------------------------------------------


def bench_peers(task: str, num_envs: int, blocks: int) -> Dict[str, Any]:
    """CPU seconds of other libraries' PPO over those of our ppo_h, of whole iterations and of their updates alone: same
    environments, trunk, rows, minibatches and mini-epochs."""
    from hepo_isaac.runs.machine.peers import Iterate, Timed, make_peers

    cfg = settings(task, num_envs, "ppo_h", "budget=cpu", "device=cpu", "torch_threads=1", "sim.threads=1")
    torch.set_num_threads(1)
    sides: Dict[str, Iterate] = make_peers(cfg)
    ours = make_agent(cfg)
    spent = Timed(ours, "collect")
    sides["ours"] = lambda: spent.split(ours.train_epoch)
    times: Dict[str, List[Tuple[float, float]]] = {name: [] for name in sides}
    ticker = Ticker("%s, PPO of other libraries" % task, blocks + 1, sys.stderr, unit="blocks")
    for block in range(blocks + 1):
        for name, iterate in sides.items():
            seconds = iterate()
            if block:
                times[name].append(seconds)
        ticker.at(block + 1)
    rows: Dict[str, Any] = {}
    for name in sides:
        if name != "ours":
            pairs = list(zip(times[name], times["ours"]))
            rows[name + " / ours, iteration"] = summary([sum(peer) / sum(our) for peer, our in pairs])
            rows[name + " / ours, update"] = summary([peer[1] / our[1] for peer, our in pairs])
    rows["ours, CPU ms an iteration"] = summary([1e3 * sum(our) for our in times["ours"]])
    return rows


# ---- report -------------------------------------------------------------------------------------------------------


def _print(results: Dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("", "median", "quartiles", "target")
    for name, row in results.items():
        digits = "%.0f" if "steps/s" in name or "ms" in name else "%.2f"
        target = ""
        if name in TARGETS:
            bound, sense = TARGETS[name]
            met = row["median"] >= bound if sense == ">=" else row["median"] <= bound
            target = "%s %g %s" % (sense, bound, "met" if met else "MISSED")
        spread = "%s – %s" % (digits % row["q25"], digits % row["q75"])
        table.add_row(name, digits % row["median"], spread, target)
    Console().print(table)

"""``hepo-isaac gpu-check``: prove the CUDA path on the machine at hand, then time it, then train a little.

Correctness first: MuJoCo Warp against MuJoCo C on the same task, resets that are fresh at once, a training iteration
in which CUDA reports every host synchronisation as an error, and no buffer overflow. Then env.step and training
throughput, then a short training. One table comes last. ``--device cpu`` rehearses all of it on Warp's CPU device
(minutes of kernel compilation, no claim about speed).
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

import torch

from hepo_isaac.envs.rl_games import RlGamesVecEnv
from hepo_isaac.envs.streams import Streams
from hepo_isaac.envs.task_env import TaskEnv
from hepo_isaac.locate import robot_tasks, task_class
from hepo_isaac.overrides import compose
from hepo_isaac.runs import parity
from hepo_isaac.runs.launch import prepare

PARITY_SHARE, PARITY_TOLERANCE = 0.9, 1e-4  # docs/parity/warp.md has what Warp's CPU device does
# Training env-steps/s to reach on an H100-class card.
GOALS = {
    "FrankaCabinet": 100_000,
    "Ant": 300_000,
    "Humanoid": 300_000,
    "ShadowHand": 170_000,
    "AllegroHand": 85_000,
    "Anymal": 270_000,
}


def main(arguments: Sequence[str]) -> int:
    """Run all checks; returns 0 if every check holds (timings have no bound), 1 otherwise."""
    parser = argparse.ArgumentParser(prog="hepo-isaac gpu-check", description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", nargs="+", default=["FrankaCabinet"], help="names, or all: every robot task")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--num-envs", type=int, default=4096)
    parser.add_argument("--iterations", type=int, default=300, help="length of the training at the end")
    parser.add_argument("--seconds", type=float, default=240.0, help="the training stops after this long")
    parser.add_argument("--out", type=Path, help="write the numbers to this JSON file")
    args = parser.parse_args(list(arguments))
    rows: List[Tuple[str, str, str]] = []
    numbers: Dict[str, Any] = {"device": _name(args.device)}
    checks: List[Tuple[str, Callable[..., Tuple[bool, str]]]] = [
        ("Warp equals MuJoCo C", check_parity),
        ("reset is fresh at once", check_reset),
        ("no host sync in an iteration", check_sync),
        ("no overflow, no bad world", check_overflow),
    ]
    checks += [("env.step", time_env), ("training", time_training), ("learns", train)]
    for task in robot_tasks(args.tasks):
        args.task = task
        for name, check in checks:
            _add(rows, numbers.setdefault(task, {}), "%s: %s" % (task, name), check, args)
    _print(rows, numbers["device"])
    if args.out:
        args.out.write_text(json.dumps(numbers, indent=2) + "\n")
    return 0 if all(verdict != "FAILED" for _, verdict, _ in rows) else 1


def _add(rows: List[Any], numbers: Dict[str, Any], name: str, run: Callable[..., Any], args: Any) -> None:
    """One row; a check that raises has failed, and the others still run."""
    start = time.perf_counter()
    try:
        held, said = run(args)
    except Exception as error:  # the table must come, whatever one check does
        held, said = False, "%s: %s" % (type(error).__name__, str(error).splitlines()[0] if str(error) else "")
    verdict = "ok" if held else "FAILED"
    rows.append((name, verdict, said))
    numbers[name.partition(": ")[2]] = {"ok": held, "said": said, "seconds": round(time.perf_counter() - start, 1)}
    print("%-30s %-7s %s" % rows[-1], flush=True)


def _name(device: str) -> str:
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else "Warp on the CPU"


def _settings(args: Any, algo: str = "hepo", num_envs: Optional[int] = None) -> Dict[str, Any]:
    """Resolved settings of the full budget, with the device that was asked for."""
    overrides = ["task=" + args.task, "algo=" + algo, "budget=paper", "num_envs=%d" % (num_envs or args.num_envs)]
    cfg = prepare(compose([*overrides, "sim=mujoco_batch", "device=cpu"]), overrides)
    cfg["device"] = args.device
    return cfg


def _env(cfg: Mapping[str, Any], device: str, random_start: bool = True) -> TaskEnv:
    """The task on Warp on ``device``, or on MuJoCo C for device "c"."""
    task_type = task_class(cfg["task"]["name"])
    if device == "c":
        from hepo_isaac.sim.mujoco_batch import MujocoBatchSimulation

        sim: Any = MujocoBatchSimulation(task_type.scene(cfg["task"], "mujoco_batch"), int(cfg["num_envs"]))
    else:
        from hepo_isaac.sim.mujoco_warp import MujocoWarpSimulation

        scene = task_type.scene(cfg["task"], "mujoco_warp")
        sim = MujocoWarpSimulation(scene, int(cfg["num_envs"]), device=device)
    generator = torch.Generator(sim.device).manual_seed(int(cfg["seed"]))
    streams = Streams([generator], sim.num_envs, sim.device, sim.may_select)
    return TaskEnv(task_type(cfg["task"], sim, streams), sim, streams, random_start)


def _actions(env: TaskEnv, steps: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(7)
    return (2.0 * torch.rand(steps, env.num_envs, env.num_actions, generator=generator) - 1.0).to(env.device)


# ---- correctness --------------------------------------------------------------------------------------------------


def check_parity(args: Any) -> Tuple[bool, str]:
    """Twenty single control steps from the same states, the first of an episode and later ones: observations, rewards
    and poses. Steps in which rounding alone leads MuJoCo C astray (an impact) are not compared."""
    cfg = _settings(args, num_envs=64)
    trio = parity.Trio(_env(cfg, args.device, False), *(_env(cfg, "c", False) for _ in range(2)))
    run = parity.single_steps(trio, _actions(trio.reference, 50), 10)
    share, worst, calm = run.share(PARITY_TOLERANCE), run.worst(), run.calm.float().mean().item()
    held = share >= PARITY_SHARE and worst <= 10 * PARITY_TOLERANCE and calm >= 0.7 and trio.sound()
    return held, "%.1f %% within %.0e, largest difference %.1e; %.0f %% of steps compared" % (
        100 * share,
        PARITY_TOLERANCE,
        worst,
        100 * calm,
    )


def check_reset(args: Any) -> Tuple[bool, str]:
    """Masked envs show their new state at once, the others do not move, and a NaN world is flagged and healed."""
    env = _env(_settings(args, num_envs=64), args.device, False)
    env.reset()
    for action in _actions(env, 5):
        env.step(action)
    mask = torch.arange(64, device=env.device) % 2 == 0
    before = _poses(env)
    env.task.reset(mask)
    poses = torch.equal((_poses(env) != before).any(1), mask)
    third, target = torch.arange(64, device=env.device) == 3, env.sim.root_state.clone()
    target[3] = float("nan")
    angles = env.sim.dof_pos.masked_fill(third.unsqueeze(1), float("nan"))
    env.sim.set_state(third, dof_pos=angles, root_state=target)
    env.sim.step()
    flagged = torch.nonzero(env.sim.bad_envs).flatten().tolist()
    env.task.reset(env.sim.bad_envs.clone())
    env.sim.step()
    healed = not bool(env.sim.bad_envs.any()) and bool(env.sim.dof_pos.isfinite().all())
    return poses and flagged == [3] and healed, "moved only the mask: %s, NaN world flagged: %s, healed: %s" % (
        poses,
        flagged == [3],
        healed,
    )


def _poses(env: TaskEnv) -> torch.Tensor:
    """(N, .) every pose that the engine serves; what a body's velocity would be is no number where it is not served."""
    sim = env.sim
    return torch.cat((sim.root_state.flatten(1), sim.dof_pos, sim.body_state[..., :7].flatten(1)), 1)


def check_sync(args: Any) -> Tuple[bool, str]:
    """An iteration under CUDA's sync debug mode "error"; the first iterations compile and capture."""
    agent = _agent(args, "hepo")
    for _ in range(3):
        agent.train_epoch()
    if agent.device.type != "cuda":
        agent.learn(agent.collect())
        return True, "not CUDA: nothing to detect"
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        agent.learn(agent.collect())
    finally:
        torch.cuda.set_sync_debug_mode("default")
    captured = agent.learner.minibatch_step.why_eager or "captured"
    return True, "none; update graph: %s" % captured


def check_overflow(args: Any) -> Tuple[bool, str]:
    """300 control steps of random actions in all envs."""
    env = _env(_settings(args), args.device)
    env.reset()
    for action in _actions(env, 300 if env.device.type == "cuda" else 20):
        env.step(action)
    overflow, bad = int(env.sim.overflow_count), int(env.bad_count)
    return overflow == 0 and bad == 0, "overflows %d, bad worlds %d" % (overflow, bad)


# ---- speed and learning -------------------------------------------------------------------------------------------


def time_env(args: Any) -> Tuple[bool, str]:
    """Steps/s of env.step with random actions, and of the simulation alone."""
    env = _env(_settings(args), args.device)
    env.reset()
    actions = _actions(env, 50 if env.device.type == "cuda" else 3)
    speeds = []
    for step in (env.step, lambda a: env.sim.step()):
        for action in actions[:3]:
            step(action)
        _wait(env.device)
        start = time.perf_counter()
        for action in actions:
            step(action)
        _wait(env.device)
        speeds.append(env.num_envs * len(actions) / (time.perf_counter() - start))
    return True, "%.0f env-steps/s, simulation alone %.0f" % (speeds[0], speeds[1])


def time_training(args: Any) -> Tuple[bool, str]:
    """Median steps/s of whole iterations, HEPO and PPO in turns."""
    agents = {algo: _agent(args, algo) for algo in ("ppo_h", "hepo")}
    rates: Dict[str, List[float]] = {algo: [] for algo in agents}
    for i in range(13 if args.device.startswith("cuda") else 3):
        for algo, agent in agents.items():
            metrics = agent.train_epoch()[0]
            if i >= 2:
                rates[algo].append(metrics["env_steps_per_second"])
    median = {algo: float(torch.tensor(r).median()) for algo, r in rates.items()}
    goal = GOALS.get(args.task)
    return True, "HEPO %.0f%s, PPO %.0f env-steps/s; HEPO iteration / PPO %.2f" % (
        median["hepo"],
        " (goal %d)" % goal if goal else "",
        median["ppo_h"],
        median["ppo_h"] / median["hepo"],
    )


def train(args: Any) -> Tuple[bool, str]:
    """HEPO from scratch: J and the success metric of pi over the last iterations."""
    agent = _agent(args, "hepo")
    rows: List[Dict[str, float]] = []
    start = time.perf_counter()
    while len(rows) < args.iterations and time.perf_counter() - start < args.seconds:
        rows.append(agent.train_epoch()[0])
        if len(rows) % 25 == 0:
            print("  iteration %d: %s" % (len(rows), _recent(rows)), flush=True)
    return True, "%.1f M steps in %.0f s: %s, bad worlds %d, overflows %d" % (
        rows[-1]["env_steps"] / 1e6,
        time.perf_counter() - start,
        _recent(rows),
        sum(r["bad_worlds"] for r in rows),
        sum(r["overflow"] for r in rows),
    )


def _recent(rows: Sequence[Mapping[str, float]]) -> str:
    """Episode-weighted means over the last 25 iterations."""
    said = []
    keys = ["return_task/pi"] + sorted(k for k in rows[-1] if k.startswith("episode/") and k.endswith("/pi"))
    for key in keys:
        pairs = [(r[key], r["episodes/pi"]) for r in rows[-25:] if r["episodes/pi"]]
        if pairs:
            said.append("%s %.3f" % (key, sum(v * n for v, n in pairs) / sum(n for _, n in pairs)))
    return ", ".join(said) or "no episode has ended yet"


def _agent(args: Any, algo: str) -> Any:
    from rl_games.common.algo_observer import AlgoObserver

    from hepo_isaac.agents.agent import HepoAgent
    from hepo_isaac.agents.register import register_env, runner_params

    cfg = _settings(args, algo)
    register_env(RlGamesVecEnv(_env(cfg, args.device)))
    params = runner_params(cfg, [int(cfg["seed"])])
    params["config"]["features"] = {"observer": AlgoObserver()}
    torch.set_float32_matmul_precision("high")  # TF32, as rl-games' Runner sets it
    return HepoAgent("gpu-check", params)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _print(rows: Sequence[Tuple[str, str, str]], device: str) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("", "", "", title="%s, torch %s" % (device, torch.__version__), show_header=False)
    for row in rows:
        table.add_row(*row)
    Console().print(table)

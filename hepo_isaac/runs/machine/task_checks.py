"""What a robot task must do on the CUDA engine: run, agree with MuJoCo C, reset, train without waiting; how fast."""

from __future__ import annotations

import collections
import gc
import os
import time
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import torch

from hepo_isaac.envs.task_env import TaskEnv
from hepo_isaac.runs.machine.host_waits import HostWaits, profiled
from hepo_isaac.runs.machine.jobs import Outcome, Reporter
from hepo_isaac.runs.machine.rig import Rig, captured
from hepo_isaac.runs.parity import steps as parity

# Shares of single steps that must agree with MuJoCo C within a tolerance; docs/parity/warp.md has what Warp's CPU
# device does. The largest difference has no bound: in one of 80,000 steps a touch may exist on one engine only.
PARITY = {1e-4: 0.9, 1e-3: 0.98}
# Training env-steps/s to reach on an H100-class card at 4096 envs.
GOALS = {
    "FrankaCabinet": 100_000,
    "Ant": 300_000,
    "Humanoid": 300_000,
    "ShadowHand": 170_000,
    "AllegroHand": 85_000,
    "Anymal": 270_000,
}


class Plan(NamedTuple):
    """How a task is checked. graph: sim.graph.  fake: architecture of an imitated GPU.  stubs: its folder for kernels
    that are not compiled.  steps, warm_up, iterations: of timings.  out: folder of profile.txt."""

    device: str
    num_envs: int
    graph: bool = True
    fake: Optional[int] = None
    stubs: str = ""
    steps: int = 60
    warm_up: int = 2
    iterations: int = 5
    profile: bool = True
    out: str = "."


def task_job(report: Reporter, task: str, plan: Plan) -> None:
    """All checks of one task, on one engine; if it cannot step, what would tell why."""
    record = _begin(plan)
    rig = Rig(task, plan.device, plan.num_envs, plan.graph)
    if not report.run("first steps", first_steps, rig):
        other = _diagnose(report, task, plan)
        if other is None:
            return
        rig = other
    if record is not None:
        report.run("what CUDA would refuse", refusals, rig, record)
    report.run("Warp equals MuJoCo C", equals_mujoco, rig)
    report.run("resets", resets, rig)
    report.run("training", training, rig, plan)
    report.run("speed", speed, rig, plan.steps)
    if plan.profile:
        report.run("profile", profile, rig, plan)
    report.run("memory", memory, plan.device)


def size_job(report: Reporter, task: str, plan: Plan) -> None:
    """One task with another number of envs: does it overflow, and how fast is it."""
    _begin(plan)
    rig = Rig(task, plan.device, plan.num_envs, plan.graph)
    report.run("speed", speed, rig, plan.steps)
    report.run("training", training, rig, plan)
    report.run("memory", memory, plan.device)


def learning_job(report: Reporter, task: str, plan: Plan, seconds: float) -> None:
    """HEPO from scratch for some seconds."""
    _begin(plan)
    report.run("learns", learns, Rig(task, plan.device, plan.num_envs, plan.graph), seconds)


def _begin(plan: Plan) -> Any:
    """Settle the process; returns the record of an imitated GPU, or None."""
    torch.set_num_threads(min(4, len(os.sched_getaffinity(0))))
    if not plan.fake:
        return None
    from hepo_isaac.sim.mujoco import imitated_cuda

    return imitated_cuda.install(plan.fake, plan.stubs)


def _diagnose(report: Reporter, task: str, plan: Plan) -> Optional[Rig]:
    """Fewer worlds, then no graphs: returns the first engine that steps, or None."""
    for name, num_envs, graph in (("first steps, 64 envs", 64, plan.graph), ("first steps, no graph", 64, False)):
        rig = Rig(task, plan.device, num_envs, graph)
        if report.run(name, first_steps, rig):
            return rig
    return None


# ---- correctness --------------------------------------------------------------------------------------------------


def first_steps(rig: Rig) -> Outcome:
    """Build, compile what the kernel cache lacks, capture, and step three times."""
    from hepo_isaac.sim.mujoco.warp_compile import compile_log

    start = time.perf_counter()
    env = rig.env
    built = time.perf_counter() - start
    env.reset()
    start = time.perf_counter()
    for move in rig.actions(3):
        result = env.step(move)
    rig.wait()
    stepped, compiled = time.perf_counter() - start, compile_log().compiled
    finite = bool(result.obs.isfinite().all()) and int(env.bad_count) == 0
    sim: Any = env.sim
    notices = [notice.text for notice in sim.notices()]
    graphs = " and ".join(sim.graphs.names()) or "none"
    said = "N %d: built %.1f s, first steps %.1f s, graphs: %s, compiled %d, sound %s%s" % (
        rig.num_envs,
        built,
        stepped,
        graphs,
        compiled,
        finite,
        "".join("; " + text for text in notices),
    )
    numbers = {"built_s": built, "first_steps_s": stepped, "compiled": compiled}
    return Outcome(finite and not notices, said, numbers)


def refusals(rig: Rig, record: Any) -> Outcome:
    """What the imitated GPU says of the captures so far, and the host waits that it sees in one more step."""
    found = [*record.illegal, *("loaded in a capture: " + name for name in record.late_modules), *record.unknown]
    captures, expected = record.captures, 2 if rig.graph else 0
    record.reset()
    rig.env.step(rig.actions(1)[0])
    found += ["the host waits: " + line for line in record.waits]
    for line in found:
        print(line, flush=True)
    said = "%d captures: %s" % (captures, "; ".join(found[:3]) or "nothing")
    return Outcome(not found and captures == expected, said, {"refused": len(found), "captures": captures})


def equals_mujoco(rig: Rig) -> Outcome:
    """Twenty single control steps from MuJoCo C's states, the first of an episode and later ones: observations,
    rewards and poses. Steps in which rounding alone leads MuJoCo C astray (an impact) are not compared."""
    trio = parity.Trio(rig.env, rig.reference(), rig.reference())
    run = parity.single_steps(trio, rig.actions(30).cpu(), 10)
    shares, worst, calm = {bound: run.share(bound) for bound in PARITY}, run.worst(), run.calm.float().mean().item()
    held = all(shares[bound] >= least for bound, least in PARITY.items()) and calm >= 0.7 and trio.sound()
    within = ", ".join("%.3f %% within %.0e" % (100 * share, bound) for bound, share in shares.items())
    said = "%s, largest difference %.1e; %.0f %% of steps compared" % (within, worst, 100 * calm)
    numbers = {**{"share %.0e" % bound: share for bound, share in shares.items()}, "worst": worst, "calm": calm}
    return Outcome(held, said, numbers)


def resets(rig: Rig) -> Outcome:
    """Masked envs show their new state at once, the others do not move, and a NaN world is flagged and healed."""
    env = rig.env
    env.reset()
    for move in rig.actions(5):
        env.step(move)
    mask = torch.arange(env.num_envs, device=env.device) % 2 == 0
    before = _poses(env)
    env.task.reset(mask)
    moved = torch.equal((_poses(env) != before).any(1), mask)
    third, target = torch.arange(env.num_envs, device=env.device) == 3, env.sim.root_state.clone()
    target[3] = float("nan")
    angles = env.sim.dof_pos.masked_fill(third.unsqueeze(1), float("nan"))
    env.sim.set_state(third, dof_pos=angles, root_state=target)
    env.sim.step()
    flagged = torch.equal(env.sim.bad_envs, third)
    env.task.reset(env.sim.bad_envs.clone())
    env.sim.step()
    healed = not bool(env.sim.bad_envs.any()) and bool(env.sim.dof_pos.isfinite().all())
    said = "moved only the mask: %s, NaN world flagged: %s, healed: %s"
    return Outcome(moved and flagged and healed, said % (moved, flagged, healed))


def _poses(env: TaskEnv) -> torch.Tensor:
    """(N, .) every pose that the engine serves; what a body's velocity would be is no number where it is not served."""
    sim = env.sim
    return torch.cat((sim.root_state.flatten(1), sim.dof_pos, sim.body_state[..., :7].flatten(1)), 1)


# ---- speed ----------------------------------------------------------------------------------------------------------


def speed(rig: Rig, steps: int) -> Outcome:
    """Random actions: steps/s of env.step and of the simulation alone, overflows and diverged worlds."""
    env = rig.env
    env.reset()
    overflow, bad = int(env.sim.overflow_count), int(env.bad_count)
    actions = rig.actions(steps + 3)
    rates = []
    for step in (env.step, lambda move: env.sim.step()):
        for move in actions[:3]:
            step(move)
        rig.wait()
        start = time.perf_counter()
        for move in actions[3:]:
            step(move)
        rig.wait()
        rates.append(env.num_envs * steps / (time.perf_counter() - start))
    overflow, bad = int(env.sim.overflow_count) - overflow, int(env.bad_count) - bad
    said = "N %d: env.step %.0f/s, simulation alone %.0f/s, overflows %d, bad worlds %d"
    numbers = {"env_step": rates[0], "simulation": rates[1], "overflow": overflow, "bad": bad}
    return Outcome(overflow == 0 and bad == 0, said % (env.num_envs, *rates, overflow, bad), numbers)


def training(rig: Rig, plan: Plan) -> Outcome:
    """HEPO and PPO in turns, then an iteration of HEPO watched for host waits."""
    agents = {algo: rig.agent(algo) for algo in ("ppo_h", "hepo")}
    rows: Dict[str, List[Mapping[str, float]]] = collections.defaultdict(list)
    for k in range(plan.warm_up + plan.iterations):
        gc.collect()  # not in the middle of an iteration
        for algo, agent in agents.items():
            metrics = agent.train_epoch()[0]
            if k >= plan.warm_up:  # what comes before compiles and captures
                rows[algo].append(metrics)
    with HostWaits(rig.env.device) as waits:
        agents["hepo"].learn(agents["hepo"].collect())
    rig.wait()
    hepo, ppo = (_median(rows[algo]) for algo in ("hepo", "ppo_h"))
    lost = sum(int(row["bad_worlds"] + row["overflow"]) for found in rows.values() for row in found)
    held, graph = captured(agents["hepo"])
    said = (
        "N %d: HEPO %.0f steps/s (rollout %.3f s, update %.3f s), PPO %.0f (%.3f, %.3f), goal %s; %s; host waits: %s%s"
    )
    goal = GOALS.get(rig.task, "-") if rig.num_envs == 4096 else "-"
    more = "; bad worlds and overflows %d" % lost if lost else ""
    numbers = {"hepo": hepo[0], "ppo": ppo[0], "rollout_s": hepo[1], "update_s": hepo[2], "waits": len(waits.found)}
    ok = False if waits.found or lost else held
    return Outcome(ok, said % (rig.num_envs, *hepo, *ppo, goal, graph, waits.said(), more), numbers)


def _median(rows: Sequence[Mapping[str, float]]) -> Tuple[float, float, float]:
    """Of steps/s, seconds of the rollout and of the update."""
    keys = ("env_steps_per_second", "rollout_s", "update_s")
    steps, rollout, update = (sorted(row[key] for row in rows)[len(rows) // 2] for key in keys)
    return steps, rollout, update


def profile(rig: Rig, plan: Plan) -> Outcome:
    """One iteration of HEPO under CUPTI: host waits of torch and of Warp, and the time of each kernel."""
    agent = rig.agent("hepo")
    for _ in range(plan.warm_up):
        agent.train_epoch()
    rig.wait()
    start = time.perf_counter()
    found = profiled(lambda: agent.learn(agent.collect()), rig.env.device)
    took = time.perf_counter() - start
    with open(os.path.join(plan.out, "profile.txt"), "a", encoding="utf-8") as file:
        file.write("%s, N %d, one iteration\n%s\n\n" % (rig.task, rig.num_envs, found.pop("table")))
    said = "iteration %.3f s under the profiler, device busy %.3f s, calls that wait (one is the profiler's): %s"
    return Outcome(True, said % (took, found["busy_s"], found["waits"] or "none"), {"iteration_s": took, **found})


def memory(device: str) -> Outcome:
    """What the process holds on the card."""
    import warp as wp

    if torch.device(device).type != "cuda":
        return Outcome(None, "not on a card")
    free, total = torch.cuda.mem_get_info(device)
    numbers = {
        "used_gib": (total - free) / 2**30,
        "torch_gib": torch.cuda.max_memory_allocated(device) / 2**30,
        "warp_gib": wp.get_mempool_used_mem_high(device) / 2**30,
    }
    said = "%(used_gib).1f GiB in use on the card; at most %(torch_gib).2f GiB by torch, %(warp_gib).2f GiB by Warp"
    return Outcome(True, said % numbers, numbers)


def learns(rig: Rig, seconds: float) -> Outcome:
    """HEPO from scratch: J and the success metric of pi over the last iterations."""
    agent = rig.agent("hepo")
    rows: List[Mapping[str, float]] = []
    start = time.perf_counter()
    while not rows or time.perf_counter() - start < seconds:
        rows.append(agent.train_epoch()[0])
        if len(rows) % 25 == 0:
            print("iteration %d: %s" % (len(rows), _recent(rows)), flush=True)
    took = time.perf_counter() - start
    lost = [int(sum(row[key] for row in rows)) for key in ("bad_worlds", "overflow")]
    said = "%.1f M steps in %.0f s: %s; bad worlds %d, overflows %d"
    steps = rows[-1]["env_steps"]
    return Outcome(not lost[1], said % (steps / 1e6, took, _recent(rows), *lost), {"env_steps": steps, "seconds": took})


def _recent(rows: Sequence[Mapping[str, float]]) -> str:
    """Episode-weighted means over the last 25 iterations."""
    said = []
    keys = ["return_task/pi"] + sorted(k for k in rows[-1] if k.startswith("episode/") and k.endswith("/pi"))
    for key in keys:
        pairs = [(row[key], row["episodes/pi"]) for row in rows[-25:] if row["episodes/pi"]]
        if pairs:
            said.append("%s %.3f" % (key, sum(v * n for v, n in pairs) / sum(n for _, n in pairs)))
    return ", ".join(said) or "no episode has ended yet"

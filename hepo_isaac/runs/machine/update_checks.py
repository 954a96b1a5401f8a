"""What needs no physics engine: the card itself, the captured update, and every method on a small analytic task."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import time
from typing import Any, List, Sequence

import numpy
import torch

from hepo_isaac.runs.machine.host_waits import HostWaits
from hepo_isaac.runs.machine.jobs import Outcome, Reporter
from hepo_isaac.runs.machine.rig import Rig, captured, make_agent, paper_settings
from hepo_isaac.sim.engines import CPU_ENGINE

TASK = "Maze2D"
# Captured and eager kernels may sum in another order; three iterations of Adam make little of it.
EQUAL = 1e-3


def update_job(report: Reporter, device: str, num_envs: int, methods: Sequence[str]) -> None:
    """The captured update against the eager one, and an iteration of every method."""
    report.run("update graph = eager", graph_equals_eager, device, num_envs)
    for method in methods:
        report.run("method " + method, method_waits, method, device, max(64, num_envs // 4))


def machine_job(report: Reporter, device: str) -> None:
    """What the other results are results of."""
    report.run("machine", machine, device)


def cpu_job(report: Reporter, task: str, num_envs: int) -> None:
    """MuJoCo C on this machine's cores, to compare with."""
    report.run(CPU_ENGINE, cpu_speed, task, num_envs)


def machine(device: str) -> Outcome:
    """Versions, card, driver, and the speed of its memory."""
    numbers = {"python": platform.python_version(), "numpy": numpy.__version__, "torch": torch.__version__}
    said = "python %(python)s, numpy %(numpy)s, torch %(torch)s" % numbers
    if torch.device(device).type != "cuda":
        return Outcome(True, said, numbers)
    card = torch.cuda.get_device_properties(device)
    free, total = torch.cuda.mem_get_info(device)
    numbers.update(card=card.name, driver=driver_version(), cuda=str(torch.version.cuda))
    figures = (card.multi_processor_count, free / 2**30, total / 2**30, copy_rate(device) / 1e12)
    said += ", %(card)s, driver %(driver)s, CUDA %(cuda)s" % numbers
    return Outcome(True, said + ", %d SMs, %.0f of %.0f GiB free, copies %.2f TB/s" % figures, numbers)


def driver_version() -> str:
    """NVIDIA's driver, as nvidia-smi says; "unknown" where it does not."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return "unknown"
    query = [tool, "--query-gpu=driver_version", "--format=csv,noheader"]
    found = subprocess.run(query, capture_output=True, text=True, timeout=30).stdout.split()
    return found[0] if found else "unknown"


def copy_rate(device: str, mebibytes: int = 1024, copies: int = 10) -> float:
    """Bytes per second of copies within the card's memory, reading and writing both counted."""
    source = torch.empty(mebibytes << 18, device=device)
    target = torch.empty_like(source)
    target.copy_(source)
    torch.cuda.synchronize(device)
    start = time.perf_counter()
    for _ in range(copies):
        target.copy_(source)
    torch.cuda.synchronize(device)
    return 2.0 * copies * source.numel() * source.element_size() / (time.perf_counter() - start)


def analytic_agent(algo: str, device: str, num_envs: int, graph: bool = True) -> Any:
    """An agent on the analytic task, in four minibatches."""
    cfg = paper_settings(
        TASK,
        device,
        num_envs,
        algo,
        "train.horizon_length=16",
        "train.minibatch_size=%d" % (4 * num_envs),
        "train.graph_update=%s" % str(graph).lower(),
    )
    return make_agent(cfg)


def graph_equals_eager(device: str, num_envs: int) -> Outcome:
    """The same training with the captured update and with the eager one."""
    torch.set_float32_matmul_precision("highest")
    flats: List[torch.Tensor] = []
    rates = {}
    ok, said = None, ""
    for name, graph in (("graph", True), ("eager", False)):
        agent = analytic_agent("hepo", device, num_envs, graph)
        for _ in range(3):
            metrics = agent.train_epoch()[0]
        flats.append(agent.learner.policies.net.flat.detach().clone())
        rates[name + "_update_s"] = metrics["update_s"]
        if graph:
            ok, said = captured(agent)
    off = float((flats[0] - flats[1]).abs().max())
    said += "; largest difference of a weight after 3 iterations %.1e; update %.4f s, eager %.4f s"
    ok = False if off >= EQUAL else ok
    return Outcome(ok, said % (off, rates["graph_update_s"], rates["eager_update_s"]), {"off": off, **rates})


def method_waits(algo: str, device: str, num_envs: int) -> Outcome:
    """Three iterations of one method, the last one watched for host waits."""
    agent = analytic_agent(algo, device, num_envs)
    for _ in range(2):
        agent.train_epoch()
    with HostWaits(agent.device) as waits:
        agent.learn(agent.collect())
    metrics = agent.train_epoch()[0]
    # Returns are no numbers while no episode has ended.
    broken = sorted(k for k, v in metrics.items() if v != v and k.startswith(("loss", "kl", "alpha", "grad", "sigma")))
    ok, said = captured(agent)
    said += "; host waits: %s%s" % (waits.said(), "; NaN in %s" % ", ".join(broken) if broken else "")
    return Outcome(False if waits.found or broken else ok, said, {"waits": sum(waits.found.values())})


def cpu_speed(task: str, num_envs: int, steps: int = 10) -> Outcome:
    """env.step with random actions on MuJoCo C."""
    env = Rig(task, "cpu", num_envs).reference()
    env.reset()
    actions = 2.0 * torch.rand(steps + 2, num_envs, env.num_actions) - 1.0
    for move in actions[:2]:
        env.step(move)
    start = time.perf_counter()
    for move in actions[2:]:
        env.step(move)
    rate = num_envs * steps / (time.perf_counter() - start)
    cores = len(os.sched_getaffinity(0))
    return Outcome(True, "%s: %.0f env-steps/s on %d cores" % (task, rate, cores), {"rate": rate, "cores": cores})

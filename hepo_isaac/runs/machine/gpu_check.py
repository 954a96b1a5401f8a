"""``hepo-isaac gpu-check``: prove the CUDA path on the machine at hand, then time it.

Jobs run in order of worth, each in a process of its own with a time limit: the card and the captured update, every task
(FrankaCabinet first) on one engine each, then larger numbers of envs. A line appears per result as soon as it is there;
the folder has results.jsonl (the same with numbers), log.txt (tracebacks and everything printed), profile.txt and, at
the end, results.md. ``--fake`` rehearses it all against a GPU that is not there, ``--device cpu`` on Warp's CPU device.
"""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path
from typing import Any, Dict, List, Sequence, Tuple

from hepo_isaac.arguments import Parser, check_folder, seconds, whole
from hepo_isaac.errors import UserError
from hepo_isaac.limits import MAX_ENVS
from hepo_isaac.locate import group_names, robot_tasks
from hepo_isaac.runs.machine.jobs import VERDICTS, Job, Result, Runner
from hepo_isaac.runs.machine.scaling import ranks_job
from hepo_isaac.runs.machine.task_checks import Plan, learning_job, size_job, task_job
from hepo_isaac.runs.machine.update_checks import cpu_job, machine_job, update_job
from hepo_isaac.runs.record import metadata
from hepo_isaac.sim.engines import CUDA_ENGINE, ENGINES

# The tasks that most depends on come first; those not named here follow in alphabetical order.
ORDER = ("FrankaCabinet", "Ant", "ShadowHand", "Humanoid", "Anymal", "AllegroHand", "FrankaCubeStack")
METHODS_FIRST = ("hepo", "ppo_h", "eipo", "hepo_alternating", "hepo_release2", "pbrs", "hurl")
PRELOAD = (
    "hepo_isaac.runs.machine.task_checks",
    "hepo_isaac.agents.register",
    "hepo_isaac.envs.make",
    ENGINES[CUDA_ENGINE].modules[0],
)
# What says nothing where no kernel runs.
NEEDS_KERNELS = ("Warp equals MuJoCo C", "resets", "training", "speed", "profile")
STUBS = "stubs"  # a rehearsal's kernels: empty files
MARGIN_S = 20.0  # what a job that begins just in time may take beyond --seconds


def main(arguments: Sequence[str]) -> int:
    """Run all checks; returns 0 if none failed (timings have no bound), 1 otherwise."""
    args = _parse(arguments)
    device = _device(args)
    out = Path(args.out)
    shutil.rmtree(out / STUBS, ignore_errors=True)
    runner = Runner(out, PRELOAD)
    jobs = _jobs(args, device, str(out))
    print("%d jobs, at most %.0f s; results in %s" % (len(jobs), args.seconds + MARGIN_S, out), flush=True)
    for at, job in enumerate(jobs):
        left = args.seconds - runner.elapsed()
        if left < 5.0:
            print("out of time (--seconds %.0f) before: %s" % (args.seconds, ", ".join(j.name for j in jobs[at:])))
            break
        runner.run(job._replace(limit_s=min(job.limit_s, left + MARGIN_S)))
    shutil.rmtree(out / STUBS, ignore_errors=True)
    report = _report(runner.results, device, args)
    (out / "results.md").write_text(report, encoding="utf-8")
    print(report)
    return 1 if any(result.ok is False for result in runner.results) else 0


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = Parser("gpu-check", str(__doc__).split("\n\n", 1)[1])
    add = parser.add_argument
    add(
        "--tasks",
        nargs="+",
        default=["all"],
        help="names, all: every robot task (default), or bidex: the dexterous hands",
    )
    add(
        "--device",
        default="cuda:0",
        help="cuda:k (default: cuda:0), or cpu: Warp's CPU device (minutes of compilation)",
    )
    add("--fake", action="store_true", help="imitate a GPU; compiles only into the cache that WARP_CACHE_PATH names")
    add("--arch", default="sm_90", help="of the GPU that --fake imitates (default: sm_90)")
    add("--only", choices=("update", "tasks", "sizes"), help="one kind of job; without it, all of them")
    add("--num-envs", type=whole(2, MAX_ENVS), help="of each task; 4096, or 64 without a GPU")
    add(
        "--sizes", type=whole(2, MAX_ENVS), nargs="*", help="further numbers of envs; 8192 16384, or none without a GPU"
    )
    add("--no-graph", action="store_true", help="sim.graph=false")
    add("--steps", type=whole(1, 10**6), default=60, help="control steps of a timing (default: 60)")
    add("--iterations", type=whole(1, 10**6), help="training iterations of a timing; 5, or 1 without a GPU")
    add("--seconds", type=seconds(1), default=900.0, help="no job begins after this (default: 900)")
    add(
        "--job-seconds",
        type=seconds(1),
        default=90.0,
        help="limit of a job (default: 90); the first task's is twice that",
    )
    add("--learn", type=seconds(0), default=0.0, help="seconds of training the first task, last of all")
    add("--out", default="gpu-check", help="folder of the results (default: gpu-check)")
    args = parser.parse_args(list(arguments))
    check_folder("--out", Path(args.out))
    args.rehearsal = args.fake or args.device == "cpu"
    args.num_envs = args.num_envs or (64 if args.rehearsal else 4096)
    args.sizes = args.sizes if args.sizes is not None else ([] if args.rehearsal else [8192, 16384])
    args.iterations = args.iterations or (1 if args.rehearsal else 5)
    args.tasks = sorted(robot_tasks(args.tasks), key=lambda t: _rank(t, ORDER))
    return args


def _rank(name: str, first: Sequence[str]) -> Tuple[int, str]:
    return (list(first).index(name) if name in first else len(first), name)


def _device(args: argparse.Namespace) -> str:
    """Torch's device, once it is known that the checks can run there.

    Raises:
        UserError: a package, the GPU or the architecture is missing; the message says what to do.
    """
    from hepo_isaac.sim.registry import WARP_CPU, resolve_engine

    if args.fake:
        from hepo_isaac.sim.mujoco.imitated_driver import ARCHITECTURES

        if args.arch not in ["sm_%d" % a for a in ARCHITECTURES]:
            known = ", ".join("sm_%d" % a for a in ARCHITECTURES)
            raise UserError("--arch %s cannot be imitated; expected one of: %s" % (args.arch, known))
    wanted = WARP_CPU if args.fake or args.device == "cpu" else str(args.device)
    return str(resolve_engine(CUDA_ENGINE, wanted)[1])


def _jobs(args: argparse.Namespace, device: str, out: str) -> List[Job]:
    fake = int(args.arch[3:]) if args.fake else None
    stubs = "" if not args.fake or os.environ.get("WARP_CACHE_PATH") else os.path.join(out, STUBS)
    plan = Plan(device, args.num_envs, not args.no_graph, fake, stubs, args.steps, out=out)
    plan = plan._replace(warm_up=0 if args.rehearsal else 2, iterations=args.iterations)
    unjudged = NEEDS_KERNELS if args.fake else ()
    limit, first = args.job_seconds, args.tasks[0]
    jobs: Dict[str, List[Job]] = {"update": [], "tasks": [], "sizes": []}
    methods = sorted(group_names("algo"), key=lambda m: _rank(m, METHODS_FIRST))
    jobs["update"].append(Job("update", update_job, (device, args.num_envs, methods), limit))
    jobs["update"].append(Job("cpu", cpu_job, (first, args.num_envs), limit))
    if not args.rehearsal:  # processes that torchrun starts do not imitate a GPU
        jobs["update"].append(Job("ranks", ranks_job, (first, args.num_envs), limit))
    for task in args.tasks:
        own = plan._replace(profile=task == first or not args.rehearsal)
        jobs["tasks"].append(Job(task, task_job, (task, own), limit * (2 if task == first else 1), unjudged))
    for num_envs in args.sizes:
        for task in args.tasks:
            sized = plan._replace(num_envs=num_envs)
            jobs["sizes"].append(Job("%s %d" % (task, num_envs), size_job, (task, sized), limit))
    if args.learn > 0:
        jobs["tasks"].append(Job("learning", learning_job, (first, plan, args.learn), args.learn + limit))
    card = Job("card", machine_job, (device,), limit)
    return [card, *(job for kind, found in jobs.items() for job in found if args.only in (None, kind))]


def _report(results: Sequence[Result], device: str, args: argparse.Namespace) -> str:
    """Markdown: where and when, then a row per result."""
    about: Dict[str, Any] = next((r.numbers for r in results if r.check == "machine"), {})
    code = metadata.collect()["git"] or {}
    where = "an imitated %s" % args.arch if args.fake else about.get("card", device)
    head = "%s, driver %s, torch %s, %s, commit %s%s" % (
        where,
        about.get("driver", "-"),
        about.get("torch", "-"),
        metadata.now()[:10],
        str(code.get("commit", "unknown"))[:7],
        " with changes" if code.get("dirty") else "",
    )
    rows = ["| %s | %s | %s | %s |" % (r.job, r.check, VERDICTS[r.ok], r.said.replace("|", "/")) for r in results]
    failed = sum(r.ok is False for r in results)
    summary = "%d checks, %d failed" % (len(results), failed)
    return "\n".join([head, "", "| job | check | | found |", "|---|---|---|---|", *rows, "", summary, ""])

"""Re-make the reference runs of docs/reference: train what is missing, resume what was cut, collect everything.

    python -m hepo_isaac.studies.reference --jobs 2                     # train, then collect
    python -m hepo_isaac.studies.reference --tasks Ant --seeds 1        # one task, one seed
    python -m hepo_isaac.studies.reference --tasks dexterous --budget demo
    python -m hepo_isaac.studies.reference --collect                    # only gather what finished runs left

Runs go to runs/reference/; a run that is finished there is not trained again. A task with no finished run keeps what
its folder there holds.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from queue import Empty, Queue
from typing import Any, Dict, List, Optional, Tuple

from hepo_isaac.runs.machine.ticker import Ticker
from hepo_isaac.sim.engines import CPU_ENGINE
from hepo_isaac.studies.places import CHECKOUT, DOCS, require_checkout

HERE = DOCS / "reference"
# task -> arm (algo, or algo and what is set besides) -> settings; and its seeds.
ARMS: Dict[str, Dict[str, List[str]]] = {
    "FrankaCabinet": {algo: ["train.mini_epochs=8"] for algo in ("hepo", "ppo_h", "ppo_j")},
    "Cartpole": {"hepo": []},
    "BallBalance": {"hepo": ["train.mini_epochs=8"]},
    "Quadcopter": {"hepo": []},
    "Ingenuity": {"hepo": []},
    "Ant": {"hepo": []},
    "Humanoid": {"hepo": []},
    # The published r is never positive and a fall costs nothing (docs/parity/Anymal.md).
    "Anymal": {"hepo": ["task.alive_bonus=6"], "ppo_h": []},
    "AllegroHand": {"hepo": [], "ppo_h": ["train.max_iterations=4000"]},
    "ShadowHand": {"hepo": [], "ppo_h": ["train.max_iterations=4000"]},
    "FrankaCubeStack": {"hepo": []},
}
# Nine of the dexterous tasks (docs/bidex.md); a million steps each with --budget demo.
DEXTEROUS = (
    "Over",
    "CatchUnderarm",
    "DoorOpenOutward",
    "DoorCloseOutward",
    "SwingCup",
    "BlockStack",
    "PushBlock",
    "Spin",
    "ReOrientation",
)
ARMS.update(("ShadowHand" + name, {"hepo": []}) for name in DEXTEROUS)
SEEDS: Dict[str, List[int]] = {"FrankaCabinet": [1, 2, 3]}
DEFAULT_SEEDS = [1]
Job = Tuple[str, str, int]  # task, algo, seed
KEPT_ROWS = 250  # per committed CSV
COLUMNS = (
    "iteration",
    "env_steps",
    "env_steps_per_second",
    "return_task/pi",
    "return_task/pi_h",
    "return_heuristic/pi",
    "return_heuristic/pi_h",
    "episode_length/pi",
    "episode_length/pi_h",
    "alpha",
    "alpha_gradient",
    "kl/pi",
    "learning_rate/pi",
    "sigma/pi",
    "clip_fraction_foreign/pi",
    "ess_foreign/pi",
    "bad_worlds",
    "overflow",
)


def find_run(root: Path, job: Job) -> Optional[Path]:
    """The newest run folder of a task, algorithm and seed."""
    task, algo, seed = job
    runs = sorted((root / task / algo).glob("*_seed%d" % seed))
    return runs[-1] if runs else None


def finished(root: Path, job: Job) -> Optional[Path]:
    """The run folder if the run is complete."""
    run = find_run(root, job)
    file = run / "status.json" if run is not None else None
    if file is None or not file.exists():
        return None
    return run if json.loads(file.read_text())["status"] == "finished" else None


def command(root: Path, budget: str, job: Job) -> List[str]:
    """What to run for one reference run: a fresh start, or the continuation of a cut one."""
    task, algo, seed = job
    run = find_run(root, job)
    if run is not None and (run / "checkpoints" / "last.pt").exists():
        return [sys.executable, "train.py", "resume=%s" % run]
    return [
        sys.executable,
        "train.py",
        "task=%s" % task,
        "algo=%s" % algo,
        "budget=%s" % budget,
        "seed=%d" % seed,
        "torch_threads=1",
        "sim=" + CPU_ENGINE,
        "sim.threads=1",
        "run_root=%s" % root,
        *ARMS[task][algo],
    ]


def train(root: Path, budget: str, workers: int, jobs: List[Job]) -> None:
    """Train every missing run, ``workers`` at a time."""
    queue: Queue[Job] = Queue()
    for job in jobs:
        if finished(root, job) is None:
            queue.put(job)
    root.mkdir(parents=True, exist_ok=True)

    def work() -> None:
        while True:
            try:
                job = queue.get_nowait()
            except Empty:
                return
            start = time.time()
            with open(root / ("%s_%s_seed%d.log" % job), "a") as log:
                code = subprocess.call(
                    command(root, budget, job),
                    cwd=CHECKOUT,
                    stdout=log,
                    stderr=log,
                    env={**os.environ, "OMP_NUM_THREADS": "1"},
                )
            print("%s %s seed %d: exit %d after %.0f s" % (*job, code, time.time() - start), flush=True)

    threads = [threading.Thread(target=work) for _ in range(workers)]
    for thread in threads:
        thread.start()
    ticker = Ticker("%d reference runs" % len(jobs), 100, interval=30.0, unit="%")
    for thread in threads:
        while thread.is_alive():
            thread.join(5.0)
            ticker.at(100.0 * sum(_share(root, job) for job in jobs) / max(1, len(jobs)))


def _share(root: Path, job: Job) -> float:
    """How much of a run is done, 0 to 1, from the last row of its metrics.csv."""
    from omegaconf import OmegaConf

    run = find_run(root, job)
    if run is None or not (run / "metrics.csv").exists() or not (run / "config.yaml").exists():
        return 0.0
    rows = (run / "metrics.csv").read_text().splitlines()
    done = rows[-1].split(",")[rows[0].split(",").index("iteration")] if len(rows) > 1 else "0"
    config: Any = OmegaConf.load(run / "config.yaml")
    return min(1.0, int(done or 0) / float(config.train.max_iterations))


def collect(root: Path, task: str, jobs: List[Job], partial: bool) -> None:
    """Thin CSVs, curves and a table of the start and the end of every finished run of one task; of those that were
    stopped too if ``partial``."""
    from hepo_isaac.overrides import compose
    from hepo_isaac.runs.record.plots import plot_runs

    rows, by_algo = [], {}  # type: List[Dict[str, Any]], Dict[str, List[Any]]
    success, target = str(compose(["task=" + task]).task.success), HERE / task
    for job in jobs:
        run = find_run(root, job) if partial else finished(root, job)
        if run is None:
            print("missing: %s %s seed %d" % job)
            continue
        target.mkdir(parents=True, exist_ok=True)
        by_algo.setdefault(job[1], []).append(run)
        metrics = _read(run / "metrics.csv")
        _write_thin(metrics, target / ("%s_seed%d.csv" % job[1:]), success)
        rows.append(_row(job, metrics, json.loads((run / "metadata.json").read_text()), success))
    if not rows:
        return
    with open(target / "results.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    plot_runs(by_algo, target / "curves.png")
    print(task + "\n" + (target / "results.csv").read_text())


def _read(file: Path) -> List[Dict[str, str]]:
    with open(file, newline="") as f:
        return list(csv.DictReader(f))


def _write_thin(metrics: List[Dict[str, str]], file: Path, success: str) -> None:
    step = max(1, len(metrics) // KEPT_ROWS)
    extra = ["episode/%s/%s" % (success, policy) for policy in ("pi", "pi_h")]
    columns = [c for c in (*COLUMNS, *extra) if c in metrics[0]]
    with open(file, "w", newline="") as f:
        writer = csv.writer(f, lineterminator="\n")
        writer.writerow(columns)
        for row in metrics[step - 1 :: step]:
            writer.writerow(["%.6g" % float(row[c]) if row[c] else "" for c in columns])


def _row(job: Job, metrics: List[Dict[str, str]], metadata: Dict[str, Any], success: str) -> Dict[str, Any]:
    """J over the first and the last 5 % of the run, and more of its end; means weighted by episodes."""
    part = max(1, len(metrics) // 20)

    def mean(column: str, policy: str, rows: List[Dict[str, str]]) -> str:
        pairs = [(float(r[column]), float(r["episodes/%s" % policy])) for r in rows if r.get(column)]
        weight = sum(n for _, n in pairs)
        return "%.4g" % (sum(v * n for v, n in pairs if n) / weight) if weight else ""

    def policy(name: str) -> Dict[str, str]:
        first, last = metrics[:part], metrics[-part:]
        return {
            "J(%s) at first" % name: mean("return_task/%s" % name, name, first),
            "J(%s)" % name: mean("return_task/%s" % name, name, last),
            "H(%s) at first" % name: mean("return_heuristic/%s" % name, name, first),
            "H(%s)" % name: mean("return_heuristic/%s" % name, name, last),
            "%s(%s)" % (success, name): mean("episode/%s/%s" % (success, name), name, last),
            "length(%s)" % name: mean("episode_length/%s" % name, name, last),
        }

    git = metadata.get("git") or {}
    return {
        "algo": job[1],
        "seed": job[2],
        "env_steps": int(float(metrics[-1]["env_steps"])),
        **policy("pi"),
        **policy("pi_h"),
        "alpha": "%.3f" % float(metrics[-1]["alpha"]) if metrics[-1].get("alpha") else "",
        "bad_worlds": int(sum(float(r["bad_worlds"]) for r in metrics)),
        "commit": str(git.get("commit"))[:12],
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side, one thread each")
    parser.add_argument("--budget", default="cpu", help="demo, cpu or paper (the published length, for a GPU)")
    parser.add_argument("--collect", action="store_true", help="do not train")
    parser.add_argument("--partial", action="store_true", help="collect runs that were stopped, too")
    parser.add_argument("--root", type=Path, default=CHECKOUT / "runs" / "reference")
    parser.add_argument("--tasks", nargs="+", default=list(ARMS), choices=[*ARMS, "dexterous"])
    parser.add_argument("--algos", nargs="+", help="of those a task has; all by default")
    parser.add_argument("--seeds", nargs="+", type=int)
    args = parser.parse_args()
    require_checkout()
    jobs = {
        task: [
            (task, algo, seed)
            for seed in args.seeds or SEEDS.get(task, DEFAULT_SEEDS)
            for algo in ARMS[task]
            if algo in (args.algos or ARMS[task])
        ]
        for name in args.tasks
        for task in (["ShadowHand" + one for one in DEXTEROUS] if name == "dexterous" else [name])
    }
    if not args.collect:
        train(args.root, args.budget, args.jobs, [job for some in jobs.values() for job in some])
    for task, some in jobs.items():
        collect(args.root, task, some, args.partial)


if __name__ == "__main__":
    main()

"""Re-make the reference runs of this folder: train what is missing, resume what was cut, collect everything.

    python docs/reference/reproduce.py --jobs 2            # train, then collect
    python docs/reference/reproduce.py --collect           # only gather CSVs, plot and table from finished runs

Runs go to runs/reference/; a run that is finished there is not trained again.
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
from typing import Any, Dict, List, Optional

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT))
TASK = "FrankaCabinet"
ALGOS = ("hepo", "ppo_h", "ppo_j")
SEEDS = (1, 2, 3)
KEPT_ROWS = 250  # per committed CSV
COLUMNS = (
    "iteration",
    "env_steps",
    "env_steps_per_second",
    "return_task/pi",
    "return_task/pi_h",
    "return_heuristic/pi",
    "return_heuristic/pi_h",
    "episode/drawer_open/pi",
    "episode/drawer_open/pi_h",
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


def find_run(root: Path, algo: str, seed: int) -> Optional[Path]:
    """The newest run folder of one algorithm and seed."""
    runs = sorted((root / TASK / algo).glob("*_seed%d" % seed))
    return runs[-1] if runs else None


def status(run: Path) -> str:
    """running, finished, interrupted or failed."""
    file = run / "status.json"
    return str(json.loads(file.read_text())["status"]) if file.exists() else "unknown"


def command(root: Path, budget: str, algo: str, seed: int) -> List[str]:
    """What to run for one reference run: a fresh start, or the continuation of a cut one."""
    run = find_run(root, algo, seed)
    if run is not None and (run / "checkpoints" / "last.pt").exists():
        return [sys.executable, "train.py", "resume=%s" % run]
    return [
        sys.executable,
        "train.py",
        "task=%s" % TASK,
        "algo=%s" % algo,
        "budget=%s" % budget,
        "seed=%d" % seed,
        "torch_threads=1",
        "sim=mujoco_batch",
        "sim.threads=1",
        "run_root=%s" % root,
    ]


def train(root: Path, budget: str, jobs: int, algos: List[str], seeds: List[int]) -> None:
    """Train every missing run, ``jobs`` at a time."""
    queue: Queue[Any] = Queue()
    for seed in seeds:
        for algo in algos:
            run = find_run(root, algo, seed)
            if run is None or status(run) != "finished":
                queue.put((algo, seed))
    root.mkdir(parents=True, exist_ok=True)

    def work() -> None:
        while True:
            try:
                algo, seed = queue.get_nowait()
            except Empty:
                return
            start = time.time()
            with open(root / ("%s_seed%d.log" % (algo, seed)), "a") as log:
                code = subprocess.call(
                    command(root, budget, algo, seed),
                    cwd=ROOT,
                    stdout=log,
                    stderr=log,
                    env={**os.environ, "OMP_NUM_THREADS": "1"},
                )
            print("%s seed %d: exit %d after %.0f s" % (algo, seed, code, time.time() - start), flush=True)

    workers = [threading.Thread(target=work) for _ in range(jobs)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


def collect(root: Path, target: Path, algos: List[str], seeds: List[int]) -> None:
    """Thin CSVs, curves and a table of the end of every finished run."""
    from hepo_isaac.runs.plots import plot_runs

    target.mkdir(parents=True, exist_ok=True)
    rows, by_algo = [], {}  # type: List[Dict[str, Any]], Dict[str, List[Any]]
    for algo in algos:
        for seed in seeds:
            run = find_run(root, algo, seed)
            if run is None or status(run) != "finished":
                print("missing: %s seed %d" % (algo, seed))
                continue
            by_algo.setdefault(algo, []).append(run)
            metrics = _read(run / "metrics.csv")
            _write_thin(metrics, target / ("%s_seed%d.csv" % (algo, seed)))
            rows.append(_row(algo, seed, metrics, json.loads((run / "metadata.json").read_text())))
    with open(target / "results.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    plot_runs(by_algo, target / "curves.png")
    print((target / "results.csv").read_text())


def _read(file: Path) -> List[Dict[str, str]]:
    with open(file, newline="") as f:
        return list(csv.DictReader(f))


def _write_thin(metrics: List[Dict[str, str]], file: Path) -> None:
    step = max(1, len(metrics) // KEPT_ROWS)
    columns = [c for c in COLUMNS if c in metrics[0]]
    with open(file, "w", newline="") as f:
        writer = csv.writer(f, lineterminator="\n")
        writer.writerow(columns)
        for row in metrics[step - 1 :: step]:
            writer.writerow(["%.6g" % float(row[c]) if row[c] else "" for c in columns])


def _row(algo: str, seed: int, metrics: List[Dict[str, str]], metadata: Dict[str, Any]) -> Dict[str, Any]:
    """Means over the last 5 % of the run, weighted by episodes."""
    last = metrics[-max(1, len(metrics) // 20) :]

    def mean(column: str, policy: str) -> str:
        pairs = [(float(r[column]), float(r["episodes/%s" % policy])) for r in last if r.get(column)]
        weight = sum(n for _, n in pairs)
        return "%.3f" % (sum(v * n for v, n in pairs if n) / weight) if weight else ""

    def policy(name: str) -> Dict[str, str]:
        return {
            "J(%s)" % name: mean("return_task/%s" % name, name),
            "open(%s)" % name: mean("episode/drawer_open/%s" % name, name),
            "H(%s)" % name: mean("return_heuristic/%s" % name, name),
        }

    git = metadata.get("git") or {}
    return {
        "algo": algo,
        "seed": seed,
        "env_steps": int(float(metrics[-1]["env_steps"])),
        **policy("pi"),
        **policy("pi_h"),
        "alpha": "%.3f" % float(last[-1]["alpha"]) if last[-1].get("alpha") else "",
        "bad_worlds": int(sum(float(r["bad_worlds"]) for r in metrics)),
        "commit": str(git.get("commit"))[:12],
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side, one thread each")
    parser.add_argument("--budget", default="cpu", help="cpu (8.2 M steps) or paper (98 M, for a GPU)")
    parser.add_argument("--collect", action="store_true", help="do not train")
    parser.add_argument("--root", type=Path, default=ROOT / "runs" / "reference")
    parser.add_argument("--algos", nargs="+", default=list(ALGOS))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    args = parser.parse_args()
    if not args.collect:
        train(args.root, args.budget, args.jobs, args.algos, args.seeds)
    collect(args.root, HERE / TASK, args.algos, args.seeds)


if __name__ == "__main__":
    main()

"""Which runs are there, which are missing, and training those: one process per (arm, problem, chunk of seeds)."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterable, List, Mapping, Optional, Sequence, Set, Tuple

from docs.claims.experiments import ARMS, EXPERIMENTS, PROBLEMS, SETTINGS, Arm, Experiment, Problem
from docs.claims.taskcode import unchanged
from hepo_isaac.agents.config import train_config
from hepo_isaac.config import plain, resolve
from hepo_isaac.methods.method import method_from_config
from hepo_isaac.overrides import compose

ROOT = Path(__file__).resolve().parents[2]
# Of a task: what describes or judges it, and changes nothing that is learned.
DESCRIPTION = ("scores", "group", "camera", "success", "engines", "budgets", "heuristic")
Keys = Dict[Tuple[str, str], str]
Index = Dict[Tuple[str, int], Path]


@dataclass(frozen=True)
class Job:
    """One process."""

    arm: Arm
    problem: Problem
    seeds: Tuple[int, ...]

    def __str__(self) -> str:
        return "%s on %s, seeds %s" % (self.arm.name, self.problem.name, ", ".join(map(str, self.seeds)))


# ---- what a run is ------------------------------------------------------------------------------------------------


def overrides(arm: Arm, problem: Problem) -> List[str]:
    """The command line of a run but for its seeds and its folder."""
    given = ["task=%s" % problem.task, "heuristic=%s" % problem.heuristic, "algo=%s" % arm.algo]
    given += ["algo.name=%s" % arm.name, *arm.overrides, *problem.overrides]
    return [*given, *SETTINGS]


def key(config: Mapping[str, Any]) -> str:
    """The same for all configurations that learn the same, whatever their arm is called and however they are kept.

    Settings that a configuration does not have count as their defaults, so that a new setting makes no run stale.

    Raises:
        KeyError, TypeError, ValueError: not a configuration of this version.
    """
    algo = method_from_config(_renamed({**config["algo"], "name": ""}))
    train = train_config(config["train"])
    task = {k: v for k, v in config["task"].items() if k not in DESCRIPTION}
    parts = (repr(algo), repr(train), json.dumps(task, sort_keys=True), config["heuristic"], config.get("potential"))
    text = "\n".join(map(str, (*parts, config["num_envs"], config["sim"]["name"])))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _renamed(algo: Dict[str, Any]) -> Dict[str, Any]:
    """Settings of earlier versions under their names of today."""
    if algo.pop("sum_reward", False):
        algo["shaping"] = {"kind": "sum"}
    return algo


def settled(arm: Arm, problem: Problem) -> Dict[str, Any]:
    """The resolved configuration that ``arm`` has on ``problem`` now."""
    given = overrides(arm, problem)
    return plain(resolve(compose(given), given, cuda=False))


def keys(experiments: Iterable[Experiment]) -> Keys:
    """(arm, problem) -> key, for everything in ``experiments``."""
    pairs = {(a, p) for e in experiments for a in e.arms for p in e.problems}
    return {(a, p): key(settled(ARMS[a], PROBLEMS[p])) for a, p in sorted(pairs)}


def index(roots: Sequence[Path], trusted: Sequence[Path] = ()) -> Index:
    """(key, seed) -> newest finished run in ``roots`` of a task that has not changed since, or in ``trusted``."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    found: Index = {}
    for file in sorted(
        (f for root in [*roots, *trusted] for f in root.rglob("config.yaml")), key=lambda f: f.parent.name
    ):
        try:
            if json.loads((file.parent / "status.json").read_text())["status"] != "finished":
                continue
            config = yaml.load(file.read_text(encoding="utf-8"), Loader=loader)
            git = json.loads((file.parent / "metadata.json").read_text(encoding="utf-8")).get("git") or {}
            judged = not any(root in file.parents for root in trusted)
            if judged and not unchanged(config["task"]["name"], git.get("commit")):
                continue
            found[key(config), int(config["seed"])] = file.parent
        except (OSError, KeyError, TypeError, ValueError, yaml.YAMLError):
            continue  # whatever is damaged or of another version is not a run that is looked for
    return found


# ---- what is missing ----------------------------------------------------------------------------------------------


def selected(only: Optional[Sequence[str]] = None) -> List[Experiment]:
    """Experiments by claim or by their own name, in order; without ``only`` all but FrankaCabinet, which takes hours.

    Raises:
        ValueError: a name that neither a claim nor an experiment has.
    """
    if not only:
        return [e for e in EXPERIMENTS if e.name != "franka"]
    valid = sorted({c for e in EXPERIMENTS for c in (*e.claims, e.name)})
    for name in only:
        if name not in valid:
            raise ValueError("unknown claim or experiment %r; valid: %s" % (name, ", ".join(valid)))
    return [e for e in EXPERIMENTS if set(only) & {*e.claims, e.name}]


def missing(experiments: Sequence[Experiment], names: Keys, there: Index) -> List[Job]:
    """What is left to train, in the order of the experiments; arms of the same configuration share their runs."""
    planned: Set[Tuple[str, int]] = set(there)
    jobs: List[Job] = []
    for experiment in experiments:
        for problem in experiment.problems:
            for arm in experiment.arms:
                name = names[arm, problem]
                seeds = [s for s in range(1, experiment.seeds + 1) if (name, s) not in planned]
                planned |= {(name, s) for s in seeds}
                chunk = experiment.side_by_side
                parts = [tuple(seeds[k : k + chunk]) for k in range(0, len(seeds), chunk)]
                jobs += [Job(ARMS[arm], PROBLEMS[problem], part) for part in parts]
    return jobs


# ---- training -----------------------------------------------------------------------------------------------------


def command(job: Job, root: Path) -> List[str]:
    """The process of a job."""
    seeds = "seeds=[%s]" % ",".join(map(str, job.seeds))
    return [sys.executable, "train.py", *overrides(job.arm, job.problem), seeds, "run_root=%s" % root]


def cost(job: Job) -> float:
    """Relative time a job takes: two policies cost half as much again, and a process its start."""
    config = settled(job.arm, job.problem)
    policies = len(config["algo"]["objectives"])
    steps = config["num_envs"] * config["train"]["horizon_length"] * config["train"]["max_iterations"]
    heavy = 5.0 if job.problem.task == "FrankaCabinet" else 1.0
    return 6.0 + 6e-6 * heavy * steps * (len(job.seeds) + 2) * (1.0 if policies == 1 else 1.4)


class Trainer:
    """Trains jobs, ``parallel`` processes at a time; says what is done and when the rest will be."""

    def __init__(self, jobs: Sequence[Job], root: Path, parallel: int, limit_minutes: Optional[float]) -> None:
        self._left, self._root, self._parallel = list(jobs), root, parallel
        self._weights = {str(j): cost(j) for j in jobs}
        self._total, self._done = sum(self._weights.values()), 0.0
        self._count, self._finished, self.failed = len(jobs), 0, []  # type: int, int, List[str]
        self._lock, self._start = threading.Lock(), time.time()
        self._end = None if limit_minutes is None else self._start + 60.0 * limit_minutes

    def run(self) -> None:
        """Until nothing is left or the time is up; a job that has begun is let finish."""
        self._root.mkdir(parents=True, exist_ok=True)
        workers = [threading.Thread(target=self._work) for _ in range(self._parallel)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._left or (self._end is not None and time.time() > self._end):
                    return
                job = self._left.pop(0)
            start = time.time()
            code = self._train(job)
            with self._lock:
                self._report(job, code, time.time() - start)

    def _train(self, job: Job) -> int:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        with open(self._root / "train.log", "a") as log:
            log.write("\n$ %s\n" % " ".join(command(job, self._root)))
            log.flush()
            return subprocess.call(command(job, self._root), cwd=ROOT, stdout=log, stderr=log, env=environment)

    def _report(self, job: Job, code: int, seconds: float) -> None:
        self._finished += 1
        self._done += self._weights[str(job)]
        if code:
            self.failed.append("%s: exit %d, see %s" % (job, code, self._root / "train.log"))
        spent = time.time() - self._start
        rest = spent * (self._total - self._done) / self._done
        words = "failed (exit %d) after" % code if code else "in"
        print(
            "%d of %d: %s %s %.0f s; %.0f min spent, about %.0f to go"
            % (self._finished, self._count, job, words, seconds, spent / 60.0, rest / 60.0),
            flush=True,
        )

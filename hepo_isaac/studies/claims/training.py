"""Which runs are there, which are missing, and training those: one process per (arm, problem, chunk of seeds)."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import re
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Container, Dict, Iterable, List, Mapping, Optional, Sequence, Set, Tuple

from hepo_isaac.agents.config import train_config
from hepo_isaac.config import plain, resolve
from hepo_isaac.errors import UserError
from hepo_isaac.methods.method import method_from_config
from hepo_isaac.older import BEFORE, GIVEN, completed
from hepo_isaac.overrides import compose
from hepo_isaac.settings import role
from hepo_isaac.studies.claims.experiments import (
    ARMS,
    ENDS_EARLY,
    EXPERIMENTS,
    HOURS,
    LEARNER_VERSION,
    PROBLEMS,
    SETTINGS,
    Arm,
    Experiment,
    Problem,
)
from hepo_isaac.studies.claims.taskcode import code
from hepo_isaac.studies.places import CHECKOUT

# Of a task: what describes or judges it, and changes nothing that is learned.
DESCRIPTION = ("scores", "group", "camera", "success", "engines", "budgets", "heuristic")
KEPT = "kept-"  # begins the key of a run that was given by --franka-runs
Keys = Dict[Tuple[str, str], Tuple[str, str]]
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


def key(config: Mapping[str, Any], commit: Optional[str] = None, version: int = LEARNER_VERSION) -> str:
    """What a run is: its settings, its task's code at ``commit`` (None: now) and the version of the learner."""
    parts = (settings(config), code(config["task"]["name"], commit), str(_bearing(config, version)))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _bearing(config: Mapping[str, Any], version: int) -> int:
    """The first version of the learner that did with ``config`` what ``version`` does."""
    algo = config["algo"]
    compares = algo.get("constraint") in ("reference", "threshold") and algo.get("contrast") in (None, "episode_return")
    return 2 if version == 3 and not (compares and config["task"]["name"] in ENDS_EARLY) else version


def kept(config: Mapping[str, Any]) -> str:
    """Key of a run that counts whatever has changed since but its settings."""
    return KEPT + settings(config)


def settings(config: Mapping[str, Any]) -> str:
    """The same for all configurations that say the same, whatever their arm is called and however they are kept.

    Settings that are absent or at their defaults are left out, so that a new setting makes no run stale.

    Raises:
        KeyError, TypeError, ValueError, UserError: not a configuration of this version.
    """
    config = completed(config)
    algo = method_from_config(_renamed({**config["algo"], "name": ""}))
    train = train_config(config["train"])
    if algo.timeout_bootstrap != "rl_games":  # nobody reads it
        train = dataclasses.replace(train, value_bootstrap=True)
    task = {k: v for k, v in config["task"].items() if k not in DESCRIPTION}
    task = _without_other_engines(task, config["sim"]["name"])
    parts = (
        _told(algo, "algo"),
        _told(train, "train"),
        json.dumps(task, sort_keys=True),
        _former(config["heuristic"]),
        _former(config.get("potential")),
    )
    text = "\n".join(map(str, (*parts, config["num_envs"], config["sim"]["name"])))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _without_other_engines(task: Dict[str, Any], engine: str) -> Dict[str, Any]:
    """Without the physics options that ``engine`` does not read: to be ready for one more engine is no other task."""
    physics = task.get("physics")
    if not physics or "options" not in physics:
        return task
    options = {name: value for name, value in physics["options"].items() if engine.startswith(name)}
    return {**task, "physics": {**physics, "options": options}}


def _former(heuristic: Optional[str]) -> Optional[str]:
    """The name that runs were recorded with: scaled.py was docs/claims/scaled.py."""
    return heuristic and heuristic.replace("hepo_isaac.studies.claims.", "docs.claims.")


def _told(config: Any, group: str) -> str:
    """The fields of a dataclass that are not at the defaults they first had, in order of their names."""
    told = {}
    for field in dataclasses.fields(config):
        if not role("%s.%s" % (group, field.name)).identity:
            continue
        value = getattr(config, field.name)
        usual = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        usual = BEFORE.get("%s.%s" % (group, field.name), usual)
        if value != usual or (group == "train" and field.name in GIVEN):
            told[field.name] = _told(value, field.name) if dataclasses.is_dataclass(value) else repr(value)
    return json.dumps(told, sort_keys=True)


def _renamed(algo: Dict[str, Any]) -> Dict[str, Any]:
    """Settings of earlier versions under their names of today."""
    if algo.pop("sum_reward", False):
        algo["shaping"] = {"kind": "sum"}
    return algo


@functools.lru_cache(maxsize=None)
def settled(arm: Arm, problem: Problem) -> Dict[str, Any]:
    """The resolved configuration that ``arm`` has on ``problem`` now."""
    given = overrides(arm, problem)
    return plain(resolve(compose(given), given, cuda=False))


def keys(experiments: Iterable[Experiment]) -> Keys:
    """(arm, problem) -> the keys its runs may have: that of a run trained now first, then ``kept``."""
    pairs = {(a, p) for e in experiments for a in e.arms for p in e.problems}
    configs = {(a, p): settled(ARMS[a], PROBLEMS[p]) for a, p in sorted(pairs)}
    return {pair: (key(config), kept(config)) for pair, config in configs.items()}


def index(roots: Sequence[Path], trusted: Sequence[Path] = ()) -> Index:
    """(key, seed) -> newest finished run in ``roots``, and in ``trusted``, whose runs have the key ``kept``."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    found: Index = {}
    files = [(f, root) for root in [*roots, *trusted] for f in root.rglob("config.yaml")]
    for file, root in sorted(files, key=lambda f: f[0].parent.name):
        try:
            if json.loads((file.parent / "status.json").read_text())["status"] != "finished":
                continue
            config = yaml.load(file.read_text(encoding="utf-8"), Loader=loader)
            git = json.loads((file.parent / "metadata.json").read_text(encoding="utf-8")).get("git") or {}
            version = _version(file.relative_to(root))
            name = kept(config) if root in trusted else key(config, git.get("commit"), version)
            found[name, int(config["seed"])] = file.parent
        except (OSError, KeyError, TypeError, ValueError, UserError, yaml.YAMLError):
            continue  # whatever is damaged or of another version is not a run that is looked for
    return found


def folder(root: Path) -> Path:
    """Where runs of this version of the learner are, so that they can be told from others."""
    return root / ("v%d" % LEARNER_VERSION)


def _version(file: Path) -> int:
    """Version of the learner by the first folder of a path; 1 for runs from before there were such folders."""
    found = re.fullmatch(r"v(\d+)", file.parts[0])
    return int(found[1]) if found else 1


# ---- what is missing ----------------------------------------------------------------------------------------------


def selected(only: Optional[Sequence[str]] = None) -> List[Experiment]:
    """Experiments by claim or by their own name, in order; without ``only`` all but those that take HOURS.

    Raises:
        ValueError: a name that neither a claim nor an experiment has.
    """
    if not only:
        return [e for e in EXPERIMENTS if e.name not in HOURS]
    valid = sorted({c for e in EXPERIMENTS for c in (*e.claims, e.name)})
    for name in only:
        if name not in valid:
            raise ValueError("unknown claim or experiment %r; valid: %s" % (name, ", ".join(valid)))
    return [e for e in EXPERIMENTS if set(only) & {*e.claims, e.name}]


def missing(experiments: Sequence[Experiment], names: Keys, there: Container[Tuple[str, int]]) -> List[Job]:
    """What is left to train, in the order of the experiments; arms of the same configuration share their runs.

    there: (key, seed) of the runs there are, in folders (``index``) or in the committed table (collecting.committed).
    """
    planned: Set[Tuple[str, int]] = set()
    jobs: List[Job] = []
    for experiment in experiments:
        for problem in experiment.problems:
            for arm in experiment.arms:
                own = names[arm, problem]
                every = range(1, experiment.seeds + 1)
                seeds = [s for s in every if not any((k, s) in planned or (k, s) in there for k in own)]
                planned |= {(own[0], s) for s in seeds}
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
    """About how many seconds of a quiet core a job takes: two policies cost more, and a process its start."""
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
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(CHECKOUT)}
        with open(self._root / "train.log", "a") as log:
            log.write("\n$ %s\n" % " ".join(command(job, self._root)))
            log.flush()
            return subprocess.call(command(job, self._root), cwd=CHECKOUT, stdout=log, stderr=log, env=environment)

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

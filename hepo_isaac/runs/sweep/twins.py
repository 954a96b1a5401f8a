"""Runs of the same configuration: find them, leave finished ones alone, go on with interrupted ones, claim new ones.

Two configurations are the same if everything that a result depends on is equal: task, method, heuristic, seed, number
of environments, training, engine, budget. Where a run is written and how it is recorded does not count
(hepo_isaac/settings.py). The code is not part of it: after a change of the code, skip_finished=false trains anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

from hepo_isaac.errors import CheckpointError
from hepo_isaac.older import completed
from hepo_isaac.runs.record.checkpoint import load_checkpoint
from hepo_isaac.runs.record.folder import FINISHED, INTERRUPTED, RUNNING, RunFolder
from hepo_isaac.runs.record.lock import FileLock, HeldError
from hepo_isaac.runs.record.stored import read_plain
from hepo_isaac.runs.train.seeds import seed_list
from hepo_isaac.settings import identifying

Note = Callable[[str, Sequence[Path]], None]


def identity(cfg: Mapping[str, Any]) -> str:
    """The same string for every resolved configuration of one seed that leads to the same result."""
    text = json.dumps(identifying(cfg), sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]


def one_per_seed(cfg: Mapping[str, Any]) -> List[Dict[str, Any]]:
    """The configurations of the runs that one job trains side by side."""
    return [{**cfg, "seed": seed, "seeds": 1} for seed in seed_list(int(cfg["seed"]), cfg.get("seeds", 1))]


def twins(cfg: Mapping[str, Any]) -> List[RunFolder]:
    """Run folders under run_root with the configuration ``cfg`` (of one seed), oldest first."""
    parent = Path(str(cfg["run_root"])) / str(cfg["task"]["name"]) / str(cfg["algo"]["name"])
    wanted, found = identity(cfg), []
    for path in sorted(parent.glob("*/config.yaml"), key=lambda p: p.parent.name):
        try:
            text = path.read_text(encoding="utf-8")
            # parsing a file takes milliseconds, and a folder may hold hundreds of other seeds
            if "\nseed: %d\n" % cfg["seed"] not in "\n" + text:
                continue
            loaded = completed(read_plain(path))
        except Exception:  # whatever is damaged is not the run that is looked for
            continue
        if identity(loaded) == wanted:
            found.append(RunFolder(path.parent))
    return found


def train_once(
    cfg: Dict[str, Any],
    skip: bool,
    train: Callable[[Dict[str, Any]], int],
    resume: Callable[[str], int],
    note: Note,
) -> int:
    """Train ``cfg`` unless that has been done; returns the exit code.

    Args:
        cfg: a resolved configuration, of one or several seeds.
        skip: leave finished runs alone and go on with interrupted ones; else train a new run whatever there is.
        train: trains a configuration anew.  resume: goes on with run folders, several with commas between them.
        note: told what becomes of the job, "trained", "resumed", "skipped" or "elsewhere", and its run folders.
    """
    configs = one_per_seed(cfg)
    if not skip:
        return _noting("trained", configs, note, lambda: train(cfg))
    with claims(Path(str(cfg["run_root"])) / ".multirun" / "claims", [identity(c) for c in configs]) as holder:
        if holder is not None:
            print("skipped: %s trains this configuration" % holder)
            note("elsewhere", [])
            return 0
        return _settle(cfg, configs, train, resume, note)


def _settle(
    cfg: Dict[str, Any],
    configs: Sequence[Dict[str, Any]],
    train: Callable[[Dict[str, Any]], int],
    resume: Callable[[str], int],
    note: Note,
) -> int:
    """Do what is left to do of the runs ``configs``."""
    done, alive, missing = [], [], []
    halted: Dict[Tuple[int, str], List[RunFolder]] = {}
    for config in configs:
        state, run, iteration = _state(config)
        if run is None:
            missing.append(int(config["seed"]))
        elif state == FINISHED:
            done.append(run)
        elif state == RUNNING:
            alive.append(run)
        else:
            # side by side go runs that differ in nothing but the seed, how they are recorded included
            text = "\n" + run.config_file.read_text(encoding="utf-8")
            text = text.replace("\nseed: %d\n" % config["seed"], "\n")
            halted.setdefault((iteration, text), []).append(run)
    if alive:
        print("skipped: another process trains this configuration in %s" % _names(alive))
        note("elsewhere", [run.path for run in alive])
        return 0
    if done:
        print("skipped: this configuration has been trained in %s" % _names(done))
    if not halted and not missing:
        note("skipped", [run.path for run in done])
        return 0

    def work() -> int:
        for (iteration, _), runs in sorted(halted.items(), key=lambda item: -item[0][0]):
            print("resuming %s from iteration %d" % (_names(runs), iteration))
            code = resume(",".join(str(run.path) for run in runs))
            if code:
                return code
        if not missing:
            return 0
        return train(cfg if len(missing) == len(configs) else {**cfg, "seed": missing[0], "seeds": missing})

    return _noting("resumed" if halted else "trained", configs, note, work)


def _noting(what: str, configs: Sequence[Mapping[str, Any]], note: Note, work: Callable[[], int]) -> int:
    """Do ``work`` and say in which folders, whether it succeeds or not."""
    try:
        return work()
    finally:
        found = [twins(config)[-1:] for config in configs]
        note(what, [run.path for runs in found for run in runs])


def _state(cfg: Mapping[str, Any]) -> Tuple[str, Optional[RunFolder], int]:
    """What there is of a run: its state, its folder, and the iteration from which it can go on."""
    best: Tuple[str, Optional[RunFolder], int] = (INTERRUPTED, None, 0)
    for run in twins(cfg):
        state = run.status()
        if state == FINISHED:
            return state, run, 0
        if state == RUNNING:
            best = (RUNNING, run, 0)
        elif best[0] != RUNNING:
            iteration = _saved_iteration(run)
            # at max_iterations only the closing phase is left to do
            if iteration is not None and best[2] < iteration:
                best = (INTERRUPTED, run, iteration)
    return best


def _saved_iteration(run: RunFolder) -> Optional[int]:
    """The iteration in last.pt; None where there is nothing to go on from."""
    try:
        return int(load_checkpoint(run.checkpoints / "last.pt")["iteration"])
    except CheckpointError:
        return None


def _names(runs: Sequence[RunFolder]) -> str:
    return ", ".join(str(run.path) for run in runs)


@contextlib.contextmanager
def claims(folder: Path, names: Sequence[str]) -> Iterator[Optional[str]]:
    """Hold the claims ``names`` for the time of the block; yields None, or who holds one of them already."""
    held: List[FileLock] = []
    try:
        holder = None
        for name in sorted(names):
            lock = FileLock(folder / name)
            try:
                folder.mkdir(parents=True, exist_ok=True)
                lock.acquire()
                held.append(lock)
            except HeldError as who:
                holder = str(who)
                break
            except OSError:
                pass  # a run_root that cannot be written to is reported by the run itself
        yield holder
    finally:
        for lock in held:
            lock.release()

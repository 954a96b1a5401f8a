"""From run folders to the table of a comparison: finds runs, reads them, and says of each unusable one why."""

from __future__ import annotations

import datetime
import functools
import glob
import os
from collections import Counter
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple, Union

import numpy as np

from hepo_isaac.errors import UserError
from hepo_isaac.older import completed
from hepo_isaac.runs.compare.table import DUPLICATE, NO_SUMMARY, UNREADABLE, Excluded, Run, RunTable, exclude
from hepo_isaac.runs.record.files import number, read_json
from hepo_isaac.runs.record.folder import FAILED, FINISHED, INTERRUPTED, RUNNING, RunFolder
from hepo_isaac.runs.record.metrics_csv import read_metrics
from hepo_isaac.runs.record.plots import smooth
from hepo_isaac.runs.record.stored import read_plain
from hepo_isaac.settings import identifying

KEY, HEURISTIC_KEY = "return_task/pi", "return_heuristic/pi"


# ---- finding ------------------------------------------------------------------------------------------------------


def collect(paths: Sequence[Union[str, Path]]) -> RunTable:
    """Read every run in ``paths``: run folders, folders above them, or globs of either.

    Raises:
        UserError: a path does not exist or holds no run, or none of the runs is usable.
    """
    found: Dict[Path, Path] = {}
    for given in paths:
        here = [folder for root in _expand(str(given)) for folder in _run_folders(root)]
        if not here:
            raise UserError("no runs in %s; expected run folders, which hold config.yaml and status.json" % given)
        for folder in here:
            found.setdefault(folder.resolve(), folder)  # the same run may come through two of the paths
    read = [_read(RunFolder(folder)) for folder in found.values()]
    excluded = [r for r in read if isinstance(r, Excluded)]
    runs, older = _newest([r for r in read if isinstance(r, Run)])
    if not runs:
        kinds = ", ".join("%d %s" % (n, kind) for kind, n in Counter(e.kind for e in excluded).items())
        first = " the first: %s: %s" % (excluded[0].folder, excluded[0].reason)
        raise UserError("none of the %d runs found is finished and readable (%s);%s" % (len(read), kinds, first))
    return RunTable(tuple(runs), tuple(excluded + older))


def _expand(given: str) -> List[Path]:
    """The folder itself, or what the glob matches (shells without globbing, and quoted ones, leave that to us)."""
    if Path(given).is_dir():
        return [Path(given)]
    matches = sorted(p for p in (Path(m) for m in glob.glob(given, recursive=True)) if p.is_dir())
    if not matches:
        raise UserError("no folder at %s; give run folders or folders that hold runs, e.g. runs/" % given)
    return matches


def _run_folders(root: Path) -> List[Path]:
    """Folders with a config.yaml and a file only a run writes (cfg/ of a checkout has the first alone), sorted."""
    out = []
    for parent, folders, files in os.walk(str(root)):
        if "config.yaml" in files and {"status.json", "metadata.json", "summary.json"} & set(files):
            out.append(Path(parent))
            folders.clear()
    return sorted(out)


def moment(text: str) -> float:
    """Seconds since 1970 of an ISO 8601 time, whatever its offset; one without an offset is taken for UTC."""
    try:
        found = datetime.datetime.fromisoformat(text)
    except ValueError:
        return 0.0
    return (found if found.tzinfo else found.replace(tzinfo=datetime.timezone.utc)).timestamp()


def _newest(runs: Sequence[Run]) -> Tuple[List[Run], List[Excluded]]:
    """One run for each (arm, problem, seed), the one started last; and the others."""
    kept: Dict[Tuple[str, str, int], Run] = {}
    older = []
    for run in sorted(runs, key=lambda r: (moment(r.started), str(r.folder)), reverse=True):
        newest = kept.setdefault((run.arm, run.problem, run.seed), run)
        if newest is not run:
            older.append(exclude(run, DUPLICATE, "same arm, problem and seed as the newer %s" % newest.folder))
    return sorted(kept.values(), key=lambda r: (r.problem, r.arm, r.seed)), older


# ---- reading one ---------------------------------------------------------------------------------------------------


def _read(folder: RunFolder) -> Union[Run, Excluded]:
    """The run in ``folder``, or why there is none."""
    config = _config(folder.config_file)
    try:
        arm, problem, seed = str(config["algo"]["name"]), _problem(config), int(config["seed"])
    except (KeyError, TypeError, ValueError):
        return Excluded(folder.path, "?", "?", None, UNREADABLE, "config.yaml lacks algo.name, task.name or seed")

    def excluded(kind: str, reason: str) -> Excluded:
        return Excluded(folder.path, arm, problem, seed, kind, reason)

    status = folder.status()
    if status != FINISHED:
        return excluded(status, _why(status, read_json(folder.status_file)))
    summary = folder.summary
    if not summary:
        return excluded(NO_SUMMARY, "it finished, but summary.json is missing or damaged")
    try:
        columns = read_metrics(folder.metrics_file)
    except UserError as error:
        return excluded(UNREADABLE, str(error))
    final, evaluation = _part(summary, "final"), _part(_part(summary, "evaluation"), "pi")
    scores = {"final": _number(final.get(KEY)), "auc": auc(columns)}
    heuristic = dict.fromkeys(scores, _number(final.get(HEURISTIC_KEY)))
    if evaluation:
        scores["evaluation"] = _number(evaluation.get("return_task"))
        heuristic["evaluation"] = _number(evaluation.get("return_heuristic"))
    steps, curve = _curve(columns)
    about = folder.metadata
    return Run(
        folder.path,
        arm,
        problem,
        seed,
        scores,
        heuristic,
        steps,
        curve,
        int(_number(summary.get("env_steps"), 0.0)),
        flatten(identifying(config)),
        _task_scores(config),
        tuple(_commit(part) for part in [about] + list(about.get("resumes", []))),
        str(about.get("started", "")),
    )


def auc(columns: Mapping[str, np.ndarray]) -> float:
    """Mean of J over env steps: trapezoids under its curve over the steps covered, rows with NaN skipped."""
    if KEY not in columns or "env_steps" not in columns:
        return float("nan")
    steps, values = columns["env_steps"], columns[KEY]
    known = np.isfinite(steps) & np.isfinite(values)
    steps, values = steps[known], values[known]
    if steps.size == 0 or steps[-1] <= steps[0]:
        return float(values.mean()) if values.size else float("nan")
    return float((0.5 * (values[1:] + values[:-1]) * np.diff(steps)).sum() / (steps[-1] - steps[0]))


def flatten(config: Any, prefix: str = "") -> Dict[str, Any]:
    """Nested mappings as dotted keys."""
    if not isinstance(config, Mapping):
        return {prefix: config}
    out: Dict[str, Any] = {}
    for key, value in config.items():
        out.update(flatten(value, "%s.%s" % (prefix, key) if prefix else str(key)))
    return out


def _config(path: Path) -> Any:
    try:
        return completed(read_plain(path))
    except (UserError, TypeError, ValueError, AttributeError):  # whatever it is, it is no run's
        return None


def _problem(config: Mapping[str, Any]) -> str:
    """Task, with the heuristic behind a slash unless it is the task's default."""
    task, heuristic = str(config["task"]["name"]), str(config.get("heuristic") or "default")
    return task if heuristic == "default" or heuristic == _default(task) else "%s/%s" % (task, heuristic)


@functools.lru_cache(maxsize=None)
def _default(task: str) -> str:
    """First heuristic of a task; "default" where the task is not installed here."""
    from hepo_isaac.locate import task_class

    try:
        return str(next(iter(task_class(task).heuristics)))
    except (UserError, ImportError, AttributeError, IndexError):
        return "default"


def _why(status: str, record: Any) -> str:
    record = record if isinstance(record, dict) else {}
    words = {RUNNING: "it is still running", INTERRUPTED: "it was interrupted", FAILED: "it failed"}
    text = words.get(status, "its status is %r" % status)
    text += " at iteration %s" % record["iteration"] if "iteration" in record else ""
    return text + (" (%s)" % record["reason"] if record.get("reason") else "")


def _curve(columns: Mapping[str, np.ndarray]) -> Tuple[np.ndarray, np.ndarray]:
    """Env steps and smoothed J where it is known."""
    if KEY not in columns or "env_steps" not in columns:
        return np.empty(0), np.empty(0)
    values = smooth(dict(columns), KEY)
    known = np.isfinite(values) & np.isfinite(columns["env_steps"])
    return columns["env_steps"][known], values[known]


def _task_scores(config: Mapping[str, Any]) -> Optional[Tuple[float, float]]:
    found = config["task"].get("scores") or {}
    pair = _number(found.get("random")), _number(found.get("optimal"))
    return pair if np.isfinite(pair).all() else None


def _commit(part: Any) -> str:
    git = _part(part, "git")
    return "%s%s" % (str(git.get("commit") or "unknown")[:12], " + uncommitted changes" if git.get("dirty") else "")


def _part(value: Any, key: str) -> Mapping[str, Any]:
    found = value.get(key) if isinstance(value, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _number(value: Any, default: float = float("nan")) -> float:
    """A JSON number (null and anything else is ``default``); of {"mean": …}, the mean."""
    return number(value.get("mean") if isinstance(value, Mapping) else value, default)

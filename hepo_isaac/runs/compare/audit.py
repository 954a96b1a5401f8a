"""``hepo-isaac audit run=<folder>``: what the shaping did to a run, from its metrics.csv.

A run is cut into ten parts of as many iterations. Of each part and policy: mean J and H over its episodes, with a
standard error from the spread of the iterations' means (iterations are taken for independent, which makes it a little
too small). A difference counts where it is two standard errors wide.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np

from hepo_isaac.arguments import check_file, pairs
from hepo_isaac.errors import UserError
from hepo_isaac.runs.record.folder import RunFolder
from hepo_isaac.runs.record.metrics_csv import read_metrics
from hepo_isaac.runs.record.running import POLICY_LABELS

PARTS = 10
Z = 2.0
Z_OF_PEAK = 4.0  # the greatest of ten parts is above the last one by chance more often
HELPED, NEUTRAL, HACKED, UNKNOWN = "helped", "neutral", "hacked", "unknown"


@dataclass(frozen=True)
class Mean:
    """A mean over a part's episodes and its standard error; NaN where no episode ended."""

    value: float
    error: float

    def above(self, other: Mean, z: float = Z) -> bool:
        """Whether this is greater by more than chance would have it."""
        return self.value - other.value > z * math.hypot(self.error, other.error)


@dataclass(frozen=True)
class Audit:
    """What is known of a run.

    policies: their names.  task, heuristic: policy -> J and H of every part.  terms: term -> of pi, every part.
    violations: share of the windows (or parts) in which pi is behind a reference on J, or None without one.
    suspects: terms of h that rose while J fell, with by how much, the greatest first.
    verdict: helped, neutral, hacked or unknown.  sentence: the same in words.
    """

    policies: Sequence[str]
    task: Dict[str, List[Mean]]
    heuristic: Dict[str, List[Mean]]
    terms: Dict[str, List[Mean]]
    violations: Optional[float]
    suspects: List[Tuple[str, float]]
    verdict: str
    sentence: str


def audit(folder: Path) -> Audit:
    """Read a run's metrics.csv.

    Raises:
        UserError: there is none, or no episode has ended yet.
    """
    file = RunFolder(folder).metrics_file
    columns = read_metrics(file)
    policies = [k[len("return_task/") :] for k in columns or {} if k.startswith("return_task/")]
    if not policies or not np.isfinite(columns["return_task/pi"]).any():
        raise UserError(
            "run=%s: no finished episode is on record; expected a run folder with a metrics.csv of some iterations"
            % folder
        )
    missing = [k for p in policies for k in ("return_heuristic/" + p,) if k not in columns]
    if missing:
        raise UserError("%s lacks the column %s; expected the table that a run wrote" % (file, missing[0]))
    task = {p: _parts(columns, "return_task/" + p, p) for p in policies}
    heuristic = {p: _parts(columns, "return_heuristic/" + p, p) for p in policies}
    ends = "/pi"
    names = [k[len("terms/") : -len(ends)] for k in columns if k.startswith("terms/") and k.endswith(ends)]
    terms = {n: _parts(columns, "terms/%s/pi" % n, "pi") for n in names}
    verdict, sentence = _verdict(task, heuristic)
    return Audit(
        policies,
        task,
        heuristic,
        terms,
        _violations(columns, task),
        _suspects(task["pi"], heuristic["pi"], terms),
        verdict,
        sentence,
    )


def _parts(columns: Dict[str, np.ndarray], key: str, policy: str) -> List[Mean]:
    values = columns[key]
    counts = columns.get("episodes/" + policy, np.isfinite(values).astype(float))
    found = []
    for rows in np.array_split(np.arange(values.size), min(PARTS, values.size)):
        known = rows[np.isfinite(values[rows]) & (counts[rows] > 0)]
        if not known.size:
            found.append(Mean(math.nan, math.nan))
            continue
        weight = counts[known] / counts[known].sum()
        mean = float((weight * values[known]).sum())
        spread = float((weight**2 * (values[known] - mean) ** 2).sum())
        # unbiased for equal weights; one iteration alone says nothing of its error
        error = math.sqrt(spread * known.size / (known.size - 1)) if known.size > 1 else math.inf
        found.append(Mean(mean, error))
    return found


def _known(parts: Sequence[Mean]) -> List[Mean]:
    return [m for m in parts if math.isfinite(m.value)]


def _violations(columns: Dict[str, np.ndarray], task: Dict[str, List[Mean]]) -> Optional[float]:
    references = [p for p in task if p != "pi"]
    if not references:
        return None
    if "windows" in columns and columns["windows"][-1] > 0:
        return float(columns["violations"][-1] / columns["windows"][-1])
    pairs = [(m, [task[k][i] for k in references]) for i, m in enumerate(task["pi"]) if math.isfinite(m.value)]
    return sum(any(k.above(mine) for k in others) for mine, others in pairs) / max(1, len(pairs))


def _suspects(task: List[Mean], heuristic: List[Mean], terms: Dict[str, List[Mean]]) -> List[Tuple[str, float]]:
    """Terms that rose over the steps from part to part in which J fell and H rose."""
    rises = dict.fromkeys(terms, 0.0)
    for i in range(1, len(task)):
        if task[i - 1].above(task[i]) and heuristic[i].above(heuristic[i - 1]):
            for name, parts in terms.items():
                if parts[i].above(parts[i - 1]):
                    rises[name] += parts[i].value - parts[i - 1].value
    return sorted(((n, v) for n, v in rises.items() if v > 0), key=lambda pair: -pair[1])


def _verdict(task: Dict[str, List[Mean]], heuristic: Dict[str, List[Mean]]) -> Tuple[str, str]:
    last = {p: _known(parts)[-1] for p, parts in task.items() if _known(parts)}
    shaped = {p: _known(parts)[-1] for p, parts in heuristic.items() if _known(parts)}
    guide, alone, pi = last.get("pi_h"), last.get("pi_j"), last["pi"]
    if guide is not None:
        for name, other in last.items():
            if name != "pi_h" and other.above(guide) and not shaped[name].above(shaped["pi_h"]):
                words = (_text(guide), POLICY_LABELS.get(name, name), _text(other))
                return HACKED, "h alone was hacked: π_H ends with %s of J, %s with %s and no more of h." % words
    if alone is not None:
        best, name = max(((m, n) for n, m in last.items() if n != "pi_j"), key=lambda pair: pair[0].value)
        label = POLICY_LABELS.get(name, name)
        if best.above(alone):
            return HELPED, "h helped: %s ends with %s of J, π_J without h with %s." % (label, _text(best), _text(alone))
        return NEUTRAL, "h was neutral: π_J does as well without it (%s of J, %s has %s)." % (
            _text(alone),
            label,
            _text(best),
        )
    return _by_trend(_known(task["pi"]), _known(heuristic["pi"]), pi)


def _by_trend(task: List[Mean], heuristic: List[Mean], last: Mean) -> Tuple[str, str]:
    if len(task) < 3:
        return UNKNOWN, "Too little of the run has been recorded to tell."
    peak = max(range(len(task)), key=lambda i: task[i].value)
    if task[peak].above(last, Z_OF_PEAK) and heuristic[-1].above(heuristic[peak]):
        return HACKED, "h was hacked: J fell from %s to %s while H rose from %s to %s." % (
            _text(task[peak]),
            _text(last),
            _text(heuristic[peak]),
            _text(heuristic[-1]),
        )
    if last.above(task[0]) and heuristic[-1].above(heuristic[0]):
        return (
            HELPED,
            "J rose with h, from %s to %s; without a policy that learns from r alone nobody knows by how much."
            % (
                _text(task[0]),
                _text(last),
            ),
        )
    return NEUTRAL, "J did not follow h: it went from %s to %s while H went from %s to %s." % (
        _text(task[0]),
        _text(last),
        _text(heuristic[0]),
        _text(heuristic[-1]),
    )


def _text(mean: Mean) -> str:
    return "–" if math.isnan(mean.value) else "%.3g" % mean.value


# ---- the command --------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str]) -> int:
    """``run=<folder> [json=<file>]``."""
    settings = _settings(arguments)
    folder = Path(settings["run"])
    if not folder.is_dir():
        raise UserError("run=%s is no folder; expected a run folder, as training prints it" % folder)
    found = audit(folder)
    _print(found)
    if settings.get("json"):
        Path(settings["json"]).write_text(json.dumps(_plain(found), indent=2) + "\n", encoding="utf-8")
    return 0


def _settings(arguments: Sequence[str]) -> Dict[str, str]:
    settings = pairs("audit", arguments, ("run", "json"))
    if not settings.get("run"):
        raise UserError("hepo-isaac audit needs run=<run folder>")
    if settings.get("json"):
        check_file("json=", Path(settings["json"]))
    return settings


def _print(found: Audit) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    labels = [POLICY_LABELS.get(policy, policy) for policy in found.policies]
    table = Table("of the run", *("%s(%s)" % (name, label) for name in "JH" for label in labels))
    for i in range(len(found.task["pi"])):
        cells = [_text(rows[policy][i]) for rows in (found.task, found.heuristic) for policy in found.policies]
        table.add_row("%d %%" % (100 * (i + 1) // len(found.task["pi"])), *cells)
    console.print(table)
    if found.terms:
        table = Table("episode sum of a term, π", "first tenth", "middle", "last tenth")
        for term, parts in found.terms.items():
            known = _known(parts)
            table.add_row(term, *(_text(m) for m in (known[0], known[len(known) // 2], known[-1])))
        console.print(table)
    if found.violations is not None:
        console.print("π behind a reference on J: %.0f %% of the windows" % (100.0 * found.violations))
    if found.suspects:
        names = ", ".join("%s (+%.3g)" % pair for pair in found.suspects[:3])
        console.print("rose while J fell: %s" % names, markup=False)
    console.print(found.sentence, markup=False)


def _finite(x: float) -> Optional[float]:
    return x if math.isfinite(x) else None


def _plain(found: Audit) -> Dict[str, Any]:
    def of(rows: Dict[str, List[Mean]]) -> Dict[str, List[List[Optional[float]]]]:
        return {k: [[_finite(m.value), _finite(m.error)] for m in parts] for k, parts in rows.items()}

    return {
        "task": of(found.task),
        "heuristic": of(found.heuristic),
        "terms": of(found.terms),
        "violations": found.violations,
        "suspects": dict(found.suspects),
        "verdict": found.verdict,
        "sentence": found.sentence,
    }

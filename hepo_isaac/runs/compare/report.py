"""The report of a comparison: report.md with its figures, scores.csv (one row a run), summary.csv (one row an arm)."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path
from typing import Any, List, Sequence

from hepo_isaac.errors import UserError
from hepo_isaac.runs.compare.analysis import CURVE_REPS, Comparison, Improvement
from hepo_isaac.runs.compare.checks import numbers
from hepo_isaac.runs.compare.figures import SCALE_NAMES, SCORE_NAMES, draw
from hepo_isaac.runs.compare.stats import MIN_SEEDS, Interval
from hepo_isaac.runs.record.files import write_atomic

TITLES = {
    "iqm": "IQM",
    "median": "median",
    "mean": "mean",
    "optimality_gap": "optimality gap",
    "iqm_tasks": "IQM, other problems",
}


def write_report(comparison: Comparison, out: Path, command: str = "") -> Path:
    """Write report.md, scores.csv, summary.csv and the figures into ``out``; returns the path of report.md.

    Args:
        command: what re-makes the report, quoted in it.

    Raises:
        UserError: the folder cannot be written, or matplotlib is missing.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        _write_csv(out / "scores.csv", score_rows(comparison))
        _write_csv(out / "summary.csv", summary_rows(comparison))
        figures = draw(comparison, out)
        text = markdown(comparison, [f.name for f in figures], command)
        write_atomic(out / "report.md", text.encode("utf-8"))
    except OSError as error:
        raise UserError(
            "cannot write the report to %s: %s; choose another --out" % (out, error.strerror or error)
        ) from error
    return out / "report.md"


# ---- tables, shared by the report, the CSV files and the terminal -------------------------------------------------


def verdict_rows(comparison: Comparison) -> List[List[str]]:
    """Header, then: arm, runs, IQM, PI over the baseline, IQM minus the baseline's, verdict; the baseline first."""
    against = {i.arm: i for i in comparison.improvements}
    rows = [["arm", "runs", "IQM", "PI over %s" % comparison.baseline, "IQM − %s" % comparison.baseline, "verdict"]]
    for arm in comparison.arms:
        iqm = comparison.aggregates.get(arm, {}).get("iqm")
        one = against.get(arm)
        runs = sum(r.arm == arm for r in comparison.table.runs)
        tail = [_text(one.pi), _text(one.iqm_difference), one.verdict] if one else ["", "", "baseline"]
        rows.append([arm, str(runs), _text(iqm), *tail])
    return rows


def problem_rows(comparison: Comparison) -> List[List[str]]:
    """Header, then one row for each problem and arm."""
    against = {i.arm: i for i in comparison.improvements}
    rows = [["problem", "arm", "n", "J mean", "J IQM", "J min … max", "H mean", "PI"]]
    for row in comparison.rows:
        pi = against[row.arm].per_problem.get(row.problem) if row.arm in against else None
        rows.append(
            [row.problem, row.arm, str(row.n), _g(row.mean), _g(row.iqm), "%s … %s" % (_g(row.low), _g(row.high))]
            + [_g(row.heuristic), "" if pi is None else "%.2f" % pi]
        )
    return rows


def score_rows(comparison: Comparison) -> List[List[Any]]:
    """scores.csv: one row a run, those left out too, with the reason."""
    header = ["problem", "arm", "seed", "used", "score", "J", "J_normalised", "H", "J_final", "J_auc"]
    rows: List[List[Any]] = [header + ["env_steps", "num_envs", "commit", "folder", "left_out"]]
    for run in comparison.table.runs:
        scale = comparison.scales.of.get(run.problem)
        score = run.scores[comparison.score]
        rows.append(
            [run.problem, run.arm, run.seed, 1, comparison.score, score, float(scale(score)) if scale else ""]
            + [run.heuristic_returns[comparison.score], run.scores["final"], run.scores["auc"], run.env_steps]
            + [run.config.get("num_envs", ""), " ".join(run.commits), run.folder, ""]
        )
    for entry in comparison.table.excluded:
        seed = "" if entry.seed is None else entry.seed
        rows.append([entry.problem, entry.arm, seed, 0] + [""] * 9 + [entry.folder, entry.reason])
    return rows


def summary_rows(comparison: Comparison) -> List[List[Any]]:
    """summary.csv: one row an arm; every estimate with the ends of its 95 % interval."""
    estimates = list(TITLES) + ["pi", "iqm_difference"]
    header = ["arm", "baseline", "runs", "problems", "fewest_seeds", "score", "normalised_by"]
    rows: List[List[Any]] = [header + [n + end for n in estimates for end in ("", "_low", "_high")] + ["verdict"]]
    against = {i.arm: i for i in comparison.improvements}
    for arm in comparison.arms:
        seeds = comparison.table.seeds(arm)
        sizes = [len(s) for s in seeds.values()]
        one = against.get(arm)
        found = dict(comparison.aggregates.get(arm, {}))
        row: List[Any] = [arm, comparison.baseline, sum(sizes), len(sizes), min(sizes)]
        row += [comparison.score, comparison.scales.by]
        for name in estimates:
            estimate = found.get(name) or (getattr(one, name, None) if one else None)
            row += [estimate.value, estimate.low, estimate.high] if estimate else ["", "", ""]
        rows.append(row + [one.verdict if one else "baseline"])
    return rows


# ---- report.md ----------------------------------------------------------------------------------------------------


def markdown(comparison: Comparison, figures: Sequence[str], command: str = "") -> str:
    """The whole report. ``figures``: names of the images beside it."""
    c = comparison
    parts = ["# %s on %s" % (", ".join(c.arms), _problems(c)), _what(c), _markdown_table(verdict_rows(c))]
    parts += [_sentence(c, i) for i in c.improvements]
    parts += ["## What to know before believing it", notes_markdown(c)]
    if "intervals.png" in figures:
        parts.append("![IQM and probability of improvement](intervals.png)")
    parts += ["## Aggregates", _aggregates(c)]
    if "profile.png" in figures:
        parts.append("![performance profile](profile.png)")
    parts += ["## Each problem", _markdown_table(problem_rows(c))]
    parts.append("J and H: undiscounted episode sums of task reward and heuristic, of π. PI: over the baseline.")
    if "curves.png" in figures:
        parts.append("![learning curves](curves.png)")
    if c.table.excluded:
        rows = [["arm", "problem", "seed", "why", "folder"]]
        for e in c.table.excluded:
            rows.append([e.arm, e.problem, "?" if e.seed is None else str(e.seed), e.reason, "`%s`" % e.folder])
        parts += ["## Runs left out", _markdown_table(rows)]
    parts += ["## How it was computed", _method(c, command)]
    return "\n\n".join(p for p in parts if p) + "\n"


def _problems(c: Comparison) -> str:
    return c.problems[0] if len(c.problems) == 1 else "%d problems" % len(c.problems)


def _what(c: Comparison) -> str:
    left = ", %d left out" % len(c.table.excluded) if c.table.excluded else ""
    return "%d runs%s. Score: %s; aggregates on the %s. Brackets are 95 %% confidence intervals." % (
        len(c.table.runs),
        left,
        SCORE_NAMES[c.score],
        SCALE_NAMES[c.scales.by],
    )


def _sentence(c: Comparison, one: Improvement) -> str:
    """The verdict in words that claim no more than the numbers."""
    if one.pi is None:
        return "- **%s**: too few runs: it shares no problem with %s." % (one.arm, c.baseline)
    seeds = [min(pair) for pair in one.seeds.values()]
    reason = {
        "too few runs": "at least one problem has only %d seeds, a verdict takes %d" % (min(seeds), MIN_SEEDS),
        "no difference shown": "the interval contains 0.5; that is not proof that they are the same",
        "better": "the whole interval lies above 0.5",
        "worse": "the whole interval lies below 0.5",
    }[one.verdict]
    kinds = {n.kind for n in c.notes}
    unfair = [k for k in ("unequal budgets", "different settings", "excluded runs", "NaN scores") if k in kinds]
    reason += "; mind the %s below" % ", ".join(unfair) if unfair else ""
    return "- **%s**: %s. A run of it beats one of %s with probability %s over %d problem%s: %s." % (
        one.arm,
        one.verdict,
        c.baseline,
        one.pi,
        len(seeds),
        "s" * (len(seeds) > 1),
        reason,
    )


def notes_markdown(c: Comparison) -> str:
    """The notes as a list, or that there are none."""
    if not c.notes:
        return "Nothing found: equal budgets, no missing or unfinished runs, one state of the code, one configuration."
    return "\n".join("- **%s**: %s" % (n.kind, n.text) for n in c.notes)


def _aggregates(c: Comparison) -> str:
    if not c.aggregates:
        return "None: no problem has runs of every arm."
    names = [n for n in TITLES if n in next(iter(c.aggregates.values()))]
    rows = [["arm"] + [TITLES[n] for n in names] + ["seeds × problems"]]
    for arm, found in c.aggregates.items():
        seeds = c.aggregate_seeds[arm]
        size = "%d × %d" % (len(next(iter(seeds.values()))), len(seeds))
        rows.append([arm] + [_text(found[n]) for n in names] + [size])
    used = "; ".join("%s: %s" % (arm, _seeds(seeds)) for arm, seeds in c.aggregate_seeds.items())
    text = "Seeds used: %s." % used
    if "iqm_tasks" in names:
        text += " “IQM, other problems” resamples the problems too: what another set of such problems might give."
    return _markdown_table(rows) + "\n\n" + text


def _seeds(by_problem: Any) -> str:
    texts = {p: numbers(s) for p, s in by_problem.items()}
    if len(set(texts.values())) == 1:
        return next(iter(texts.values()))
    return ", ".join("%s (%s)" % (s, p) for p, s in texts.items())


def _method(c: Comparison, command: str) -> str:
    lines = [
        "Statistics by rliable (Agarwal et al. 2021). IQM: mean of the middle half of all runs × problems. PI: chance "
        "that a run of the arm scores more than one of the baseline, ties ½, averaged over the problems both have, "
        "every run used. Intervals: percentile bootstrap, %d resamples of the runs within each problem, seed %d "
        "(curves: %d resamples). Such intervals are too narrow for few runs: at %d seeds a problem they cover less "
        "than 95 %%." % (c.reps, c.seed, min(c.reps, CURVE_REPS), MIN_SEEDS),
    ]
    if command:
        lines.append("Made by `%s`." % command)
    return "\n\n".join(lines)


def _markdown_table(rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + " --- |" * len(rows[0])] + lines[1:])


def _text(value: Any) -> str:
    return str(value) if isinstance(value, Interval) else "–"


def _g(value: float) -> str:
    return "–" if math.isnan(value) else "%.4g" % value


def _write_csv(path: Path, rows: Sequence[Sequence[Any]]) -> None:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    write_atomic(path, buffer.getvalue().encode("utf-8"))

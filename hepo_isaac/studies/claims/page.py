"""Write docs/claims.md from the committed CSV files."""

from __future__ import annotations

import json
from typing import List, Sequence

from hepo_isaac.studies.claims import alpha_claims, plus, presets, training
from hepo_isaac.studies.claims import claims as _claims  # noqa: F401 (registers its tests)
from hepo_isaac.studies.claims.collecting import CURVES, HERE, RUNS, by_key, committed, current, drawn
from hepo_isaac.studies.claims.experiments import ARMS, EXPERIMENTS, GROUPS, SUITE
from hepo_isaac.studies.claims.figures import all_figures, bands
from hepo_isaac.studies.claims.notes import CHOICE, NOTES
from hepo_isaac.studies.claims.result import TOO_FEW, Result, judge
from hepo_isaac.studies.claims.table import Table

PAGE = HERE.parent / "claims.md"
FIGURES = HERE / "figures"
ORDER = (
    *("C1", "C2", "C3", "C4", "C5", "C6", "C7", "C7 decoupled", "C7 half", "C8", "C9", "C10", "C11", "C12"),
    *("C13", "C14", "C15", "C16", "C17", "C18", "C19", "C20", "C21", "E1", "E2", "E2 drift", "N3"),
)
CAPTIONS = {
    "intervals.png": "IQM over the suite and probability of improvement over ppo_h, by hepo-isaac compare.",
    "alpha.png": "E2: α, the estimate it follows, and J of both policies on the hackable tasks.",
    "joint.png": "E1, C4: joint collection, alternating collection and EIPO.",
    "quality.png": "N3: J by the quality of the heuristic, and where HEPO is no worse than H-only and J-only.",
    "written.png": "FrankaCabinet under heuristics that people wrote; right: J of hepo over J of the heuristic alone.",
}
INTRO = """# Claims

What is said about HEPO (arXiv 2507.05328), as statements that can fail, and what our runs say. This page is written by
`hepo_isaac/studies/claims`: every verdict is computed from [claims/runs.csv](claims/runs.csv) by a rule fixed in
advance (claims.py and alpha_claims.py there), none is written by hand.

```
python -m hepo_isaac.studies.claims --jobs 2            # train what claims/runs.csv lacks, add it, then this page
python -m hepo_isaac.studies.claims --jobs 2 --only C1  # the runs of one claim
python -m hepo_isaac.studies.claims --from-csv          # this page from the committed runs, without training
```
"""
READING = """J and H are means over 128 evaluation episodes after training. Averages over problems are of normalised J:
0 is the untrained policy, 1 the optimum. In brackets are 95 % intervals: percentile bootstrap through rliable, 2000
resamples of the runs within each problem. PI is the probability that a run of the first arm beats one of the second,
ties counting ½. "Too few" is a verdict: runs are missing, or the interval leaves the question open.
"""


def write() -> None:
    """The figures and the page."""
    pairs = by_key(training.keys(EXPERIMENTS))
    rows, stale = current(committed(RUNS).values(), pairs)
    lines, _ = current(committed(CURVES, "quantity").values(), pairs)
    table = Table(rows)
    curves = bands([line for line in lines if line["quantity"] in drawn(line["arm"], line["problem"])])
    figures = [name for name in all_figures(table, curves, FIGURES) if name in CAPTIONS]
    for file in FIGURES.glob("*.png"):
        if file.name not in figures:
            file.unlink()  # the page does not link it
    PAGE.write_text(markdown(table, figures, stale), encoding="utf-8")
    print("wrote %s from %d runs; %d are stale" % (PAGE, len({(r["key"], r["seed"]) for r in rows}), stale))


def markdown(table: Table, figures: Sequence[str], stale: int = 0) -> str:
    """The whole page."""
    results = [judge(name, table) for name in ORDER]
    parts = [INTRO, state(table, stale), READING, claims_table(results), notes(results), figure_links(figures)]
    parts += [plus_section(table), robots_section(table), written_section(table), preset_section(table)]
    parts += [franka_section(table), design_section()]
    return "\n".join(p.rstrip("\n") + "\n" for p in parts if p)


def state(table: Table, stale: int = 0) -> str:
    """Commits, dates, CPUs, what is still missing, and whose times these are."""
    about = json.loads(alpha_claims.TIMING.read_text(encoding="utf-8")) if alpha_claims.TIMING.exists() else {}
    hardware = about.get("hardware") or {}
    machine = "%s, %s cores, no GPU" % (hardware.get("cpu", "CPU"), hardware.get("cores", "?"))
    wanted = {(a, p, s) for e in EXPERIMENTS for a in e.arms for p in e.problems for s in range(1, e.seeds + 1)}
    there = {(a, p, s) for (a, p), seeds in table.rows.items() for s in seeds}
    share = (
        "all of the runs planned"
        if wanted <= there
        else "**partial**: %d of %d runs planned"
        % (
            len(wanted & there),
            len(wanted),
        )
    )
    dates, commits = sorted(table.words("date")), sorted(table.words("commit"))
    left_out = "%d runs of claims/runs.csv are of other settings, tasks or agents than today's and left out." % stale
    named = sorted(table.words("cpu") - {""})
    text = "State: %s. Runs of %s on x86-64 machines of two cores%s, no GPU, one thread each, commits %s." % (
        share,
        " to ".join(sorted({*dates[:1], *dates[-1:]})),
        " (as far as recorded: %s)" % ", ".join(named) if named else "",
        ", ".join(commits),
    )
    text += " Times (C15) are of %s." % machine if about else ""
    plus = "A + marks a tree with uncommitted changes."
    return " ".join([text, *[plus] * any("+" in c for c in commits), *[left_out] * (stale > 0)]) + "\n"


def claims_table(results: Sequence[Result]) -> str:
    """One row per claim."""
    rows = [[r.claim, r.statement, r.statistic, r.n, r.value, "**%s**" % r.verdict, command(r.claim)] for r in results]
    return "## Verdicts\n\n" + _markdown_table(
        ("", "claim", "statistic and rule", "n", "value [95 % interval]", "verdict", "command"), rows
    )


def command(name: str) -> str:
    """What trains the runs of a claim."""
    short = name.split()[0]
    if name == "C15":
        return "`python -m hepo_isaac.studies.claims --timing`"
    return "`python -m hepo_isaac.studies.claims --only %s`" % short


def notes(results: Sequence[Result]) -> str:
    """A paragraph for every verdict that has one."""
    found = ["**%s (%s).** %s" % (r.claim, r.verdict, NOTES[r.claim, r.verdict]) for r in results if _noted(r)]
    left = [r.claim for r in results if r.verdict == TOO_FEW]
    if left:
        found.append("**Undecided**: %s. More seeds, or the runs that are missing, may decide them." % ", ".join(left))
    other = "**E3** is C9, **N1** is C17, **N2** is C15."
    return "### What they mean\n\n" + "\n\n".join([*found, other]) + "\n"


def _noted(result: Result) -> bool:
    return (result.claim, result.verdict) in NOTES


def figure_links(figures: Sequence[str]) -> str:
    """The figures that were drawn."""
    shown = ["![%s](claims/figures/%s)\n\n%s\n" % (n[:-4], n, CAPTIONS[n]) for n in figures]
    return "## Figures\n\n" + "\n".join(shown) if shown else ""


def plus_section(table: Table) -> str:
    """hepo_plus against the baselines."""
    rows = plus.rows(table)
    if not rows:
        return ""
    text = (
        "## HEPO with two references\n\n`hepo_plus` (docs/methods.md) over each baseline, same env steps. `portfolio`: "
        "ppo_jh_decoupled, ppo_h and ppo_j trained apart on N/2, N/4 and N/4 envs and the best of the three chosen by "
        "evaluation. It was tuned on TwoPeaks, RingRace, Push2D, QuadraticPoint, Survival and TwoArm with seeds 101 to "
        "105. Two earlier forms were run on all twelve with the seeds shown: one was dropped for TwoPeaks and RingRace "
        "(π_J in an eighth of the envs), one for a seed of Honeypot (π_J following π until it sees a reward).\n\n"
    )
    return text + _markdown_table(plus.HEAD, rows) + "\n" + plus.against_the_best(table)


def robots_section(table: Table) -> str:
    """Robots."""
    head, rows = plus.robots(table)
    if not rows:
        return ""
    text = (
        "## Robots\n\n`budget=demo`, normalised J of the last 128 evaluation episodes, mean and each seed: 0 is random "
        "actions, 1 the optimum or the J of a reference run (experiments.py). Three seeds say little of small "
        "differences. "
        "`python -m hepo_isaac.studies.claims --only robots`.\n\n"
    )
    against = plus.robots_against(table)
    text += _markdown_table(head, rows)
    if against:
        text += "\n" + _markdown_table(("", "over", "tasks", "PI", "IQM − its"), against)
    head, rows = plus.hasty(table)
    if rows:
        text += (
            "\nWith heuristics that invite hacking (docs/parity/): `python -m hepo_isaac.studies.claims --only hasty`."
            "\n\n" + _markdown_table(head, rows)
        )
    return text


def written_section(table: Table) -> str:
    """FrankaCabinet with the heuristics that people wrote."""
    head, rows, summary = plus.written(table)
    if not rows:
        return ""
    text = (
        "## FrankaCabinet with twelve heuristics that people wrote\n\n`budget=demo`, mean J over seeds. `python -m "
        "hepo_isaac.studies.claims --only written`.\n\n"
    )
    return text + _markdown_table(head, rows) + "\n" + summary


def preset_section(table: Table) -> str:
    """Candidates for the default preset."""
    found = presets.candidates(table)
    head = ("arm", "seeds × tasks", "IQM", "IQM − hepo", "PI over hepo", "over training: IQM − hepo", *GROUPS, "")
    rows: List[List[str]] = []
    for c in found:
        groups = [c.by_group[g] for g in GROUPS]
        numbers = [str(c.iqm), presets.signed(c.difference), str(c.improvement), presets.signed(c.training)]
        rows.append(["`%s`" % c.arm, c.n, *numbers, *groups, c.verdict])
    text = (
        "## Which preset is the default\n\n`hepo` is cfg/algo/hepo.yaml; every other `hepo_…` changes what "
        "hepo_isaac/studies/claims/experiments.py says. Columns by group: IQM of the arm (difference to hepo). Better "
        "or worse: the interval of PI excludes ½. With %d candidates tested at 5 %% each, one false difference is to "
        "be expected.\n\n" % len(rows)
    )
    return text + presets.best(found) + "\n\n" + CHOICE + "\n\n" + _markdown_table(head, rows)


def franka_section(table: Table) -> str:
    """FrankaCabinet."""
    rows = [list(r) for r in presets.franka(table)]
    if not rows:
        return ""
    text = (
        "## FrankaCabinet\n\n5.2 M steps (640 iterations × 512 envs × 16; the published length is 98 M), J of the last "
        "100 training episodes: the share of the episode with the drawer open. "
        "`python -m hepo_isaac.studies.claims --only franka`.\n\n"
    )
    return text + _markdown_table(("arm", "seeds", "mean J (each)", "IQM", "PI over ppo_h", "commit"), rows)


def design_section() -> str:
    """What the arms and the suite are."""
    arms = ["`%s`: algo=%s %s" % (a.name, a.algo, " ".join(a.overrides)) for a in ARMS.values() if a.overrides]
    groups = ["%s: %s" % (name, ", ".join(tasks)) for name, tasks in GROUPS.items()]
    return "## Arms and tasks\n\n%s\n\nSuite, %d tasks with their default heuristics (docs/suite.md): %s.\n" % (
        "\n".join("* " + a for a in arms),
        len(SUITE),
        "; ".join(groups),
    )


def _markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| %s |" % " | ".join(str(c).replace("|", "\\|") for c in line) for line in lines) + "\n"

"""The comparison of two engines as text: tables on the terminal, report.md, and the section of a task's page."""

from __future__ import annotations

import math
import re
import textwrap
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence

from hepo_isaac.errors import UserError
from hepo_isaac.locate import PACKAGE, bundled
from hepo_isaac.sim.engines import ENGINES, PHYSX_ENGINE

Rows = List[List[str]]
HEADING = "## Engine comparison"
BEGIN = "<!-- hepo-isaac parity: page=true writes what follows -->"
END = "<!-- hepo-isaac parity: end -->"
PAIR = "<!-- engines: %s -->"


def number(value: Optional[float]) -> str:
    """Two or three significant digits; a dash for what is unknown."""
    if value is None or not math.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    size = abs(value)
    return "%.0f" % value if size >= 100 else "%.3g" % value if size >= 0.1 else "%.2g" % value


# ---- tables -------------------------------------------------------------------------------------------------------


def departure_rows(found: Mapping[str, Any], steps: Sequence[int], brief: bool = False) -> Rows:
    """Header and a row per quantity: single steps, then free rollouts at ``steps``.

    A cell is "median / 90 % / largest" over environments; brief ones leave out the 90 %.
    """
    header = ["", "spread", "one step", *("step %d" % k for k in steps)]
    rows = [header if not brief else [header[0], *header[2:]]]
    for name, free in found["free"].items():
        at = {row["step"]: row for row in free["rows"]}
        cells = [_cell(found["single"][name], brief)] + [_cell(at[k], brief) if k in at else "–" for k in steps]
        label = "%s [%s]" % (name, free["unit"]) if free["unit"] and not brief else name
        rows.append([label, *([] if brief else [number(free["spread"])]), *cells])
    return rows


def _cell(row: Mapping[str, Any], brief: bool) -> str:
    if not row["n"]:
        return "–"
    if row["max"] == 0:
        return "0"
    keys = ("median", "max") if brief else ("median", "q90", "max")
    return " / ".join(number(row[k]) for k in keys)


def term_rows(found: Mapping[str, Any]) -> Rows:
    """Header and a row per reward term that is ever anything but zero."""
    names = [found[side]["engine"] for side in ("first", "second")]
    rows = [["per episode", *names, "difference", "corr.", "one step"]]
    for name, term in found["terms"].items():
        values = [term[k] for k in ("first", "second", "difference", "correlation", "single_max")]
        if any(v for v in (*values[:3], values[4])):
            rows.append([name, *map(number, values)])
    return rows


def metric_rows(found: Mapping[str, Any]) -> Rows:
    """Header and a row per metric of the task and per way of ending an episode."""
    names = [found[side]["engine"] for side in ("first", "second")]
    ends = [found["episodes"][side] for side in ("first", "second")]
    rows = [["at the end", *names]]
    for name, value in found["metrics"].items():
        label = name + " (success)" if name == found["first"].get("success") else name
        rows.append([label, number(value["first"]), number(value["second"])])
    rows.append(["episodes terminated", *("%d of %d" % (e["terminated"], e["of"]) for e in ends)])
    rows.append(["episodes timed out", *("%d of %d" % (e["time_out"], e["of"]) for e in ends)])
    rows.append(["mean steps seen", *(number(e["mean_length"]) for e in ends)])
    return rows


def evaluation_rows(found: Mapping[str, Any]) -> Rows:
    """Header and a row per policy and quantity of the closed loop; nothing without one."""
    if "evaluation" not in found:
        return []
    rows = [["own episodes", *(found[side]["engine"] for side in ("first", "second")), "difference"]]
    for policy, quantities in found["evaluation"].items():
        for name, value in quantities.items():
            cells = [
                "%s ± %s (n=%d)" % (number(e["mean"]), number(e["std_error"]), e["n"])
                for e in (value["first"], value["second"])
            ]
            off = "%s ± %s" % (number(value["difference"]), number(value["std_error"]))
            rows.append(["%s, %s" % (policy, name), *cells, off])
    return rows


def notes(found: Mapping[str, Any]) -> List[str]:
    """Sentences that a reader of the tables must know."""
    lines = []
    engines = [found[side]["engine"] for side in ("first", "second")]
    if found["identical"]:
        lines.append("Nothing differs: every number of the two recordings is the same.")
    else:
        lines.append(_worst(found["single"]))
    for key, mine, its in found["physics"]:
        lines.append("Setting task.%s is %s on %s and %s on %s." % (key, mine, engines[0], its, engines[1]))
    for engine, count in zip(engines, found["bad"]):
        if count:
            lines.append("%s: worlds diverged in %d environment steps, which are left out." % (engine, count))
    for side in ("first", "second"):
        if found[side]["overflows"]:
            lines.append("%s: %d buffer overflows." % (found[side]["engine"], found[side]["overflows"]))
    return lines


def _worst(single: Mapping[str, Any]) -> str:
    """Which component of each state quantity differs most."""
    named = [
        "%s %s %s (%s)" % (name, number(row["max"]), row["unit"], row["where"])
        for name, row in single.items()
        if row["where"] and row["unit"]
    ]
    if not any(row["n"] for row in single.values()):
        return "No single step left both engines with a sound world."
    if not named:
        return "After a single step the states are the same."
    return "Largest departures of a single step: %s." % "; ".join(named)


# ---- Markdown -----------------------------------------------------------------------------------------------------


def markdown_table(rows: Rows) -> List[str]:
    """Lines of a Markdown table; the first row is its header."""
    if len(rows) < 2:
        return []
    lines = [list(map(_escape, row)) for row in rows]
    rule = ["---"] * len(rows[0])
    return ["| %s |" % " | ".join(row) for row in [lines[0], rule, *lines[1:]]] + [""]


def _wrapped(text: str) -> List[str]:
    indent = "  " if text.startswith("- ") else ""
    return textwrap.wrap(text, 125, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def _escape(text: str) -> str:
    return text.replace("|", "\\|")


def body(found: Mapping[str, Any], command: str) -> List[str]:
    """Lines of the comparison below its heading: how it was made, the tables, what they mean."""
    meta = found["first"]
    steps = meta["obs_steps"]
    facts = [*(_origin(found[side]) for side in ("first", "second")), _actions(meta), *notes(found)]
    lines = ["```", command, "```", "", *(line for fact in facts for line in _wrapped("- " + fact)), ""]
    lines += markdown_table(departure_rows(found, steps))
    lines += markdown_table(term_rows(found)) + markdown_table(metric_rows(found))
    return lines + markdown_table(evaluation_rows(found))


def _origin(meta: Mapping[str, Any]) -> str:
    """One line: engine, versions, hardware, commit."""
    packages = ENGINES[meta["engine"]].packages if meta["engine"] in ENGINES else ()
    versions = meta["versions"]
    parts = ["%s %s" % (name, versions.get(name)) for name in (*packages, "torch", "python") if versions.get(name)]
    git = meta.get("git") or {}
    commit = "commit %s%s" % (str(git.get("commit"))[:7], " and changes" if git.get("dirty") else "") if git else ""
    hardware = meta["hardware"]
    machine = hardware["gpus"][0] if hardware["gpus"] and meta["device"].startswith("cuda") else hardware["cpu"]
    if meta["sim"].get("assets"):
        parts.append("NVIDIA's assets")
    return "%s on %s: %s" % (meta["engine"], meta["device"], ", ".join(p for p in (*parts, machine, commit) if p))


def _actions(meta: Mapping[str, Any]) -> str:
    kind = {"random": "random actions", "zero": "zero actions", "run": "the actions of a trained policy"}
    return "%d environments, %d control steps of %.3g s, %s (seed %d); %d of the steps also singly" % (
        meta["num_envs"],
        meta["steps"],
        meta["control_dt"],
        kind[meta["actions"]],
        meta["seed"],
        len(meta["single_steps"]),
    )


READING = (
    "The same actions from the same start states on two engines, a cell being the median / 90 % / largest absolute"
    " departure over environments still in their first episode. **One step**: single control steps, both from the"
    " first engine's states. **Step k**: rollouts that nothing puts back, which chaos drives apart even where engines"
    " agree. **Spread**: largest standard deviation of a component on the first engine (of rotations, the largest"
    " turn), the size at which two rollouts have nothing to do with each other. Rewards: sums over the steps seen of"
    " the first episode."
)


def report(found: Mapping[str, Any], command: str, picture: Optional[str]) -> str:
    """report.md."""
    names = [found[side]["engine"] for side in ("first", "second")]
    lines = ["# %s: %s and %s" % (found["first"]["task"], *names), "", *_wrapped(READING), "", *body(found, command)]
    if picture:
        lines += ["![trajectories](%s)" % picture, ""]
    return "\n".join(lines)


# ---- the task's page ----------------------------------------------------------------------------------------------


def page_file(task: str) -> Path:
    """docs/parity/<Task>.md of the checkout.

    Raises:
        UserError: this is an installed package, which has no docs.
    """
    folder = PACKAGE.parent / "docs" / "parity"
    if bundled() or not folder.is_dir():
        raise UserError("page=true writes docs/parity/%s.md of a checkout, and this is an installed package" % task)
    return folder / (task + ".md")


def update_page(text: str, found: Mapping[str, Any], command: str) -> str:
    """A page with the comparison of these two engines in its section, in place of an older one of the same two."""
    task = found["first"]["task"]
    pair = "%s %s" % (found["first"]["engine"], found["second"]["engine"])
    pairs = _pairs(text)
    title = "### %s and %s" % tuple(pair.split())
    pairs[pair] = "\n".join([title, "", *body(found, command)]).rstrip()
    ways = "With Isaac Gym Preview 4, in its Python 3.8: `hepo-isaac parity task=%s engine=%s page=true`"
    ways %= (task, PHYSX_ENGINE)
    if not any(PHYSX_ENGINE in name for name in pairs):
        ways += " adds PhysX to this section; nobody has run that yet"
    parts = [BEGIN, HEADING, "", *_wrapped(READING), "", *_wrapped(ways + "."), ""]
    for name in sorted(pairs):
        parts += [PAIR % name, pairs[name], ""]
    section = "\n".join([*parts, END])
    if BEGIN in text and END in text:
        before, rest = text.split(BEGIN, 1)
        return before + section + rest.split(END, 1)[1]
    start = text.rstrip() or "# %s: one engine and another" % task
    return start + "\n\n" + section + "\n"


def _pairs(text: str) -> Dict[str, str]:
    """ "first second" -> the text of that comparison, of the section of a page."""
    if BEGIN not in text or END not in text:
        return {}
    section = text.split(BEGIN, 1)[1].split(END, 1)[0]
    parts = re.split(re.escape(PAIR).replace("%s", "(.*?)"), section)
    return {name: content.strip() for name, content in zip(parts[1::2], parts[2::2])}


# ---- the terminal -------------------------------------------------------------------------------------------------


def show(found: Mapping[str, Any]) -> None:
    """Print the tables in 80 columns and the notes."""
    from rich.console import Console

    console = Console()
    names = [found[side]["engine"] for side in ("first", "second")]
    steps = found["first"]["obs_steps"]
    chosen = sorted({k for k in (10,) if k in steps} | {steps[-1]})
    console.print("%s: %s and %s" % (found["first"]["task"], *names), style="bold", markup=False, highlight=False)
    title = "departures, median / largest"
    for heading, rows in (
        (title, departure_rows(found, chosen, brief=True)),
        ("reward terms", term_rows(found)),
        ("episodes", metric_rows(found)),
        ("the policy's own episodes", evaluation_rows(found)),
    ):
        if len(rows) > 1:
            console.print(_rich(heading, rows))
    for note in notes(found):
        console.print(note, markup=False, highlight=False, soft_wrap=True)


def _rich(title: str, rows: Rows) -> Any:
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(title), title_justify="left")
    for k, name in enumerate(rows[0]):
        table.add_column(escape(name), justify="right" if k else "left", overflow="fold", no_wrap=k > 0)
    for row in rows[1:]:
        table.add_row(*map(escape, row))
    return table

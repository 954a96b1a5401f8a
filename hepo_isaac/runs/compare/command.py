"""``hepo-isaac compare``: from run folders to a report."""

from __future__ import annotations

import datetime
import shlex
from pathlib import Path
from typing import Any, List, Sequence

from hepo_isaac.arguments import Parser, check_folder, whole
from hepo_isaac.runs.compare.analysis import Comparison, compare
from hepo_isaac.runs.compare.data import collect
from hepo_isaac.runs.compare.report import verdict_rows, write_report
from hepo_isaac.runs.compare.scale import NORMALISATIONS
from hepo_isaac.runs.compare.stats import REPS, rliable
from hepo_isaac.runs.compare.table import SCORES

STYLES = {"better": "green", "worse": "red"}


def main(arguments: Sequence[str]) -> int:
    """Compare, print the table and the notes, write the report; returns 0.

    Raises:
        UserError: a bad argument, no usable run, a missing package or a folder that cannot be written.
    """
    args = _parse(arguments)
    rliable()  # before minutes of reading
    table = collect(args.paths)
    comparison = compare(
        table, args.baseline, args.score, args.normalise, args.reps, args.arms, args.tasks, seed=args.seed
    )
    now = datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    out = args.out or Path("reports") / now
    report = write_report(comparison, out, shlex.join(["hepo-isaac", "compare", *arguments]))
    _print(comparison)
    print("report %s" % report)
    return 0


def _parse(arguments: Sequence[str]) -> Any:
    parser = Parser("compare", "Compare arms of trained runs; docs/compare.md explains.")
    parser.add_argument("paths", nargs="*", metavar="folder", help="run folders, folders above them, or globs")
    parser.add_argument("--baseline", help="arm the others are compared with (default: ppo_h if there is one)")
    parser.add_argument("--arms", type=_names, help="only these: hepo,ppo_h")
    parser.add_argument("--tasks", type=_names, help="only these: FrankaCabinet,Push2D/h3")
    parser.add_argument("--score", choices=SCORES, help="default: evaluation if every run has one, else final")
    parser.add_argument("--normalise", choices=NORMALISATIONS, default="scores", help="default: scores")
    parser.add_argument("--reps", type=whole(10, 10**6), default=REPS, help="bootstrap resamples (default: %d)" % REPS)
    parser.add_argument("--seed", type=whole(0, 2**32 - 1), default=0, help="of the bootstrap (default: 0)")
    parser.add_argument("--out", type=Path, help="folder of the report (default: reports/<time>)")
    args = parser.parse_args(list(arguments))
    if not args.paths:
        parser.error("no folder given, e.g. hepo-isaac compare runs/ --baseline ppo_h")
    check_folder("--out", args.out)
    return args


def _names(text: str) -> List[str]:
    return [name for name in (part.strip() for part in text.split(",")) if name]


def _print(comparison: Comparison) -> None:
    """The verdicts, then everything that speaks against them."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    rows = verdict_rows(comparison)
    title = "%d runs, score: %s, [95 %% interval]" % (len(comparison.table.runs), comparison.score)
    table = Table(title=escape(title))
    narrow = [row[:4] + row[5:] for row in rows]  # 80 columns do not hold the difference of IQMs as well
    for name in narrow[0]:
        table.add_column(escape(name), no_wrap=name not in ("arm", "verdict"), overflow="fold")
    for row in narrow[1:]:
        style = STYLES.get(row[-1])
        table.add_row(
            *(escape(cell.replace(" [", "\n[")) for cell in row[:-1]),
            "[%s]%s[/]" % (style, row[-1]) if style else escape(row[-1]),
        )
    console.print(table)
    for note in comparison.notes:
        console.print("[yellow]%s[/]: %s" % (escape(note.kind), escape(note.text)), highlight=False)

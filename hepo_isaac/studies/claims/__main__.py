"""Test every claim about HEPO: train what is missing, then write docs/claims.md.

    python -m hepo_isaac.studies.claims --jobs 2              # everything that takes minutes
    python -m hepo_isaac.studies.claims --jobs 2 --only C1,C4 # the runs of two claims; the page has all there is
    python -m hepo_isaac.studies.claims --jobs 2 --only franka # or robots, written: hours
    python -m hepo_isaac.studies.claims --collect-only        # no training: from the runs there are
    python -m hepo_isaac.studies.claims --from-csv            # no runs either: from the committed CSV files

Runs go to runs/claims/, and one row of each to docs/claims/runs.csv. A run that is there, in a folder or in that file,
with the settings, the task's code and the version of the learner (experiments.py) it would have now is never trained
again: commit the file, and another machine goes on from it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from hepo_isaac.errors import report_errors
from hepo_isaac.studies.claims import training
from hepo_isaac.studies.places import CHECKOUT, require_checkout


def main() -> int:
    """Command line; returns 1 if a job failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=2, help="processes side by side, one thread each")
    parser.add_argument("--only", help="claims or experiments, with commas between them")
    parser.add_argument("--limit-minutes", type=float, help="start no job after this time")
    parser.add_argument("--root", type=Path, default=CHECKOUT / "runs" / "claims", help="where the runs are")
    parser.add_argument(
        "--franka-runs",
        type=Path,
        nargs="+",
        default=[],
        help="folders with runs that count whatever has changed",
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would be trained")
    parser.add_argument("--collect-only", action="store_true", help="do not train")
    parser.add_argument("--timing", action="store_true", help="measure C15, then write the page")
    parser.add_argument("--from-csv", action="store_true", help="write the page from docs/claims/*.csv")
    args = parser.parse_args()
    require_checkout()
    from hepo_isaac.studies.claims import collecting, page

    failed = []
    if args.timing:
        from hepo_isaac.studies.claims import timing

        timing.measure()
    if not (args.collect_only or args.from_csv or args.timing):
        try:
            experiments = training.selected(args.only.split(",") if args.only else None)
        except ValueError as error:
            parser.error(str(error))
        there = {*training.index([args.root], args.franka_runs), *collecting.committed(collecting.RUNS)}
        jobs = training.missing(experiments, training.keys(experiments), there)
        if args.dry_run:
            print("\n".join(map(str, jobs)))
            minutes = sum(map(training.cost, jobs)) / 60.0
            runs = sum(len(j.seeds) for j in jobs)
            print("%d jobs, %d runs, about %.0f core-minutes on quiet cores" % (len(jobs), runs, minutes))
            return 0
        trainer = training.Trainer(jobs, training.folder(args.root), args.jobs, args.limit_minutes)
        trainer.run()
        failed = trainer.failed
        for line in failed:
            print("failed: " + line)
    if not (args.from_csv or args.timing):
        collecting.collect([args.root], args.franka_runs)
    page.write()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(report_errors(main))

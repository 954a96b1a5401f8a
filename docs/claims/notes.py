"""What a verdict means, in words. A note is printed only beside the verdict that it was written for."""

from __future__ import annotations

from typing import Dict, Tuple

# (claim, verdict) -> paragraph.
NOTES: Dict[Tuple[str, str], str] = {
    ("C15", "holds"): (
        "An update was expected to take twice PPO's time, two networks for one. It takes less because both policies "
        "share the rows of a minibatch of the same size, and only half of the other's rows are used in an epoch "
        "(algo.off_policy_fraction=0.5). docs/benchmarks.md has FrankaCabinet on an idle machine. "
        "Memory was not measured."
    ),
    ("E2 drift", "does not hold"): (
        "Where both policies earn the same, above all where both earn nothing, the task advantages are the critics' "
        "errors. contrast=raw_gae divides by their spread, so noise of any size becomes an estimate of order one, and "
        "α, which cannot fall below 0, can only walk up. It harms little where r and h agree, and does not help where "
        "the heuristic is hacked: no α raises the weight of a task reward that is never seen."
    ),
    ("C17", "not tested"): (
        "There is no setting that adds noise to the updates of π_H. The value is an observation across heuristics, "
        "which differ in more than how far they lead π_H away, and not a test."
    ),
    ("C18", "no rule"): "One number a task; the claim has no threshold, and the worst case is the point of it.",
}

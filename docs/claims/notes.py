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
    ("C18", "no rule"): "One number a task; the claim has no threshold, and the worst case is the point of it.",
}

"""From per-policy tensors on the device to one dict of numbers per run, in a single transfer."""

from __future__ import annotations

from typing import Dict, List, Mapping, Sequence

import torch
from torch import Tensor


class Statistics:
    """Args:
    policy_names: Q names.  meter: column names of an EpisodeMeter's totals, the last one "episodes".  num_runs: S.
    """

    def __init__(self, policy_names: Sequence[str], meter: Sequence[str], num_runs: int) -> None:
        self._policies, self._meter, self._runs = list(policy_names), list(meter), num_runs

    def read(
        self,
        totals: Tensor,
        per_policy: Mapping[str, Tensor],
        per_run: Mapping[str, Tensor],
        shared: Mapping[str, Tensor],
    ) -> List[Dict[str, float]]:
        """One dict per run: "name/policy" for what is per policy, plain names for the rest.

        Args:
            totals: (P, columns) episode sums.  per_policy: (P,) each.  per_run: (S,) each.  shared: () each.
        """
        by_run = (
            totals.view(self._runs, -1),
            torch.stack(list(per_policy.values()), 1).view(self._runs, -1),
            torch.stack(list(per_run.values()), 1),
            torch.stack(list(shared.values())).float().expand(self._runs, -1),
        )
        host = torch.cat(by_run, 1).to("cpu").tolist()  # host read: the one of the iteration, all its work is queued
        return [self._named(row, list(per_policy), [*per_run, *shared]) for row in host]

    def _named(self, row: List[float], update: Sequence[str], rest: Sequence[str]) -> Dict[str, float]:
        metrics: Dict[str, float] = {}
        width, at = len(self._meter), len(self._policies) * len(self._meter)
        for k, policy in enumerate(self._policies):
            sums = row[k * width : (k + 1) * width]
            count = sums[-1]
            for name, total in zip(self._meter[:-1], sums[:-1]):
                metrics["%s/%s" % (name, policy)] = total / count if count else float("nan")
            metrics["episodes/%s" % policy] = count
            for i, name in enumerate(update):
                metrics["%s/%s" % (name, policy)] = row[at + k * len(update) + i]
        metrics.update(zip(rest, row[at + len(self._policies) * len(update) :]))
        return metrics

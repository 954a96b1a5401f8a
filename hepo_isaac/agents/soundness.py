"""Whether every number of an iteration was one: what environments report step by step, and what the update left."""

from __future__ import annotations

from typing import Dict, List, Mapping, Sequence

import torch
from torch import Tensor

from hepo_isaac import ranks
from hepo_isaac.agents.learner import Learner
from hepo_isaac.envs.faults import FAULTS, sentence
from hepo_isaac.errors import UserError

PREFIX = "fault/"  # of the metrics that travel with the iteration's and are taken out again on the host
UPDATE = "update"
APART = "ranks"
# Losses and norms of a broken update; a KL divergence may be infinite for a policy that has become deterministic.
_WATCHED = ("loss_actor", "loss_critic", "grad_norm")


class Soundness:
    """Collects faults of one iteration on the device, for each of S runs.

    Args:
        horizon: steps T of an iteration.  num_envs: N of all runs together.
    """

    def __init__(self, horizon: int, num_envs: int, num_runs: int, device: torch.device) -> None:
        self._seen = torch.zeros(horizon, num_runs, num_envs // num_runs, len(FAULTS), dtype=torch.bool, device=device)
        # Which comes first: earlier steps before later ones, and within a step causes before what they cause.
        order = torch.arange(horizon * len(FAULTS), device=device, dtype=torch.float32)
        self._order = order.view(horizon, 1, len(FAULTS))

    def note(self, step: int, faults: Tensor) -> None:
        """Keep a step's faults (N, len(FAULTS)) bool."""
        self._seen[step].copy_(faults.view(self._seen.shape[1:]))

    def metrics(self, learner: Learner, stats: Mapping[str, Tensor]) -> Dict[str, Tensor]:
        """(S,) each: how often what was broken, and which was first (-1: none).

        Args:
            stats: (P,) each, of the update.
        """
        counts = self._seen.sum((0, 2)).to(torch.float32)
        late = torch.full_like(self._order, float("inf"))
        first = torch.where(self._seen.any(2), self._order, late).amin((0, 2))
        counts, first = ranks.total(counts), ranks.least(first)
        found = {PREFIX + name: counts[:, k] for k, name in enumerate(FAULTS)}
        found[PREFIX + UPDATE] = broken(learner, stats)
        found[PREFIX + APART] = apart(learner)
        found[PREFIX + "first"] = torch.where(first.isinf(), torch.full_like(first, -1.0), first)
        return found


def broken(learner: Learner, stats: Mapping[str, Tensor]) -> Tensor:
    """(S,) how many of a run's policies the update left with a number that is none."""
    policies = learner.policies
    norm = policies.value_norm
    whole = policies.net.flat.isfinite().all(1) & (norm.mean + norm.var).isfinite().all(1)
    for name in _WATCHED:
        whole = whole & stats[name].isfinite()
    runs = learner.num_runs
    shared = (policies.obs_norm.mean + policies.obs_norm.var).isfinite().all(1) & learner.multiplier.value.isfinite()
    return (~(whole.view(runs, -1) & shared.unsqueeze(1))).sum(1).to(torch.float32)


def apart(learner: Learner) -> Tensor:
    """(S,) how many of a run's policies are not the same on all ranks."""
    runs = learner.num_runs
    if not ranks.active():
        return torch.zeros(runs, device=learner.device)
    policies = learner.policies
    sums = torch.stack((policies.net.flat.double().sum(1), policies.value_norm.mean.sum(1)))
    same = (ranks.least(sums) == -ranks.least(-sums)).all(0)
    return (~same).view(runs, -1).sum(1).to(torch.float32)


def failures(rows: Sequence[Dict[str, float]], names: Mapping[str, str], iteration: int) -> Dict[int, UserError]:
    """What is wrong with each run, by its number; takes the metrics of this module out of ``rows``, but for
    ``nonfinite``, the number of all faults.

    Args:
        names: of task, heuristic and potential.
    """
    found: Dict[int, UserError] = {}
    for run, row in enumerate(rows):
        first = int(row.pop(PREFIX + "first"))
        update, parted = row.pop(PREFIX + UPDATE), row.pop(PREFIX + APART)
        counts = {name: int(row.pop(PREFIX + name)) for name in FAULTS}
        row["nonfinite"] = float(sum(counts.values()) + update)
        if first >= 0:
            name = FAULTS[first % len(FAULTS)]
            text = "iteration %d, step %d: %s" % (
                iteration,
                first // len(FAULTS) + 1,
                sentence(name, counts[name], names),
            )
            found[run] = UserError(text)
        elif update:
            found[run] = UserError(
                "iteration %d: the update left NaN or infinity in weights, statistics or losses of %d of the run's "
                "policies; expected finite numbers: a smaller train.learning_rate or train.max_lr may help"
                % (iteration, update)
            )
        elif parted:
            found[run] = UserError(
                "iteration %d: %d of the run's policies are no longer the same in all of its processes; expected every "
                "process to run the same code on the same kind of machine: resume from the last checkpoint"
                % (iteration, parted)
            )
    return found


def together(found: Mapping[int, UserError], seeds: List[int]) -> UserError:
    """One sentence for the runs that failed."""
    if len(seeds) == 1:
        return next(iter(found.values()))
    said = "; ".join("seed %d: %s" % (seeds[run], error) for run, error in sorted(found.items()))
    return UserError("%d of %d runs failed: %s" % (len(found), len(seeds), said))

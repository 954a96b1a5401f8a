"""The rows of an update by name: the batch of a rollout, which of its rows a minibatch takes, and with what weight.

A run's rows are laid out block by block (one block per policy, or one for both by turns), and step by step in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, List, Optional, Sequence, Tuple

import torch
from torch import Tensor

from hepo_isaac.agents.config import TrainConfig
from hepo_isaac.agents.policies import Policies
from hepo_isaac.agents.rollout import RolloutBuffer
from hepo_isaac.methods.method import MethodConfig


@dataclass
class Minibatch:
    """Rows of one gradient step, each policy's own selection (P, m, .).

    obs (P, m, O) normalised, actions (P, m, A); mean (P, m, A) the policy's own old mean; old_values and returns
    (P, m, 2) of its critics in normalised units; advantage (P, m) what it maximises there; on_policy (P, m) 1 where it
    acted itself; log_prob (P, m) what ratios are taken against: of the policy that acted, or of its own before the
    update.
    """

    obs: Tensor
    actions: Tensor
    mean: Tensor
    old_values: Tensor
    returns: Tensor
    advantage: Tensor
    on_policy: Tensor
    log_prob: Tensor


@dataclass
class Batch(Minibatch):
    """All rows of a rollout. S runs of R rows each; P policies, each with its own view of all rows of its run.

    Fields as in Minibatch; obs and actions are (S, R, .), the others (P, R, .). What a policy does not use
    of the other's rows is 0 there.
    """

    @classmethod
    def from_rollout(cls, buffer: RolloutBuffer, policies: Policies, **per_policy: Tensor) -> Batch:
        """The rollout's rows with what each policy makes of them; ratios against who acted unless ``log_prob`` is
        given."""
        obs = policies.normalize_obs(buffer.rows(buffer.obs))
        runs = policies.num_runs
        if "log_prob" not in per_policy:
            behaviour = buffer.rows(buffer.log_prob).reshape(runs, -1)
            per_policy["log_prob"] = behaviour.repeat_interleave(policies.policies_per_run, 0)
        return cls(
            obs=obs.reshape(runs, -1, obs.shape[-1]),
            actions=buffer.rows(buffer.actions).reshape(runs, -1, policies.num_actions),
            **per_policy,
        )


class PackedBatch:
    """A batch as two matrices, so that a minibatch is two gathers; ``unpack`` gives the fields their names back.

    shared: (S R, O + A) obs, actions.
    mine: (P R, A + 7) mean, old values, returns, advantage, on_policy, log_prob.
    """

    def __init__(self, batch: Batch) -> None:
        numbers = torch.stack((batch.advantage, batch.on_policy, batch.log_prob), -1)
        mine = (batch.mean, batch.old_values, batch.returns, numbers)
        self.shared = torch.cat((batch.obs, batch.actions), -1).flatten(0, 1)
        self.mine = torch.cat(mine, -1).flatten(0, 1)

    def gather(self, in_shared: Tensor, in_mine: Tensor) -> Tuple[Tensor, Tensor]:
        """Rows (P, m, .) of both matrices at indices (P, m), see RowPlan.minibatches_of_epoch."""
        shape = (*in_mine.shape, -1)
        shared = self.shared.index_select(0, in_shared.flatten()).view(shape)
        return shared, self.mine.index_select(0, in_mine.flatten()).view(shape)

    @staticmethod
    def unpack(shared: Tensor, mine: Tensor, num_actions: int) -> Minibatch:
        """What ``gather`` returned, by name."""
        obs, actions = shared.split((shared.shape[-1] - num_actions, num_actions), -1)
        mean, old_values, returns, numbers = mine.split((num_actions, 2, 2, 3), -1)
        return Minibatch(obs, actions, mean, old_values, returns, *numbers.unbind(-1))


@dataclass
class RowWeights:
    """Weight of one own and of one partner's row in a minibatch's means of the three losses: (P, 3) each, the columns
    being actor, critic, KL (and the bound on means).

    counts: (P,) how many of a minibatch's m rows are a policy's, where they are not all; the others repeat a row.
    """

    own: Tensor
    partner: Tensor
    counts: Optional[Tensor] = None

    def packed(self) -> Tensor:
        """(2, P, 3), for a captured step."""
        return torch.stack((self.own, self.partner))

    @classmethod
    def unpack(cls, packed: Tensor, counts: Optional[Tensor] = None) -> RowWeights:
        """What ``packed`` returned."""
        return cls(packed[0], packed[1], counts)

    def kinds(self, on_policy: Tensor) -> Tuple[Tensor, Tensor]:
        """(P, m) 1 where a row is a policy's own, and where it is another's; 0 in both where it only fills up."""
        if self.counts is None:
            return on_policy, 1.0 - on_policy
        real = torch.arange(on_policy.shape[1], device=on_policy.device) < self.counts.unsqueeze(1)
        return on_policy * real, (1.0 - on_policy) * real

    def of_rows(self, on_policy: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
        """Weights (P, m) of rows in the actor's, the critic's and the KL's mean."""
        own, partner = self.own.unsqueeze(1), self.partner.unsqueeze(1)
        if self.counts is None:
            weights = partner + on_policy.unsqueeze(-1) * (own - partner)
        else:
            mine, theirs = self.kinds(on_policy)
            weights = mine.unsqueeze(-1) * own + theirs.unsqueeze(-1) * partner
        actor, critic, kl = weights.unbind(-1)
        return actor, critic, kl


class RowPlan:
    """Minibatches of S runs, each of R = T N / S rows seen by Q policies.

    Args:
        num_envs: N of all runs.  generators: one per run; shuffles draw from them.

    Raises:
        ValueError: minibatch_size does not split the batch into equal shares.
    """

    def __init__(
        self,
        method: MethodConfig,
        train: TrainConfig,
        num_envs: int,
        generators: Sequence[torch.Generator],
        device: torch.device,
    ) -> None:
        self._method, self._generators, self._device = method, list(generators), device
        runs, self.policies_per_run = len(self._generators), method.num_policies
        blocks = runs * method.num_blocks
        if num_envs % blocks:
            raise ValueError("num_envs=%d cannot be split over %d blocks of environments" % (num_envs, blocks))
        self.minibatches = train.minibatches(num_envs // runs, method.num_blocks)
        self.block_rows = num_envs // blocks * train.horizon_length
        self.run_rows = self.block_rows * method.num_blocks
        self.by_block = method.minibatch_order == "stratified" and method.num_blocks > 1
        # Rows of a run that each policy acted for, and where they begin; where policies take turns, all are everyone's.
        shares = method.env_shares if method.collection != "alternating" else (1,) * self.policies_per_run
        self._sizes = [share * self.block_rows for share in shares]
        self._starts = [sum(self._sizes[:q]) for q in range(len(shares))]
        if method.collection == "alternating":
            self._starts = [0] * len(shares)
        # Of a minibatch: own rows, and rows of each other policy that it learns from.
        self._own = [size // self.minibatches for size in self._sizes]
        self._foreign = [self._foreign_sizes(q) for q in range(self.policies_per_run)]
        self._shares = torch.tensor([bool(f) for f in method.uses], dtype=torch.float32, device=device).repeat(runs)
        policies = torch.arange(runs * self.policies_per_run, device=device).unsqueeze(1)
        self._in_shared = policies // self.policies_per_run * self.run_rows
        self._in_mine = policies * self.run_rows
        lengths = [own + sum(foreign.values()) for own, foreign in zip(self._own, self._foreign)]
        self.counts: Optional[Tensor] = None
        if self.by_block and len(set(lengths)) > 1:
            self.counts = torch.tensor(lengths, device=device).repeat(runs)
        self._longest = max(lengths)
        self._fixed = self._fixed_order(train.horizon_length)
        self._weights = self._loss_weights()

    def _foreign_sizes(self, policy: int) -> Dict[int, int]:
        """Rows of every other policy's in a minibatch of ``policy``."""
        m = self._method
        if not self.by_block or m.share_data == "none":
            return {}
        # With two policies of which one shares, both have the rows, so that they stay one kernel; weights decide.
        others = [k for k in range(self.policies_per_run) if k != policy]
        others = others if self.policies_per_run == 2 else [k for k in others if k in m.uses[policy]]
        return {k: max(1, int(self._own[k] * m.off_policy_fraction)) for k in others}

    # -- weights -----------------------------------------------------------------------------------------------
    def loss_weights(self) -> RowWeights:
        """How much a row counts: the same in every minibatch of a run."""
        return self._weights

    def _loss_weights(self) -> RowWeights:
        """How much a row counts.

        By blocks, own and partner's rows count half each for the actor of a policy that shares, and for critics of
        critic_data=both; everything else is about its own rows. Otherwise all rows of a minibatch count alike, and a
        critic's those it is trained on.
        """
        m = self._method
        shares, one = self._shares, torch.ones_like(self._shares)
        if self.by_block or self.policies_per_run == 1:
            own = self._per_policy([1.0 / n for n in self._own])
            partner = self._per_policy([1.0 / max(1, sum(f.values())) for f in self._foreign])
            # Others' part in what a policy learns from is their part of the envs.
            part = self._per_policy([self._part(q) for q in range(self.policies_per_run)])
            both = part if m.critic_data == "both" and self._foreign[0] else 0.0 * one
            return RowWeights(
                own=torch.stack(((1.0 - part * shares) * own, (1.0 - both) * own, own), 1),
                partner=torch.stack((part * shares * partner, both * partner, 0.0 * one), 1),
                counts=self.counts,
            )
        each = one * self.minibatches / self.run_rows
        critic = each if m.critic_data == "both" else 0.0 * one
        return RowWeights(own=torch.stack((each, each, each), 1), partner=torch.stack((each * shares, critic, each), 1))

    def _per_policy(self, values: Sequence[float]) -> Tensor:
        """(P,) one value for each policy of a run."""
        return torch.tensor(values, dtype=torch.float32, device=self._device).repeat(len(self._generators))

    def _part(self, policy: int) -> float:
        others = sum(self._sizes[k] for k in self._foreign[policy])
        return others / (others + self._sizes[policy])

    # -- order -------------------------------------------------------------------------------------------------
    def minibatches_of_epoch(self) -> List[Tuple[Tensor, Tensor]]:
        """Per minibatch, indices (P, m) into the shared and into the per-policy rows, see PackedBatch."""
        return [(rows + self._in_shared, rows + self._in_mine) for rows in self._epoch()]

    def _epoch(self) -> Sequence[Tensor]:
        """(P, m) rows within the run, per minibatch."""
        if self._fixed is not None:
            return self._fixed
        if not self.by_block:
            return self._permutation(self.run_rows).split(self.run_rows // self.minibatches, 1)
        own = self._shuffled()
        others = self._shuffled() if any(self._foreign) else own
        return [self._minibatch(own, others, i) for i in range(self.minibatches)]

    def _minibatch(self, own: Sequence[Tensor], others: Sequence[Tensor], index: int) -> Tensor:
        """(P, m) rows of the ``index``-th minibatch, filled up with a policy's first row where it has fewer."""
        rows: List[Tensor] = []
        for q, foreign in enumerate(self._foreign):
            first = index * self._own[q]
            parts = [own[q][:, first : first + self._own[q]]]
            for k, size in foreign.items():
                first = index * self._own[k]
                parts.append(others[k][:, first : first + size])
            mine = torch.cat(parts, 1)
            missing = self._longest - mine.shape[1]
            rows.append(torch.cat((mine, mine[:, :1].expand(-1, missing)), 1) if missing else mine)
        return torch.stack(rows, 1).flatten(0, 1)

    def _shuffled(self) -> List[Tensor]:
        """For each policy of a run, (S, size) its rows in an order drawn from every run's generator; policies with as
        many rows share the order."""
        drawn = {size: self._permutations(size) for size in dict.fromkeys(self._sizes)}
        return [drawn[size] + start for size, start in zip(self._sizes, self._starts)]

    def _permutations(self, rows: int) -> Tensor:
        """(S, rows) a shuffle per run, from that run's generator."""
        return torch.stack([torch.randperm(rows, generator=g, device=self._device) for g in self._generators])

    def _permutation(self, rows: int) -> Tensor:
        """(P, rows) a shuffle per run that its policies share."""
        return self._permutations(rows).repeat_interleave(self.policies_per_run, 0)

    def _fixed_order(self, horizon: int) -> Optional[Sequence[Tensor]]:
        """The released orders, never shuffled: env after env, block after block ("contiguous", so a minibatch has
        rows of one policy alone when their number is even), or one such row of each block in turn ("interleaved")."""
        if self._method.minibatch_order == "stratified":
            return None
        envs = self.block_rows // horizon
        # row = block * block_rows + step * envs + env
        block, env, step = torch.meshgrid(
            torch.arange(self._method.num_blocks), torch.arange(envs), torch.arange(horizon), indexing="ij"
        )
        rows = block * self.block_rows + step * envs + env
        if self._method.minibatch_order == "interleaved":
            rows = rows.flatten(1).transpose(0, 1)
        everyone = rows.reshape(1, -1).expand(len(self._generators) * self.policies_per_run, -1).to(self._device)
        return everyone.split(self.run_rows // self.minibatches, 1)

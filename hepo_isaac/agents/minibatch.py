"""The rows of an update by name: the batch of a rollout, which of its rows a minibatch takes, and with what weight.

A run's rows are laid out block by block (one block per policy, or one for both by turns), and step by step in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import List, Optional, Sequence, Tuple

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
    being actor, critic, KL (and the bound on means)."""

    own: Tensor
    partner: Tensor

    def packed(self) -> Tensor:
        """(2, P, 3), for a captured step."""
        return torch.stack((self.own, self.partner))

    @classmethod
    def unpack(cls, packed: Tensor) -> RowWeights:
        """What ``packed`` returned."""
        return cls(packed[0], packed[1])

    def of_rows(self, on_policy: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
        """Weights (P, m) of rows in the actor's, the critic's and the KL's mean."""
        own, partner = self.own.unsqueeze(1), self.partner.unsqueeze(1)
        actor, critic, kl = (partner + on_policy.unsqueeze(-1) * (own - partner)).unbind(-1)
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
        self._own_size = self.block_rows // self.minibatches
        share = max(1, int(self._own_size * method.off_policy_fraction))
        self._partner_size = share if self.by_block and method.share_data != "none" else 0
        sharing = [method.share_data in ("both", "pi"), method.share_data in ("both", "reference")]
        sharing = sharing if self.policies_per_run == 2 else [False]
        self._shares = torch.tensor(sharing, dtype=torch.float32, device=device).repeat(runs)
        policies = torch.arange(runs * self.policies_per_run, device=device).unsqueeze(1)
        self._in_shared = policies // self.policies_per_run * self.run_rows
        self._in_mine = policies * self.run_rows
        self._own_block = policies % self.policies_per_run * self.block_rows
        self._other_block = (self.policies_per_run - 1 - policies % self.policies_per_run) * self.block_rows
        self._fixed = self._fixed_order(train.horizon_length)

    # -- weights -----------------------------------------------------------------------------------------------
    def loss_weights(self) -> RowWeights:
        """How much a row counts.

        By blocks, own and partner's rows count half each for the actor of a policy that shares, and for critics of
        critic_data=both; everything else is about its own rows. Otherwise all rows of a minibatch count alike, and a
        critic's those it is trained on.
        """
        m = self._method
        shares, one = self._shares, torch.ones_like(self._shares)
        if self.by_block or self.policies_per_run == 1:
            own, partner = 1.0 / self._own_size, 1.0 / max(1, self._partner_size)
            half = 0.5 if m.critic_data == "both" and self._partner_size else 0.0
            return RowWeights(
                own=torch.stack(((1.0 - 0.5 * shares) * own, (1.0 - half) * own * one, own * one), 1),
                partner=torch.stack((0.5 * shares * partner, half * partner * one, 0.0 * one), 1),
            )
        each = one * self.minibatches / self.run_rows
        critic = each if m.critic_data == "both" else 0.0 * one
        return RowWeights(own=torch.stack((each, each, each), 1), partner=torch.stack((each * shares, critic, each), 1))

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
        own = (self._permutation(self.block_rows) + self._own_block).split(self._own_size, 1)
        if not self._partner_size:
            return own
        other = (self._permutation(self.block_rows) + self._other_block).split(self._own_size, 1)
        return [torch.cat((mine, theirs[:, : self._partner_size]), 1) for mine, theirs in zip(own, other)]

    def _permutation(self, rows: int) -> Tensor:
        """(P, rows) a shuffle per run, from that run's generator; its policies share it."""
        runs = [torch.randperm(rows, generator=g, device=self._device) for g in self._generators]
        return torch.stack(runs).repeat_interleave(self.policies_per_run, 0)

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

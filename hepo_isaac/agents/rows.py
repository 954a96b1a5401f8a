"""Which rows a minibatch takes, and with which weight each enters the loss."""

from __future__ import annotations

from typing import List, Sequence, Tuple

import torch
from torch import Tensor

from hepo_isaac.agents.config import TrainConfig
from hepo_isaac.methods.method import MethodConfig

# A run's rows are laid out block by block (one block per policy, or one for both by turns), and step by step in it.


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
        runs, self._policies = len(self._generators), method.num_policies
        self.minibatches = train.minibatches(num_envs // runs)
        blocks = runs * method.num_blocks
        self.block_rows = num_envs // blocks * train.horizon_length
        self.run_rows = self.block_rows * method.num_blocks
        if num_envs % blocks or self.block_rows % self.minibatches:
            raise ValueError(
                "num_envs=%d with %d policies gives %d rows per policy, which %d minibatches do not divide"
                % (num_envs, blocks, self.block_rows, self.minibatches)
            )
        self._by_block = method.minibatch_order == "stratified" and method.num_blocks > 1
        self._own_size = self.block_rows // self.minibatches
        share = max(1, int(self._own_size * method.off_policy_fraction))
        self._foreign_size = share if self._by_block and method.share_data != "none" else 0
        sharing = [method.share_data in ("both", "pi"), method.share_data in ("both", "reference")][: self._policies]
        self._shares = torch.tensor(sharing, dtype=torch.float32, device=device).repeat(runs)
        policies = torch.arange(runs * self._policies, device=device).unsqueeze(1)
        self._in_shared = policies // self._policies * self.run_rows
        self._in_mine = policies * self.run_rows
        self._own_block = policies % self._policies * self.block_rows
        self._other_block = (self._policies - 1 - policies % self._policies) * self.block_rows
        self._fixed = self._fixed_order(train.horizon_length)

    # -- weights -----------------------------------------------------------------------------------------------
    def loss_weights(self, on_policy: Tensor) -> Tensor:
        """(P, 6) weight of one own and of one foreign row in the means of a minibatch: actor own, actor foreign,
        critic own, critic foreign, KL own, KL foreign.

        By blocks, own and partner's rows count half each for the actor of a policy that shares, and for critics of
        critic_data=both; everything else is about its own rows. Otherwise all rows of a minibatch count alike, and a
        critic's those it is trained on.

        Args:
            on_policy: (P, R), constant per policy where they take turns.
        """
        m = self._method
        shares, one = self._shares, torch.ones_like(self._shares)
        if self._by_block or self._policies == 1:
            own, foreign = 1.0 / self._own_size, 1.0 / max(1, self._foreign_size)
            actor = ((1.0 - 0.5 * shares) * own, 0.5 * shares * foreign)
            half = 0.5 if m.critic_data == "both" and self._foreign_size else 0.0
            critics = ((1.0 - half) * own * one, half * foreign * one)
            return torch.stack((*actor, *critics, own * one, 0.0 * one), 1)
        each = one * self.minibatches / self.run_rows
        critic = each if m.critic_data == "both" else 0.0 * one
        return torch.stack((each, each * shares, each, critic, each, each), 1)

    # -- order -------------------------------------------------------------------------------------------------
    def minibatches_of_epoch(self) -> List[Tuple[Tensor, Tensor]]:
        """Per minibatch, indices (P, m) into the shared and into the per-policy rows, see Batch.packed."""
        return [(rows + self._in_shared, rows + self._in_mine) for rows in self._epoch()]

    def _epoch(self) -> Sequence[Tensor]:
        """(P, m) rows within the run, per minibatch."""
        if self._fixed is not None:
            return self._fixed
        if not self._by_block:
            return self._permutation(self.run_rows).split(self.run_rows // self.minibatches, 1)
        own = (self._permutation(self.block_rows) + self._own_block).split(self._own_size, 1)
        if not self._foreign_size:
            return own
        other = (self._permutation(self.block_rows) + self._other_block).split(self._own_size, 1)
        return [torch.cat((mine, theirs[:, : self._foreign_size]), 1) for mine, theirs in zip(own, other)]

    def _permutation(self, rows: int) -> Tensor:
        """(P, rows) a shuffle per run, from that run's generator; its policies share it."""
        runs = [torch.randperm(rows, generator=g, device=self._device) for g in self._generators]
        return torch.stack(runs).repeat_interleave(self._policies, 0)

    def _fixed_order(self, horizon: int) -> Sequence[Tensor] | None:
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
        everyone = rows.reshape(1, -1).expand(len(self._generators) * self._policies, -1).to(self._device)
        return everyone.split(self.run_rows // self.minibatches, 1)

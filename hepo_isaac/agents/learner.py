"""The learner: from a rollout to better policies, and to alpha. All state that training changes lives here or below.

One iteration, in order: ``prepare`` (agents/halves.py or agents/turns.py), ``update`` (agents/minibatch.py, under
the loss of agents/loss.py), alpha (methods/multiplier.py), the observation statistics.
Nothing here reads a tensor's value on the host.
"""

from __future__ import annotations

from typing import Any, Dict, Optional, Sequence, Type

import torch
from torch import Tensor

from hepo_isaac import ranks
from hepo_isaac.agents.collection import Collection
from hepo_isaac.agents.config import TrainConfig
from hepo_isaac.agents.fused import FusedStep, reason
from hepo_isaac.agents.graph import CapturedStep
from hepo_isaac.agents.halves import Halves
from hepo_isaac.agents.loss import STATISTICS, kl_of_step, ppo_loss, statistics
from hepo_isaac.agents.members import Members
from hepo_isaac.agents.minibatch import Batch, PackedBatch, RowPlan, RowWeights
from hepo_isaac.agents.optimizer import StackedAdam
from hepo_isaac.agents.policies import Acted, Policies
from hepo_isaac.agents.potential import LearnedPotential
from hepo_isaac.agents.rewards import IterationFacts, RewardChannels
from hepo_isaac.agents.rollout import RolloutBuffer
from hepo_isaac.agents.turns import Turns
from hepo_isaac.methods.losses import adapt_learning_rate
from hepo_isaac.methods.method import MethodConfig
from hepo_isaac.methods.multiplier import Multiplier


class Learner:
    """All learnable state of S runs of one method.

    Args:
        method, train: what and how.  num_envs: N of all runs together.  num_obs, num_actions: O, A.
        num_states: how many of the O only the critics see, the last ones.  update_threads: of the compiled step.
        generators: one per run, on ``device``; the only source of randomness.
    """

    def __init__(
        self,
        method: MethodConfig,
        train: TrainConfig,
        num_envs: int,
        num_obs: int,
        num_actions: int,
        generators: Sequence[torch.Generator],
        device: torch.device,
        num_states: int = 0,
        update_threads: int = 1,
    ) -> None:
        self.method, self.train, self.device = method, train, device
        self.num_runs, self.generators = len(generators), list(generators)
        self.plan = RowPlan(method, train, num_envs, self.generators, device)
        sizes = (num_obs, num_actions)
        shares = method.shares if method.collection == "members" else ()
        self.policies = Policies(method.num_policies, train, *sizes, generators, device, num_states, shares)
        self.num_policies = p = self.policies.num_policies
        if method.common_start:
            first = torch.arange(p, device=device) // method.num_policies * method.num_policies
            self.policies.take(first)
        self.optimizer = StackedAdam(self.policies.net.flat, torch.full((p,), train.learning_rate, device=device))
        self.multiplier = Multiplier(method.multiplier, self.num_runs, device)
        self.potential = self._potential(num_obs, num_actions)
        self.rewards = RewardChannels(method, train, self.multiplier, self.potential)
        kinds: Dict[str, Type[Collection]] = {"halves": Halves, "members": Members, "alternating": Turns}
        collection = kinds[method.collection]
        self.collection: Collection = collection(method, train, self.policies, self.rewards, self.multiplier)
        critics = torch.tensor(method.critic_channels(), dtype=torch.float32, device=device)
        self.critic_channels = critics.repeat(self.num_runs, 1)
        self._gradient_mask: Optional[Tensor] = None
        self._adapts = torch.ones(p, dtype=torch.bool, device=device)  # whose learning rate follows its KL
        self._stats = torch.zeros(p, len(STATISTICS), device=device)
        self.optimizer.zero_grad()  # the gradient exists before anything is captured
        self.minibatch_step = CapturedStep(self._minibatch_step, train.graph_update, device)
        self.fused: Optional[FusedStep] = None
        if not reason(device, train.fused):
            parts = (self.critic_channels, method.dual_clip, update_threads)
            self.fused = FusedStep(self.policies.net, self.optimizer, train, *parts)

    def _potential(self, num_obs: int, num_actions: int) -> Optional[LearnedPotential]:
        shaping, train = self.method.shaping, self.train
        if shaping.kind != "potential" or shaping.potential != "learned":
            return None
        sizes = (self.num_policies, num_obs, num_actions, train.units, train.activation)
        return LearnedPotential(*sizes, self.policies.obs_norm, self.generators, self.device)

    def freeze_reference(self, flat: Tensor, obs_norm: Dict[str, Tensor]) -> None:
        """Make the second policy of every run a trained one (D,) that never changes but for its value heads.

        Both policies then see observations as it does: the normaliser of its training is taken over and stands still.
        """
        net, norm = self.policies.net, self.policies.obs_norm
        with torch.no_grad():
            net.flat[1::2] = flat.to(self.device)
        for name, value in obs_norm.items():
            getattr(norm, name).copy_(value[:1].expand_as(getattr(norm, name)))
        norm.frozen = True
        self._gradient_mask = torch.ones_like(net.flat, requires_grad=False)
        self._gradient_mask[1::2] = net.value_head_mask()
        self._adapts[1::2] = False  # its KL is 0, which would drive the rate of its critics to the maximum

    def act(self, obs: Tensor, noise: Tensor) -> Acted:
        """Blocks (B, n, .) of envs, each by its own policy or by whose turn it is, see Policies.act."""
        return self.collection.act(obs, noise)

    # -- one iteration -----------------------------------------------------------------------------------------
    def learn(self, buffer: RolloutBuffer, last_obs: Tensor, facts: IterationFacts) -> Dict[str, Tensor]:
        """Everything between two rollouts; returns per-policy statistics (P,) by name.

        Args:
            buffer: a full rollout.  last_obs: (B, n, O) observation after its last step.
        """
        batch = self.prepare(buffer, last_obs, facts)
        stats = self.update(batch)
        if self.method.reference_noise > 0.0:
            self._disturb_reference()
        if self.method.contrast_after_update:
            self.collection.record_after_update(buffer, last_obs, facts)
        moving = self.collection.after_update(batch)
        if self.method.constraint not in ("none", "references"):
            self.multiplier.update(moving)
        source = self.collection.look(facts)
        if source is not None:
            self.policies.take(source)
            self.optimizer.take(source)
        self.collection.finish_iteration()
        self.policies.observe(buffer.rows(buffer.obs))  # only now, so that it stood still while ratios were taken
        return stats

    @torch.no_grad()
    def _disturb_reference(self) -> None:
        """Let every run's second policy stray by a random step, drawn from that run's stream."""
        net = self.policies.net
        acts = 1.0 - net.value_head_mask()
        for run, generator in enumerate(self.generators):
            noise = ranks.first(torch.randn(acts.shape, generator=generator, device=self.device))
            net.flat[2 * run + 1].add_(self.method.reference_noise * noise * acts)

    def prepare(self, buffer: RolloutBuffer, last_obs: Tensor, facts: Optional[IterationFacts] = None) -> Batch:
        """Advantages, targets, alpha's record; moves the value statistics."""
        facts = facts or IterationFacts()
        self.rewards.fit_potential(buffer, facts)
        return self.collection.batch(buffer, last_obs, facts)

    # -- update ------------------------------------------------------------------------------------------------
    def update(self, batch: Batch) -> Dict[str, Tensor]:
        """Mini-epochs of minibatch steps; returns per-policy statistics (P,) by name."""
        packed, row_weights = PackedBatch(batch), self.plan.loss_weights()
        weights, counts = row_weights.packed(), row_weights.counts
        old_log_std = self.policies.net.log_std.detach().clone()
        self._stats.zero_()
        c = self.train
        steps = 0
        for _ in range(c.mini_epochs):
            epoch_kl = torch.zeros(self.num_policies, device=self.device)
            for indices in self.plan.minibatches_of_epoch():
                if self.fused is not None:
                    kl = self.fused(packed, *indices, weights, counts, old_log_std, self._stats, self._gradient_mask)
                else:
                    kl = self.minibatch_step(
                        *packed.gather(*indices), weights, old_log_std, *([] if counts is None else [counts])
                    )
                epoch_kl += kl
                steps += 1
                if c.lr_schedule == "minibatch":
                    self._adapt(ranks.mean(kl))
            if c.lr_schedule == "mini_epoch":
                self._adapt(ranks.mean(epoch_kl) / self.plan.minibatches)
        mean = ranks.mean(self._stats) / steps
        stats = {name: mean[:, i] for i, name in enumerate(STATISTICS)}
        if c.lr_schedule == "iteration":
            self._adapt(stats["kl"])
        return stats

    def _adapt(self, kl: Tensor) -> None:
        rate = self.optimizer.learning_rate
        new = adapt_learning_rate(rate, kl, self.train.kl_threshold, (self.train.min_lr, self.train.max_lr))
        rate.copy_(torch.where(self._adapts, new, rate))

    def _minibatch_step(
        self, shared: Tensor, mine: Tensor, weights: Tensor, old_log_std: Tensor, counts: Optional[Tensor] = None
    ) -> Tensor:
        """One gradient step; returns the KL (P,). Takes and returns tensors alone, so that CUDA can capture it.

        Args:
            shared, mine: what PackedBatch.gather returned.  weights, counts: of RowWeights.  old_log_std: (P, A).
        """
        net, train = self.policies.net, self.train
        rows = PackedBatch.unpack(shared, mine, self.policies.num_actions)
        self.optimizer.zero_grad()
        mean, values, log_std = net(rows.obs)
        weighted = RowWeights.unpack(weights, counts)
        outputs = (mean, values, log_std)
        loss = ppo_loss(rows, weighted, *outputs, self.critic_channels, self.method.dual_clip, train)
        loss.total.sum().backward()
        if self._gradient_mask is not None and net.flat.grad is not None:
            net.flat.grad.mul_(self._gradient_mask)
        with torch.no_grad():
            # Before the step: log_std is a view of the parameters.
            kl = kl_of_step(rows, loss, old_log_std, mean, log_std)
            norm = self.optimizer.step(train.grad_norm)
            self._stats += statistics(rows, loss, kl, norm, train.e_clip)
        return kl

    # -- checkpoints -------------------------------------------------------------------------------------------
    def state_dict(self) -> Dict[str, Any]:
        """Everything that learning changes, including the random state. Every tensor has a row per policy or run."""
        state = {
            **self.policies.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "multiplier": self.multiplier.state_dict(),
            "experience": self.collection.state_dict(),
            "generators": [g.get_state() for g in self.generators],
        }
        if self.potential is not None:
            state["potential"] = self.potential.state_dict()
        return state

    def load_state_dict(self, state: Dict[str, Any]) -> None:
        """Restore what state_dict returned; ValueError if the networks have another size."""
        self.policies.load_state_dict(state)
        self.optimizer.load_state_dict(state["optimizer"])
        self.multiplier.load_state_dict(state["multiplier"])
        self.collection.load_state_dict(state["experience"])
        if self.potential is not None:
            self.potential.load_state_dict(state["potential"])
        for generator, saved in zip(self.generators, state["generators"]):
            generator.set_state(saved)

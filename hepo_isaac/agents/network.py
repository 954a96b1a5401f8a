"""P policy networks of one shape as stacked matrices, so that all of them cost one kernel per layer."""

from __future__ import annotations

import math
from typing import Callable, Dict, List, Optional, Sequence, Tuple

import torch
from torch import Tensor, nn

_ACTIVATIONS: Dict[str, Callable[[Tensor], Tensor]] = {
    "elu": nn.functional.elu,
    "relu": nn.functional.relu,
    "tanh": torch.tanh,
    "selu": nn.functional.selu,
}


class PolicyStack(nn.Module):
    """Actor-critics with a shared trunk (rl-games' ``separate: False``), stacked along the policy axis.

    With ``num_states`` the critics see other inputs than the actors (asymmetric actor-critic, Pinto et al. 2018)
    through a trunk of their own: the last ``num_states`` columns of what ``forward`` is given, and only those.

    All parameters of policy p are row p of one flat leaf ``flat`` (P, D): gradient norms, Adam and broadcasts
    are single operations. Layer weights are views (P, in, out) of it.

    Args:
        num_policies: P.  num_obs: O, states included.  num_actions: A.  num_values: C critic heads per policy.
        units: trunk widths.  num_states: of O, what only the critics see; 0 shares one trunk.  critic_units: widths of
            the critics' own trunk, ``units`` if empty.  activation: "elu", "relu", "selu" or "tanh".
        generators: one per policy group; policy p is initialised from generators[p * len(generators) // P], so a
            run's initial weights do not depend on which other runs share the stack.
    """

    def __init__(
        self,
        num_policies: int,
        num_obs: int,
        num_actions: int,
        num_values: int,
        units: Sequence[int],
        activation: str,
        generators: Sequence[torch.Generator],
        device: torch.device,
        num_states: int = 0,
        critic_units: Sequence[int] = (),
    ) -> None:
        super().__init__()
        if activation not in _ACTIVATIONS:
            raise ValueError("unknown activation %r; valid: %s" % (activation, ", ".join(sorted(_ACTIVATIONS))))
        self.num_policies, self.num_obs, self.num_actions = num_policies, num_obs, num_actions
        self.num_values = num_values
        self.units = list(units)
        self._activation = _ACTIVATIONS[activation]
        self.num_states = num_states
        # One trunk: mu and value heads read the same features, so they are one matrix, split after the product.
        actor = [num_obs - num_states, *units, num_actions + (0 if num_states else num_values)]
        critic = [num_states, *(critic_units or units), num_values] if num_states else []
        self._actor_layers = len(actor) - 1
        self._layers: List[Tuple[int, int]] = [*zip(actor[:-1], actor[1:]), *zip(critic[:-1], critic[1:])]
        sizes = [size for fan_in, fan_out in self._layers for size in (fan_in * fan_out, fan_out)]
        self._sizes = sizes + [num_actions]
        self.flat = nn.Parameter(torch.empty(num_policies, sum(self._sizes), device=device))
        self._initialise(generators)

    @torch.no_grad()
    def _initialise(self, generators: Sequence[torch.Generator]) -> None:
        """torch.nn.Linear's default (uniform +-1/sqrt(fan_in)), log sigma 0: what the published networks use."""
        for p in range(self.num_policies):
            generator = generators[p * len(generators) // self.num_policies]
            pieces: List[Tensor] = []
            for fan_in, fan_out in self._layers:
                bound = 1.0 / math.sqrt(fan_in)
                for size in (fan_in * fan_out, fan_out):
                    uniform = torch.rand(size, generator=generator, device=generator.device)
                    pieces.append((2.0 * uniform - 1.0) * bound)
            pieces.append(torch.zeros(self.num_actions, device=generator.device))
            self.flat[p] = torch.cat(pieces).to(self.flat.device)

    def trunk_sizes(self) -> Tuple[List[int], List[int]]:
        """Widths from inputs to outputs of the actors' trunk and of the critics' own, [] if they share it."""
        split = self._actor_layers
        actor = [self._layers[0][0], *(out for _, out in self._layers[:split])]
        critic = self._layers[split:]
        return actor, [critic[0][0], *(out for _, out in critic)] if critic else []

    def _views(self, owners: Optional[Tensor] = None) -> Tuple[List[Tuple[Tensor, Tensor]], Tensor]:
        """Layer weights (P, in, out) and biases (P, 1, out), and log sigma (P, A); of ``owners`` (B,) only."""
        flat = self.flat if owners is None else self.flat.index_select(0, owners)
        parts = torch.split(flat, self._sizes, dim=1)
        layers = []
        for i, (fan_in, fan_out) in enumerate(self._layers):
            weight = parts[2 * i].view(len(flat), fan_in, fan_out)
            layers.append((weight, parts[2 * i + 1].view(len(flat), 1, fan_out)))
        return layers, parts[-1]

    @property
    def log_std(self) -> Tensor:
        """(P, A) state-independent log standard deviations."""
        return self.flat[:, -self.num_actions :]

    def forward(self, obs: Tensor, owners: Optional[Tensor] = None) -> Tuple[Tensor, Tensor, Tensor]:
        """Evaluate each policy on its own rows.

        Args:
            obs: (P, B, O) normalised observations.
            owners: (P',) whose network answers each block, where blocks and policies are not the same; P' for P then.

        Returns:
            mean (P, B, A), value (P, B, C) in normalised units, log_std (P, A).
        """
        layers, log_std = self._views(owners)
        split, seen = self._actor_layers, self.num_obs - self.num_states
        if self.num_states:
            return self._mlp(layers[:split], obs[..., :seen]), self._mlp(layers[split:], obs[..., seen:]), log_std
        out = self._mlp(layers, obs)
        return out[..., : self.num_actions], out[..., self.num_actions :], log_std

    def _mlp(self, layers: Sequence[Tuple[Tensor, Tensor]], x: Tensor) -> Tensor:
        """(P, B, in) -> (P, B, out), with the activation between layers."""
        for weight, bias in layers[:-1]:
            x = self._activation(torch.baddbmm(bias, x, weight))
        weight, bias = layers[-1]
        return torch.baddbmm(bias, x, weight)

    @property
    def _value_columns(self) -> slice:
        """Where the critics' heads are in the last layer."""
        return slice(0 if self.num_states else self.num_actions, None)

    @torch.no_grad()
    def rescale_values(self, scale: Tensor, shift: Tensor) -> None:
        """Replace every value head v by scale v + shift, both (P, C): PopArt (van Hasselt et al. 2016).

        Used when the value normaliser moves, so that the critics' outputs in reward units stay what they were.
        """
        layers, _ = self._views()
        weight, bias = layers[-1]
        heads = self._value_columns
        weight[..., heads] *= scale.unsqueeze(1)
        bias[..., heads] = bias[..., heads] * scale.unsqueeze(1) + shift.unsqueeze(1)

    def value_head_mask(self) -> Tensor:
        """(D,) 1 at the parameters that serve values alone, 0 at everything that decides actions."""
        mask = torch.zeros_like(self.flat[0], requires_grad=False)
        first = self._actor_layers if self.num_states else len(self._layers) - 1
        start = sum(self._sizes[: 2 * first])
        for fan_in, fan_out in self._layers[first:]:
            layer = torch.zeros(fan_in + 1, fan_out, device=mask.device)
            layer[:, self._value_columns] = 1.0
            mask[start : start + layer.numel()] = layer.flatten()
            start += layer.numel()
        return mask

    def policy_state(self, policy: int) -> Dict[str, Tensor]:
        """One policy as an rl-games ``A2CNetwork`` state dict: actor_mlp, mu, value, sigma, and critic_mlp where the
        critics have a trunk of their own (``separate: True``)."""
        layers, log_std = self._views()
        split = self._actor_layers
        state: Dict[str, Tensor] = {"a2c_network.sigma": log_std[policy].detach().clone()}
        for trunk, part in (("actor_mlp", layers[: split - 1]), ("critic_mlp", layers[split:-1])):
            for i, (weight, bias) in enumerate(part):
                state["a2c_network.%s.%d.weight" % (trunk, 2 * i)] = weight[policy].detach().t().contiguous()
                state["a2c_network.%s.%d.bias" % (trunk, 2 * i)] = bias[policy, 0].detach().clone()
        heads = (("mu", layers[split - 1], slice(None, self.num_actions)), ("value", layers[-1], self._value_columns))
        for name, (weight, bias), columns in heads:
            state["a2c_network.%s.weight" % name] = weight[policy, :, columns].detach().t().contiguous()
            state["a2c_network.%s.bias" % name] = bias[policy, 0, columns].detach().clone()
        return state

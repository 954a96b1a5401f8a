"""P policy networks of one shape as stacked matrices, so that all of them cost one kernel per layer."""

from __future__ import annotations

import math
from typing import Callable, Dict, List, Sequence, Tuple

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

    All parameters of policy p are row p of one flat leaf ``flat`` (P, D): gradient norms, Adam and broadcasts
    are single operations. Layer weights are views (P, in, out) of it.

    Args:
        num_policies: P.  num_obs: O.  num_actions: A.  num_values: C critic heads per policy.
        units: trunk widths.  activation: "elu", "relu", "selu" or "tanh".
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
    ) -> None:
        super().__init__()
        if activation not in _ACTIVATIONS:
            raise ValueError("unknown activation %r; valid: %s" % (activation, ", ".join(sorted(_ACTIVATIONS))))
        self.num_policies, self.num_obs, self.num_actions = num_policies, num_obs, num_actions
        self.num_values = num_values
        self.units = list(units)
        self._activation = _ACTIVATIONS[activation]
        widths = [num_obs, *units]
        # mu and value heads read the same features: one matrix, split after the product.
        self._layers: List[Tuple[int, int]] = list(zip(widths[:-1], widths[1:])) + [
            (widths[-1], num_actions + num_values)
        ]
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

    def _views(self) -> Tuple[List[Tuple[Tensor, Tensor]], Tensor]:
        """Layer weights (P, in, out) and biases (P, 1, out), and log sigma (P, A)."""
        parts = torch.split(self.flat, self._sizes, dim=1)
        layers = []
        for i, (fan_in, fan_out) in enumerate(self._layers):
            weight = parts[2 * i].view(self.num_policies, fan_in, fan_out)
            layers.append((weight, parts[2 * i + 1].view(self.num_policies, 1, fan_out)))
        return layers, parts[-1]

    @property
    def log_std(self) -> Tensor:
        """(P, A) state-independent log standard deviations."""
        return self.flat[:, -self.num_actions :]

    def forward(self, obs: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
        """Evaluate each policy on its own rows.

        Args:
            obs: (P, B, O) normalised observations.

        Returns:
            mean (P, B, A), value (P, B, C) in normalised units, log_std (P, A).
        """
        layers, log_std = self._views()
        x = obs
        for weight, bias in layers[:-1]:
            x = self._activation(torch.baddbmm(bias, x, weight))
        weight, bias = layers[-1]
        out = torch.baddbmm(bias, x, weight)
        return out[..., : self.num_actions], out[..., self.num_actions :], log_std

    @torch.no_grad()
    def rescale_values(self, scale: Tensor, shift: Tensor) -> None:
        """Replace every value head v by scale v + shift, both (P, C): PopArt (van Hasselt et al. 2016).

        Used when the value normaliser moves, so that the critics' outputs in reward units stay what they were.
        """
        layers, _ = self._views()
        weight, bias = layers[-1]
        heads = slice(self.num_actions, None)
        weight[..., heads] *= scale.unsqueeze(1)
        bias[..., heads] = bias[..., heads] * scale.unsqueeze(1) + shift.unsqueeze(1)

    def value_head_mask(self) -> Tensor:
        """(D,) 1 at the parameters of the value heads, 0 at everything that decides actions."""
        mask = torch.zeros_like(self.flat[0], requires_grad=False)
        fan_in, fan_out = self._layers[-1]
        start = sum(self._sizes) - self._sizes[-1] - fan_in * fan_out - fan_out
        head = torch.zeros(fan_in + 1, fan_out, device=mask.device)
        head[:, self.num_actions :] = 1.0
        mask[start : start + head.numel()] = head.flatten()
        return mask

    def policy_state(self, policy: int) -> Dict[str, Tensor]:
        """One policy as an rl-games ``A2CNetwork`` state dict (actor_mlp, mu, value, sigma)."""
        layers, log_std = self._views()
        state: Dict[str, Tensor] = {"a2c_network.sigma": log_std[policy].detach().clone()}
        for i, (weight, bias) in enumerate(layers[:-1]):
            state["a2c_network.actor_mlp.%d.weight" % (2 * i)] = weight[policy].detach().t().contiguous()
            state["a2c_network.actor_mlp.%d.bias" % (2 * i)] = bias[policy, 0].detach().clone()
        weight, bias = layers[-1]
        for name, part in (("mu", slice(None, self.num_actions)), ("value", slice(self.num_actions, None))):
            state["a2c_network.%s.weight" % name] = weight[policy, :, part].detach().t().contiguous()
            state["a2c_network.%s.bias" % name] = bias[policy, 0, part].detach().clone()
        return state

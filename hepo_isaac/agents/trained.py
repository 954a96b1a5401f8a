"""A trained policy without an agent: restored from a checkpoint, and taken out as the plain layers that act."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, List, Mapping, Optional, Tuple, Union

import torch
from torch import Tensor

from hepo_isaac.agents.config import TrainConfig, train_config
from hepo_isaac.agents.policies import Policies
from hepo_isaac.errors import UserError, fitting
from hepo_isaac.methods.method import MethodConfig, method_from_config

# RunningMeanStd.normalize's defaults, which are rl-games'.
OBS_SPREADS, OBS_EPS = 5.0, 1e-5
HEURISTIC = "heuristic"  # another word for the policy that maximises h


def policy_index(method: MethodConfig, name: str) -> int:
    """Which policy of a run ``name`` is: one of the method's names, or heuristic for the one that maximises h alone.

    Raises:
        UserError: it has no such policy.
    """
    names = method.policy_names
    wanted = "pi_h" if name == HEURISTIC and HEURISTIC not in names else name
    if wanted not in names:
        raise UserError("algo %s has no policy %r; it has: %s" % (method.name, name, ", ".join(names)))
    return names.index(wanted)


def restored_policies(
    algo: Mapping[str, Any],
    train: Mapping[str, Any],
    weights: Mapping[str, Any],
    num_obs: int,
    num_actions: int,
    num_states: int = 0,
    device: Union[str, torch.device] = "cpu",
) -> Policies:
    """All policies of one run as they were when a checkpoint was written.

    Args:
        algo, train: those groups of the run's settings.  weights: the agent part of the checkpoint.
        num_obs: O, the states of critics included.  num_actions: A.  num_states: how many of the O only critics see.

    Raises:
        CheckpointError: the checkpoint is of other networks.
    """
    device = torch.device(device)
    method = method_from_config(algo)
    generators = [torch.Generator(device)]
    found = Policies(
        method.num_policies, train_config(train), num_obs, num_actions, generators, device, num_states=num_states
    )
    with fitting("the checkpoint"):
        found.load_state_dict(weights["learner"])
    return found


@dataclass(frozen=True)
class Actor:
    """One policy's way from an observation to its mean action; float32 on the CPU.

    layers: weight (out, in) and bias (out,) of each.  activation: between them, as in TrainConfig.
    mean, std: (O,) that observations are standardised with, or None where they are not.
    clip: bound on standardised observations.  log_std: (A,) of the noise in training.
    num_obs: O, without what only critics see.  num_actions: A.
    """

    layers: List[Tuple[Tensor, Tensor]]
    activation: str
    mean: Optional[Tensor]
    std: Optional[Tensor]
    clip: float
    log_std: Tensor

    @property
    def num_obs(self) -> int:
        """O."""
        return int(self.layers[0][0].shape[1])

    @property
    def num_actions(self) -> int:
        """A."""
        return int(self.layers[-1][0].shape[0])


def actor_of(policies: Policies, policy: int, train: TrainConfig) -> Actor:
    """The actor of one policy of a single run."""
    prefix, state = "a2c_network.", policies.net.policy_state(policy)
    layers = []
    for name in ["actor_mlp.%d" % (2 * i) for i in range(len(train.units))] + ["mu"]:
        parts = (state["%s%s.%s" % (prefix, name, kind)] for kind in ("weight", "bias"))
        weight, bias = (part.cpu().clone() for part in parts)  # host read: a policy is loaded once
        layers.append((weight, bias))
    seen = layers[0][0].shape[1]
    mean = std = None
    if train.normalize_input:
        mean = policies.obs_norm.mean[0, :seen].to("cpu", torch.float32)
        std = policies.obs_norm.std(OBS_EPS)[0, :seen].cpu()  # host read: a policy is loaded once
    sigma = state[prefix + "sigma"].cpu()  # host read: a policy is loaded once
    return Actor(layers, train.activation, mean, std, OBS_SPREADS, sigma)

"""A policy as rl-games' own checkpoint: PpoPlayerContinuous restores it and acts alike.

The network is rl-games' A2CNetwork with its normalisers of observations and of values. Its critic is that of the task
reward r alone, in r's units, since environments of rl-games have one reward. Where the critics see more than the policy
(asymmetric observations) A2CNetwork has no place for them, and the critic is 0: a player never asks it.
"""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any, Callable, Dict, Mapping

import numpy as np
import torch
from torch import Tensor

from hepo_isaac.agents.policies import Policies
from hepo_isaac.agents.trained import OBS_EPS, Actor
from hepo_isaac.envs.faults import LARGEST
from hepo_isaac.envs.task_env import OBS_CLIP

TASK_CHANNEL = 0  # of the value heads: r


def rl_games_params(actor: Actor, units: Any) -> Dict[str, Any]:
    """rl-games' ``params`` with which its Runner or player builds this network; what an environment is, is left out."""
    linear: Dict[str, Any] = {"name": "default"}
    return {
        "algo": {"name": "a2c_continuous"},
        "model": {"name": "continuous_a2c_logstd"},
        "network": {
            "name": "actor_critic",
            "separate": False,
            "space": {
                "continuous": {
                    "mu_activation": "None",
                    "sigma_activation": "None",
                    "mu_init": linear,
                    "sigma_init": {"name": "const_initializer", "val": 0},
                    "fixed_sigma": True,
                }
            },
            "mlp": {"units": list(units), "activation": actor.activation, "d2rl": False, "initializer": linear},
        },
        "config": {"normalize_input": actor.mean is not None, "normalize_value": True, "clip_actions": True},
    }


def write(actor: Actor, policies: Policies, policy: int, about: Mapping[str, Any]) -> bytes:
    """The .pth: ``model``, ``running_mean_std``, and ``metadata`` with ``about`` and the ``params`` that fit."""
    model = _network(actor, policies, policy)
    saved: Dict[str, Any] = {"model": model}
    if actor.mean is not None:
        norm = policies.obs_norm
        saved["running_mean_std"] = {
            "running_mean": norm.mean[0, : actor.num_obs].to("cpu", torch.float64),
            "running_var": norm.var[0, : actor.num_obs].to("cpu", torch.float64),
            "count": norm.count[0, 0].to("cpu", torch.float64),
        }
        model.update(("running_mean_std." + key, value) for key, value in saved["running_mean_std"].items())
    params = rl_games_params(actor, [len(bias) for _, bias in actor.layers[:-1]])
    saved["metadata"] = {**about, "rl_games": params}
    buffer = io.BytesIO()
    torch.save(saved, buffer)
    return buffer.getvalue()


def _network(actor: Actor, policies: Policies, policy: int) -> Dict[str, Tensor]:
    """A2CNetwork's weights, the value head in the units that rl-games' own denormalisation ends in."""
    norm, prefix = policies.value_norm, "a2c_network."
    model = {key: value.cpu() for key, value in policies.net.policy_state(policy).items() if "critic_mlp" not in key}
    mean, var = (x[policy, TASK_CHANNEL : TASK_CHANNEL + 1].to("cpu", torch.float64) for x in (norm.mean, norm.var))
    # rl-games adds its epsilon to the variance here, this package does not.
    share = (var / (var + OBS_EPS)).sqrt().to(torch.float32)
    weight, bias = (model[prefix + "value." + kind][TASK_CHANNEL : TASK_CHANNEL + 1] for kind in ("weight", "bias"))
    if policies.net.num_states:
        weight, bias = torch.zeros(1, actor.layers[-1][0].shape[1]), torch.zeros(1)
    model[prefix + "value.weight"], model[prefix + "value.bias"] = weight * share, bias * share
    count = norm.count[policy, 0].to("cpu", torch.float64)
    model.update({"value_mean_std.running_mean": mean, "value_mean_std.running_var": var})
    model["value_mean_std.count"] = count
    return model


def rl_games_player(file: Path, obs_clip: float = OBS_CLIP) -> Any:
    """rl-games' own player with the file restored, for batches; without an environment."""
    import gymnasium
    from rl_games.algos_torch.players import PpoPlayerContinuous

    about = torch.load(str(file), map_location="cpu", weights_only=True)["metadata"]
    params = about["rl_games"]
    low, high = -np.ones(about["action"]["size"], np.float32), np.ones(about["action"]["size"], np.float32)
    bound = np.full(about["observation"]["size"], obs_clip, np.float32)
    spaces = {
        "observation_space": gymnasium.spaces.Box(-bound, bound),
        "action_space": gymnasium.spaces.Box(low, high),
    }
    config = {**params["config"], "env_name": about["task"], "env_info": spaces, "device_name": "cpu"}
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its layers
        player = PpoPlayerContinuous({**params, "config": config})
        player.restore(str(file))
    player.has_batch_dimension = True
    return player


def run(file: Path) -> Callable[[np.ndarray], np.ndarray]:
    """The file as rl-games' player acts on what an environment shows, which clips its observations."""
    player = rl_games_player(file)

    def act(obs: np.ndarray) -> np.ndarray:
        seen = np.clip(np.where(np.abs(obs) <= LARGEST, obs, np.float32(0.0)), -OBS_CLIP, OBS_CLIP)
        return np.asarray(player.get_action(torch.from_numpy(seen), is_deterministic=True).numpy())

    return act


def metadata(file: Path) -> Dict[str, Any]:
    """What ``about`` was when the file was written, and ``rl_games``."""
    return dict(torch.load(str(file), map_location="cpu", weights_only=True)["metadata"])

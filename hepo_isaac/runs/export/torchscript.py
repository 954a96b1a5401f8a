"""A policy as a TorchScript archive, for C++ (libtorch) and for torch without this package."""

from __future__ import annotations

import io
import json
import warnings
from pathlib import Path
from typing import Any, Callable, Dict, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from hepo_isaac.agents.policies import Policies
from hepo_isaac.agents.trained import Actor
from hepo_isaac.envs.faults import LARGEST
from hepo_isaac.envs.task_env import OBS_CLIP

METADATA = "metadata.json"  # among the archive's extra files
MODULES = {"elu": nn.ELU, "relu": nn.ReLU, "selu": nn.SELU, "tanh": nn.Tanh}


class ScriptedPolicy(nn.Module):
    """observation (N, O) -> action (N, A) in [-1, 1], with everything between."""

    def __init__(self, actor: Actor) -> None:
        super().__init__()
        self.obs_clip, self.spreads, self.largest = OBS_CLIP, actor.clip, LARGEST
        self.normalize = actor.mean is not None
        zero = torch.zeros(actor.num_obs)
        self.mean = nn.Parameter(zero if actor.mean is None else actor.mean)
        self.std = nn.Parameter(zero + 1.0 if actor.std is None else actor.std)
        modules = []
        for weight, bias in actor.layers:
            layer = nn.Linear(weight.shape[1], weight.shape[0])
            with torch.no_grad():
                layer.weight.copy_(weight)
                layer.bias.copy_(bias)
            modules += [layer, MODULES[actor.activation]()]
        self.layers = nn.Sequential(*modules[:-1])
        self.requires_grad_(False)

    def forward(self, observation: Tensor) -> Tensor:
        """See the class."""
        sound = observation.abs() <= self.largest
        x = torch.where(sound, observation, torch.zeros_like(observation)).clamp(-self.obs_clip, self.obs_clip)
        if self.normalize:
            x = ((x - self.mean) / self.std).clamp(-self.spreads, self.spreads)
        return self.layers(x).clamp(-1.0, 1.0)


def write(actor: Actor, policies: Policies, policy: int, about: Mapping[str, Any]) -> bytes:
    """The archive, with ``about`` as JSON in its extra file metadata.json."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():  # torch wants everybody to leave TorchScript, which robots still run
        warnings.simplefilter("ignore")
        scripted = torch.jit.script(ScriptedPolicy(actor).eval())
        torch.jit.save(scripted, buffer, _extra_files={METADATA: json.dumps(about, indent=1).encode("utf-8")})
    return buffer.getvalue()


def run(file: Path) -> Callable[[np.ndarray], np.ndarray]:
    """The archive as torch runs it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = torch.jit.load(str(file), map_location="cpu")

    def act(obs: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return np.asarray(module(torch.from_numpy(obs)).numpy())

    return act


def metadata(file: Path) -> Dict[str, Any]:
    """What ``about`` was when the archive was written."""
    extra = {METADATA: ""}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.load(str(file), map_location="cpu", _extra_files=extra)
    return dict(json.loads(extra[METADATA]))

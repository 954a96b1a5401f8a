"""HepoPlayer: rl-games' player for a trained policy, counting whole episodes."""

from __future__ import annotations

from typing import Any, Callable, Dict, List

import torch
from torch import Tensor

from hepo_isaac.agents.config import train_config
from hepo_isaac.agents.episodes import play_shares
from hepo_isaac.agents.policies import Policies
from hepo_isaac.agents.trained import policy_index
from hepo_isaac.agents.weights import load_agent
from hepo_isaac.errors import fitting
from hepo_isaac.methods.method import method_from_config


class HepoPlayer:
    """Runs one policy of a checkpoint; created by rl-games' Runner through ``player_factory``.

    Args:
        params: rl-games' parameters as for the agent; ``params["config"]["player"]`` holds episodes (how many to
            count), deterministic (act with the mean), policy (name), record (keep the engine state of env 0 for
            a film) and, if there is one, at (told the number of each control step).
        vec_env: the environments, all starting at the beginning of an episode.
    """

    def __init__(self, params: Dict[str, Any], vec_env: Any) -> None:
        config = params["config"]
        self._settings = config["player"]
        self._env = vec_env
        self._device = torch.device(config["device"])
        info = vec_env.get_env_info()
        method = method_from_config(config["method"])
        self._policy = policy_index(method, self._settings["policy"])
        generators = [torch.Generator(self._device).manual_seed(int(config["seeds"][0]))]
        self._generator = generators[0]
        self.policies = Policies(
            method.num_policies,
            train_config(config["train"]),
            info["observation_space"].shape[0],
            info["action_space"].shape[0],
            generators,
            self._device,
            int(info.get("state_size", 0)),
        )
        self.result: Dict[str, Any] = {}

    def set_weights(self, weights: Dict[str, Any]) -> None:
        """Take policies and normalisers from the agent part of a checkpoint; the random stream stays the player's."""
        with fitting("the checkpoint"):
            self.policies.load_state_dict(weights["learner"])

    def restore(self, filename: str) -> None:
        """rl-games' hook."""
        self.set_weights(load_agent(filename))

    @torch.no_grad()
    def run(self) -> None:
        """Leave what play_episodes returns in ``result``."""
        self.result = play_episodes(
            self._env,
            self.act,
            int(self._settings["episodes"]),
            bool(self._settings["record"]),
            self._settings.get("at", _nobody),
        )

    @torch.no_grad()
    def act(self, obs: Tensor) -> Tensor:
        """Actions (N, K) for observations (N, O + S): means, or draws where not deterministic."""
        if self._settings["deterministic"]:
            return self.policies.act_deterministic(obs, self._policy)
        stacked = obs.unsqueeze(0).expand(self.policies.num_policies, -1, -1)
        noise = torch.randn(obs.shape[0], self.policies.num_actions, generator=self._generator, device=self._device)
        return self.policies.act(stacked, noise.unsqueeze(0).expand(len(stacked), -1, -1))[0][self._policy]


def _nobody(step: int) -> None:
    """Nobody waits for an evaluation."""


def play_episodes(
    env: Any,
    act: Callable[[Tensor], Tensor],
    episodes: int,
    record: bool,
    at: Callable[[int], None] = _nobody,
) -> Dict[str, Any]:
    """Play until every env of ``env`` (a vec_env) has finished its share of the episodes.

    Args:
        act: observations (N, O) to actions (N, K).  record: keep what a film shows of env 0's share.  at: told the
            number of each control step.

    Returns:
        return_task, return_heuristic, episode_length and one list per metric, an entry per episode; ``trajectory``;
        ``diverged``, how many episodes the physics cut off, which count nowhere else.
    """
    obs = env.reset()
    share = -(-episodes // obs.shape[0])
    lists: Dict[str, List[Tensor]] = {}
    trajectory: List[Dict[str, Tensor]] = []

    def film(finished: Tensor) -> None:
        if record and bool(finished[0] < share):  # host read: a film ends with its last episode
            trajectory.append(env.env.render_state(0))

    lost = torch.zeros((), dtype=torch.int64, device=obs.device)
    for number, step in enumerate(play_shares(env, act, share, obs, film)):
        at(number + 1)
        lost += step.lost.sum()
        rows = step.ended.nonzero().flatten()  # host read: an evaluation keeps single episodes
        values = {"return_task": step.sums[:, 0], "return_heuristic": step.sums[:, 1], "episode_length": step.length}
        values.update(zip(step.infos["metric_names"], step.infos["metrics"].unbind(1)))
        for name, value in values.items():
            lists.setdefault(name, []).append(value[rows].to(torch.float32))
    result: Dict[str, Any] = {k: torch.cat(parts).tolist() for k, parts in lists.items()}  # host read: the result
    result.update(trajectory=trajectory, diverged=int(lost))  # host read: the result
    return result

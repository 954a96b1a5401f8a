"""What a viewer shows: robots that act by a policy chosen at any time, and what they are rewarded for."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Any, Callable, Deque, Dict, List, Mapping, Optional, Tuple

import torch
from torch import Tensor

RANDOM, SLIDERS, ZERO = "random", "sliders", "zero"
EPISODES = 200  # that the curves go back


class Show:
    """N environments, stepped one control step at a time.

    Args:
        env: a TaskEnv whose episodes begin at their beginning.
        players: from the name of a policy to a function of observations (N, O) that gives actions (N, K).
        seed: of random actions.

    Attributes:
        policy: who acts; may be set between steps.  sliders: (K,) what acts for ``sliders``.
        rewards: mean over envs of the last step's r, h and every term, by name.
        episodes: (policy, J, H, length) of those that ended, the newest last.
    """

    def __init__(self, env: Any, players: Mapping[str, Callable[[Tensor], Tensor]], seed: int = 0) -> None:
        self.env = env
        self.players: Dict[str, Callable[[Tensor], Tensor]] = dict(players)
        self.policy = next(iter(self.players), RANDOM)
        self.sliders = torch.zeros(env.num_actions, device=env.device)
        self.rewards: Dict[str, float] = {}
        self.episodes: Deque[Tuple[str, float, float, int]] = deque(maxlen=EPISODES)
        self.steps = 0
        self._random = torch.Generator(env.device).manual_seed(seed)
        self._sums = torch.zeros(env.num_envs, 2, device=env.device)
        self._length = torch.zeros(env.num_envs, device=env.device)
        self._obs = env.reset()

    def choices(self) -> List[str]:
        """Who may act."""
        return [*self.players, RANDOM, ZERO, SLIDERS]

    def replace(self, players: Mapping[str, Callable[[Tensor], Tensor]]) -> None:
        """Other weights, between two steps; who acts stays if it is still there."""
        self.players = dict(players)
        if self.policy not in self.choices():
            self.policy = next(iter(self.players), RANDOM)

    def restart(self) -> None:
        """Begin all episodes anew."""
        self._obs = self.env.reset()
        self._sums.zero_()
        self._length.zero_()

    @torch.no_grad()
    def step(self) -> None:
        """One control step of all envs."""
        result = self.env.step(self._actions(self._obs))
        self._obs = result.obs
        self._sums += result.rewards
        self._length += 1
        means = torch.cat((result.rewards, result.terms), 1).mean(0).tolist()
        self.rewards = dict(zip(("r", "h", *result.term_names), means))
        for env in result.done.nonzero().flatten().tolist():
            if not bool(result.bad[env]):
                task, heuristic = self._sums[env].tolist()
                self.episodes.append((self.policy, task, heuristic, int(self._length[env])))
        self._sums.masked_fill_(result.done.unsqueeze(1), 0.0)
        self._length.masked_fill_(result.done, 0.0)
        self.steps += 1

    def _actions(self, obs: Tensor) -> Tensor:
        shape = (self.env.num_envs, self.env.num_actions)
        if self.policy in self.players:
            return self.players[self.policy](obs)
        if self.policy == SLIDERS:
            return self.sliders.expand(shape)
        if self.policy == ZERO:
            return torch.zeros(shape, device=self.env.device)
        return 2.0 * torch.rand(shape, generator=self._random, device=self.env.device) - 1.0


class Checkpoints:
    """The checkpoints of a run, which a training may be writing at this moment.

    Args:
        folder: of the checkpoints.  given: the file that was asked for, if one was.
    """

    NEWEST = "newest"

    def __init__(self, folder: Path, given: Optional[str] = None) -> None:
        self.folder, self.given = folder, given

    def names(self) -> List[str]:
        """ "newest", and every file that is there: best.pt, last.pt and those of iterations, the newest first."""
        files = sorted(self.folder.glob("*.pt"), key=lambda p: p.stat().st_mtime, reverse=True)
        return [self.NEWEST, *(p.name for p in files if p.name != "failed.pt")]

    def file(self, name: str) -> Optional[Path]:
        """Its path, or None where there is none (any more)."""
        if name == self.NEWEST:
            name = next(iter(self.names()[1:]), "")
        path = self.folder / name
        return path if name and path.is_file() else None

    def stamp(self, name: str) -> Tuple[str, int]:
        """Changes when what ``name`` stands for does."""
        path = self.file(name)
        if path is None:
            return "", 0
        try:
            return path.name, path.stat().st_mtime_ns
        except OSError:
            return "", 0

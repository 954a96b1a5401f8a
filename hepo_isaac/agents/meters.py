"""Episode statistics per policy as masked sums on the device; one host read per iteration empties them."""

from __future__ import annotations

from typing import Dict, List, Optional, Sequence

import torch
from torch import Tensor

from hepo_isaac.agents.window import ReturnWindow


class EpisodeMeter:
    """Sums per-step quantities over episodes and, at each episode end, adds them to per-policy totals.

    Args:
        num_envs: N.  num_policies: P; env i belongs to policy i // (N / P), or as owners says.
        names: quantities summed over an episode (e.g. r, h, reward terms).
        end_names: quantities read once, at the end of an episode (e.g. success).
        owners: (B,) whose each block of N / B envs is, where the policies' shares differ.
        window: also told of every step, for methods that compare policies by whole episodes.
    """

    def __init__(
        self,
        num_envs: int,
        num_policies: int,
        names: Sequence[str],
        end_names: Sequence[str],
        device: torch.device,
        owners: Optional[Tensor] = None,
        window: Optional[ReturnWindow] = None,
    ) -> None:
        self.names, self.end_names = list(names), list(end_names)
        self.num_policies, self.window = num_policies, window
        self._owns: Optional[Tensor] = None
        if owners is not None:
            self._owns = (owners == torch.arange(num_policies, device=device).unsqueeze(1)).unsqueeze(-1)
        self.sums = torch.zeros(num_envs, len(self.names), device=device)
        self.length = torch.zeros(num_envs, 1, device=device)
        columns = len(self.names) + len(self.end_names) + 2  # + length, count
        self.totals = torch.zeros(num_policies, columns, device=device)

    def update(
        self, steps: Tensor, ends: Tensor, done: Tensor, counted: Tensor, acting: Optional[Tensor] = None
    ) -> None:
        """Add one control step.

        Args:
            steps: (N, len(names)).  ends: (N, len(end_names)), read where an episode ends.
            done: (N,) bool.  counted: (N,) bool, False for episodes that must not enter the statistics
                (cut short by the random start phase, or diverged).
            acting: (S,) which policy of each run acts now, for methods whose policies take turns in all envs: an
                episode is then counted for the policy that ended it. None: every env has its policy.
        """
        self.sums += steps
        self.length += 1.0
        row = torch.cat((self.sums, ends, self.length, torch.ones_like(self.length)), 1)
        row = row * (done & counted).unsqueeze(1)
        if self.window is not None:
            self.window.update(self.sums[:, 0], done, counted)
        if self._owns is not None:
            ended = row.view(self._owns.shape[1], -1, row.shape[1]).sum(1)
            self.totals += (ended * self._owns).sum(1)
        elif acting is None:
            self.totals += row.view(self.num_policies, -1, row.shape[1]).sum(1)
        else:
            per_run = self.num_policies // len(acting)
            mine = torch.arange(per_run, device=acting.device) == acting.unsqueeze(1)
            ended = row.view(len(acting), 1, -1, row.shape[1]).sum(2)
            self.totals += (ended * mine.unsqueeze(-1)).view_as(self.totals)
        self.sums.masked_fill_(done.unsqueeze(1), 0.0)
        self.length.masked_fill_(done.unsqueeze(1), 0.0)

    def column_names(self) -> List[str]:
        """Names of the columns of ``totals``."""
        return [*self.names, *self.end_names, "episode_length", "episodes"]

    def take(self) -> Tensor:
        """(P, columns) totals since the last call, on the device; starts afresh."""
        taken = self.totals
        self.totals = torch.zeros_like(taken)
        return taken

    def state_dict(self) -> Dict[str, Tensor]:
        """Running sums, lengths and totals."""
        window = {} if self.window is None else {"window_" + k: v for k, v in self.window.state_dict().items()}
        return {"sums": self.sums.clone(), "length": self.length.clone(), "totals": self.totals.clone(), **window}

    def load_state_dict(self, state: Dict[str, Tensor]) -> None:
        """Restore what state_dict returned."""
        self.sums.copy_(state["sums"])
        self.length.copy_(state["length"])
        self.totals.copy_(state["totals"])
        if self.window is not None:
            self.window.load_state_dict({k[len("window_") :]: v for k, v in state.items() if k.startswith("window_")})

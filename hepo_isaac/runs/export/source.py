"""What is exported: a checkpoint of a run, its settings, and one of its policies with environments to try it in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Optional

import torch
from torch import Tensor

from hepo_isaac.agents.policies import Policies
from hepo_isaac.errors import UserError
from hepo_isaac.runs.record.folder import RunFolder

ENVS, STEPS = 8, 125  # whose observations are recorded: 1,000
WILD = 200  # rows far outside of what the environment shows


@dataclass(frozen=True)
class Source:
    """A run's checkpoint.

    cfg: the run's settings, on an engine of the CPU.  checkpoint: what the file holds.
    """

    folder: RunFolder
    file: Path
    cfg: Dict[str, Any]
    checkpoint: Dict[str, Any]


def find_source(run: str, checkpoint: Optional[str], trust: bool) -> Source:
    """The checkpoint ``checkpoint`` (a file, or its name as best or iteration_000100; None: the one that is played) of
    ``run`` (a run folder or a checkpoint in one).

    Raises:
        UserError: there is none, it lies in no run folder, or the run would run code that nobody has consented to.
    """
    from hepo_isaac.config import plain
    from hepo_isaac.runs.record.checkpoint import load_checkpoint
    from hepo_isaac.runs.record.stored import blamed_on, read_run

    path = Path(run)
    if path.is_file():
        if checkpoint is not None:
            raise UserError("run=%s is a checkpoint already; leave out checkpoint=%s" % (run, checkpoint))
        home = path.parent.parent
        if not (home / "config.yaml").is_file():
            raise UserError(
                "%s lies in no run folder, and without the run's config.yaml nobody knows its network; expected "
                "<run folder>/checkpoints/%s" % (path, path.name)
            )
        folder, file = RunFolder.open(home), path
    else:
        folder = RunFolder.open(path)
        file = folder.policy_checkpoint() if checkpoint is None else _named(folder, checkpoint)
    with blamed_on(folder.config_file):
        cfg = _on_the_cpu(plain(read_run(folder.path, trust)))
    return Source(folder, file, cfg, load_checkpoint(file, cfg["task"]["name"], cfg["algo"]["name"]))


def _named(folder: RunFolder, checkpoint: str) -> Path:
    for path in (folder.checkpoints / checkpoint, folder.checkpoints / (checkpoint + ".pt"), Path(checkpoint)):
        if path.is_file():
            return path
    there = ", ".join(sorted(p.stem for p in folder.checkpoints.glob("*.pt"))) or "none"
    raise UserError("checkpoint=%s: %s has no such checkpoint; it has: %s" % (checkpoint, folder.path, there))


def _on_the_cpu(cfg: Dict[str, Any]) -> Dict[str, Any]:
    """The run's settings for a few environments on a CPU, wherever it was trained."""
    from hepo_isaac.sim.engines import CPU_ENGINE, NO_PHYSICS

    sim = {"name": NO_PHYSICS} if cfg["sim"]["name"] == NO_PHYSICS else {"name": CPU_ENGINE, "threads": 1}
    return {**cfg, "num_envs": ENVS, "device": "cpu", "sim": sim}


# ---- what the policy does in the environments ----------------------------------------------------------------------


def acts(policies: Policies, policy: int, obs: Tensor) -> Tensor:
    """What an environment makes of raw observations (N, O + S) and does with the policy's mean actions, (N, A)."""
    from hepo_isaac.envs.faults import sound
    from hepo_isaac.envs.task_env import OBS_CLIP

    seen = obs.masked_fill(~sound(obs), 0.0).clamp(-OBS_CLIP, OBS_CLIP)
    return policies.act_deterministic(seen, policy).clamp(-1.0, 1.0)


@torch.no_grad()
def recorded(env: Any, policies: Policies, policy: int, seed: int = 0) -> Tensor:
    """(ENVS * STEPS, O + S) observations: half of the environments are led by the policy, half act at random."""
    generator = torch.Generator().manual_seed(seed)
    obs, rows = env.reset(), []
    for _ in range(STEPS):
        rows.append(obs.clone())
        actions = acts(policies, policy, obs)
        actions[::2] = 2.0 * torch.rand(actions[::2].shape, generator=generator) - 1.0
        obs = env.step(actions).obs
    return torch.cat(rows)


def wild(columns: int, seed: int = 0) -> Tensor:
    """(WILD, columns) numbers of sizes from 1 to 1e9, some of them infinite or none at all."""
    generator = torch.Generator().manual_seed(seed)
    sizes = 10.0 ** (9.0 * torch.rand(WILD, 1, generator=generator))
    values = sizes * torch.randn(WILD, columns, generator=generator)
    for k, broken in enumerate((float("nan"), float("inf"), float("-inf"))):
        values[k, :: k + 1] = broken
    return values

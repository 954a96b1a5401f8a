"""Side-by-side runs of one process, or of one rank: their observers, the training, and its end."""

from __future__ import annotations

import itertools
import os
import secrets
from dataclasses import replace
from typing import Any, Dict, Optional, Sequence, Tuple

from hepo_isaac import ranks
from hepo_isaac.runs.train import spread
from hepo_isaac.runs.train.observer import RunObserver, RunOptions
from hepo_isaac.runs.train.seeds import SeedsObserver


def train_in(
    folders: Sequence[Any],
    configs: Sequence[Dict[str, Any]],
    env: Any,
    facts: Sequence[Tuple[str, str]],
    checkpoints: Optional[Sequence[Dict[str, Any]]],
    quiet: bool = False,
) -> int:
    """Train the runs of ``folders``, whose configurations differ in the seed alone; returns the exit code."""
    from hepo_isaac.agents.register import run_training
    from hepo_isaac.agents.spread import Leader
    from hepo_isaac.envs.rl_games import RlGamesVecEnv

    cfg = configs[0]
    options = RunOptions(
        checkpoint_every=cfg["checkpoint_every"],
        keep_checkpoints=cfg["keep_checkpoints"],
        success=cfg["task"].get("success"),
        tensorboard=cfg["tensorboard"],
        wandb=configs[0]["wandb"],
        plot=cfg["plot"],
        video_every=cfg["video_every"],
        quiet=quiet or len(folders) > 1,
    )
    # an observer hands the checkpoint's agent part to the agent, and its own part to itself
    # and an agent of W&B has one run to give: it is the first one's
    runs = [
        RunObserver(
            folder,
            _header(config, env),
            facts,
            replace(options, wandbs_agent=k == 0, video_every=options.video_every * (k == 0)),
            checkpoint,
            config,
        )
        for k, (folder, config, checkpoint) in enumerate(zip(folders, configs, checkpoints or itertools.repeat(None)))
    ]
    observer = SeedsObserver(runs, int(cfg["evaluation_episodes"]), options.success, facts, quiet)
    chosen = Leader(observer) if ranks.active() else observer
    try:
        run_training({**spread.own(cfg), "run_seeds": [c["seed"] for c in configs]}, RlGamesVecEnv(env), chosen)
    except BaseException as error:
        for folder in folders:
            folder.end_unfinished(error)
        raise
    finally:
        env.close()
        for folder in folders:
            folder.release()
    if observer.interrupted:
        return 128 + int(runs[0].stop.signal or 2)
    return 0


def follow(configs: Sequence[Dict[str, Any]], env: Any, checkpoints: Optional[Sequence[Dict[str, Any]]]) -> int:
    """Train on a rank that records nothing."""
    from hepo_isaac.agents.register import run_training
    from hepo_isaac.agents.spread import Follower
    from hepo_isaac.envs.rl_games import RlGamesVecEnv

    states = None if checkpoints is None else [c["agent"] for c in checkpoints]
    try:
        mine = {**spread.own(configs[0]), "run_seeds": [c["seed"] for c in configs]}
        run_training(mine, RlGamesVecEnv(env), Follower(states))
    finally:
        env.close()
    return 0


def grouped(wandb: Dict[str, Any]) -> Dict[str, Any]:
    """W&B options of several runs side by side: one group, unless the user has named one."""
    if not wandb["enabled"] or wandb.get("group") or os.environ.get("WANDB_RUN_GROUP"):
        return wandb
    from hepo_isaac.runs.record.wandb_record import agents_id

    return {**wandb, "group": "seeds-" + (agents_id(os.environ) or secrets.token_hex(4))}


def _header(cfg: Dict[str, Any], env: Any) -> Dict[str, Any]:
    """What a checkpoint says of its run, and of the networks in it: observations that policies see, states that only
    critics see, actions."""
    header = {"task": cfg["task"]["name"], "algo": cfg["algo"]["name"]}
    header.update(num_envs=cfg["num_envs"], seed=cfg["seed"])
    sizes = {"num_obs": env.num_obs - env.num_states, "num_states": env.num_states, "num_actions": env.num_actions}
    return {**header, **sizes}

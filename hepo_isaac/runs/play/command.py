"""Play a trained policy: evaluation (``test=true checkpoint=…``, hepo-isaac eval) and film (hepo-isaac play)."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any, Callable, Dict, Optional, Sequence, Tuple

from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from hepo_isaac.config import check_machine, cuda_available, override_keys, plain, resolve, validate
from hepo_isaac.errors import UserError
from hepo_isaac.runs.record.checkpoint import load_checkpoint
from hepo_isaac.runs.record.folder import RunFolder
from hepo_isaac.runs.record.steps import Steps
from hepo_isaac.runs.record.stored import blamed_on, read_run
from hepo_isaac.sim.engines import CPU_ENGINE

RANDOM = "random"  # checkpoint=random: uniformly random actions


def evaluate_command(cfg: DictConfig, overrides: Sequence[str]) -> int:
    """Print a table of each policy's returns over ``eval.episodes`` episodes; ``video=true`` also films the first.

    A checkpoint inside a run folder brings its run's settings along; what the user typed goes on top.
    ``checkpoint=random`` acts at random instead.
    """
    settings, folder, file = what_is_played(cfg, overrides)
    task, algo, random = settings["task"]["name"], settings["algo"]["name"], file is None
    checkpoint = None if file is None else load_checkpoint(file, task, algo)
    how = "mean actions" if settings["eval"]["deterministic"] else "sampled actions"
    title = "%s, random actions" % task if random else "%s / %s, %s" % (task, algo, how)
    print_evaluation(title, evaluate(settings, checkpoint))
    if file is not None:
        say_checkpoint(file)
    if settings["video"]:
        from hepo_isaac.runs.play.film import default_file, film_of, unused
        from hepo_isaac.runs.play.given import Shown

        target = unused(default_file(Shown(settings, folder, file)))
        print("video: %s" % film_of(settings, checkpoint, target, "pi" if file is not None else RANDOM))
    return 0


def what_is_played(
    cfg: DictConfig, overrides: Sequence[str]
) -> Tuple[Dict[str, Any], Optional[RunFolder], Optional[Path]]:
    """(resolved settings, run folder, checkpoint) of ``cfg.checkpoint``; the last two are None where there is none.

    Args:
        cfg: composed of ``overrides``, which are what the user typed.
    """
    if not cfg.checkpoint:
        raise UserError("test=true needs checkpoint=<file or run folder>, or checkpoint=random for random actions")
    folder, file = (None, None) if str(cfg.checkpoint) == RANDOM else locate_checkpoint(str(cfg.checkpoint))
    cuda = cuda_available()
    if folder is None:
        settled = resolve(cfg, overrides, cuda)
    else:
        settled = run_settings(read_run(folder.path, bool(cfg.trust)), cfg, overrides, cuda)
    if "num_envs" not in override_keys(overrides):
        settled.num_envs = min(int(settled.eval.episodes), int(settled.num_envs))
    with blamed_on(folder.config_file) if folder is not None else contextlib.nullcontext():
        check_machine(settled, cuda)
        validate(settled, training=False)
        return plain(settled), folder, file


def say_checkpoint(file: Path) -> None:
    """Print which checkpoint plays, and what one of a run is the checkpoint of."""
    why = {
        "best.pt": " (the highest mean task return of 100 training episodes, with sampled actions)",
        "last.pt": " (the end of the run so far)",
    }
    Console().print("checkpoint: %s%s" % (file, why.get(file.name, "")), soft_wrap=True)


def locate_checkpoint(given: str) -> Tuple[Optional[RunFolder], Path]:
    """(its run folder or None, checkpoint file) of a run folder or a checkpoint file."""
    path = Path(given)
    if path.is_dir():
        folder = RunFolder.open(path)
        return folder, folder.policy_checkpoint()
    if not path.is_file():
        raise UserError("checkpoint=%s: there is no such file or run folder" % given)
    home = path.parent.parent
    return (RunFolder.open(home) if (home / "config.yaml").is_file() else None), path


def run_settings(run: Any, cfg: DictConfig, overrides: Sequence[str], cuda: bool) -> DictConfig:
    """Settings of a run with those on top that the user typed; a typed task or algo must be the run's.

    A run that was trained on another kind of machine is evaluated on this one's engine.
    """
    chosen = [o.partition("=")[0] for o in overrides]
    for group in ("task", "algo"):
        if group in chosen and cfg[group].name != run[group].name:
            raise UserError(
                "checkpoint=%s was trained with %s=%s, not %s"
                % (cfg.checkpoint, group, run[group].name, cfg[group].name)
            )
    missing = object()
    for key in (key for key in override_keys(overrides) if key != "trust"):
        if OmegaConf.select(run, key, default=missing) is missing:
            raise UserError("%s is no setting of the run %s" % (key, cfg.checkpoint))
        OmegaConf.update(run, key, OmegaConf.select(cfg, key), merge=False)
    if "sim" in chosen or "device" in chosen or (str(run.device).startswith("cuda") and not cuda):
        here = resolve(cfg, overrides, cuda)
        run.sim, run.device = here.sim, here.device
    return run


def evaluate(cfg: Dict[str, Any], checkpoint: Optional[Dict[str, Any]]) -> Dict[str, Dict[str, Any]]:
    """Play ``eval.episodes`` whole episodes of every policy, or of random actions without a checkpoint; returns what
    runs.evaluate.summarise does."""
    from hepo_isaac.envs.make import make_env

    env = make_env(cfg, random_start=False)
    try:
        return evaluate_in(env, cfg, checkpoint)
    finally:
        env.close()


def evaluate_in(env: Any, cfg: Dict[str, Any], checkpoint: Optional[Dict[str, Any]]) -> Dict[str, Dict[str, Any]]:
    """``evaluate`` in environments that are there: one for all policies, as Isaac Gym simulates once in a process."""
    from hepo_isaac.methods.method import method_from_config

    names = (RANDOM,) if checkpoint is None else method_from_config(cfg["algo"]).policy_names
    start, played = env.get_state(), {}
    for name in names:
        env.load_state(start)
        played[name] = _play(cfg, env, checkpoint, name, cfg["eval"]["episodes"])[0]
    return _summarise(played)


def _summarise(played: Dict[str, Dict[str, Any]]) -> Dict[str, Dict[str, Any]]:
    """Per-episode lists of each policy, summarised."""
    from hepo_isaac.runs.play.evaluate import summarise

    fixed = ("return_task", "return_heuristic", "episode_length")
    task, heuristic, length = ({p: r[key] for p, r in played.items()} for key in fixed)
    metrics = {p: {k: v for k, v in r.items() if k not in (*fixed, "diverged")} for p, r in played.items()}
    found = summarise(task, heuristic, length, metrics)
    for policy, row in found.items():
        row["diverged"] = played[policy]["diverged"]
    return found


def _play(
    cfg: Dict[str, Any],
    env: Any,
    checkpoint: Optional[Dict[str, Any]],
    policy: str,
    episodes: int,
    record: bool = False,
) -> Tuple[Dict[str, Any], Dict[str, Any]]:
    """One policy's episodes, or of random actions without a checkpoint: (what play_episodes found, film)."""
    from hepo_isaac.agents.player import play_episodes
    from hepo_isaac.agents.register import run_evaluation
    from hepo_isaac.envs.rl_games import RlGamesVecEnv

    vec_env = RlGamesVecEnv(env)
    most = -(-episodes // env.num_envs) * int(env.max_episode_length)
    with Steps("playing " + policy, most) as progress:
        if checkpoint is None:
            act = random_actions(env, int(cfg["seed"]))
            result = play_episodes(vec_env, act, episodes, record, progress.at)
        else:
            how = bool(cfg["eval"]["deterministic"]), policy, record, progress.at
            result = run_evaluation(cfg, vec_env, checkpoint["agent"], episodes, *how)
    frames = result.pop("trajectory")
    return result, (_film_of(env, frames) if record else {})


def random_actions(env: Any, seed: int) -> Callable[[Any], Any]:
    """Uniform on [-1, 1], the same for the same seed."""
    import torch

    generator = torch.Generator(env.device).manual_seed(seed)

    def act(obs: Any) -> Any:
        return 2.0 * torch.rand(len(obs), env.num_actions, generator=generator, device=env.device) - 1.0

    return act


def _film_of(env: Any, frames: Sequence[Dict[str, Any]]) -> Dict[str, Any]:
    """What render_trajectory needs, out of the engine's states."""
    scene = getattr(env.sim, "scene", None)
    if scene is None:
        raise UserError("%s cannot be filmed; play the run with sim=%s" % (type(env.sim).__name__, CPU_ENGINE))
    import torch

    qpos, markers = (torch.stack([f[key] for f in frames]).double().cpu().numpy() for key in ("qpos", "markers"))
    return {"mjcf_xml": scene.spec_text, "qpos": qpos, "markers": markers, "fps": 1.0 / env.sim.spec.control_dt}


def movie(
    cfg: Dict[str, Any], checkpoint: Optional[Dict[str, Any]], policy: str = "pi", episodes: int = 1
) -> Dict[str, Any]:
    """Episodes of a policy, or of random actions without a checkpoint, as render_trajectory's arguments."""
    from hepo_isaac.envs.make import make_env

    env = make_env(dict(cfg, num_envs=1), random_start=False)
    try:
        return _play(dict(cfg, num_envs=1), env, checkpoint, policy, episodes, record=True)[1]
    finally:
        env.close()


def film_run(folder: RunFolder, cfg: Dict[str, Any]) -> None:
    """Film a finished run's best policy; a film that fails is a line, not an error: the run is saved."""
    from hepo_isaac.runs.play.film import film_of

    try:
        checkpoint = load_checkpoint(folder.policy_checkpoint())
        print("video: %s" % film_of(cfg, checkpoint, folder.path / "video.mp4"))
    except UserError as error:
        print("warning: no video: %s" % error)


def print_evaluation(title: str, results: Dict[str, Dict[str, Any]]) -> None:
    """Table of mean ± standard error per policy."""
    from hepo_isaac.runs.play.evaluate import evaluation_rows

    table = Table(title=title)
    for column in ["", *results]:
        table.add_column(column)
    for row in evaluation_rows(results):
        table.add_row(*row)
    Console().print(table)
    lost = sum(row["diverged"] for row in results.values())
    if lost:
        print("warning: %d episodes in which the physics diverged are not counted" % lost)

"""Play a trained policy: evaluation (``test=true checkpoint=…``, hepo-isaac eval) and film (hepo-isaac play)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

from omegaconf import DictConfig, OmegaConf

from hepo_isaac.config import check_machine, cuda_available, override_keys, plain, resolve, validate
from hepo_isaac.errors import UserError
from hepo_isaac.runs.checkpoint import load_checkpoint
from hepo_isaac.runs.folder import RunFolder


def evaluate_command(cfg: DictConfig, overrides: Sequence[str]) -> int:
    """Print a table of each policy's returns over ``eval.episodes`` episodes; ``video=true`` also films the first.

    A checkpoint inside a run folder brings its run's settings along; what the user typed goes on top.
    """
    if not cfg.checkpoint:
        raise UserError("test=true needs checkpoint=<file or run folder>")
    folder, file = locate_checkpoint(str(cfg.checkpoint))
    cuda = cuda_available()
    if folder is None:
        settled = resolve(cfg, overrides, cuda)
    else:
        settled = run_settings(OmegaConf.load(folder.config_file), cfg, overrides, cuda)
    if "num_envs" not in override_keys(overrides):
        settled.num_envs = min(int(settled.eval.episodes), int(settled.num_envs))
    check_machine(settled, cuda)
    validate(settled, training=False)
    settings = plain(settled)
    checkpoint = load_checkpoint(file, settings["task"]["name"], settings["algo"]["name"])
    results = evaluate(settings, checkpoint)
    print_evaluation(settings, str(file), results)
    if settings["video"]:
        print(
            "video: %s"
            % film(settings, checkpoint, file.parent / "video.mp4" if folder is None else folder.path / "video.mp4")
        )
    return 0


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
    for key in override_keys(overrides):
        if OmegaConf.select(run, key, default=missing) is missing:
            raise UserError("%s is no setting of the run %s" % (key, cfg.checkpoint))
        OmegaConf.update(run, key, OmegaConf.select(cfg, key), merge=False)
    if "sim" in chosen or "device" in chosen or (str(run.device).startswith("cuda") and not cuda):
        here = resolve(cfg, overrides, cuda)
        run.sim, run.device = here.sim, here.device
    return run


def evaluate(cfg: Dict[str, Any], checkpoint: Dict[str, Any]) -> Dict[str, Dict[str, Any]]:
    """Play ``eval.episodes`` whole episodes of every policy; returns what runs.evaluate.summarise does."""
    from hepo_isaac.methods.method import method_from_config
    from hepo_isaac.runs.evaluate import summarise

    played = {
        name: _play(cfg, checkpoint, name, cfg["eval"]["episodes"])[0]
        for name in method_from_config(cfg["algo"]).policy_names
    }
    fixed = ("return_task", "return_heuristic", "episode_length")
    task, heuristic, length = ({p: r[key] for p, r in played.items()} for key in fixed)
    metrics = {p: {k: v for k, v in r.items() if k not in fixed} for p, r in played.items()}
    return summarise(task, heuristic, length, metrics)


def _play(
    cfg: Dict[str, Any],
    checkpoint: Dict[str, Any],
    policy: str,
    episodes: int,
    record: bool = False,
) -> Tuple[Dict[str, List[float]], Dict[str, Any]]:
    """One policy's episodes, in environments of its own: (per-episode lists, film)."""
    from hepo_isaac.agents.register import run_evaluation
    from hepo_isaac.envs.make import make_env
    from hepo_isaac.envs.rl_games import RlGamesVecEnv

    env = make_env(cfg, random_start=False)
    try:
        deterministic = bool(cfg["eval"]["deterministic"])
        result = run_evaluation(cfg, RlGamesVecEnv(env), checkpoint["agent"], episodes, deterministic, policy, record)
        frames = result.pop("trajectory")
        return result, (_film_of(env, frames) if record else {})
    finally:
        env.close()


def _film_of(env: Any, frames: Sequence[Dict[str, Any]]) -> Dict[str, Any]:
    """What render_trajectory needs, out of the engine's states."""
    scene = getattr(env.sim, "scene", None)
    if scene is None:
        raise UserError("%s cannot be filmed; play the run with sim=mujoco_batch" % type(env.sim).__name__)
    import torch

    qpos = torch.stack([frame["qpos"] for frame in frames]).double().cpu().numpy()
    return {"mjcf_xml": scene.spec_text, "qpos": qpos, "fps": 1.0 / env.sim.spec.control_dt}


def film(cfg: Dict[str, Any], checkpoint: Dict[str, Any], target: Path, policy: str = "pi") -> Path:
    """Film one episode of a policy without a display; returns the file."""
    from hepo_isaac.runs.video import render_trajectory

    one = dict(cfg, num_envs=1)
    movie = _play(one, checkpoint, policy, 1, record=True)[1]
    camera = cfg["task"].get("camera")
    return render_trajectory(movie["mjcf_xml"], movie["qpos"], target, movie["fps"], camera=camera)


def film_run(folder: RunFolder, cfg: Dict[str, Any]) -> None:
    """Film a finished run's best policy; a film that fails is a line, not an error: the run is saved."""
    try:
        print("video: %s" % film(cfg, load_checkpoint(folder.policy_checkpoint()), folder.path / "video.mp4"))
    except UserError as error:
        print("warning: no video: %s" % error)


def print_evaluation(cfg: Dict[str, Any], file: str, results: Dict[str, Dict[str, Any]]) -> None:
    """Table of mean ± standard error per policy."""
    from rich.console import Console
    from rich.table import Table

    from hepo_isaac.runs.evaluate import evaluation_rows

    how = "mean actions" if cfg["eval"]["deterministic"] else "sampled actions"
    table = Table(title="%s / %s, %s" % (cfg["task"]["name"], cfg["algo"]["name"], how))
    for column in ["", *results]:
        table.add_column(column)
    for row in evaluation_rows(results):
        table.add_row(*row)
    console = Console()
    console.print(table)
    console.print("checkpoint: %s" % file, soft_wrap=True)

"""``hepo-isaac play``: a film of a policy, which shows a success if there is one."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence

from hepo_isaac.errors import UserError, unknown
from hepo_isaac.runs.play.given import Shown, pairs, shown, whole, yes
from hepo_isaac.runs.play.recording import RANDOM, Episode, about, best, record
from hepo_isaac.sim.engines import CPU_ENGINE

EXAMPLE = "hepo-isaac play run=runs/… episodes=16"
EPISODES, MOST_EPISODES, MOST_TILES = 16, 1024, 36
BOTH, HEURISTIC = "both", "heuristic"
WIDTH, HEIGHT = 640, 480  # pixels of a film of one
LABELS = {"pi": "pi", "pi_h": "pi_H", "pi_j": "pi_J"}  # in letters that every font has


class Film:
    """Episodes to be drawn. mjcf_xml: of the model, "" where there is none.  fps: control steps a second."""

    def __init__(self, episodes: List[Episode], labels: List[str], mjcf_xml: str, fps: float) -> None:
        self.episodes, self.labels, self.mjcf_xml, self.fps = episodes, labels, mjcf_xml, fps


def main(arguments: Sequence[str]) -> int:
    """Film what the arguments say; returns the exit code."""
    from hepo_isaac.runs.play.command import say_checkpoint

    given = pairs("play", arguments, EXAMPLE)
    episodes = whole(given, "episodes", EPISODES, 1, MOST_EPISODES)
    grid = whole(given, "grid", 1, 1, MOST_TILES)
    every = whole(given, "every", 1, 1, 1000)
    policy, out, overwrite = given.pop("policy", "pi"), given.pop("out", ""), yes(given, "overwrite")
    what = shown("play", given, max(episodes, grid))
    target = _target(what, out, overwrite)
    names = _policies(what, policy)
    if what.file is not None:
        say_checkpoint(what.file)
    chosen = played(what.settings, _checkpoint(what), names, grid)
    print("video: %s" % draw(what.settings, chosen, target, every))
    return 0


def played(
    cfg: Dict[str, Any], checkpoint: Optional[Dict[str, Any]], policies: Sequence[str], grid: int, say: bool = True
) -> Film:
    """Play an episode of each policy in every environment of ``cfg`` and choose the ``grid`` best of each.

    Args:
        checkpoint: or None for random actions.  say: print how all went.
    """
    from hepo_isaac.envs.make import make_env

    if say:
        print("playing %d episodes of %s" % (int(cfg["num_envs"]) * len(policies), " and ".join(policies)), flush=True)
    env = make_env(cfg, random_start=False)
    try:
        model = _model(env)  # before anything is played
        start, film = env.get_state(), Film([], [], "", 1.0 / env.sim.spec.control_dt)
        film.mjcf_xml = model
        for name in policies:
            env.load_state(start)
            found = record(cfg, env, actor(cfg, env, checkpoint, name), name)
            if not found:
                raise UserError("%s has no episode to show: the physics of all worlds diverged" % name)
            if say:
                print(about(best(found), found), flush=True)
            kept = sorted(found, key=Episode.worth, reverse=True)[:grid]
            film.episodes += kept
            film.labels += [_label(e, len(policies) > 1 or grid > 1) for e in kept]
        return film
    finally:
        env.close()


def _model(env: Any) -> str:
    """The MJCF of what is filmed, "" for a task that is drawn.

    Raises:
        UserError: the engine has bodies, and none that MuJoCo can draw.
    """
    if not env.sim.spec.actors:
        return ""
    text = getattr(getattr(env.sim, "scene", None), "spec_text", None)
    if text is None:
        raise UserError("%s cannot be filmed; play the run with sim=%s" % (type(env.sim).__name__, CPU_ENGINE))
    return str(text)


def draw(cfg: Mapping[str, Any], film: Film, target: Path, every: int = 1) -> Path:
    """Write the film; every ``every``-th control step is a frame."""
    if not film.mjcf_xml:
        from hepo_isaac.runs.play.drawn import draw_film

        labels = ["%s: J %.3g, H %.3g" % (e.policy, e.task, e.heuristic) for e in film.episodes]
        return draw_film(film.episodes, labels, target, 10.0 / every)
    import numpy as np

    from hepo_isaac.runs.play.video import Tile, render_tiles

    tiles = []
    for episode, label in zip(film.episodes, film.labels):
        frames = episode.frames[::every]
        qpos, markers = (np.stack([f[key] for f in frames]) for key in ("qpos", "markers"))
        tiles.append(Tile(qpos, markers, label))
    share = 1.0 if len(tiles) == 1 else 0.6
    size = int(WIDTH * share), int(HEIGHT * share)
    return render_tiles(film.mjcf_xml, tiles, target, film.fps / every, *size, cfg["task"].get("camera"))


def film_of(cfg: Dict[str, Any], checkpoint: Optional[Dict[str, Any]], target: Path, policy: str = "pi") -> Path:
    """A film of the best of a few episodes, as a training makes it at its end."""
    few = {**cfg, "num_envs": EPISODES}
    return draw(few, played(few, checkpoint, [policy], 1, say=False), target)


def actor(cfg: Dict[str, Any], env: Any, checkpoint: Optional[Dict[str, Any]], policy: str) -> Any:
    """Observations (N, O) to actions (N, K) of a policy of a checkpoint, or random actions without one."""
    from hepo_isaac.agents.player import HepoPlayer
    from hepo_isaac.agents.register import runner_params
    from hepo_isaac.envs.rl_games import RlGamesVecEnv
    from hepo_isaac.runs.play.command import random_actions

    if checkpoint is None:
        return random_actions(env, int(cfg["seed"]))
    params = runner_params(cfg, [int(cfg["seed"])])
    how = {"episodes": 1, "deterministic": bool(cfg["eval"]["deterministic"]), "policy": policy, "record": False}
    params["config"]["player"] = how
    player = HepoPlayer(params, RlGamesVecEnv(env))
    player.set_weights(checkpoint["agent"])
    return player.act


def _checkpoint(what: Shown) -> Optional[Dict[str, Any]]:
    from hepo_isaac.runs.record.checkpoint import load_checkpoint

    if what.file is None:
        return None
    return load_checkpoint(what.file, what.settings["task"]["name"], what.settings["algo"]["name"])


def _policies(what: Shown, policy: str) -> List[str]:
    """Names of the policies that are filmed."""
    from hepo_isaac.methods.method import method_from_config

    if what.file is None:
        return [RANDOM]
    method = method_from_config(what.settings["algo"])
    names = list(method.policy_names)
    if policy == BOTH:
        if len(names) < 2:
            raise UserError(
                "policy=both needs a method with two policies, and algo=%s has %s" % (method.name, names[0])
            )
        return names
    if policy == HEURISTIC:
        found = [n for n, objective in zip(names, method.objectives) if objective == "heuristic"]
        if not found:
            raise UserError(
                "algo=%s has no policy that maximises the heuristic alone; it has: %s" % (method.name, ", ".join(names))
            )
        return found[:1]
    if policy not in names:
        raise unknown("policy of algo=%s" % method.name, policy, [*names, BOTH, HEURISTIC])
    return [policy]


def _label(episode: Episode, several: bool) -> str:
    if not several:
        return ""
    success = "" if episode.success is None else ", success" if episode.success > 0.5 else ", no success"
    return "%s: J %.3g%s" % (LABELS.get(episode.policy, episode.policy), episode.task, success)


def _target(what: Shown, out: str, overwrite: bool) -> Path:
    """Where the film goes.

    Raises:
        UserError: there is a file that was asked for by name, or a format or folder that cannot be.
    """
    from hepo_isaac.runs.play.video import FORMATS

    if not out:
        return unused(default_file(what))
    target = Path(out)
    if target.suffix not in FORMATS:
        raise UserError("out=%s: expected a name that ends in one of %s" % (out, ", ".join(FORMATS)))
    if not target.parent.is_dir():
        raise UserError("out=%s: there is no folder %s" % (out, target.parent))
    if target.exists() and not overwrite:
        raise UserError("out=%s is there already; expected another name, or overwrite=true" % out)
    return target


def default_file(what: Shown) -> Path:
    """Into the run's folder, or here if there is none or it came along with the package."""
    from hepo_isaac.runs.record.bundled import is_bundled

    task = what.settings["task"]["name"]
    if what.file is None:
        return Path("%s_random.mp4" % task)
    if what.folder is not None and is_bundled(what.folder.path):
        return Path("%s.mp4" % task)
    return (what.folder.path if what.folder is not None else what.file.parent) / "video.mp4"


def unused(path: Path) -> Path:
    """``path``, or the first of path_2, path_3, … that is not there."""
    number, found = 1, path
    while found.exists():
        number += 1
        found = path.with_name("%s_%d%s" % (path.stem, number, path.suffix))
    return found

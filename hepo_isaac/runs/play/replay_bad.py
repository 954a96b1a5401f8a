"""``hepo-isaac replay-bad run=<run folder> [out=<folder>] [trust=true]``: films of worlds that diverged in training.

A run keeps the last states of the first few worlds that went bad (``bad_worlds/``). Each becomes a film of what led to
it, the last frame being the state in which the fatal action was taken, and a line that says how fast things were then.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List, Mapping, Sequence

from hepo_isaac.arguments import pairs
from hepo_isaac.errors import UserError, fitting

SLOWER = 8.0  # a film of some forty control steps would be over in half a second


def main(arguments: Sequence[str]) -> int:
    """Command line; returns 0."""
    given = _given(arguments)
    from hepo_isaac.config import plain
    from hepo_isaac.runs.record.folder import RunFolder
    from hepo_isaac.runs.record.stored import blamed_on, read_run

    folder = RunFolder.open(given["run"])
    files = sorted(folder.bad_worlds.glob("*.pt")) if folder.bad_worlds.is_dir() else []
    if not files:
        print("no world of %s has diverged since it keeps their states" % folder.path)
        return 0
    with blamed_on(folder.config_file):
        cfg = plain(read_run(folder.path, given.get("trust") == "true"))
    out = Path(given.get("out", str(folder.bad_worlds)))
    out.mkdir(parents=True, exist_ok=True)
    _films(cfg, files, out)
    return 0


def _given(arguments: Sequence[str]) -> Dict[str, str]:
    given = pairs("replay-bad", arguments, ("run", "out", "trust"))
    if not given.get("run"):
        raise UserError("hepo-isaac replay-bad needs run=<run folder>: run=runs/… [out=folder] [trust=true]")
    return given


def _films(cfg: Dict[str, Any], files: Sequence[Path], out: Path) -> None:
    from hepo_isaac.envs.make import make_env
    from hepo_isaac.runs.play.video import render_trajectory
    from hepo_isaac.sim.engines import CPU_ENGINE

    env = make_env({**cfg, "num_envs": 1, "device": "cpu", "sim": {"name": CPU_ENGINE}}, random_start=False)
    try:
        for file in files:
            states = _read(file)
            film = {**_movie(env, states), "camera": cfg["task"].get("camera")}
            print("%s: %s" % (render_trajectory(out=out / (file.stem + ".mp4"), **film), _told(states)), flush=True)
    finally:
        env.close()


def _read(file: Path) -> Dict[str, Any]:
    import torch

    from hepo_isaac.envs.ring import FIELDS
    from hepo_isaac.runs.record.screen import load

    with fitting(str(file)):
        states: Dict[str, Any] = load(file)
        if not all(isinstance(states[name], torch.Tensor) and len(states[name]) for name in (*FIELDS, "action")):
            raise ValueError("it holds no states")
    return states


def _movie(env: Any, states: Mapping[str, Any]) -> Dict[str, Any]:
    """The states as render_trajectory's arguments, those that no model can take left out."""
    import torch

    from hepo_isaac.envs.ring import FIELDS, restore

    env.reset()
    frames: List[Any] = []
    for row in range(len(states["action"])):
        if all(bool(states[name][row].isfinite().all()) for name in FIELDS):
            restore(env.sim, states, row)
            frames.append(env.render_state(0))
    if not frames:
        raise UserError("no state of this world was finite; nothing can be filmed")
    qpos, markers = (torch.stack([frame[key] for frame in frames]).double().numpy() for key in ("qpos", "markers"))
    fps = max(1.0, 1.0 / env.sim.spec.control_dt / SLOWER)
    return {"mjcf_xml": env.sim.scene.spec_text, "qpos": qpos, "markers": markers, "fps": fps}


def _told(states: Mapping[str, Any]) -> str:
    speed, action = states["dof_vel"][-1].abs(), states["action"][-1].abs()
    return (
        "env %d, %d steps; in the last state the fastest joint, %d, moved at %.3g rad/s or m/s; actions up to %.2g"
        % (
            states["env"],
            len(states["action"]),
            float(speed.max()) if speed.numel() else 0.0,
            int(speed.argmax()) if speed.numel() else -1,
            float(action.max()),
        )
    )

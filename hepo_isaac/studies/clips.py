"""Film every robot task without a display: random actions on the left, a trained policy on the right.

    python -m hepo_isaac.studies.clips                    # all tasks, policies from runs/reference where there are any
    python -m hepo_isaac.studies.clips --tasks Ant Humanoid

The policy is the newest run's of ``--root`` (hepo_isaac.studies.reference trains them), or else the one that comes
along with the package (hepo-isaac policies), acting with its mean.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from pathlib import Path
from typing import Any, Dict, List, Optional

import numpy as np
from PIL import Image

from hepo_isaac.config import plain, resolve
from hepo_isaac.locate import robot_tasks
from hepo_isaac.overrides import compose
from hepo_isaac.runs.play.command import movie
from hepo_isaac.runs.play.video import render_trajectory
from hepo_isaac.runs.record.bundled import bundled_run, entries
from hepo_isaac.runs.record.checkpoint import load_checkpoint
from hepo_isaac.runs.record.folder import RunFolder
from hepo_isaac.runs.record.stored import read_run
from hepo_isaac.studies.places import CHECKOUT, DOCS, require_checkout

SECONDS, FPS = 6.0, 12.5
WIDTH, HEIGHT, QUALITY = 320, 240, 45


def newest(root: Path, task: str) -> Optional[RunFolder]:
    """The newest run on a task that has a checkpoint, of HEPO if there is one; else the policy that comes along."""
    for algo in ("hepo", "*"):
        runs = sorted((root / task).glob("%s/*/checkpoints/last.pt" % algo))
        if runs:
            return RunFolder.open(runs[-1].parents[1])
    return RunFolder.open(bundled_run(task)) if task in entries() else None


def frames(task: str, run: Optional[RunFolder]) -> List[np.ndarray]:
    """A clip's pictures, of uniformly random actions without a run."""
    import imageio.v2 as imageio

    mine = plain(resolve(compose(["task=" + task]), ["task=" + task], False))
    cfg: Dict[str, Any] = mine if run is None else plain(read_run(run.path))
    checkpoint = None if run is None else load_checkpoint(run.policy_checkpoint())
    cfg.update(device=mine["device"], sim=mine["sim"])
    film = movie(cfg, checkpoint)
    wanted = SECONDS * film["fps"]
    if len(film["qpos"]) < wanted:
        film = movie(cfg, checkpoint, episodes=1 + math.ceil(wanted / len(film["qpos"])))
    rows = np.arange(0.0, min(len(film["qpos"]), wanted), film["fps"] / FPS).astype(int)
    shown = {**film, "qpos": film["qpos"][rows], "markers": film["markers"][rows], "fps": FPS}
    with tempfile.TemporaryDirectory() as work:
        out = Path(work) / "clip.mp4"  # a gif would merge equal frames
        render_trajectory(out=out, width=WIDTH, height=HEIGHT, camera=mine["task"]["camera"], **shown)
        return [np.asarray(frame)[..., :3] for frame in imageio.mimread(out, memtest=False)]


def clip(task: str, root: Path) -> None:
    """Write <task>.webp."""
    run = newest(root, task)
    sides = [frames(task, None)]
    if run is not None:
        sides.append(frames(task, run))
    count = max(len(side) for side in sides)
    held = [side + [side[-1]] * (count - len(side)) for side in sides]  # an episode that ended earlier stands still
    first, *rest = [Image.fromarray(np.concatenate(row, 1)) for row in zip(*held)]
    out = DOCS / "clips" / (task + ".webp")
    first.save(out, save_all=True, append_images=rest, duration=int(1000 / FPS), loop=0, quality=QUALITY, method=4)
    print(
        "%s: %d frames, %d kB, %s" % (out.name, count, out.stat().st_size // 1000, run.path if run else "random only")
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=CHECKOUT / "runs" / "reference")
    parser.add_argument("--tasks", nargs="+", default=robot_tasks())
    args = parser.parse_args()
    require_checkout()
    for task in args.tasks:
        clip(task, args.root)


if __name__ == "__main__":
    main()

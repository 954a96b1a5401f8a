"""docs/bidex.webp: how an episode of each dexterous task starts, and a moment later, under random actions.

``python -m hepo_isaac.studies.dexterous_sheet [--out docs/bidex.webp] [task …]``
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any, Dict, List

import numpy as np
import torch

from hepo_isaac.config import plain, resolve
from hepo_isaac.envs.make import make_env
from hepo_isaac.locate import full_name, task_names, tasks_package
from hepo_isaac.overrides import compose
from hepo_isaac.runs.play.video import render_trajectory
from hepo_isaac.sim.engines import CPU_ENGINE

LATER = 12  # control steps after the start
COLUMNS = 4  # tasks side by side, each as two pictures one above the other


def pictures(task: str, width: int, height: int) -> Any:
    """(2 height, width, 3): the start of an episode above, a moment later below."""
    from PIL import Image, ImageDraw, ImageFont

    given = ["task=" + task, "device=cpu", "sim=" + CPU_ENGINE, "num_envs=1", "seed=1"]
    cfg: Dict[str, Any] = plain(resolve(compose(given), given, cuda=False))
    env = make_env(cfg, random_start=False)
    env.reset()
    generator = torch.Generator().manual_seed(1)
    shown = [env.render_state(0)]
    for _ in range(LATER):
        env.step(2.0 * torch.rand(1, env.num_actions, generator=generator) - 1.0)
    shown.append(env.render_state(0))
    xml = env.sim.scene.spec_text  # type: ignore[attr-defined]
    frames = []
    for state in shown:
        with tempfile.TemporaryDirectory() as work:
            out = Path(work) / "frame.png"
            qpos, markers = (state[key].numpy()[None] for key in ("qpos", "markers"))
            render_trajectory(xml, qpos, out, 60.0, width, height, cfg["task"]["camera"], markers=markers)
            frames.append(np.asarray(Image.open(out).convert("RGB")))
    env.close()
    image = Image.fromarray(np.concatenate(frames))
    font: Any = ImageFont.load_default(14)
    ImageDraw.Draw(image).text((6, 4), task[len("ShadowHand") :], fill=(0, 0, 0), font=font)
    return np.asarray(image)


def sheet(tiles: List[Any]) -> Any:
    """Tiles (h, w, 3) in rows of COLUMNS, the last row filled up in white."""
    tiles = tiles + [np.full_like(tiles[0], 255)] * (-len(tiles) % COLUMNS)
    return np.concatenate([np.concatenate(tiles[k : k + COLUMNS], 1) for k in range(0, len(tiles), COLUMNS)])


def main() -> None:
    """Draw the sheet."""
    from PIL import Image

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tasks", nargs="*", help="dexterous tasks, with or without ShadowHand in front; all by default")
    parser.add_argument("--out", type=Path, default=Path("docs/bidex.webp"))
    parser.add_argument("--width", type=int, default=320)
    parser.add_argument("--height", type=int, default=240)
    args = parser.parse_args()
    chosen = [full_name(name) for name in args.tasks or tasks_package().DEXTEROUS]
    unknown = sorted(set(chosen) - set(task_names()))
    if unknown:
        parser.error("no such task: %s" % ", ".join(unknown))
    Image.fromarray(sheet([pictures(task, args.width, args.height) for task in chosen])).save(args.out, quality=82)


if __name__ == "__main__":
    main()

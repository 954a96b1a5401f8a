"""Pictures of a recorded motion, with no display, in a process of their own.

A separate process because an EGL context in the process that holds Warp's CUDA context crashes, and because
MUJOCO_GL must be set before mujoco is imported for the first time.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, NamedTuple, Optional, Sequence

import numpy as np

from hepo_isaac.errors import UserError
from hepo_isaac.runs.record.steps import Steps

BACKENDS = ("egl", "osmesa")
FORMATS = (".mp4", ".gif", ".png")
SILENCE_S = 120.0  # after which a renderer is taken for stuck: a driver may hang


class Tile(NamedTuple):
    """One motion of a film. qpos: (T, nq).  markers: (T, M, 7) or None.  label: written on it."""

    qpos: np.ndarray
    markers: Optional[np.ndarray] = None
    label: str = ""


def render_trajectory(
    mjcf_xml: str,
    qpos: np.ndarray,
    out: Path,
    fps: float,
    width: int = 640,
    height: int = 480,
    camera: Optional[Dict[str, Any]] = None,
    backends: Sequence[str] = BACKENDS,
    markers: Optional[np.ndarray] = None,
) -> Path:
    """Render one env's motion: render_tiles of one."""
    return render_tiles(mjcf_xml, [Tile(qpos, markers)], out, fps, width, height, camera, backends)


def render_tiles(
    mjcf_xml: str,
    tiles: Sequence[Tile],
    out: Path,
    fps: float,
    width: int = 640,
    height: int = 480,
    camera: Optional[Dict[str, Any]] = None,
    backends: Sequence[str] = BACKENDS,
) -> Path:
    """Render motions of one model side by side; who is through stands still until all are.

    Args:
        mjcf_xml: the whole model as MJCF text that refers to no files.
        tiles: generalised positions, one row per frame, and poses (m, quaternion xyzw) of the model's mocap bodies, in
            their order.
        out: .mp4 or .gif for a film, .png for a contact sheet of up to twelve frames of the first one in reading order.
        fps: frames per second of simulated time; for a film that plays at true speed, 1 / control step [s].
        width, height: pixels of a tile.
        camera: {"name": a camera of the model} or {"lookat": [x, y, z] m, "distance": m, "azimuth": deg,
            "elevation": deg}; the whole model by default. With {"follow": a body} lookat's x and y count from there.
        backends: MUJOCO_GL values to try, in this order.

    Returns:
        ``out``.

    Raises:
        UserError: wrong shape or format, a broken model, or no way to render on this machine (says what to install).
    """
    out = Path(out)
    motions = [_checked(tile.qpos, out, fps, width, height) for tile in tiles]
    with tempfile.TemporaryDirectory(prefix="hepo_isaac_video_") as work:
        job = Path(work) / "job.json"
        for index, (tile, qpos) in enumerate(zip(tiles, motions)):
            markers = np.zeros((len(qpos), 0, 7)) if tile.markers is None else tile.markers
            np.save(str(Path(work) / ("qpos_%d.npy" % index)), qpos)
            np.save(str(Path(work) / ("markers_%d.npy" % index)), markers)
        (Path(work) / "model.xml").write_text(mjcf_xml, encoding="utf-8")
        result_file = Path(work) / "result.json"
        job.write_text(
            json.dumps(
                {
                    "out": str(out.resolve()),
                    "fps": float(fps),
                    "width": int(width),
                    "height": int(height),
                    "camera": camera or {},
                    "labels": [tile.label for tile in tiles],
                }
            ),
            encoding="utf-8",
        )
        troubles = []
        for backend in backends:
            with Steps("rendering", sum(map(len, motions)), "frames") as progress:
                result = _run_worker(job, result_file, backend, progress.at)
            if result["kind"] == "ok":
                return out
            if result["kind"] == "input":
                raise UserError("cannot render: %s" % result["message"])
            troubles.append("%s: %s" % (backend, result["message"]))
    raise no_headless_rendering(troubles)


def no_headless_rendering(troubles: Sequence[str]) -> UserError:
    """The error where no backend can draw; ``troubles`` says why of each."""
    return UserError(
        "no headless rendering on this machine (%s); install one of the libraries: "
        "apt-get install libegl1 (or libosmesa6)" % "; ".join(troubles)
    )


def _checked(qpos: np.ndarray, out: Path, fps: float, width: int, height: int) -> np.ndarray:
    """Refuse what would fail later with an obscure message."""
    qpos = np.asarray(qpos, dtype=np.float64)
    if qpos.ndim != 2 or qpos.shape[0] == 0:
        raise UserError("qpos must have shape (T, nq) with T >= 1, got %s" % (qpos.shape,))
    if not np.isfinite(qpos).all():
        raise UserError("qpos holds NaN or infinity; record only the frames before the simulation diverged")
    if out.suffix not in FORMATS:
        raise UserError("cannot write a video as %r: use one of %s" % (out.suffix or out.name, ", ".join(FORMATS)))
    if not fps > 0 or width < 16 or height < 16:
        raise UserError("fps must be positive and frames at least 16 x 16, got fps=%s, %s x %s" % (fps, width, height))
    if not out.parent.is_dir():
        raise UserError("cannot write %s: there is no folder %s" % (out, out.parent))
    return qpos


def _run_worker(job: Path, result_file: Path, backend: str, at: Callable[[int], None]) -> Dict[str, Any]:
    """Render in a child; returns {"kind": "ok" | "input" | "gl", "message"}. A crash of the child counts as "gl"."""
    if result_file.exists():
        result_file.unlink()
    env = worker_environment(backend)
    command = [sys.executable, "-m", "hepo_isaac.runs.play.video_worker", str(job), str(result_file)]
    with tempfile.TemporaryFile() as said:
        worker = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=said, text=True)
        assert worker.stdout is not None
        try:
            with _silence_ends(worker) as heard:
                for line in worker.stdout:  # one whenever some frames are done
                    heard()
                    if line.strip().isdigit():
                        at(int(line))
            worker.wait()
        finally:
            worker.kill()
            worker.stdout.close()
        if result_file.is_file():
            return dict(json.loads(result_file.read_text(encoding="utf-8")))
        said.seek(0)
        lines = said.read().decode("utf-8", "replace").strip().splitlines()
    died = "the renderer died with exit code %d" % worker.returncode
    return {"kind": "gl", "message": lines[-1][:200] if lines else died}


@contextlib.contextmanager
def _silence_ends(worker: Any) -> Iterator[Callable[[], None]]:
    """Kill ``worker`` once nothing has been heard of it for a long time."""
    timer = threading.Timer(SILENCE_S, worker.kill)
    timer.start()

    def heard() -> None:
        nonlocal timer
        timer.cancel()
        timer = threading.Timer(SILENCE_S, worker.kill)
        timer.start()

    try:
        yield heard
    finally:
        timer.cancel()


def worker_environment(backend: str) -> Dict[str, str]:
    """Environment variables of a rendering process."""
    env = dict(os.environ, MUJOCO_GL=backend, PYOPENGL_PLATFORM=backend)
    root = str(Path(__file__).resolve().parents[3])
    env["PYTHONPATH"] = os.pathsep.join([root] + ([env["PYTHONPATH"]] if env.get("PYTHONPATH") else []))
    return env

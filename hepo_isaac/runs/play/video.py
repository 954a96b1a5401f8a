"""Pictures of a recorded motion, with no display, in a process of their own.

A separate process because an EGL context in the process that holds Warp's CUDA context crashes, and because
MUJOCO_GL must be set before mujoco is imported for the first time.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Dict, Optional, Sequence

import numpy as np

from hepo_isaac.errors import UserError

BACKENDS = ("egl", "osmesa")
FORMATS = (".mp4", ".gif", ".png")
TIMEOUT_S = 600.0


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
    """Render one env's motion.

    Args:
        mjcf_xml: the whole model as MJCF text that refers to no files.
        qpos: (T, nq) generalised positions, one row per frame.
        out: .mp4 or .gif for a film, .png for a contact sheet of up to twelve frames in reading order.
        fps: frames per second of simulated time; for a film that plays at true speed, 1 / control step [s].
        width, height: pixels of one frame.
        camera: {"name": a camera of the model} or {"lookat": [x, y, z] m, "distance": m, "azimuth": deg,
            "elevation": deg}; the whole model by default. With {"follow": a body} lookat's x and y count from there.
        backends: MUJOCO_GL values to try, in this order.
        markers: (T, M, 7) poses (m, quaternion xyzw) of the model's mocap bodies, in their order; None if it has none.

    Returns:
        ``out``.

    Raises:
        UserError: wrong shape or format, a broken model, or no way to render on this machine (says what to install).
    """
    out = Path(out)
    qpos = _checked(qpos, out, fps, width, height)
    with tempfile.TemporaryDirectory(prefix="hepo_isaac_video_") as work:
        job = Path(work) / "job.json"
        np.save(str(Path(work) / "qpos.npy"), qpos)
        np.save(str(Path(work) / "markers.npy"), np.zeros((len(qpos), 0, 7)) if markers is None else markers)
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
                }
            ),
            encoding="utf-8",
        )
        troubles = []
        for backend in backends:
            result = _run_worker(job, result_file, backend)
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


def _run_worker(job: Path, result_file: Path, backend: str) -> Dict[str, Any]:
    """Render in a child; returns {"kind": "ok" | "input" | "gl", "message"}. A crash of the child counts as "gl"."""
    if result_file.exists():
        result_file.unlink()
    env = worker_environment(backend)
    command = [sys.executable, "-m", "hepo_isaac.runs.play.video_worker", str(job), str(result_file)]
    try:
        done = subprocess.run(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return {"kind": "gl", "message": "took longer than %g s" % TIMEOUT_S}
    if result_file.is_file():
        return dict(json.loads(result_file.read_text(encoding="utf-8")))
    lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
    died = "the renderer died with exit code %d" % done.returncode
    return {"kind": "gl", "message": lines[-1][:200] if lines else died}


def worker_environment(backend: str) -> Dict[str, str]:
    """Environment variables of a rendering process."""
    env = dict(os.environ, MUJOCO_GL=backend, PYOPENGL_PLATFORM=backend)
    root = str(Path(__file__).resolve().parents[3])
    env["PYTHONPATH"] = os.pathsep.join([root] + ([env["PYTHONPATH"]] if env.get("PYTHONPATH") else []))
    return env

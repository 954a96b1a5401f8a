"""Single pictures of an environment while it runs, from a process that stays: what ``env.render()`` returns.

The process is as that of a film (runs/play/video.py says why there is one); it is started with the first picture and
draws one after the other, which costs milliseconds where a process per picture would cost a second.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import weakref
from typing import IO, Any, Dict, List, Mapping, Optional, Sequence

import numpy as np

from hepo_isaac.errors import UserError
from hepo_isaac.runs.play.video import BACKENDS, no_headless_rendering, worker_environment


class FrameSource:
    """Draws states of one model.

    Args:
        mjcf_xml: the whole model as MJCF text that refers to no files.
        camera: as render_trajectory's.  width, height: pixels.  backends: MUJOCO_GL values to try, in this order.
    """

    def __init__(
        self,
        mjcf_xml: str,
        camera: Optional[Mapping[str, Any]] = None,
        width: int = 640,
        height: int = 480,
        backends: Sequence[str] = BACKENDS,
    ) -> None:
        self.width, self.height = int(width) // 2 * 2, int(height) // 2 * 2
        if self.width < 16 or self.height < 16:
            raise UserError("frames are at least 16 x 16 pixels, got %s x %s" % (width, height))
        self._job = {"xml": mjcf_xml, "camera": dict(camera or {}), "width": self.width, "height": self.height}
        self._backends = tuple(backends)
        self._process: Optional[subprocess.Popen] = None
        self._complaints: Optional[IO[bytes]] = None
        self._end: Optional[weakref.finalize] = None

    def frame(self, qpos: np.ndarray, markers: np.ndarray) -> np.ndarray:
        """(height, width, 3) uint8 picture of generalised positions ``qpos`` (nq,) and marker poses (M, 7).

        Raises:
            UserError: the model or the state cannot be drawn, or this machine cannot render (says what to install).
        """
        first = self._process is None
        request = (np.asarray(qpos, np.float64).tobytes(), np.asarray(markers, np.float64).tobytes())
        if not first:
            answer = self._ask(request)
            if answer["kind"] != "ok":
                raise UserError("cannot render: %s" % answer["message"])
            return self._picture()
        troubles: List[str] = []
        for backend in self._backends:
            self._start(backend)
            answer = self._ask(request)
            if answer["kind"] == "ok":
                return self._picture()
            self.close()
            if answer["kind"] == "input":
                raise UserError("cannot render: %s" % answer["message"])
            troubles.append("%s: %s" % (backend, answer["message"]))
        raise no_headless_rendering(troubles)

    def _start(self, backend: str) -> None:
        self._complaints = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the process)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "hepo_isaac.runs.play.frames_worker"],
            env=worker_environment(backend),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            start_new_session=True,  # Ctrl-C in a terminal is for who asked, who closes this
        )
        self._end = weakref.finalize(self, _end, self._process, self._complaints)
        self._send(json.dumps(self._job).encode("utf-8"))

    def _ask(self, request: Sequence[bytes]) -> Dict[str, Any]:
        for part in request:
            self._send(part)
        process = self._process
        assert process is not None and process.stdout is not None
        line = process.stdout.readline()
        return dict(json.loads(line.decode("utf-8"))) if line else {"kind": "gl", "message": self._died()}

    def _send(self, data: bytes) -> None:
        assert self._process is not None and self._process.stdin is not None
        with contextlib.suppress(OSError):  # it has died, and the missing answer says so
            self._process.stdin.write(b"%d\n" % len(data) + data)
            self._process.stdin.flush()

    def _picture(self) -> np.ndarray:
        assert self._process is not None and self._process.stdout is not None
        data = self._process.stdout.read(self.width * self.height * 3)
        return np.frombuffer(data, np.uint8).reshape(self.height, self.width, 3).copy()

    def _died(self) -> str:
        assert self._process is not None and self._complaints is not None
        code = self._process.wait()
        self._complaints.seek(0)
        lines = self._complaints.read().decode("utf-8", "replace").strip().splitlines()
        return lines[-1][:200] if lines else "the renderer died with exit code %d" % code

    def close(self) -> None:
        """End the process. Harmless where there is none."""
        self._process = None
        if self._end is not None:
            self._end()


def _end(process: subprocess.Popen, complaints: IO[bytes]) -> None:
    """End a renderer; also called for who forgot to."""
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
    try:
        process.wait(5.0)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    complaints.close()

"""Films of a training while it goes on, made from checkpoints by a process beside it: the training does not wait."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional

from hepo_isaac.runs.record.files import FILMS, write_atomic

EPISODES = 4  # of which the best is shown
PATIENCE_S = 120.0  # with the last film when the run ends
CHECKPOINT = "film.pt"  # what a film is made from


class Films:
    """Starts a film every ``every`` iterations; one that is due while another is being made is left out.

    Args:
        folder: the RunFolder.  every: iterations; 0: none.
        done: called with (file, iteration) once a film is there.  warn: told what went wrong, once; no more are made.
    """

    def __init__(self, folder: Any, every: int, done: Callable[[Path, int], None], warn: Callable[[str], None]) -> None:
        self._folder, self._every, self._done, self._warn = folder, every, done, warn
        self._child: Optional[subprocess.Popen[bytes]] = None
        self._making: Optional[Path] = None
        self._iteration = 0

    def due(self, iteration: int) -> bool:
        """Whether a film is to be started now."""
        self.poll()
        return self._every > 0 and iteration % self._every == 0 and self._child is None

    def start(self, iteration: int, checkpoint: bytes) -> None:
        """Film the policy of a checkpoint."""
        source = self._folder.checkpoints / CHECKPOINT
        films = self._folder.path / FILMS
        try:
            write_atomic(source, checkpoint)
            films.mkdir(exist_ok=True)
            self._making, self._iteration = films / ("iteration_%06d.mp4" % iteration), iteration
            with (films / "log.txt").open("wb") as log:
                self._child = subprocess.Popen(self._command(source), stdout=log, stderr=log, env=_environment())
        except OSError as error:
            self._fail(error.strerror or str(error))

    def _command(self, source: Path) -> List[str]:
        given = ["run=%s" % source, "out=%s" % self._making, "episodes=%d" % EPISODES, "every=2", "overwrite=true"]
        command = [sys.executable, "-m", "hepo_isaac.cli", "play", *given, "trust=true"]
        return ["nice", "-n", "10", *command] if os.name == "posix" else command

    def poll(self, wait_s: float = 0.0) -> None:
        """See whether a film has become ready, for at most ``wait_s``."""
        if self._child is None or self._making is None:
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(wait_s)
        code = self._child.poll()
        if code is None:
            return
        self._child = None
        if code == 0 and self._making.is_file():
            self._done(self._making, self._iteration)
        else:
            lines = (self._making.parent / "log.txt").read_text(encoding="utf-8", errors="replace").strip().splitlines()
            self._fail(lines[-1] if lines else "exit code %d" % code)

    def close(self, finished: bool) -> None:
        """The run ends: wait for the last film of a finished one, and leave nothing behind."""
        self.poll(PATIENCE_S if finished else 0.0)
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            self._child = None
        with contextlib.suppress(OSError):
            (self._folder.checkpoints / CHECKPOINT).unlink()

    def _fail(self, why: str) -> None:
        self._every = 0
        self._warn("no more films (%s)" % why.replace("error: ", ""))


def _environment() -> Dict[str, str]:
    """Physics of a film runs on the CPU: the training's GPU is left alone, and one thread is enough."""
    root = str(Path(__file__).resolve().parents[3])
    path = [root] + ([os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else [])
    alone = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")}
    return {**alone, "PYTHONPATH": os.pathsep.join(path), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}

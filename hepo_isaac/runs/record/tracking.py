"""Where the numbers of a run go: metrics.csv always, TensorBoard, and W&B if asked for."""

from __future__ import annotations

import contextlib
import io
import math
import sys
import threading
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple

from hepo_isaac.errors import UserError
from hepo_isaac.runs.record.metrics_csv import MetricsCsv
from hepo_isaac.runs.record.wandb_sink import WandbSink

Warn = Callable[[str], None]


def warn_on_stderr(message: str) -> None:
    """Default way to tell the user something that must not stop the run."""
    try:
        sys.stderr.write("warning: %s\n" % message)
        sys.stderr.flush()
    except (OSError, ValueError):
        pass


class TensorBoardSink:
    """Scalars over env_steps, for ``tensorboard --logdir runs``.

    Args:
        folder: where the event files go.
        purge_step: env_steps of the checkpoint resumed from; points after it are hidden by TensorBoard.
    """

    def __init__(self, folder: Path, purge_step: Optional[int] = None) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # no two points may share the step of the checkpoint, so purging starts one after it
        purge = None if purge_step is None else purge_step + 1
        self._writer = SummaryWriter(log_dir=str(folder), purge_step=purge, flush_secs=30)
        self._step = 0
        _silence_event_writers()

    def write(self, metrics: Mapping[str, float]) -> None:
        """One point per finite metric."""
        self._step = step = int(metrics["env_steps"])
        for name, value in metrics.items():
            if name != "env_steps" and math.isfinite(value):
                self._writer.add_scalar(name, value, step)

    def film(self, file: Path, iteration: int) -> None:
        """As a moving picture: TensorBoard shows no other films."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        width, height, data = small_gif(file)
        image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=data)
        summary = Summary(value=[Summary.Value(tag="film", image=image)])
        # torch's own add_video wants another package to do the same
        self._writer._get_file_writer().add_summary(summary, self._step)

    def saved(self, iteration: int) -> None:
        """Nothing: a resumed run purges what is too new."""

    def close(self, finished: bool = True) -> None:
        """Flush and close."""
        self._writer.close()


def small_gif(film: Path, width: int = 240, frames: int = 80) -> Tuple[int, int, bytes]:
    """(width, height, GIF) of a film, small enough for an event file."""
    import imageio.v2 as imageio
    from PIL import Image

    reader: Any
    with imageio.get_reader(str(film)) as reader:
        fps, total = float(reader.get_meta_data()["fps"]), reader.count_frames()
        every = max(1, -(-total // frames))
        pictures = [Image.fromarray(frame) for k, frame in enumerate(reader) if k % every == 0]
    size = (width, max(1, pictures[0].height * width // pictures[0].width))
    first, *rest = [picture.resize(size).quantize(64) for picture in pictures]
    out = io.BytesIO()
    first.save(out, "GIF", save_all=True, append_images=rest, duration=int(1000 * every / fps), loop=0)
    return (*size, out.getvalue())


def _silence_event_writers() -> None:
    """No traceback from the thread that writes event files: what it cannot write is said when the next row comes."""
    before = threading.excepthook
    if getattr(before, "of_event_writers", False):
        return

    def hook(failed: threading.ExceptHookArgs) -> None:
        if not (isinstance(failed.exc_value, OSError) and type(failed.thread).__name__ == "_AsyncWriterThread"):
            before(failed)

    hook.of_event_writers = True  # type: ignore[attr-defined]
    threading.excepthook = hook


class Tracker:
    """Sends every row to metrics.csv and to the other sinks; a failing extra sink is dropped with one warning.

    A row that cannot be written to metrics.csv is an error: a run without its numbers is worth nothing.

    Args:
        csv: the always-present sink.
        extras: name -> sink with ``write(metrics)``, ``saved(iteration)``, ``film(file, iteration)`` and
            ``close(finished)``.
    """

    def __init__(
        self, csv: MetricsCsv, extras: Optional[Mapping[str, Any]] = None, warn: Warn = warn_on_stderr
    ) -> None:
        self._csv = csv
        self._extras = dict(extras or {})
        self._warn = warn

    def write(self, metrics: Mapping[str, float]) -> None:
        """Log one iteration.

        Raises:
            UserError: metrics.csv cannot be written; no half of a row is left in it.
        """
        try:
            self._csv.write(metrics)
        except OSError as error:
            raise UserError(
                "cannot write %s: %s; expected room for a row" % (self._csv.path, error.strerror or error)
            ) from error
        self._tell("write", metrics)

    def saved(self, iteration: int) -> None:
        """A checkpoint covers the rows up to ``iteration``."""
        self._tell("saved", iteration)

    def film(self, file: Path, iteration: int) -> None:
        """A film of ``iteration`` is there."""
        self._tell("film", file, iteration)

    def _tell(self, method: str, *arguments: Any) -> None:
        for name in list(self._extras):
            try:
                getattr(self._extras[name], method)(*arguments)
            except Exception as error:  # a broken extra must not cost the run
                self._drop(name, error)

    def _drop(self, name: str, error: Exception) -> None:
        self._extras.pop(name, None)
        self._warn("%s logging stopped (%s: %s); the run goes on without it" % (name, type(error).__name__, error))

    def close(self, finished: bool = True) -> None:
        """Close every sink; ``finished``: whether the run has done all that it was to do."""
        with contextlib.suppress(OSError):
            self._csv.close()
        self._tell("close", finished)


def make_tracker(
    folder: Any,
    resume: Optional[Mapping[str, Any]] = None,
    tensorboard: bool = True,
    wandb: Optional[Mapping[str, Any]] = None,
    config: Optional[Mapping[str, Any]] = None,
    warn: Warn = warn_on_stderr,
    agent: bool = True,
) -> Tracker:
    """Build the sinks of a run.

    Args:
        folder: the RunFolder.
        resume: checkpoint payload being resumed from (its iteration and env_steps), None for a new run.
        wandb: W&B options; logged only if they hold ``enabled: true``. The rest goes to ``wandb.init``.
        config: resolved configuration, shown by W&B.
        agent: whether the run may be the one of a W&B agent that started this process.
    """
    csv = MetricsCsv(folder.metrics_file, None if resume is None else int(resume["iteration"]))
    extras: Dict[str, Any] = {}
    if tensorboard:
        try:
            purge = None if resume is None else int(resume["env_steps"])
            extras["TensorBoard"] = TensorBoardSink(folder.tensorboard, purge)
        except Exception as error:
            warn("TensorBoard logging is off (%s); pip install tensorboard" % error)
    options: Dict[str, Any] = dict(wandb or {})
    if options.pop("enabled", False):
        kept: List[str] = [k for k in options if options[k] is not None]
        try:
            trained = 0 if resume is None else int(resume["iteration"])
            given = {k: options[k] for k in kept}
            extras["W&B"] = WandbSink(given, folder.metrics_file, config, warn, trained, agent)
        except Exception as error:  # no process to be had, or options that are not plain values
            warn("W&B logging is off (%s: %s)" % (type(error).__name__, error))
    return Tracker(csv, extras, warn)

"""RunObserver: the one place where an agent's training meets the run folder, the display and the signals."""

from __future__ import annotations

import contextlib
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, TextIO, Tuple

from rl_games.common.algo_observer import AlgoObserver

from hepo_isaac.errors import Notice, UnstablePhysicsError, UserError
from hepo_isaac.runs.record.checkpoint import CheckpointStore, serialise
from hepo_isaac.runs.record.files import write_atomic, write_json
from hepo_isaac.runs.record.folder import FAILED, FINISHED, INTERRUPTED, RunFolder
from hepo_isaac.runs.record.running import POLICY_LABELS, RunningMeans
from hepo_isaac.runs.record.tracking import Tracker, make_tracker
from hepo_isaac.runs.train.films import Films
from hepo_isaac.runs.train.progress import Progress, duration, number, rate, summary_rows
from hepo_isaac.runs.train.signals import StopRequest

MOST_BAD_WORLDS = 5  # of a run whose last states are kept


@dataclass
class RunOptions:
    """How a run is recorded.

    checkpoint_every: iterations between iteration_*.pt (last.pt is written with each).
    keep_checkpoints: how many iteration_*.pt stay; 0 keeps all.
    last_every_s: last.pt is at most this many seconds old, however slow the iterations are.
    best_every: iterations between looks at whether best.pt is to be replaced.
    min_episodes: finished episodes a return needs before it can be the best.
    success: name of the per-episode metric shown as success; None lets it be guessed.
    tensorboard: write TensorBoard events.   wandb: {"enabled": bool, wandb.init options…}; off by default.
    wandbs_agent: whether the run may be the one of a W&B agent that started this process.
    plot: draw returns.png at the end.   quiet: print nothing but errors.
    video_every: iterations between films made while it trains; 0: none.
    """

    checkpoint_every: int = 100
    keep_checkpoints: int = 3
    last_every_s: float = 60.0
    best_every: int = 10
    min_episodes: int = 100
    success: Optional[str] = None
    tensorboard: bool = True
    wandb: Optional[Mapping[str, Any]] = None
    wandbs_agent: bool = True
    plot: bool = True
    quiet: bool = False
    video_every: int = 0


class RunObserver(AlgoObserver):
    """Records one run. The agent calls ``after_init``, ``on_iteration``, ``on_finish`` and ``on_failure``.

    Args:
        folder: from RunFolder.create, or RunFolder.open + begin_resume.
        header: task, algo, num_envs, seed of the run, written into every checkpoint.
        facts: (name, value) lines printed first, e.g. engine, device, budget.
        options: how to record.
        resume: checkpoint payload to continue from; ``after_init`` gives it to the agent.
        config: resolved configuration, for W&B.
        stream: where to print; standard output by default.
        stop: shared stop flag; by default the observer makes and installs its own.
    """

    def __init__(
        self,
        folder: RunFolder,
        header: Mapping[str, Any],
        facts: Sequence[Tuple[str, str]] = (),
        options: Optional[RunOptions] = None,
        resume: Optional[Mapping[str, Any]] = None,
        config: Optional[Mapping[str, Any]] = None,
        stream: Optional[TextIO] = None,
        stop: Optional[StopRequest] = None,
    ) -> None:
        super().__init__()
        self.folder = folder
        self.options = options or RunOptions()
        self.running = RunningMeans()
        self.stop = stop or StopRequest()
        self.interrupted = False
        self.evaluation: Optional[Mapping[str, Any]] = None  # what an evaluation at the end found, for the summary
        self.new_notices: List[Notice] = []  # said for the first time at the last call
        self._header = dict(header)
        self._facts = list(facts)
        self._resume = resume
        self._config = config
        self._stream = stream
        self._store = CheckpointStore(folder.checkpoints, header, self.options.keep_checkpoints)
        self._totals: Dict[str, float] = {}
        self._wall_before = 0.0
        self._saved_iteration = -1
        self._closed = False
        self._noticed: List[Notice] = []

    def resume_state(self) -> Optional[Mapping[str, Any]]:
        """The checkpoint this run continues from, if any."""
        return self._resume

    # ---- called by the agent ------------------------------------------------------------------------------------

    def after_init(self, agent: Any) -> None:
        """The agent is built: restore it if resuming, open the sinks, take over the signals, print the first lines."""
        if self._resume is not None:
            agent.set_full_state_weights(self._resume["agent"])
            self._load_own_state(self._resume.get("runs", {}))
            self._saved_iteration = int(agent.iteration)
        self._best = self._store.best_return()
        self._progress = Progress(agent.max_iterations, self._stream, self.options.success, self.options.quiet)
        own = self.options
        self._tracker: Tracker = make_tracker(
            self.folder, self._resume, own.tensorboard, own.wandb, self._config, self._warn, own.wandbs_agent
        )
        self._films = Films(self.folder, own.video_every, self._film, self._warn)
        self._policies: List[str] = list(agent.policy_names)
        self._began = self._saved_at = time.monotonic()
        self._first_steps = int(agent.env_steps)
        lines = [("task", str(self._header.get("task"))), ("algo", str(self._header.get("algo")))]
        lines += [("num_envs", str(self._header.get("num_envs"))), ("seed", str(self._header.get("seed")))]
        given = [name for name, _ in self._facts]
        lines = [pair for pair in lines if pair[0] not in given] + self._facts
        if self._resume is not None:
            lines.append(("resumed at", "iteration %d" % agent.iteration))
        lines.append(("run folder", str(self.folder.path)))
        self.stop.on_abort(self._abort)
        self.stop.install()
        self._progress.start(lines, int(agent.iteration))
        self._notice(agent)

    def on_iteration(self, agent: Any, metrics: Dict[str, float]) -> bool:
        """Record one iteration; True means stop now, the state is saved."""
        self.running.update(metrics)
        self._add_totals(metrics)
        self._tracker.write(metrics)
        self._notice(agent)
        if metrics.get("bad_worlds", 0.0) > 0:
            self._keep_bad_worlds(agent)
        self._progress.update(metrics, self.running)
        if self.stop.requested and agent.iteration < agent.max_iterations:
            self._interrupt(agent)
            return True
        with self.stop.saving():
            self._save_what_is_due(agent)
        if self._films.due(int(agent.iteration)):
            self._films.start(int(agent.iteration), self._pack(agent))
        return False

    def _film(self, file: Path, iteration: int) -> None:
        """A film made while training is there."""
        self._tracker.film(file, iteration)
        if not self.options.quiet:
            self._progress.say("film of iteration %d: %s" % (iteration, file))

    def _keep_bad_worlds(self, agent: Any) -> None:
        """Write what led to the first few worlds going bad, for hepo-isaac replay-bad."""
        there = len(list(self.folder.bad_worlds.glob("*.pt"))) if self.folder.bad_worlds.is_dir() else 0
        if there >= MOST_BAD_WORLDS:
            return
        with contextlib.suppress(OSError):  # a full disk has other things to say
            for states in agent.bad_states(MOST_BAD_WORLDS - there):
                self.folder.bad_worlds.mkdir(exist_ok=True)
                name = "iteration_%06d_env_%d.pt" % (agent.iteration, states["env"])
                write_atomic(self.folder.bad_worlds / name, serialise(states))

    def on_trained(self, agent: Any) -> None:
        """The budget is used up: save the state, before anything that takes its time. From here on a signal ends the
        run at once, and ``resume`` does what is left (evaluation, summary, plot)."""
        self.stop.closing = True
        self._progress.close()  # it is about iterations; what comes now has its own
        with self.stop.saving():
            self._save_last(agent)

    def on_finish(self, agent: Any) -> None:
        """What comes after ``on_trained``: summary, table, plot. Does nothing after an interruption."""
        if self._closed:
            return
        if not self.stop.closing:
            self.on_trained(agent)
        with self.stop.saving():
            self._write_summary(agent)
            self.folder.set_status(FINISHED, iteration=int(agent.iteration))
        self._close(finished=True)
        self._report(agent)

    def on_failure(self, agent: Any, error: BaseException) -> None:
        """Training cannot go on: keep the state as failed.pt and say from where to continue.

        last.pt is left alone: the state that failed may hold NaN, and the last good one must survive it.
        """
        if self._closed:
            return
        if isinstance(error, UnstablePhysicsError):  # the iteration itself is not recorded
            self._keep_bad_worlds(agent)
        reason = "%s: %s" % (type(error).__name__, error)
        lines = []
        try:
            failed = self._store.write("failed.pt", self._pack(agent))
            lines.append("the state at iteration %d was saved to %s" % (agent.iteration, failed))
        except Exception as trouble:  # the first error is the one to be seen
            lines.append("the state could not be saved (%s: %s)" % (type(trouble).__name__, trouble))
        with contextlib.suppress(OSError):  # a full disk may be what the failure is about
            self.folder.set_status(
                FAILED, iteration=int(agent.iteration), reason=reason, resume=self.folder.resume_command()
            )
        self._close()
        if (self.folder.checkpoints / "last.pt").is_file():
            lines.append("continue from the last checkpoint before it: %s" % self.folder.resume_command())
        self._progress.say(*lines)

    # ---- checkpoints --------------------------------------------------------------------------------------------

    def _save_what_is_due(self, agent: Any) -> None:
        """Write this iteration's checkpoints, serialising the agent once. A full disk is a warning, not the end."""
        iteration = int(agent.iteration)
        periodic = iteration % max(1, self.options.checkpoint_every) == 0
        never = self._saved_iteration < 0 and not (self.folder.checkpoints / "last.pt").exists()
        stale = never or time.monotonic() - self._saved_at >= self.options.last_every_s
        best = iteration % max(1, self.options.best_every) == 0 and self._is_best()
        if not (periodic or stale or best):
            return
        try:
            data = self._pack(agent)
            if best:
                self._save_best(data)
            if periodic or stale:
                self._store.write("last.pt", data)
                self._note_saved(iteration)
            if periodic:
                self._store.write_periodic(iteration, data)
        except OSError as error:
            self._warn("cannot save a checkpoint in %s: %s" % (self._store.folder, error.strerror or error))

    def _save_last(self, agent: Any) -> None:
        """Write last.pt, and best.pt if it is the best, where the run ends: failing here is an error.

        Raises:
            UserError: the disk is full or not writable.
        """
        try:
            data = self._pack(agent)
            self._store.write("last.pt", data)
            self._note_saved(int(agent.iteration))
            if self._is_best():
                self._save_best(data)
        except OSError as error:
            reason = "cannot save %s: %s" % (self._store.folder / "last.pt", error.strerror or error)
            facts = {"saved_iteration": self._saved_iteration, "reason": reason}
            kept, command = "nothing had been saved before; make room and train again", self.folder.resume_command()
            if self._saved_iteration >= 0:
                facts["resume"] = command
                kept = "earlier checkpoints are unharmed; make room and go on with %s" % command
            with contextlib.suppress(OSError):  # what is full for a checkpoint may have room for a line
                self.folder.set_status(FAILED, iteration=int(agent.iteration), **facts)
            self._close()
            text = "%s; expected room for it: iteration %d is lost, %s" % (reason, agent.iteration, kept)
            raise UserError(text) from error

    def _note_saved(self, iteration: int) -> None:
        """last.pt holds ``iteration``: a run that is killed goes on from there."""
        self._saved_at, self._saved_iteration = time.monotonic(), iteration
        self._tracker.saved(iteration)

    def _is_best(self) -> bool:
        """Whether π's running task return beats the mark, on enough episodes."""
        key = "return_task/pi"
        return self.running.episodes(key) >= self.options.min_episodes and self.running.mean(key) > self._best

    def _save_best(self, data: bytes) -> None:
        self._store.write("best.pt", data)
        self._best = self.running.mean("return_task/pi")

    def _pack(self, agent: Any) -> bytes:
        """Serialise the agent and the run's own bookkeeping."""
        own = {
            "best_return": self.running.mean("return_task/pi"),
            "wall_s": self.wall(),
            "totals": self._totals,
            "running": self.running.get_state(),
        }
        return self._store.pack(agent, own)

    def _load_own_state(self, own: Mapping[str, Any]) -> None:
        self._wall_before = float(own.get("wall_s", 0.0))
        self._totals = {k: float(v) for k, v in own.get("totals", {}).items()}
        self.running.load_state(own.get("running", {}))

    # ---- the end ------------------------------------------------------------------------------------------------

    def _interrupt(self, agent: Any) -> None:
        """Save and say how to go on."""
        command = self.folder.resume_command()
        with self.stop.saving():
            self._save_last(agent)
            self.folder.set_status(INTERRUPTED, iteration=int(agent.iteration), resume=command)
            self.interrupted = True
        self._progress.close()
        if not self.options.quiet:
            reached = "stopped at iteration %d/%d, state saved; resume with:" % (agent.iteration, agent.max_iterations)
            self._progress.say(reached, "  " + command)
        # last, because W&B may take its seconds and whoever sent SIGTERM may not have them
        self._close()

    def _abort(self) -> None:
        """The run is stopped at once: note how far the saved state reaches."""
        if not self._closed and not self.interrupted:
            self._closed = self.interrupted = True
            command = self.folder.resume_command()
            with contextlib.suppress(OSError):
                self.folder.set_status(INTERRUPTED, saved_iteration=self._saved_iteration, resume=command)

    def _close(self, finished: bool = False) -> None:
        """Stop everything that runs beside the training."""
        self._closed = True
        self._progress.close()
        self._films.close(finished)
        self._tracker.close(finished)
        self.stop.remove()

    def _write_summary(self, agent: Any) -> None:
        """summary.json: exists only for a finished run."""
        summary: Dict[str, Any] = dict(self._header)
        summary.update(
            status=FINISHED,
            iterations=int(agent.iteration),
            env_steps=int(agent.env_steps),
            wall_time_s=self.wall(),
            policies=self._policies,
            final=self.running.all(),
            best_return_task=self._best,
            totals=self._totals,
        )
        if self.evaluation is not None:
            summary["evaluation"] = dict(self.evaluation)
        write_json(self.folder.summary_file, summary)

    def _report(self, agent: Any) -> None:
        """The table, the plot and where they are."""
        if self.options.quiet:
            self._plot()
            return
        rows = summary_rows(self.running, self._policies, self.options.success)
        columns = ["last 100 episodes"] + [POLICY_LABELS.get(name, name) for name in self._policies]
        title = "%s / %s: finished" % (self._header.get("task"), self._header.get("algo"))
        self._progress.table(title, rows, columns)
        seconds = self.wall()
        here = time.monotonic() - self._began
        pace = (agent.env_steps - self._first_steps) / here if here > 0 else math.nan
        lines = [
            "iterations %d  env steps %s  wall time %s  steps/s %s"
            % (agent.iteration, rate(agent.env_steps), duration(seconds), rate(pace))
        ]
        bad, overflow = self._totals.get("bad_worlds", 0.0), self._totals.get("overflow", 0.0)
        lines.append("best J(π) %s  bad worlds %d  overflows %d" % (number(self._best), bad, overflow))
        lines += ["warning: " + notice.text for notice in self._noticed]
        lines.append("run folder  %s" % self.folder.path)
        plot = self._plot()
        if plot is not None:
            lines.append("plot        %s" % plot)
        self._progress.say(*lines)

    def _plot(self) -> Optional[Path]:
        """Draw returns.png; a missing matplotlib or a failing plot is a line, not an error."""
        if not self.options.plot:
            return None
        try:
            from hepo_isaac.runs.record.plots import plot_run

            return plot_run(self.folder.path)
        except ImportError as error:
            self._warn("no plot, which needs matplotlib (%s): pip install 'hepo-isaac[report]'" % error)
        except Exception as error:  # the run is finished and saved; its picture must not make it look failed
            self._warn("no plot (%s: %s)" % (type(error).__name__, error))
        return None

    # ---- small things -------------------------------------------------------------------------------------------

    def _add_totals(self, metrics: Mapping[str, float]) -> None:
        """Sum the counters over the run."""
        for key, value in metrics.items():
            if (key in ("bad_worlds", "overflow") or key.startswith("episodes/")) and math.isfinite(value):
                self._totals[key] = self._totals.get(key, 0.0) + float(value)

    def wall(self) -> float:
        """Seconds of training, earlier parts of a resumed run included."""
        return self._wall_before + time.monotonic() - self._began

    def _notice(self, agent: Any) -> None:
        """Say once, and keep in metadata.json with its traceback, what went otherwise than asked for."""
        self.new_notices = [n for n in agent.notices() if n not in self._noticed]
        if self.new_notices:
            self._noticed += self.new_notices
            self.folder.add_warnings(self.new_notices)
            if not self.options.quiet:
                self._progress.warn(self.new_notices)

    def _warn(self, message: str) -> None:
        self._progress.say("warning: " + message)

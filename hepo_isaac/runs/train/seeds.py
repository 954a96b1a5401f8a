"""Several runs trained side by side in one process, each with its own run folder, checkpoints and summary."""

from __future__ import annotations

import math
import shlex
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from rl_games.common.algo_observer import AlgoObserver

from hepo_isaac.agents.evaluation import evaluate_policies
from hepo_isaac.errors import Notice, UserError, fitting
from hepo_isaac.locate import train_command
from hepo_isaac.runs.record.running import RunningMeans
from hepo_isaac.runs.record.steps import Steps
from hepo_isaac.runs.train.observer import RunObserver
from hepo_isaac.runs.train.progress import Progress, duration, number, rate


class RunView:
    """One run of an agent, as a RunObserver sees it."""

    def __init__(self, agent: Any, run: int) -> None:
        self._agent, self._run = agent, run
        self.policy_names = list(agent.policy_names)

    @property
    def iteration(self) -> int:
        """Finished iterations, the same for all runs."""
        return int(self._agent.iteration)

    @property
    def max_iterations(self) -> int:
        """Iterations to do."""
        return int(self._agent.max_iterations)

    @property
    def env_steps(self) -> int:
        """Environment steps of this run."""
        return int(self._agent.env_steps)

    def notices(self) -> List[Notice]:
        """Of all runs: they share the engine and the update."""
        return list(self._agent.notices())

    def bad_states(self, most: int) -> List[Dict[str, Any]]:
        """What led to this run's worlds going bad in the last iteration."""
        return list(self._agent.bad_states(self._run, most))

    def get_full_state_weights(self) -> Dict[str, Any]:
        """This run's part of the state."""
        return dict(self._agent.get_run_state(self._run))

    def set_full_state_weights(self, state: Mapping[str, Any]) -> None:
        """Nothing: SeedsObserver restores all runs at once."""


class SeedsObserver(AlgoObserver):
    """What an agent with S runs reports to: one RunObserver per run, and one display for all of them.

    Args:
        observers: one per run, in the order of the agent's seeds; quiet ones where there are several.
        evaluation_episodes: played per policy when training ends; 0 is none.
        success, facts: of the display, for several runs.  quiet: show none.
    """

    def __init__(
        self,
        observers: Sequence[RunObserver],
        evaluation_episodes: int = 0,
        success: Optional[str] = None,
        facts: Sequence[Tuple[str, str]] = (),
        quiet: bool = False,
    ) -> None:
        super().__init__()
        self._quiet = quiet
        self.observers, self._evaluation_episodes = list(observers), evaluation_episodes
        self._success, self._facts = success, list(facts)
        self.failed: List[RunObserver] = []  # of runs that ended before the others
        self._running = RunningMeans(100 * len(self.observers))
        for other in self.observers[1:]:
            other.stop = self.observers[0].stop

    @property
    def interrupted(self) -> bool:
        """Whether a signal ended the training."""
        return any(observer.interrupted for observer in self.observers)

    @property
    def _several(self) -> bool:
        return len(self.observers) > 1

    def after_init(self, agent: Any) -> None:
        """Restore all runs if they resume, then let every observer begin."""
        states = [o.resume_state() for o in self.observers]
        if states[0] is not None:
            with fitting("the checkpoint of %s" % ", ".join(str(o.folder.path) for o in self.observers)):
                agent.set_run_states([s["agent"] for s in states if s is not None])
        self._views = [RunView(agent, run) for run in range(len(self.observers))]
        for observer, view in zip(self.observers, self._views):
            observer.after_init(view)
        if self._several:
            self._progress = Progress(agent.max_iterations, None, self._success, self._quiet)
            folders = str(self.observers[0].folder.path.parent)
            lines = [*self._facts, ("runs", "%d side by side" % len(self.observers)), ("run folders", folders)]
            self._progress.start(lines, int(agent.iteration))
            self._progress.warn(self.observers[0].new_notices)

    def on_iteration(self, agent: Any, metrics: List[Dict[str, float]]) -> bool:
        """Record one iteration of every run; True means stop now."""
        if self._several:
            together = mean_metrics(metrics)
            self._running.update(together)
            self._progress.update(together, self._running)
        going = [(o, v, m) for o, v, m in zip(self.observers, self._views, metrics) if o not in self.failed]
        with self.observers[0].stop.saving():  # all of them at the same iteration
            stops = [observer.on_iteration(view, row) for observer, view, row in going]
        if self._several:  # the observers of several runs are quiet
            self._progress.warn(self.observers[0].new_notices)
        if any(stops) and self._several and not self._quiet:
            self._progress.close()
            self._progress.say("stopped at iteration %d, all states saved; resume with:" % agent.iteration)
            self._progress.say("  %s resume=%s" % (train_command(), self._folders()))
        return any(stops)

    def _folders(self) -> str:
        return shlex.quote(",".join(str(o.folder.path) for o in self.observers if o not in self.failed))

    def on_finish(self, agent: Any) -> None:
        """Evaluate, then let every observer write its summary."""
        if self.interrupted:
            return
        going = [(o, v) for o, v in zip(self.observers, self._views) if o not in self.failed]
        for observer, view in going:
            observer.on_trained(view)
        if self._evaluation_episodes > 0:
            self._evaluate(agent)
        for observer, view in going:
            observer.on_finish(view)
        if self._several and not self._quiet:
            self._report(agent)
        if self.failed:
            folders = ", ".join(str(o.folder.path) for o in self.failed)
            raise UserError(
                "%d of %d runs failed, the others are finished; status.json says why in %s"
                % (len(self.failed), len(self.observers), folders)
            )

    def _evaluate(self, agent: Any) -> None:
        """Episodes of every policy, with a line on how far they are if they take their time."""
        if self._several:
            self._progress.close()  # it is about iterations, and two would draw on one line
        with Steps("evaluating", quiet=self._quiet) as progress:
            found = evaluate_policies(agent, self._evaluation_episodes, progress.at)
        for observer, result in zip(self.observers, found):
            observer.evaluation = result

    def on_run_failure(self, run: int, error: BaseException) -> None:
        """One of several runs cannot go on: keep its state as failed, and let the others go on."""
        observer = self.observers[run]
        self.failed.append(observer)
        observer.on_failure(self._views[run], error)
        observer.stop.install()  # all runs share it, and a run that ends gives it back
        self._progress.say("warning: run %s failed, the others go on: %s" % (observer.folder.path.name, error))

    def on_failure(self, agent: Any, error: BaseException) -> None:
        """Every run keeps its state as failed."""
        for observer, view in zip(self.observers, self._views):
            if observer not in self.failed:
                observer.on_failure(view, error)
        if self._several:
            self._progress.close()

    def _report(self, agent: Any) -> None:
        self._progress.close()
        rows = []
        for observer in (o for o in self.observers if o not in self.failed):
            cells = [number(observer.running.mean("return_task/" + name)) for name in agent.policy_names]
            rows.append([observer.folder.path.name, *cells])
        columns = ["run: J of the last 100 episodes", *agent.policy_names]
        self._progress.table("%d runs finished" % len(rows), rows, columns)
        seconds = self.observers[0].wall()
        steps = agent.env_steps * len(rows)
        self._progress.say(
            "iterations %d  env steps %s each  wall time %s  steps/s of all %s"
            % (agent.iteration, rate(agent.env_steps), duration(seconds), rate(steps / max(seconds, 1e-9)))
        )


def mean_metrics(rows: Sequence[Mapping[str, float]]) -> Dict[str, float]:
    """Mean over runs of every metric, NaN left out; episode counts are added up."""
    together: Dict[str, float] = {}
    for key in rows[0]:
        values = [row[key] for row in rows if not math.isnan(row[key])]
        if key.startswith("episodes/"):
            together[key] = sum(values)
        else:
            together[key] = sum(values) / len(values) if values else math.nan
    return together


def seed_list(seed: int, seeds: Any) -> List[int]:
    """Seeds of the runs: ``seeds`` of them from ``seed`` on, or the given ones."""
    if isinstance(seeds, int):
        return [seed + k for k in range(seeds)]
    return [int(s) for s in seeds]

"""``hepo_isaac.train``: a training in this process, and what a run folder holds as an object."""

from __future__ import annotations

import contextlib
import os
import random
import sys
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple, Union, overload

import numpy as np
import torch

from hepo_isaac.api.evaluation import Evaluation, evaluate
from hepo_isaac.api.make import build
from hepo_isaac.api.policy import Policy, here, load
from hepo_isaac.api.rewards import REWARDS, heuristic_function, name_of
from hepo_isaac.api.settings import as_overrides, check_num_envs, composed, dotted
from hepo_isaac.envs.heuristic import Heuristic
from hepo_isaac.errors import UserError
from hepo_isaac.runs.launch import prepare, resume, train_in_folders
from hepo_isaac.runs.play.evaluate import Estimate
from hepo_isaac.runs.record.files import number
from hepo_isaac.runs.record.folder import RunFolder
from hepo_isaac.runs.record.metrics_csv import read_metrics
from hepo_isaac.runs.record.stored import read_data, read_run

Path_ = Union[str, "os.PathLike[str]"]
# Settings of the command line that say which command it is.
NOT_HERE = {
    "resume": "hepo_isaac.Run(<folder>).resume()",
    "test": "hepo_isaac.Run(<folder>).evaluate()",
    "checkpoint": "hepo_isaac.load(<checkpoint>)",
    "skip_finished": "a loop that looks at hepo_isaac.Run(<folder>).status",
    "eval": "hepo_isaac.Run(<folder>).evaluate(episodes=…)",
    "sim": "engine=…",
    "trust": "hepo_isaac.Run(<folder>, trust=True)",
}


class Run:
    """A run folder.

    Args:
        path: of a run folder, made by ``train`` or on the command line.
        trust: whether code that a run from elsewhere names may be run, by ``evaluate`` and ``resume``.

    Attributes:
        path: the folder.  task, algo, seed: what was trained.  policies: names of its policies.
    """

    def __init__(self, path: Path_, trust: bool = False) -> None:
        self._folder = RunFolder.open(Path(path))
        self.path, self._trust = self._folder.path, trust
        self.config: Dict[str, Any] = read_data(self.path)
        self.task, self.algo = str(self.config["task"]["name"]), str(self.config["algo"]["name"])
        self.seed = int(self.config["seed"])
        self._evaluated: Dict[Tuple[str, str, int, int], Evaluation] = {}

    @property
    def policies(self) -> Tuple[str, ...]:
        """Names of its policies, "pi" first."""
        from hepo_isaac.methods.method import method_from_config

        return tuple(method_from_config(self.config["algo"]).policy_names)

    @property
    def status(self) -> str:
        """ "running", "finished", "interrupted" or "failed"."""
        return self._folder.status()

    @property
    def summary(self) -> Dict[str, Any]:
        """summary.json; {} while the run is not finished."""
        return self._folder.summary

    @property
    def metadata(self) -> Dict[str, Any]:
        """Commit, versions, hardware and warnings."""
        return self._folder.metadata

    @property
    def metrics(self) -> Dict[str, np.ndarray]:
        """Column -> numbers, one per iteration, NaN where there is none: what pandas.DataFrame takes as it is."""
        return read_metrics(self._folder.metrics_file)

    @property
    def checkpoints(self) -> Dict[str, Path]:
        """Name -> file: best, last and iteration_<n>."""
        return {path.stem: path for path in sorted(self._folder.checkpoints.glob("*.pt"))}

    @property
    def final(self) -> Dict[str, Dict[str, Estimate]]:
        """Policy -> {"task_return": J, "heuristic_return": H} at the end of training, with sampled actions over
        ``evaluation_episodes`` fresh episodes; where there were none, means of the last 100 training episodes, without
        an error. {} while the run is not finished."""
        summary = self.summary
        evaluation, running = summary.get("evaluation") or {}, summary.get("final") or {}
        found: Dict[str, Dict[str, Estimate]] = {}
        for policy in (name for name in summary.get("policies", ()) if isinstance(name, str)):
            row = evaluation.get(policy)
            row = row if isinstance(row, dict) else {}
            found[policy] = {}
            for name, key in (("task_return", "return_task"), ("heuristic_return", "return_heuristic")):
                if key in row:
                    episodes = evaluation.get("episodes")
                    error, count = number(row.get(key + "_se")), episodes if isinstance(episodes, int) else 0
                    found[policy][name] = Estimate(number(row[key]), error, count)
                else:
                    found[policy][name] = Estimate(number(running.get("%s/%s" % (key, policy))), float("nan"), 0)
        return found

    @property
    def best_task_return(self) -> float:
        """J that best.pt was saved with: the highest mean of about 100 training episodes; see ``evaluate("best")``."""
        return number(self.summary.get("best_return_task"))

    def policy(self, name: str = "pi", checkpoint: str = "best", device: str = "cpu") -> Policy:
        """One of its policies; see ``hepo_isaac.load``.

        Args:
            checkpoint: best, last or iteration_<n>; best is last where no episodes were enough for a best one.
        """
        return load(self._checkpoint(checkpoint), name, device, self._trust)

    def evaluate(self, checkpoint: str = "best", policy: str = "pi", episodes: int = 100, seed: int = 1) -> Evaluation:
        """J and H of a policy's mean actions over whole episodes with their standard errors, in environments of this
        run's settings; the same question is answered once."""
        asked = (str(self._checkpoint(checkpoint)), policy, episodes, seed)
        if asked not in self._evaluated:
            acting = self.policy(policy, checkpoint)
            config = here(read_run(self.path, self._trust))
            env = build({**config, "num_envs": min(episodes, int(config["num_envs"])), "seed": seed}, None,
                        REWARDS["task"], "torch")  # fmt: skip
            try:
                self._evaluated[asked] = evaluate(acting, env, episodes, seed)
            finally:
                env.close()
        return self._evaluated[asked]

    def resume(self, **overrides: Any) -> Run:
        """Go on with an interrupted run, or make a finished one longer with ``train__max_iterations=…``; returns it.

        Raises:
            UserError: it is finished, or an override would make it another run.
        """
        texts = as_overrides(dotted(None, overrides)) + (["trust=true"] if self._trust else [])
        with _process_untouched():
            resume(str(self.path), texts)
        self._evaluated.clear()
        return self

    def _checkpoint(self, name: str) -> Path:
        found = self.checkpoints
        if name == "best" and "best" not in found:
            return self._folder.policy_checkpoint()
        if name not in found:
            raise UserError("%s has no checkpoint %r; it has: %s" % (self.path, name, ", ".join(found) or "none yet"))
        return found[name]

    def __repr__(self) -> str:
        final = self.final.get("pi", {}).get("task_return")
        said = "" if final is None else ", J(pi) = " + final.text() + ("" if final.n else " in training")
        return "Run(%s / %s, seed %d, %s%s, %s)" % (self.task, self.algo, self.seed, self.status, said, self.path)


@overload
def train(
    task: Path_ = ...,
    algo: str = ...,
    num_envs: Optional[int] = ...,
    heuristic: Union[str, Heuristic, None] = ...,
    engine: str = ...,
    device: str = ...,
    seed: int = ...,
    *,
    seeds: Union[int, Sequence[int]],
    quiet: bool = ...,
    settings: Optional[Mapping[str, Any]] = ...,
    **overrides: Any,
) -> List[Run]: ...


@overload
def train(
    task: Path_ = ...,
    algo: str = ...,
    num_envs: Optional[int] = ...,
    heuristic: Union[str, Heuristic, None] = ...,
    engine: str = ...,
    device: str = ...,
    seed: int = ...,
    seeds: None = ...,
    quiet: bool = ...,
    settings: Optional[Mapping[str, Any]] = ...,
    **overrides: Any,
) -> Run: ...


def train(
    task: Path_ = "FrankaCabinet",
    algo: str = "hepo",
    num_envs: Optional[int] = None,
    heuristic: Union[str, Heuristic, None] = None,
    engine: str = "auto",
    device: str = "auto",
    seed: int = 42,
    seeds: Union[int, Sequence[int], None] = None,
    quiet: bool = False,
    settings: Optional[Mapping[str, Any]] = None,
    **overrides: Any,
) -> Union[Run, List[Run]]:
    """Train as ``hepo-isaac train task=… algo=…`` does, in this process, into a run folder.

    Ctrl-C (in a notebook: interrupt) saves the state and returns the run, whose status is then "interrupted" and which
    ``run.resume()`` continues; a second one stops at once.

    Args:
        task, num_envs, heuristic, engine, device, settings, overrides: as of ``hepo_isaac.make``; None of num_envs is
            the budget's. A heuristic has to have a name, for the run to be resumed: a function of a module or of a
            notebook's cell, no lambda.
        algo: the method, docs/methods.md.  seed: of everything random.
        seeds: this many runs side by side, or their seeds; returns a list then.
        quiet: print nothing.

    The defaults are the command line's, but for ``evaluation_episodes``: 100 episodes of every policy at the end, for
    ``run.final`` with standard errors.

    Raises:
        UserError: what the command line would refuse, in its words, or what ended the training.
    """
    given = dotted(settings, overrides)
    for key in given:
        if key in NOT_HERE or key.startswith("eval."):
            raise UserError("%s is no setting of train(): use %s" % (key, NOT_HERE[key.split(".")[0]]))
        if key in ("task", "algo", "num_envs", "heuristic", "device", "seed", "seeds"):
            raise UserError("%s is an argument of train: say %s=…, not in settings" % (key, key))
    chosen: Dict[str, Any] = {"task": os.fspath(task) if isinstance(task, os.PathLike) else task, "algo": algo}
    chosen.update(sim=engine, seed=seed, evaluation_episodes=100)
    if device != "auto":  # else it may be given under another name, as sim_device
        chosen["device"] = device
    if num_envs is not None:
        chosen["num_envs"] = num_envs
    if seeds is not None:
        chosen["seeds"] = seeds
    if heuristic is not None:
        chosen["heuristic"] = heuristic if isinstance(heuristic, str) else _named(heuristic)
    texts = as_overrides({**chosen, **given})
    cfg = composed(texts)
    check_num_envs(cfg.num_envs)
    settled = prepare(cfg, texts)
    facts = [("engine", settled["sim"]["name"]), ("device", settled["device"]), ("budget", settled["budget"]["name"])]
    with _process_untouched():
        _, folders = train_in_folders(settled, [*facts, ("heuristic", settled["heuristic"])], quiet)
    runs = [Run(folder) for folder in folders]
    return runs[0] if seeds is None else runs


def _named(function: Heuristic) -> str:
    """``module:function`` of a function that others can import, too.

    Raises:
        UserError: it has no such name.
    """
    heuristic_function(function)  # raises where it cannot be called with a state
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", "")
    if module is None or getattr(sys.modules.get(module), name, None) is not function:
        raise UserError(
            "heuristic %s has no name that a run folder could hold; expected a function defined with def at the top of "
            "a module or of a notebook's cell, or its name 'package.module:function'" % name_of(function)
        )
    return "%s:%s" % (module, name)


@contextlib.contextmanager
def _process_untouched() -> Iterator[None]:
    """Put back what a training sets for its whole process: global random numbers, torch's threads and precision."""
    python, numpy, on_cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    cudnn = torch.backends.cudnn
    benchmark, tf32 = cudnn.benchmark, cudnn.allow_tf32
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(on_cpu)
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(precision)
        cudnn.benchmark, cudnn.allow_tf32 = benchmark, tf32

"""An agent spread over several ranks: one state out of all of theirs, and who records what they do together.

Each rank holds its part of every block of environments, so that a state put together looks as one process would have
saved it: it can be resumed by any number of processes that divides the environments. What one process cannot hold is
where every rank's random streams stand; it travels under "ranks". With as many ranks as before a run goes on exactly;
with another number the environments, weights and statistics are the same, and the random numbers others.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Mapping, Sequence

import torch
from rl_games.common.algo_observer import AlgoObserver
from torch import Tensor

from hepo_isaac import ranks
from hepo_isaac.envs.rows import SHARED
from hepo_isaac.errors import UserError

if TYPE_CHECKING:
    from hepo_isaac.agents.agent import HepoAgent

RANKS = "ranks"  # key of a full state: where each rank's random streams stand
_STREAMS = ("streams", "heuristic_streams")  # of an environment's state
_PER_POLICY = "totals"  # of a meter's state; everything else in it has a row per env
# Rows of an environment's counters that are no rows of envs: scalars stay rank 0's.

Rows = Callable[[List[Tensor]], Tensor]


class ElsewhereError(UserError):
    """What ended this process has been said, or will be, by rank 0."""


class GoneError(UserError):
    """Another process of the run has ended or was killed."""


def gone() -> GoneError:
    """What there is to say then."""
    return GoneError(
        "another process of this run ended or was killed (this is %d of %d); expected all of them to live: go on from "
        "the last checkpoint, with resume=<run folder>" % (ranks.rank(), ranks.size())
    )


def _lives(pid: int) -> bool:
    """Whether a process of this machine is there and no zombie."""
    import psutil

    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


# ---- one state ----------------------------------------------------------------------------------------------------


def put_together(parts: Sequence[Dict[str, Any]], blocks: int) -> Dict[str, Any]:
    """The full state of a run of one process, out of every rank's, and where their streams stand.

    Args:
        parts: of the ranks, in order.  blocks: of envs, of all runs side by side; each rank has a part of each.
    """

    def rows(tensors: List[Tensor]) -> Tensor:
        by_block = [x.view(blocks, len(x) // blocks, *x.shape[1:]) for x in tensors]
        return torch.cat(by_block, 1).flatten(0, 1)

    whole = dict(parts[0])
    whole["env"] = _by_rows([p["env"] for p in parts], rows)
    if parts[0]["meter"] is not None:
        whole["meter"] = _by_rows([p["meter"] for p in parts], rows)
    whole[RANKS] = [_streams(part) for part in parts]
    return whole


def own_part(state: Mapping[str, Any], blocks: int, seeds: Sequence[int]) -> Dict[str, Any]:
    """This rank's part of a full state; the streams that no rank had before it are new ones.

    Args:
        seeds: of the runs side by side.
    """
    rank, size = ranks.rank(), ranks.size()

    def rows(tensors: List[Tensor]) -> Tensor:
        by_block = tensors[0].view(blocks, len(tensors[0]) // blocks, *tensors[0].shape[1:])
        mine = by_block.shape[1] // size
        return by_block[:, rank * mine : (rank + 1) * mine].flatten(0, 1)

    own = {key: value for key, value in state.items() if key != RANKS}
    own["env"] = _by_rows([state["env"]], rows)
    if state["meter"] is not None:
        own["meter"] = _by_rows([state["meter"]], rows)
    there = state.get(RANKS) or [_streams(state)]
    if rank < len(there):
        return _with_streams(own, there[rank])
    generation = 1 + int(state["iteration"])
    kept = {
        name: [_moved(saved, ranks.own_seed(int(seed), rank, generation + k)) for saved, seed in zip(states, seeds)]
        for k, (name, states) in enumerate(there[0].items())
    }
    return _with_streams(own, kept)


def _by_rows(nodes: Sequence[Any], rows: Rows) -> Any:
    """Nodes of the same structure with ``rows`` of every tensor that has a row per env."""
    first = nodes[0]
    if isinstance(first, dict):
        alone = (SHARED, _PER_POLICY, *_STREAMS)
        return {k: v if k in alone else _by_rows([n[k] for n in nodes], rows) for k, v in first.items()}
    if isinstance(first, (list, tuple)):
        return type(first)(_by_rows(list(parts), rows) for parts in zip(*nodes))
    return rows(list(nodes)) if isinstance(first, Tensor) and first.dim() else first


def _streams(state: Mapping[str, Any]) -> Dict[str, List[Any]]:
    found = {"generators": state["learner"]["generators"]}
    found.update((name, state["env"][name]) for name in _STREAMS if name in state["env"])
    return found


def _with_streams(state: Dict[str, Any], streams: Mapping[str, Any]) -> Dict[str, Any]:
    env = {name: streams[name] for name in streams if name in _STREAMS}
    learner = {**state["learner"], "generators": streams["generators"]}
    return {**state, "learner": learner, "env": {**state["env"], **env}}


def _moved(saved: Tensor, seed: int) -> Tensor:
    """The state of a fresh stream of the kind that ``saved`` is of: a CPU's has kilobytes, a GPU's sixteen bytes."""
    device = "cpu" if saved.numel() > 16 else "cuda"
    return torch.Generator(device).manual_seed(seed).get_state()


# ---- who records --------------------------------------------------------------------------------------------------


class Leader(AlgoObserver):
    """Rank 0's observer: lets ``observer`` record, and tells the others when it is done."""

    def __init__(self, observer: Any) -> None:
        super().__init__()
        self.observer = observer

    def after_init(self, agent: HepoAgent) -> None:
        """Let the observer begin."""
        ranks.tell(os.getpid())
        self.observer.after_init(agent)
        ranks.tell(("go", False))

    def on_iteration(self, agent: HepoAgent, metrics: List[Dict[str, float]]) -> bool:
        """Record; the others stop if this says so."""
        stop = bool(self.observer.on_iteration(agent, metrics))
        ranks.tell(("go", stop))
        return stop

    def on_finish(self, agent: HepoAgent) -> None:
        """Evaluate and close."""
        self.observer.on_finish(agent)
        ranks.tell(("go", True))

    def on_run_failure(self, run: int, error: BaseException) -> None:
        """One of several runs side by side cannot go on."""
        self.observer.on_run_failure(run, error)
        ranks.tell(("go", False))

    def on_failure(self, agent: HepoAgent, error: BaseException) -> None:
        """The training cannot go on: for the same reason everywhere, or because the others were left or left."""
        self.observer.on_failure(agent, error)
        if not agent.stepping:
            ranks.tell(("failed", str(error)))


class Follower(AlgoObserver):
    """The other ranks' observer: records nothing, and gives rank 0 its part of what that asks for.

    Args:
        states: of the runs side by side that are resumed, or None.
    """

    def __init__(self, states: Any = None) -> None:
        super().__init__()
        self._states = states

    def after_init(self, agent: HepoAgent) -> None:
        """Take what is this rank's of a resumed state."""
        self._agent = agent
        self._leader = int(ranks.tell())
        if self._states is not None:
            agent.set_run_states(self._states)
        self._serve()

    def on_iteration(self, agent: HepoAgent, metrics: List[Dict[str, float]]) -> bool:
        """Do as rank 0 says."""
        return self._serve()

    def on_finish(self, agent: HepoAgent) -> None:
        """Wait until rank 0 has evaluated."""
        self._serve()

    def on_run_failure(self, run: int, error: BaseException) -> None:
        """Rank 0 saves what failed."""
        self._serve()

    def on_failure(self, agent: HepoAgent, error: BaseException) -> None:
        """Rank 0 says what all ranks found. What this one alone ran into it says itself, and where rank 0 is gone."""
        if isinstance(error, ElsewhereError):
            return
        if not agent.stepping:
            self._serve()
        if not isinstance(error, GoneError) or (ranks.rank() == 1 and not _lives(self._leader)):
            print("error: process %d of %d: %s" % (ranks.rank(), ranks.size(), error), file=sys.stderr, flush=True)

    def _serve(self) -> bool:
        while True:
            said, *rest = ranks.tell()
            if said == "failed":
                raise ElsewhereError(rest[0])
            if said == "go":
                return bool(rest[0])
            ranks.collect(getattr(self._agent, said)(*rest))


def ask(agent: HepoAgent, what: str, *arguments: Any) -> List[Any]:
    """On rank 0, between iterations: what the method ``what`` of every rank's agent returns.

    Raises:
        UserError: an iteration was broken off, and the others wait in the middle of theirs.
    """
    if agent.stepping:
        raise UserError("the other processes cannot be asked for their environments in the middle of an iteration")
    ranks.tell((what, *arguments))
    return ranks.collect(getattr(agent, what)(*arguments))

"""Which number an environment returns as its reward, and a heuristic that is a function at hand."""

from __future__ import annotations

import inspect
from typing import Any, Callable, Mapping, Union

from torch import Tensor

from hepo_isaac.envs.heuristic import RANDOM, Heuristic, HeuristicFunction
from hepo_isaac.errors import UserError, nearest

# (task (N,), heuristic (N,)) -> reward (N,), in arrays or tensors as the environment returns them.
RewardFunction = Callable[[Any, Any], Any]
Reward = Union[str, RewardFunction]

REWARDS: Mapping[str, RewardFunction] = {
    "task": lambda task, heuristic: task,
    "heuristic": lambda task, heuristic: heuristic,
    "sum": lambda task, heuristic: task + heuristic,
}


def reward_function(reward: Reward) -> RewardFunction:
    """``reward`` of make() as a function.

    Raises:
        UserError: it is neither one of the words nor a function of two arguments.
    """
    if isinstance(reward, str):
        if reward not in REWARDS:
            close = nearest(reward, REWARDS, 1)
            hint = " (did you mean %r?)" % close[0] if close else ""
            raise UserError(
                "reward=%r is unknown%s; expected 'task', 'heuristic', 'sum' or a function of both" % (reward, hint)
            )
        return REWARDS[reward]
    if not callable(reward):
        raise UserError(
            "reward is a %s; expected 'task', 'heuristic', 'sum' or a function (task, heuristic) -> (N,)"
            % type(reward).__name__
        )
    _check_arguments(reward, "reward=%s" % name_of(reward), 2, "the task reward and the heuristic, (N,) each")
    return reward


def checked_reward(function: RewardFunction, task: Any, heuristic: Any) -> Any:
    """What ``function`` makes of both, (N,).

    Raises:
        UserError: it raised, or returned something else.
    """
    try:
        found = function(task, heuristic)
    except UserError:
        raise
    except Exception as error:
        raise UserError("reward=%s raised %s: %s" % (name_of(function), type(error).__name__, error)) from error
    if type(found) is not type(task) or found.shape != task.shape:
        got = "shape %s" % (tuple(found.shape),) if type(found) is type(task) else "a %s" % type(found).__name__
        raise UserError(
            "reward=%s returned %s; expected a %s of shape %s"
            % (name_of(function), got, type(task).__name__, tuple(task.shape))
        )
    return found


def name_of(function: Any) -> str:
    """How a function is called in messages."""
    return str(getattr(function, "__qualname__", "") or type(function).__name__).replace("<locals>.", "")


def heuristic_function(function: Heuristic) -> HeuristicFunction:
    """A function at hand, guarded as one that is named.

    Raises:
        UserError: it cannot be called with a state.
    """
    if not callable(function):
        raise UserError(
            "heuristic is a %s; expected a name, 'package.module:function' or a function of the task's state"
            % type(function).__name__
        )
    guarded = HeuristicFunction(name_of(function), function)
    given = {RANDOM: None} if guarded.needs_random else {}
    _check_arguments(function, "heuristic %s" % guarded.name, 1, "the task's state", given)
    return guarded


def try_heuristic(heuristic: HeuristicFunction, state: Any) -> None:
    """Call a user's function once, before a training hangs on it.

    Raises:
        UserError: it raised, or returned something else than it has to.
    """
    try:
        heuristic(state)
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            "heuristic %s raised %s: %s; expected h of a state with the fields %s"
            % (heuristic.name, type(error).__name__, error, ", ".join(_fields(state)))
        ) from error


def _fields(state: Any) -> Any:
    return [name for name, value in vars(state).items() if isinstance(value, Tensor)]


def _check_arguments(
    function: Any,
    what: str,
    count: int,
    meaning: str,
    given: Mapping[str, Any] = {},  # noqa: B006 (only read)
) -> None:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # a callable that does not say
        return
    try:
        signature.bind(*[None] * count, **given)
    except TypeError as error:
        raise UserError(
            "%s%s cannot be called with %d argument%s, %s: %s"
            % (what, signature, count, "" if count == 1 else "s", meaning, error)
        ) from error

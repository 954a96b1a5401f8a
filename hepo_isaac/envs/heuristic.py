"""Which heuristic a run uses: one of the task's own by name, or a user's ``package.module:function``."""

from __future__ import annotations

import copy
import importlib
import inspect
from dataclasses import fields
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple, Union

import torch
from torch import Tensor

from hepo_isaac.envs.streams import Streams
from hepo_isaac.errors import UserError, blamed, unknown

# The task's state (a dataclass of (N, .) tensors) -> h (N,), or named terms (N,) whose sum is h.
Heuristic = Callable[..., Union[Tensor, Mapping[str, Tensor]]]
RANDOM = "random"  # a heuristic with a parameter of this name is given random numbers of its own
# Calls whose state is compared with a copy: tensors know of changes made through torch, not of those through numpy.
COMPARED_CALLS = 3


class HeuristicFunction:
    """Calls a heuristic and checks what it returns, without reading a value on the host but in the first calls.

    The function takes the task's state (a dataclass of (N, .) tensors) and returns h as a float32 (N,) tensor, or a
    dict of named terms of that shape, whose sum is h. It runs under ``torch.no_grad()``. The state's tensors are the
    task's and the engine's own: a function that changes one is refused, since it would change what the policy is
    trained and judged on. Values that are not finite are counted by TaskEnv.

    Attributes:
        random: source of random numbers for a function with a parameter ``random``; see ``needs_random``.
    """

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        self.name, self._function = name, function
        self.needs_random = RANDOM in _parameters(function)
        self.random: Optional[Streams] = None
        self._terms: Optional[List[str]] = None  # names in the order of the first result; of one without terms, none
        self._calls = 0

    def __call__(self, state: Any) -> Tuple[Tensor, Dict[str, Tensor]]:
        """Returns (h (N,), terms), terms always in the order of the first call.

        Raises:
            UserError: the function changed its state, or returned something else than it has to.
        """
        held = _tensors(state)
        versions = [tensor._version for tensor in held.values()]
        before = None
        if self._calls < COMPARED_CALLS and not any(tensor.is_meta for tensor in held.values()):
            before = [tensor.clone() for tensor in held.values()]
        given = {RANDOM: self.random} if self.needs_random else {}
        with torch.no_grad():
            result = self._called(state, given)
        self._check_untouched(held, versions, before)
        self._calls += 1
        terms = self._checked(result, next(iter(held.values())))
        if isinstance(result, dict):
            return torch.stack(tuple(terms.values())).sum(0), terms
        return result, {}

    def _called(self, state: Any, given: Mapping[str, Any]) -> Any:
        """What the function returns; what somebody's own raises is said with its own line."""
        if ":" not in self.name:
            return self._function(copy.copy(state), **given)
        try:
            return self._function(copy.copy(state), **given)
        except (UserError, KeyboardInterrupt):
            raise
        except (Exception, SystemExit) as error:
            raise UserError(
                "heuristic=%s failed with %s; the state that it was given has: %s"
                % (self.name, blamed(error), ", ".join(field.name for field in fields(state)))
            ) from error

    def _check_untouched(self, held: Dict[str, Tensor], versions: List[int], before: Optional[List[Tensor]]) -> None:
        changed = [name for (name, tensor), then in zip(held.items(), versions) if tensor._version != then]
        if before is not None:
            # host read: whether two tensors are equal, in the first calls alone
            changed += [
                name
                for (name, tensor), then in zip(held.items(), before)
                if name not in changed and not torch.equal(tensor.nan_to_num(), then.nan_to_num())
            ]
        if changed:
            names = ", ".join("state." + name for name in changed)
            raise UserError(
                "heuristic %s changes %s in place, which are the task's own numbers; expected a function that leaves "
                "its state as it is: write x = x * 2 instead of x *= 2, or clone() first" % (self.name, names)
            )

    def _checked(self, result: Any, like: Tensor) -> Dict[str, Tensor]:
        """The terms in the order of the first call; {} for a result without terms."""
        if not isinstance(result, dict):
            self._check("", result, like)
            names: List[str] = []
        else:
            if not result:
                raise UserError("heuristic %s returned no terms; expected at least one (N,) tensor" % self.name)
            for term, value in result.items():
                self._check("term %r of " % term, value, like)
            names = list(result)
        if self._terms is None:
            self._terms = names
        elif set(names) != set(self._terms):
            said = [", ".join(map(str, n)) or "a tensor without terms" for n in (self._terms, names)]
            raise UserError(
                "heuristic %s returned other terms than before (%s, now %s); expected the same in every step"
                % (self.name, *said)
            )
        return {term: result[term] for term in self._terms}

    def _check(self, what: str, value: Any, like: Tensor) -> None:
        if (
            isinstance(value, Tensor)
            and value.shape == like.shape[:1]
            and value.dtype == torch.float32
            and value.device == like.device
        ):
            return
        expected = "a float32 tensor of shape (%d,) on %s" % (like.shape[0], like.device)
        if not isinstance(value, Tensor):
            got = "a %s" % type(value).__name__
        elif value.shape != like.shape[:1]:
            got = "shape %s" % (tuple(value.shape),)
        elif value.dtype != torch.float32:
            got = "dtype %s" % value.dtype
        else:
            got = "a tensor on %s" % value.device
        raise UserError("%sheuristic %s returned %s; expected %s" % (what, self.name, got, expected))


def _tensors(state: Any) -> Dict[str, Tensor]:
    """The tensors of a state by the names of its fields."""
    found = {field.name: getattr(state, field.name) for field in fields(state)}
    return {name: value for name, value in found.items() if isinstance(value, Tensor)}


def _parameters(function: Callable[..., Any]) -> List[str]:
    try:
        return list(inspect.signature(function).parameters)
    except (TypeError, ValueError):  # a callable that does not say
        return []


def find_heuristic(name: str, of_task: Mapping[str, Heuristic], task: str) -> HeuristicFunction:
    """A heuristic by name or ``package.module:function``.

    Args:
        of_task: the task's own, by name.  task: its name, for the error.

    Raises:
        UserError: there is none.
    """
    if ":" in name:
        return HeuristicFunction(name, _import_function(name))
    if name not in of_task:
        raise unknown("heuristic of %s" % task, name, [*of_task, "package.module:function"])
    return HeuristicFunction(name, of_task[name])


def _import_function(path: str) -> Callable[..., Any]:
    module_name, _, attribute = path.partition(":")
    expected = "expected package.module:function"
    if not all(part.isidentifier() for part in (*module_name.split("."), *attribute.split("."))):
        raise UserError("heuristic=%s names no function; %s" % (path, expected))
    try:
        function: Any = importlib.import_module(module_name)
        for part in attribute.split("."):
            function = getattr(function, part)
    except (Exception, SystemExit) as error:  # somebody's own code may do anything
        raise UserError("heuristic=%s cannot be imported: %s; %s" % (path, blamed(error), expected)) from error
    if not callable(function):
        raise UserError("heuristic=%s is a %s; expected a function" % (path, type(function).__name__))
    if isinstance(function, type):
        raise UserError("heuristic=%s is a class; expected a function of the task's state" % path)
    _check_signature(path, function)
    return function


def _check_signature(path: str, function: Callable[..., Any]) -> None:
    """Refuse a function that cannot be called with the state alone, or with ``random`` besides."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # a callable that does not say
        return
    given = {RANDOM: None} if RANDOM in signature.parameters else {}
    try:
        signature.bind(None, **given)
    except TypeError as error:
        code = getattr(function, "__code__", None)
        where = " in %s, line %d" % (code.co_filename, code.co_firstlineno) if code is not None else ""
        raise UserError(
            "heuristic=%s cannot be called as %s(state): %s; it is %s%s%s, expected one parameter, the task's state "
            "(and random, if it needs random numbers)"
            % (path, path.rpartition(":")[2], error, path.rpartition(":")[2], signature, where)
        ) from error

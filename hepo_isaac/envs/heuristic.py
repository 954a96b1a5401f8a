"""Which heuristic a run uses: one of the task's own by name, or a user's ``package.module:function``."""

from __future__ import annotations

import importlib
from dataclasses import fields
from typing import Any, Callable, Dict, Mapping, Tuple, Union

import torch
from torch import Tensor

from hepo_isaac.errors import UserError, unknown

# The task's state (a dataclass of (N, .) tensors) -> h (N,), or named terms (N,) whose sum is h.
Heuristic = Callable[[Any], Union[Tensor, Mapping[str, Tensor]]]


class HeuristicFunction:
    """Calls a heuristic and checks what it returns, without ever reading a value on the host.

    The function takes the task's state (a dataclass of (N, .) tensors) and returns h as a float32 (N,) tensor,
    or a dict of named terms of that shape, whose sum is h. Values that are not finite are counted by TaskEnv.
    """

    def __init__(self, name: str, function: Callable[[Any], Any]) -> None:
        self.name, self._function, self._checked = name, function, False

    def __call__(self, state: Any) -> Tuple[Tensor, Dict[str, Tensor]]:
        """Returns (h (N,), terms)."""
        result = self._function(state)
        if not self._checked:
            self._check_result(result, getattr(state, fields(state)[0].name))
            self._checked = True
        if isinstance(result, dict):
            return torch.stack(tuple(result.values())).sum(0), result
        return result, {}

    def _check_result(self, result: Any, like: Tensor) -> None:
        """The first result is checked; what could change later (values, not shapes) is counted by TaskEnv."""
        if not isinstance(result, dict):
            self._check("", result, like)
            return
        if not result:
            raise UserError("heuristic %s returned no terms; expected at least one (N,) tensor" % self.name)
        for term, value in result.items():
            self._check("term %r of " % term, value, like)

    def _check(self, what: str, value: Any, like: Tensor) -> None:
        expected = "a float32 tensor of shape (%d,) on %s" % (like.shape[0], like.device)
        if not isinstance(value, Tensor):
            got = "a %s" % type(value).__name__
        elif value.shape != like.shape[:1]:
            got = "shape %s" % (tuple(value.shape),)
        elif value.dtype != torch.float32:
            got = "dtype %s" % value.dtype
        elif value.device != like.device:
            got = "a tensor on %s" % value.device
        else:
            return
        raise UserError("%sheuristic %s returned %s; expected %s" % (what, self.name, got, expected))


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


def _import_function(path: str) -> Callable[[Any], Any]:
    module_name, _, attribute = path.partition(":")
    try:
        function = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise UserError(
            "heuristic=%s cannot be imported: %s; expected package.module:function" % (path, error)
        ) from error
    if not callable(function):
        raise UserError("heuristic=%s is a %s; expected a function" % (path, type(function).__name__))
    return function

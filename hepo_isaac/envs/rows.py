"""Which tensors of an environment's state have a row per env: all of them but scalars and what stands under SHARED.

Runs trained side by side share one environment, and each saves its own rows of this state; so the state has to say
which tensors have rows. A shape cannot tell: eight drive gains look like the rows of eight envs.
"""

from __future__ import annotations

from typing import Any, Dict, Iterator, Tuple

from torch import Tensor

from hepo_isaac.sim.base import SHARED as SHARED


def check_rows(state: Any, num_envs: int) -> None:
    """Refuse a tensor that has neither a row per env nor a place under SHARED.

    Raises:
        ValueError: there is one; the message names it.
    """
    for path, tensor in _tensors(state):
        if tensor.dim() and tensor.shape[0] != num_envs:
            raise ValueError(
                "%s of an environment's state has shape %s; expected a row for each of %d envs, or a place under the "
                "key %r, which all runs side by side have in common" % (path, tuple(tensor.shape), num_envs, SHARED)
            )


def declared(state: Dict[str, Any]) -> Dict[str, Any]:
    """An environment's state, also one saved before SHARED, when drive gains of all envs stood beside the rows."""
    sim = state.get("sim", {})
    gains = sim.get("gains")
    if not gains or gains[0].dim() != 1:
        return state
    rest = {key: value for key, value in sim.items() if key != "gains"}
    return {**state, "sim": {**rest, SHARED: {"gains": gains}}}


def _tensors(node: Any, path: str = "") -> Iterator[Tuple[str, Tensor]]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key != SHARED:
                yield from _tensors(value, "%s%s%s" % (path, "." if path else "", key))
    elif isinstance(node, (list, tuple)):
        for index, value in enumerate(node):
            yield from _tensors(value, "%s[%d]" % (path, index))
    elif isinstance(node, Tensor):
        yield path, node

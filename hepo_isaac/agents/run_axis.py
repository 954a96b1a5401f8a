"""Cut the state of S runs trained side by side into one per run, and put such states together again.

Every tensor of a learner and its meter has its leading axis grouped by run. Of an environment's state, the tensors
with a row per env have; anything else (counters of the engine) is shared, and each run gets a copy.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, List

import torch
from torch import Tensor

# Lists with one entry per run: the states of random streams.
_PER_RUN = ("generators", "streams")


def select_run(state: Dict[str, Any], run: int, num_runs: int, num_envs: int) -> Dict[str, Any]:
    """The part of an agent's full state that belongs to ``run``.

    Args:
        num_envs: N of all runs together.
    """
    if num_runs == 1:
        return state

    def block(x: Tensor) -> Tensor:
        size = x.shape[0] // num_runs
        return x[run * size : (run + 1) * size].clone()

    cut = dict(state)
    for part in ("learner", "meter"):
        cut[part] = _walk(state[part], lambda x: block(x) if x.dim() else x.clone(), run)
    cut["env"] = _walk(state["env"], lambda x: block(x) if _rows(x) == num_envs else x.clone(), run)
    return cut


def join_runs(states: List[Dict[str, Any]], envs_per_run: int) -> Dict[str, Any]:
    """The full state of runs side by side, from one state each."""
    if len(states) == 1:
        return states[0]
    joined = dict(states[0])
    for part in ("learner", "meter"):
        joined[part] = _merge([s[part] for s in states], lambda x: x.dim() > 0)
    joined["env"] = _merge([s["env"] for s in states], lambda x: _rows(x) == envs_per_run)
    return joined


def _rows(x: Tensor) -> int:
    return x.shape[0] if x.dim() else -1


def _walk(node: Any, cut: Callable[[Tensor], Tensor], run: int) -> Any:
    if isinstance(node, dict):
        return {k: [v[run]] if k in _PER_RUN else _walk(v, cut, run) for k, v in node.items()}
    if isinstance(node, (list, tuple)):
        return type(node)(_walk(v, cut, run) for v in node)
    return cut(node) if isinstance(node, Tensor) else node


def _merge(nodes: List[Any], grouped: Callable[[Tensor], bool]) -> Any:
    first = nodes[0]
    if isinstance(first, dict):
        return {k: [n[k][0] for n in nodes] if k in _PER_RUN else _merge([n[k] for n in nodes], grouped) for k in first}
    if isinstance(first, (list, tuple)):
        return type(first)(_merge(list(parts), grouped) for parts in zip(*nodes))
    if isinstance(first, Tensor) and grouped(first):
        return torch.cat(nodes, 0)
    return first

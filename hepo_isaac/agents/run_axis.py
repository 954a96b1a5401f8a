"""Cut the state of S runs trained side by side into one per run, and put such states together again.

Every tensor of a learner and its meter has its leading axis grouped by run, and so has every tensor of an environment's
state, which has a row per env. Numbers, scalars and what stands under the key SHARED belong to all runs, and each gets
a copy. Whoever makes a state says which is which (envs/rows.py checks it); no shape is compared here.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, List

import torch
from torch import Tensor

from hepo_isaac.envs.rows import SHARED, declared

PARTS = ("learner", "meter", "env", "ranks")  # the last one where a run had several ranks
# Lists with one entry per run: the states of random streams.
_PER_RUN = ("generators", "streams", "heuristic_streams")


def select_run(state: Dict[str, Any], run: int, num_runs: int) -> Dict[str, Any]:
    """The part of an agent's full state that belongs to ``run``."""
    if num_runs == 1:
        return state

    def block(x: Tensor) -> Tensor:
        if not x.dim():
            return x.clone()
        size = x.shape[0] // num_runs
        return x[run * size : (run + 1) * size].clone()

    cut = dict(state)
    for part in _present(state):
        cut[part] = _walk(state[part], block, run)
    return cut


def join_runs(states: List[Dict[str, Any]]) -> Dict[str, Any]:
    """The full state of runs side by side, from one state each."""
    if len(states) == 1:
        return states[0]
    joined = dict(states[0])
    states = [{**s, "env": declared(s["env"])} for s in states]
    for part in _present(joined):
        joined[part] = _merge([s[part] for s in states])
    return joined


def _present(state: Dict[str, Any]) -> List[str]:
    return [part for part in PARTS if part in state]


def _walk(node: Any, cut: Callable[[Tensor], Tensor], run: int) -> Any:
    if isinstance(node, dict):
        return {k: [v[run]] if k in _PER_RUN else v if k == SHARED else _walk(v, cut, run) for k, v in node.items()}
    if isinstance(node, (list, tuple)):
        return type(node)(_walk(v, cut, run) for v in node)
    return cut(node) if isinstance(node, Tensor) else node


def _merge(nodes: List[Any]) -> Any:
    first = nodes[0]
    if isinstance(first, dict):
        return {k: _merge_entry(k, [n[k] for n in nodes]) for k in first}
    if isinstance(first, (list, tuple)):
        return type(first)(_merge(list(parts)) for parts in zip(*nodes))
    if isinstance(first, Tensor) and first.dim():
        return torch.cat(nodes, 0)
    return first


def _merge_entry(key: str, nodes: List[Any]) -> Any:
    if key in _PER_RUN:
        return [node[0] for node in nodes]
    return nodes[0] if key == SHARED else _merge(nodes)

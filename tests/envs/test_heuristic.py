"""User heuristics: what is accepted, and what the errors say."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from hepo_isaac.envs.heuristic import HeuristicFunction
from hepo_isaac.errors import UserError
from tasks.robots.franka_cabinet import FrankaCabinet


@dataclass
class State:
    position: torch.Tensor
    speed: torch.Tensor


def state(n=4):
    return State(torch.ones(n, 3), torch.ones(n))


def good(s):
    return s.speed * 2


def wrong_shape(s):
    return s.position


def wrong_dtype(s):
    return s.speed.double()


def a_number(s):
    return 3.0


def wrong_term(s):
    return {"fine": s.speed, "odd": s.speed[:2]}


def no_terms(s):
    return {}


def test_tensor_and_terms():
    h, terms = HeuristicFunction("good", good)(state())
    assert h.tolist() == [2.0] * 4 and terms == {}
    h, terms = HeuristicFunction("two", lambda s: {"a": s.speed, "b": 3 * s.speed})(state())
    assert h.tolist() == [4.0] * 4 and set(terms) == {"a", "b"}


@pytest.mark.parametrize(
    "function, said",
    [
        (wrong_shape, r"tests\.envs.*:wrong_shape returned shape \(4, 3\); expected a float32 tensor of shape \(4,\)"),
        (wrong_dtype, "returned dtype torch.float64"),
        (a_number, "returned a float"),
        (wrong_term, r"term 'odd' of heuristic .* returned shape \(2,\)"),
        (no_terms, "returned no terms"),
    ],
)
def test_wrong_results_name_the_function_and_what_was_expected(function, said):
    name = "tests.envs.test_heuristic:" + function.__name__
    with pytest.raises(UserError, match=said):
        HeuristicFunction(name, function)(state())


def test_wrong_device_is_named():
    with pytest.raises(UserError, match="a tensor on meta; expected .* on cpu"):
        HeuristicFunction("f", lambda s: torch.zeros(4, device="meta"))(state())


def test_import_path():
    assert FrankaCabinet.find_heuristic("tests.envs.test_heuristic:good")(state())[0].shape == (4,)
    with pytest.raises(UserError, match="cannot be imported.*package.module:function"):
        FrankaCabinet.find_heuristic("no.such.module:f")
    with pytest.raises(UserError, match="expected a function"):
        FrankaCabinet.find_heuristic("math:pi")
    with pytest.raises(UserError, match="'defualt': did you mean 'default'"):
        FrankaCabinet.find_heuristic("defualt")

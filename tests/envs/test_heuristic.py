"""User heuristics: what is accepted, and what the errors say."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import pytest
import torch

from hepo_isaac.config import plain, resolve
from hepo_isaac.envs.heuristic import HeuristicFunction
from hepo_isaac.envs.make import make_env
from hepo_isaac.errors import UserError
from hepo_isaac.overrides import compose
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


def in_place(s):
    p = s.speed
    p *= 100
    return p


def through_a_view(s):
    s.position[:, 0].clamp_(max=0.0)
    return s.speed * 1.0


def through_numpy(s):
    s.speed.numpy()[0] = 7.0
    return s.speed * 1.0


def through_data(s):
    s.speed.data.mul_(2.0)
    return s.speed * 1.0


@pytest.mark.parametrize(
    ("function", "field"),
    [(in_place, "speed"), (through_a_view, "position"), (through_numpy, "speed"), (through_data, "speed")],
)
def test_a_function_that_changes_its_state_is_refused_and_the_field_is_named(function, field):
    with pytest.raises(UserError, match=r"heuristic f changes state\.%s in place.*expected" % field):
        HeuristicFunction("f", function)(state())


def test_a_change_that_comes_late_is_refused_too():
    late = HeuristicFunction("late", lambda s: in_place(s) if late.calls_of_test > 50 else good(s))
    for late.calls_of_test in range(51):
        late(state())
    late.calls_of_test = 51
    with pytest.raises(UserError, match=r"state\.speed in place"):
        late(state())


def test_the_state_object_itself_is_a_copy():
    def replaces(s):
        s.speed = s.speed * 0.0
        return s.speed

    given = state()
    HeuristicFunction("replaces", replaces)(given)
    assert given.speed.tolist() == [1.0] * 4


def test_terms_are_matched_by_name_whatever_their_order():
    orders = iter([("a", "b"), ("b", "a")])
    function = HeuristicFunction("f", lambda s: {k: s.speed * (4.0 if k == "a" else 8.0) for k in next(orders)})
    for _ in range(2):
        h, terms = function(state())
        assert [(k, v[0].item()) for k, v in terms.items()] == [("a", 4.0), ("b", 8.0)] and h[0].item() == 12.0


@pytest.mark.parametrize(
    ("later", "said"),
    [
        (lambda s: s.speed[:2], r"shape \(2,\)"),
        (lambda s: {"a": s.speed, "c": s.speed}, "other terms than before"),
        (lambda s: {"a": s.speed}, "other terms than before"),
        (lambda s: s.speed, "other terms than before .*now a tensor without terms"),
        (lambda s: {"a": s.speed, "b": s.speed.double()}, "dtype torch.float64"),
    ],
)
def test_a_result_that_changes_its_form_later_is_one_sentence(later, said):
    functions = iter([lambda s: {"a": s.speed, "b": s.speed}, later])
    function = HeuristicFunction("f", lambda s: next(functions)(s))
    function(state())
    with pytest.raises(UserError, match=said):
        function(state())


def test_it_runs_without_gradients():
    weight = torch.ones(1, requires_grad=True)
    h, _ = HeuristicFunction("net", lambda s: s.speed * weight)(state())
    assert not h.requires_grad and h.grad_fn is None


def test_not_a_number_in_the_state_is_no_change():
    given = state()
    given.speed[1] = float("nan")
    HeuristicFunction("good", good)(given)


def noisy(state, random):
    return state.distance2 + random.randn()


def settled(**more):
    given = ["task=EffortReach", "heuristic=tests.envs.test_heuristic:noisy", "num_envs=8", "device=cpu"]
    return {**plain(resolve(compose(given), given, cuda=False)), **more}


def test_random_numbers_are_given_and_go_on_exactly():
    def steps(env, count):
        return torch.stack([env.step(torch.zeros(env.num_envs, env.num_actions)).rewards[:, 1] for _ in range(count)])

    env = make_env(settled())
    env.reset()
    steps(env, 3)
    state = copy.deepcopy(env.get_state())
    expected = steps(env, 4)
    assert len(set(expected.flatten().tolist())) > 20
    other = make_env(settled(seed=9))
    other.reset()
    other.load_state(state)
    assert torch.equal(steps(other, 4), expected)


def test_drawing_does_not_move_the_environments():
    quiet = {**settled(), "task": {**settled()["task"], "heuristic": "default"}}
    seen = []
    for cfg in (settled(), quiet):
        env = make_env(cfg)
        first = env.reset()
        seen.append(torch.stack([first, *(env.step(torch.zeros(8, env.num_actions)).obs for _ in range(30))]))
    assert torch.equal(*seen)


def test_a_run_side_by_side_draws_as_it_does_alone():
    h = {}
    for seeds in ([3], [3, 4], [4]):
        env = make_env(settled(run_seeds=seeds))
        env.reset()
        result = [env.step(torch.zeros(env.num_envs, env.num_actions)).rewards[:, 1] for _ in range(3)]
        h[tuple(seeds)] = torch.stack(result)
    assert torch.equal(torch.cat((h[3,], h[4,]), 1), h[3, 4])


def test_a_potential_takes_no_random_numbers():
    with pytest.raises(UserError, match="a potential is a function of the state"):
        make_env(settled(potential="tests.envs.test_heuristic:noisy"))


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

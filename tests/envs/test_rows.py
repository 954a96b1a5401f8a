"""The state of environments that runs share: cut apart and joined by what it says of itself, whatever the sizes."""

from __future__ import annotations

import copy

import pytest
import torch

from hepo_isaac.agents.run_axis import join_runs, select_run
from hepo_isaac.config import plain, resolve
from hepo_isaac.envs.make import make_env
from hepo_isaac.envs.rows import SHARED, check_rows
from hepo_isaac.overrides import compose

# As many envs as a robot has drives: what belongs to all runs looks like rows. (task, envs of a run)
SAME_SIZES = [("Ant", 8), ("AllegroHand", 16), ("Anymal", 12)]


def settled(task, num_envs, seeds):
    given = ["task=" + task, "num_envs=%d" % num_envs, "device=cpu", "sim.threads=1"]
    return {**plain(resolve(compose(given), given, cuda=False)), "run_seeds": seeds}


def whole(env):
    return {"learner": {}, "meter": {}, "env": env.get_state()}


def leaves(node, path=""):
    if isinstance(node, dict):
        return {k: v for key, value in node.items() for k, v in leaves(value, "%s/%s" % (path, key)).items()}
    if isinstance(node, (list, tuple)):
        return {k: v for i, value in enumerate(node) for k, v in leaves(value, "%s/%d" % (path, i)).items()}
    return {path: node}


def same(a, b):
    a, b = leaves(a), leaves(b)
    assert a.keys() == b.keys()
    for key, value in a.items():
        assert torch.equal(value, b[key]) if isinstance(value, torch.Tensor) else value == b[key], key


@pytest.mark.parametrize(("task", "num_envs"), SAME_SIZES)
@pytest.mark.parametrize("runs", [3, 1])
def test_runs_that_are_cut_apart_join_again_and_go_on(task, num_envs, runs):
    seeds = list(range(1, runs + 1))
    env = make_env(settled(task, num_envs, seeds))
    env.reset()
    for _ in range(2):
        env.step(torch.rand(env.num_envs, env.num_actions))
    states = copy.deepcopy([select_run(whole(env), run, runs) for run in range(runs)])
    same(join_runs(states)["env"], env.get_state())
    alone = make_env(settled(task, num_envs, seeds[-1:]))
    alone.reset()
    alone.load_state(states[-1]["env"])
    move = torch.rand(num_envs, env.num_actions)
    mine = env.step(torch.cat((torch.zeros((runs - 1) * num_envs, env.num_actions), move))).obs[-num_envs:]
    torch.testing.assert_close(alone.step(move).obs, mine)  # rows elsewhere in a batch may round otherwise


def test_a_state_saved_before_shared_had_a_name_is_joined_too():
    env = make_env(settled("Ant", 8, [1, 2]))
    env.reset()
    states = [select_run(whole(env), run, 2) for run in range(2)]
    for state in states:
        state["env"]["sim"]["gains"] = state["env"]["sim"].pop(SHARED)["gains"]
    joined = join_runs(states)["env"]
    same(joined, env.get_state())
    env.load_state(joined)
    (old,) = [{**s, "env": {**s["env"]}} for s in states[:1]]
    one = make_env(settled("Ant", 8, [1]))
    one.load_state(old["env"])
    same(one.get_state(), select_run(whole(env), 0, 2)["env"])


@pytest.mark.parametrize(
    ("state", "culprit"),
    [
        ({"task": {"table": torch.zeros(3, 4)}}, r"task\.table .* shape \(3, 4\)"),
        ({"sim": {"gains": (torch.zeros(4), torch.zeros(3))}}, r"sim\.gains\[1\]"),
    ],
)
def test_a_tensor_without_rows_is_named(state, culprit):
    with pytest.raises(ValueError, match=culprit):
        check_rows(state, 4)


def test_rows_scalars_numbers_and_what_is_shared_are_fine():
    check_rows({"a": torch.zeros(4, 2), "b": [torch.zeros(())], "c": 3, SHARED: {"table": torch.zeros(7)}}, 4)

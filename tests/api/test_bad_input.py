"""Bad input of the Python API: one clear sentence each, before anything is built or written."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch

import hepo_isaac
from hepo_isaac.errors import UserError

MAKE = functools.partial(hepo_isaac.make, "Push2D", 2)
TRAIN = functools.partial(hepo_isaac.train, "Push2D", "ppo_h", 4)


def two_arguments(state, goal):
    return state


def no_argument():
    return 0.0


def wrong_shape(state):
    return torch.zeros(7)


def wrong_kind(state):
    return 3.0


def wrong_dtype(state):
    return torch.zeros(2, dtype=torch.float64)


def raises(state):
    return state.no_such_field


def writes(state):
    next(iter(vars(state).values())).add_(1.0)
    return torch.zeros(2)


def no_terms(state):
    return {}


# what is called -> pieces that its one sentence has
MADE = [
    (lambda: hepo_isaac.make("Annt"), ["unknown task 'Annt'", "'Ant'"]),
    (lambda: hepo_isaac.make(""), ["task"]),
    (lambda: hepo_isaac.make("Ant,Cartpole"), ["task"]),
    (lambda: hepo_isaac.make(3), ["task"]),
    (lambda: hepo_isaac.make(None), ["task"]),
    (lambda: hepo_isaac.make("no/such/file.py:Task"), ["no/such/file.py"]),
    (lambda: MAKE(engine="physx"), ["unknown sim 'physx'", "isaacgym"]),
    (lambda: MAKE(engine="mujoco_batch"), ["task=Push2D does not run on sim=mujoco_batch"]),
    (lambda: MAKE(engine=None), ["sim"]),
    (lambda: MAKE(device="gpu"), ["unknown device 'gpu'"]),
    (lambda: MAKE(device=0), ["unknown device '0'"]),
    (lambda: MAKE(seed=-1), ["seed must be from 0"]),
    (lambda: MAKE(seed=2**32), ["seed must be from 0"]),
    (lambda: MAKE(seed=1.5), ["seed must be a whole number, got 1.5"]),
    (lambda: MAKE(seed=None), ["seed"]),
    (lambda: hepo_isaac.make("Push2D", 0), ["num_envs must be at least 1 and at most", "got 0"]),
    (lambda: hepo_isaac.make("Push2D", -1), ["num_envs", "-1"]),
    (lambda: hepo_isaac.make("Push2D", 1.5), ["num_envs must be a whole number or auto, got 1.5"]),
    (lambda: hepo_isaac.make("Push2D", 1e10), ["num_envs must be a whole number or auto"]),
    (lambda: hepo_isaac.make("Push2D", 10**10), ["num_envs must be at least 1 and at most", "got 10000000000"]),
    (lambda: hepo_isaac.make("Push2D", True), ["num_envs must be a whole number or auto"]),
    (lambda: hepo_isaac.make("Push2D", "many"), ["num_envs must be a whole number or auto, got many"]),
    (lambda: hepo_isaac.make("Push2D", None), ["num_envs"]),
    (lambda: MAKE(reward="foo"), ["reward='foo' is unknown", "'task', 'heuristic', 'sum'"]),
    (lambda: MAKE(reward="tsk"), ["did you mean 'task'?"]),
    (lambda: MAKE(reward=3), ["reward is a int"]),
    (lambda: MAKE(reward=lambda task: task), ["cannot be called with 2 arguments"]),
    (lambda: MAKE(output="foo"), ["unknown output 'foo'", "numpy, torch"]),
    (lambda: MAKE(output=None), ["unknown output 'None'"]),
    (lambda: MAKE(render_mode="human"), ["unknown render_mode 'human'", "rgb_array"]),
    (lambda: MAKE(render_mode="rgb_array"), ["task=Push2D on engine analytic cannot be drawn"]),
    (lambda: MAKE(render_envs=2), ["render_envs=2", "0 to 1"]),
    (lambda: MAKE(render_envs=[0, "a"]), ["render_envs"]),
    (lambda: MAKE(render_envs="some"), ["render_envs=some", "or 'all'"]),
    (lambda: MAKE(render_envs=None), ["render_envs=None"]),
    (lambda: MAKE(heuristic="nonsense"), ["unknown heuristic of Push2D 'nonsense'"]),
    (lambda: MAKE(heuristic="no_such_module:h"), ["heuristic=no_such_module:h cannot be imported"]),
    (lambda: MAKE(heuristic="math:pi"), ["heuristic=math:pi is a float"]),
    (lambda: MAKE(heuristic=":"), ["heuristic"]),
    (lambda: MAKE(heuristic=3), ["heuristic is a int"]),
    (lambda: MAKE(heuristic=two_arguments), ["heuristic two_arguments(state, goal) cannot be called with 1 argument"]),
    (lambda: MAKE(heuristic=no_argument), ["heuristic no_argument() cannot be called with 1 argument"]),
    (lambda: MAKE(heuristic=wrong_shape), ["heuristic wrong_shape returned shape (7,)", "shape (2,)"]),
    (lambda: MAKE(heuristic=wrong_kind), ["heuristic wrong_kind returned a float"]),
    (lambda: MAKE(heuristic=wrong_dtype), ["heuristic wrong_dtype returned dtype torch.float64"]),
    (lambda: MAKE(heuristic=raises), ["heuristic raises raised AttributeError", "no_such_field"]),
    (lambda: MAKE(heuristic=writes), ["heuristic writes changes state."]),
    (lambda: MAKE(heuristic=no_terms), ["heuristic no_terms returned no terms"]),
    (lambda: MAKE(heuristic=lambda: 0), ["cannot be called with 1 argument"]),
    (lambda: MAKE(nonsense=1), ["unknown setting 'nonsense'"]),
    (lambda: MAKE(task__nonsense=1), ["unknown setting 'task.nonsense'"]),
    (lambda: MAKE(episode_length=7), ["unknown setting 'episode_length'", "task.episode_length"]),
    (lambda: MAKE(settings={"task.nonsense": 1}), ["unknown setting 'task.nonsense'"]),
    (lambda: MAKE(settings={"a b": 1}), ["'a b' is no name of a setting"]),
    (lambda: MAKE(settings={"+task.new": 1}), ["'+task.new' is no name of a setting"]),
    (lambda: MAKE(settings={3: 1}), ["3 is no name of a setting"]),
    (lambda: MAKE(settings={"hydra.run.dir": "x"}), ["'hydra.run.dir' is no name of a setting"]),
    (lambda: MAKE(settings=["task.episode_length=3"]), ["settings is a list"]),
    (lambda: MAKE(settings={"task.episode_length": 5}, task__episode_length=6), ["task.episode_length is given twice"]),
    (lambda: MAKE(settings={"num_envs": 5}), ["num_envs is an argument of make"]),
    (lambda: MAKE(sim="analytic"), ["sim is an argument of make: say engine=…"]),
    (lambda: MAKE(algo="hepo"), ["algo is a setting of trainings"]),
    (lambda: MAKE(train__gamma=0.9), ["train.gamma is a setting of trainings"]),
    (lambda: MAKE(task__episode_length="long"), ["task.episode_length must be a whole number, got long"]),
    (lambda: MAKE(task__episode_length=0), ["task.episode_length must be at least 1", "got 0"]),
    (lambda: MAKE(task__episode_length=object()), ["task.episode_length is a object"]),
    (lambda: MAKE(task__episode_length=np.zeros(3)), ["task.episode_length is a ndarray"]),
    (lambda: MAKE(budget="huge"), ["unknown budget 'huge'"]),
    (lambda: MAKE(headless=False), ["headless", "no setting here"]),
]

TRAINED = [
    (lambda: hepo_isaac.train("Annt"), ["unknown task 'Annt'"]),
    (lambda: hepo_isaac.train("Push2D", "ppoh"), ["unknown algo 'ppoh'"]),
    (lambda: hepo_isaac.train("Push2D", "hepo", 3), ["num_envs=3 cannot be split over the 2 policies"]),
    (lambda: hepo_isaac.train("Push2D", "hepo", 0), ["num_envs"]),
    (lambda: hepo_isaac.train("Push2D", "hepo", 10**10), ["num_envs must be at least 1 and at most"]),
    (lambda: TRAIN(heuristic=lambda state: state), ["has no name that a run folder could hold"]),
    (lambda: TRAIN(heuristic=two_arguments), ["heuristic two_arguments(state, goal) cannot be called with 1 argument"]),
    (lambda: TRAIN(heuristic="nonsense"), ["unknown heuristic of Push2D"]),
    (lambda: TRAIN(seeds=0), ["seeds must be at least 1"]),
    (lambda: TRAIN(seeds=[1, 1]), ["names a seed twice"]),
    (lambda: TRAIN(train__max_iterations=0), ["train.max_iterations must be at least 1"]),
    (lambda: TRAIN(train__gama=0.9), ["unknown setting 'train.gama'", "train.gamma"]),
    (lambda: TRAIN(train__learning_rate=-1.0), ["train.learning_rate must be positive"]),
    (lambda: TRAIN(resume="runs/x"), ["resume is no setting of train(): use hepo_isaac.Run"]),
    (lambda: TRAIN(checkpoint="x.pt"), ["checkpoint is no setting of train(): use hepo_isaac.load"]),
    (lambda: TRAIN(test=True), ["test is no setting of train()"]),
    (lambda: TRAIN(eval__episodes=3), ["eval.episodes is no setting of train()"]),
    (lambda: TRAIN(settings={"seed": 3}), ["seed is an argument of train"]),
]


def said(call):
    """The one sentence that ``call`` ends in."""
    with pytest.raises(UserError) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text.strip() and len(text) < 700, text
    return text


@pytest.mark.parametrize(("call", "pieces"), MADE + TRAINED, ids=[row[1][0] for row in MADE + TRAINED])
def test_bad_arguments(call, pieces, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = said(call)
    assert all(piece in text for piece in pieces), text
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def env():
    made = hepo_isaac.make("Push2D", 3)
    yield made
    made.close()


ACTIONS = [
    (np.zeros((3, 2), np.float32), ["actions have shape (3, 2); expected (3, 3)"]),
    (np.zeros((2, 3), np.float32), ["actions have shape (2, 3); expected (3, 3)"]),
    (np.zeros(3, np.float32), ["actions have shape (3,); expected (3, 3)"]),
    (np.zeros((3, 3, 1), np.float32), ["actions have shape (3, 3, 1)"]),
    (np.zeros((3, 3), int), ["actions are int64; expected floating-point numbers"]),
    (np.zeros((3, 3), bool), ["actions are bool"]),
    (np.zeros((3, 3), complex), ["actions are complex128"]),
    (np.full((3, 3), None), ["actions are object"]),
    (torch.zeros(3, 3, dtype=torch.int64), ["actions are torch.int64"]),
    (torch.zeros(3, 2), ["actions have shape (3, 2)"]),
    ([[0, 0, 0]] * 3, ["actions are int64"]),
    ([[0.0]], ["actions have shape (1, 1)"]),
    (None, ["actions are a NoneType"]),
    ("left", ["actions are a str"]),
    (np.array([[0, 0, 0], [0, np.nan, 0], [0, 0, 0]], np.float32), ["actions of env 1 are NaN or infinite"]),
    (torch.tensor([[0.0, 0, 0], [0, 0, 0], [float("inf"), 0, 0]]), ["actions of env 2 are NaN or infinite"]),
]


@pytest.mark.parametrize(("actions", "pieces"), ACTIONS)
def test_bad_actions(env, actions, pieces):
    env.reset(seed=0)
    text = said(lambda: env.step(actions))
    assert all(piece in text for piece in pieces), text
    env.step(np.zeros((3, 3)))  # and nothing has happened


@pytest.mark.parametrize(
    ("arguments", "pieces"),
    [
        ({"seed": -1}, ["seed must be a whole number from 0"]),
        ({"seed": 2**32}, ["seed must be a whole number from 0"]),
        ({"seed": 1.5}, ["seed", "1.5"]),
        ({"seed": True}, ["seed", "True"]),
        ({"seed": [1, 2, 3]}, ["seed", "[1, 2, 3]"]),
        ({"options": {"nonsense": 1}}, ["reset has no option 'nonsense'"]),
    ],
)
def test_bad_resets(env, arguments, pieces):
    text = said(lambda: env.reset(**arguments))
    assert all(piece in text for piece in pieces), text


def test_calls_out_of_order():
    env = hepo_isaac.make("Push2D", 2)
    assert "step() before reset()" in said(lambda: env.step(np.zeros((2, 3))))
    assert "render() without a render_mode" in said(env.render)
    env.close()
    env.close()  # as often as one likes
    for call in (env.reset, lambda: env.step(np.zeros((2, 3))), env.render, env.state):
        assert "of a closed environment: make a new one" in said(call)
    drawn = hepo_isaac.make("Cartpole", 1, render_mode="rgb_array")
    assert "render() before reset()" in said(drawn.render)
    drawn.close()


@pytest.mark.parametrize(
    ("reward", "pieces"),
    [
        (lambda task, heuristic: 1.0, ["returned a float", "ndarray of shape (2,)"]),
        (lambda task, heuristic: task[:1], ["returned shape (1,)"]),
        (lambda task, heuristic: task.nonsense, ["raised AttributeError"]),
        (lambda task, heuristic: None, ["returned a NoneType"]),
    ],
)
def test_bad_rewards(reward, pieces):
    env = MAKE(reward=reward)
    env.reset()
    text = said(lambda: env.step(np.zeros((2, 3))))
    assert all(piece in text for piece in pieces), text


def test_a_heuristic_that_breaks_later_is_named():
    calls = []

    def later(state):
        calls.append(1)
        return torch.full((2,), float("nan") if len(calls) > 2 else 0.0)

    env = MAKE(heuristic=later)
    env.reset()
    env.step(np.zeros((2, 3)))
    text = said(lambda: env.step(np.zeros((2, 3))))
    assert "heuristic" in text and "later" in text and "NaN" in text


def test_what_load_refuses(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.pt").write_bytes(b"nothing")
    for path, piece in (
        (tmp_path / "nowhere", "there is no run folder or checkpoint at"),
        (tmp_path / "empty", "is not a run folder: it has no config.yaml"),
        (tmp_path / "file.pt", "is in no run folder"),
        (3, "expected the path of a run folder or a checkpoint, got a int"),
        (None, "got a NoneType"),
    ):
        assert piece in said(functools.partial(hepo_isaac.load, path)), path
    with pytest.raises(UserError, match="no run folder at"):
        hepo_isaac.Run(tmp_path / "nowhere")


def test_what_evaluate_refuses(env):
    assert "environments of hepo_isaac.make, got a str" in said(lambda: hepo_isaac.evaluate(lambda obs: obs, "Ant"))
    for episodes in (0, -1, 1.5, True, None):
        assert "episodes must be" in said(functools.partial(hepo_isaac.evaluate, str, env, episodes))
    assert "actions have shape" in said(lambda: hepo_isaac.evaluate(lambda obs: obs, env, 2))


def test_one_environment_refuses_what_only_many_have():
    import gymnasium

    for name, value in (("num_envs", 3), ("output", "torch"), ("render_envs", 0)):
        assert "means nothing to one environment" in said(
            functools.partial(gymnasium.make, "hepo_isaac/Push2D-v0", **{name: value})
        )
    one = gymnasium.make("hepo_isaac/Push2D-v0", disable_env_checker=True, task__episode_length=1).unwrapped
    one.reset()
    assert "action has shape (2,)" in said(lambda: one.step(np.zeros(2)))
    one.step(np.zeros(3))
    assert "after the end of an episode" in said(lambda: one.step(np.zeros(3)))


def test_an_attribute_that_is_not_there():
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        hepo_isaac.nonsense  # noqa: B018

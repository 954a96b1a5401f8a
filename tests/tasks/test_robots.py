"""What every task on a physics engine must do, whatever robot it is."""

from __future__ import annotations

import mujoco
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from hepo_isaac.errors import UserError
from hepo_isaac.locate import robot_tasks, task_class
from hepo_isaac.overrides import compose
from hepo_isaac.runs.play.video_worker import make_camera
from tests.tasks.robots import GOLDEN, STEPS, actions, make, play
from tests.tasks.sampled import CHOSEN, OTHERS, sampled

TASKS = sampled(robot_tasks())
DEXTEROUS = {*CHOSEN, *OTHERS}  # two hands cost four times as much: fewer worlds
GOLDEN_TASKS = sorted(path.stem for path in GOLDEN.glob("*.pt"))  # a task need not have one


@pytest.fixture(scope="module", params=TASKS)
def env(request):
    env = make(request.param, 8)
    yield env
    env.close()


def test_sizes_and_ranges(env):
    obs = env.reset()
    assert obs.shape == (8, env.num_obs) and obs.isfinite().all() and obs.abs().max() <= 5.0
    result = env.step(actions(env, 0, 1)[0])
    assert result.obs.shape == (8, env.num_obs) and result.rewards.shape == (8, 2)
    assert result.obs.isfinite().all() and result.rewards.isfinite().all() and result.terms.isfinite().all()
    assert result.terms.shape == (8, len(result.term_names)) and result.metrics.shape == (8, len(result.metric_names))


def test_a_reset_keeps_to_the_joint_limits_and_leaves_the_others_alone(env):
    env.reset()
    play(env, actions(env, 0, 3))
    mask = torch.arange(8) % 3 == 0
    names = ("dof_pos", "dof_vel", "root_state", "dof_target_pos", "body_state")
    before = [getattr(env.sim, name).nan_to_num() for name in names]
    env.task.reset(mask)
    after = [getattr(env.sim, name).nan_to_num() for name in names]
    moved = torch.stack([(new != old).flatten(1).any(1) for new, old in zip(after, before)])
    assert torch.equal(moved.any(0), mask)
    q = env.sim.dof_pos[mask]
    assert (q >= env.sim.dof_lower - 1e-6).all() and (q <= env.sim.dof_upper + 1e-6).all()


@pytest.mark.parametrize("task", TASKS)
def test_the_seed_decides_the_trajectory(task):
    def run(seed):
        env = make(task, 3, seed=seed)
        first = env.reset()
        return torch.cat((first.unsqueeze(0), play(env, actions(env, 9, 20))["obs"]))

    assert torch.equal(run(1), run(1))
    kind = task_class(task)
    alike = hasattr(kind, "draws") and not kind.draws(kind.record)  # the published episodes all start in one state
    assert torch.equal(run(1), run(2)) == alike


@pytest.mark.parametrize("task", TASKS)
def test_a_saved_environment_goes_on_exactly(task):
    one, other = make(task, 4), make(task, 4, seed=5)
    one.reset()
    one.progress[1:3] = one.max_episode_length - 6  # resets fall into what is compared
    moves = actions(one, 2, 16)
    play(one, moves[:4])
    other.reset()
    state = one.get_state()
    obs = other.load_state(state)
    torch.testing.assert_close(obs, one.observe(), rtol=0, atol=0)
    expected, seen = play(one, moves[4:]), play(other, moves[4:])
    assert expected["done"].any()
    for name, values in expected.items():
        assert torch.equal(values, seen[name]), name


def test_every_golden_trajectory_is_of_a_task():
    assert DEXTEROUS < set(GOLDEN_TASKS) <= set(robot_tasks())


@pytest.mark.parametrize("task", sampled(GOLDEN_TASKS))
def test_golden_trajectory(task):
    """Recorded once (tests/tasks/robots.py); from the same state ten steps lead to the same place."""
    golden = torch.load(GOLDEN / (task + ".pt"), weights_only=True)
    env = make(task, golden["moves"].shape[1])
    for k, segment in enumerate(golden["segments"]):
        env.load_state(segment["start"])
        seen = play(env, golden["moves"][k * STEPS : (k + 1) * STEPS])
        for name, values in segment["seen"].items():
            torch.testing.assert_close(
                seen[name], values, rtol=1e-4, atol=1e-4, msg=lambda m, n=name, k=k: "%s, segment %d: %s" % (n, k, m)
            )


@pytest.mark.parametrize("task", TASKS)
def test_every_named_heuristic_is_finite(task):
    kind = task_class(task)
    for name in kind.heuristics:
        env = make(task, 2, "heuristic=" + name)
        env.reset()
        for move in actions(env, 3, 5):
            result = env.step(move)
            assert result.rewards.isfinite().all() and not result.faults.any(), name


@pytest.mark.parametrize("task", TASKS)
def test_no_matrix_product_in_a_step(task):
    """rl-games lets matrix products run in TF32 on a GPU, whose 10-bit mantissa would blur what a task computes."""
    products = []

    class Products(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func.overloadpacket.__name__ in ("mm", "bmm", "addmm", "baddbmm", "mv", "dot"):
                products.append(func)
            return func(*args, **(kwargs or {}))

    env = make(task, 2)
    env.reset()
    env.progress[0] = env.max_episode_length - 1
    with Products():
        env.step(actions(env, 0, 1)[0])
    assert products == []


def test_no_contact_is_all_but_rigid(env):
    """A body that contacts take for immovable makes them 1e15 times as stiff as others: NaN in float32."""
    model = env.sim.model
    solid = model.geom_bodyid[(model.geom_contype | model.geom_conaffinity) > 0]
    moving = [b for b in set(solid.tolist()) if model.body_weldid[b]]
    weights = model.body_invweight0[moving, 0]
    assert len(moving) == 0 or weights.min() > 1e-4 * weights.max()


@pytest.mark.parametrize("task", TASKS)
def test_a_scene_that_cannot_be_built_is_one_sentence(task):
    with pytest.raises(UserError, match="^task=%s: .*substeps >= 1, got 0" % task) as caught:
        make(task, 2, "task.physics.substeps=0")
    assert "\n" not in str(caught.value)


def test_what_a_film_needs_is_there(env):
    """The camera that the configuration asks for, and a unit pose for every marker of the picture."""
    env.reset()
    model = mujoco.MjModel.from_xml_string(env.sim.scene.spec_text)
    make_camera(mujoco, model, compose(["task=" + env.task.name]).task.get("camera") or {})
    shown = env.render_state(0)
    assert shown["qpos"].shape == (model.nq,) and shown["markers"].shape == (model.nmocap, 7)
    assert torch.allclose(shown["markers"][:, 3:].norm(dim=1), torch.ones(model.nmocap, dtype=torch.float64))


@pytest.mark.parametrize("task", TASKS)
def test_random_actions_keep_every_world_sound(task):
    _assert_sound(task, *((4, 100) if task in DEXTEROUS else (32, 150)))


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_random_actions_keep_every_world_sound_for_long(task):
    _assert_sound(task, 16 if task in DEXTEROUS else 64, 10_000)


def _assert_sound(task, num_envs, steps):
    env = make(task, num_envs)
    env.reset()
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        result = env.step(2.0 * torch.rand(num_envs, env.num_actions, generator=generator) - 1.0)
        assert result.obs.isfinite().all() and result.obs.abs().max() <= 5.0
    assert env.bad_count.item() == 0 and env.sim.overflow_count.item() == 0

"""For the tests of the dexterous tasks: environments, states put together, forward kinematics restated in numpy."""

from __future__ import annotations

import copy
import functools

import numpy as np
import torch

from hepo_isaac.envs.make import make_env
from hepo_isaac.envs.streams import Streams
from hepo_isaac.locate import task_class, task_settings

# Published: steps of an episode, sizes of observation and action.
TABLE = {
    "Over": (75, 398, 40),
    "CatchUnderarm": (75, 422, 52),
    "CatchAbreast": (150, 422, 52),
    "CatchOver2Underarm": (75, 422, 52),
    "TwoCatchUnderarm": (75, 446, 52),
    "ReOrientation": (600, 422, 40),
    "Spin": (599, 211, 20),
    "UpsideDown": (599, 211, 20),
    **{"Door" + name: (250, 417, 52) for name in ("OpenInward", "OpenOutward", "CloseInward", "CloseOutward")},
    "Pen": (125, 417, 52),
    "Scissors": (150, 417, 52),
    "SwingCup": (150, 417, 52),
    "Kettle": (125, 417, 52),
    "BottleCap": (125, 420, 52),
    "LiftUnderarm": (500, 417, 52),
    "Switch": (125, 417, 52),
    "BlockStack": (250, 428, 52),
    "PushBlock": (125, 428, 52),
    "GraspAndPlace": (500, 425, 52),
}


def settings(name, **changes):
    """The group ``task`` of a task, as its files have it: without a budget, and in a tenth of the time of Hydra."""
    task = task_settings("ShadowHand" + name)["task"]
    return {**task, "heuristic": "default", **changes}


def fresh(name, num_envs, **changes):
    """Environments of a task."""
    sim = {"name": "mujoco_batch", "threads": 1}
    cfg = {"task": settings(name, **changes), "sim": sim, "device": "cpu", "num_envs": num_envs, "seed": 0}
    return make_env(cfg, random_start=False)


@functools.cache
def shared(name, **changes):
    """Four environments of a task, the same ones in every test: each puts them where it wants them."""
    return fresh(name, 4, **changes)


def many(name, n, seed=0):
    """A task of n environments without an engine: its resets are drawn, and the engine's first world stands for all."""
    sim = copy.copy(fresh(name, 1).sim)
    for tensor in ("root_state", "body_state", "dof_pos", "dof_vel", "dof_force", "force_sensor", "dof_target_pos"):
        setattr(sim, tensor, getattr(sim, tensor)[:1].repeat_interleave(n, 0))
    sim.num_envs, sim.may_select, sim.version = n, lambda mask: True, 0

    def set_state(mask, dof_pos, dof_vel, root_state, dof_target_pos):
        sim.dof_pos, sim.root_state, sim.version = dof_pos.clone(), root_state.clone(), sim.version + 1

    sim.set_state = set_state
    streams = Streams([torch.Generator().manual_seed(seed)], n, sim.device)
    task = task_class("ShadowHand" + name)(settings(name), sim, streams)
    task.reset(torch.ones(n, dtype=torch.bool))
    return task


def straight(env):
    """All hands at joint angles 0, things where episodes start."""
    env.reset()
    n, d = env.num_envs, len(env.sim.dof_names)
    everyone = torch.ones(n, dtype=torch.bool)
    pose = env.task._posture.expand(n, d)
    env.sim.set_state(everyone, pose, torch.zeros(n, d), root_state=env.sim.root_state.clone(), dof_target_pos=pose)


def place(env, **poses):
    """Things at positions (3,) or poses (7,), at rest, in all envs."""
    roots = env.sim.root_state.clone()
    for name, pose in poses.items():
        pose = torch.as_tensor(pose, dtype=torch.float32)
        roots[:, env.sim.actor_index(name), : pose.shape[-1]] = pose
    roots[..., 7:] = 0.0
    env.sim.set_state(torch.ones(env.num_envs, dtype=torch.bool), root_state=roots)


def joints(env, **angles):
    """Joints of things at these values, in all envs."""
    q = env.sim.dof_pos.clone()
    for name, angle in angles.items():
        for column, dof in enumerate(env.sim.dof_names):
            if dof.endswith("/" + name):
                q[:, column] = angle
    env.sim.set_state(torch.ones(env.num_envs, dtype=torch.bool), q, torch.zeros_like(q))


def turned(quat, vec):
    """Rotate vec (3,) by a quaternion xyzw."""
    x, y, z, w = quat
    matrix = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
    return matrix @ np.asarray(vec, float)


def angle_between(a, b):
    """Rotation angle between two unit quaternions xyzw, from their dot product."""
    return 2.0 * np.arccos(np.clip(abs(np.dot(a, b)), 0.0, 1.0))


def tips(env, side, row):
    """(5, 3) fingertips of a hand, 2 cm ahead of the distal links' origins."""
    found = []
    for finger in ("ff", "mf", "rf", "lf", "th"):
        body = env.sim.body_state[row, env.sim.body_index("%s/%sdistal" % (side, finger))].double().numpy()
        found.append(body[:3] + turned(body[3:7], (0, 0, 0.02)))
    return np.array(found)


def palm(env, side, row):
    """(3,) the palm's centre."""
    body = env.sim.body_state[row, env.sim.body_index("%s/palm" % side)].double().numpy()
    return body[:3] + turned(body[3:7], (0, -0.02, 0.08))


def root(env, thing, row):
    """(13,) root state of a thing."""
    return env.sim.root_state[row, env.sim.actor_index(thing)].double().numpy()


def at(env, body, offset, row):
    """(3,) a point of a body."""
    pose = env.sim.body_state[row, env.sim.body_index(body)].double().numpy()
    return pose[:3] + turned(pose[3:7], offset)

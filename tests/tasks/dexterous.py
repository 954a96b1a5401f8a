"""An independent restatement of the dexterous tasks in numpy, for their tests: forward kinematics and rewards."""

from __future__ import annotations

import numpy as np


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

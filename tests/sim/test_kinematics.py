"""Forward kinematics in torch against MuJoCo, on every asset there is, at random states."""

from __future__ import annotations

from pathlib import Path

import mujoco
import numpy as np
import pytest
import torch

from hepo_isaac.sim.isaacgym.asset import compile_asset
from hepo_isaac.sim.isaacgym.kinematics import Kinematics
from hepo_isaac.sim.spec import ActorSpec

ROOT = Path(__file__).resolve().parents[2]
ASSETS = sorted((ROOT / "tasks" / "robots" / "assets").glob("*.xml")) + sorted(
    (Path(__file__).parent / "assets").glob("*.xml")
)
MOUNTED = {"arm", "drawer", "pendulum", "slider", "cartpole"}  # a joint of their own, or a root without a mass
N = 5


class Both:
    """One actor at random states, in MuJoCo (float64) and in Kinematics."""

    def __init__(self, path):
        self.fixed = path.stem in MOUNTED
        self.asset = compile_asset(ActorSpec("x", path, fixed=self.fixed))
        self.model = mujoco.MjModel.from_xml_string(self.asset.mjcf)
        self.data = mujoco.MjData(self.model)
        rng = np.random.default_rng(7)
        nj = len(self.asset.joints)
        self.q, self.qd = rng.uniform(-1, 1, (N, nj)), rng.normal(size=(N, nj))
        self.root = rng.normal(size=(N, 13))
        self.root[:, 3:7] /= np.linalg.norm(self.root[:, 3:7], axis=1, keepdims=True)
        if self.fixed:
            self.root[:, 7:] = 0.0
        self.free = 0 if self.fixed else 6  # columns of MuJoCo's that belong to the free joint
        self.kinematics = Kinematics(self.asset.links, 1, nj, torch.device("cpu"))
        f = [torch.tensor(x, dtype=torch.float32) for x in (self.root[:, None], self.q, self.qd)]
        self.states = self.kinematics.forward(*f)

    def load(self, env):
        root = self.root[env]
        if self.fixed:
            self.model.body_pos[1], self.model.body_quat[1] = root[:3], root[[6, 3, 4, 5]]
        else:
            self.data.qpos[:3], self.data.qpos[3:7] = root[:3], root[[6, 3, 4, 5]]
            turn = np.zeros(9)
            mujoco.mju_quat2Mat(turn, self.data.qpos[3:7])
            self.data.qvel[:3] = root[7:10]
            self.data.qvel[3:6] = turn.reshape(3, 3).T @ root[10:]  # a free joint's spin is in the body's frame
        self.data.qpos[self.model.nq - len(self.q[env]) :] = self.q[env]
        self.data.qvel[self.free :] = self.qd[env]
        mujoco.mj_forward(self.model, self.data)


@pytest.fixture(scope="module", params=ASSETS, ids=lambda p: p.stem)
def both(request):
    return Both(request.param)


def test_poses_and_velocities(both):
    for env in range(N):
        both.load(env)
        for name in both.asset.bodies:
            row, body = both.kinematics.frame(name), both.model.body(name).id
            np.testing.assert_allclose(both.states.pos[env, row], both.data.xpos[body], atol=1e-5)
            quat = both.states.quat[env, row].numpy()[[3, 0, 1, 2]]
            quat = quat * np.sign(quat @ both.data.xquat[body])
            np.testing.assert_allclose(quat, both.data.xquat[body], atol=1e-5)
            velocity = np.zeros(6)
            mujoco.mj_objectVelocity(both.model, both.data, mujoco.mjtObj.mjOBJ_XBODY, body, velocity, 0)
            np.testing.assert_allclose(both.states.angular[env, row], velocity[:3], atol=2e-5)
            np.testing.assert_allclose(both.states.linear[env, row], velocity[3:], atol=2e-5)


def test_jacobians(both):
    for name in both.asset.bodies[-3:]:
        row = both.kinematics.frame(name)
        mine = both.kinematics.jacobian(both.states, row, both.states.pos[:, row])
        for env in range(N):
            both.load(env)
            jacp, jacr = np.zeros((3, both.model.nv)), np.zeros((3, both.model.nv))
            mujoco.mj_jacBody(both.model, both.data, jacp, jacr, both.model.body(name).id)
            np.testing.assert_allclose(mine[env, :3], jacp[:, both.free :], atol=1e-5)
            np.testing.assert_allclose(mine[env, 3:], jacr[:, both.free :], atol=1e-5)


def test_mass_matrix(both):
    nj = len(both.asset.joints)
    armature = torch.linspace(0.1, 0.5, nj)
    mine = both.kinematics.mass_matrix(both.states, armature)
    for env in range(N):
        both.load(env)
        dense = np.zeros((both.model.nv, both.model.nv))
        mujoco.mj_fullM(both.model, dense, both.data.qM) if hasattr(both.data, "qM") else mujoco.mj_fullM(
            both.model, both.data, dense
        )
        expected = dense[both.free :, both.free :] + np.diag(armature.numpy())
        np.testing.assert_allclose(mine[env], expected, atol=2e-5 * max(1.0, np.abs(dense).max()))


def test_an_unknown_body_is_named(both):
    with pytest.raises(ValueError, match="no body 'nose'"):
        both.kinematics.frame("nose")

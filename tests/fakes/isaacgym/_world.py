"""The state of all envs and the simple kinematics that move it (see the package's docstring)."""

from __future__ import annotations

from typing import Any, List

import numpy as np

from isaacgym._asset import DOF_DTYPE, LoadedAsset, matrices
from isaacgym._types import RigidBodyProperties, SimParams, Transform

POSITION, VELOCITY, EFFORT = 1, 2, 3
IDENTITY = np.array([0, 0, 0, 0, 0, 0, 1.0] + [0.0] * 6)


class ActorRecord:
    """One actor of one env, before and after prepare_sim.

    Attributes:
        index, first_dof, first_body: rows in the simulation's tensors; ``env_body`` its first body in the env.
    """

    def __init__(self, asset: LoadedAsset, pose: Transform, name: str) -> None:
        self.asset, self.name = asset, name
        self.root = np.concatenate([pose.p._array(), pose.r._array(), np.zeros(6)])
        self.fixed = asset.options.fix_base_link
        self.index = self.first_dof = self.first_body = self.env_body = 0
        self.dof_props = asset.dof_props.copy()
        self.body_props = asset.body_props()
        self.shape_props = [p._copy() for p in asset.shape_props]
        self.dof_force_sensors = False

    @property
    def dofs(self) -> slice:
        return slice(self.first_dof, self.first_dof + len(self.asset.dofs))

    @property
    def bodies(self) -> slice:
        return slice(self.first_body, self.first_body + len(self.asset.bodies))


class World:
    """Everything that moves. State is float32, as the engine's, so that a snapshot of the tensors is complete.

    Attributes:
        root: (A, 13); the linear velocity is that of the root link's centre of mass.
        dof: (D, 2) positions and velocities. ``pos_target``, ``vel_target``, ``effort`` (D,).
        body: (B, 13), contact (B, 3), sensor (S, 6), dof_force (D,): of the last simulate, zero before the first.
        force, torque: (B, 3) in the env's axes, for the next simulate.
    """

    def __init__(self, actors: List[ActorRecord], has_ground: bool) -> None:
        self.actors, self.has_ground = actors, has_ground
        dofs, bodies = sum(len(a.asset.dofs) for a in actors), sum(len(a.asset.bodies) for a in actors)
        sensors = sum(len(a.asset.sensors) for a in actors)
        self.root = np.array([a.root for a in actors], np.float32).reshape(len(actors), 13)
        self.dof = np.zeros((dofs, 2), np.float32)
        self.pos_target, self.vel_target, self.effort = (np.zeros(dofs, np.float32) for _ in range(3))
        self.body, self.contact = np.zeros((bodies, 13), np.float32), np.zeros((bodies, 3), np.float32)
        self.sensor, self.dof_force = np.zeros((sensors, 6), np.float32), np.zeros(dofs, np.float32)
        self.force, self.torque = np.zeros((bodies, 3)), np.zeros((bodies, 3))
        self.last_root, self.last_pos = self.root[:, :7].copy(), self.dof[:, 0].copy()
        self.dof_actor = np.repeat(np.arange(len(actors)), [len(a.asset.dofs) for a in actors]).astype(int)
        self.body_actor = np.repeat(np.arange(len(actors)), [len(a.asset.bodies) for a in actors]).astype(int)
        self.fixed = np.array([a.fixed for a in actors], bool)
        self.props = np.concatenate([a.dof_props for a in actors]) if dofs else np.zeros(0, DOF_DTYPE)
        for a in actors:
            a.dof_props = self.props[a.dofs]  # from now on a view: what is set acts at once
        self.groups: List[List[ActorRecord]] = []  # actors of one asset
        for asset in {id(a.asset): a.asset for a in actors}.values():
            self.groups.append([a for a in actors if a.asset is asset])
        self.read_properties()

    def read_properties(self) -> None:
        """Take over masses, after set_actor_rigid_body_properties."""
        self.mass = np.array([sum(p.mass for p in a.body_props) for a in self.actors])
        self.com = np.array([a.body_props[0].com._array() for a in self.actors]).reshape(-1, 3)
        self.inertia_inv = np.array([_whole_inertia_inv(a) for a in self.actors]).reshape(-1, 3, 3)
        self.weightless = np.array([a.asset.options.disable_gravity for a in self.actors], bool)
        self.clearance = np.array([a.asset.clearance for a in self.actors])

    def simulate(self, params: SimParams) -> None:
        h = params.dt / params.substeps
        gravity = params.gravity._array()
        for _ in range(params.substeps):
            self._drive(h)
            resting = self._fly(h, gravity)
        self.last_root, self.last_pos = self.root[:, :7].copy(), self.dof[:, 0].copy()
        self._links()
        self._touch(resting, gravity)
        self.effort[:] = 0
        self.force[:], self.torque[:] = 0, 0

    def jacobian(self, actor: ActorRecord) -> Any:
        """(B - 1, 6, D) of an actor with a fixed base, where the last simulate left it: all links but the root."""
        return actor.asset.jacobian(*self.simulated(actor))[0][1:]

    def mass_matrix(self, actor: ActorRecord) -> Any:
        """(D, D) of an actor with a fixed base, where the last simulate left it; armature included."""
        jac, rot = actor.asset.jacobian(*self.simulated(actor))
        mass = np.array([p.mass for p in actor.body_props])
        inertia = rot @ np.array([_tensor(p) for p in actor.body_props]) @ rot.transpose(0, 2, 1)
        linear, angular = jac[:, :3], jac[:, 3:]
        whole = np.einsum("b,bki,bkj->ij", mass, linear, linear) + np.einsum(
            "bki,bkl,blj->ij", angular, inertia, angular
        )
        return whole + np.diag(actor.dof_props["armature"])

    def simulated(self, actor: ActorRecord) -> Any:
        """Root pose and joint positions at the end of the last simulate."""
        return self.last_root[actor.index].astype(float), self.last_pos[actor.dofs].astype(float)

    def _drive(self, h: float) -> None:
        """One substep of every joint, its drive solved implicitly."""
        p, q, v = self.props, self.dof[:, 0].astype(float), self.dof[:, 1].astype(float)
        mode, inertia, limit = p["driveMode"], 1.0 + p["armature"].astype(float), p["effort"].astype(float)
        kp = np.where(mode == POSITION, p["stiffness"], 0.0)
        kd = np.where((mode == POSITION) | (mode == VELOCITY), p["damping"], 0.0)
        push = kp * (self.pos_target - q) + kd * np.where(mode == VELOCITY, self.vel_target, 0.0)
        push += np.where(mode == EFFORT, self.effort, 0.0)
        solved = (inertia * v + h * push) / (inertia + h * kd + h * h * kp)
        force = np.clip(inertia * (solved - v) / h, -limit, limit)
        v = np.clip(v + h * force / inertia, -p["velocity"], p["velocity"])
        q = q + h * v
        stopped = p["hasLimits"] & ((q < p["lower"]) | (q > p["upper"]))
        self.dof[:, 0] = np.where(p["hasLimits"], np.clip(q, p["lower"], p["upper"]), q)
        self.dof[:, 1] = np.where(stopped, 0.0, v)
        self.dof_force[:] = force

    def _fly(self, h: float, gravity: Any) -> Any:
        """One substep of the free bases (semi-implicit Euler); (A,) bool: those at rest on the ground."""
        root = self.root.astype(float)
        rot = matrices(root[:, [6, 3, 4, 5]])
        force, torque = np.zeros((len(root), 3)), np.zeros((len(root), 3))
        np.add.at(force, self.body_actor, self.force)
        np.add.at(torque, self.body_actor, self.torque)
        mass = np.where(self.mass > 0, self.mass, 1.0)[:, None]
        root[:, 7:10] += h * (force / mass + np.where(self.weightless[:, None], 0.0, gravity))
        root[:, 10:] += h * np.einsum("aij,ajk,alk,al->ai", rot, self.inertia_inv, rot, torque)
        com = root[:, :3] + np.einsum("aij,aj->ai", rot, self.com) + h * root[:, 7:10]
        root[:, 3:7] = _turn(root[:, 3:7], h * root[:, 10:])
        root[:, :3] = com - np.einsum("aij,aj->ai", matrices(root[:, [6, 3, 4, 5]]), self.com)
        resting = ~self.fixed & (root[:, 2] <= self.clearance) & self.has_ground
        root[resting, 2] = self.clearance[resting]
        root[resting, 9] = 0.0
        self.root[~self.fixed] = root[~self.fixed]
        return resting

    def _links(self) -> None:
        for group in self.groups:
            asset = group[0].asset
            index = np.array([a.index for a in group])
            root = self.root[index].astype(float)
            if not asset.dofs and len(asset.bodies) == 1:
                self.body[[a.first_body for a in group]] = root
                continue
            dof = self.dof.astype(float)
            parts = [asset.kinematics(r, *dof[a.dofs].T) for a, r in zip(group, root)]
            pos, quat, com, vel = (np.stack(column) for column in zip(*parts))
            spin, lever = root[:, None, 10:], com - com[:, :1]
            linear = vel[..., 3:] + root[:, None, 7:10] + np.cross(np.broadcast_to(spin, lever.shape), lever)
            rows = np.stack([np.arange(a.first_body, a.first_body + len(asset.bodies)) for a in group])
            self.body[rows] = np.concatenate([pos, quat[..., [1, 2, 3, 0]], linear, vel[..., :3] + spin], axis=-1)

    def _touch(self, resting: Any, gravity: Any) -> None:
        """Contact forces, and what the force sensors feel of them."""
        self.contact[:] = 0
        at = 0
        for a in self.actors:
            if resting[a.index] and not self.weightless[a.index]:
                self.contact[a.first_body] = -self.mass[a.index] * gravity
            for body, pose, world in a.asset.sensors:
                force = self.contact[a.first_body + body].astype(float)
                if not world:
                    quat = np.stack([self.body[a.first_body + body, [6, 3, 4, 5]], pose.r._array()[[3, 0, 1, 2]]])
                    body_rot, sensor_rot = matrices(quat.astype(float))
                    force = (body_rot @ sensor_rot).T @ force
                self.sensor[at, :3] = force
                at += 1


def _whole_inertia_inv(actor: ActorRecord) -> Any:
    """(3, 3): inverse of the actor's inertia about its centre of mass, joints at zero, in the root's frame."""
    asset = actor.asset
    zeros = np.zeros(len(asset.dofs))
    _, quat, com, _ = asset.kinematics(IDENTITY, zeros, zeros)
    rot = matrices(quat)
    mass = np.array([p.mass for p in actor.body_props])
    inertia = np.array([_tensor(p) for p in actor.body_props])
    arm = com - (mass @ com) / max(mass.sum(), 1e-12)
    steiner = (arm * arm).sum(1)[:, None, None] * np.eye(3) - arm[:, :, None] * arm[:, None, :]
    whole = (rot @ inertia @ rot.transpose(0, 2, 1) + mass[:, None, None] * steiner).sum(0)
    return np.linalg.inv(whole) if np.linalg.det(whole) > 0 else np.zeros((3, 3))


def _tensor(props: RigidBodyProperties) -> Any:
    """(3, 3) kg m^2, in the link's frame."""
    return np.array([row._array() for row in (props.inertia.x, props.inertia.y, props.inertia.z)])


def _turn(quat: Any, angle: Any) -> Any:
    """Quaternions xyzw (A, 4) turned by rotation vectors (A, 3) in the env's axes."""
    size = np.linalg.norm(angle, axis=1, keepdims=True)
    v = np.sinc(size / 2 / np.pi) * angle / 2
    w = np.cos(size / 2)
    qv, qw = quat[:, :3], quat[:, 3:]
    out = np.concatenate([w * qv + qw * v + np.cross(v, qv), w * qw - (v * qv).sum(1, keepdims=True)], axis=1)
    return out / np.linalg.norm(out, axis=1, keepdims=True)

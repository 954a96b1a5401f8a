"""Batched forward kinematics of a scene in torch: link poses and velocities, Jacobians and joint-space inertia.

For engines that know joints and roots at once but links only after their next step. All joints are hinges or slides.
Quaternions are xyzw, lengths in metres, angles in radians. N environments, A actors, L links, D joints.

Links are worked off level by level, all of one depth at a time, with elementwise products only: a matrix product may be
rounded to TF32 on a GPU, which is off by tenths of a millimetre.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import List, Sequence

import torch
from torch import Tensor

from hepo_isaac.sim.math import rotate

FIXED, HINGE, SLIDE = 0, 1, 2


@dataclass(frozen=True)
class Link:
    """One body, or one joint of a body that has several.

    name: of the body whose frame this is; "" for the frames between the joints of one body.
    parent: index of the link it hangs on, or -1 - a for actor a's root frame.
    position, quaternion: its frame in the parent's, with the joint at zero.
    joint: FIXED, HINGE or SLIDE, along or about ``axis`` (unit length) through ``anchor``, both in its own frame.
    dof: the joint's column, -1 if FIXED.
    mass: kg.  com: centre of mass in its frame, m.  inertia: 3 x 3 about it, along its frame's axes, kg m^2.
    """

    name: str
    parent: int
    position: Sequence[float]
    quaternion: Sequence[float]
    joint: int = FIXED
    axis: Sequence[float] = (0.0, 0.0, 1.0)
    anchor: Sequence[float] = (0.0, 0.0, 0.0)
    dof: int = -1
    mass: float = 0.0
    com: Sequence[float] = (0.0, 0.0, 0.0)
    inertia: Sequence[Sequence[float]] = ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0), (0.0, 0.0, 0.0))


@dataclass
class _Level:
    """Links of one depth: where they are, what they hang on, and how they move, (K,) or (K, .)."""

    rows: Tensor
    parents: Tensor
    position: Tensor
    quaternion: Tensor
    axis: Tensor
    anchor: Tensor
    dofs: Tensor
    hinge: Tensor
    slide: Tensor


@dataclass
class LinkStates:
    """Frames of actors and links, all (N, A + L, .): actors first, then links in order.

    pos m, quat, linear m/s (of the frame's origin) and angular rad/s, in the world.
    axis: (N, L, 3) the joints' axes in the world.  anchor: (N, L, 3) a point on each of them.
    """

    pos: Tensor
    quat: Tensor
    linear: Tensor
    angular: Tensor
    axis: Tensor
    anchor: Tensor


class Kinematics:
    """Forward kinematics of all actors of a scene.

    Args:
        links: in an order in which parents come before their children.
        num_actors: A.
        num_dofs: D, columns of dof_pos.
        device: of all tensors.
    """

    def __init__(self, links: Sequence[Link], num_actors: int, num_dofs: int, device: torch.device) -> None:
        self.links, self.num_actors, self.num_dofs = list(links), num_actors, num_dofs
        self._device = device
        self._levels = [self._level(rows) for rows in self._depths()]
        self._hinge = self._floats([float(link.joint == HINGE) for link in links])[:, None]
        # What does not move reads and writes a column behind the last joint's.
        self._dofs = torch.tensor([self._column(link) for link in links], dtype=torch.int64, device=device)
        self._moved = self._ancestors()

    def _column(self, link: Link) -> int:
        return link.dof if link.dof >= 0 else self.num_dofs

    def _floats(self, values: Sequence[object]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=self._device)

    def _depths(self) -> List[List[int]]:
        depth: List[int] = []
        for link in self.links:
            depth.append(0 if link.parent < 0 else depth[link.parent] + 1)
        return [[i for i, d in enumerate(depth) if d == level] for level in range(max(depth, default=-1) + 1)]

    def _level(self, rows: Sequence[int]) -> _Level:
        links = [self.links[i] for i in rows]
        parents = [-1 - link.parent if link.parent < 0 else self.num_actors + link.parent for link in links]

        def long(values: Sequence[int]) -> Tensor:
            return torch.tensor(values, dtype=torch.int64, device=self._device)

        return _Level(
            rows=long([self.num_actors + i for i in rows]),
            parents=long(parents),
            position=self._floats([list(link.position) for link in links]),
            quaternion=self._floats([list(link.quaternion) for link in links]),
            axis=self._floats([list(link.axis) for link in links]),
            anchor=self._floats([list(link.anchor) for link in links]),
            dofs=long([self._column(link) for link in links]),
            hinge=self._floats([float(link.joint == HINGE) for link in links])[:, None],
            slide=self._floats([float(link.joint == SLIDE) for link in links])[:, None],
        )

    def _ancestors(self) -> Tensor:
        """(L, L) 1 where the joint of the column's link moves the row's link."""
        moved = torch.zeros(len(self.links), len(self.links))
        for i, link in enumerate(self.links):
            if link.parent >= 0:
                moved[i] = moved[link.parent]
            moved[i, i] = float(link.dof >= 0)
        return moved.to(self._device)

    def frame(self, name: str) -> int:
        """Row of a body in LinkStates; ValueError if there is none."""
        for i, link in enumerate(self.links):
            if link.name == name:
                return self.num_actors + i
        raise ValueError("there is no body %r; there are: %s" % (name, ", ".join(x.name for x in self.links if x.name)))

    def forward(self, root_state: Tensor, dof_pos: Tensor, dof_vel: Tensor) -> LinkStates:
        """All frames.

        Args:
            root_state: (N, A, 13) position, quaternion, velocity of the origin and angular velocity of the actors.
            dof_pos, dof_vel: (N, D).
        """
        n, count = len(root_state), self.num_actors + len(self.links)
        pos, quat, linear, angular = (root_state.new_zeros(n, count, k) for k in (3, 4, 3, 3))
        for whole, part in ((pos, slice(0, 3)), (quat, slice(3, 7)), (linear, slice(7, 10)), (angular, slice(10, 13))):
            whole[:, : self.num_actors] = root_state[:, :, part]
        axis, anchor = (root_state.new_zeros(n, len(self.links), 3) for _ in range(2))
        dof_pos, dof_vel = (torch.nn.functional.pad(x, (0, 1)) for x in (dof_pos, dof_vel))
        for level in self._levels:
            at = level.parents
            p, q, v, w = pos[:, at], quat[:, at], linear[:, at], angular[:, at]
            turn, speed = dof_pos[:, level.dofs, None], dof_vel[:, level.dofs, None]
            x = p + rotate(q, level.position.expand_as(p))
            r = _product(q, level.quaternion)
            a = rotate(r, level.axis.expand_as(x))  # a turn about it leaves it where it is
            hold = x + rotate(r, level.anchor.expand_as(x))
            half = 0.5 * turn * level.hinge
            r = _product(r, torch.cat((level.axis * half.sin(), half.cos()), -1))
            x = hold - rotate(r, level.anchor.expand_as(x)) + a * (turn * level.slide)
            spin = a * (speed * level.hinge)
            moved = v + torch.linalg.cross(w, x - p) + torch.linalg.cross(spin, x - hold) + a * (speed * level.slide)
            rows, mine = level.rows, level.rows - self.num_actors
            pos[:, rows], quat[:, rows], linear[:, rows], angular[:, rows] = x, r, moved, w + spin
            axis[:, mine], anchor[:, mine] = a, hold
        return LinkStates(pos, quat, linear, angular, axis, anchor)

    def jacobian(self, states: LinkStates, frame: int, point: Tensor) -> Tensor:
        """(N, 6, D) how the joints move ``point`` (N, 3) of the frame: rows linear, then angular."""
        if frame < self.num_actors:
            return point.new_zeros(len(point), 6, self.num_dofs)
        return self._jacobians(states, self._moved[frame - self.num_actors][None], point[:, None])[:, 0]

    def _jacobians(self, states: LinkStates, moved: Tensor, points: Tensor) -> Tensor:
        """(N, K, 6, D) of points (N, K, 3) that the links with a 1 in their row of moved (K, L) carry."""
        n, k = points.shape[:2]
        axis = states.axis[:, None].expand(n, k, -1, 3)
        arm = points[:, :, None] - states.anchor[:, None]
        linear = torch.linalg.cross(axis, arm) * self._hinge + axis * (1.0 - self._hinge)
        columns = torch.cat((linear, axis * self._hinge), -1) * moved[None, :, :, None]
        out = points.new_zeros(n, k, self.num_dofs + 1, 6)
        return out.index_add_(2, self._dofs, columns)[:, :, : self.num_dofs].transpose(2, 3)

    def mass_matrix(self, states: LinkStates, armature: Tensor) -> Tensor:
        """(N, D, D) joint-space inertia with the drives' armature (D,) on its diagonal: J^T M J of all links."""
        heavy = [i for i, link in enumerate(self.links) if link.mass > 0]
        rows = torch.tensor(heavy, device=self._device)
        quat = states.quat[:, self.num_actors + rows]
        com = self._floats([list(self.links[i].com) for i in heavy])
        points = states.pos[:, self.num_actors + rows] + rotate(quat, com.expand_as(quat[..., :3]))
        jacobians = self._jacobians(states, self._moved[rows], points)
        linear, angular = jacobians[:, :, :3], jacobians[:, :, 3:]
        # R^T w for the three axes of the link, so that its inertia need not be turned into the world.
        inverse = torch.cat((-quat[..., :3], quat[..., 3:]), -1)[:, :, None].expand(-1, -1, self.num_dofs, -1)
        local = rotate(inverse, angular.transpose(2, 3))  # (N, K, D, 3)
        mass = self._floats([self.links[i].mass for i in heavy])[:, None, None]
        inertia = self._floats([[list(row) for row in self.links[i].inertia] for i in heavy])
        torque = (inertia[:, None] * local[..., None, :]).sum(-1)  # (N, K, D, 3)
        total = torch.zeros_like(linear[:, 0, 0, :, None] * linear[:, 0, 0, None, :])
        for axis in range(3):
            row, turned = linear[:, :, axis], local[..., axis]
            total = total + (mass * row[..., :, None] * row[..., None, :]).sum(1)
            total = total + (turned[..., :, None] * torque[..., axis][..., None, :]).sum(1)
        return total + torch.diag(armature.to(total.dtype))


def _product(a: Tensor, b: Tensor) -> Tensor:
    """Quaternion product of xyzw (..., 4)."""
    av, aw, bv, bw = a[..., :3], a[..., 3:], b[..., :3], b[..., 3:]
    av, bv = torch.broadcast_tensors(av, bv)
    vector = aw * bv + bw * av + torch.linalg.cross(av, bv)
    return torch.cat((vector, aw * bw - (av * bv).sum(-1, keepdim=True)), -1)

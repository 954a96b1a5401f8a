"""Batched forward kinematics of a scene in torch: link poses and velocities, Jacobians and joint-space inertia.

For engines that know joints and roots at once but links only after their next step. All joints are hinges or slides.
Quaternions are xyzw, lengths in metres, angles in radians. N environments, A actors, L links, D joints.

Matrices are multiplied elementwise: a matrix product may be rounded to TF32 on a GPU, which is off by tenths of a
millimetre.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import List, Optional, Sequence, Tuple

import torch
from torch import Tensor

from hepo_isaac.sim.math import quat_rotate

FIXED, HINGE, SLIDE = 0, 1, 2

# Which component of q (x y z w = 1 2 3 4), with which sign, stands where in the matrix that multiplies by q from left.
_LEFT = ((4, -3, 2, 1), (3, 4, -1, 2), (-2, 1, 4, 3), (-1, -2, -3, 4))


def _tables() -> Tuple[Tensor, Tensor]:
    """(4, 16) from a quaternion to that matrix, and (16, 9) from products of its components to the rotation matrix."""
    left = torch.zeros(4, 4, 4)
    for i, row in enumerate(_LEFT):
        for j, entry in enumerate(row):
            left[abs(entry) - 1, i, j] = 1.0 if entry > 0 else -1.0
    conjugate = torch.tensor([-1.0, -1.0, -1.0, 1.0])
    rotation = torch.einsum("aim,kmj,j->ajik", left, left, conjugate)  # q v q*
    return left.reshape(4, 16), rotation[..., :3, :3].reshape(16, 9)


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

    A frame is two 4 x 4 matrices: its homogeneous transform, and the matrix that multiplies a quaternion by its own on
    the left. Both compose by the same product, so that a level of the tree costs few operations; everything else is
    done for all links at once.

    Args:
        links: in an order in which parents come before their children.
        num_actors: A.
        num_dofs: D, columns of dof_pos.
        device: of all tensors.
    """

    def __init__(self, links: Sequence[Link], num_actors: int, num_dofs: int, device: torch.device) -> None:
        self.links, self.num_actors, self.num_dofs = list(links), num_actors, num_dofs
        self._device = device
        # Rows among the frames (actors first) of the links of each depth, and of what they hang on.
        self._levels = [self._level(rows) for rows in self._depths()]
        # What does not move reads and writes a column behind the last joint's.
        self._dofs = self._long([link.dof if link.dof >= 0 else num_dofs for link in links])
        self._hinge = self._floats([float(link.joint == HINGE) for link in links])[:, None]
        self._slide = self._floats([float(link.joint == SLIDE) for link in links])[:, None]
        self._axis = self._floats([list(link.axis) for link in links]).reshape(-1, 3)
        self._anchor = self._floats([list(link.anchor) for link in links]).reshape(-1, 3)
        self._to_product, self._to_rotation = (table.to(device) for table in _tables())
        self._last_row = self._floats([0.0, 0.0, 0.0, 1.0])
        position = self._floats([list(link.position) for link in links]).reshape(-1, 3)
        quaternion = self._floats([list(link.quaternion) for link in links]).reshape(-1, 4)
        self._rest = self._frames(position, quaternion)  # (L, 2, 4, 4) in the parent, with joints at zero
        self._moved = self._ancestors()

    def _floats(self, values: Sequence[object]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=self._device)

    def _long(self, values: Sequence[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.int64, device=self._device)

    def _depths(self) -> List[List[int]]:
        depth: List[int] = []
        for link in self.links:
            depth.append(0 if link.parent < 0 else depth[link.parent] + 1)
        return [[i for i, d in enumerate(depth) if d == level] for level in range(max(depth, default=-1) + 1)]

    def _level(self, rows: Sequence[int]) -> Tuple[Tensor, Tensor, Tensor]:
        """Indices of links, and among the frames of these links and of their parents."""
        parents = [self.links[i].parent for i in rows]
        above = [-1 - p if p < 0 else self.num_actors + p for p in parents]
        return self._long(rows), self._long([self.num_actors + i for i in rows]), self._long(above)

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

    def _frames(self, position: Tensor, quaternion: Tensor, anchor: Optional[Tensor] = None) -> Tensor:
        """(..., 2, 4, 4) frames at ``position``, turned by ``quaternion`` about their origin or about ``anchor``."""
        squares = (quaternion[..., :, None] * quaternion[..., None, :]).flatten(-2)
        rotation = (squares[..., None] * self._to_rotation).sum(-2).unflatten(-1, (3, 3))
        if anchor is not None:
            position = position + anchor - (rotation * anchor[..., None, :]).sum(-1)
        product = (quaternion[..., None] * self._to_product).sum(-2).unflatten(-1, (4, 4))
        upper = torch.cat((rotation, position[..., None]), -1)
        moved = torch.cat((upper, self._last_row.expand(*upper.shape[:-2], 1, 4)), -2)
        return torch.stack((moved, product), -3)

    def forward(self, root_state: Tensor, dof_pos: Tensor, dof_vel: Tensor) -> LinkStates:
        """All frames.

        Args:
            root_state: (N, A, 13) position, quaternion, velocity of the origin and angular velocity of the actors.
            dof_pos, dof_vel: (N, D).
        """
        turn, speed = (torch.nn.functional.pad(x, (0, 1))[:, self._dofs, None] for x in (dof_pos, dof_vel))
        half = 0.5 * turn * self._hinge
        joint = self._frames(
            self._axis * (turn * self._slide), torch.cat((self._axis * half.sin(), half.cos()), -1), self._anchor
        )
        local = _compose(self._rest, joint)
        roots = self._frames(root_state[..., :3], root_state[..., 3:7])
        frames = torch.cat((roots, torch.empty_like(local)), 1)
        for links, rows, parents in self._levels:
            frames.index_copy_(1, rows, _compose(frames[:, parents], local[:, links]))
        pos, quat = frames[:, :, 0, :3, 3], frames[:, :, 1, :, 3]
        mine = frames[:, self.num_actors :, 0]
        axis = (mine[..., :3, :3] * self._axis[:, None]).sum(-1)  # a turn about it leaves it where it is,
        anchor = mine[..., :3, 3] + (mine[..., :3, :3] * self._anchor[:, None]).sum(-1)  # and the anchor, too
        linear, angular = self._velocities(root_state, pos, axis, anchor, speed)
        return LinkStates(pos, quat, linear, angular, axis, anchor)

    def _velocities(
        self, root_state: Tensor, pos: Tensor, axis: Tensor, anchor: Tensor, speed: Tensor
    ) -> Tuple[Tensor, Tensor]:
        """(N, A + L, 3) of the origins and angular: each joint adds its twist (about the world's origin) to its
        parent's."""
        spin = axis * (speed * self._hinge)
        own = torch.cat((spin, axis * (speed * self._slide) - torch.linalg.cross(spin, anchor)), -1)
        turning, at = root_state[..., 10:], root_state[..., :3]
        root = torch.cat((turning, root_state[..., 7:10] - torch.linalg.cross(turning, at)), -1)
        twists = torch.cat((root, own), 1)
        for links, rows, parents in self._levels:
            twists.index_copy_(1, rows, twists[:, parents] + own[:, links])
        angular = twists[..., :3]
        return twists[..., 3:] + torch.linalg.cross(angular, pos), angular

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
        points = states.pos[:, self.num_actors + rows] + quat_rotate(quat, com.expand_as(quat[..., :3]))
        jacobians = self._jacobians(states, self._moved[rows], points)
        linear, angular = jacobians[:, :, :3], jacobians[:, :, 3:]
        # R^T w for the three axes of the link, so that its inertia need not be turned into the world.
        inverse = torch.cat((-quat[..., :3], quat[..., 3:]), -1)[:, :, None].expand(-1, -1, self.num_dofs, -1)
        local = quat_rotate(inverse, angular.transpose(2, 3))  # (N, K, D, 3)
        mass = self._floats([self.links[i].mass for i in heavy])[:, None, None]
        inertia = self._floats([[list(row) for row in self.links[i].inertia] for i in heavy])
        torque = (inertia[:, None] * local[..., None, :]).sum(-1)  # (N, K, D, 3)
        total = torch.zeros_like(linear[:, 0, 0, :, None] * linear[:, 0, 0, None, :])
        for axis in range(3):
            row, turned = linear[:, :, axis], local[..., axis]
            total = total + (mass * row[..., :, None] * row[..., None, :]).sum(1)
            total = total + (turned[..., :, None] * torque[..., axis][..., None, :]).sum(1)
        return total + torch.diag(armature.to(total.dtype))


def _compose(outer: Tensor, inner: Tensor) -> Tensor:
    """Products of 4 x 4 matrices, exact in float32."""
    return (outer[..., :, :, None] * inner[..., None, :, :]).sum(-2)

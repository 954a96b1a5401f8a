"""Assets: what the importer makes of an MJCF or URDF file, read with MuJoCo."""

from __future__ import annotations

import os
from typing import Any, Dict, List, Tuple
from xml.etree import ElementTree

import numpy as np

from isaacgym._types import (
    FLT_MAX,
    AssetOptions,
    Mat33,
    RigidBodyProperties,
    RigidShapeProperties,
    TendonProperties,
    Transform,
    Vec3,
)

DOF_DTYPE = np.dtype(
    [
        ("hasLimits", "?"),
        ("lower", "<f4"),
        ("upper", "<f4"),
        ("driveMode", "<i4"),
        ("stiffness", "<f4"),
        ("damping", "<f4"),
        ("velocity", "<f4"),
        ("effort", "<f4"),
        ("friction", "<f4"),
        ("armature", "<f4"),
    ],
    align=True,
)


class LoadedAsset:
    """One file, compiled. Bodies and joints are depth first: siblings of a URDF by name, of an MJCF as written.

    Attributes:
        bodies: names; the root is the first. ``body_ids`` are MuJoCo's.
        dofs: names of hinges and slides; ``joint_ids`` are MuJoCo's.
        dof_props: (D,) of DOF_DTYPE.
        mass, com, inertia: (B,) kg, (B, 3) m in the link frame, (B, 3, 3) kg m^2 about the centre of mass.
        clearance: height of the root over the lowest point of the colliding geoms at zero joint positions, m.
    """

    def __init__(self, path: str, options: AssetOptions) -> None:
        import mujoco

        if not os.path.isfile(path):
            raise RuntimeError("load_asset: there is no file %s" % path)
        self.options, self.urdf = options, path.lower().endswith(".urdf")
        speeds: Dict[str, float] = {}
        if self.urdf:
            text, speeds = _urdf(path, options)
            self.model = mujoco.MjModel.from_xml_string(text)
        else:
            self.model = mujoco.MjModel.from_xml_path(path)
        self.data = mujoco.MjData(self.model)
        m = self.model
        names = {int(b): m.body(b).name for b in range(m.nbody)}
        roots = [b for b in range(1, m.nbody) if m.body_parentid[b] == 0]
        if len(roots) != 1:
            raise RuntimeError("load_asset: %s has %d root bodies, an asset is one body tree" % (path, len(roots)))
        self.body_ids = _depth_first(m, roots[0], self.urdf)
        self.bodies = [names[b] for b in self.body_ids]
        self.joint_ids = [j for b in self.body_ids for j in range(m.njnt) if m.jnt_bodyid[j] == b]
        self.floating = bool(self.joint_ids) and m.jnt_type[self.joint_ids[0]] == mujoco.mjtJoint.mjJNT_FREE
        self.joint_ids = self.joint_ids[1:] if self.floating else self.joint_ids
        self._check_joints(path)
        self.dofs = [m.joint(j).name for j in self.joint_ids]
        self.qpos_ids = m.jnt_qposadr[self.joint_ids].astype(int)
        self.qvel_ids = m.jnt_dofadr[self.joint_ids].astype(int)
        self._read_properties(speeds)
        self.clearance = self._clearance()
        self.sensors: List[Tuple[int, Transform, bool]] = []  # body, pose in it, world frame
        self.in_use = False

    def _check_joints(self, path: str) -> None:
        for j in self.joint_ids:
            if self.model.jnt_type[j] < 2:
                raise RuntimeError("load_asset: %s has a joint that is neither hinge nor slide" % path)
            if self.model.jnt_bodyid[j] == self.body_ids[0]:
                raise RuntimeError(
                    "load_asset: the root body of %s has joint %r; put a body without joints above it, what becomes "
                    "of a root's joints is not documented" % (path, self.model.joint(j).name)
                )

    def _read_properties(self, speeds: Dict[str, float]) -> None:
        m, joints = self.model, self.joint_ids
        self.dof_props = props = np.zeros(len(joints), DOF_DTYPE)
        dof = m.jnt_dofadr[joints].astype(int)
        props["hasLimits"] = m.jnt_limited[joints]
        props["lower"], props["upper"] = m.jnt_range[joints].T
        props["stiffness"] = m.jnt_stiffness[joints]
        props["damping"], props["armature"] = m.dof_damping[dof].reshape(-1), m.dof_armature[dof].reshape(-1)
        props["friction"] = m.dof_frictionloss[dof].reshape(-1)
        props["velocity"] = [speeds.get(name, FLT_MAX) for name in self.dofs]
        limited = m.jnt_actfrclimited[joints].astype(bool)
        props["effort"] = np.where(limited, m.jnt_actfrcrange[joints][:, 1], FLT_MAX)
        props["driveMode"] = self.options.default_dof_drive_mode
        rot = matrices(m.body_iquat[self.body_ids])
        self.mass, self.com = m.body_mass[self.body_ids].copy(), m.body_ipos[self.body_ids].copy()
        self.inertia = np.einsum("bij,bj,bkj->bik", rot, m.body_inertia[self.body_ids], rot)
        colliding = (m.geom_contype | m.geom_conaffinity) != 0
        self.geom_ids = [g for b in self.body_ids for g in range(m.ngeom) if m.geom_bodyid[g] == b and colliding[g]]
        self.shape_props = [RigidShapeProperties() for _ in self.geom_ids]
        self.tendon_props = [_tendon(m, t) for t in range(m.ntendon)]

    def body_props(self) -> List[RigidBodyProperties]:
        props = []
        for mass, com, inertia in zip(self.mass, self.com, self.inertia):
            p = RigidBodyProperties()
            p.mass, p.com, p.inertia = mass, Vec3(*com), _mat33(inertia)
            if mass > 0:
                p.invMass, p.invInertia = 1.0 / mass, _mat33(np.linalg.inv(inertia))
            props.append(p)
        return props

    def kinematics(self, root: Any, dof_pos: Any, dof_vel: Any) -> Tuple[Any, Any, Any, Any]:
        """Of a root at rest at ``root`` (7,): link positions, quaternions wxyz, centres of mass, velocities.

        Velocities (B, 6) are angular, then linear of the centre of mass. All are fresh arrays, in the env's frame.
        """
        import mujoco

        m, d = self.model, self.data
        quat = root[[6, 3, 4, 5]]
        if self.floating:
            d.qpos[:3], d.qpos[3:7] = root[:3], quat
        else:
            m.body_pos[self.body_ids[0]], m.body_quat[self.body_ids[0]] = root[:3], quat
        d.qpos[self.qpos_ids], d.qvel[self.qvel_ids] = dof_pos, dof_vel
        mujoco.mj_kinematics(m, d)
        mujoco.mj_comPos(m, d)
        mujoco.mj_comVel(m, d)
        com = d.xipos[self.body_ids]
        vel = d.cvel[self.body_ids]
        vel[:, 3:] += np.cross(vel[:, :3], com - d.subtree_com[self.body_ids[0]])
        return d.xpos[self.body_ids], d.xquat[self.body_ids], com, vel

    def jacobian(self, root: Any, dof_pos: Any) -> Tuple[Any, Any]:
        """(B, 6, D) of a root that does not move: rows linear (of the centre of mass), then angular; and (B, 3, 3), the
        links' rotations."""
        import mujoco

        _, quat, com, _ = self.kinematics(root, dof_pos, np.zeros(len(self.dofs)))
        result = np.zeros((len(self.bodies), 6, self.model.nv))
        for row, (body, point) in enumerate(zip(self.body_ids, com)):
            mujoco.mj_jac(self.model, self.data, result[row, :3], result[row, 3:], point, body)
        return result[..., self.qvel_ids], matrices(quat)

    def _clearance(self) -> float:
        zeros = np.zeros(len(self.dofs))
        self.kinematics(np.array([0.0, 0, 0, 0, 0, 0, 1]), zeros, zeros)
        lowest = [_lowest(self.model, self.data, g) for g in self.geom_ids]
        return -min(lowest) if lowest else 0.0


def _depth_first(model: Any, body: int, by_name: bool) -> List[int]:
    children = [b for b in range(body + 1, model.nbody) if model.body_parentid[b] == body]
    if by_name:
        children.sort(
            key=lambda b: model.joint(model.body_jntadr[b]).name if model.body_jntnum[b] else model.body(b).name
        )
    return [body] + [d for child in children for d in _depth_first(model, child, by_name)]


def _urdf(path: str, options: AssetOptions) -> Tuple[str, Dict[str, float]]:
    """The text for MuJoCo, its root on a free joint that keeps it from being merged into the world; speed limits."""
    robot = ElementTree.parse(path).getroot()
    for old in robot.findall("mujoco"):
        robot.remove(old)
    fuse = "true" if options.collapse_fixed_joints else "false"
    compiler = {"fusestatic": fuse, "discardvisual": "true", "strippath": "false", "meshdir": os.path.dirname(path)}
    # A root without an inertial may hang on the free joint only if it weighs something.
    compiler.update(boundmass="1e-6", boundinertia="1e-9")
    ElementTree.SubElement(ElementTree.SubElement(robot, "mujoco"), "compiler", compiler)
    links = [e.get("name") for e in robot.findall("link")]
    below = {e.find("child").get("link") for e in robot.findall("joint")}  # type: ignore[union-attr]
    root = next(name for name in links if name not in below)
    if "world" in links:
        raise RuntimeError("load_asset: the fake cannot read a URDF with a link called world")
    ElementTree.SubElement(robot, "link", {"name": "world"})
    joint = ElementTree.SubElement(robot, "joint", {"name": "world_to_root", "type": "floating"})
    ElementTree.SubElement(joint, "parent", {"link": "world"})
    ElementTree.SubElement(joint, "child", {"link": str(root)})
    limits = {str(e.get("name")): e.find("limit") for e in robot.findall("joint")}
    speeds = {name: float(limit.get("velocity", FLT_MAX)) for name, limit in limits.items() if limit is not None}
    return ElementTree.tostring(robot, encoding="unicode"), speeds


def _tendon(model: Any, index: int) -> TendonProperties:
    props = TendonProperties()
    props.is_fixed_limited = bool(model.tendon_limited[index])
    props.fixed_lower_limit, props.fixed_upper_limit = model.tendon_range[index]
    props.stiffness, props.damping = model.tendon_stiffness[index], model.tendon_damping[index]
    props.__dict__["joints"] = int(model.tendon_num[index])
    return props


def _mat33(matrix: Any) -> Mat33:
    result = Mat33()
    result.x, result.y, result.z = (Vec3(*row) for row in matrix)
    return result


def matrices(quat: Any) -> Any:
    """(…, 3, 3) of quaternions wxyz (…, 4)."""
    w, x, y, z = np.moveaxis(quat, -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.moveaxis(np.array(rows), (0, 1), (-2, -1))


def _lowest(model: Any, data: Any, geom: int) -> float:
    """z of a geom's lowest point; a mesh counts as its bounding sphere."""
    import mujoco

    kind, size = model.geom_type[geom], model.geom_size[geom]
    z, axis = data.geom_xpos[geom, 2], np.abs(data.geom_xmat[geom].reshape(3, 3)[2])
    kinds = mujoco.mjtGeom
    if kind == kinds.mjGEOM_BOX:
        return float(z - axis @ size)
    if kind == kinds.mjGEOM_CAPSULE:
        return float(z - size[0] - axis[2] * size[1])
    if kind == kinds.mjGEOM_CYLINDER:
        return float(z - size[0] * np.sqrt(max(0.0, 1 - axis[2] ** 2)) - axis[2] * size[1])
    if kind == kinds.mjGEOM_ELLIPSOID:
        return float(z - np.linalg.norm(axis * size))
    return float(z - model.geom_rbound[geom])

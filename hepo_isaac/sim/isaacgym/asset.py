"""From our MJCF files to what Isaac Gym's importer reads, and to the links that ``Kinematics`` needs.

MuJoCo compiles an actor's file; what it resolved (defaults, Euler angles, masses from densities, degrees) is written
out as plain MJCF with the elements that NVIDIA's own assets use: one tree of bodies, explicit inertials, primitive
shapes, hinges and slides, fixed tendons, contact pairs. Works with MuJoCo 3.2.3, the last one for Python 3.8.
"""

from __future__ import annotations

import importlib
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass, field
from typing import Any, Dict, List, Sequence, Tuple

import numpy as np

from hepo_isaac.sim.isaacgym.kinematics import FIXED, HINGE, SLIDE, Link
from hepo_isaac.sim.spec import ActorSpec

BASE = "mount"  # body that a fixed actor gets whose own root body moves on a joint


@dataclass
class JointInfo:
    """A joint of an actor: ``name`` as in its file, limits in rad or m (infinite if it has none), and what it is like
    without a drive: N m/rad or N/m, N m s/rad or N s/m, kg m^2 or kg."""

    name: str
    lower: float
    upper: float
    stiffness: float
    damping: float
    armature: float


@dataclass
class Anchor:
    """A point of a body that <connect> holds to the world.

    offset: (3,) in the body's frame.  target: (3,) where it is with all joints at zero, in the root's frame. m.
    """

    body: str
    offset: Tuple[float, ...]
    target: Tuple[float, ...]


@dataclass
class GymAsset:
    """An actor's file, compiled.

    mjcf: plain MJCF text, whose root is in the actor's origin.
    root_position, root_quaternion: where the file puts its root body.
    joints, bodies: in the file's order, root body first.
    links: for Kinematics; parents and dofs count within the actor.
    anchors: what Isaac Gym's attractors have to hold.
    own_filter: the file itself says which of its shapes touch each other, so it brings its own collision filter.
    shapes: number of shapes that can collide.
    """

    mjcf: str
    root_position: List[float]
    root_quaternion: List[float]
    joints: List[JointInfo]
    bodies: List[str]
    links: List[Link]
    anchors: List[Anchor] = field(default_factory=list)
    own_filter: bool = False
    shapes: int = 0


def compile_asset(actor: ActorSpec) -> GymAsset:
    """Read the file of ``actor``.

    Raises:
        ValueError: no such file, several top-level bodies, a shape, joint, tendon or constraint that Isaac Gym's
            importer cannot take, or a body_mass for a body that does not exist; the message names it.
    """
    if not actor.asset.is_file():
        there = ", ".join(sorted(path.name for path in actor.asset.parent.glob("*.xml"))) or "no assets"
        raise ValueError("actor %r: there is no asset %s; beside it: %s" % (actor.name, actor.asset, there))
    mujoco: Any = importlib.import_module("mujoco")
    model = mujoco.MjModel.from_xml_path(str(actor.asset))
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    tops = int((model.body_parentid[1:] == 0).sum())
    if tops != 1:
        raise ValueError("%s must hold exactly one top-level body, found %d" % (actor.asset, tops))
    return _Writer(mujoco, actor, model, data).asset()


class _Writer:
    """Writes one compiled model as plain MJCF."""

    def __init__(self, mujoco: Any, actor: ActorSpec, model: Any, data: Any) -> None:
        self.mujoco, self.actor, self.model, self.data = mujoco, actor, model, data
        self.names = [self._name("BODY", b) or "body%d" % b for b in range(1, model.nbody)]
        unknown = sorted(set(actor.body_mass) - set(self.names))
        if unknown:
            raise ValueError(
                "body_mass of actor %r names unknown body %r; it has: %s"
                % (actor.name, unknown[0], ", ".join(self.names))
            )
        self.scale = np.ones(model.nbody)
        for name, mass in actor.body_mass.items():
            self.scale[self.names.index(name) + 1] = mass / model.body_mass[self.names.index(name) + 1]

    def _name(self, kind: str, index: int) -> str:
        return self.mujoco.mj_id2name(self.model, getattr(self.mujoco.mjtObj, "mjOBJ_" + kind), index) or ""

    def asset(self) -> GymAsset:
        root = ElementTree.Element("mujoco", model=self.actor.name)
        ElementTree.SubElement(root, "compiler", angle="radian", coordinate="local")
        world = ElementTree.SubElement(root, "worldbody")
        elements: Dict[int, ElementTree.Element] = {0: self._base(world)}
        shapes = 0
        for body in range(1, self.model.nbody):
            parent = elements[int(self.model.body_parentid[body])]
            elements[body] = self._body(parent, body)
            shapes += self._shapes(elements[body], body)
        self._tendons(root)
        own_filter = self._contacts(root)
        return GymAsset(
            mjcf=ElementTree.tostring(root, encoding="unicode"),
            root_position=[float(x) for x in self.model.body_pos[1]],
            root_quaternion=_xyzw(self.model.body_quat[1]),
            joints=[self._joint_info(j) for j in range(self.model.njnt)],
            bodies=list(self.names),
            links=self._links(),
            anchors=self._anchors(),
            own_filter=own_filter,
            shapes=shapes,
        )

    # -- bodies ------------------------------------------------------------------------------------------------
    def _base(self, world: ElementTree.Element) -> ElementTree.Element:
        """What the root body hangs on: the world, or where it has joints a body that can be fixed there."""
        joints = [self._name("JOINT", j) for j in self._joints_of(1)]
        if not joints:
            return world
        if not self.actor.fixed:
            raise ValueError(
                "actor %r is free, but its root body %r has the joint %r; take the joint out or fix the actor"
                % (self.actor.name, self.names[0], joints[0])
            )
        base = ElementTree.SubElement(world, "body", name=BASE, pos="0 0 0", quat="1 0 0 0")
        ElementTree.SubElement(base, "inertial", pos="0 0 0", mass="1", diaginertia="0.01 0.01 0.01")
        return base

    def _body(self, parent: ElementTree.Element, body: int) -> ElementTree.Element:
        m = self.model
        first = body == 1  # its pose is the actor's
        element = ElementTree.SubElement(
            parent,
            "body",
            name=self.names[body - 1],
            pos="0 0 0" if first else _text(m.body_pos[body]),
            quat="1 0 0 0" if first else _text(m.body_quat[body]),
        )
        if m.body_mass[body] > 0:
            ElementTree.SubElement(
                element,
                "inertial",
                pos=_text(m.body_ipos[body]),
                quat=_text(m.body_iquat[body]),
                mass=_text([m.body_mass[body] * self.scale[body]]),
                diaginertia=_text(m.body_inertia[body] * self.scale[body]),
            )
        if first and not self.actor.fixed:
            ElementTree.SubElement(element, "freejoint", name="root")
        for joint in self._joints_of(body):
            info = self._joint_info(joint)
            limited = bool(np.isfinite(info.lower))
            written = ElementTree.SubElement(
                element,
                "joint",
                name=info.name,
                type="hinge" if self._kind(joint) == HINGE else "slide",
                pos=_text(m.jnt_pos[joint]),
                axis=_text(m.jnt_axis[joint]),
                limited="true" if limited else "false",
            )
            if limited:
                written.set("range", _text([info.lower, info.upper]))
        return element

    def _joints_of(self, body: int) -> Sequence[int]:
        first, count = int(self.model.body_jntadr[body]), int(self.model.body_jntnum[body])
        return range(first, first + count)

    def _kind(self, joint: int) -> int:
        kinds = {int(self.mujoco.mjtJoint.mjJNT_HINGE): HINGE, int(self.mujoco.mjtJoint.mjJNT_SLIDE): SLIDE}
        kind = kinds.get(int(self.model.jnt_type[joint]))
        if kind is None:
            raise ValueError(
                "joint %r of actor %r is neither a hinge nor a slide; Isaac Gym's degrees of freedom are these two"
                % (self._name("JOINT", joint), self.actor.name)
            )
        return kind

    def _joint_info(self, joint: int) -> JointInfo:
        lower, upper = self.model.jnt_range[joint]
        if not self.model.jnt_limited[joint]:
            lower, upper = -np.inf, np.inf
        dof = int(self.model.jnt_dofadr[joint])
        rest = (self.model.jnt_stiffness[joint], self.model.dof_damping[dof], self.model.dof_armature[dof])
        name = self._name("JOINT", joint)
        return JointInfo(name, float(lower), float(upper), *(float(np.ravel(x)[0]) for x in rest))

    # -- shapes ------------------------------------------------------------------------------------------------
    def _shapes(self, element: ElementTree.Element, body: int) -> int:
        """Add the shapes of a body that can touch anything; returns how many."""
        m, count = self.model, 0
        first, number = int(m.body_geomadr[body]), int(m.body_geomnum[body])
        for geom in range(first, first + max(number, 0)):
            if not (m.geom_contype[geom] or m.geom_conaffinity[geom]):
                continue  # for pictures
            kind = self.mujoco.mjtGeom(int(m.geom_type[geom])).name[len("mjGEOM_") :].lower()
            sizes = {"sphere": 1, "capsule": 2, "cylinder": 2, "ellipsoid": 3, "box": 3}
            name = self._name("GEOM", geom) or "%s_shape%d" % (self.names[body - 1], geom - first)
            if kind not in sizes:
                raise ValueError(
                    "shape %r of actor %r is a %s; Isaac Gym gets spheres, capsules, cylinders, ellipsoids and boxes"
                    % (name, self.actor.name, kind)
                )
            ElementTree.SubElement(
                element,
                "geom",
                name=name,
                type=kind,
                size=_text(m.geom_size[geom][: sizes[kind]]),
                pos=_text(m.geom_pos[geom]),
                quat=_text(m.geom_quat[geom]),
                # what the importer makes the file's own filter of, beside pairs and excluded bodies
                contype=str(self.actor.collision_group),
                conaffinity=str(self.actor.collision_mask),
            )
            count += 1
        return count

    # -- tendons, pairs, connections ---------------------------------------------------------------------------
    def _tendons(self, root: ElementTree.Element) -> None:
        m = self.model
        if not m.ntendon:
            return
        parent = ElementTree.SubElement(root, "tendon")
        for tendon in range(m.ntendon):
            first, number = int(m.tendon_adr[tendon]), int(m.tendon_num[tendon])
            wraps = range(first, first + number)
            name = self._name("TENDON", tendon)
            if any(int(m.wrap_type[w]) != int(self.mujoco.mjtWrap.mjWRAP_JOINT) for w in wraps):
                raise ValueError(
                    "tendon %r of actor %r is not fixed; Isaac Gym's MJCF importer takes fixed tendons only"
                    % (name, self.actor.name)
                )
            limited = bool(m.tendon_limited[tendon])
            element = ElementTree.SubElement(parent, "fixed", name=name, limited="true" if limited else "false")
            if limited:
                element.set("range", _text(m.tendon_range[tendon]))
            for wrap in wraps:
                joint = self._name("JOINT", int(m.wrap_objid[wrap]))
                ElementTree.SubElement(element, "joint", joint=joint, coef=_text([m.wrap_prm[wrap]]))

    def _contacts(self, root: ElementTree.Element) -> bool:
        """Write <pair> and <exclude>; True if they say more than groups and masks do."""
        m = self.model
        if not m.npair and not m.nexclude:
            return False
        parent = ElementTree.SubElement(root, "contact")
        for pair in range(m.npair):
            one, two = (self._name("GEOM", int(g[pair])) for g in (m.pair_geom1, m.pair_geom2))
            ElementTree.SubElement(parent, "pair", geom1=one, geom2=two)
        for k in range(m.nexclude):
            first, second = divmod(int(m.exclude_signature[k]), 1 << 16)
            ElementTree.SubElement(parent, "exclude", body1=self.names[first - 1], body2=self.names[second - 1])
        touches_itself = bool(self.actor.collision_group & self.actor.collision_mask)
        return bool(m.npair) or touches_itself

    def _anchors(self) -> List[Anchor]:
        m, found = self.model, []
        for k in range(m.neq):
            body, other = int(m.eq_obj1id[k]), int(m.eq_obj2id[k])
            if int(m.eq_type[k]) != int(self.mujoco.mjtEq.mjEQ_CONNECT) or other != 0:
                raise ValueError(
                    "constraint %d of actor %r is not a <connect> to the world; Isaac Gym holds points of bodies in"
                    " the world (attractors) and nothing else" % (k, self.actor.name)
                )
            offset = m.eq_data[k][:3]
            turned, target, inverse = np.zeros(3), np.zeros(3), np.zeros(4)
            self.mujoco.mju_rotVecQuat(turned, np.asarray(offset, dtype=np.float64), self.data.xquat[body])
            self.mujoco.mju_negQuat(inverse, self.data.xquat[1])
            self.mujoco.mju_rotVecQuat(target, self.data.xpos[body] + turned - self.data.xpos[1], inverse)
            found.append(Anchor(self.names[body - 1], tuple(map(float, offset)), tuple(map(float, target))))
        return found

    # -- links -------------------------------------------------------------------------------------------------
    def _links(self) -> List[Link]:
        m = self.model
        links: List[Link] = []
        frame_of: Dict[int, int] = {0: -1}
        for body in range(1, m.nbody):
            position, quaternion = [float(x) for x in m.body_pos[body]], _xyzw(m.body_quat[body])
            if body == 1:
                position, quaternion = [0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]
            joints: Sequence[Any] = list(self._joints_of(body)) or [None]
            for joint in joints:
                last = joint == joints[-1]
                parent = frame_of[int(m.body_parentid[body])] if joint == joints[0] else len(links) - 1
                links.append(self._link(body, joint, parent, position, quaternion, last))
                position, quaternion = [0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]
            frame_of[body] = len(links) - 1
        return links

    def _link(
        self, body: int, joint: Any, parent: int, position: List[float], quaternion: List[float], last: bool
    ) -> Link:
        m = self.model
        moving: Dict[str, Any] = {"joint": FIXED}
        if joint is not None:
            moving = {
                "joint": self._kind(joint),
                "axis": [float(x) for x in m.jnt_axis[joint]],
                "anchor": [float(x) for x in m.jnt_pos[joint]],
                "dof": int(joint),
            }
        if last:
            flat = np.zeros(9)
            self.mujoco.mju_quat2Mat(flat, m.body_iquat[body])
            turn = flat.reshape(3, 3)
            inertia = turn @ np.diag(m.body_inertia[body] * self.scale[body]) @ turn.T
            moving.update(
                mass=float(m.body_mass[body] * self.scale[body]),
                com=[float(x) for x in m.body_ipos[body]],
                inertia=[[float(x) for x in row] for row in inertia],
            )
        return Link(self.names[body - 1] if last else "", parent, position, quaternion, **moving)


def _xyzw(quat: Any) -> List[float]:
    return [float(quat[i]) for i in (1, 2, 3, 0)]


def _text(values: Any) -> str:
    return " ".join("%.9g" % v for v in np.asarray(values, dtype=np.float64).reshape(-1))

"""Compile a SceneSpec into an MjModel with MjSpec, for both MuJoCo engines."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, replace
from typing import Any, Dict, List, Mapping, Tuple

import mujoco
import numpy as np

from hepo_isaac.sim.mujoco.picture import picture
from hepo_isaac.sim.spec import ActorSpec, DriveSpec, SceneSpec

# MuJoCo's default joint limit is a spring that throws a moving joint back. A direct (negative) solref with a
# damping of 1/h removes the whole velocity within one physics step h, which is how PhysX stops a joint.
INELASTIC_LIMIT_STIFFNESS = 100.0
INELASTIC_LIMIT_SOLIMP = (0.99, 0.999, 0.001)

DEFAULT_OPTIONS: Dict[str, Any] = {
    "integrator": "implicitfast",
    "solver": "newton",
    "cone": "pyramidal",
    "iterations": 10,
    "ls_iterations": 10,
    "tolerance": 1e-8,
    "impratio": 1.0,
}
_ENUM_OPTIONS = {
    "integrator": ("mjINT_", mujoco.mjtIntegrator),
    "solver": ("mjSOL_", mujoco.mjtSolver),
    "cone": ("mjCONE_", mujoco.mjtCone),
}


@dataclass(frozen=True)
class Actuated:
    """One actuator: the DOF column it drives, its mode, gains and joint-speed limit (inf if none)."""

    dof: int
    mode: str
    stiffness: float
    damping: float
    velocity_limit: float


@dataclass
class CompiledScene:
    """An MjModel plus the index maps from the contract's layout to MuJoCo's."""

    model: mujoco.MjModel
    dof_names: List[str]
    qpos_adr: np.ndarray  # (D,) qpos address of each scalar joint
    qvel_adr: np.ndarray  # (D,) dof address of each scalar joint
    body_names: List[str]
    body_ids: np.ndarray  # (B,) MuJoCo body id of each served body
    actor_names: List[str]
    actor_body: np.ndarray  # (A,) body id of each actor's root
    actor_qpos: np.ndarray  # (A,) address of the free joint in qpos, -1 for a fixed actor
    actor_qvel: np.ndarray  # (A,) same in qvel
    actuators: List[Actuated]
    spec_text: str  # the compiled MJCF, for a renderer in another process
    # Bodies whose contacts weigh_links mends, and levers in m^2: anew whenever MuJoCo derives its constants anew.
    axis_links: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))  # (K,)
    axis_levers: np.ndarray = field(default_factory=lambda: np.zeros(0))  # (K,)


def compile_scene(spec: SceneSpec) -> CompiledScene:
    """Build the MjModel of ``spec``.

    Raises:
        ValueError: a drive matches no joint, an actor file has no or several top-level bodies, or a named body
            does not exist; the message names the culprit.
    """
    root, roots = _assemble(spec)
    # Geoms that only a picture shows would cost kinematics in every step of every world.
    root.compiler.discardvisual = True
    model = root.compile()
    links, levers = _links_on_axes(model)
    weigh_links(model.body_invweight0, links, levers)
    return replace(_layout(spec, model, roots, picture(_assemble(spec)[0], spec)), axis_links=links, axis_levers=levers)


def _assemble(spec: SceneSpec) -> Tuple[mujoco.MjSpec, List[str]]:
    """The scene as an MjSpec, and the names of its actors' root bodies."""
    root = mujoco.MjSpec()
    root.modelname = "scene"
    root.option.timestep = spec.physics_dt
    root.option.gravity = spec.gravity
    _set_options(root, spec.options.get("mujoco", {}))
    if spec.ground_plane:
        plane = root.worldbody.add_geom(type=mujoco.mjtGeom.mjGEOM_PLANE, size=[0, 0, 1])
        _surface(plane, spec)
    roots = [_attach(root, actor, spec) for actor in spec.actors]
    _add_sensors(root, spec)
    return root, roots


def _links_on_axes(model: mujoco.MjModel) -> Tuple[np.ndarray, np.ndarray]:
    """(K,) bodies that can be touched and whose centre of mass lies on their joints' axes, and (K,) the squared
    distance of their farthest shape from there, m^2.

    MuJoCo makes contacts as stiff as the bodies' centres of mass are hard to move. Such a link's cannot be moved at
    all, so its contacts would be 1e15 times as stiff as others, which float32 cannot solve.
    """
    bodies, levers = [], []
    for body in range(1, model.nbody):
        mine = (model.geom_bodyid == body) & ((model.geom_contype | model.geom_conaffinity) > 0)
        if not mine.any():
            continue
        lever = np.square(model.geom_pos[mine] - model.body_ipos[body]).sum(1).max()
        if model.body_invweight0[body, 0] < 1e-6 * model.body_invweight0[body, 1] * lever:
            bodies.append(body)
            levers.append(lever)
    return np.array(bodies, dtype=np.int64), np.array(levers)


def weigh_links(invweight: Any, links: Any, levers: Any) -> None:
    """Give contacts of _links_on_axes a finite stiffness, in place: their shapes can be moved, how easily say their
    distance from the centre of mass and how easily the link turns.

    Args:
        invweight: (..., bodies, 2) MuJoCo's body_invweight0, 1/kg and 1/(kg m^2); array or tensor as links and levers.
    """
    invweight[..., links, 0] = invweight[..., links, 1] * levers


def _set_options(root: mujoco.MjSpec, overrides: Mapping[str, Any]) -> None:
    for key, value in {**DEFAULT_OPTIONS, **overrides}.items():
        if key == "memory":  # bytes for the contacts and constraints of one world (mujoco_batch)
            root.memory = int(value)
            continue
        if key in _ENUM_OPTIONS:
            prefix, enum = _ENUM_OPTIONS[key]
            value = getattr(enum, prefix + str(value).upper())
        setattr(root.option, key, value)


def _surface(geom: mujoco.MjsGeom, spec: SceneSpec) -> None:
    geom.friction = [spec.contact.friction, 0.005, 0.0001]
    geom.condim = 3  # Coulomb friction without a torsional term, as PhysX
    geom.solref = [spec.contact.solref_steps * spec.physics_dt, 1.0]
    geom.solimp[:3] = spec.contact.solimp


def _attach(root: mujoco.MjSpec, actor: ActorSpec, spec: SceneSpec) -> str:
    if not actor.asset.is_file():
        there = ", ".join(sorted(path.name for path in actor.asset.parent.glob("*.xml"))) or "no assets"
        raise ValueError("actor %r: there is no asset %s; beside it: %s" % (actor.name, actor.asset, there))
    child = mujoco.MjSpec.from_file(str(actor.asset))
    tops = child.worldbody.bodies
    top = tops[0] if len(tops) == 1 else None
    if top is None:
        raise ValueError("%s must hold exactly one top-level body, found %d" % (actor.asset, len(tops)))
    for geom in child.geoms:
        if geom.contype or geom.conaffinity:
            geom.contype, geom.conaffinity = actor.collision_group, actor.collision_mask
            _surface(geom, spec)
            # MuJoCo rubs with the rougher of two equal-priority shapes; against the ground the actor's own friction
            # counts, so that randomising it downwards has an effect.
            geom.priority = 1
            if actor.friction is not None:
                geom.friction[0], geom.priority = actor.friction, 2
    for body in child.bodies:
        if not actor.gravity and any(spec.gravity):  # compensation costs time, so only where there is gravity
            body.gravcomp = 1.0
    _set_masses(child, actor)
    taken: Dict[str, str] = {}
    for drive in actor.drives:
        _drive(child, actor, drive, spec, taken)
    if not actor.fixed:
        top.add_freejoint(name="root")
    x, y, z, w = actor.orientation
    frame = root.worldbody.add_frame(pos=actor.position, quat=[w, x, y, z])
    name = top.name
    root.attach(child, prefix=actor.name + "/", frame=frame)
    return actor.name + "/" + name


def _set_masses(child: mujoco.MjSpec, actor: ActorSpec) -> None:
    """Give bodies the masses the spec asks for, at the same density profile: inertia scales with mass."""
    if not actor.body_mass:
        return
    compiled = child.copy().compile()
    bodies = {body.name: body for body in child.bodies}
    for name, mass in actor.body_mass.items():
        if name not in bodies or name == "world":
            known = ", ".join(n for n in bodies if n != "world")
            raise ValueError("body_mass of actor %r names unknown body %r; it has: %s" % (actor.name, name, known))
        source, body = compiled.body(name), bodies[name]
        body.inertia = source.inertia * (mass / source.mass[0])
        body.fullinertia = [math.nan] * 6
        body.ipos, body.iquat = source.ipos, source.iquat
        body.mass = mass
        body.explicitinertial = True


def _drive(child: mujoco.MjSpec, actor: ActorSpec, drive: DriveSpec, spec: SceneSpec, taken: Dict[str, str]) -> None:
    joints = [j for j in child.joints if re.fullmatch(drive.joints, j.name)]
    if not joints:
        names = ", ".join(j.name for j in child.joints)
        raise ValueError("drive %r of actor %r matches no joint; it has: %s" % (drive.joints, actor.name, names))
    for joint in joints:
        if joint.name in taken:
            raise ValueError(
                "joint %r of actor %r is matched by two drives, %r and %r; make their patterns exclude each other"
                % (joint.name, actor.name, taken[joint.name], drive.joints)
            )
        taken[joint.name] = drive.joints
        joint.armature = drive.armature
        # A PhysX drive's gains replace the joint's own. An actuator carries them where it has a target to follow.
        passive = drive.mode in ("effort", "none")
        joint.damping = [drive.damping if passive else 0.0, 0.0, 0.0]
        joint.stiffness = [drive.stiffness if passive else 0.0, 0.0, 0.0]
        joint.frictionloss = 0.0
        if drive.inelastic_stop:
            joint.solref_limit = [-INELASTIC_LIMIT_STIFFNESS, -1.0 / spec.physics_dt]
            joint.solimp_limit[:3] = INELASTIC_LIMIT_SOLIMP
        if drive.mode == "none":
            continue
        act = child.add_actuator(name=joint.name, target=joint.name, trntype=mujoco.mjtTrn.mjTRN_JOINT)
        act.gaintype = mujoco.mjtGain.mjGAIN_FIXED
        kp, kv = drive.stiffness, drive.damping
        if drive.mode == "position":
            act.biastype = mujoco.mjtBias.mjBIAS_AFFINE
            act.gainprm[0] = kp
            act.biasprm[:3] = [0.0, -kp, -kv]
        elif drive.mode == "velocity":
            act.biastype = mujoco.mjtBias.mjBIAS_AFFINE
            act.gainprm[0] = kv
            act.biasprm[:3] = [0.0, 0.0, -kv]
        else:
            act.gainprm[0] = 1.0
        if math.isfinite(drive.effort_limit):
            act.forcelimited = True
            act.forcerange = [-drive.effort_limit, drive.effort_limit]


def _add_sensors(root: mujoco.MjSpec, spec: SceneSpec) -> None:
    """Sensors of the scene, in this order: per force sensor force and torque, then per contact body."""
    for sensor in spec.force_sensors:
        body = root.body(sensor.body)
        if body is None:
            raise ValueError("force sensor %r sits on unknown body %r" % (sensor.name, sensor.body))
        site = body.add_site(name="sensor/" + sensor.name)
        for kind in (mujoco.mjtSensor.mjSENS_FORCE, mujoco.mjtSensor.mjSENS_TORQUE):
            root.add_sensor(
                name="%s/%s" % (sensor.name, kind.name), type=kind, objtype=mujoco.mjtObj.mjOBJ_SITE, objname=site.name
            )
    for name in spec.contact_bodies:
        if root.body(name) is None:
            raise ValueError("contact_bodies names unknown body %r" % name)
        # One net force (reduce 3) over all contacts of this body with anything, in the world frame. MuJoCo counts it
        # from the first body to the second: it is the force this body exerts, so the engines flip its sign.
        root.add_sensor(
            name="contact/" + name,
            type=mujoco.mjtSensor.mjSENS_CONTACT,
            objtype=mujoco.mjtObj.mjOBJ_BODY,
            objname=name,
            intprm=[1 << int(mujoco.mjtConDataField.mjCONDATA_FORCE), 3, 1],
        )


def _layout(spec: SceneSpec, model: mujoco.MjModel, roots: List[str], xml: str) -> CompiledScene:
    scalar = [j for j in range(model.njnt) if model.jnt_type[j] in (2, 3)]  # mjJNT_SLIDE, mjJNT_HINGE
    names = [model.joint(j).name for j in scalar]
    all_bodies = [model.body(b).name for b in range(1, model.nbody)]
    bodies = list(spec.body_states) or all_bodies
    missing = sorted(set(bodies + list(spec.contact_bodies)) - set(all_bodies))
    if missing:
        raise ValueError("the scene has no body %s; it has: %s" % (", ".join(missing), ", ".join(all_bodies)))
    actor_body = np.array([model.body(r).id for r in roots])
    free: List[Tuple[int, int]] = []
    for body in actor_body:
        adr = model.body_jntadr[body]
        is_free = adr >= 0 and model.jnt_type[adr] == mujoco.mjtJoint.mjJNT_FREE
        free.append((int(model.jnt_qposadr[adr]), int(model.jnt_dofadr[adr])) if is_free else (-1, -1))
    return CompiledScene(
        model=model,
        dof_names=names,
        qpos_adr=model.jnt_qposadr[scalar].astype(np.int64),
        qvel_adr=model.jnt_dofadr[scalar].astype(np.int64),
        body_names=bodies,
        body_ids=np.array([model.body(b).id for b in bodies], dtype=np.int64),
        actor_names=[a.name for a in spec.actors],
        actor_body=actor_body,
        actor_qpos=np.array([f[0] for f in free], dtype=np.int64),
        actor_qvel=np.array([f[1] for f in free], dtype=np.int64),
        actuators=[_actuated(spec, model, a, names) for a in range(model.nu)],
        spec_text=xml,
    )


def _actuated(spec: SceneSpec, model: mujoco.MjModel, actuator: int, dof_names: List[str]) -> Actuated:
    name = model.joint(int(model.actuator_trnid[actuator, 0])).name
    owner, joint = name.split("/", 1)
    actor = next(a for a in spec.actors if a.name == owner)
    drive = next(d for d in actor.drives if re.fullmatch(d.joints, joint))
    limit = math.inf if drive.velocity_limit is None else drive.velocity_limit
    return Actuated(dof_names.index(name), drive.mode, drive.stiffness, drive.damping, limit)

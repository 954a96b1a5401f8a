"""Build the environments of a SceneSpec in Isaac Gym: assets, actors, drives, collision filters, sensors."""

from __future__ import annotations

import math
import re
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Tuple

import numpy as np
from isaacgym import gymapi

from hepo_isaac.sim.isaacgym.asset import GymAsset, compile_asset
from hepo_isaac.sim.isaacgym.install import check_assets
from hepo_isaac.sim.isaacgym.kinematics import Link
from hepo_isaac.sim.isaacgym.settings import ActorSettings, NvidiaFile, Settings, collision_filters, read_settings
from hepo_isaac.sim.spec import ActorSpec, DriveSpec, ForceSensorSpec, SceneSpec

DRIVE_MODES = {
    "none": gymapi.DOF_MODE_NONE,
    "position": gymapi.DOF_MODE_POS,
    "velocity": gymapi.DOF_MODE_VEL,
    "effort": gymapi.DOF_MODE_EFFORT,
}
NO_LIMIT = float(np.finfo(np.float32).max)


@dataclass
class GymActor:
    """One actor as Isaac Gym has it.

    ours: its file, compiled.  handle: Isaac Gym's asset.  joints, bodies: our names -> index within the actor.
    props: its joints' properties, one record each.  pose: of its root.  placed: what create_actor is told.
    """

    spec: ActorSpec
    settings: ActorSettings
    ours: GymAsset
    handle: gymapi.Asset
    source: str
    joints: Dict[str, int]
    bodies: Dict[str, int]
    num_dofs: int
    num_bodies: int
    num_shapes: int
    props: Any
    pose: gymapi.Transform
    placed: gymapi.Transform
    sensors: List[str] = field(default_factory=list)


@dataclass
class GymScene:
    """Everything the engine needs to know about what it simulates; indices count within one environment."""

    gym: gymapi.Gym
    sim: gymapi.Sim
    settings: Settings
    actors: List[GymActor]
    actor_ids: np.ndarray  # (N, A) int32 index of every actor in the simulation
    dof_names: List[str]
    dof_columns: np.ndarray  # (D,) of the served joints among Isaac Gym's
    num_gym_dofs: int
    body_rows: Dict[str, int]  # "actor/body" -> row among Isaac Gym's bodies
    num_gym_bodies: int
    sensor_rows: List[int]  # of the spec's force sensors among Isaac Gym's
    links: List[Link]  # of all actors, for Kinematics
    root_com: np.ndarray  # (A, 3) centre of mass of the root body in its frame; 0 for fixed actors
    dof_modes: List[str]  # (D,)
    envs: List[Tuple[gymapi.Env, List[int]]]  # and the handles of their actors


class SceneBuilder:
    """Builds a GymScene.

    Args:
        spec: the scene.  num_envs: N.  device: "cpu" or "cuda:k".  assets: NVIDIA's folder, or None for our files.

    Raises:
        ValueError: the scene asks for what Isaac Gym does not have; the message says what.
        UserError: ``assets`` is incomplete.
    """

    def __init__(self, spec: SceneSpec, num_envs: int, device: str, assets: Optional[str]) -> None:
        self.spec, self.num_envs, self.device = spec, num_envs, device
        self.settings = read_settings(spec)
        self.folder = self._folder(assets)
        self.gym = gymapi.acquire_gym()
        self.sim = self._create_sim()

    def _folder(self, assets: Optional[str]) -> Optional[Path]:
        if not assets:
            return None
        files = [self.settings.actor(actor.name).nvidia for actor in self.spec.actors]
        return check_assets(str(assets), [f.file for f in files if f is not None])

    def _create_sim(self) -> gymapi.Sim:
        on_gpu, settings = self.device.startswith("cuda"), self.settings
        params = gymapi.SimParams()
        params.dt = self.spec.control_dt / settings.simulates
        params.substeps = settings.substeps
        params.up_axis = gymapi.UP_AXIS_Z
        params.gravity = gymapi.Vec3(*self.spec.gravity)
        params.use_gpu_pipeline = params.physx.use_gpu = on_gpu
        params.physx.solver_type = 1
        params.physx.contact_collection = gymapi.CC_LAST_SUBSTEP
        assign(params.physx, settings.physx, "physx")
        if self.spec.contact_bodies and params.physx.contact_collection == gymapi.CC_NEVER:
            raise ValueError(
                "options.isaacgym.physx.contact_collection=0 measures no contact forces, but the scene serves those of"
                " %s: set it to 1" % ", ".join(self.spec.contact_bodies)
            )
        index = int(self.device.partition(":")[2] or 0)
        sim = self.gym.create_sim(index, -1, gymapi.SIM_PHYSX, params)  # -1: nothing is drawn
        if sim is None:
            raise ValueError(
                "Isaac Gym could not create a simulation on %s; its own messages above say why" % self.device
            )
        if self.spec.ground_plane:
            plane = gymapi.PlaneParams()
            plane.normal = gymapi.Vec3(0.0, 0.0, 1.0)
            plane.static_friction = plane.dynamic_friction = self.spec.contact.friction
            assign(plane, settings.plane, "plane")
            self.gym.add_ground(sim, plane)
        return sim

    def build(self) -> GymScene:
        """Load the assets, create all environments and prepare the simulation."""
        with tempfile.TemporaryDirectory(prefix="hepo_isaac_") as folder:
            actors = [self._load(actor, Path(folder)) for actor in self.spec.actors]
        sensor_rows = self._add_sensors(actors)
        shapes = {actor.spec.name: actor.num_shapes for actor in actors}
        joints = {actor.spec.name: actor.num_dofs for actor in actors}
        own = {actor.spec.name: actor.ours.own_filter for actor in actors}
        filters = collision_filters(self.spec, shapes, joints, own)
        envs = [self._create_env(actors, filters, k) for k in range(self.num_envs)]
        links = [self._weighed(actor, envs, k) for k, actor in enumerate(actors)]
        ids = [[self.gym.get_actor_index(env, h, gymapi.DOMAIN_SIM) for h in handles] for env, handles in envs]
        root_com = [self._root_com(actor, *envs[0], k) for k, actor in enumerate(actors)]
        self.gym.prepare_sim(self.sim)
        return GymScene(
            gym=self.gym,
            sim=self.sim,
            settings=self.settings,
            actors=actors,
            actor_ids=np.array(ids, dtype=np.int32).reshape(self.num_envs, len(actors)),
            sensor_rows=sensor_rows,
            root_com=np.array(root_com),
            envs=envs,
            **_layout(actors, links),
        )

    # -- assets ------------------------------------------------------------------------------------------------
    def _load(self, actor: ActorSpec, folder: Path) -> GymActor:
        settings, ours = self.settings.actor(actor.name), compile_asset(actor)
        options = gymapi.AssetOptions()
        options.fix_base_link, options.disable_gravity = actor.fixed, not actor.gravity
        options.default_dof_drive_mode = int(gymapi.DOF_MODE_NONE)
        assign(options, settings.asset, "actors.%s.asset" % actor.name)
        nvidia = settings.nvidia if self.folder is not None else None
        if nvidia is not None and self.folder is not None:
            assign(options, nvidia.asset, "actors.%s.nvidia.asset" % actor.name)
            root, name = self.folder, nvidia.file
        else:
            root, name = folder, actor.name + ".xml"
            (root / name).write_text(ours.mjcf, encoding="utf-8")
        handle = self.gym.load_asset(self.sim, str(root), name, options)
        if handle is None:
            raise ValueError("Isaac Gym could not read %s; its own messages above say why" % (root / name))
        if settings.tendons:
            tendons = self.gym.get_asset_tendon_properties(handle)
            for tendon in tendons:
                assign(tendon, settings.tendons, "actors.%s.tendons" % actor.name)
            self.gym.set_asset_tendon_properties(handle, tendons)
        dofs, bodies = self.gym.get_asset_dof_names(handle), self.gym.get_asset_rigid_body_names(handle)
        source = str(root / name) if nvidia is not None else str(actor.asset)
        found = GymActor(
            spec=actor,
            settings=settings,
            ours=ours,
            handle=handle,
            source=source,
            joints=_map("joint", [j.name for j in ours.joints], nvidia.joints if nvidia else {}, dofs, source),
            bodies=self._bodies(actor, ours, nvidia, bodies, source),
            num_dofs=len(dofs),
            num_bodies=len(bodies),
            num_shapes=self.gym.get_asset_rigid_shape_count(handle),
            props=self.gym.get_asset_dof_properties(handle),
            pose=_pose(actor, ours),
            # The importer turns a fixed actor by what NVIDIA's MJCF says of its root; ours say nothing.
            placed=_placed(actor) if nvidia and actor.fixed and name.endswith(".xml") else _pose(actor, ours),
        )
        self._set_drives(found, nvidia.others if nvidia else {})
        return found

    def _bodies(
        self, actor: ActorSpec, ours: GymAsset, nvidia: Optional[NvidiaFile], theirs: List[str], source: str
    ) -> Dict[str, int]:
        """Our bodies' rows. NVIDIA's file may lack some, but none that is served."""
        if nvidia is None:
            return _map("body", ours.bodies, {}, theirs, source)
        named = [*self.spec.body_states, *self.spec.contact_bodies, *(s.body for s in self.spec.force_sensors)]
        served = [b for b in ours.bodies if actor.name + "/" + b in named or not self.spec.body_states]
        there = [b for b in ours.bodies if nvidia.bodies.get(b, b) in theirs]
        wanted = [b for b in ours.bodies if b in there or b in served]
        return _map("body", wanted, nvidia.bodies, theirs, source)

    def _set_drives(self, actor: GymActor, others: Mapping[str, float]) -> None:
        """Fill the joints' records from the spec's drives, and from our file where there is none."""
        props = actor.props
        taken: Dict[str, str] = {}
        if actor.num_dofs:
            props["driveMode"] = int(gymapi.DOF_MODE_NONE)
        for drive in actor.spec.drives:
            names = [name for name in actor.joints if re.fullmatch(drive.joints, name)]
            if not names:
                known = ", ".join(actor.joints)
                raise ValueError(
                    "drive %r of actor %r matches no joint; it has: %s" % (drive.joints, actor.spec.name, known)
                )
            for name in names:
                if name in taken:
                    raise ValueError(
                        "joint %r of actor %r is matched by two drives, %r and %r; make their patterns exclude each"
                        " other" % (name, actor.spec.name, taken[name], drive.joints)
                    )
                taken[name] = drive.joints
                _set_drive(props, actor.joints[name], drive)
        for joint in actor.ours.joints:
            if joint.name not in taken:
                row = actor.joints[joint.name]
                for key in ("stiffness", "damping", "armature"):
                    props[key][row] = getattr(joint, key)
        for row in set(range(actor.num_dofs)) - set(actor.joints.values()):
            for key, value in others.items():
                props[key][row] = value

    def _add_sensors(self, actors: List[GymActor]) -> List[int]:
        """Put the force sensors on the assets; returns where each one's six numbers are within an environment."""
        for sensor in self.spec.force_sensors:
            actor, row = self._sensor_body(sensor, actors)
            if not actor.num_dofs:
                raise ValueError(
                    "force sensor %r sits on %r, which has no joints; Isaac Gym measures forces in articulations only:"
                    " read contact_force of the body instead" % (sensor.name, sensor.body)
                )
            if self.gym.create_asset_force_sensor(actor.handle, row, gymapi.Transform()) < 0:
                raise ValueError("Isaac Gym took no force sensor %r on %r" % (sensor.name, sensor.body))
            actor.sensors.append(sensor.name)
        order = [name for actor in actors for name in actor.sensors]
        return [order.index(sensor.name) for sensor in self.spec.force_sensors]

    def _sensor_body(self, sensor: ForceSensorSpec, actors: List[GymActor]) -> Tuple[GymActor, int]:
        name, _, body = sensor.body.partition("/")
        for actor in actors:
            if actor.spec.name == name and body in actor.bodies:
                return actor, actor.bodies[body]
        raise ValueError("force sensor %r sits on unknown body %r" % (sensor.name, sensor.body))

    # -- environments ------------------------------------------------------------------------------------------
    def _create_env(
        self, actors: List[GymActor], filters: Mapping[str, int], index: int
    ) -> Tuple[gymapi.Env, List[int]]:
        half = self.settings.env_spacing
        lower, upper = gymapi.Vec3(-half, -half, 0.0), gymapi.Vec3(half, half, half)
        env = self.gym.create_env(self.sim, lower, upper, max(1, int(math.sqrt(self.num_envs))))
        shapes = sum(actor.num_shapes for actor in actors)
        together = shapes > 0 and len(actors) > 1  # one entry in PhysX's broad phase instead of one per actor
        if together:
            self.gym.begin_aggregate(env, sum(actor.num_bodies for actor in actors), shapes, True)
        handles = []
        for actor in actors:
            name = actor.spec.name
            handle = self.gym.create_actor(env, actor.handle, actor.placed, name, index, filters[name], 0)
            handles.append(handle)
            self._set_up_actor(env, handle, actor)
        if together:
            self.gym.end_aggregate(env)
        return env, handles

    def _set_up_actor(self, env: gymapi.Env, handle: int, actor: GymActor) -> None:
        if actor.num_dofs:
            self.gym.set_actor_dof_properties(env, handle, actor.props)
            if actor.settings.dof_force_sensors:
                self.gym.enable_actor_dof_force_sensors(env, handle)
        friction = actor.spec.friction if actor.settings.friction is None else actor.settings.friction
        shapes = self.gym.get_actor_rigid_shape_properties(env, handle)
        for shape in shapes:
            shape.friction = self.spec.contact.friction if friction is None else friction
            shape.restitution = actor.settings.restitution or 0.0
        if shapes:
            self.gym.set_actor_rigid_shape_properties(env, handle, shapes)
        for anchor in actor.ours.anchors:
            held = gymapi.AttractorProperties()
            held.stiffness, held.damping = 5e7, 5e3  # BallBalance's
            assign(held, actor.settings.attractors, "actors.%s.attractors" % actor.spec.name)
            held.axes = gymapi.AXIS_TRANSLATION
            held.rigid_handle = self.gym.find_actor_rigid_body_handle(env, handle, anchor.body)
            held.offset = gymapi.Transform(gymapi.Vec3(*anchor.offset), gymapi.Quat())
            held.target = gymapi.Transform(gymapi.Vec3(*_point(actor.pose, anchor.target)), gymapi.Quat())
            self.gym.create_rigid_body_attractor(env, held)

    def _weighed(self, actor: GymActor, envs: List[Tuple[gymapi.Env, List[int]]], k: int) -> List[Link]:
        """The links of actor ``k`` with the masses that PhysX has: NVIDIA's, or those of our file, which the bodies
        are given should the importer have read others."""
        env, handles = envs[0]
        props = self.gym.get_actor_rigid_body_properties(env, handles[k])
        if self.folder is not None and actor.settings.nvidia is not None:
            return [
                _with_mass(link, props[actor.bodies[link.name]]) if link.name in actor.bodies else link
                for link in actor.ours.links
            ]
        wrong = False
        for link in actor.ours.links:
            prop = props[actor.bodies[link.name]] if link.mass > 0 else None
            if prop is not None and abs(prop.mass - link.mass) > 1e-3 * link.mass:
                wrong, prop.mass, inertia = True, link.mass, gymapi.Mat33()
                inertia.x, inertia.y, inertia.z = (gymapi.Vec3(*map(float, row)) for row in link.inertia)
                prop.inertia = inertia
        for env, handles in envs if wrong else ():
            self.gym.set_actor_rigid_body_properties(env, handles[k], props, False)
        return actor.ours.links

    def _root_com(self, actor: GymActor, env: gymapi.Env, handles: List[int], k: int) -> List[float]:
        if actor.spec.fixed:
            return [0.0, 0.0, 0.0]
        com = self.gym.get_actor_rigid_body_properties(env, handles[k])[0].com
        return [com.x, com.y, com.z]


def assign(target: Any, values: Mapping[str, Any], where: str) -> None:
    """Set fields of one of Isaac Gym's own objects; ValueError for one that it does not have."""
    for key, value in values.items():
        if not hasattr(target, key):
            raise ValueError("options.isaacgym.%s.%s is no field of gymapi.%s" % (where, key, type(target).__name__))
        if key == "contact_collection":
            value = gymapi.ContactCollection(value)
        setattr(target, key, value)


def _set_drive(props: Any, row: int, drive: DriveSpec) -> None:
    props["driveMode"][row] = int(DRIVE_MODES[drive.mode])
    props["stiffness"][row], props["damping"][row] = drive.stiffness, drive.damping
    props["armature"][row] = drive.armature
    props["effort"][row] = drive.effort_limit if math.isfinite(drive.effort_limit) else NO_LIMIT
    if drive.velocity_limit is not None:
        props["velocity"][row] = drive.velocity_limit


def _map(kind: str, ours: List[str], renamed: Mapping[str, str], theirs: List[str], source: str) -> Dict[str, int]:
    """Our names -> index among Isaac Gym's; ValueError for one that is not there."""
    found = {}
    for name in ours:
        other = renamed.get(name, name)
        if other not in theirs:
            raise ValueError("%s has no %s %r; it has: %s" % (source, kind, other, ", ".join(theirs)))
        found[name] = theirs.index(other)
    return found


def _pose(actor: ActorSpec, ours: GymAsset) -> gymapi.Transform:
    """Where the root body starts: the actor's pose, then the file's."""
    pose = gymapi.Transform()
    pose.p = gymapi.Vec3(*_point(_placed(actor), ours.root_position))
    pose.r = gymapi.Quat(*quat_product(actor.orientation, ours.root_quaternion))
    return pose


def _placed(actor: ActorSpec) -> gymapi.Transform:
    return gymapi.Transform(gymapi.Vec3(*actor.position), gymapi.Quat(*actor.orientation))


def _point(pose: gymapi.Transform, point: Any) -> List[float]:
    """A point of a frame in the world."""
    quat = [pose.r.x, pose.r.y, pose.r.z, pose.r.w]
    turned = quat_product(quat_product(quat, [*point, 0.0]), [-quat[0], -quat[1], -quat[2], quat[3]])
    return [turned[0] + pose.p.x, turned[1] + pose.p.y, turned[2] + pose.p.z]


def quat_product(a: Any, b: Any) -> List[float]:
    """Product of two quaternions xyzw."""
    (ax, ay, az, aw), (bx, by, bz, bw) = a, b
    return [
        aw * bx + ax * bw + ay * bz - az * by,
        aw * by - ax * bz + ay * bw + az * bx,
        aw * bz + ax * by - ay * bx + az * bw,
        aw * bw - ax * bx - ay * by - az * bz,
    ]


def _with_mass(link: Link, prop: gymapi.RigidBodyProperties) -> Link:
    rows = (prop.inertia.x, prop.inertia.y, prop.inertia.z)
    inertia = [[row.x, row.y, row.z] for row in rows]
    return replace(link, mass=prop.mass, com=[prop.com.x, prop.com.y, prop.com.z], inertia=inertia)


def _layout(actors: List[GymActor], weighed: List[List[Link]]) -> Dict[str, Any]:
    """Index maps of one environment; joints and bodies follow one another actor by actor."""
    names: List[str] = []
    columns: List[int] = []
    modes: List[str] = []
    rows: Dict[str, int] = {}
    links: List[Link] = []
    first_dof = first_body = 0
    for k, actor in enumerate(actors):
        prefix, first_link, first_column = actor.spec.name + "/", len(links), len(names)
        for joint in actor.ours.joints:
            names.append(prefix + joint.name)
            columns.append(first_dof + actor.joints[joint.name])
            drive = next((d for d in actor.spec.drives if re.fullmatch(d.joints, joint.name)), None)
            modes.append(drive.mode if drive is not None else "none")
        for body, row in actor.bodies.items():
            rows[prefix + body] = first_body + row
        for link in weighed[k]:
            parent = -1 - k if link.parent < 0 else first_link + link.parent
            dof = first_column + link.dof if link.dof >= 0 else -1
            links.append(replace(link, parent=parent, dof=dof, name=prefix + link.name if link.name else ""))
        first_dof += actor.num_dofs
        first_body += actor.num_bodies
    return {
        "dof_names": names,
        "dof_columns": np.array(columns, dtype=np.int64),
        "dof_modes": modes,
        "num_gym_dofs": first_dof,
        "body_rows": rows,
        "num_gym_bodies": first_body,
        "links": links,
    }

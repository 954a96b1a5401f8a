"""Gym's calls that build a scene: simulation, assets, envs, actors, and their properties."""

from __future__ import annotations

import os
from typing import Any, List, Optional

import numpy as np

from isaacgym._asset import DOF_DTYPE, LoadedAsset
from isaacgym._binding import check_all
from isaacgym._types import (
    INVALID_HANDLE,
    Asset,
    AssetOptions,
    AttractorProperties,
    Env,
    ForceSensorProperties,
    IndexDomain,
    PlaneParams,
    RigidBodyProperties,
    RigidShapeProperties,
    Sim,
    SimParams,
    SimType,
    TendonProperties,
    Transform,
    Vec3,
    Version,
)
from isaacgym._world import ActorRecord, World

DOMAIN_ENV, DOMAIN_SIM = 0, 1


class SimState(Sim):
    """What is behind a Sim handle."""

    def __init__(self, params: SimParams, device: str) -> None:
        self.sim, self.destroyed = self, False
        self.params, self.device = params, device
        self.envs: List[EnvState] = []
        self.actors: List[ActorRecord] = []
        self.has_ground = False
        self.world: Optional[World] = None
        self.time, self.fetched = 0.0, True
        self.set_since: Any = set()  # indexed setters called since the last simulate
        self.buffers: Any = {}

    def building(self, call: str) -> None:
        if self.world is not None:
            raise RuntimeError("%s after prepare_sim: the scene cannot change any more" % call)

    def prepared(self, call: str) -> World:
        if self.world is None:
            raise RuntimeError("%s before prepare_sim: there are no tensors yet" % call)
        return self.world


class EnvState(Env):
    def __init__(self, sim: Sim) -> None:
        self.sim = sim
        self.actors: List[ActorRecord] = []
        self.attractors: List[AttractorProperties] = []
        self.aggregate: Optional[List[int]] = None  # bodies and shapes still allowed

    def actor(self, handle: int) -> ActorRecord:
        if not 0 <= handle < len(self.actors):
            raise RuntimeError("there is no actor %d in this env, it has %d" % (handle, len(self.actors)))
        return self.actors[handle]

    @property
    def num_bodies(self) -> int:
        return sum(len(a.asset.bodies) for a in self.actors)


class AssetState(Asset):
    def __init__(self, sim: Sim, loaded: LoadedAsset) -> None:
        self.sim, self.loaded = sim, loaded


@check_all
class SceneCalls:
    """The half of Gym that builds."""

    def create_sim(
        self,
        compute_device: int = 0,
        graphics_device: int = 0,
        type: SimType = SimType.SIM_FLEX,  # noqa: A002, B008
        params: SimParams = SimParams(),  # noqa: B008
    ) -> Sim:
        if type != SimType.SIM_PHYSX:
            raise RuntimeError("create_sim: only SIM_PHYSX has the tensor API, and the default is SIM_FLEX")
        if params.substeps < 1 or params.dt <= 0:
            raise RuntimeError("create_sim: dt and substeps must be positive")
        if params.use_gpu_pipeline and not params.physx.use_gpu:
            raise RuntimeError("create_sim: the GPU pipeline needs physx.use_gpu")
        import torch

        cuda = params.use_gpu_pipeline and torch.cuda.is_available()
        return SimState(params, "cuda:%d" % compute_device if cuda else "cpu")

    def destroy_sim(self, sim: Sim, /) -> None:
        sim.destroyed = True

    def add_ground(self, sim: Sim, params: PlaneParams) -> None:
        sim.building("add_ground")
        up = np.eye(3)[1 + int(sim.params.up_axis)]
        if not np.allclose(params.normal._array(), up) or params.distance != 0:
            raise RuntimeError("add_ground: the fake knows a plane through the origin along the up axis only")
        sim.has_ground = True

    def get_sim_params(self, sim: Sim, /) -> SimParams:
        return sim.params._copy()

    def set_sim_params(self, sim: Sim, params: SimParams, /) -> None:
        if params.use_gpu_pipeline != sim.params.use_gpu_pipeline:
            raise RuntimeError("set_sim_params: the pipeline is chosen by create_sim")
        sim.params = params

    def get_version(self) -> Version:
        version = Version()
        version.major = 1
        return version

    def get_env_count(self, sim: Sim, /) -> int:
        return len(sim.envs)

    def get_sim_actor_count(self, sim: Sim, /) -> int:
        return len(sim.actors)

    def get_sim_dof_count(self, sim: Sim, /) -> int:
        return sum(len(a.asset.dofs) for a in sim.actors)

    def get_sim_rigid_body_count(self, sim: Sim, /) -> int:
        return sum(len(a.asset.bodies) for a in sim.actors)

    def get_sim_force_sensor_count(self, sim: Sim, /) -> int:
        return sum(len(a.asset.sensors) for a in sim.actors)

    # -- assets ------------------------------------------------------------------------------------------------
    def load_asset(self, sim: Sim, rootpath: str, filename: str, options: Optional[AssetOptions] = None) -> Asset:
        sim.building("load_asset")
        return AssetState(sim, LoadedAsset(os.path.join(rootpath, filename), options or AssetOptions()))

    def get_asset_dof_count(self, asset: Asset, /) -> int:
        return len(asset.loaded.dofs)

    def get_asset_dof_names(self, asset: Asset, /) -> List[str]:
        return list(asset.loaded.dofs)

    def get_asset_dof_properties(self, asset: Asset, /) -> np.ndarray:
        return asset.loaded.dof_props.copy()

    def get_asset_rigid_body_count(self, asset: Asset, /) -> int:
        return len(asset.loaded.bodies)

    def get_asset_rigid_body_names(self, asset: Asset, /) -> List[str]:
        return list(asset.loaded.bodies)

    def get_asset_rigid_shape_count(self, asset: Asset, /) -> int:
        return len(asset.loaded.shape_props)

    def find_asset_rigid_body_index(self, asset: Asset, name: str, /) -> int:
        return _find(asset.loaded.bodies, name)

    def get_asset_rigid_shape_properties(self, asset: Asset, /) -> List[RigidShapeProperties]:
        return [p._copy() for p in asset.loaded.shape_props]

    def set_asset_rigid_shape_properties(self, asset: Asset, props: List[RigidShapeProperties], /) -> bool:
        _same_length("set_asset_rigid_shape_properties", props, asset.loaded.shape_props)
        asset.loaded.shape_props = props
        return True

    def get_asset_tendon_count(self, asset: Asset, /) -> int:
        return len(asset.loaded.tendon_props)

    def get_asset_tendon_properties(self, asset: Asset, /) -> List[TendonProperties]:
        return [p._copy() for p in asset.loaded.tendon_props]

    def set_asset_tendon_properties(self, asset: Asset, props: List[TendonProperties], /) -> bool:
        _same_length("set_asset_tendon_properties", props, asset.loaded.tendon_props)
        asset.loaded.tendon_props = props
        return True

    def create_asset_force_sensor(
        self, asset: Asset, body_idx: int, local_pose: Transform, props: Optional[ForceSensorProperties] = None
    ) -> int:
        if asset.loaded.in_use:
            raise RuntimeError("create_asset_force_sensor after create_actor: actors have their asset's first sensors")
        if not 0 <= body_idx < len(asset.loaded.bodies):
            return -1
        asset.loaded.sensors.append((body_idx, local_pose, bool(props and props.use_world_frame)))
        return len(asset.loaded.sensors) - 1

    # -- environments and actors -------------------------------------------------------------------------------
    def create_env(self, sim: Sim, lower: Vec3, upper: Vec3, num_per_row: int, /) -> Env:
        sim.building("create_env")
        if num_per_row < 1:
            raise RuntimeError("create_env: %d envs in a row" % num_per_row)
        if any(env.aggregate is not None for env in sim.envs):
            raise RuntimeError("create_env between begin_aggregate and end_aggregate")
        sim.envs.append(EnvState(sim))
        return sim.envs[-1]

    def begin_aggregate(self, env: Env, max_bodies: int, max_shapes: int, self_collisions: bool, /) -> bool:
        if env.aggregate is not None:
            raise RuntimeError("begin_aggregate twice without end_aggregate")
        env.aggregate = [max_bodies, max_shapes]
        return True

    def end_aggregate(self, env: Env, /) -> bool:
        if env.aggregate is None:
            raise RuntimeError("end_aggregate without begin_aggregate")
        env.aggregate = None
        return True

    def create_actor(
        self,
        env: Env,
        asset: Asset,
        pose: Transform,
        name: Optional[str] = None,
        group: int = -1,
        filter: int = -1,  # noqa: A002
        segmentationId: int = 0,  # noqa: N803
    ) -> int:
        sim = env.sim
        sim.building("create_actor")
        if asset.sim is not sim:
            raise RuntimeError("create_actor: the asset was loaded for another simulation")
        if sim.envs[-1] is not env:
            raise RuntimeError("create_actor: an env takes no more actors once the next one was created")
        loaded = asset.loaded
        if env.aggregate is not None:
            env.aggregate[0] -= len(loaded.bodies)
            env.aggregate[1] -= len(loaded.shape_props)
            if min(env.aggregate) < 0:
                raise RuntimeError("create_actor: more bodies or shapes than begin_aggregate was told")
        actor = ActorRecord(loaded, pose, name or "")
        actor.index, actor.env_body = len(sim.actors), env.num_bodies
        actor.first_dof, actor.first_body = self.get_sim_dof_count(sim), self.get_sim_rigid_body_count(sim)
        loaded.in_use = True
        sim.actors.append(actor)
        env.actors.append(actor)
        return len(env.actors) - 1

    def get_actor_index(self, env: Env, actor: int, domain: IndexDomain, /) -> int:
        return env.actor(actor).index if int(domain) == DOMAIN_SIM else actor

    def get_actor_dof_names(self, env: Env, actor: int, /) -> List[str]:
        return list(env.actor(actor).asset.dofs)

    def get_actor_rigid_body_names(self, env: Env, actor: int, /) -> List[str]:
        return list(env.actor(actor).asset.bodies)

    def find_actor_rigid_body_handle(self, env: Env, actor: int, name: str, /) -> int:
        index = _find(env.actor(actor).asset.bodies, name)
        return index if index == INVALID_HANDLE else env.actor(actor).env_body + index

    def find_actor_rigid_body_index(self, env: Env, actor: int, name: str, domain: IndexDomain, /) -> int:
        record, index = env.actor(actor), _find(env.actor(actor).asset.bodies, name)
        if index == INVALID_HANDLE:
            return index
        return index + {DOMAIN_SIM: record.first_body, DOMAIN_ENV: record.env_body}.get(int(domain), 0)

    def get_actor_dof_properties(self, env: Env, actor: int, /) -> np.ndarray:
        return env.actor(actor).dof_props.copy()

    def set_actor_dof_properties(self, env: Env, actor: int, props: np.ndarray, /) -> bool:
        record = env.actor(actor)
        if props.dtype != DOF_DTYPE or props.shape != record.dof_props.shape:
            raise RuntimeError("set_actor_dof_properties takes the array of get_actor_dof_properties, changed")
        record.dof_props[:] = props
        return True

    def get_actor_rigid_body_properties(self, env: Env, actor: int, /) -> List[RigidBodyProperties]:
        return [p._copy() for p in env.actor(actor).body_props]

    def set_actor_rigid_body_properties(
        self,
        env: Env,
        actorHandle: int,  # noqa: N803
        props: List[RigidBodyProperties],
        recomputeInertia: bool = False,  # noqa: N803
    ) -> bool:
        record, sim = env.actor(actorHandle), env.sim
        _same_length("set_actor_rigid_body_properties", props, record.body_props)
        moved = any(not np.array_equal(a.com._array(), b.com._array()) for a, b in zip(props, record.body_props))
        if moved and sim.world is not None and sim.params.use_gpu_pipeline:
            raise RuntimeError("set_actor_rigid_body_properties: the GPU pipeline cannot move a centre of mass")
        if recomputeInertia:
            for new, old in zip(props, record.body_props):
                _scale_inertia(new, new.mass / old.mass if old.mass > 0 else 1.0)
        record.body_props = props
        if sim.world is not None:
            sim.world.read_properties()
        return True

    def get_actor_rigid_shape_properties(self, env: Env, actor: int, /) -> List[RigidShapeProperties]:
        return [p._copy() for p in env.actor(actor).shape_props]

    def set_actor_rigid_shape_properties(self, env: Env, actor: int, props: List[RigidShapeProperties], /) -> bool:
        record = env.actor(actor)
        _same_length("set_actor_rigid_shape_properties", props, record.shape_props)
        record.shape_props = props
        return True

    def enable_actor_dof_force_sensors(self, env: Env, actor: int, /) -> bool:
        env.sim.building("enable_actor_dof_force_sensors")
        env.actor(actor).dof_force_sensors = True
        return True

    def create_rigid_body_attractor(self, env: Env, props: AttractorProperties, /) -> int:
        env.sim.building("create_rigid_body_attractor")
        if not 0 <= props.rigid_handle < env.num_bodies:
            raise RuntimeError("create_rigid_body_attractor: no body has the handle %d" % props.rigid_handle)
        env.attractors.append(props)
        return len(env.attractors) - 1


def _find(names: List[str], name: str) -> int:
    return names.index(name) if name in names else INVALID_HANDLE


def _same_length(call: str, new: List[Any], old: List[Any]) -> None:
    if len(new) != len(old):
        raise RuntimeError("%s: %d given, there are %d" % (call, len(new), len(old)))


def _scale_inertia(props: RigidBodyProperties, factor: float) -> None:
    for row in (props.inertia.x, props.inertia.y, props.inertia.z):
        row.x, row.y, row.z = row.x * factor, row.y * factor, row.z * factor

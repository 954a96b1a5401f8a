"""Gym's calls that run a prepared simulation: simulate, and the tensor API with its rules."""

from __future__ import annotations

from typing import Any, Optional

import numpy as np

from isaacgym._asset import matrices
from isaacgym._binding import check_all
from isaacgym._types import CoordinateSpace, Sim, Tensor
from isaacgym._world import World


@check_all
class TensorCalls:
    """The half of Gym that runs."""

    def prepare_sim(self, sim: Sim, /) -> bool:
        sim.building("prepare_sim")
        if not sim.actors:
            raise RuntimeError("prepare_sim: there are no actors")
        sim.world = World(sim.actors, sim.has_ground)
        return True

    def simulate(self, sim: Sim, /) -> None:
        sim.prepared("simulate").simulate(sim.params)
        sim.time += sim.params.dt
        sim.fetched = sim.params.use_gpu_pipeline
        sim.set_since.clear()

    def fetch_results(self, sim: Sim, wait: bool, /) -> None:
        sim.prepared("fetch_results")
        sim.fetched = True

    def get_sim_time(self, sim: Sim, /) -> float:
        return sim.time

    # -- reading -----------------------------------------------------------------------------------------------
    def acquire_actor_root_state_tensor(self, sim: Sim, /) -> Tensor:
        return _acquire(sim, "root")

    def acquire_dof_state_tensor(self, sim: Sim, /) -> Tensor:
        return _acquire(sim, "dof")

    def acquire_rigid_body_state_tensor(self, sim: Sim, /) -> Tensor:
        return _acquire(sim, "body")

    def acquire_net_contact_force_tensor(self, sim: Sim, /) -> Tensor:
        return _acquire(sim, "contact")

    def acquire_force_sensor_tensor(self, sim: Sim, /) -> Tensor:
        return _acquire(sim, "sensor")

    def acquire_dof_force_tensor(self, sim: Sim, /) -> Tensor:
        return _acquire(sim, "dof_force")

    def acquire_jacobian_tensor(self, sim: Sim, actor: str, /) -> Tensor:
        return _acquire(sim, "jacobian", actor)

    def acquire_mass_matrix_tensor(self, sim: Sim, actor: str, /) -> Tensor:
        return _acquire(sim, "mass_matrix", actor)

    def refresh_actor_root_state_tensor(self, sim: Sim, /) -> bool:
        return _refresh(sim, "root")

    def refresh_dof_state_tensor(self, sim: Sim, /) -> bool:
        return _refresh(sim, "dof")

    def refresh_rigid_body_state_tensor(self, sim: Sim, /) -> bool:
        return _refresh(sim, "body")

    def refresh_net_contact_force_tensor(self, sim: Sim, /) -> bool:
        return _refresh(sim, "contact")

    def refresh_force_sensor_tensor(self, sim: Sim, /) -> bool:
        return _refresh(sim, "sensor")

    def refresh_dof_force_tensor(self, sim: Sim, /) -> bool:
        return _refresh(sim, "dof_force")

    def refresh_jacobian_tensors(self, sim: Sim, /) -> bool:
        return _refresh(sim, "jacobian")

    def refresh_mass_matrix_tensors(self, sim: Sim, /) -> bool:
        return _refresh(sim, "mass_matrix")

    # -- writing -----------------------------------------------------------------------------------------------
    def set_actor_root_state_tensor(self, sim: Sim, states: Tensor, /) -> bool:
        return _set_roots(sim, states, None)

    def set_actor_root_state_tensor_indexed(self, sim: Sim, states: Tensor, actors: Tensor, num_actors: int, /) -> bool:
        return _set_roots(sim, states, _actors(sim, "root", actors, num_actors))

    def set_dof_state_tensor(self, sim: Sim, states: Tensor, /) -> bool:
        return _set_dofs(sim, "dof", states, None)

    def set_dof_state_tensor_indexed(self, sim: Sim, states: Tensor, actors: Tensor, num_actors: int, /) -> bool:
        return _set_dofs(sim, "dof", states, _actors(sim, "dof", actors, num_actors))

    def set_dof_position_target_tensor(self, sim: Sim, targets: Tensor, /) -> bool:
        return _set_dofs(sim, "pos_target", targets, None)

    def set_dof_position_target_tensor_indexed(
        self, sim: Sim, targets: Tensor, actors: Tensor, num_actors: int, /
    ) -> bool:
        return _set_dofs(sim, "pos_target", targets, _actors(sim, "pos_target", actors, num_actors))

    def set_dof_velocity_target_tensor(self, sim: Sim, targets: Tensor, /) -> bool:
        return _set_dofs(sim, "vel_target", targets, None)

    def set_dof_actuation_force_tensor(self, sim: Sim, forces: Tensor, /) -> bool:
        return _set_dofs(sim, "effort", forces, None)

    def apply_rigid_body_force_tensors(
        self,
        sim: Sim,
        forceTensor: Optional[Tensor] = None,  # noqa: N803
        torqueTensor: Optional[Tensor] = None,  # noqa: N803
        space: CoordinateSpace = CoordinateSpace.ENV_SPACE,  # noqa: B008
    ) -> bool:
        world = sim.prepared("apply_rigid_body_force_tensors")
        for name, tensor in (("force", forceTensor), ("torque", torqueTensor)):
            if tensor is None:
                continue
            values = _read(sim, name, tensor, world.force.shape)
            _finite(name, values)
            if space == CoordinateSpace.LOCAL_SPACE:
                values = np.einsum("bij,bj->bi", matrices(world.body[:, [6, 3, 4, 5]].astype(float)), values)
            getattr(world, name)[:] = values
        return True


def _acquire(sim: Any, name: str, actor: str = "") -> Tensor:
    import torch

    sim.prepared("acquiring the %s tensor" % name)
    values = _values(sim, name, actor)
    if not len(values):
        raise RuntimeError("acquiring the %s tensor of a simulation that has none" % name)
    if (name, actor) not in sim.buffers:
        sim.buffers[name, actor] = torch.zeros(values.shape, dtype=torch.float32, device=sim.device)
    tensor = Tensor()
    tensor._buffer = sim.buffers[name, actor]
    tensor.data_address, tensor.shape, tensor._dtype = tensor._buffer.data_ptr(), tuple(values.shape), "torch.float32"
    tensor.device = tensor._buffer.device.index or 0 if tensor._buffer.is_cuda else -1
    return tensor


def _refresh(sim: Any, name: str) -> bool:
    import torch

    sim.prepared("refreshing the %s tensor" % name)
    if not sim.fetched:
        raise RuntimeError("refreshing the %s tensor before fetch_results, which the CPU pipeline needs" % name)
    acquired = [(actor, buffer) for (key, actor), buffer in sim.buffers.items() if key == name]
    if not acquired:
        raise RuntimeError("refreshing the %s tensor before it was acquired" % name)
    for actor, buffer in acquired:
        buffer.copy_(torch.from_numpy(_values(sim, name, actor)))
    return True


def _values(sim: Any, name: str, actor: str) -> Any:
    """What a tensor holds if refreshed now."""
    world = sim.world
    if name in ("jacobian", "mass_matrix"):
        named = [a for a in sim.actors if a.name == actor]
        if not named or len({id(a.asset) for a in named}) > 1 or not named[0].fixed or not named[0].asset.dofs:
            raise RuntimeError("the %s tensor is for a name of actors of one asset, jointed and fixed" % name)
        return np.stack([getattr(world, name)(a) for a in named])
    if name == "dof_force":
        sensed = np.array([a.dof_force_sensors for a in sim.actors], bool)[world.dof_actor]
        return np.where(sensed, world.dof_force, np.float32(0))
    return getattr(world, name)


def _read(sim: Any, name: str, tensor: Tensor, shape: Any, dtype: str = "torch.float32") -> Any:
    """The values of an unwrapped tensor now, as a fresh array of ``shape``; the rules on its form."""
    if tensor._read is None:
        raise RuntimeError("the %s tensor must come from gymtorch.unwrap_tensor" % name)
    if tensor._dtype != dtype:
        raise RuntimeError("the %s tensor must be %s, not %s" % (name, dtype, tensor._dtype))
    values = tensor._read()
    if values.device.type != sim.device.split(":")[0]:
        raise RuntimeError("the %s tensor is on %s, the simulation on %s" % (name, values.device, sim.device))
    if values.numel() != int(np.prod(shape)):
        raise RuntimeError("the %s tensor has shape %s, expected %s" % (name, tuple(values.shape), tuple(shape)))
    return values.detach().cpu().numpy().copy().reshape(shape)


def _actors(sim: Any, name: str, tensor: Tensor, count: int) -> Any:
    """(A,) bool of the actors an indexed setter names; the rules on calling it."""
    world = sim.prepared("setting the %s tensor" % name)
    if name in sim.set_since:
        raise RuntimeError("the indexed setter of the %s tensor was called twice between two simulates" % name)
    if tensor.ndim != 1 or tensor.shape[0] != count:
        raise RuntimeError("the actor indices of the %s tensor: %d given, shape %s" % (name, count, tensor.shape))
    index = _read(sim, "actor index", tensor, (count,), "torch.int32")
    if len(index) and not (0 <= index.min() and index.max() < len(world.root)):
        raise RuntimeError("an actor index is out of range: there are %d actors" % len(world.root))
    if len(set(index.tolist())) != len(index):
        raise RuntimeError("an actor index of the %s tensor stands twice" % name)
    if name == "root" and world.fixed[index].any():
        raise RuntimeError("the root of an actor with a fixed base cannot be set")
    if name != "root" and not set(index.tolist()) <= set(world.dof_actor.tolist()):
        raise RuntimeError("the %s tensor was set for an actor without joints" % name)
    sim.set_since.add(name)
    chosen = np.zeros(len(world.root), bool)
    chosen[index] = True
    return chosen


def _set_roots(sim: Any, tensor: Tensor, chosen: Any) -> bool:
    world = sim.prepared("setting the root tensor")
    values = _read(sim, "root", tensor, world.root.shape)
    chosen = ~world.fixed if chosen is None else chosen
    _finite("root", values[chosen])
    if (np.abs(np.linalg.norm(values[chosen, 3:7], axis=1) - 1) > 1e-2).any():
        raise RuntimeError("a quaternion of the root tensor is not of unit length")
    world.root[chosen] = values[chosen]
    return True


def _set_dofs(sim: Any, name: str, tensor: Tensor, chosen: Any) -> bool:
    world = sim.prepared("setting the %s tensor" % name)
    state = getattr(world, name)
    values = _read(sim, name, tensor, state.shape)
    rows = np.ones(len(state), bool) if chosen is None else chosen[world.dof_actor]
    _finite(name, values[rows])
    state[rows] = values[rows]
    return True


def _finite(name: str, values: Any) -> None:
    if not np.isfinite(values).all():
        raise RuntimeError("the %s tensor holds NaN or infinity, PhysX does not survive that" % name)

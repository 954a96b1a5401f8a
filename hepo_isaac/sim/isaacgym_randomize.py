"""Physical parameters of single environments on Isaac Gym, which takes them actor by actor through the host.

Slow, as in Isaac Gym's own domain randomisation: meant for now and then, not for every step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, List, Sequence

from torch import Tensor

if TYPE_CHECKING:
    from hepo_isaac.sim.isaacgym import IsaacGymSimulation

FIELDS = ("drive_stiffness", "drive_damping", "dof_damping", "dof_armature", "friction")
# Field of Isaac Gym's record, and the modes of drives it may be set for.
_DRIVEN, _PASSIVE = ("position", "velocity"), ("effort", "none")
_PROPERTIES = {
    "drive_stiffness": ("stiffness", ("position",)),
    "drive_damping": ("damping", _DRIVEN),
    "dof_damping": ("damping", _PASSIVE),
    "dof_armature": ("armature", _DRIVEN + _PASSIVE),
}


def randomize(sim: IsaacGymSimulation, field: str, mask: Tensor, values: Tensor, names: Sequence[str]) -> None:
    """Simulation.randomize on Isaac Gym.

    Raises:
        ValueError: a field that PhysX takes for all environments at once (gravity), before the simulation starts
            (body_mass) or not at all, a name that it cannot be set for, or a shape that does not fit.
    """
    if field not in FIELDS:
        raise ValueError(
            "cannot randomise %r on isaacgym, where masses are fixed once the simulation has started and gravity is the"
            " same in all environments; it can: %s" % (field, ", ".join(FIELDS))
        )
    valid = _valid_names(sim, field)
    chosen = list(names) or valid
    unknown = [name for name in chosen if name not in valid]
    if unknown:
        raise ValueError("%s cannot be set for %s; it can for: %s" % (field, ", ".join(unknown), ", ".join(valid)))
    shape = (sim.num_envs, len(chosen))
    if tuple(values.shape) != shape:
        raise ValueError("values of %s must have shape %s, got %s" % (field, shape, tuple(values.shape)))
    rows = mask.nonzero().flatten().tolist()  # host read: Isaac Gym's properties live on the host
    wanted = values.detach().cpu().tolist()  # host read: as above
    for k, actor in enumerate(sim.scene.actors):
        mine = [(i, name.split("/", 1)[1]) for i, name in enumerate(chosen) if name.split("/", 1)[0] == actor.spec.name]
        for row in rows if mine else ():
            env, handles = sim.scene.envs[row]
            if field == "friction":
                _set_friction(sim, env, handles[k], wanted[row][mine[0][0]])
                continue
            props = sim.gym.get_actor_dof_properties(env, handles[k])
            for i, joint in mine:
                props[_PROPERTIES[field][0]][actor.joints[joint]] = wanted[row][i]
            sim.gym.set_actor_dof_properties(env, handles[k], props)


def _valid_names(sim: IsaacGymSimulation, field: str) -> List[str]:
    if field == "friction":  # one value for all shapes of an actor, named by its root body
        return ["%s/%s" % (a.spec.name, a.ours.bodies[0]) for a in sim.scene.actors if a.num_shapes]
    return [name for name, mode in zip(sim.dof_names, sim.scene.dof_modes) if mode in _PROPERTIES[field][1]]


def _set_friction(sim: IsaacGymSimulation, env: object, handle: int, friction: float) -> None:
    shapes = sim.gym.get_actor_rigid_shape_properties(env, handle)  # type: ignore[arg-type, unused-ignore]
    for shape in shapes:
        shape.friction = friction
    sim.gym.set_actor_rigid_shape_properties(env, handle, shapes)  # type: ignore[arg-type, unused-ignore]

"""Physical parameters of single environments on Isaac Gym, which takes them actor by actor through the host.

Slow, as in Isaac Gym's own domain randomisation: meant for now and then, not for every step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, List, Sequence, Tuple

import torch
from isaacgym import gymapi
from torch import Tensor

if TYPE_CHECKING:
    from hepo_isaac.sim.isaacgym.scene import GymActor, GymScene

FIELDS = ("body_mass", "friction", "dof_damping", "dof_armature", "drive_stiffness", "drive_damping")
# Field of Isaac Gym's record of a joint, and the modes of the drives that have it.
_DRIVEN, _PASSIVE = ("position", "velocity"), ("effort", "none")
_OF_JOINTS = {
    "drive_stiffness": ("stiffness", ("position",)),
    "drive_damping": ("damping", _DRIVEN),
    "dof_damping": ("damping", _PASSIVE),
    "dof_armature": ("armature", _DRIVEN + _PASSIVE),
}


class PhysicalParameters:
    """What ``randomize`` may change, and what it has changed.

    Args:
        scene: a built scene.  dof_names: the served joints.
    """

    def __init__(self, scene: GymScene, dof_names: Sequence[str]) -> None:
        self._scene, self._dof_names = scene, list(dof_names)
        self._num_envs = len(scene.envs)
        self._changed: Dict[str, Tensor] = {}  # field -> (N, names) values in force, on the host
        self._defaults: Dict[str, Tensor] = {}  # field -> (names,) the scene's

    def names(self, field: str) -> List[str]:
        """The bodies or joints that a field can be set for.

        Raises:
            ValueError: PhysX has no such parameter for single environments.
        """
        if field not in FIELDS:
            raise ValueError(
                "cannot randomise %r on isaacgym, where gravity is the same in all environments; it can: %s"
                % (field, ", ".join(FIELDS))
            )
        actors = self._scene.actors
        if field == "friction":  # one value for all shapes of an actor, named by its root body
            return ["%s/%s" % (a.spec.name, a.ours.bodies[0]) for a in actors if a.num_shapes]
        if field == "body_mass":
            heavy = [(a, link.name) for a in actors for link in a.ours.links if link.mass > 0]
            return ["%s/%s" % (a.spec.name, name) for a, name in heavy if name in a.bodies]
        modes = _OF_JOINTS[field][1]
        return [name for name, mode in zip(self._dof_names, self._scene.dof_modes) if mode in modes]

    def set(self, field: str, mask: Tensor, values: Tensor, names: Sequence[str] = ()) -> None:
        """Simulation.randomize; ValueError for a name it cannot be set for or a shape that does not fit."""
        valid = self.names(field)
        chosen = list(names) or valid
        unknown = [name for name in chosen if name not in valid]
        if unknown:
            raise ValueError("%s cannot be set for %s; it can for: %s" % (field, ", ".join(unknown), ", ".join(valid)))
        shape = (self._num_envs, len(chosen))
        if tuple(values.shape) != shape:
            raise ValueError("values of %s must have shape %s, got %s" % (field, shape, tuple(values.shape)))
        table = self._table(field)
        columns = [valid.index(name) for name in chosen]
        given, selected = values.detach().to("cpu", torch.float64), mask.cpu()  # host read: Isaac Gym keeps them there
        table[:, columns] = torch.where(selected[:, None], given, table[:, columns])
        self._write(field, selected)

    def _table(self, field: str) -> Tensor:
        """(N, names) values in force."""
        if field not in self._defaults:  # read before anything is written
            found = [self._default(field, name) for name in self.names(field)]
            self._defaults[field] = torch.tensor(found, dtype=torch.float64)
        if field not in self._changed:
            self._changed[field] = self._defaults[field].expand(self._num_envs, -1).clone()
        return self._changed[field]

    def _default(self, field: str, name: str) -> float:
        actor, part = self._find(name)
        gym, (env, handles) = self._scene.gym, self._scene.envs[0]
        handle = handles[self._scene.actors.index(actor)]
        if field == "friction":
            return float(gym.get_actor_rigid_shape_properties(env, handle)[0].friction)
        if field == "body_mass":
            return float(gym.get_actor_rigid_body_properties(env, handle)[actor.bodies[part]].mass)
        return float(actor.props[_OF_JOINTS[field][0]][actor.joints[part]])

    def _find(self, name: str) -> Tuple[GymActor, str]:
        owner, part = name.split("/", 1)
        return next(actor for actor in self._scene.actors if actor.spec.name == owner), part

    def _write(self, field: str, selected: Tensor) -> None:
        """Hand the table's rows to Isaac Gym, one actor after the other."""
        rows = [row for row, chosen in enumerate(selected.tolist()) if chosen]  # host read: it is on the host
        table = self._table(field).tolist()  # host read: it is on the host, as Isaac Gym's own properties are
        for k, actor in enumerate(self._scene.actors):
            found = [(i, self._find(name)) for i, name in enumerate(self.names(field))]
            mine = [(i, part) for i, (owner, part) in found if owner is actor]
            for row in rows if mine else ():
                env, handles = self._scene.envs[row]
                self._write_actor(field, env, handles[k], actor, [(part, table[row][i]) for i, part in mine])

    def _write_actor(
        self, field: str, env: Any, handle: int, actor: GymActor, values: Sequence[Tuple[str, float]]
    ) -> None:
        gym = self._scene.gym
        if field == "friction":
            shapes = gym.get_actor_rigid_shape_properties(env, handle)
            for shape in shapes:
                shape.friction = values[0][1]
            gym.set_actor_rigid_shape_properties(env, handle, shapes)
        elif field == "body_mass":  # at constant shape: the inertia scales with the mass
            bodies = gym.get_actor_rigid_body_properties(env, handle)
            for part, mass in values:
                body = bodies[actor.bodies[part]]
                body.inertia, body.mass = _scaled(body.inertia, mass / body.mass), mass
            gym.set_actor_rigid_body_properties(env, handle, bodies, False)
        else:
            joints = gym.get_actor_dof_properties(env, handle)
            for part, value in values:
                joints[_OF_JOINTS[field][0]][actor.joints[part]] = value
            gym.set_actor_dof_properties(env, handle, joints)

    def get_state(self) -> Dict[str, Tensor]:
        """Everything that was changed."""
        return {field: table.clone() for field, table in self._changed.items()}

    def load_state(self, state: Dict[str, Tensor]) -> None:
        """Restore what get_state returned; what was changed here but not there goes back to the scene's."""
        everyone = torch.ones(self._num_envs, dtype=torch.bool)
        for field in sorted(set(state) | set(self._changed)):
            self._changed.pop(field, None)
            table = self._table(field)
            table.copy_(state.get(field, table))
            self._write(field, everyone)


def _scaled(inertia: gymapi.Mat33, factor: float) -> gymapi.Mat33:
    out = gymapi.Mat33()
    out.x, out.y, out.z = (
        gymapi.Vec3(factor * row.x, factor * row.y, factor * row.z) for row in (inertia.x, inertia.y, inertia.z)
    )
    return out

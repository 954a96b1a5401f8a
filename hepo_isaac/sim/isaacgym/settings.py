"""What a task's file says about Isaac Gym (``task.physics.options.isaacgym``), checked, and what follows from a scene.

Nothing here imports isaacgym.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from typing import Any, Dict, Mapping, Optional, Tuple

from hepo_isaac.sim.spec import ActorSpec, SceneSpec

GROUND_GROUP = GROUND_MASK = 1  # as spec.ActorSpec says


@dataclass(frozen=True)
class NvidiaFile:
    """NVIDIA's own file of an actor.

    file: below the folder of ``sim.assets``.  asset: fields of gymapi.AssetOptions on top of the actor's.
    joints, bodies: our names -> theirs, where they differ.
    others: stiffness, damping, armature of joints that ours does not have; they are not driven.
    """

    file: str
    asset: Mapping[str, Any] = field(default_factory=dict)
    joints: Mapping[str, str] = field(default_factory=dict)
    bodies: Mapping[str, str] = field(default_factory=dict)
    others: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class ActorSettings:
    """How one actor is built.

    asset: fields of gymapi.AssetOptions.  friction, restitution: of its shapes; None: the ActorSpec's, or else
    SceneSpec.contact's, and 0.
    tendons: fields of gymapi.TendonProperties.  attractors: stiffness N/m and damping N s/m of what holds its
    <connect> points.  dof_force_sensors: whether dof_force is measured.  nvidia: see NvidiaFile.
    """

    asset: Mapping[str, Any] = field(default_factory=dict)
    friction: Optional[float] = None
    restitution: Optional[float] = None
    tendons: Mapping[str, Any] = field(default_factory=dict)
    attractors: Mapping[str, float] = field(default_factory=dict)
    dof_force_sensors: bool = True
    nvidia: Optional[NvidiaFile] = None


@dataclass(frozen=True)
class Settings:
    """The whole block.

    simulates: calls of gym.simulate in a control step, each control_dt / simulates long and cut in ``substeps``.
    env_spacing: half the size of an environment's cell, m.  physx, plane: fields of gymapi.PhysXParams and PlaneParams.
    actors: name, or regular expression that matches all of it, -> ActorSettings.
    """

    simulates: int = 1
    substeps: int = 2
    env_spacing: float = 1.5
    physx: Mapping[str, Any] = field(default_factory=dict)
    plane: Mapping[str, Any] = field(default_factory=dict)
    actors: Mapping[str, ActorSettings] = field(default_factory=dict)

    def actor(self, name: str) -> ActorSettings:
        """Settings of an actor; the defaults where none are given."""
        for pattern, settings in self.actors.items():
            if re.fullmatch(pattern, name):
                return settings
        return ActorSettings()


def read_settings(spec: SceneSpec) -> Settings:
    """The settings of a scene.

    Raises:
        ValueError: an unknown key, or an actor that the scene does not have; the message names it.
    """
    given = dict(spec.options.get("isaacgym", {}))
    actors = {}
    for name, block in given.pop("actors", {}).items():
        if not any(re.fullmatch(name, actor.name) for actor in spec.actors):
            known = ", ".join(actor.name for actor in spec.actors)
            raise ValueError("options.isaacgym.actors names %r; the scene's actors are: %s" % (name, known))
        where, values = "options.isaacgym.actors.%s" % name, dict(block)
        nvidia = values.pop("nvidia", None)
        _check_keys(where, values, ActorSettings)
        if nvidia is not None:
            _check_keys(where + ".nvidia", nvidia, NvidiaFile)
            nvidia = NvidiaFile(**nvidia)
        actors[name] = ActorSettings(nvidia=nvidia, **values)
    _check_keys("options.isaacgym", given, Settings)
    return Settings(actors=actors, **given)


def _check_keys(where: str, values: Mapping[str, Any], kind: Any) -> None:
    known = [f.name for f in fields(kind)]
    for key in values:
        if key not in known:
            raise ValueError("%s.%s is no setting; there are: %s" % (where, key, ", ".join(known)))


def may_touch(one: Tuple[int, int], two: Tuple[int, int]) -> bool:
    """Whether shapes of these (group, mask) may touch: either one's group meets the other's mask."""
    return bool(one[0] & two[1] or two[0] & one[1])


def collision_filters(
    spec: SceneSpec, shapes: Mapping[str, int], joints: Mapping[str, int], own_filter: Mapping[str, bool]
) -> Dict[str, int]:
    """Isaac Gym's filter of each actor: two shapes touch unless their filters share a bit.

    Args:
        shapes, joints: actor -> number of its shapes that can touch anything, and of its joints.
        own_filter: actor -> whether its file says which of its shapes may touch each other (filter -1).

    Raises:
        ValueError: the groups and masks cannot be had with filters: some actor is to touch itself and to pass through
            another one, or to pass through the ground.
    """
    members = [actor for actor in spec.actors if shapes[actor.name]]
    for actor in members:
        _check_ground(spec, actor, joints)
    apart = [
        (one, two)
        for i, one in enumerate(members)
        for two in members[i + 1 :]
        if _moves(one, joints) or _moves(two, joints)
        if not may_touch(_bits(one), _bits(two))
    ]
    filters = {actor.name: 0 for actor in spec.actors}
    for bit, (one, two) in enumerate(apart):
        for actor, other in ((one, two), (two, one)):
            if own_filter[actor.name] or (joints[actor.name] and may_touch(_bits(actor), _bits(actor))):
                raise ValueError(
                    "actor %r is to touch itself but not %r, which Isaac Gym's collision filters cannot express: let"
                    " them touch, or switch its self-collision off" % (actor.name, other.name)
                )
            filters[actor.name] |= 1 << bit
    bits = len(apart)
    for actor in members:
        if own_filter[actor.name]:
            filters[actor.name] = -1
        elif joints[actor.name] and not filters[actor.name] and not may_touch(_bits(actor), _bits(actor)):
            filters[actor.name] = 1 << bits
            bits += 1
    if bits > 31:
        raise ValueError("%d collisions are filtered out in this scene; Isaac Gym's filters have 31 bits" % bits)
    return filters


def _bits(actor: ActorSpec) -> Tuple[int, int]:
    return actor.collision_group, actor.collision_mask


def _moves(actor: ActorSpec, joints: Mapping[str, int]) -> bool:
    return not actor.fixed or joints[actor.name] > 0


def _check_ground(spec: SceneSpec, actor: ActorSpec, joints: Mapping[str, int]) -> None:
    if spec.ground_plane and _moves(actor, joints) and not may_touch(_bits(actor), (GROUND_GROUP, GROUND_MASK)):
        raise ValueError(
            "actor %r is to pass through the ground, which Isaac Gym cannot do: give it group 1 or take the ground"
            " plane out" % actor.name
        )

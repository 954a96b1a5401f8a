"""The one environment of all dexterous tasks: scene, actions, resets, observations and rewards of any TaskRecord."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import Any, Callable, ClassVar, Dict, List, Mapping, NamedTuple, Tuple, Type

import numpy as np
import torch
from torch import Tensor

from hepo_isaac.envs.interface import ABSOLUTE, ActionGroup, ObsSlice, columns
from hepo_isaac.envs.math import euler_angles, quat_conjugate, quat_mul, quat_of_euler, rotate_many
from hepo_isaac.envs.streams import Streams
from hepo_isaac.envs.task import Rewards, Task
from hepo_isaac.errors import UserError, unknown
from hepo_isaac.sim.base import Simulation
from hepo_isaac.sim.spec import ActorSpec, ContactSpec, MarkerSpec, SceneSpec

from ..robots.in_hand import FORCE_SCALE, VELOCITY_SCALE, pen_rotation, random_rotation, rotation_angle
from ..robots.in_hand_observation import UNITS, Observation, Part
from .hand import ACTUATED, GROUPS, MEETS, PUSH, TWIST, Drag, hand_actor, offsets, served_bodies, tip_sensors
from .measures import FAMILIES, HASTY, MEASURES, BiDexState, Terms, holds, succeeded
from .record import SIDES, TaskRecord, Thing, sizes

STEP_OF_GOAL = math.radians(10.0)  # of a goal that advances, about its own y axis
HALF_TURN = (0.0, 1.0, 0.0, 0.0)  # about y: the other end of a pen


# Unit and meaning of what a record may observe, and of what only these tasks have.
MEANINGS = {
    **UNITS,
    "joint_force": ("N m", "of the drives"),
    "place_of_hand": ("m, rad", "position, and roll, pitch, yaw in [-pi, pi] of the mount, in the world"),
    "state": ("m, 1, m/s, rad/s", "position, quaternion xyzw and velocities, in the world"),
    "goal": ("m, 1", "position, quaternion xyzw, and object times conjugate of goal"),
    "place": ("m", "position of the goal, in the world"),
    "point": ("m", "in the world"),
    "pose": ("m, 1", "position and quaternion xyzw, in the world"),
    "zeros": ("1", "always 0, as published"),
}


class BiDex(Task):
    """See the module docstring; ``record`` says which task. cfg: the ``task`` group (cfg/task/_bidex.yaml).

    Instance attributes:
        goal: (N, K, 7) position m and quaternion xyzw of each object's goal; K is 0 where there are none.
        solved: (N,) bool, whether an episode had a success.  goals_reached: (N,) in the running episode.
        last_action: (N, A) clipped to [-1, 1]; 0 after a reset.  turn_on: (N,) bool, whose goals turn on next.
    """

    record: ClassVar[TaskRecord]

    @classmethod
    def chosen(cls, cfg: Mapping[str, Any]) -> TaskRecord:
        """The record, as published down to its defects if ``task.faithful`` asks for that."""
        return replace(cls.record, **cls.record.faithful) if cfg["faithful"] else cls.record

    @classmethod
    def scene(cls, cfg: Mapping[str, Any], engine: str) -> SceneSpec:
        record, physics = cls.chosen(cfg), cfg["physics"]
        sides = SIDES[: len(record.hands)]
        mine = [hand_actor(s, pose, bool(record.floating), cfg, engine) for s, pose in zip(sides, record.hands)]
        bodies = dict.fromkeys((*served_bodies(sides), *(p.body for p in record.points)))
        bodies.update(dict.fromkeys(body for body, _ in record.anchors))
        return SceneSpec(
            actors=(*mine, *(_thing(thing) for thing in record.things)),
            control_dt=float(physics["control_dt"]),
            substeps=int(physics["substeps"]),
            contact=ContactSpec(friction=record.friction, solref_steps=float(physics["solref_steps"])),
            body_states=tuple(bodies),
            force_sensors=tip_sensors(sides),
            ground_plane=record.ground,
            markers=tuple(MarkerSpec("goal_%s" % thing.name, thing.asset, opacity=0.35) for thing in record.wanted()),
            options=physics["options"],
        )

    def __init__(self, cfg: Mapping[str, Any], sim: Simulation, streams: Streams) -> None:
        self.chosen_record = self.chosen(cfg)
        super().__init__(cfg, sim, streams)
        record, n, device = self.chosen_record, sim.num_envs, sim.device
        if record.floating and not callable(getattr(sim, "apply_body_force", None)):
            said = "task=%s pushes its hands through apply_body_force, which %s lacks; choose one of its engines: %s"
            raise UserError(said % (record.name, type(sim).__name__, ", ".join(cfg["engines"])))
        self.sides = SIDES[: len(record.hands)]
        rate = 0.0 if sim.damps_links else float(cfg["physics"].get("base_drag", 0.0))
        self._drag = Drag(rate, sim.spec.control_dt, device)
        self._bind()
        self._start_roots = sim.root_state.clone()
        self._start_roots[..., 7:] = 0.0
        self._placed = self._start_roots[:, self._objects].clone()
        self._posture = torch.zeros(len(sim.dof_names), device=device)
        posed = [*((side, record.posture) for side in self.sides), *((t.name, t.joints) for t in record.things)]
        for name, start in {"%s/%s" % (actor, j): q for actor, joints in posed for j, q in joints.items()}.items():
            if name not in sim.dof_names:
                raise unknown("joint of task %s" % record.name, name, sim.dof_names)
            self._posture[sim.dof_index(name)] = start
        self.goal = torch.zeros(n, len(record.goals), 7, device=device)
        for k, goal in enumerate(record.goals):
            self.goal[:, k] = torch.tensor((*goal.position, *goal.quat), device=device)
        self.last_action = torch.zeros(n, self.num_actions, device=device)
        self._target, self._zero_vel = (torch.zeros(n, len(sim.dof_names), device=device) for _ in range(2))
        self._force, self._torque = (torch.zeros(n, len(sim.body_names), 3, device=device) for _ in range(2))
        self.turn_on, self.solved = (torch.zeros(n, dtype=torch.bool, device=device) for _ in range(2))
        self.goals_reached = torch.zeros(n, device=device)
        self._version = self._state_version = self._counted_version = -1
        self._kept: Dict[str, Tuple[Callable[[Any], Tensor], Tensor]] = {}
        self._reward_divisor = max(1, self.max_episode_length - (1 if len(record.hands) == 2 else 0))
        self._observe = BiDexObservation(self)
        for named in record.measured():
            if not MEASURES[named.measure](self.state()).shape[1]:
                raise UserError("task %s has nothing to take its measure %r of" % (record.name, named.measure))

    def _bind(self) -> None:
        """Where things are in the engine's tensors."""
        sim, record, device = self.sim, self.chosen_record, self.sim.device
        count = len(self.sides)
        self._columns = sim.dof_indices(["%s/%s" % (s, joint) for s in self.sides for joint in ACTUATED])
        self._lower, self._upper = sim.dof_lower[self._columns], sim.dof_upper[self._columns]
        self._forearms = slice(6 * count, 7 * count)
        # All points are one gather: fingertips and palm centres of the hands, then the task's own.
        rows = [*range(6 * count), *(sim.body_index(point.body) for point in record.points)]
        places = [*offsets(count), *(point.offset for point in record.points)]
        self._point_rows, self._offsets = torch.tensor(rows, device=device), torch.tensor(places, device=device)
        self.point_names = [point.name for point in record.points]
        self._objects = torch.tensor([sim.actor_index(thing.name) for thing in record.objects()], device=device)
        self._held = self._objects[: len(record.goals)]  # which have goals
        self._object_joints = slice(24 * count, len(sim.dof_names))
        self._anchors = torch.tensor([sim.body_index(b) for b, _ in record.anchors], dtype=torch.int64, device=device)
        self._places = torch.tensor([place for _, place in record.anchors], device=device).reshape(-1, 3)
        half = 0.5 * STEP_OF_GOAL
        self._goal_step = torch.tensor((0.0, math.sin(half), 0.0, math.cos(half)), device=device)
        self._half_turn = torch.tensor(HALF_TURN, device=device)
        self._mid, self._half = 0.5 * (self._upper + self._lower), 0.5 * (self._upper - self._lower)

    # -- actions and resets ------------------------------------------------------------------------------------
    def apply(self, actions: Tensor) -> None:
        self._turn_goals(self.turn_on)
        self._version = self._state_version = -1
        self.last_action.copy_(actions)
        n, count = len(actions), len(self.sides)
        each = actions.view(n, count, -1)
        self._target[:, self._columns] = self._mid + self._half * each[..., -20:].reshape(n, -1)
        self.sim.set_dof_target_pos(self._target)
        floating = self.chosen_record.floating
        if floating:
            force = (PUSH * floating[0]) * each[..., :3]
            torque = (TWIST * floating[1]) * each[..., 3:6]
            forearms = self.sim.body_state[:, self._forearms]
            self._force[:, self._forearms], self._torque[:, self._forearms] = self._drag.wrench(forearms, force, torque)
            self.sim.apply_body_force(self._force, self._torque)

    def _turn_goals(self, mask: Tensor) -> None:
        """Turn the goals of ``mask`` (N,): to one random rotation for all objects, or on by a step."""
        turns = {goal.turn for goal in self.chosen_record.goals} - {"fixed"}
        if not turns or not self.sim.may_select(mask):
            return
        if turns == {"random"}:
            u = 2.0 * self.streams.rand(2, mask=mask) - 1.0
            quat = random_rotation(u).unsqueeze(1).expand(-1, self.goal.shape[1], -1)
        else:
            quat = quat_mul(self.goal[..., 3:], self._goal_step)
        self.goal[..., 3:] = torch.where(mask[:, None, None], quat, self.goal[..., 3:])
        self.turn_on = self.turn_on & ~mask

    def reset(self, mask: Tensor) -> None:
        sim, version = self.sim, self.sim.version
        pose = self._posture.expand_as(self._target)
        if self.draws(self.chosen_record):
            pose = self._drawn(pose, 2.0 * self.streams.rand(5 + 24, mask=mask) - 1.0)
        self._turn_goals(mask)
        for flag in (self.solved, self.turn_on):
            flag.masked_fill_(mask, False)
        self.goals_reached.masked_fill_(mask, 0.0)
        self.last_action.masked_fill_(mask.unsqueeze(1), 0.0)
        sim.set_state(mask, pose, self._zero_vel, root_state=self._start_roots, dof_target_pos=pose)
        self._renew(mask, version)

    @staticmethod
    def draws(record: TaskRecord) -> bool:
        """Whether starts differ from one another."""
        return bool(record.spread or record.noise or record.start_turn != "as_placed")

    def _drawn(self, pose: Tensor, u: Tensor) -> Tensor:
        """A start pose near ``pose`` (N, D), and objects placed and turned, from ``u`` (N, 29) uniform on [-1, 1).

        As published: two hands start at q0 + s (lower + width u), one at q0 + s (lower + width (u + 1) / 2); moved into
        the limits, which the first may leave. Both hands have one sample, and so have all objects.
        """
        record, count = self.chosen_record, len(self.sides)
        lower, upper = self.sim.dof_lower[:24], self.sim.dof_upper[:24]  # of either hand
        share = u[:, 5:] if count == 2 else 0.5 * (u[:, 5:] + 1.0)
        moved = self._posture[:24] + record.spread * (lower + (upper - lower) * share)
        objects = self._start_roots[:, self._objects]
        objects[..., :3] = self._placed[:, :, :3] + record.noise * u[:, None, :3]
        if record.start_turn != "as_placed":
            turn = pen_rotation if record.start_turn == "pen" else random_rotation
            objects[..., 3:7] = turn(u[:, 3:5]).unsqueeze(1)
        self._start_roots[:, self._objects] = objects
        hands = torch.minimum(torch.maximum(moved, lower), upper).repeat(1, count)
        return torch.cat((hands, pose[:, 24 * count :]), 1)

    # -- observations and rewards ------------------------------------------------------------------------------
    def now(self, name: str, read: Callable[[Any], Tensor]) -> Tensor:
        """What ``read`` gives of all rows, slice(None), kept while the simulation stands still."""
        if self._version != self.sim.version:
            self._version, self._kept = self.sim.version, {}
        if name not in self._kept:
            self._kept[name] = (read, read(slice(None)))
        return self._kept[name][1]

    def _renew(self, mask: Tensor, version: int) -> None:
        """Only rows of ``mask`` (N,) are new since the simulation's ``version``: read these alone, where a CPU can."""
        if self.sim.device.type == "cpu" and self._version == version:
            rows = torch.from_numpy(np.flatnonzero(mask.numpy()))  # host read: tensors that are on the host
            self._version = self.sim.version
            for read, value in self._kept.values():
                value[rows] = read(rows)

    def points(self) -> Tensor:
        """(N, P, 3) fingertips of the hands, their palm centres, then the task's points, world frame."""
        return self.now("points", self._read_points)

    def relative(self) -> Tensor:
        """(N, K, 4) each object's rotation times the conjugate of its goal's."""
        return self.now("relative", self._read_relative)

    def _read_points(self, rows: Any) -> Tensor:
        body = self.sim.body_state[rows][:, self._point_rows]
        return body[..., :3] + rotate_many(body[..., 3:7], self._offsets)

    def _read_relative(self, rows: Any) -> Tensor:
        return quat_mul(self.sim.root_state[rows][:, self._held, 3:7], quat_conjugate(self.goal[rows][..., 3:]))

    def state(self) -> BiDexState:
        """The quantities that rewards are functions of."""
        if self._state_version != self.sim.version:
            self._state, self._state_version = self._read_state(), self.sim.version
        return self._state

    def _read_state(self) -> BiDexState:
        sim, record, count, points = self.sim, self.chosen_record, len(self.sides), self.points()
        tips, palms = points[:, : 5 * count].view(len(points), count, 5, 3), points[:, 5 * count : 6 * count]
        mine = {name: points[:, 6 * count + k] for k, name in enumerate(self.point_names)}
        wanted = torch.stack([mine.get(side, palms[:, k]) for k, side in enumerate(self.sides)], 1)
        objects, held = sim.root_state[:, self._objects], sim.root_state[:, self._held]
        angle = rotation_angle(self.relative())
        if record.symmetric:
            other = quat_mul(held[..., 3:7], quat_conjugate(quat_mul(self.goal[..., 3:], self._half_turn)))
            angle = torch.minimum(angle, rotation_angle(other))
        ends = [mine.get(name, palms[:, -k]) for k, name in enumerate(record.pair)]
        state = BiDexState(
            distance=(held[..., :3] - self.goal[..., :3]).norm(dim=-1),
            angle=angle,
            reach=(tips - wanted.unsqueeze(2)).norm(dim=-1).sum(-1),
            palm=(palms - wanted).norm(dim=-1),
            apart=(ends[0] - ends[1]).norm(dim=-1, keepdim=True),
            right=wanted[:, 0],
            left=wanted[:, -1],
            objects=objects,
            joints=sim.dof_pos[:, self._object_joints],
            drift=(sim.body_state[:, self._anchors, :3] - self._places).norm(dim=-1),
            reached=torch.zeros_like(self.goals_reached),
            actions=self.last_action,
        )
        if record.reached:
            state.reached = holds(record.reached, state).any(1).to(angle.dtype)
        return state

    def rewards(self) -> Rewards:
        state = self.state()
        success = succeeded(self.chosen_record.success, state)
        if self._counted_version != self.sim.version:  # a second call counts nothing twice
            self._counted_version = self.sim.version
            self.turn_on = state.reached > 0.0
            self.solved |= success > 0.0
            self.goals_reached += state.reached
        heuristic, terms = self.heuristic(state)
        return Rewards(success / self._reward_divisor, heuristic, terms)

    def terminated(self) -> Tensor:
        state = self.state()
        over = torch.zeros_like(self.solved)
        for condition in self.chosen_record.ends:
            over = over | holds(condition, state).any(1)
        return over

    def metrics(self) -> Dict[str, Tensor]:
        """``solved``: whether the episode had a success; ``success``: how much of one its last step is."""
        found = {"solved": self.solved, "success": succeeded(self.chosen_record.success, self.state())}
        return {**found, "goals": self.goals_reached} if self.chosen_record.reached else found

    def marker_poses(self) -> Dict[str, Tensor]:
        return {"goal_%s" % thing.name: self.goal[:, k] for k, thing in enumerate(self.chosen_record.wanted())}

    def part(self, kind: str, name: str) -> Tensor:
        """(N, .) a part of ``TaskRecord.observed``; of the current state."""
        if kind == "state":
            return self.sim.root_state[:, self.sim.actor_index(name)]
        if kind in ("point", "pose"):
            k = self.point_names.index(name)
            place = self.points()[:, 6 * len(self.sides) + k]
            body = self.sim.body_index(self.chosen_record.points[k].body)
            return place if kind == "point" else torch.cat((place, self.sim.body_state[:, body, 3:7]), 1)
        k = [thing.name for thing in self.chosen_record.objects()].index(name)
        goal = self.goal[:, k]
        return goal[:, :3] if kind == "place" else torch.cat((goal, self.relative()[:, k]), 1)

    def observe(self) -> Tensor:
        return self._observe()

    def obs_layout(self) -> List[ObsSlice]:
        return self._observe.layout()

    def action_layout(self) -> List[ActionGroup]:
        low, high = columns(self._lower[:20]), columns(self._upper[:20])
        scale, offset = columns(self._half[:20]), columns(self._mid[:20])
        floating, found = self.chosen_record.floating, []
        for side in self.sides:
            if floating:
                axes = ["%s/forearm %s" % (side, axis) for axis in "xyz"]
                dragged = "at its centre of mass, world axes; what drags the hand comes on top"
                push, twist = PUSH * floating[0], TWIST * floating[1]
                found.append(ActionGroup(tuple(axes), "force", "N", push, meaning=dragged))
                found.append(ActionGroup(tuple(axes), "torque", "N m", twist, meaning=dragged))
            names = tuple("%s/%s" % (side, joint) for joint in ACTUATED)
            found.append(ActionGroup(names, "joint position target", "rad", scale, ABSOLUTE, offset, low, high))
        return found

    # -- checkpoints -------------------------------------------------------------------------------------------
    _SAVED = ("goal", "last_action", "turn_on", "solved", "goals_reached")

    def get_state(self) -> Dict[str, Any]:
        return {name: getattr(self, name).clone() for name in self._SAVED}

    def load_state(self, state: Dict[str, Any]) -> None:
        for name in self._SAVED:
            setattr(self, name, state[name].to(self.sim.device).clone())
        self._version = self._state_version = self._counted_version = -1


# -- observations ----------------------------------------------------------------------------------------------------
class Named(NamedTuple):
    """A part with what is said of it. kind: key of MEANINGS.  joints: of its columns, where these are joints."""

    name: str
    kind: str
    part: Part
    joints: Tuple[str, ...] = ()


class BiDexObservation:
    """Puts an observation together. With one hand, the task's part stands between its joints and its fingertips."""

    def __init__(self, task: BiDex) -> None:
        self._task = task
        joints, rest = zip(*(self._hand(k, side) for k, side in enumerate(task.sides)))
        tail = [self._tail(kind, name) for kind, name in task.chosen_record.parts()]
        if len(task.sides) == 1:
            self._parts: List[Named] = [*joints[0], *tail, *rest[0]]
        else:
            self._parts = [part for k in range(len(joints)) for part in (*joints[k], *rest[k])] + tail
        self._observe = Observation([named.part for named in self._parts])

    def __call__(self) -> Tensor:
        return self._observe()

    def layout(self) -> List[ObsSlice]:
        """As Task.obs_layout wants it."""
        found = []
        for name, kind, part, joints in self._parts:
            size = part.read().shape[1]
            scale, shift = (columns(torch.as_tensor(x).expand(size)) for x in (part.scale, part.shift))
            unit, meaning = MEANINGS[kind]
            found.append(ObsSlice(name, size, unit, scale, shift, joints, meaning))
        return found

    def _hand(self, k: int, side: str) -> Tuple[List[Named], List[Named]]:
        """Parts of hand ``k``: of its joints, and the rest."""
        task, sim = self._task, self._task.sim
        mine, tips = slice(24 * k, 24 * k + 24), slice(5 * k, 5 * k + 5)
        joints, lower, upper = tuple(sim.dof_names[mine]), sim.dof_lower[mine], sim.dof_upper[mine]
        width, shift = upper - lower, -(upper + lower)
        prefix, actions = side + "_" if len(task.sides) == 2 else "", task.num_actions // len(task.sides)
        own = slice(actions * k, actions * (k + 1))
        driven = tuple("%s/%s" % (side, joint) for joint in ACTUATED) if actions == 20 else ()

        def named(kind: str, part: Part, of: Tuple[str, ...] = ()) -> Named:
            return Named(prefix + kind, kind, part, of)

        of_joints = [
            named("joint_pos", Part(lambda: sim.dof_pos[:, mine], 2.0 / width, shift / width), joints),
            named("joint_vel", Part(lambda: sim.dof_vel[:, mine], VELOCITY_SCALE), joints),
            named("joint_force", Part(lambda: sim.dof_force[:, mine], FORCE_SCALE), joints),
        ]
        rest = [
            named("fingertip_state", Part(lambda: sim.body_state[:, tips].flatten(1))),
            named("fingertip_force", Part(lambda: sim.force_sensor[:, tips].flatten(1), FORCE_SCALE)),
        ]
        if task.chosen_record.floating:
            rest.append(Named(prefix + "place", "place_of_hand", Part(lambda: task.now("places", self._places)[:, k])))
        return of_joints, [*rest, named("action", Part(lambda: task.last_action[:, own]), driven)]

    def _places(self, rows: Any) -> Tensor:
        """(N, H, 6) positions and Euler angles of the hands."""
        task, count = self._task, len(self._task.sides)
        root, palms = task.sim.root_state[rows][:, :count], task.points()[rows][:, 5 * count : 6 * count]
        position = root[..., :3] if task.chosen_record.hand_position == "root" else palms
        return torch.cat((position, euler_angles(root[..., 3:7])), 2)

    def _tail(self, kind: str, name: str) -> Named:
        """One part of ``TaskRecord.observed``."""
        task, device = self._task, self._task.sim.device
        if kind == "zeros":
            zeros = torch.zeros(task.sim.num_envs, int(name), device=device)
            return Named("zeros", kind, Part(lambda: zeros))
        scale = [1.0] * 10 + [VELOCITY_SCALE] * 3 if kind == "state" else 1.0
        part = Part(partial(task.part, kind, name), torch.tensor(scale, device=device))
        return Named("%s_%s" % (name, kind), kind, part)


# -- scene pieces and classes ----------------------------------------------------------------------------------------
def _thing(thing: Thing) -> ActorSpec:
    return ActorSpec(
        name=thing.name,
        asset=thing.asset,
        position=thing.position,
        orientation=quat_of_euler(*thing.turn),
        fixed=thing.fixed,
        gravity=thing.gravity,
        collision_group=GROUPS["scenery" if thing.scenery else "thing"],
        collision_mask=MEETS["scenery" if thing.scenery else "thing"],
        body_mass=thing.mass,
        friction=thing.friction,
    )


def task_of(record: TaskRecord) -> Type[BiDex]:
    """The task that a record describes; its default h is the record's family."""

    def default(state: BiDexState) -> Terms:
        return FAMILIES[record.family](state, **record.constants)

    observations, actions = sizes(record)
    hasty = HASTY.get(record.name[len("ShadowHand") :])
    heuristics = {"default": default, **({hasty.__name__: hasty} if hasty else {})}
    fields = {"__module__": __name__, "record": record, "name": record.name, "heuristics": heuristics}
    return type(record.name, (BiDex,), {**fields, "num_obs": observations, "num_actions": actions})

"""In-hand manipulation: a hand turns an object until its orientation is the goal's, then gets the next goal.

What AllegroHand and ShadowHand share: objects, goals, resets, action mapping, observations, task reward r and
heuristic h (Isaac Gym Envs, with HEPO's task reward). A hand brings its robot, its drives and its observation types.
What differs from PhysX: docs/parity; in the step loop: docs/differences.md. Lengths in metres, angles in radians,
quaternions xyzw.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Dict, List, Mapping, Tuple

import torch
from torch import Tensor

from hepo_isaac.envs.interface import ABSOLUTE, INTEGRATED, ActionGroup, ObsSlice, columns
from hepo_isaac.envs.math import quat_conjugate, quat_mul, quat_rotate
from hepo_isaac.envs.streams import Streams
from hepo_isaac.envs.task import Rewards, Task
from hepo_isaac.errors import unknown
from hepo_isaac.sim.base import Simulation
from hepo_isaac.sim.spec import ActorSpec, ContactSpec, ForceSensorSpec, MarkerSpec, SceneSpec

from .in_hand_observation import Observation, Part

ASSETS = Path(__file__).parent / "assets"

OBJECT_BODY = "object/object"
GOAL_SHOWN_AT = (-0.2, -0.06, 0.12)  # m from the goal position: where films show the goal, beside the hand
GOAL_BELOW_START = 0.04  # m, the goal position lies this far under the object's start
PEN_HEIGHT = 0.52  # m, a pen starts lower than the other objects
PEN_TILT = 0.3  # rad, a pen starts within this of lying flat
POSITION_NOISE = 0.01  # m, half width of the object's start position
POSE_SPREAD = 0.2  # joints start within this share of their range
DOF_SPEED = 20.0  # rad/s of target motion at action 1, relative control
VELOCITY_SCALE, FORCE_SCALE = 0.2, 10.0  # of observations

# Published weights of h, in the order of its terms; the angle's is eps of 1 / (angle + eps).
TERM_WEIGHTS = {"distance": -10.0, "rotation": 1.0, "action_penalty": -0.0002, "goal_bonus": 250.0, "fall_penalty": 1.0}
ROTATION_EPS = 0.1

FORCE_PROBABILITIES = (0.001, 0.1)  # of a new push per step, log-uniform between these
FORCE_DECAY, FORCE_DECAY_INTERVAL = 0.99, 0.08  # a push shrinks by the first every so many seconds


@dataclass(frozen=True)
class InHandObject:
    """What is held. mass: kg, as in the asset.  tolerance: factor on the angle that counts as reached."""

    asset: Path
    mass: float
    is_pen: bool = False
    tolerance: float = 1.0


EGG = InHandObject(ASSETS / "in_hand_egg.xml", 0.150796)
PEN = InHandObject(ASSETS / "in_hand_pen.xml", 0.042357, is_pen=True, tolerance=2.0)


@dataclass
class InHandState:
    """What rewards are computed from; every field is (N, .) on the device.

    distance: (N,) m between object and goal position.  angle: (N,) rad in [0, pi] between their orientations.
    reached: (N,) bool, the angle is within the tolerance.  fallen: (N,) bool, the object is too far away.
    penalty: (N,) what falling (and running out of time, if that ends episodes) costs; 0 by default.
    object_pos, object_quat, object_linvel, object_angvel: of the object, world frame.  goal_pos, goal_quat.
    relative_quat: object times conjugate of goal.  dof_pos: (N, D) rad.  actions: (N, K) clipped to [-1, 1].
    """

    distance: Tensor
    angle: Tensor
    reached: Tensor
    fallen: Tensor
    penalty: Tensor
    object_pos: Tensor
    object_quat: Tensor
    object_linvel: Tensor
    object_angvel: Tensor
    goal_pos: Tensor
    goal_quat: Tensor
    relative_quat: Tensor
    dof_pos: Tensor
    actions: Tensor


# -- formulas ----------------------------------------------------------------------------------------------------
def task_reward(reached: Tensor, episode_length: int) -> Tensor:
    """r = 1[goal reached] / episode_length, so that an episode's sum is its number of goals / episode_length."""
    return reached.to(torch.float32) / episode_length


@lru_cache(maxsize=None)
def _term_weights(device: torch.device) -> Tensor:
    """On the device, made once: copying them to a GPU in every step would make the host wait."""
    return torch.tensor(list(TERM_WEIGHTS.values()), device=device)


def default_heuristic(s: InHandState) -> Dict[str, Tensor]:
    """The published shaping as named terms, h = -10 D + 1/(angle + 0.1) - 0.0002 |a|^2 + 250 1[reached] + penalty."""
    values = (
        s.distance,
        (s.angle + ROTATION_EPS).reciprocal(),
        (s.actions * s.actions).sum(-1),
        s.reached.to(s.angle.dtype),
        s.penalty,
    )
    return dict(zip(TERM_WEIGHTS, (torch.stack(values, 1) * _term_weights(s.angle.device)).unbind(1)))


def rotation_angle(quat: Tensor) -> Tensor:
    """Angle of a unit quaternion (..., 4) in [0, pi], rad: 2 asin(min(1, |vec|))."""
    return 2.0 * torch.asin(quat[..., :3].norm(dim=-1).clamp(max=1.0))


def with_positive_w(quat: Tensor) -> Tensor:
    """Of q and -q, one rotation (..., 4), the one with w >= 0."""
    return torch.where(quat[..., 3:] < 0.0, -quat, quat)


def random_rotation(u: Tensor) -> Tensor:
    """Rx(pi u1) Ry(pi u2) as (N, 4), for u (N, 2) uniform on [-1, 1]; not uniform on SO(3), as published."""
    half = (0.5 * math.pi) * u
    (sx, sy), (cx, cy) = half.sin().unbind(-1), half.cos().unbind(-1)
    return torch.stack((sx * cy, cx * sy, sx * sy, cx * cy), -1)


def pen_rotation(u: Tensor) -> Tensor:
    """Rx(pi/2 + 0.3 u1) Rz(pi u1) as (N, 4): published code uses the first of its two numbers (N, 2) twice."""
    x, z = 0.25 * math.pi + 0.5 * PEN_TILT * u[..., 0], 0.5 * math.pi * u[..., 0]
    sx, cx, sz, cz = x.sin(), x.cos(), z.sin(), z.cos()
    return torch.stack((sx * cz, -sx * sz, cx * sz, cx * cz), -1)


def reset_pose(u: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """Start pose 0.2 U(lower, upper), for u uniform on [-1, 1], moved into the limits."""
    return (POSE_SPREAD * (lower + 0.5 * (upper - lower) * (u + 1.0))).clamp(lower, upper)


def absolute_targets(actions: Tensor, previous: Tensor, average: float, lower: Tensor, upper: Tensor) -> Tensor:
    """clip(m scale(a) + (1 - m) previous), where scale maps [-1, 1] to the joint limits."""
    scaled = lower + 0.5 * (actions + 1.0) * (upper - lower)
    return (average * scaled + (1.0 - average) * previous).clamp(lower, upper)


def relative_targets(actions: Tensor, previous: Tensor, dt: float, lower: Tensor, upper: Tensor) -> Tensor:
    """clip(previous + 20 dt a)."""
    return (previous + (DOF_SPEED * dt) * actions).clamp(lower, upper)


def _choice(kind: str, name: Any, valid: Mapping[str, Any]) -> Any:
    if name not in valid:
        raise unknown(kind, str(name), valid)
    return valid[name]


# -- task --------------------------------------------------------------------------------------------------------
class InHandTask(Task):
    """Base of the hands; see the module docstring. cfg: the ``task`` group (cfg/task/AllegroHand.yaml).

    Class attributes that a hand sets:
        objects: object type -> object.  object_start: where its centre starts (a pen starts at PEN_HEIGHT).
        actuated: joints in the order of the actions; their limits are the actions' range.
        fingertips: bodies whose state and whose force sensors can be observed, in this order.
        observation_types: name -> parts of an observation, by their names in ``parts()``. "full_state" is also what
            a critic sees if observations are asymmetric.
    Instance attributes:
        num_obs: size of the chosen observation type.  num_states: size of critic_state(), 0 if symmetric.
        goal: (N, 7) position m and quaternion xyzw.  reached: (N,) bool, whether the last step reached it.
        successes: (N,) goals reached in the running episode.  columns: the hand's joints among the simulation's.
        push: (N, 3) N, random force on the object, in its frame.  push_probability: (N, 1) of a new one per step.
        object_row: of the object in root_state.  fall_distance: m from the goal's place at which it is dropped.
    """

    objects: ClassVar[Dict[str, InHandObject]]
    object_start: ClassVar[Tuple[float, float, float]]
    actuated: ClassVar[Tuple[str, ...]]
    fingertips: ClassVar[Tuple[str, ...]] = ()
    heuristics = {"default": default_heuristic}
    observation_types: ClassVar[Dict[str, Tuple[str, ...]]]

    @classmethod
    @abstractmethod
    def hand(cls, cfg: Mapping[str, Any], engine: str) -> ActorSpec:
        """The robot: an actor called "hand"."""

    @classmethod
    def scene(cls, cfg: Mapping[str, Any], engine: str) -> SceneSpec:
        physics = cfg["physics"]
        held, parts = cls._object(cfg), cls._observed(cfg)
        position = cls._start(held)
        return SceneSpec(
            actors=(
                cls.hand(cfg, engine),
                ActorSpec("object", held.asset, position, fixed=False, collision_group=2, collision_mask=1),
            ),
            control_dt=float(physics["control_dt"]),
            substeps=int(physics["substeps"]),
            contact=ContactSpec(friction=1.0, solref_steps=float(physics["solref_steps"])),
            body_states=(OBJECT_BODY, *cls.fingertips),
            body_velocities="fingertip_state" in parts,
            force_sensors=tuple(
                ForceSensorSpec(tip.split("/")[1], tip) for tip in cls.fingertips if "fingertip_force" in parts
            ),
            markers=(MarkerSpec("goal", held.asset, opacity=1.0),),
            options=physics["options"],
        )

    @classmethod
    def _object(cls, cfg: Mapping[str, Any]) -> InHandObject:
        held: InHandObject = _choice("object type of %s" % cls.name, cfg["object_type"], cls.objects)
        return held

    @classmethod
    def _start(cls, held: InHandObject) -> Tuple[float, float, float]:
        x, y, z = cls.object_start
        return (x, y, PEN_HEIGHT if held.is_pen else z)

    @classmethod
    def _observed(cls, cfg: Mapping[str, Any]) -> Tuple[str, ...]:
        """Names of the parts that the policy or the critic observes."""
        mine: Tuple[str, ...] = _choice(
            "observation type of %s" % cls.name, cfg["observation_type"], cls.observation_types
        )
        return mine + (cls.observation_types["full_state"] if cfg["asymmetric_observations"] else ())

    def __init__(self, cfg: Mapping[str, Any], sim: Simulation, streams: Streams) -> None:
        super().__init__(cfg, sim, streams)
        self._episode_length = int(cfg["episode_length"])
        self._cap = int(cfg["max_consecutive_successes"])
        # With a cap every goal restarts the clock, so only the cap bounds an episode.
        self.max_episode_length = self._episode_length * max(1, self._cap)
        held = self._object(cfg)
        self._tolerance = float(cfg["success_tolerance"]) * held.tolerance
        self.fall_distance, self._fall_penalty = float(cfg["fall_distance"]), float(cfg["fall_penalty"])
        self._relative, self._average = bool(cfg["use_relative_control"]), float(cfg["actions_moving_average"])
        # Published oddity: relative control and the decay of pushes use PhysX's step, not the control step.
        self._sim_dt = float(cfg["physics"]["sim_dt"])
        self._force_scale = float(cfg["force_scale"]) * held.mass
        self._bind(held)
        parts = self.parts(cfg)
        self._observation_type = str(cfg["observation_type"])
        self._observe = Observation([parts[name] for name in self.observation_types[self._observation_type]])
        self.num_obs = self._observe.size
        self._critic = self._observe
        if cfg["asymmetric_observations"]:
            self._critic = Observation([parts[name] for name in self.observation_types["full_state"]])
            self.num_states = self._critic.size

    def _bind(self, held: InHandObject) -> None:
        """Indices into the engine's tensors and the task's own buffers."""
        sim = self.sim
        n, d, device = sim.num_envs, len(sim.dof_names), sim.device
        columns = [sim.dof_index(name) for name in self.actuated]
        consecutive = columns == list(range(columns[0], columns[0] + len(columns)))
        # A slice is a view; an index gathers.
        self.columns: Any = (
            slice(columns[0], columns[0] + len(columns)) if consecutive else sim.dof_indices(self.actuated)
        )
        self._lower, self._upper = sim.dof_lower[self.columns], sim.dof_upper[self.columns]
        self.object_row = sim.actor_index("object")
        self._tips = slice(1, 1 + len(self.fingertips))
        assert sim.body_names == [OBJECT_BODY, *self.fingertips]
        self._rotation = pen_rotation if held.is_pen else random_rotation
        self._start_pos = torch.tensor(self._start(held), device=device)
        self._roots = sim.root_state.clone()
        self._roots[:, self.object_row, 7:] = 0.0
        self.goal = torch.zeros(n, 7, device=device)
        self.goal[:, :3] = self._start_pos
        self.goal[:, 2] -= GOAL_BELOW_START
        self.goal[:, 6] = 1.0
        self._actions = torch.zeros(n, len(columns), device=device)
        self._target, self._zero_vel = torch.zeros(n, d, device=device), torch.zeros(n, d, device=device)
        self.reached = torch.zeros(n, dtype=torch.bool, device=device)
        self.successes = torch.zeros(n, device=device)
        self._since_goal = torch.zeros(n, device=device)
        self.push = torch.zeros(n, 3, device=device)  # N, in the object's frame
        self.push_probability = torch.zeros(n, 1, device=device)
        self._forces = torch.zeros(n, len(sim.body_names), 3, device=device)
        self._version, self._counted_version = -1, -1

    # -- actions and resets ------------------------------------------------------------------------------------
    def apply(self, actions: Tensor) -> None:
        if self.sim.may_select(self.reached):
            self.new_goals(self.reached, 2.0 * self.streams.rand(2, mask=self.reached) - 1.0)
        self._since_goal += 1.0
        self._actions.copy_(actions)
        previous = self.sim.dof_target_pos[:, self.columns]
        if self._relative:
            target = relative_targets(actions, previous, self._sim_dt, self._lower, self._upper)
        else:
            target = absolute_targets(actions, previous, self._average, self._lower, self._upper)
        self._target[:, self.columns] = target
        self.sim.set_dof_target_pos(self._target)
        if self._force_scale > 0.0:
            self._apply_pushes()

    def set_goal(self, quat: Tensor) -> None:
        """Turn every env's goal to the rotation ``quat`` (N, 4) or (4,), xyzw."""
        self.goal[:, 3:] = quat
        self._version = -1

    def new_goals(self, mask: Tensor, u: Tensor) -> None:
        """Turn the goals of ``mask`` (N,) to rotations made of ``u`` (N, 2) on [-1, 1)."""
        self.goal[:, 3:] = torch.where(mask.unsqueeze(1), random_rotation(u), self.goal[:, 3:])
        self.reached = self.reached & ~mask
        self._version = -1

    def _apply_pushes(self) -> None:
        """Random forces on the object that fade; each starts as N(0, 1) mass force_scale, in the object's frame."""
        self.push *= FORCE_DECAY ** (self._sim_dt / FORCE_DECAY_INTERVAL)
        new = self.streams.rand(1) < self.push_probability
        self.push = torch.where(new, self.streams.randn(3) * self._force_scale, self.push)
        self._forces[:, 0] = quat_rotate(self.sim.root_state[:, self.object_row, 3:7], self.push)
        self.sim.apply_body_force(self._forces)

    def reset(self, mask: Tensor) -> None:
        dofs = self._target.shape[1]
        u = 2.0 * self.streams.rand(8 + dofs, mask=mask) - 1.0
        chosen = mask.unsqueeze(1)
        held = self._roots[:, self.object_row]
        held[:, :3] = self._start_pos + POSITION_NOISE * u[:, :3]
        held[:, 3:7] = self._rotation(u[:, 3:5])
        self.new_goals(mask, u[:, 5:7])
        low, high = FORCE_PROBABILITIES
        probability = torch.exp((0.5 * (u[:, 7:8] + 1.0)) * math.log(low / high) + math.log(high))
        self.push_probability = torch.where(chosen, probability, self.push_probability)
        for counter in (self.successes, self._since_goal):
            counter.masked_fill_(mask, 0.0)
        for buffer in (self._actions, self.push):
            buffer.masked_fill_(chosen, 0.0)
        pose = reset_pose(u[:, 8:], self.sim.dof_lower, self.sim.dof_upper)
        self.sim.set_state(mask, pose, self._zero_vel, root_state=self._roots, dof_target_pos=pose)

    # -- observations and rewards ------------------------------------------------------------------------------
    def state(self) -> InHandState:
        """The quantities that rewards are functions of; kept while the simulation stands still."""
        if self._version != self.sim.version:
            self._state, self._version = self._read_state(), self.sim.version
        return self._state

    def _read_state(self) -> InHandState:
        held, goal = self.sim.root_state[:, self.object_row], self.goal
        relative = quat_mul(held[:, 3:7], quat_conjugate(goal[:, 3:]))
        distance, angle = (held[:, :3] - goal[:, :3]).norm(dim=-1), rotation_angle(relative)
        reached, fallen = angle <= self._tolerance, distance >= self.fall_distance
        penalty = self._fall_penalty * fallen
        if self._cap:
            penalty = penalty + (0.5 * self._fall_penalty) * (self._late() & ~reached)
        return InHandState(
            distance=distance,
            angle=angle,
            reached=reached,
            fallen=fallen,
            penalty=penalty,
            object_pos=held[:, :3],
            object_quat=held[:, 3:7],
            object_linvel=held[:, 7:10],
            object_angvel=held[:, 10:],
            goal_pos=goal[:, :3],
            goal_quat=goal[:, 3:],
            relative_quat=relative,
            dof_pos=self.sim.dof_pos,
            actions=self._actions,
        )

    def _late(self) -> Tensor:
        """(N,) bool: no goal was reached for the length of an episode."""
        return self._since_goal >= self._episode_length

    def parts(self, cfg: Mapping[str, Any]) -> Dict[str, Part]:
        """Every part an observation may have, by name."""
        sim, row, tips = self.sim, self.object_row, self._tips
        width = sim.dof_upper - sim.dof_lower
        spin = torch.tensor([1.0] * 3 + [VELOCITY_SCALE] * 3, device=sim.device)
        force = (lambda: sim.dof_force) if cfg["observe_joint_force"] else (lambda: self._zero_vel)
        one_sign = bool(cfg["observe_one_sign"])

        def relative() -> Tensor:
            return self.state().relative_quat

        return {
            "joint_pos": Part(lambda: sim.dof_pos, 2.0 / width, -(sim.dof_upper + sim.dof_lower) / width),
            "joint_vel": Part(lambda: sim.dof_vel, VELOCITY_SCALE),
            "joint_force": Part(force, FORCE_SCALE),
            "object_pos": Part(lambda: sim.root_state[:, row, :3]),
            "object_pose": Part(lambda: sim.root_state[:, row, :7]),
            "object_vel": Part(lambda: sim.root_state[:, row, 7:], spin),
            "goal_pose": Part(lambda: self.goal),
            "relative_quat": Part(lambda: with_positive_w(relative()) if one_sign else relative()),
            "fingertip_pos": Part(lambda: sim.body_state[:, tips, :3].flatten(1)),
            "fingertip_state": Part(lambda: sim.body_state[:, tips].flatten(1)),
            "fingertip_force": Part(lambda: sim.force_sensor.flatten(1), FORCE_SCALE),
            "action": Part(lambda: self._actions),
        }

    def observe(self) -> Tensor:
        return self._observe()

    def obs_layout(self) -> List[ObsSlice]:
        names = self.observation_types[self._observation_type]
        return self._observe.layout(names, tuple(self.sim.dof_names), self.actuated)

    def action_layout(self) -> List[ActionGroup]:
        low, high = columns(self._lower), columns(self._upper)
        command = ("joint position target", "rad")
        if self._relative:
            step = DOF_SPEED * self._sim_dt
            return [ActionGroup(self.actuated, *command, step, INTEGRATED, lower=low, upper=high)]
        scale, offset = columns(0.5 * (self._upper - self._lower)), columns(0.5 * (self._upper + self._lower))
        share = "" if self._average == 1.0 else "of which %g, the rest is the target before" % self._average
        return [ActionGroup(self.actuated, *command, scale, ABSOLUTE, offset, low, high, share)]

    def critic_state(self) -> Tensor:
        return self._critic()

    def rewards(self) -> Rewards:
        state = self.state()
        if self._counted_version != self.sim.version:  # a second call counts nothing twice
            self._counted_version = self.sim.version
            self.reached = state.reached
            self.successes += state.reached
            self._since_goal.masked_fill_(state.reached, 0.0)
        heuristic, terms = self.heuristic(state)
        return Rewards(task_reward(state.reached, self._episode_length), heuristic, terms)

    def terminated(self) -> Tensor:
        state = self.state()
        if self._cap:
            return state.fallen | (self.successes >= self._cap) | self._late()
        return state.fallen

    def marker_poses(self) -> Dict[str, Tensor]:
        shown = self.goal.clone()
        shown[:, :3] += torch.tensor(GOAL_SHOWN_AT, device=shown.device)
        return {"goal": shown}

    def metrics(self) -> Dict[str, Tensor]:
        return {"goal_reached": self.successes > 0, "goals": self.successes, "dropped": self.state().fallen}

    # -- checkpoints -------------------------------------------------------------------------------------------
    _SAVED = ("goal", "_actions", "reached", "successes", "_since_goal", "push", "push_probability")

    def get_state(self) -> Dict[str, Any]:
        return {name.strip("_"): getattr(self, name).clone() for name in self._SAVED}

    def load_state(self, state: Dict[str, Any]) -> None:
        for name in self._SAVED:
            buffer = getattr(self, name)
            setattr(self, name, state[name.strip("_")].to(buffer.device).clone())
        self._version = self._counted_version = -1

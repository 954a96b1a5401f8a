"""SceneSpec: an engine-neutral description of one environment's scene.

Tasks build a SceneSpec; each engine compiles it with its own tools (MjSpec, gymapi). Nothing here imports an
engine. All quaternions are xyzw, lengths in metres, angles in radians, masses in kilograms, time in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, Mapping, Optional, Tuple

Vec3 = Tuple[float, float, float]
Quat = Tuple[float, float, float, float]

DRIVE_MODES = ("position", "velocity", "effort", "none")


@dataclass(frozen=True)
class DriveSpec:
    """A drive on every joint whose name matches ``joints`` (a regular expression, full match).

    mode: "position" (PD towards set_dof_target_pos), "velocity", "effort" (set_dof_effort) or "none" (passive).
    stiffness: N/m or N m/rad.  damping: N s/m or N m s/rad.  effort_limit: N or N m, symmetric. In modes "effort"
        and "none" stiffness and damping are passive: a spring towards 0 and a damper, outside the effort limit.
    velocity_limit: m/s or rad/s that the drive alone may reach; None is unlimited. Engines without a hard
        joint-speed cap bound the drive's position error instead (docs/physics.md), and in modes "effort" and "none"
        they do not limit speeds at all.
    armature: kg or kg m^2 added to the joint's inertia.
    inelastic_stop: the joint's end stops swallow the impact (PhysX) instead of throwing the joint back (MuJoCo's
        default); engines whose stops are inelastic anyway ignore it.
    """

    joints: str
    mode: str = "position"
    stiffness: float = 0.0
    damping: float = 0.0
    effort_limit: float = float("inf")
    velocity_limit: Optional[float] = None
    armature: float = 0.0
    inelastic_stop: bool = False

    def __post_init__(self) -> None:
        if self.mode not in DRIVE_MODES:
            raise ValueError("drive mode %r of %r is not one of %s" % (self.mode, self.joints, DRIVE_MODES))


@dataclass(frozen=True)
class ActorSpec:
    """One articulation or rigid body, from an MJCF file with a single top-level body.

    name: prefix of its joints and bodies: joint ``j`` of actor ``a`` is called ``a/j``.
    fixed: welded to the world at ``position``/``orientation``; otherwise it gets a free joint and starts there.
    gravity: False cancels gravity on all its bodies.
    collision_group/collision_mask: bit sets; two shapes may collide if either one's group meets the other's mask.
        The ground plane has group 1 and mask 1, so group 1 with mask 0 touches the ground but not itself.
    body_mass: masses that replace the file's, by body name (kg).
    friction: of all contacts of this actor, whatever the other one's; None: ContactSpec.friction. (PhysX takes the mean
        of two: there it is what this actor brings to it.)
    """

    name: str
    asset: Path
    position: Vec3 = (0.0, 0.0, 0.0)
    orientation: Quat = (0.0, 0.0, 0.0, 1.0)
    fixed: bool = True
    gravity: bool = True
    drives: Tuple[DriveSpec, ...] = ()
    collision_group: int = 1
    collision_mask: int = 1
    body_mass: Mapping[str, float] = field(default_factory=dict)
    friction: Optional[float] = None


@dataclass(frozen=True)
class ForceSensorSpec:
    """A six-axis force/torque sensor (N, N m) at the origin of ``body`` ("actor/body"), in the body's frame.

    It reads the load that the body hands on to its parent through its joint: a light foot that the ground pushes up
    reads up, a body that hangs on its parent reads its weight, pointing down. (A body with a free joint hands on
    nothing.) Torque is about the body's origin.
    """

    name: str
    body: str


@dataclass(frozen=True)
class MarkerSpec:
    """Something that only films show, such as a goal: no engine simulates it, Task.marker_poses says where it is.

    asset: an MJCF file with a single top-level body, whose shapes are shown; None shows a ball.
    radius: of that ball, m.  opacity: 0 to 1.
    """

    name: str
    asset: Optional[Path] = None
    radius: float = 0.05
    opacity: float = 0.5


@dataclass(frozen=True)
class ContactSpec:
    """How touching shapes push: Coulomb friction (dimensionless), and the engine's own softness settings.

    solref/solimp are MuJoCo's; engines with hard contacts ignore them. solref's first entry may be given in
    units of the physics step through ``solref_steps``.
    """

    friction: float = 1.0
    solref_steps: float = 2.0
    solimp: Vec3 = (0.95, 0.99, 0.001)


@dataclass(frozen=True)
class SceneSpec:
    """Everything an engine needs to build num_envs copies of one environment.

    control_dt: seconds between two actions.  substeps: physics steps in one control step.
    gravity: m/s^2, world frame.
    body_states: "actor/body" names whose pose and velocity the engine must serve; empty serves all. Naming only
        what the task reads keeps a CPU engine fast.
    body_velocities: whether body_state[..., 7:] is served; if not it is NaN, so that nobody reads it by mistake.
    contact_bodies: bodies whose net contact force is served.
    markers: what films show besides.
    options: engine name -> engine settings (solver, iterations, buffer sizes), passed to that engine only.
    """

    actors: Tuple[ActorSpec, ...]
    control_dt: float
    substeps: int
    gravity: Vec3 = (0.0, 0.0, -9.81)
    contact: ContactSpec = field(default_factory=ContactSpec)
    body_states: Tuple[str, ...] = ()
    body_velocities: bool = True
    contact_bodies: Tuple[str, ...] = ()
    force_sensors: Tuple[ForceSensorSpec, ...] = ()
    ground_plane: bool = False
    markers: Tuple[MarkerSpec, ...] = ()
    options: Mapping[str, Dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = [a.name for a in self.actors]
        if len(set(names)) != len(names):
            raise ValueError("actor names must be unique, got %s" % names)
        if self.substeps < 1 or self.control_dt <= 0:
            raise ValueError("control_dt must be > 0 and substeps >= 1, got %r, %r" % (self.control_dt, self.substeps))

    @property
    def physics_dt(self) -> float:
        """Length of one physics step in seconds."""
        return self.control_dt / self.substeps

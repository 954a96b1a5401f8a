"""ShadowHand: a 24-joint hand turns a block over its palm to one goal orientation after another.

The published task (Isaac Gym Envs, with HEPO's task reward): 20 joint-position actions at 60 Hz, 211 observations. What
it shares with AllegroHand is in in_hand.py; what differs from PhysX: docs/parity/ShadowHand.md.
"""

from __future__ import annotations

from typing import Any, Mapping, Tuple

from hepo_isaac.envs.task import for_engine
from hepo_isaac.sim.spec import ActorSpec, DriveSpec

from .in_hand import ASSETS, EGG, PEN, InHandObject, InHandTask

# Published order of the actions; the distal joints FFJ0, MFJ0, RFJ0 and LFJ0 are not driven but follow by tendons.
WRIST_JOINTS = ("WRJ1", "WRJ0")
FINGER_JOINTS = (
    *("FFJ3", "FFJ2", "FFJ1", "MFJ3", "MFJ2", "MFJ1", "RFJ3", "RFJ2", "RFJ1"),
    *("LFJ4", "LFJ3", "LFJ2", "LFJ1", "THJ4", "THJ3", "THJ2", "THJ1", "THJ0"),
)
PASSIVE_JOINTS = "(FF|MF|RF|LF)J0"
# Largest torque of a drive in N m (force ranges of the published asset's actuators), by joint.
EFFORT_LIMITS = {
    "WRJ1": 4.785,
    "WRJ0": 2.175,
    "(FF|MF|RF|LF)J[23]|LFJ4": 0.9,
    "(FF|MF|RF|LF)J1": 0.7245,
    "THJ4": 2.3722,
    "THJ3": 1.45,
    "THJ[12]": 0.99,
    "THJ0": 0.81,
}
# Published order. The observed frame is the distal link's: its joint, not the tip 2.6 cm further.
FINGERTIPS = tuple("hand/%sdistal" % finger for finger in ("ff", "mf", "rf", "lf", "th"))


class ShadowHand(InHandTask):
    """See the module docstring. cfg: the ``task`` group (cfg/task/ShadowHand.yaml)."""

    name = "ShadowHand"
    num_obs = 211
    num_actions = 20

    objects = {"block": InHandObject(ASSETS / "in_hand_block.xml", 0.070875), "egg": EGG, "pen": PEN}
    object_start = (0.0, -0.39, 0.6)
    actuated = tuple("hand/" + joint for joint in (*WRIST_JOINTS, *FINGER_JOINTS))
    fingertips = FINGERTIPS
    observation_types = {
        "openai": ("fingertip_pos", "object_pos", "relative_quat", "action"),
        "full_no_vel": ("joint_pos", "object_pose", "goal_pose", "relative_quat", "fingertip_pos", "action"),
        "full": (
            *("joint_pos", "joint_vel", "object_pose", "object_vel", "goal_pose", "relative_quat"),
            *("fingertip_state", "action"),
        ),
        "full_state": (
            *("joint_pos", "joint_vel", "joint_force", "object_pose", "object_vel", "goal_pose", "relative_quat"),
            *("fingertip_state", "fingertip_force", "action"),
        ),
    }

    @classmethod
    def hand(cls, cfg: Mapping[str, Any], engine: str) -> ActorSpec:
        return ActorSpec(
            name="hand",
            asset=ASSETS / "shadow_hand.xml",
            position=(0.0, 0.0, 0.5),
            gravity=False,
            drives=hand_drives(for_engine(cfg["physics"]["drives"], engine)),
            # Its links meet the object, and each other only in the asset's list of pairs.
            collision_group=1,
            collision_mask=0,
        )


def hand_drives(gains: Mapping[str, Any]) -> Tuple[DriveSpec, ...]:
    """Drives of the hand from ``physics.drives.<engine>``: gains of the wrist, the fingers and the passive joints."""

    def drive(joints: str, effort: float) -> DriveSpec:
        mine = gains["wrist" if joints.startswith("WR") else "finger"]
        return DriveSpec(
            joints,
            stiffness=float(mine["stiffness"]),
            damping=float(mine["damping"]),
            armature=float(mine["armature"]),
            effort_limit=effort,
            inelastic_stop=True,
        )

    passive = gains["passive"]
    coupled = DriveSpec(
        PASSIVE_JOINTS,
        mode="none",
        damping=float(passive["damping"]),
        armature=float(passive["armature"]),
        inelastic_stop=True,
    )
    return (*(drive(joints, effort) for joints, effort in EFFORT_LIMITS.items()), coupled)


TASK = ShadowHand

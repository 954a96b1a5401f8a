"""AllegroHand: a 16-joint hand turns a block in its palm to one goal orientation after another.

The published task (Isaac Gym Envs, with HEPO's task reward): 16 joint-position actions at 30 Hz, 88 observations. What
it shares with ShadowHand is in in_hand.py; what differs from PhysX: docs/parity/AllegroHand.md.
"""

from __future__ import annotations

from typing import Any, Mapping

from hepo_isaac.envs.task import for_engine
from hepo_isaac.sim.spec import ActorSpec, DriveSpec

from .in_hand import ASSETS, EGG, PEN, InHandObject, InHandTask

FINGERS = ("index", "middle", "ring", "thumb")
# Ry(pi) Rx(0.47 pi) Rz(0.25 pi): fingers along -y, 5.4 degrees downwards, palm up.
ORIENTATION = (0.28304457, 0.68333003, -0.62178249, 0.25755074)


class AllegroHand(InHandTask):
    """See the module docstring. cfg: the ``task`` group (cfg/task/AllegroHand.yaml)."""

    name = "AllegroHand"
    num_obs = 88
    num_actions = 16

    objects = {"block": InHandObject(ASSETS / "in_hand_block_allegro.xml", 0.10985), "egg": EGG, "pen": PEN}
    object_start = (0.0, -0.2, 0.56)  # published code; the yaml's startObjectPoseDY of -0.19 is never read
    actuated = tuple("hand/%s_%d" % (finger, i) for finger in FINGERS for i in range(4))
    observation_types = {
        "full_no_vel": ("joint_pos", "object_pose", "goal_pose", "relative_quat", "action"),
        "full": ("joint_pos", "joint_vel", "object_pose", "object_vel", "goal_pose", "relative_quat", "action"),
        "full_state": (
            "joint_pos",
            "joint_vel",
            "joint_force",
            "object_pose",
            "object_vel",
            "goal_pose",
            "relative_quat",
            "action",
        ),
    }

    @classmethod
    def hand(cls, cfg: Mapping[str, Any], engine: str) -> ActorSpec:
        physics = cfg["physics"]
        drive = for_engine(physics["drive"], engine)
        return ActorSpec(
            name="hand",
            asset=ASSETS / "allegro_hand.xml",
            position=(0.0, 0.0, 0.5),
            orientation=ORIENTATION,
            gravity=False,
            drives=(
                DriveSpec(
                    ".*",
                    stiffness=float(drive["stiffness"]),
                    damping=float(drive["damping"]),
                    armature=float(drive["armature"]),
                    effort_limit=float(drive["effort_limit"]),
                    velocity_limit=float(drive["velocity_limit"]),
                ),
            ),
            collision_group=1,
            collision_mask=1 if physics["self_collision"] else 0,
        )


TASK = AllegroHand

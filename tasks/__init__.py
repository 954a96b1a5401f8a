"""The tasks: which module has which. A new one is a line here, its module, a yaml in cfg/task and a test."""

from __future__ import annotations

from typing import Dict, Tuple

# The dexterous-hand tasks, without the ShadowHand in front that is in their names.
DEXTEROUS: Tuple[str, ...] = (
    *("Over", "CatchUnderarm", "CatchAbreast", "CatchOver2Underarm", "TwoCatchUnderarm"),
    *("ReOrientation", "Spin", "UpsideDown"),
    *("DoorOpenInward", "DoorOpenOutward", "DoorCloseInward", "DoorCloseOutward"),
    *("Pen", "Scissors", "SwingCup", "Kettle", "BottleCap", "LiftUnderarm", "Switch"),
    *("BlockStack", "PushBlock", "GraspAndPlace"),
)
# Name, as in task=<name>, to the module below this package whose TASK it is; behind a colon, which of its TASKS.
MODULES: Dict[str, str] = {
    "AllegroHand": "robots.allegro_hand",
    "Ant": "robots.ant",
    "Anymal": "robots.anymal",
    "BallBalance": "robots.ball_balance",
    "Cartpole": "robots.cartpole",
    "FrankaCabinet": "robots.franka_cabinet",
    "FrankaCubeStack": "robots.franka_cube_stack",
    "Humanoid": "robots.humanoid",
    "Ingenuity": "robots.ingenuity",
    "Quadcopter": "robots.quadcopter",
    "ShadowHand": "robots.shadow_hand",
    **{"ShadowHand" + name: "bidex:ShadowHand" + name for name in DEXTEROUS},
    "EffortReach": "suite.effort_reach",
    "Honeypot": "suite.honeypot",
    "KeyDoor": "suite.key_door",
    "Maze2D": "suite.maze2d",
    "MountainCar": "suite.mountain_car",
    "Park2D": "suite.park2d",
    "Push2D": "suite.push2d",
    "QuadraticPoint": "suite.quadratic_point",
    "RingRace": "suite.ring_race",
    "Survival": "suite.survival",
    "TwoArm": "suite.two_arm",
    "TwoPeaks": "suite.two_peaks",
}

"""A stand-in for NVIDIA's Isaac Gym Preview 4 that enforces its rules and moves by simple kinematics.

It has the signatures of the real package (typings/isaacgym), raises TypeError on arguments that the binding would
refuse and RuntimeError on a breach of the tensor API's rules, most of which the real engine answers with a crash
or with silently wrong numbers. What moves, and how:

* A joint is a servo of inertia 1 + armature (kg m^2 or kg), whatever hangs on it: its drive is solved implicitly,
  its force and speed are limited, its range is a hard stop. Gravity does not act on it.
* A free base falls, and turns under applied torques, as one rigid body with the mass of the whole actor; its height
  over the ground is that of the actor upright with all joints at zero. Nothing else touches anything.
* Links follow by MuJoCo's forward kinematics. A base at rest on the ground feels its weight as contact force.
* Attractors, tendons, joint friction, armature of links, damping of bodies and collision filters are kept and
  handed back but have no effect.

As the real package it must be imported before torch, unless FAKE_ISAACGYM_AFTER_TORCH=1 (tests of one process).
The GPU pipeline lives on the CUDA device if there is one and else in main memory, under the same rules.
"""

import os
import sys

if "torch" in sys.modules and os.environ.get("FAKE_ISAACGYM_AFTER_TORCH") != "1":
    raise ImportError("PyTorch was imported before isaacgym modules.  Please import torch after isaacgym modules.")

from isaacgym import gymapi as gymapi  # noqa: E402

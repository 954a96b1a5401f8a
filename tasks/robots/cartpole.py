"""Cartpole: a force on a cart keeps the pole on it upright.

The published task (Isaac Gym Envs): 1 action, 4 observations, heuristic h = the published reward. The released
task reward r cannot run; r here is the share of the episode survived (docs/parity/Cartpole.md). Lengths in metres,
angles in radians, force in newtons.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Mapping

import torch
from torch import Tensor

from hepo_isaac.envs.interface import ActionGroup, ObsSlice
from hepo_isaac.envs.streams import Streams
from hepo_isaac.envs.task import Task
from hepo_isaac.sim.base import Simulation
from hepo_isaac.sim.spec import ActorSpec, DriveSpec, SceneSpec

ASSET = Path(__file__).parent / "assets" / "cartpole.xml"
JOINTS = ["cartpole/slider_to_cart", "cartpole/cart_to_pole"]

MAX_FORCE = 400.0  # N at action 1
EFFORT_LIMIT = 1000.0  # N, the URDF's; never reached
CART_SPEED_LIMIT, POLE_SPEED_LIMIT = 100.0, 8.0  # m/s and rad/s, the URDF's; in PhysX alone they have an effect
MAX_OFFSET = 3.0  # m from the middle of the rail, which ends at 4
MAX_TILT = math.pi / 2
LOST = -2.0  # h of a step that ends out of bounds
POSITION_NOISE, VELOCITY_NOISE = 0.1, 0.25  # half widths of the uniform start, m and rad, m/s and rad/s


@dataclass
class CartpoleState:
    """What rewards are computed from; every field is (N,).

    cart_pos, cart_vel: along the rail, m and m/s.  pole_angle, pole_vel: from upright, rad and rad/s.
    """

    cart_pos: Tensor
    cart_vel: Tensor
    pole_angle: Tensor
    pole_vel: Tensor


def out_of_bounds(s: CartpoleState) -> Tensor:
    """(N,) bool: the cart is more than 3 m off the middle, or the pole below the horizontal."""
    return (s.cart_pos.abs() > MAX_OFFSET) | (s.pole_angle.abs() > MAX_TILT)


def task_reward(lost: Tensor, episode_length: int) -> Tensor:
    """r = 1[survived the step] / episode_length, so that an episode's sum is the share of it survived."""
    return (~lost).to(torch.float32) / episode_length


def default_heuristic(s: CartpoleState) -> Dict[str, Tensor]:
    """The published reward as named terms: 1 - θ² - 0.01 |v| - 0.005 |ω|, overwritten by -2 out of bounds.

    Returns:
        terms: upright, cart_speed, pole_speed, and out_of_bounds (what the overwriting changed).
    """
    upright = 1.0 - s.pole_angle * s.pole_angle
    cart_speed, pole_speed = -0.01 * s.cart_vel.abs(), -0.005 * s.pole_vel.abs()
    change = LOST - (upright + cart_speed + pole_speed)
    return {
        "upright": upright,
        "cart_speed": cart_speed,
        "pole_speed": pole_speed,
        "out_of_bounds": change * out_of_bounds(s),
    }


class Cartpole(Task):
    """See the module docstring. cfg: the ``task`` group (cfg/task/Cartpole.yaml)."""

    name = "Cartpole"
    num_obs = 4
    num_actions = 1
    heuristics = {"default": default_heuristic}

    @classmethod
    def scene(cls, cfg: Mapping[str, Any], engine: str) -> SceneSpec:
        physics = cfg["physics"]
        drives = (
            DriveSpec("slider_to_cart", mode="effort", effort_limit=EFFORT_LIMIT, velocity_limit=CART_SPEED_LIMIT),
            DriveSpec("cart_to_pole", mode="none", velocity_limit=POLE_SPEED_LIMIT),
        )
        return SceneSpec(
            actors=(ActorSpec("cartpole", ASSET, position=(0.0, 0.0, 2.0), drives=drives),),
            control_dt=float(physics["control_dt"]),
            substeps=int(physics["substeps"]),
            body_states=("cartpole/pole",),
            body_velocities=False,
            options=physics["options"],
        )

    def __init__(self, cfg: Mapping[str, Any], sim: Simulation, streams: Streams) -> None:
        assert sim.dof_names == JOINTS  # observations and resets count on this order
        super().__init__(cfg, sim, streams)
        self._effort = torch.zeros(sim.num_envs, 2, device=sim.device)
        noise = [POSITION_NOISE] * 2 + [VELOCITY_NOISE] * 2
        self._noise = torch.tensor(noise, device=sim.device)
        self._lost_version, self._lost = -1, torch.empty(0)

    # -- actions and resets ------------------------------------------------------------------------------------
    def apply(self, actions: Tensor) -> None:
        self._effort[:, :1] = MAX_FORCE * actions
        self.sim.set_dof_effort(self._effort)

    def reset(self, mask: Tensor) -> None:
        start = (2.0 * self.streams.rand(4, mask=mask) - 1.0) * self._noise
        self.sim.set_state(mask, start[:, :2], start[:, 2:])

    # -- observations and rewards ------------------------------------------------------------------------------
    def state(self) -> CartpoleState:
        """The quantities that rewards are functions of, from the engine's current tensors."""
        (cart_pos, pole_angle), (cart_vel, pole_vel) = self.sim.dof_pos.unbind(1), self.sim.dof_vel.unbind(1)
        return CartpoleState(cart_pos, cart_vel, pole_angle, pole_vel)

    def observe(self) -> Tensor:
        """Cart position and velocity, pole angle and velocity; not scaled."""
        return torch.stack((self.sim.dof_pos, self.sim.dof_vel), 2).flatten(1)

    def obs_layout(self) -> List[ObsSlice]:
        return [
            ObsSlice("cart_pos", 1, "m", meaning="along the rail, from its middle"),
            ObsSlice("cart_vel", 1, "m/s"),
            ObsSlice("pole_angle", 1, "rad", meaning="from upright"),
            ObsSlice("pole_vel", 1, "rad/s"),
        ]

    def action_layout(self) -> List[ActionGroup]:
        return [ActionGroup((JOINTS[0],), "joint effort", "N", MAX_FORCE)]

    def task_reward(self, state: CartpoleState) -> Tensor:
        return task_reward(self.terminated(), self.max_episode_length)

    def terminated(self) -> Tensor:
        if self._lost_version != self.sim.version:
            self._lost = out_of_bounds(self.state())
            self._lost_version = self.sim.version
        return self._lost

    def metrics(self) -> Dict[str, Tensor]:
        return {"survived": ~self.terminated()}


TASK = Cartpole

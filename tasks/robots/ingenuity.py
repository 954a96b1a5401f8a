"""Ingenuity: the Mars helicopter flies to a point that is drawn anew every 500 steps.

The published task (Isaac Gym Envs): 6 actions (lateral and vertical thrust of two coaxial rotors), 13 observations,
task reward r = closeness to the point, and a heuristic h that also pays for being level and not turning. What differs
from PhysX: docs/parity/Ingenuity.md.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Dict, List, Mapping, Tuple

import torch
from torch import Tensor

from hepo_isaac.envs.interface import ABSOLUTE, ActionGroup
from hepo_isaac.envs.math import quat_rotate
from hepo_isaac.envs.streams import Streams
from hepo_isaac.sim.base import Simulation
from hepo_isaac.sim.spec import ActorSpec, SceneSpec

from .flight import ASSETS, HOVER_POINT, TARGET_MARKER, FlightState, HoverTask, hover_terms, start_roots

ROTORS = ("ingenuity/rotor0", "ingenuity/rotor1")
MARS_GRAVITY = (0.0, 0.0, -3.721)  # m/s^2
MAX_THRUST = 20.0  # N per rotor, either way; hovering takes 2.79
MAX_LATERAL = 0.2  # of the vertical thrust
TARGET_LOW, TARGET_HIGH = (-5.0, -5.0, 1.0), (5.0, 5.0, 2.0)  # m, uniform between
TARGET_PERIOD = 500  # steps


def default_heuristic(s: FlightState) -> Dict[str, Tensor]:
    """The published shaping h = P + P (5 U + S), in (0, 7]."""
    return hover_terms(s, 5.0)


def rotor_forces(actions: Tensor) -> Tensor:
    """Body-frame forces (N, 2, 3) from actions (N, 6), (x, y, z) per rotor.

    The vertical thrust is 20 N a_z, pushing down where a_z < 0; the lateral one is the vertical one times a_xy,
    clamped to 0.2, so it changes sign with it.
    """
    each = actions.unflatten(1, (2, 3))
    vertical = MAX_THRUST * each[..., 2:]
    return torch.cat((vertical * each[..., :2].clamp(-MAX_LATERAL, MAX_LATERAL), vertical), -1)


@lru_cache(maxsize=None)
def _target_box(device: torch.device) -> Tuple[Tensor, Tensor]:
    """Low corner and edges (3,) of the targets, made once."""
    low, high = torch.tensor([TARGET_LOW, TARGET_HIGH], device=device)
    return low, high - low


def draw_target(uniform: Tensor) -> Tensor:
    """(N, 3) targets from uniform (N, 3) on [0, 1)."""
    low, span = _target_box(uniform.device)
    return low + span * uniform


class Ingenuity(HoverTask):
    """See the module docstring. cfg: the ``task`` group (cfg/task/Ingenuity.yaml).

    Instance attributes:
        clock: (N,) int64, control steps since the reset, from 1; a new target is drawn whenever it is a multiple of
            TARGET_PERIOD.
    """

    name = "Ingenuity"
    num_obs = 13
    num_actions = 6
    heuristics = {"default": default_heuristic}
    num_rotors = 2
    max_distance = 8.0
    min_height = 0.5
    hover_radius = 0.5

    @classmethod
    def scene(cls, cfg: Mapping[str, Any], engine: str) -> SceneSpec:
        physics = cfg["physics"]
        actor = ActorSpec("ingenuity", ASSETS / "ingenuity.xml", HOVER_POINT, fixed=False, collision_mask=0)
        return SceneSpec(
            actors=(actor,),
            control_dt=float(physics["control_dt"]),
            substeps=int(physics["substeps"]),
            gravity=MARS_GRAVITY,
            body_states=ROTORS,
            body_velocities=False,
            markers=(TARGET_MARKER,),  # the published one hangs 0.4 m above the point
            options=physics["options"],
        )

    def __init__(self, cfg: Mapping[str, Any], sim: Simulation, streams: Streams) -> None:
        super().__init__(cfg, sim, streams)
        assert sim.body_names == list(ROTORS)
        # The published step counter: a new episode starts at 1, since its first step (a reset) is left out.
        self.clock = torch.ones(sim.num_envs, dtype=torch.int64, device=sim.device)

    def apply(self, actions: Tensor) -> None:
        """Push the rotors; where a period is over, draw a new target first (as published: unseen by this action)."""
        self._actions.copy_(actions)
        redraw = self.clock % TARGET_PERIOD == 0
        if self.sim.may_select(redraw):
            target = draw_target(self.streams.rand(3, mask=redraw))
            self.target = torch.where(redraw.unsqueeze(1), target, self.target)
        self.clock += 1
        forces = rotor_forces(actions)
        self.thrust = forces[..., 2]
        self.sim.apply_body_force(quat_rotate(self.sim.root_state[:, :, 3:7], forces))  # rotors are fixed to the root

    def action_layout(self) -> List[ActionGroup]:
        found, share = [], "the force is this share of the rotor's vertical one and changes sign with it"
        for rotor in ROTORS:
            names = (rotor + "/x", rotor + "/y")
            bounds = (-MAX_LATERAL, MAX_LATERAL)
            found.append(ActionGroup(names, "lateral over vertical force", "1", 1.0, ABSOLUTE, 0.0, *bounds, share))
            found.append(ActionGroup((rotor + "/z",), "vertical force, in the body's frame", "N", MAX_THRUST))
        return found

    def reset(self, mask: Tensor) -> None:
        uniform, column = self.streams.rand(6, mask=mask), mask.unsqueeze(1)
        self.target = torch.where(column, draw_target(uniform[:, 3:]), self.target)
        self.thrust = self.thrust.masked_fill(column, 0.0)
        self.clock.masked_fill_(mask, 1)
        self.sim.set_state(mask, root_state=start_roots(uniform[:, :3]))

    def get_state(self) -> Dict[str, Any]:
        return {**super().get_state(), "target": self.target.clone(), "clock": self.clock.clone()}

    def load_state(self, state: Dict[str, Any]) -> None:
        super().load_state(state)
        self.target = state["target"].to(self.sim.device).clone()
        self.clock.copy_(state["clock"])


TASK = Ingenuity

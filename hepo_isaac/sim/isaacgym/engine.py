"""NVIDIA Isaac Gym Preview 4 (PhysX) behind the Simulation contract.

Three things differ from how Isaac Gym's own tasks use it:

* PhysX renews link poses in ``simulate`` alone, so right after a reset its rigid-body tensor still shows the old
  episode. Roots and joints are known at once; until the next step, links of environments that were written follow from
  them by forward kinematics in torch (hepo_isaac/sim/isaacgym/kinematics.py), on the device.
* A tensor may be set through indices once between two ``simulate``s. Every ``set_state`` and ``reset`` writes into the
  buffers and marks its environments; the next ``step`` hands all marked ones over in one call per tensor.
* PhysX's velocities are those of centres of mass; the contract's are those of body origins.

Tensors stay where PhysX has them: on the GPU with ``device=cuda:k``, on the host with ``device=cpu``.
"""

# ruff: noqa: D102  (docstrings are inherited from Simulation)
from __future__ import annotations

from typing import Any, Dict, List, Optional, Sequence

from isaacgym import gymapi, gymtorch  # isort: skip  (before torch, or it refuses)

import numpy as np
import torch
from torch import Tensor

from hepo_isaac.sim.commands import HeldCommands
from hepo_isaac.sim.isaacgym.kinematics import Kinematics, LinkStates
from hepo_isaac.sim.isaacgym.randomize import PhysicalParameters
from hepo_isaac.sim.isaacgym.scene import SceneBuilder
from hepo_isaac.sim.math import quat_rotate
from hepo_isaac.sim.spec import SceneSpec

MAX_VALUE = 1e10  # MuJoCo's bound: a state component beyond it counts as diverged
NO_BOUND = 1e8  # rad or m
ASSET_TOLERANCE = 2e-3  # m, between PhysX's link positions and those that follow from its joints


class IsaacGymSimulation(HeldCommands):
    """Simulation contract on Isaac Gym.

    Args:
        spec: the scene.  num_envs: number of environments N.
        device: "cuda:k" (PhysX and tensors on that GPU) or "cpu".
        assets: folder with NVIDIA's own asset files; None builds from ours.

    Raises:
        ValueError: the scene asks for what Isaac Gym does not have.
        UserError: ``assets`` is incomplete.
    """

    limits_joint_speed = True  # PhysX's maxJointVelocity
    damps_links = True  # gymapi.AssetOptions.linear_damping and angular_damping

    def __init__(self, spec: SceneSpec, num_envs: int, device: str = "cuda:0", assets: Optional[str] = None) -> None:
        self.spec, self.num_envs, self.device = spec, num_envs, torch.device(device)
        self.scene = scene = SceneBuilder(spec, num_envs, device, assets).build()
        self.gym, self.sim, self._open = scene.gym, scene.sim, True
        self.dof_names, self.actor_names = scene.dof_names, [actor.spec.name for actor in scene.actors]
        self.body_names = list(spec.body_states) or list(scene.body_rows)
        self._check_names()
        self._kinematics = Kinematics(scene.links, len(scene.actors), len(scene.dof_names), self.device)
        self._acquire()
        self._allocate()
        self._index()
        self._physical = PhysicalParameters(scene, self.dof_names)
        self._asset_checked = False
        self.reset(torch.ones(num_envs, dtype=torch.bool, device=self.device))

    # -- set-up ------------------------------------------------------------------------------------------------
    def _check_names(self) -> None:
        missing = sorted(set(self.body_names + list(self.spec.contact_bodies)) - set(self.scene.body_rows))
        if missing:
            raise ValueError(
                "the scene has no body %s; it has: %s" % (", ".join(missing), ", ".join(self.scene.body_rows))
            )

    def _acquire(self) -> None:
        """Views of Isaac Gym's own buffers, (N, ...). Tensors without elements are not asked for: it cannot."""
        gym, sim, n = self.gym, self.sim, self.num_envs

        def view(acquire: Any, *shape: int) -> Tensor:
            if not shape[0]:
                return torch.zeros(n, *shape, device=self.device)
            found: Tensor = gymtorch.wrap_tensor(acquire(sim)).view(n, *shape)
            return found

        dofs, bodies = self.scene.num_gym_dofs, self.scene.num_gym_bodies
        self._gym_root = view(gym.acquire_actor_root_state_tensor, len(self.actor_names), 13)
        self._gym_dof = view(gym.acquire_dof_state_tensor, dofs, 2)
        self._gym_dof_force = view(gym.acquire_dof_force_tensor, dofs)
        self._gym_body = view(gym.acquire_rigid_body_state_tensor, bodies, 13)
        self._gym_contact = view(gym.acquire_net_contact_force_tensor, bodies, 3)
        self._gym_sensor = view(gym.acquire_force_sensor_tensor, len(self.spec.force_sensors), 6)
        self._refresh_buffers()

    def _allocate(self) -> None:
        n, d, device = self.num_envs, len(self.dof_names), self.device

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(n, *shape, device=device)

        self.dof_pos, self.dof_vel, self.dof_force, self.dof_target_pos = (zeros(d) for _ in range(4))
        self._target_vel, self._effort = zeros(d), zeros(d)
        self.root_state, self.body_state = zeros(len(self.actor_names), 13), zeros(len(self.body_names), 13)
        self.contact_force = zeros(len(self.spec.contact_bodies), 3)
        self.force_sensor = zeros(len(self.spec.force_sensors), 6)
        self.bad_envs = torch.zeros(n, dtype=torch.bool, device=device)
        self.overflow_count = torch.zeros((), dtype=torch.int64, device=device)  # PhysX keeps no count of it
        self._marked = torch.zeros(n, dtype=torch.bool, device=device)
        self._touched = False  # some set_state or reset came since the last step
        self._link_states: Optional[LinkStates] = None  # by our kinematics, of state _links_version
        self._links_version = -1
        self._push: Optional[List[Tensor]] = None  # force and torque on all of Isaac Gym's bodies
        # What Isaac Gym reads; a handle to a tensor does not keep it alive.
        self._command = {mode: zeros(self.scene.num_gym_dofs) for mode in ("position", "velocity", "effort")}
        self._sent: List[Tensor] = []

    def _index(self) -> None:
        scene, device = self.scene, self.device

        def long(values: Any) -> Tensor:
            return torch.as_tensor(np.asarray(values, dtype=np.int64), device=device)

        self._columns = long(scene.dof_columns)
        self._body_rows = long([scene.body_rows[name] for name in self.body_names])
        self._frames = long([self._kinematics.frame(name) for name in self.body_names])
        self._contact_rows = long([scene.body_rows[name] for name in self.spec.contact_bodies])
        self._sensor_rows = long(scene.sensor_rows)
        self._free = long([k for k, actor in enumerate(scene.actors) if not actor.spec.fixed])
        ids = torch.as_tensor(scene.actor_ids, device=device)
        self._free_ids = ids[:, self._free].contiguous()
        self._dof_ids = ids[:, long([k for k, actor in enumerate(scene.actors) if actor.num_dofs])].contiguous()
        self._root_com = torch.as_tensor(scene.root_com, dtype=torch.float32, device=device)
        links = [self._kinematics.links[self._kinematics.frame(n) - len(scene.actors)] for n in self.body_names]
        self._body_com = torch.tensor([list(link.com) for link in links], device=device).reshape(-1, 3)
        self._comparable = torch.tensor([float(x) for x in self._single_joints()], device=device)
        self._modes = set(scene.dof_modes)
        lower, upper = self._limits()
        self.dof_lower, self.dof_upper = (torch.tensor(x, dtype=torch.float32, device=device) for x in (lower, upper))
        self._armature = self._property("armature")
        self._default_root = torch.tensor([self._start(actor) for actor in scene.actors], device=device)
        self.root_state.copy_(self._default_root.expand_as(self.root_state))  # fixed actors keep it

    def _single_joints(self) -> List[bool]:
        """Of each served body, whether all bodies on the way from the root to it have one joint at most."""
        links, found = self._kinematics.links, []
        for name in self.body_names:
            index, single = self._kinematics.frame(name) - len(self.scene.actors), True
            while index >= 0:
                single &= bool(links[index].name)
                index = links[index].parent
            found.append(single)
        return found

    def _limits(self) -> Any:
        lower, upper = [], []
        for actor in self.scene.actors:
            for joint in actor.ours.joints:
                row = actor.joints[joint.name]
                bounds = [float(actor.props[key][row]) for key in ("lower", "upper")]
                # Isaac Gym may write "none" as no limit at all or as a huge one.
                limited = bool(actor.props["hasLimits"][row]) and max(map(abs, bounds)) < NO_BOUND
                lower.append(bounds[0] if limited else -np.inf)
                upper.append(bounds[1] if limited else np.inf)
        return lower, upper

    def _property(self, key: str) -> Tensor:
        """(D,) a property of the joints."""
        values = [float(a.props[key][a.joints[j.name]]) for a in self.scene.actors for j in a.ours.joints]
        return torch.tensor(values, dtype=torch.float32, device=self.device)

    @staticmethod
    def _start(actor: Any) -> List[float]:
        p, r = actor.pose.p, actor.pose.r
        return [p.x, p.y, p.z, r.x, r.y, r.z, r.w] + [0.0] * 6

    # -- commands ----------------------------------------------------------------------------------------------
    def apply_body_force(self, force: Tensor, torque: Optional[Tensor] = None) -> None:
        shape = (self.num_envs, self.scene.num_gym_bodies, 3)
        pushes = [torch.zeros(shape, device=self.device) for _ in range(2)]
        pushes[0].index_copy_(1, self._body_rows, force)
        if torque is not None:
            pushes[1].index_copy_(1, self._body_rows, torque)
        self._push = pushes

    # -- step --------------------------------------------------------------------------------------------------
    def step(self) -> None:
        gym, sim = self.gym, self.sim
        unsound = self._send_state() | self._send_commands()
        for _ in range(self.scene.settings.simulates):
            # These two last for one simulate only.
            if "effort" in self._modes:
                gym.set_dof_actuation_force_tensor(sim, gymtorch.unwrap_tensor(self._command["effort"]))
            if self._push is not None:
                force, torque = (gymtorch.unwrap_tensor(x) for x in self._push)
                gym.apply_rigid_body_force_tensors(sim, force, torque, gymapi.ENV_SPACE)
            gym.simulate(sim)
            if self.device.type == "cpu":
                gym.fetch_results(sim, True)
        self._push = None
        self._refresh_buffers()
        self._take_over()
        if not self._asset_checked:
            self._check_assets()
        self.bad_envs.copy_(unsound | ~self._sound())

    def _send_state(self) -> Tensor:
        """Hand all environments over that were written since the last step; returns those whose state is not finite,
        which start at rest instead: it would take the whole simulation down.

        Which these are is asked once per step: an indexed set needs their number on the host.
        """
        unsound = torch.zeros_like(self.bad_envs)
        if not self._touched:
            return unsound
        self._touched = False
        marked = self._marked.nonzero().flatten()  # host read: the number of environments in an indexed set
        if not len(marked):
            return unsound
        unsound = self._marked & ~self._sound()
        self._put(self._gym_dof, unsound, torch.zeros_like(self._gym_dof))
        self._put(self._gym_root, unsound, self._default_root.expand_as(self._gym_root))
        gym, sim = self.gym, self.sim
        dofs, roots = (ids[marked].flatten().contiguous() for ids in (self._dof_ids, self._free_ids))
        self._sent = [dofs, roots]
        if len(dofs):
            states = gymtorch.unwrap_tensor(self._gym_dof)
            gym.set_dof_state_tensor_indexed(sim, states, gymtorch.unwrap_tensor(dofs), len(dofs))
        if len(roots):
            states = gymtorch.unwrap_tensor(self._gym_root)
            gym.set_actor_root_state_tensor_indexed(sim, states, gymtorch.unwrap_tensor(roots), len(roots))
        self._marked.zero_()
        return unsound

    def _sound(self) -> Tensor:
        """(N,) bool: all of the state is finite and of a sane size; NaN compares false."""
        state = torch.cat((self._gym_root.flatten(1), self._gym_dof.flatten(1)), 1)
        return (state.abs() <= MAX_VALUE).all(1)

    def _send_commands(self) -> Tensor:
        """Targets and efforts; returns the environments with a command that is not finite, whose commands are 0."""
        gym, sim = self.gym, self.sim
        sent = {"position": self.dof_target_pos, "velocity": self._target_vel, "effort": self._effort}
        unsound = torch.zeros_like(self.bad_envs)
        for mode, command in sent.items():
            if mode in self._modes:
                finite = command.abs() <= MAX_VALUE
                unsound = unsound | ~finite.all(1)
                self._command[mode].index_copy_(
                    1, self._columns, torch.where(finite, command, torch.zeros_like(command))
                )
        if "position" in self._modes:
            gym.set_dof_position_target_tensor(sim, gymtorch.unwrap_tensor(self._command["position"]))
        if "velocity" in self._modes:
            gym.set_dof_velocity_target_tensor(sim, gymtorch.unwrap_tensor(self._command["velocity"]))
        return unsound

    # -- refresh -----------------------------------------------------------------------------------------------
    def _refresh_buffers(self) -> None:
        """Let Isaac Gym fill its buffers."""
        gym, sim = self.gym, self.sim
        gym.refresh_actor_root_state_tensor(sim)
        gym.refresh_rigid_body_state_tensor(sim)
        if self.scene.num_gym_dofs:
            gym.refresh_dof_state_tensor(sim)
            gym.refresh_dof_force_tensor(sim)
        if self.spec.contact_bodies:
            gym.refresh_net_contact_force_tensor(sim)
        if self.spec.force_sensors:
            gym.refresh_force_sensor_tensor(sim)

    def _take_over(self) -> None:
        """What a step leaves in Isaac Gym's buffers into the contract's tensors."""
        torch.index_select(self._gym_dof_force, 1, self._columns, out=self.dof_force)
        torch.index_select(self._gym_contact, 1, self._contact_rows, out=self.contact_force)
        torch.index_select(self._gym_sensor, 1, self._sensor_rows, out=self.force_sensor)
        self._refresh_state()

    def _refresh_state(self) -> None:
        """Joints, roots and links out of the buffers; links of environments written since the last step from their
        joints and roots, since PhysX's are old."""
        self.version += 1
        torch.index_select(self._gym_dof[..., 0], 1, self._columns, out=self.dof_pos)
        torch.index_select(self._gym_dof[..., 1], 1, self._columns, out=self.dof_vel)
        self.root_state.index_copy_(
            1, self._free, self._moved_to_com(self._gym_root, self._root_com, -1.0)[:, self._free]
        )
        body = self._moved_to_com(self._gym_body[:, self._body_rows], self._body_com, -1.0)
        if self._touched:
            body = torch.where(self._marked[:, None, None], self._body_from_joints(), body)
        if not self.spec.body_velocities:
            body = torch.cat((body[..., :7], torch.full_like(body[..., 7:], float("nan"))), -1)
        self.body_state.copy_(body)

    def _body_from_joints(self) -> Tensor:
        """(N, B, 13) the served bodies by forward kinematics."""
        links, rows = self._links(), self._frames
        return torch.cat((links.pos[:, rows], links.quat[:, rows], links.linear[:, rows], links.angular[:, rows]), -1)

    @staticmethod
    def _moved_to_com(state: Tensor, com: Tensor, sign: float) -> Tensor:
        """States (N, K, 13) whose velocity is that of the centres of mass, com (K, 3) in their frames, out of those of
        the origins (sign 1) or the other way round (-1)."""
        arm = quat_rotate(state[..., 3:7], com.expand_as(state[..., :3]))
        linear = state[..., 7:10] + sign * torch.linalg.cross(state[..., 10:], arm)
        return torch.cat((state[..., :7], linear, state[..., 10:]), -1)

    def _links(self) -> LinkStates:
        """By forward kinematics; kept while the state stands still."""
        if self._link_states is None or self._links_version != self.version:
            self._link_states = self._kinematics.forward(self.root_state, self.dof_pos, self.dof_vel)
            self._links_version = self.version
        return self._link_states

    def _check_assets(self) -> None:
        """Once: PhysX's link poses are where our kinematics put them, or poses after resets would be another robot's.

        Not of links behind a body with several joints, whose angles PhysX counts in its own way.
        """
        self._asset_checked = True
        off = (self._body_from_joints()[..., :3] - self.body_state[..., :3]).norm(dim=-1).amax(0) * self._comparable
        worst = int(off.argmax()) if len(off) else 0  # host read: once in a simulation's life
        if len(off) and float(off[worst]) > ASSET_TOLERANCE:  # host read: once in a simulation's life
            name = self.body_names[worst]
            actor = self.scene.actors[self.actor_names.index(name.split("/", 1)[0])]
            raise ValueError(
                "Isaac Gym has body %r %.1f mm from where its joints should put it: %s is not the robot that the task"
                " describes; compare its frames with %s, or leave sim.assets out"
                % (name, 1e3 * float(off[worst]), actor.source, actor.spec.asset)  # host read: it stops the run
            )

    # -- states ------------------------------------------------------------------------------------------------
    def may_select(self, mask: Tensor) -> bool:
        return self.device.type != "cpu" or bool(mask.any())  # host read: on the CPU alone, where nobody waits

    def set_state(
        self,
        mask: Tensor,
        dof_pos: Optional[Tensor] = None,
        dof_vel: Optional[Tensor] = None,
        root_state: Optional[Tensor] = None,
        dof_target_pos: Optional[Tensor] = None,
    ) -> None:
        # Nobody knows what is wrong with a bad world, so what is not given starts afresh there.
        self._start_afresh(mask & self.bad_envs)
        for part, value in ((0, dof_pos), (1, dof_vel)):
            if value is not None:
                column = self._gym_dof[..., part]
                column.index_copy_(1, self._columns, torch.where(mask[:, None], value, column[:, self._columns]))
        if root_state is not None:
            given = self._gym_root.index_copy(
                1, self._free, self._moved_to_com(root_state, self._root_com, 1.0)[:, self._free]
            )
            self._put(self._gym_root, mask, given)
        if dof_target_pos is not None:
            self._put(self.dof_target_pos, mask, dof_target_pos)
        self._settle(mask)

    def reset(self, mask: Tensor) -> None:
        self._start_afresh(mask)
        self._settle(mask)

    def _start_afresh(self, mask: Tensor) -> None:
        """Joints at zero (those that only NVIDIA's files have, too), roots where the scene puts them, all at rest."""
        self._put(self._gym_dof, mask, torch.zeros_like(self._gym_dof))
        self._put(self._gym_root, mask, self._default_root.expand_as(self._gym_root))
        self._put(self.dof_target_pos, mask, torch.zeros_like(self.dof_target_pos))

    @staticmethod
    def _put(buffer: Tensor, mask: Tensor, value: Tensor) -> None:
        buffer.copy_(torch.where(mask.reshape(-1, *[1] * (buffer.dim() - 1)), value, buffer))

    def _settle(self, mask: Tensor) -> None:
        """Forget what belongs to the old episode, recompute the links, and mark for the next step."""
        for buffer in (self._target_vel, self._effort, self.dof_force, self.contact_force, self.force_sensor):
            self._put(buffer, mask, torch.zeros_like(buffer))
        if self._push is not None:
            for push in self._push:
                self._put(push, mask, torch.zeros_like(push))
        self.bad_envs &= ~mask
        self._marked |= mask
        self._touched = True
        self._refresh_state()

    # -- matrices and randomisation ----------------------------------------------------------------------------
    def jacobian(self, body: str) -> Tensor:
        links, frame = self._links(), self._kinematics.frame(self.body_names[self.body_index(body)])
        return self._kinematics.jacobian(links, frame, links.pos[:, frame])

    def mass_matrix(self) -> Tensor:
        return self._kinematics.mass_matrix(self._links(), self._armature)

    def randomize(self, field: str, mask: Tensor, values: Tensor, names: Sequence[str] = ()) -> None:
        self._physical.set(field, mask, values, names)

    # -- checkpoints -------------------------------------------------------------------------------------------
    _SAVED = (
        "_gym_dof",
        "_gym_root",
        "body_state",
        "dof_target_pos",
        "_target_vel",
        "_effort",
        "dof_force",
        "contact_force",
        "force_sensor",
        "bad_envs",
    )

    def get_state(self) -> Dict[str, Any]:
        """As the contract says, but PhysX's contacts and solver memory cannot be had: the continuation is close."""
        saved: Dict[str, Any] = {name.strip("_"): getattr(self, name).clone() for name in self._SAVED}
        saved["engine"] = "isaacgym"
        saved["physical"] = self._physical.get_state()
        saved["push"] = None if self._push is None else [push.clone() for push in self._push]
        return saved

    def load_state(self, state: Dict[str, Any]) -> None:
        found = state.get("gym_dof")
        if state.get("engine") != "isaacgym" or found is None or found.shape != self._gym_dof.shape:
            raise ValueError(
                "engine state of %r with shape %s does not fit isaacgym with shape %s"
                % (state.get("engine"), None if found is None else tuple(found.shape), tuple(self._gym_dof.shape))
            )
        self._physical.load_state(state["physical"])
        self._settle(torch.ones_like(self.bad_envs))
        for name in ("_gym_dof", "_gym_root"):
            getattr(self, name).copy_(state[name.strip("_")])
        self._refresh_state()
        for name in self._SAVED:  # with the links as PhysX had them
            getattr(self, name).copy_(state[name.strip("_")])
        self._push = None if state["push"] is None else [push.clone() for push in state["push"]]

    def close(self) -> None:
        if self._open:
            self._open = False
            self.gym.destroy_sim(self.sim)

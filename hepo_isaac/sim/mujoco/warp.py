"""The CUDA engine: mujoco_warp, thousands of worlds on one GPU.

The whole control step (commands, physics steps, fresh poses and velocities, every contract tensor) is one CUDA graph,
captured at the first step; ``graph=False`` runs the same code eagerly. No method asks the host about device data.
Physics is float32 and, because contacts are pooled and summed in any order, not bit-reproducible on a GPU.
``device="cpu"`` runs the same kernels on the host, slowly and without graphs: it serves the parity tests.
"""

# ruff: noqa: D102  (docstrings are inherited from Simulation)
from __future__ import annotations

from typing import Any, Dict, List, Optional, Sequence

import mujoco
import mujoco_warp as mjw
import numpy as np
import torch
import warp as wp
from torch import Tensor

from hepo_isaac.cuda import with_index
from hepo_isaac.errors import Notice
from hepo_isaac.sim.math import quat_conjugate, quat_rotate, xyzw_to_wxyz
from hepo_isaac.sim.mujoco import warp_kernels as kernels
from hepo_isaac.sim.mujoco.common import MAX_VALUE, NEEDS_SET_CONST, MujocoSimulation, sensor_layout
from hepo_isaac.sim.mujoco.model import weigh_links
from hepo_isaac.sim.mujoco.warp_compile import start_warp
from hepo_isaac.sim.mujoco.warp_graphs import LaunchGraphs
from hepo_isaac.sim.spec import SceneSpec

# Overflow bits that mean lost contacts or constraints. The solver's iteration limits share the bit set, but ending a
# solve at its limit is ordinary.
_BUFFERS = int(
    mjw.OverflowType.NEFC
    | mjw.OverflowType.NJMAX_NNZ
    | mjw.OverflowType.BROADPHASE
    | mjw.OverflowType.NARROWPHASE
    | mjw.OverflowType.CCD
    | mjw.OverflowType.HFIELD
    | mjw.OverflowType.CONTACT_MATCH
    | mjw.OverflowType.NVMAX
)
# set_const writes these; one left shared by all worlds would silently take world 0's value.
_DERIVED = ("body_subtreemass", "body_invweight0", "dof_invweight0", "actuator_acc0")
_MODES = {"position": 0, "velocity": 1, "effort": 2}


class MujocoWarpSimulation(MujocoSimulation):
    """Simulation contract on mujoco_warp.

    Args:
        spec: the scene. ``spec.options["mujoco_warp"]`` may hold ``nconmax`` (contacts per world, pooled over all of
            them) and ``njmax`` (constraint rows of any one world); without them mujoco_warp's own guess is used,
            which is often too small: watch ``overflow_count``.
        num_envs: number of worlds N.
        device: "cuda:k", or "cpu" for tests.
        graph: replay a captured CUDA graph (needs CUDA's memory pools) instead of launching kernel by kernel.
        refine: solve every physics step twice: accelerations to 1e-5 instead of 1e-3 where contacts are stiff, at 1.7
            times the cost (docs/parity/warp.md).
    """

    def __init__(
        self, spec: SceneSpec, num_envs: int, device: str = "cuda:0", graph: bool = True, refine: bool = False
    ) -> None:
        start_warp(with_index(device))
        self._set_up(spec, num_envs, with_index(device))
        self.graphs = LaunchGraphs(self.device, graph, self._everything, self._follow_graphs)
        self._wp_device = self.graphs.wp_device
        self._refine = refine
        self._axis_links = self._long(self.scene.axis_links)
        self._axis_levers = torch.tensor(self.scene.axis_levers, dtype=torch.float32, device=self.device)
        with self.graphs.launching():
            sizes = {k: int(v) for k, v in spec.options.get("mujoco_warp", {}).items() if k in ("nconmax", "njmax")}
            self.wp_model = mjw.put_model(self.model)
            self.wp_data = mjw.make_data(self.model, nworld=num_envs, **sizes)
            self._note_departures()
            # Bits are still set in data.overflow; only the printing from inside kernels is off.
            self.wp_model.opt.warn_overflow = 0
            self._follow_graphs()
            self._bind()
            self._settle(torch.ones(num_envs, dtype=torch.bool, device=self.device))
        self.dof_target_pos.copy_(self.dof_pos)

    # -- set-up ------------------------------------------------------------------------------------------------
    def _note_departures(self) -> None:
        """What this scene needs beyond mjw.step (mujoco_warp 4.0) to do the same as MuJoCo C."""
        model, geom, kinds = self.model, mujoco.mjtGeom, mujoco.mjtEq
        # connect and weld need the change of their Jacobian, for which mjw.step uses the last step's velocities.
        self._loops = bool(np.isin(model.eq_type, (int(kinds.mjEQ_CONNECT), int(kinds.mjEQ_WELD))).any())
        # The friction pyramid of a capsule on a plane lies along the capsule; mjw.step forgets that for steep ones.
        solid = model.geom_type[(model.geom_contype | model.geom_conaffinity) > 0]
        self._feet = bool((solid == int(geom.mjGEOM_PLANE)).any() and (solid == int(geom.mjGEOM_CAPSULE)).any())
        self.wp_model.opt.run_collision_detection = not self._feet  # then it is run before the step
        # Two boxes: MuJoCo C's analytic collider instead of GJK/EPA, the one thing this flag changes in mujoco_warp.
        self.wp_model.opt.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_NATIVECCD)

    def _follow_graphs(self) -> None:
        """Loops that end when the device says so belong in a graph; outside of one the host would be asked."""
        self.wp_model.opt.graph_conditional = self.graphs.loops

    def _bind(self) -> None:
        """Torch views of Warp's arrays, and Warp views of the contract's tensors."""
        d, scene = self.wp_data, self.scene
        self._qpos, self._qvel = wp.to_torch(d.qpos), wp.to_torch(d.qvel)
        self._xfrc, self._overflow = wp.to_torch(d.xfrc_applied), wp.to_torch(d.overflow)
        self._warmstart, self._time = wp.to_torch(d.qacc_warmstart), wp.to_torch(d.time)
        self._cdof, self._xpos = wp.to_torch(d.cdof), wp.to_torch(d.xpos)
        self._com, self._inertia = wp.to_torch(d.subtree_com), wp.to_torch(d.M)
        self._fields: Dict[str, Tensor] = {}
        self._default_qpos = self._qpos[0].clone()
        self._mask = torch.zeros(self.num_envs, dtype=torch.bool, device=self.device)
        self._error = torch.atleast_2d(self._act_error).to(torch.float32).contiguous()

        def ints(values: Any) -> wp.array:
            return wp.array(np.asarray(values, dtype=np.int32), dtype=int, device=self._wp_device)

        act_of = {a.dof: i for i, a in enumerate(scene.actuators)}
        self._k_dof_q, self._k_dof_v = ints(scene.qpos_adr), ints(scene.qvel_adr)
        self._k_act_dof = ints([a.dof for a in scene.actuators])
        self._k_act_mode = ints([_MODES[a.mode] for a in scene.actuators])
        self._k_dof_act = ints([act_of.get(dof, -1) for dof in range(len(self.dof_names))])
        self._k_body, self._k_body_root = ints(scene.body_ids), ints(self.model.body_rootid[scene.body_ids])
        self._k_actor_q, self._k_actor_v = ints(scene.actor_qpos), ints(scene.actor_qvel)
        flat = {"force_sensor": self.force_sensor.view(self.num_envs, -1)}
        flat["contact_force"] = self.contact_force.view(self.num_envs, -1)
        for name in ("dof_pos", "dof_vel", "dof_force", "dof_target_pos", "body_state", "root_state", "bad_envs"):
            flat[name] = getattr(self, name)
        flat.update(target_vel=self._target_vel, effort=self._effort, mask=self._mask)
        flat["overflow_count"] = self.overflow_count.view(1)
        self._w = {name: wp.from_torch(tensor) for name, tensor in flat.items()}
        self._w["error"] = wp.from_torch(self._error)

    def _launch(self, kernel: Any, dim: Any, *args: Any) -> None:
        wp.launch(kernel, dim=dim, inputs=list(args), device=self._wp_device)

    # -- commands ----------------------------------------------------------------------------------------------
    def apply_body_force(self, force: Tensor, torque: Optional[Tensor] = None) -> None:
        self._xfrc[:, self._body, :3] = force
        if torque is not None:
            self._xfrc[:, self._body, 3:] = torque

    # -- lifecycle ---------------------------------------------------------------------------------------------
    def step(self) -> None:
        self.version += 1
        self.graphs.run("step", self._advance)

    def _advance(self) -> None:
        """One control step; everything in here is captured."""
        m, d, w, n = self.wp_model, self.wp_data, self._w, self.num_envs
        d.overflow.zero_()
        if self.model.nu:
            commands = (w["dof_target_pos"], w["target_vel"], w["effort"])
            mapping = (self._k_dof_q, self._k_act_dof, self._k_act_mode, w["error"])
            self._launch(kernels.write_controls, (n, self.model.nu), d.qpos, *mapping, *commands, d.ctrl)
        for _ in range(self.spec.substeps):
            self._prepare_step()
            if self._refine:
                self._refined_step()
            else:
                mjw.step(m, d)
        d.xfrc_applied.zero_()
        self._refresh()
        split, end = sensor_layout(self.spec)
        served = (w["dof_force"], w["force_sensor"], w["contact_force"])
        self._launch(kernels.refresh_forces, n, d.actuator_force, d.sensordata, self._k_dof_act, split, end, *served)
        self._launch(
            kernels.flag_bad, n, d.qpos, d.qvel, d.overflow, _BUFFERS, MAX_VALUE, w["bad_envs"], w["overflow_count"]
        )

    def _prepare_step(self) -> None:
        """Where mujoco_warp's step departs from MuJoCo's (docs/parity/warp.md), compute the inputs that mend it."""
        m, d = self.wp_model, self.wp_data
        if self._loops or self._feet:
            mjw.kinematics(m, d)
            mjw.com_pos(m, d)
        if self._loops:
            mjw.com_vel(m, d)
        if self._feet:
            mjw.collision(m, d)
            contact = d.contact
            geoms = (contact.geom, m.geom_type, d.geom_xmat)
            self._launch(kernels.align_capsules, d.naconmax, d.nacon, contact.worldid, *geoms, contact.frame)

    def _refined_step(self) -> None:
        """mjw.step with a second solve that starts from the first one's result.

        A solve in float32 ends as soon as one Newton step seems exact and is then off by float32's rounding times the
        constraints' condition number; the second one works on what is left.
        """
        m, d = self.wp_model, self.wp_data
        mjw.step1(m, d)
        mjw.fwd_actuation(m, d)
        mjw.fwd_acceleration(m, d)
        mjw.solve(m, d)
        wp.copy(d.qacc_warmstart, d.qacc)
        mjw.step2(m, d)

    def _refresh(self) -> None:
        """Poses and velocities of the present qpos and qvel: mjw.step leaves them one physics step old."""
        m, d, w, n = self.wp_model, self.wp_data, self._w, self.num_envs
        mjw.kinematics(m, d)
        mjw.com_pos(m, d)
        if self.spec.body_velocities:
            mjw.com_vel(m, d)
        joints = (self._k_dof_q, self._k_dof_v, w["dof_pos"], w["dof_vel"])
        self._launch(kernels.refresh_dofs, (n, len(self.dof_names)), d.qpos, d.qvel, *joints)
        poses = (d.xpos, d.xquat, d.cvel, d.subtree_com, self._k_body, self._k_body_root)
        velocities = self.spec.body_velocities
        self._launch(kernels.refresh_bodies, (n, len(self.body_names)), *poses, velocities, w["body_state"])
        roots = (self._k_actor_q, self._k_actor_v, w["root_state"])
        self._launch(kernels.refresh_roots, (n, len(self.actor_names)), d.qpos, d.qvel, *roots)

    def set_state(
        self,
        mask: Tensor,
        dof_pos: Optional[Tensor] = None,
        dof_vel: Optional[Tensor] = None,
        root_state: Optional[Tensor] = None,
        dof_target_pos: Optional[Tensor] = None,
    ) -> None:
        # A diverged world may hold NaN in any component, so it starts afresh.
        self._restore(mask & self.bad_envs)
        column = mask[:, None]
        for values, state, index in ((dof_pos, self._qpos, self._dof_q), (dof_vel, self._qvel, self._dof_v)):
            if values is not None:
                state[:, index] = torch.where(column, values, state[:, index])
        if root_state is not None:
            self._write_roots(column, root_state)
        if dof_target_pos is not None:
            self.dof_target_pos.copy_(torch.where(column, dof_target_pos, self.dof_target_pos))
        self._settle(mask)

    def reset(self, mask: Tensor) -> None:
        self._restore(mask)
        default = self._default_qpos[self._dof_q]
        self.dof_target_pos.copy_(torch.where(mask[:, None], default, self.dof_target_pos))
        self._settle(mask)

    def _restore(self, mask: Tensor) -> None:
        column = mask[:, None]
        self._qpos.copy_(torch.where(column, self._default_qpos, self._qpos))
        self._qvel.copy_(torch.where(column, torch.zeros_like(self._qvel), self._qvel))

    def _write_roots(self, column: Tensor, root: Tensor) -> None:
        for actor, (q, v) in enumerate(zip(self.scene.actor_qpos, self.scene.actor_qvel)):
            if q < 0:
                continue
            state = root[:, actor]
            quat = state[:, 3:7]
            pose = torch.cat((state[:, :3], xyzw_to_wxyz(quat)), 1)
            twist = torch.cat((state[:, 7:10], quat_rotate(quat_conjugate(quat), state[:, 10:13])), 1)
            self._qpos[:, q : q + 7] = torch.where(column, pose, self._qpos[:, q : q + 7])
            self._qvel[:, v : v + 6] = torch.where(column, twist, self._qvel[:, v : v + 6])

    def _settle(self, mask: Tensor) -> None:
        """Forget what belongs to the old episodes of masked worlds and recompute everything derived."""
        self.version += 1
        self._mask.copy_(mask)
        self.graphs.run("settle", self._settle_body)

    def _settle_body(self) -> None:
        d, w = self.wp_data, self._w
        solver = (d.qacc_warmstart, d.qfrc_applied, d.xfrc_applied, d.time, d.overflow)
        served = (w["dof_force"], w["force_sensor"], w["contact_force"])
        self._launch(
            kernels.settle, self.num_envs, w["mask"], *solver, w["bad_envs"], w["target_vel"], w["effort"], *served
        )
        self._refresh()

    def _everything(self) -> Dict[str, Tensor]:
        """All tensors that make up the state, by name."""
        return {
            "qpos": self._qpos,
            "qvel": self._qvel,
            "qacc_warmstart": self._warmstart,
            "xfrc_applied": self._xfrc,
            "time": self._time,
            "target_vel": self._target_vel,
            "effort": self._effort,
            "dof_target_pos": self.dof_target_pos,
            "dof_force": self.dof_force,
            "contact_force": self.contact_force,
            "force_sensor": self.force_sensor,
            "bad_envs": self.bad_envs,
            "overflow_count": self.overflow_count,
        }

    # -- matrices and randomisation ----------------------------------------------------------------------------
    def jacobian(self, body: str) -> Tensor:
        return self._jacobian(body, self._cdof, self._xpos, self._com)

    def mass_matrix(self) -> Tensor:
        with self.graphs.launching():
            mjw.crb(self.wp_model, self.wp_data)
        return self._dense_mass(self._inertia)

    def _model_array(self, field: str) -> Tensor:
        """A live (N, ...) view; a field that all worlds share so far is copied for each and the graphs go stale."""
        if field not in self._fields:
            holder, name = (self.wp_model.opt, "gravity") if field == "opt.gravity" else (self.wp_model, field)
            shared = getattr(holder, name)
            one = shared.numpy()[:1]  # host read: once per field, when it first differs between worlds
            values = np.broadcast_to(one, (self.num_envs, *one.shape[1:])).copy()
            array = wp.array(values, dtype=shared.dtype, device=self._wp_device)
            array._is_batched = True  # as put_model marks fields with a leading world dimension
            setattr(holder, name, array)
            self.graphs.clear()
            self._fields[field] = wp.to_torch(array)
        if field not in _DERIVED:
            self._randomized[field] = self._fields[field]
        return self._fields[field]

    def randomize(self, field: str, mask: Tensor, values: Tensor, names: Sequence[str] = ()) -> None:
        writes = self._plan(field, names, values)
        with self.graphs.launching():
            self._apply_writes(writes, mask, values)
            self._note_gains(field, names, mask, values)
            self._follow_gains()
            if field in NEEDS_SET_CONST:
                self._set_const()
                self._refresh()

    def _follow_gains(self) -> None:
        error = torch.atleast_2d(self._act_error).to(torch.float32)
        if error.shape == self._error.shape:
            self._error.copy_(error)
        else:
            self._error = error.contiguous()
            self._w["error"] = wp.from_torch(self._error)
            self.graphs.clear()

    def _set_const(self) -> None:
        for name in _DERIVED:
            self._model_array(name)
        mjw.set_const(self.wp_model, self.wp_data)
        if len(self.scene.axis_links):
            weigh_links(self._model_array("body_invweight0"), self._axis_links, self._axis_levers)

    # -- checkpoints and pictures ------------------------------------------------------------------------------
    def get_state(self) -> Dict[str, Any]:
        saved: Dict[str, Any] = {name: tensor.clone() for name, tensor in self._everything().items()}
        saved["engine"] = "mujoco_warp"
        saved["model"] = {name: view.clone() for name, view in self._randomized.items()}
        saved.update(self._gains_state())
        return saved

    def load_state(self, state: Dict[str, Any]) -> None:
        qpos = state.get("qpos")
        if state.get("engine") != "mujoco_warp" or qpos is None or qpos.shape != self._qpos.shape:
            raise ValueError(
                "engine state of %r with shape %s does not fit mujoco_warp with shape %s"
                % (state.get("engine"), None if qpos is None else tuple(qpos.shape), tuple(self._qpos.shape))
            )
        with self.graphs.launching():
            if self._load_model(state["model"]):
                self._set_const()
            self._kp, self._kv = self._saved_gains(state)
            self._act_error = self._error_bound()
            self._follow_gains()
            for name, tensor in self._everything().items():
                tensor.copy_(state[name])
            self._refresh()
        self.version += 1

    def notices(self) -> List[Notice]:
        return list(self.graphs.notices)

    def render_state(self, env: int) -> Dict[str, Tensor]:
        return {"qpos": self._qpos[env].to("cpu", torch.float64, copy=True)}

    def close(self) -> None:
        self.graphs.clear()

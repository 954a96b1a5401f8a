"""The CPU engine: MuJoCo C on a thread pool through ``mujoco.batch.Batch``.

Physics runs in float64; the contract's float32 tensors are copies refreshed in place. The Batch is persistent
and every step ends with the velocity stage, so poses and velocities belong to the new state (a plain mj_step
leaves them one physics step old). Results are bit-identical at any number of threads.
"""

# ruff: noqa: D102  (docstrings are inherited from Simulation)
from __future__ import annotations

import warnings
from typing import Any, Dict, Optional, Sequence, Tuple

import mujoco
import numpy as np
import torch
from mujoco import batch as mujoco_batch
from torch import Tensor

from hepo_isaac.sim.math import rotate, rotate_inverse, wxyz_to_xyzw, xyzw_to_wxyz
from hepo_isaac.sim.mujoco_common import MAX_VALUE, NEEDS_SET_CONST, MujocoSimulation, as_index, sensor_layout
from hepo_isaac.sim.spec import SceneSpec

_FRESH = int(mujoco.mjtStage.mjSTAGE_VEL)
_DIVERGED = [
    int(w)
    for w in (mujoco.mjtWarning.mjWARN_BADQPOS, mujoco.mjtWarning.mjWARN_BADQVEL, mujoco.mjtWarning.mjWARN_BADQACC)
]
_OVERFLOW = [int(w) for w in (mujoco.mjtWarning.mjWARN_CONTACTFULL, mujoco.mjtWarning.mjWARN_CNSTRFULL)]


class MujocoBatchSimulation(MujocoSimulation):
    """Simulation contract on MuJoCo C.

    Args:
        spec: the scene.
        num_envs: number of worlds N.
        threads: worker threads, 0 for all CPUs.
    """

    def __init__(self, spec: SceneSpec, num_envs: int, threads: int = 0) -> None:
        self._set_up(spec, num_envs, torch.device("cpu"))
        self.batch = mujoco_batch.Batch(self.model, num_envs, threads, persistent=True)
        self._bind()
        self._default_row = self.batch.state[0].copy()
        self._refresh(None)
        self.dof_target_pos.copy_(self.dof_pos)

    # -- set-up ------------------------------------------------------------------------------------------------
    def _view(self, name: str) -> Tensor:
        """A live view of an engine array; derived ones are read-only, which from_numpy warns about."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.from_numpy(self.batch.bind(name))

    def _bind(self) -> None:
        self._qpos, self._qvel, self._ctrl = self._view("qpos"), self._view("qvel"), self._view("ctrl")
        self._xfrc, self._xpos, self._xquat = self._view("xfrc_applied"), self._view("xpos"), self._view("xquat")
        self._cvel = self._view("cvel") if self.spec.body_velocities else None
        self._com = self._view("subtree_com") if self.spec.body_velocities else None
        self._actuator_force = self._view("actuator_force") if self.model.nu else None
        self._sensordata = self._view("sensordata") if self.model.nsensordata else None
        self._extra: Dict[str, Tensor] = {}
        self.batch.forward(stage=_FRESH)

    # -- commands ----------------------------------------------------------------------------------------------
    def apply_body_force(self, force: Tensor, torque: Optional[Tensor] = None) -> None:
        self._xfrc[:, self._body, :3] = force.to(torch.float64)
        if torque is not None:
            self._xfrc[:, self._body, 3:] = torque.to(torch.float64)
        self._pushed = True

    def _write_controls(self) -> None:
        if not self.model.nu:
            return
        # The bound on the position error stands in for PhysX's joint-speed limit.
        q = self._qpos[:, self._dof_q][:, self._act_dof]
        error = self.dof_target_pos[:, self._act_dof] - q
        ctrl = q + torch.minimum(torch.maximum(error, -self._act_error), self._act_error)
        if "velocity" in self._modes:
            ctrl = torch.where(self._act_mode["velocity"], self._target_vel[:, self._act_dof].to(torch.float64), ctrl)
        if "effort" in self._modes:
            ctrl = torch.where(self._act_mode["effort"], self._effort[:, self._act_dof].to(torch.float64), ctrl)
        self._ctrl.copy_(ctrl)

    # -- lifecycle ---------------------------------------------------------------------------------------------
    def step(self) -> None:
        self._write_controls()
        failed: Sequence[int] = ()
        try:
            self.batch.step(nstep=self.spec.substeps, stage=_FRESH)
        except mujoco_batch.SimulationError as error:
            failed = error.ids  # those worlds kept their state; the others ran on
        if self._pushed:
            self._xfrc.zero_()
            self._pushed = False
        self._refresh(None)
        self._flag_bad(failed)

    def _flag_bad(self, failed: Sequence[int]) -> None:
        """Worlds that the engine reset behind our back (NaN, huge values), that overflowed a buffer or raised.

        MuJoCo looks for NaN when a physics step begins, so the last one's outcome is looked at here. It also looks in
        set_state's forward pass: those warnings wait for the next step, and so does the flag.
        """
        counts = self.batch.warning[:, :, 1]  # (N, 7 kinds); [..., 0] is the last one's detail
        size = self._qpos.abs().amax(1)
        if self._qvel.shape[1]:
            size = torch.maximum(size, self._qvel.abs().amax(1))
        torch.logical_not(size <= MAX_VALUE, out=self.bad_envs)  # NaN compares false
        if counts.any():
            overflow = torch.from_numpy((counts[:, _OVERFLOW] > 0).any(1))
            self.bad_envs |= torch.from_numpy((counts[:, _DIVERGED] > 0).any(1)) | overflow
            self.overflow_count += overflow.sum()
            self.batch.warning[...] = 0
        if len(failed):
            self.bad_envs[torch.as_tensor(np.asarray(failed, dtype=np.int64))] = True

    def set_state(
        self,
        mask: Tensor,
        dof_pos: Optional[Tensor] = None,
        dof_vel: Optional[Tensor] = None,
        root_state: Optional[Tensor] = None,
        dof_target_pos: Optional[Tensor] = None,
    ) -> None:
        ids = np.flatnonzero(mask.numpy())  # sorted, which Batch insists on
        if not len(ids):
            return
        rows = torch.from_numpy(ids)
        cured = rows[self.bad_envs[rows]]
        if len(cured):  # a diverged row may hold NaN in any component, so start it afresh
            self.batch.state[cured.numpy()] = self._default_row
        if dof_pos is not None:
            self._qpos[rows[:, None], as_index(self._dof_q)] = dof_pos[rows].to(torch.float64)
        if dof_vel is not None:
            self._qvel[rows[:, None], as_index(self._dof_v)] = dof_vel[rows].to(torch.float64)
        if root_state is not None:
            self._write_roots(rows, root_state[rows].to(torch.float64))
        if dof_target_pos is not None:
            self.dof_target_pos[rows] = dof_target_pos[rows]
        self._settle(ids, rows)

    def reset(self, mask: Tensor) -> None:
        ids = np.flatnonzero(mask.numpy())
        if len(ids):
            rows = torch.from_numpy(ids)
            self.batch.state[ids] = self._default_row
            self.dof_target_pos[rows] = self._qpos[rows][:, self._dof_q].to(torch.float32)
            self._settle(ids, rows)

    def _settle(self, ids: np.ndarray, rows: Tensor) -> None:
        """Forget what belongs to the old episode and recompute everything derived for these rows."""
        for name in ("qacc_warmstart", "qfrc_applied", "xfrc_applied", "time"):
            self.batch.bind(name)[ids] = 0.0
        self._target_vel[rows] = 0.0
        self._effort[rows] = 0.0
        self.batch.warning[ids] = 0
        self.bad_envs[rows] = False
        self._forward(ids)
        self._refresh(rows)
        self.dof_force[rows] = 0.0
        self.contact_force[rows] = 0.0
        self.force_sensor[rows] = 0.0

    def _forward(self, ids: Optional[np.ndarray]) -> None:
        """Recompute poses and velocities of these worlds (all if None); one that fails is a bad world."""
        try:
            self.batch.forward(None if ids is None else ids.astype(np.int32), stage=_FRESH)
        except mujoco_batch.SimulationError as error:
            self.bad_envs[torch.as_tensor(np.asarray(error.ids, dtype=np.int64))] = True

    def _write_roots(self, rows: Tensor, root: Tensor) -> None:
        for actor, (q, v) in enumerate(zip(self.scene.actor_qpos, self.scene.actor_qvel)):
            if q < 0:
                continue
            state = root[:, actor]
            quat = state[:, 3:7]
            self._qpos[rows, q : q + 3] = state[:, :3]
            self._qpos[rows, q + 3 : q + 7] = xyzw_to_wxyz(quat)
            self._qvel[rows, v : v + 3] = state[:, 7:10]
            self._qvel[rows, v + 3 : v + 6] = rotate_inverse(quat, state[:, 10:13])

    # -- refresh -----------------------------------------------------------------------------------------------
    def _refresh(self, rows: Optional[Tensor]) -> None:
        """Copy the engine's float64 arrays into the contract's tensors, for all worlds or for ``rows``."""

        def put(target: Tensor, source: Tensor) -> None:
            if rows is None:
                target.copy_(source)
            else:
                target[rows] = source.to(torch.float32)

        def pick(source: Tensor) -> Tensor:
            return source if rows is None else source[rows]

        put(self.dof_pos, pick(self._qpos)[:, self._dof_q])
        put(self.dof_vel, pick(self._qvel)[:, self._dof_v])
        put(self.body_state[..., :3], pick(self._xpos)[:, self._body])
        put(self.body_state[..., 3:7], wxyz_to_xyzw(pick(self._xquat)[:, self._body]))
        if self._cvel is not None and self._com is not None:
            linear, angular = self._body_velocity(pick(self._cvel), pick(self._com), pick(self._xpos))
            put(self.body_state[..., 7:10], linear)
            put(self.body_state[..., 10:13], angular)
        self._refresh_roots(put, pick)
        if rows is None:
            self._refresh_forces()

    def _refresh_forces(self) -> None:
        """Forces belong to the last physics step; only a full step renews them."""
        if self._actuator_force is None:
            self.dof_force.zero_()
        else:
            if self.model.nu < len(self.dof_names):
                self.dof_force.zero_()  # passive joints
            self.dof_force[:, self._act_dof] = self._actuator_force.to(torch.float32)
        if self._sensordata is not None:
            # MuJoCo's sensors give what the parent does to the body, and what the body does to what it touches.
            split, end = sensor_layout(self.spec)
            self.force_sensor.view(self.num_envs, -1).copy_(self._sensordata[:, :split]).neg_()
            self.contact_force.view(self.num_envs, -1).copy_(self._sensordata[:, split:end]).neg_()

    def _body_velocity(self, cvel: Tensor, com: Tensor, xpos: Tensor) -> Tuple[Tensor, Tensor]:
        """MuJoCo's cvel is about the centre of mass of the kinematic tree; move it to the body origins."""
        angular, linear = cvel[:, self._body, :3], cvel[:, self._body, 3:]
        offset = xpos[:, self._body] - com[:, self._body_root]
        return linear + torch.linalg.cross(angular, offset), angular

    def _refresh_roots(self, put: Any, pick: Any) -> None:
        for actor, (q, v) in enumerate(zip(self.scene.actor_qpos, self.scene.actor_qvel)):
            target = self.root_state[:, actor]
            if q < 0:
                continue  # bolted down: written once
            qpos, qvel = pick(self._qpos), pick(self._qvel)
            quat = wxyz_to_xyzw(qpos[:, q + 3 : q + 7])
            put(target[:, :3], qpos[:, q : q + 3])
            put(target[:, 3:7], quat)
            put(target[:, 7:10], qvel[:, v : v + 3])
            put(target[:, 10:13], rotate(quat, qvel[:, v + 3 : v + 6]))  # free-joint spin is body-frame

    # -- matrices and randomisation ----------------------------------------------------------------------------
    def _lazy(self, name: str) -> Tensor:
        """A derived array that is not bound yet is zero until the next call, so compute it for the current state."""
        if name not in self._extra:
            self._extra[name] = self._view(name)
            self.batch.forward(stage=_FRESH)
        return self._extra[name]

    def jacobian(self, body: str) -> Tensor:
        return self._jacobian(body, self._lazy("cdof"), self._xpos, self._lazy("subtree_com"))

    def mass_matrix(self) -> Tensor:
        return self._dense_mass(self._lazy("M"))

    def _model_array(self, field: str) -> Tensor:
        array = torch.from_numpy(self.batch.expand(field))
        self._randomized[field] = array
        return array

    def randomize(self, field: str, mask: Tensor, values: Tensor, names: Sequence[str] = ()) -> None:
        writes = self._plan(field, names, values)
        self._apply_writes(writes, mask, values)
        self._note_gains(field, names, mask, values)
        ids = np.flatnonzero(mask.numpy())
        if len(ids):
            if field in NEEDS_SET_CONST:
                self.batch.set_const(ids.astype(np.int32))
            # The next step would go on from stages computed with the old parameters.
            self._forward(ids)

    # -- checkpoints and pictures ------------------------------------------------------------------------------
    _SAVED = ("dof_target_pos", "_target_vel", "_effort", "dof_force", "contact_force", "force_sensor", "bad_envs")

    def get_state(self) -> Dict[str, Any]:
        saved: Dict[str, Any] = {name.strip("_"): getattr(self, name).clone() for name in self._SAVED}
        saved.update(engine="mujoco_batch", rows=torch.from_numpy(self.batch.state.copy()))
        saved["overflow_count"] = self.overflow_count.clone()
        saved["model"] = {name: array.clone() for name, array in self._randomized.items()}
        saved["gains"] = (self._kp.clone(), self._kv.clone())
        return saved

    def load_state(self, state: Dict[str, Any]) -> None:
        rows = state.get("rows")
        if state.get("engine") != "mujoco_batch" or rows is None or rows.shape != self.batch.state.shape:
            raise ValueError(
                "engine state of %r with shape %s does not fit mujoco_batch with shape %s"
                % (state.get("engine"), None if rows is None else tuple(rows.shape), self.batch.state.shape)
            )
        self._load_model(state["model"], state["gains"])
        self.batch.state[...] = rows.numpy()
        self.batch.warning[...] = 0
        self._pushed = True  # forces applied before saving are in the rows and end with the next step
        self._forward(None)
        self._refresh(None)
        for name in self._SAVED:
            getattr(self, name).copy_(state[name.strip("_")])
        self.overflow_count.copy_(state["overflow_count"])

    def _load_model(self, fields: Dict[str, Tensor], gains: Tuple[Tensor, Tensor]) -> None:
        """Restore randomised parameters; those set here but not in the checkpoint go back to the scene's."""
        for name in set(self._randomized) | set(fields):
            array = self._model_array(name)
            default = self.model.opt.gravity if name == "opt.gravity" else getattr(self.model, name)
            array.copy_(fields[name] if name in fields else torch.as_tensor(default).expand_as(array))
        if set(self._randomized) & set(NEEDS_SET_CONST):
            self.batch.set_const()
        self._kp, self._kv = gains[0].clone(), gains[1].clone()
        self._act_error = self._error_bound()

    def render_state(self, env: int) -> Dict[str, Tensor]:
        return {"qpos": self._qpos[env].clone()}

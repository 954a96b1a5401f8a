"""The CPU engine: MuJoCo C on a thread pool through ``mujoco.batch.Batch``.

Physics runs in float64; the contract's float32 tensors are copies refreshed in place. The Batch is persistent
and every step ends with the velocity stage, so poses and velocities belong to the new state (a plain mj_step
leaves them one physics step old). Results are bit-identical at any number of threads.

Copies between the engine and the tensors are numpy's: torch may spread such small copies over its own threads, which
fight with the physics for the same cores (measured on two busy cores: 12 ms for a refresh that takes 0.1 ms).
"""

# ruff: noqa: D102  (docstrings are inherited from Simulation)
from __future__ import annotations

import warnings
from typing import Any, Dict, Optional, Sequence

import mujoco
import numpy as np
import torch
from mujoco import batch as mujoco_batch
from torch import Tensor

from hepo_isaac.sim.mujoco.common import NEEDS_SET_CONST, MujocoSimulation, sensor_layout
from hepo_isaac.sim.mujoco.model import weigh_links
from hepo_isaac.sim.spec import SceneSpec

_FRESH = int(mujoco.mjtStage.mjSTAGE_VEL)
_DIVERGED = [
    int(w)
    for w in (
        mujoco.mjtWarning.mjWARN_BADQPOS,
        mujoco.mjtWarning.mjWARN_BADQVEL,
        mujoco.mjtWarning.mjWARN_BADQACC,
        mujoco.mjtWarning.mjWARN_BADCTRL,
    )
]
_SERVED = (
    "dof_pos",
    "dof_vel",
    "dof_force",
    "dof_target_pos",
    "root_state",
    "body_state",
    "contact_force",
    "force_sensor",
    "bad_envs",
)
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
        if self.model.opt.solver == mujoco.mjtSolver.mjSOL_NEWTON:
            # From 60 degrees of freedom on, MuJoCo keeps the Newton solver's matrices sparse. In 4.0.0 that one stops
            # far from the solution where many contacts change at once, and shapes that press fly apart; the dense one,
            # which smaller scenes have anyway, solves the same states (tests/tasks/test_bidex_force.py).
            self.model.opt.jacobian = mujoco.mjtJacobian.mjJAC_DENSE
        self.batch = mujoco_batch.Batch(self.model, num_envs, threads, persistent=True)
        self._bind()
        self._default_row = self.batch.state[0].copy()
        self._refresh(None)
        self.dof_target_pos.copy_(self.dof_pos)

    # -- set-up ------------------------------------------------------------------------------------------------
    def _bind(self) -> None:
        """Views of the engine's arrays (float64) and numpy views of the contract's tensors (float32)."""
        bind = self.batch.bind
        self._qpos, self._qvel, self._ctrl, self._xfrc = (bind(k) for k in ("qpos", "qvel", "ctrl", "xfrc_applied"))
        self._old = [bind(k) for k in ("qacc_warmstart", "qfrc_applied", "xfrc_applied", "time")]
        self._xpos, self._xquat = bind("xpos"), bind("xquat")
        self._cvel = bind("cvel") if self.spec.body_velocities else None
        self._com = bind("subtree_com") if self.spec.body_velocities else None
        self._actuator_force = bind("actuator_force") if self.model.nu else None
        self._sensordata = bind("sensordata") if self.model.nsensordata else None
        self._extra: Dict[str, Tensor] = {}
        self._out = {name: _array(getattr(self, name)) for name in _SERVED}
        scene = self.scene
        self._q, self._v, self._b = (_runs(x) for x in (scene.qpos_adr, scene.qvel_adr, scene.body_ids))
        self._roots = self.model.body_rootid[scene.body_ids]
        self._act = _runs(np.array([a.dof for a in scene.actuators], dtype=np.int64))
        self._act_q = _runs(scene.qpos_adr[[a.dof for a in scene.actuators]])
        self.batch.forward(stage=_FRESH)

    # -- commands ----------------------------------------------------------------------------------------------
    def apply_body_force(self, force: Tensor, torque: Optional[Tensor] = None) -> None:
        self._xfrc[:, self._b, :3] = _array(force)
        if torque is not None:
            self._xfrc[:, self._b, 3:] = _array(torque)
        self._pushed = True

    def _write_controls(self) -> None:
        if not self.model.nu:
            return
        # The bound on the position error stands in for PhysX's joint-speed limit.
        q, bound = self._qpos[:, self._act_q], _array(self._act_error)
        error = self._out["dof_target_pos"][:, self._act] - q
        np.minimum(error, bound, out=error)
        np.maximum(error, -bound, out=error)
        np.add(q, error, out=self._ctrl)
        for mode, command in (("velocity", self._target_vel), ("effort", self._effort)):
            if mode in self._modes:
                np.copyto(self._ctrl, _array(command)[:, self._act], where=_array(self._act_mode[mode]))

    # -- lifecycle ---------------------------------------------------------------------------------------------
    def step(self) -> None:
        self._write_controls()
        failed: Sequence[int] = ()
        try:
            self.batch.step(nstep=self.spec.substeps, stage=_FRESH)
        except mujoco_batch.SimulationError as error:
            failed = error.ids  # those worlds kept their state; the others ran on
        if self._pushed:
            self._xfrc[...] = 0.0
            self._pushed = False
        self._refresh(None)
        self._flag_bad(failed)

    def _flag_bad(self, failed: Sequence[int]) -> None:
        """Worlds that the engine reset behind our back, that overflowed a buffer or raised.

        Every physics step of MuJoCo looks for NaN and values beyond 1e10 in commands, positions, velocities and
        accelerations; it then warns, and resets the world or drops the commands. So does set_state's forward pass:
        its warnings wait for the next step, and so does the flag.
        """
        counts = self.batch.warning[:, :, 1]  # (N, 7 kinds); [..., 0] is the last one's detail
        bad = self._out["bad_envs"]
        bad[...] = False
        if counts.any():
            overflow = (counts[:, _OVERFLOW] > 0).any(1)
            bad |= (counts[:, _DIVERGED] > 0).any(1) | overflow
            self.overflow_count += int(overflow.sum())
            self.batch.warning[...] = 0
        if len(failed):
            bad[failed] = True

    def set_state(
        self,
        mask: Tensor,
        dof_pos: Optional[Tensor] = None,
        dof_vel: Optional[Tensor] = None,
        root_state: Optional[Tensor] = None,
        dof_target_pos: Optional[Tensor] = None,
    ) -> None:
        ids = np.flatnonzero(_array(mask))  # sorted, which Batch insists on
        if not len(ids):
            return
        cured = ids[self._out["bad_envs"][ids]]
        if len(cured):  # nobody knows what is wrong with a bad world, so start it afresh
            self.batch.state[cured] = self._default_row
        if dof_pos is not None:
            self._qpos[ids[:, None], self.scene.qpos_adr] = _array(dof_pos)[ids]
        if dof_vel is not None:
            self._qvel[ids[:, None], self.scene.qvel_adr] = _array(dof_vel)[ids]
        if root_state is not None:
            self._write_roots(ids, _array(root_state)[ids].astype(np.float64))
        if dof_target_pos is not None:
            self._out["dof_target_pos"][ids] = _array(dof_target_pos)[ids]
        self._settle(ids)

    def may_select(self, mask: Tensor) -> bool:
        return bool(_array(mask).any())

    def reset(self, mask: Tensor) -> None:
        ids = np.flatnonzero(_array(mask))
        if len(ids):
            self.batch.state[ids] = self._default_row
            self._out["dof_target_pos"][ids] = self._qpos[ids[:, None], self.scene.qpos_adr]
            self._settle(ids)

    def _settle(self, ids: np.ndarray) -> None:
        """Forget what belongs to the old episode and recompute everything derived for these rows."""
        for array in self._old:
            array[ids] = 0.0
        for tensor in (self._target_vel, self._effort, self.dof_force, self.contact_force, self.force_sensor):
            _array(tensor)[ids] = 0.0
        self.batch.warning[ids] = 0
        self._out["bad_envs"][ids] = False
        self._forward(ids)
        self._refresh(ids)

    def _forward(self, ids: Optional[np.ndarray]) -> None:
        """Recompute poses and velocities of these worlds (all if None); one that fails is a bad world."""
        try:
            self.batch.forward(None if ids is None else ids.astype(np.int32), stage=_FRESH)
        except mujoco_batch.SimulationError as error:
            self._out["bad_envs"][error.ids] = True

    def _write_roots(self, ids: np.ndarray, root: np.ndarray) -> None:
        for actor, (q, v) in enumerate(zip(self.scene.actor_qpos, self.scene.actor_qvel)):
            if q < 0:
                continue
            state = root[:, actor]
            xyz, w = state[:, 3:6], state[:, 6:7]
            self._qpos[ids, q : q + 3] = state[:, :3]
            self._qpos[ids, q + 3 : q + 7] = np.concatenate((w, xyz), 1)
            self._qvel[ids, v : v + 3] = state[:, 7:10]
            self._qvel[ids, v + 3 : v + 6] = _rotate(-xyz, w, state[:, 10:13])

    # -- refresh -----------------------------------------------------------------------------------------------
    def _refresh(self, ids: Optional[np.ndarray]) -> None:
        """Copy the engine's float64 arrays into the contract's tensors, for all worlds or for these."""
        self.version += 1
        rows: Any = slice(None) if ids is None else ids
        out = self._out
        qpos, qvel = self._qpos[rows], self._qvel[rows]
        out["dof_pos"][rows] = qpos[:, self._q]
        out["dof_vel"][rows] = qvel[:, self._v]
        body, pos, quat = out["body_state"], self._xpos[rows][:, self._b], self._xquat[rows][:, self._b]
        body[rows, :, :3] = pos
        body[rows, :, 3:6] = quat[..., 1:]
        body[rows, :, 6] = quat[..., 0]
        if self._cvel is not None and self._com is not None:
            # MuJoCo's cvel is about the centre of mass of the kinematic tree; move it to the body origins.
            cvel = self._cvel[rows][:, self._b]
            offset = pos - self._com[rows][:, self._roots]
            body[rows, :, 7:10] = cvel[..., 3:] + _cross(cvel[..., :3], offset)
            body[rows, :, 10:] = cvel[..., :3]
        for actor, (q, v) in enumerate(zip(self.scene.actor_qpos, self.scene.actor_qvel)):
            if q < 0:
                continue  # bolted down: written once
            root, xyz, w = out["root_state"][:, actor], qpos[:, q + 4 : q + 7], qpos[:, q + 3 : q + 4]
            root[rows, :3] = qpos[:, q : q + 3]
            root[rows, 3:6] = xyz
            root[rows, 6:7] = w
            root[rows, 7:10] = qvel[:, v : v + 3]
            root[rows, 10:] = _rotate(xyz, w, qvel[:, v + 3 : v + 6])  # free-joint spin is body-frame
        if ids is None:
            self._refresh_forces()

    def _refresh_forces(self) -> None:
        """Forces belong to the last physics step; only a full step renews them."""
        out, n = self._out, self.num_envs
        if self.model.nu < len(self.dof_names):
            out["dof_force"][...] = 0.0  # passive joints
        if self._actuator_force is not None:
            out["dof_force"][:, self._act] = self._actuator_force
        if self._sensordata is not None:
            # MuJoCo's sensors give what the parent does to the body, and what the body does to what it touches.
            split, end = sensor_layout(self.spec)
            np.negative(self._sensordata[:, :split], out=out["force_sensor"].reshape(n, -1), casting="same_kind")
            np.negative(self._sensordata[:, split:end], out=out["contact_force"].reshape(n, -1), casting="same_kind")

    # -- matrices and randomisation ----------------------------------------------------------------------------
    def _lazy(self, name: str) -> Tensor:
        """A derived array that is not bound yet is zero until the next call, so compute it for the current state."""
        if name not in self._extra:
            array = self.batch.bind(name)
            self.batch.forward(stage=_FRESH)
            with warnings.catch_warnings():  # it is read-only, and we only read it
                warnings.simplefilter("ignore")
                self._extra[name] = torch.from_numpy(array)
        return self._extra[name]

    def jacobian(self, body: str) -> Tensor:
        return self._jacobian(body, self._lazy("cdof"), self._lazy("xpos"), self._lazy("subtree_com"))

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
        ids = np.flatnonzero(_array(mask))
        if len(ids):
            if field in NEEDS_SET_CONST:
                self._set_const(ids.astype(np.int32))
            # mass_matrix and the next step use what was computed last, which was with the old parameters.
            self._forward(ids)

    def _set_const(self, ids: Optional[np.ndarray]) -> None:
        """Derive MuJoCo's constants from the present masses of the worlds ``ids``, None for all."""
        self.batch.set_const() if ids is None else self.batch.set_const(ids)
        if len(self.scene.axis_links):
            weigh_links(self.batch.expand("body_invweight0"), self.scene.axis_links, self.scene.axis_levers)

    # -- checkpoints and pictures ------------------------------------------------------------------------------
    _SAVED = ("dof_target_pos", "_target_vel", "_effort", "dof_force", "contact_force", "force_sensor", "bad_envs")

    def get_state(self) -> Dict[str, Any]:
        saved: Dict[str, Any] = {name.strip("_"): getattr(self, name).clone() for name in self._SAVED}
        saved.update(engine="mujoco_batch", rows=torch.from_numpy(self.batch.state.copy()))
        saved["overflow_count"] = self.overflow_count.clone()
        saved["model"] = {name: array.clone() for name, array in self._randomized.items()}
        saved.update(self._gains_state())
        return saved

    def load_state(self, state: Dict[str, Any]) -> None:
        rows = state.get("rows")
        if state.get("engine") != "mujoco_batch" or rows is None or rows.shape != self.batch.state.shape:
            raise ValueError(
                "engine state of %r with shape %s does not fit mujoco_batch with shape %s"
                % (state.get("engine"), None if rows is None else tuple(rows.shape), self.batch.state.shape)
            )
        if self._load_model(state["model"]):
            self._set_const(None)
        self._kp, self._kv = self._saved_gains(state)
        self._act_error = self._error_bound()
        self.batch.state[...] = _array(rows)
        self.batch.warning[...] = 0
        self._pushed = True  # forces applied before saving are in the rows and end with the next step
        self._forward(None)
        self._refresh(None)
        for name in self._SAVED:
            getattr(self, name).copy_(state[name.strip("_")])
        self.overflow_count.copy_(state["overflow_count"])

    def render_state(self, env: int) -> Dict[str, Tensor]:
        return {"qpos": torch.from_numpy(self._qpos[env].copy())}


def _runs(index: np.ndarray) -> Any:
    """A slice where the indices are consecutive (a view, no gather), else the indices."""
    if len(index) and np.array_equal(index, np.arange(index[0], index[0] + len(index))):
        return slice(int(index[0]), int(index[0]) + len(index))
    return index


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cross product of (..., 3); np.cross takes several times as long on small arrays."""
    out = np.empty_like(a)
    for i, j, k in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        out[..., i] = a[..., j] * b[..., k] - a[..., k] * b[..., j]
    return out


def _array(tensor: Tensor) -> np.ndarray:
    """The same memory as a numpy array."""
    return tensor.numpy()  # host read: this engine's tensors are on the host; a view, nothing is copied or waited for


def _rotate(xyz: np.ndarray, w: np.ndarray, vec: np.ndarray) -> np.ndarray:
    """Rotate (n, 3) by unit quaternions with vector part (n, 3) and scalar part (n, 1)."""
    t = 2.0 * _cross(xyz, vec)
    return vec + w * t + _cross(xyz, t)

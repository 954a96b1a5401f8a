"""What the two MuJoCo engines share: the compiled scene, the contract's buffers, commands and index maps."""

# ruff: noqa: D102  (docstrings are inherited from Simulation)
from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple, Union

import mujoco
import numpy as np
import torch
from torch import Tensor

from hepo_isaac.sim.base import RANDOMIZABLE, SHARED
from hepo_isaac.sim.commands import HeldCommands
from hepo_isaac.sim.math import wxyz_to_xyzw
from hepo_isaac.sim.mujoco.model import CompiledScene, compile_scene
from hepo_isaac.sim.spec import SceneSpec

# Model fields whose change makes MuJoCo's compile-time constants (invweight0, subtreemass, ...) stale.
NEEDS_SET_CONST = ("body_mass", "dof_armature")
MAX_VALUE = 1e10  # MuJoCo's own bound (mjMAXVAL): a state component beyond it counts as diverged


@dataclass(frozen=True)
class ModelWrite:
    """Write ``values[:, column] * factor`` into ``model.field[:, row(, component)]``; all index tensors (k,)."""

    field: str
    row: Tensor
    component: Optional[int]
    column: Tensor
    factor: Tensor


class MujocoSimulation(HeldCommands):
    """Base of the MuJoCo engines; a subclass owns the physics arrays and calls ``_set_up`` first."""

    scene: CompiledScene
    model: mujoco.MjModel

    def _set_up(self, spec: SceneSpec, num_envs: int, device: torch.device) -> None:
        """Compile the scene and allocate every contract tensor."""
        self.spec, self.num_envs, self.device = spec, num_envs, device
        self.scene = scene = compile_scene(spec)
        self.model = scene.model
        self.dof_names, self.body_names, self.actor_names = scene.dof_names, scene.body_names, scene.actor_names
        self._dof_q, self._dof_v = columns(scene.qpos_adr, device), columns(scene.qvel_adr, device)
        self._body = columns(scene.body_ids, device)
        self._body_root = self._long(self.model.body_rootid[scene.body_ids])
        self._act_mode = {
            mode: torch.tensor([a.mode == mode for a in scene.actuators], device=device)
            for mode in ("position", "velocity", "effort")
        }
        self._modes = {a.mode for a in scene.actuators}
        gains = [(a.stiffness, a.damping, a.velocity_limit) for a in scene.actuators]
        kp, kv, limit = np.array(gains, dtype=np.float64).reshape(-1, 3).T
        self._kp, self._kv, self._velocity_limit = (torch.tensor(x, device=device) for x in (kp, kv, limit))
        self._act_error = self._error_bound()
        self._randomized: Dict[str, Tensor] = {}
        self._cache: Dict[Any, Any] = {}
        self._allocate()

    def _long(self, index: np.ndarray) -> Tensor:
        return torch.as_tensor(np.asarray(index).astype(np.int64), device=self.device)

    def _allocate(self) -> None:
        n, d, b, a = self.num_envs, len(self.dof_names), len(self.body_names), len(self.actor_names)
        joint = [self.model.joint(name).id for name in self.dof_names]
        limits = np.array(self.model.jnt_range[joint], dtype=np.float32).reshape(d, 2)
        limits[~self.model.jnt_limited[joint].astype(bool)] = (-np.inf, np.inf)
        self.dof_lower, self.dof_upper = (torch.tensor(x, device=self.device) for x in limits.T)

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(*shape, device=self.device)

        self.dof_pos, self.dof_vel, self.dof_force, self.dof_target_pos = (zeros(n, d) for _ in range(4))
        self._target_vel, self._effort = zeros(n, d), zeros(n, d)
        self.root_state, self.body_state = zeros(n, a, 13), zeros(n, b, 13)
        for actor, body in enumerate(self.scene.actor_body):  # fixed actors keep this; free ones are refreshed
            self.root_state[:, actor, :3] = torch.as_tensor(self.model.body_pos[body])
            self.root_state[:, actor, 3:7] = wxyz_to_xyzw(torch.as_tensor(self.model.body_quat[body]))
        if not self.spec.body_velocities:
            self.body_state[..., 7:] = float("nan")
        self.contact_force = zeros(n, len(self.spec.contact_bodies), 3)
        self.force_sensor = zeros(n, len(self.spec.force_sensors), 6)
        self.bad_envs = torch.zeros(n, dtype=torch.bool, device=self.device)
        self.overflow_count = torch.zeros((), dtype=torch.int64, device=self.device)
        self._pushed = False

    def _error_bound(self) -> Tensor:
        """Largest position error (A,) or (N, A), rad or m, that a drive may see: its joint-speed limit.

        A PD drive whose inertia is small against its damping closes an error e as e exp(-t kp/kv), so in one control
        step it moves e (1 - exp(-dt kp/kv)); setting that to v_max dt gives the bound.
        """
        dt = self.spec.control_dt
        moved = -torch.expm1(-dt * self._kp / self._kv)
        bound = self._velocity_limit * dt / moved
        return torch.where((self._kp > 0) & (self._kv > 0), bound, torch.full_like(bound, float("inf")))

    # -- matrices ----------------------------------------------------------------------------------------------
    def _jacobian(self, body: str, cdof: Tensor, xpos: Tensor, com: Tensor) -> Tensor:
        """(N, 6, D) from the DOFs' spatial motion axes cdof (N, nv, 6), angular first, about the tree's com."""
        bid, kept = self._cached(("chain", body), lambda: self._chain(body))
        axes = cdof[:, self._dof_v].to(torch.float32) * kept[:, None]
        offset = (xpos[:, bid] - com[:, int(self.model.body_rootid[bid])]).to(torch.float32)
        angular = axes[..., :3]
        linear = axes[..., 3:] + torch.linalg.cross(angular, offset[:, None].expand_as(angular))
        return torch.cat((linear, angular), -1).transpose(1, 2)

    def _chain(self, body: str) -> Tuple[int, Tensor]:
        """MuJoCo's id of a served body, and (D,) 1 for the joints that move it, 0 for the others."""
        bid = int(self.scene.body_ids[self.body_index(body)])
        moves = np.zeros(self.model.nv, dtype=bool)
        chain = bid
        while chain:
            first, count = self.model.body_dofadr[chain], self.model.body_dofnum[chain]
            moves[first : first + count] = True
            chain = int(self.model.body_parentid[chain])
        return bid, torch.as_tensor(moves[self.scene.qvel_adr], dtype=torch.float32, device=self.device)

    def _dense_mass(self, sparse: Tensor) -> Tensor:
        """(N, D, D) from MuJoCo's lower-triangular sparse rows (N, nC)."""
        row, col, adr, dofs = self._cached("mass", self._mass_index)
        full = torch.zeros(self.num_envs, self.model.nv, self.model.nv, device=self.device)
        values = sparse[:, adr].to(torch.float32)
        full[:, row, col] = values
        full[:, col, row] = values
        return full[:, dofs[:, None], dofs[None, :]]

    def _mass_index(self) -> Tuple[Tensor, ...]:
        m = self.model
        row = np.repeat(np.arange(m.nv), m.M_rownnz)
        adr = np.concatenate([np.arange(a, a + k) for a, k in zip(m.M_rowadr, m.M_rownnz)])
        return tuple(self._long(x) for x in (row, m.M_colind[adr], adr, self.scene.qvel_adr))

    def _cached(self, key: Any, make: Callable[[], Any]) -> Any:
        """Index tensors that depend on the scene alone, made once: copying them to a GPU would make the host wait."""
        if key not in self._cache:
            self._cache[key] = make()
        return self._cache[key]

    # -- randomisation -----------------------------------------------------------------------------------------
    def randomizable_names(self, field: str) -> List[str]:
        """The bodies or joints that ``randomize(field, ...)`` takes, in the order used when names are omitted."""
        m = self.model
        if field == "body_mass":
            return [m.body(b).name for b in range(1, m.nbody) if m.body_mass[b] > 0]
        if field == "friction":
            solid = {int(m.geom_bodyid[g]) for g in range(m.ngeom) if m.geom_contype[g] or m.geom_conaffinity[g]}
            return [m.body(b).name for b in sorted(solid - {0})]
        if field in ("dof_damping", "dof_armature"):
            return list(self.dof_names)
        if field in ("drive_stiffness", "drive_damping"):
            modes = ("position",) if field == "drive_stiffness" else ("position", "velocity")
            return [self.dof_names[a.dof] for a in self.scene.actuators if a.mode in modes]
        if field == "gravity":
            return []
        raise ValueError("cannot randomise %r; this engine can: %s" % (field, ", ".join(RANDOMIZABLE)))

    def _plan(self, field: str, names: Sequence[str], values: Tensor) -> List[ModelWrite]:
        """The model writes that set ``field``; ValueError for a name or a shape that does not fit."""
        columns, writes = self._cached((field, tuple(names)), lambda: self._make_plan(field, names))
        shape = (self.num_envs, columns)
        if tuple(values.shape) != shape:
            raise ValueError("values of %s must have shape %s, got %s" % (field, shape, tuple(values.shape)))
        return writes

    def _make_plan(self, field: str, names: Sequence[str]) -> Tuple[int, List[ModelWrite]]:
        """Number of value columns and what to write from them."""
        valid = self.randomizable_names(field)
        chosen = list(names) or valid
        unknown = [name for name in chosen if name not in valid]
        if unknown:
            raise ValueError("%s cannot be set for %s; it can for: %s" % (field, ", ".join(unknown), ", ".join(valid)))
        if field == "gravity":
            return 3, [self._write("opt.gravity", [0, 1, 2], None, [0, 1, 2], [1.0] * 3)]
        m = self.model
        each = list(range(len(chosen)))
        ones = [1.0] * len(chosen)
        if field == "body_mass":  # at constant shape: the inertia scales with the mass
            ids = [m.body(name).id for name in chosen]
            inertia = m.body_inertia[ids] / m.body_mass[ids, None]
            scaled = [self._write("body_inertia", ids, i, each, list(inertia[:, i])) for i in range(3)]
            return len(chosen), [self._write("body_mass", ids, None, each, ones)] + scaled
        if field == "friction":
            owner = {m.body(name).id: i for i, name in enumerate(chosen)}
            geoms = [g for g in range(m.ngeom) if int(m.geom_bodyid[g]) in owner]
            owners = [owner[int(m.geom_bodyid[g])] for g in geoms]
            return len(chosen), [self._write("geom_friction", geoms, 0, owners, [1.0] * len(geoms))]
        dofs = [self.dof_index(name) for name in chosen]
        if field in ("dof_damping", "dof_armature"):
            return len(chosen), [self._write(field, [int(self.scene.qvel_adr[d]) for d in dofs], None, each, ones)]
        return len(chosen), self._plan_drive(field, dofs)

    def _plan_drive(self, field: str, dofs: Sequence[int]) -> List[ModelWrite]:
        act = {a.dof: i for i, a in enumerate(self.scene.actuators)}
        ids = [act[d] for d in dofs]
        each, slot = list(range(len(ids))), 1 if field == "drive_stiffness" else 2
        writes = [self._write("actuator_biasprm", ids, slot, each, [-1.0] * len(ids))]
        mode = "position" if field == "drive_stiffness" else "velocity"  # whose target this gain multiplies
        k = [i for i in each if self.scene.actuators[ids[i]].mode == mode]
        if k:
            writes.append(self._write("actuator_gainprm", [ids[i] for i in k], 0, k, [1.0] * len(k)))
        return writes

    def _write(
        self, field: str, row: Sequence[int], component: Optional[int], column: Sequence[int], factor: Sequence[float]
    ) -> ModelWrite:
        scale = torch.tensor(np.asarray(factor, dtype=np.float64), device=self.device)
        return ModelWrite(field, self._long(np.array(row)), component, self._long(np.array(column)), scale)

    def _apply_writes(self, writes: Sequence[ModelWrite], mask: Tensor, values: Tensor) -> None:
        """Put the writes into the engine's per-world arrays without asking which rows the mask selects."""
        for write in writes:
            array = self._model_array(write.field)
            if write.component is not None:
                array = array[..., write.component]
            new = (values[:, write.column].to(torch.float64) * write.factor).to(array.dtype)
            array[:, write.row] = torch.where(mask[:, None], new, array[:, write.row])

    def _load_model(self, fields: Mapping[str, Tensor]) -> bool:
        """Restore randomised parameters; those set here but not in the checkpoint go back to the scene's. Returns
        whether constants that follow from them are to be computed again."""
        for name in set(self._randomized) | set(fields):
            array = self._model_array(name)
            default = self.model.opt.gravity if name == "opt.gravity" else getattr(self.model, name)
            array.copy_(fields[name] if name in fields else torch.as_tensor(default).expand_as(array))
        return bool(set(self._randomized) & set(NEEDS_SET_CONST))

    def _model_array(self, field: str) -> Tensor:
        """A live (N, ...) tensor over a model field."""
        raise NotImplementedError

    def _gains_state(self) -> Dict[str, Any]:
        """Drive gains for get_state: (dofs,) of all envs in common, or (N, dofs) once randomised."""
        gains = (self._kp.clone(), self._kv.clone())
        return {SHARED: {"gains": gains}} if self._kp.dim() == 1 else {"gains": gains}

    def _saved_gains(self, state: Mapping[str, Any]) -> Tuple[Tensor, Tensor]:
        """Drive gains of what ``_gains_state`` returned, or of a state saved when they stood in one place only."""
        kp, kv = state["gains"] if "gains" in state else state[SHARED]["gains"]
        return kp.clone().to(self.device), kv.clone().to(self.device)

    def _note_gains(self, field: str, names: Sequence[str], mask: Tensor, values: Tensor) -> None:
        """Follow changed drive gains in the joint-speed bound."""
        if field not in ("drive_stiffness", "drive_damping"):
            return
        act = {self.dof_names[a.dof]: i for i, a in enumerate(self.scene.actuators)}
        chosen = list(names) or self.randomizable_names(field)
        ids = self._cached(("gains", field, tuple(names)), lambda: self._long(np.array([act[n] for n in chosen])))
        attribute = "_kp" if field == "drive_stiffness" else "_kv"
        gain = getattr(self, attribute).expand(self.num_envs, -1).clone()
        gain[:, ids] = torch.where(mask[:, None], values.to(gain.dtype), gain[:, ids])
        setattr(self, attribute, gain)
        self._act_error = self._error_bound()


def columns(index: np.ndarray, device: torch.device) -> Union[slice, Tensor]:
    """A slice where the indices are consecutive (a view, no gather), else an index tensor."""
    if len(index) and np.array_equal(index, np.arange(index[0], index[0] + len(index))):
        return slice(int(index[0]), int(index[0]) + len(index))
    return torch.as_tensor(index, dtype=torch.int64, device=device)


def sensor_layout(spec: SceneSpec) -> Tuple[int, int]:
    """Where in sensordata the force-sensor block and the contact block behind it end."""
    split = 6 * len(spec.force_sensors)
    return split, split + 3 * len(spec.contact_bodies)

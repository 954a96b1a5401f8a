"""The torch side of the Warp engine on the device meta: its own code with Warp and mujoco_warp replaced by nothing.

Arrays are tensors on meta and launches do nothing, so all that the engine itself does with tensors is done.
"""

from __future__ import annotations

import contextlib
import sys
from typing import Any, Iterator, Tuple
from unittest import mock

import numpy as np
import torch

from hepo_isaac.sim.mujoco import warp as engine
from hepo_isaac.sim.spec import SceneSpec

META = torch.device("meta")


class HostArray:
    """A model field as Warp would hand it out."""

    dtype = float

    def __init__(self, values: Any) -> None:
        self.values = np.asarray(values)[None]

    def numpy(self) -> np.ndarray:
        return self.values


class MetaModel:
    """mujoco_warp's model: MuJoCo's fields, shared by all worlds."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self.opt = mock.MagicMock(gravity=HostArray(model.opt.gravity), disableflags=0)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._model, name)
        return HostArray(value) if isinstance(value, np.ndarray) else value


def _data(model: Any, nworld: int, **sizes: int) -> Any:
    """mujoco_warp's data: what the engine views from torch has a shape, and nothing else is asked for."""
    shapes = {
        "qpos": (model.nq,),
        "qvel": (model.nv,),
        "qacc_warmstart": (model.nv,),
        "xfrc_applied": (model.nbody, 6),
        "cdof": (model.nv, 6),
        "xpos": (model.nbody, 3),
        "subtree_com": (model.nbody, 3),
        "M": (model.nC,),
        "time": (),
        "overflow": (),
    }
    tensors = {name: torch.zeros(nworld, *shape, device=META) for name, shape in shapes.items()}
    return mock.MagicMock(**tensors)


def _stubs() -> Tuple[mock.MagicMock, mock.MagicMock]:
    """In place of the modules warp and mujoco_warp."""
    wp, mjw = mock.MagicMock(), mock.MagicMock()
    wp.to_torch = wp.from_torch = lambda value: value
    wp.array = lambda values, **kwargs: torch.zeros(np.shape(values), device=META)
    wp.device_from_torch.return_value.is_cuda = False
    mjw.put_model, mjw.make_data = MetaModel, _data
    return wp, mjw


@contextlib.contextmanager
def meta_warp(spec: SceneSpec, num_envs: int) -> Iterator[engine.MujocoWarpSimulation]:
    """The engine on meta, as long as the context lasts: its modules are without Warp until then."""
    wp, mjw = _stubs()
    with contextlib.ExitStack() as stack:
        for name, module in list(sys.modules.items()):
            if name.startswith(engine.__name__) and not name.endswith("kernels"):
                for old, new in (("wp", wp), ("mjw", mjw)):
                    if hasattr(module, old):
                        stack.enter_context(mock.patch.object(module, old, new))
        yield engine.MujocoWarpSimulation(spec, num_envs, device="meta")

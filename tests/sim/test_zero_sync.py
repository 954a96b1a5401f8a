"""The Warp engine asks the host for nothing while it steps and resets.

Counted on the CPU device with a dispatch mode: reading a tensor into Python, listing the true entries of a mask and
moving a tensor between devices all make a GPU's host wait. tests/gpu sees waits inside Warp itself.
"""

from __future__ import annotations

import pytest
import torch
from simlab import N, build, only, workshop

from tests.host_reads import HostReads


class NoWaiting(HostReads):
    """Raises on an operation that would make the host wait for the device."""

    def note(self, what):
        raise AssertionError("%s makes the host wait for the device" % what)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten._to_copy.default and (kwargs or {}).get("device") is not None:
            raise AssertionError("a tensor is moved between devices")
        if func is torch.ops.aten.lift_fresh.default:
            raise AssertionError("a tensor is made from Python data, which a GPU would have to copy")
        return super().__torch_dispatch__(func, types, args, kwargs)


MASK = torch.tensor([True, False])


@pytest.mark.parametrize(
    "wait",
    [
        lambda: MASK.sum().item(),
        lambda: MASK.nonzero(),
        lambda: torch.zeros(2)[MASK],
        lambda: bool(MASK.any()),
        lambda: torch.tensor([1.0, 2.0]),
    ],
    ids=["item", "nonzero", "boolean index", "if", "from data"],
)
def test_the_guard_itself(wait):
    with pytest.raises(AssertionError), NoWaiting():
        wait()


@pytest.mark.slow
def test_step_reset_and_set_state_never_wait():
    pytest.importorskip("mujoco_warp")
    sim = build("warp", workshop())
    mask = only(sim, 1, 3)
    values = torch.zeros_like(sim.dof_pos)
    root = sim.root_state.clone()
    force = torch.ones(N, len(sim.body_names), 3, device=sim.device)
    mass = torch.full((N, 1), 2.5, device=sim.device)
    gain = torch.full((N, 1), 50.0, device=sim.device)

    def everything():
        sim.set_dof_target_pos(values)
        sim.set_dof_target_vel(values)
        sim.set_dof_effort(values)
        sim.apply_body_force(force)
        sim.step()
        sim.set_state(mask, dof_pos=values, dof_vel=values, root_state=root, dof_target_pos=values)
        sim.reset(sim.bad_envs)
        sim.jacobian("arm/tip")
        sim.mass_matrix()
        sim.randomize("body_mass", mask, mass, ("box/cube",))
        sim.randomize("drive_stiffness", mask, gain, ("servo/rail",))

    everything()  # the first call compiles and makes index tensors
    with NoWaiting():
        for _ in range(3):
            everything()

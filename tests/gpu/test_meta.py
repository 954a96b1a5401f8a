"""Every task and every method for an iteration on the device meta, which stands for cuda:0: nothing waits for the host.

A new task or method is covered without a line here. The default suite has the tasks without physics, and HEPO.
"""

from __future__ import annotations

import importlib.util

import pytest
import torch

from hepo_isaac.locate import group_names, robot_tasks, task_class, task_names
from tests.gpu import meta
from tests.tasks.sampled import without_others

PHYSICS = robot_tasks()
ROBOTS = without_others(PHYSICS)
ANALYTIC = [name for name in task_names() if name not in PHYSICS]
METHODS = group_names("algo")
needs_warp = pytest.mark.skipif(
    importlib.util.find_spec("mujoco_warp") is None, reason="mujoco_warp is not installed; make test-slow installs it"
)


def found(task, *algos):
    """Method -> what its iteration asks of the host."""
    with meta.simulated(task) as sim:
        everything = {algo: meta.iteration(meta.settings(task, algo), sim) for algo in algos}
    return {algo: findings for algo, findings in everything.items() if findings}


@pytest.mark.parametrize("task", ANALYTIC)
def test_a_task_without_physics_asks_the_host_for_nothing(task):
    assert found(task, "hepo") == {}


@pytest.mark.slow
@pytest.mark.parametrize("task", [pytest.param(name, marks=needs_warp) for name in ROBOTS] + ANALYTIC)
def test_no_method_asks_the_host_for_anything(task):
    assert found(task, *METHODS) == {}


# -- planted faults: x is (N,) on the device ------------------------------------------------------------------------


def read_a_value(x):
    x.sum().item()


def branch(x):
    if x.any():
        x.zero_()


def make_tensors_in_a_loop(x):
    for value in (0.0, 1.0):
        x + torch.tensor(value)


def copy_python_data(x):
    x + torch.tensor([1.0], device=x.device)


def make_a_tensor_on_the_host(x):
    torch.zeros(3)


def mix_devices(x):
    x + torch.zeros(len(x))


def list_a_mask(x):
    x[x > 0]


def write_through_a_mask(x):
    x[x > 0] = 0.0


def index_with_a_list(x):
    x[[0, 1]]


def index_from_the_host(x):
    x[torch.arange(2)]


def copy_to_the_host(x):
    x.cpu()


def copy_from_the_host(x):
    x.copy_(torch.zeros(len(x)))


def solve_and_check(x):
    torch.linalg.inv(torch.diag_embed(x))


FAULTS = [
    (read_a_value, "value read on the host"),
    (branch, "value read on the host"),
    (make_tensors_in_a_loop, "tensor copies Python data"),
    (copy_python_data, "tensor copies Python data"),
    (make_a_tensor_on_the_host, "aten::zeros makes a tensor on the host"),
    (mix_devices, "aten::add.Tensor"),
    (list_a_mask, "indexing with a mask"),
    (write_through_a_mask, "indexing with a mask"),
    (index_with_a_list, "indexing with a list"),
    (index_from_the_host, "indexing with a tensor of another device"),
    (copy_to_the_host, "copy from meta to cpu"),
    (copy_from_the_host, "copy from cpu to meta"),
    (solve_and_check, "_linalg_check_errors"),
]


def plant(monkeypatch, task, fault):
    """Let the task's rewards do ``fault`` with a tensor."""
    task_type = task_class(task)
    rewards = task_type.rewards

    def faulty(self):
        fault(self.sim.bad_envs.float())
        return rewards(self)

    monkeypatch.setattr(task_type, "rewards", faulty)


def says(findings, what, fault):
    """Whether a finding has the words and a line of the fault's function."""
    lines = ["tests/gpu/test_meta.py:%d " % (fault.__code__.co_firstlineno + k) for k in (1, 2)]
    return any(words == what and line.startswith(tuple(lines)) for words, line in findings)


@pytest.mark.parametrize(("fault", "what"), FAULTS, ids=[fault.__name__ for fault, _ in FAULTS])
def test_a_planted_fault_is_found_with_its_line(monkeypatch, fault, what):
    plant(monkeypatch, "QuadraticPoint", fault)
    findings = found("QuadraticPoint", "ppo_h")["ppo_h"]
    assert says(findings, what, fault), findings


def test_a_tensor_left_on_the_host_is_found(monkeypatch):
    task_type = task_class("QuadraticPoint")
    monkeypatch.setattr(task_type, "goal", {"left": [torch.zeros(2)]}, raising=False)
    make = meta.make_agent

    def with_goal(cfg, sim):
        agent = make(cfg, sim)
        agent.vec_env.env.task.goal = task_type.goal
        return agent

    monkeypatch.setattr(meta, "make_agent", with_goal)
    ((what, name),) = found("QuadraticPoint", "ppo_h")["ppo_h"]
    assert what == "tensor of the task on the host" and name.endswith(".goal.left.0")


@pytest.mark.slow
@needs_warp
def test_a_fault_in_a_robot_task_and_in_its_engine_is_found(monkeypatch):
    plant(monkeypatch, "Cartpole", read_a_value)
    from hepo_isaac.sim.mujoco.warp import MujocoWarpSimulation

    step = MujocoWarpSimulation.step

    def copying(self):
        self.dof_target_pos.copy_(torch.zeros(self.dof_target_pos.shape))
        step(self)

    monkeypatch.setattr(MujocoWarpSimulation, "step", copying)
    findings = found("Cartpole", "ppo_h")["ppo_h"]
    assert says(findings, "value read on the host", read_a_value)
    assert says(findings, "copy from cpu to meta", copying)

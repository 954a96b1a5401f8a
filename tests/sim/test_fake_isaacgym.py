"""The fake Isaac Gym keeps the real one's rules; how it moves is in test_fake_isaacgym_motion.py."""

import subprocess
import sys

import fake_gym
import pytest
import torch
from gymlab import ARM, ARM_XML, BOX, Lab, gymapi, gymtorch, sim_params, tensor

INT = torch.int32


@pytest.fixture
def lab(tmp_path):
    return Lab(tmp_path)


@pytest.fixture
def unprepared(tmp_path):
    return Lab(tmp_path, prepare=False)


# -- import order ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("order, allowed", [("isaacgym, torch", True), ("torch, isaacgym", False)])
def test_it_must_be_imported_before_torch(order, allowed):
    command = [sys.executable, "-c", "import " + order]
    done = subprocess.run(command, env=fake_gym.environment(), stderr=subprocess.PIPE, text=True)
    assert (done.returncode == 0) == allowed
    assert ("PyTorch was imported before isaacgym modules" in done.stderr) != allowed


# -- what the binding refuses ------------------------------------------------------------------------------------
def test_records_check_their_attributes():
    params = gymapi.SimParams()
    params.dt = 1
    for name, wrong in [("dt", "1"), ("substeps", 1.5), ("use_gpu_pipeline", 1), ("gravity", (0, 0, -1)), ("physx", 3)]:
        with pytest.raises(TypeError, match=name):
            setattr(params, name, wrong)
    with pytest.raises(AttributeError, match="substep"):
        params.substep = 2
    assert params.dt == 1.0 and params.substeps == 2


def test_records_are_single_precision_copied_in_and_handed_out_by_reference():
    params, gravity = gymapi.SimParams(), gymapi.Vec3(0, 0, -9.81)
    params.gravity = gravity
    gravity.z = 0
    params.physx.solver_type = 0
    assert params.gravity.z == pytest.approx(-9.81, rel=1e-6) and params.gravity.z != -9.81
    assert params.physx.solver_type == 0


def test_enums_are_no_integers_but_convert():
    assert int(gymapi.DOF_MODE_EFFORT) == 3
    assert gymapi.DofDriveMode(3) == gymapi.DOF_MODE_EFFORT != gymapi.DOF_MODE_POS
    assert gymapi.CC_LAST_SUBSTEP != 1
    assert gymapi.ContactCollection(1) == gymapi.CC_LAST_SUBSTEP


WRONG_ARGUMENTS = {
    "a str for a Sim": lambda lab: lab.gym.simulate("sim"),
    "an Env for a Sim": lambda lab: lab.gym.get_env_count(lab.envs[0]),
    "a Sim for an Env": lambda lab: lab.gym.get_actor_dof_names(lab.sim, 0),
    "a float for a handle": lambda lab: lab.gym.get_actor_dof_names(lab.envs[0], 0.0),
    "a torch tensor for a Tensor": lambda lab: lab.gym.set_dof_state_tensor(lab.sim, lab.dof),
    "an int for a bool": lambda lab: lab.gym.fetch_results(lab.sim, 1),
    "a keyword for arg0": lambda lab: lab.gym.simulate(sim=lab.sim),
    "too few": lambda lab: lab.gym.fetch_results(lab.sim),
    "too many": lambda lab: lab.gym.simulate(lab.sim, True),
    "an element of a list": lambda lab: lab.gym.set_asset_tendon_properties(lab.arm, [gymapi.Vec3()]),
    "an array that is no array": lambda lab: lab.gym.set_actor_dof_properties(lab.envs[0], ARM, [1, 2]),
    "a handle for unwrap_tensor": lambda lab: gymtorch.unwrap_tensor(gymtorch.unwrap_tensor(lab.dof)),
}


@pytest.mark.parametrize("name", list(WRONG_ARGUMENTS))
def test_wrong_arguments_raise_type_errors(lab, name):
    with pytest.raises(TypeError):
        WRONG_ARGUMENTS[name](lab)


# -- rules -------------------------------------------------------------------------------------------------------
def prop_count(lab):
    lab.gym.set_actor_rigid_shape_properties(lab.envs[0], BOX, [])


def roots(lab, **change):
    states = lab.root.clone()
    for column, value in change.items():
        states[:, int(column[1:])] = value
    return states


BEFORE_PREPARE = {
    "acquire": lambda lab: lab.gym.acquire_dof_state_tensor(lab.sim),
    "refresh": lambda lab: lab.gym.refresh_dof_state_tensor(lab.sim),
    "set": lambda lab: lab.call("set_dof_state_tensor", torch.zeros(4, 2)),
    "set indexed": lambda lab: lab.set_dofs(torch.zeros(4, 2), 0),
    "simulate": lambda lab: lab.gym.simulate(lab.sim),
    "apply": lambda lab: lab.gym.apply_rigid_body_force_tensors(lab.sim),
}


@pytest.mark.parametrize("name", list(BEFORE_PREPARE))
def test_nothing_runs_before_prepare_sim(unprepared, name):
    with pytest.raises(RuntimeError, match="before prepare_sim"):
        BEFORE_PREPARE[name](unprepared)


AFTER_PREPARE = {
    "ground": lambda lab: lab.gym.add_ground(lab.sim, gymapi.PlaneParams()),
    "asset": lambda lab: lab.load("late.xml", ARM_XML),
    "env": lambda lab: lab.env(2),
    "actor": lambda lab: lab.gym.create_actor(lab.envs[-1], lab.box, gymapi.Transform()),
    "dof force sensors": lambda lab: lab.gym.enable_actor_dof_force_sensors(lab.envs[0], ARM),
    "attractor": lambda lab: lab.gym.create_rigid_body_attractor(lab.envs[0], gymapi.AttractorProperties()),
    "prepare_sim": lambda lab: lab.gym.prepare_sim(lab.sim),
}


@pytest.mark.parametrize("name", list(AFTER_PREPARE))
def test_nothing_is_built_after_prepare_sim(lab, name):
    with pytest.raises(RuntimeError, match="after prepare_sim"):
        AFTER_PREPARE[name](lab)


BUILDING = {
    "an env that is full": (lambda lab: lab.gym.create_actor(lab.envs[0], lab.box, gymapi.Transform()), "no more"),
    "another sim's asset": (lambda lab: lab.gym.create_actor(other_env(lab), lab.box, gymapi.Transform()), "another"),
    "late force sensor": (
        lambda lab: lab.gym.create_asset_force_sensor(lab.box, 0, gymapi.Transform()),
        "after create",
    ),
    "missing file": (lambda lab: lab.gym.load_asset(lab.sim, "/nowhere", "a.xml"), "no file"),
    "jointed root": (
        lambda lab: lab.load("r.xml", ARM_XML.replace('name="mount" pos="7 7 7">', 'name="m"><joint/>')),
        "root body",
    ),
    "two roots": (
        lambda lab: lab.load("t.xml", ARM_XML.replace("</worldbody>", "<body/></worldbody>")),
        "one body tree",
    ),
    "flex": (lambda lab: lab.gym.create_sim(0, 0, params=sim_params()), "SIM_PHYSX"),
    "tilted ground": (lambda lab: lab.gym.add_ground(lab.sim, gymapi.PlaneParams()), "up axis"),
    "aggregate too small": (lambda lab: aggregate(lab, 3, 1), "more bodies or shapes"),
    "aggregate of few shapes": (lambda lab: aggregate(lab, 9, 1, lab.arm), "more bodies or shapes"),
    "aggregate left open": (lambda lab: aggregate(lab, 9, 9) or lab.env(3), "between begin"),
    "aggregate not begun": (lambda lab: lab.gym.end_aggregate(lab.envs[0]), "without begin"),
    "attractor of no body": (lambda lab: lab.gym.create_rigid_body_attractor(lab.envs[0], attractor(4)), "handle 4"),
    "no such actor": (lambda lab: lab.gym.get_actor_dof_names(lab.envs[0], 2), "no actor 2"),
    "too few shapes": (prop_count, "0 given, there are 1"),
}


def other_env(lab):
    sim = lab.gym.create_sim(0, -1, gymapi.SIM_PHYSX, sim_params())
    return lab.gym.create_env(sim, gymapi.Vec3(), gymapi.Vec3(), 1)


def aggregate(lab, bodies, shapes, *more):
    env = lab.gym.create_env(lab.sim, gymapi.Vec3(), gymapi.Vec3(), 1)
    lab.gym.begin_aggregate(env, bodies, shapes, True)
    for asset in (lab.arm, lab.box, *more)[: 2 + len(more)]:
        lab.gym.create_actor(env, asset, gymapi.Transform())


def attractor(handle):
    props = gymapi.AttractorProperties()
    props.rigid_handle = handle
    return props


@pytest.mark.parametrize("name", list(BUILDING))
def test_rules_of_building(unprepared, name):
    breach, message = BUILDING[name]
    with pytest.raises(RuntimeError, match=message):
        breach(unprepared)


STATES = "set_actor_root_state_tensor_indexed"
RUNNING = {
    "twice: roots": (lambda lab: lab.set_roots(lab.root, 1) and lab.set_roots(lab.root, 3), "called twice"),
    "twice: joints": (lambda lab: lab.set_dofs(lab.dof, 0) and lab.set_dofs(lab.dof, 2), "called twice"),
    "float64": (lambda lab: lab.set_roots(lab.root.double(), 1), "float32, not torch.float64"),
    "int64 indices": (lambda lab: lab.call(STATES, lab.root, torch.tensor([1])), "int32, not torch.int64"),
    "strided": (lambda lab: lab.set_dofs(lab.dof.t(), 0), "contiguous"),
    "another device": (lambda lab: lab.set_dofs(torch.empty(4, 2, device="meta"), 0), "is on meta"),
    "half of the rows": (lambda lab: lab.set_roots(lab.root[:2], 1), "expected"),
    "wrong count": (lambda lab: lab.call(STATES, lab.root, torch.tensor([1, 3], dtype=INT), count=1), "1 given"),
    "index too large": (lambda lab: lab.set_roots(lab.root, 4), "out of range"),
    "index negative": (lambda lab: lab.set_roots(lab.root, -1), "out of range"),
    "index twice": (lambda lab: lab.set_roots(lab.root, 1, 1), "stands twice"),
    "fixed base": (lambda lab: lab.set_roots(lab.root, 0), "fixed base"),
    "no joints": (lambda lab: lab.set_dofs(lab.dof, 1), "without joints"),
    "NaN": (lambda lab: lab.set_roots(roots(lab, c2=float("nan")), 1), "NaN"),
    "NaN joint": (lambda lab: lab.call("set_dof_state_tensor", lab.dof * float("nan")), "NaN"),
    "NaN force": (lambda lab: lab.call("apply_rigid_body_force_tensors", torch.full((8, 3), float("inf"))), "infinity"),
    "not a rotation": (lambda lab: lab.set_roots(roots(lab, c6=2.0), 1), "unit length"),
    "freed tensor": (lambda lab: lab.gym.set_dof_state_tensor(lab.sim, gymtorch.unwrap_tensor(lab.dof + 1)), "freed"),
    "acquired, not unwrapped": (
        lambda lab: lab.gym.set_dof_state_tensor(lab.sim, lab.gym.acquire_dof_state_tensor(lab.sim)),
        "unwrap_tensor",
    ),
    "unwrapped, not acquired": (lambda lab: gymtorch.wrap_tensor(gymtorch.unwrap_tensor(lab.dof)), "acquire_"),
    "refresh without acquire": (lambda lab: lab.gym.refresh_jacobian_tensors(lab.sim), "before it was acquired"),
    "jacobian of a free actor": (lambda lab: lab.gym.acquire_jacobian_tensor(lab.sim, "box"), "fixed"),
    "no fetch_results": (lambda lab: lab.gym.simulate(lab.sim) or lab.refresh(), "before fetch_results"),
    "destroyed sim": (lambda lab: lab.gym.destroy_sim(lab.sim) or lab.gym.simulate(lab.sim), "after destroy_sim"),
    "destroyed env": (lambda lab: lab.gym.destroy_sim(lab.sim) or prop_count(lab), "after destroy_sim"),
    "other dof properties": (
        lambda lab: lab.gym.set_actor_dof_properties(lab.envs[0], ARM, lab.dof.numpy()),
        "get_actor_dof_properties",
    ),
}


@pytest.mark.parametrize("name", list(RUNNING))
def test_rules_of_running(lab, name):
    breach, message = RUNNING[name]
    with pytest.raises(RuntimeError, match=message):
        breach(lab)


def test_what_the_rules_allow(lab):
    lab.set_roots(lab.root, 1, 3)
    lab.set_dofs(lab.dof, 0, 2)
    lab.call("set_dof_position_target_tensor_indexed", torch.zeros(4), torch.tensor([0], dtype=INT))
    lab.call("set_dof_state_tensor", lab.dof.view(-1))  # the number of elements counts, not the shape
    bad = roots(lab, c2=float("nan"))
    bad[3] = lab.root[3]
    lab.step()
    lab.set_roots(bad, 3)  # NaN in rows that are not named
    lab.step()
    assert lab.root.isfinite().all()


def test_the_gpu_pipeline_needs_no_fetch_and_fixes_centres_of_mass(tmp_path):
    lab = Lab(tmp_path, gpu=True)
    lab.gym.simulate(lab.sim)
    lab.refresh()
    assert (lab.root[1::2, 9] < 0).all()
    props = lab.gym.get_actor_rigid_body_properties(lab.envs[0], BOX)
    props[0].mass *= 2
    assert lab.gym.set_actor_rigid_body_properties(lab.envs[0], BOX, props)
    props[0].com = gymapi.Vec3(0, 0, 0.2)
    with pytest.raises(RuntimeError, match="centre of mass"):
        lab.gym.set_actor_rigid_body_properties(lab.envs[0], BOX, props)


# -- indices and names -------------------------------------------------------------------------------------------
def test_indices_of_actors_and_bodies(lab):
    gym, env = lab.gym, lab.envs[1]
    counts = [gym.get_env_count, gym.get_sim_actor_count, gym.get_sim_dof_count, gym.get_sim_rigid_body_count]
    assert [count(lab.sim) for count in counts] == [2, 4, 4, 8]
    assert gym.get_sim_force_sensor_count(lab.sim) == 2
    assert gym.get_actor_index(env, BOX, gymapi.DOMAIN_SIM) == 3
    assert gym.get_actor_index(env, BOX, gymapi.DOMAIN_ENV) == 1
    domains = [gymapi.DOMAIN_SIM, gymapi.DOMAIN_ENV, gymapi.DOMAIN_ACTOR]
    assert [gym.find_actor_rigid_body_index(env, BOX, "box", d) for d in domains] == [7, 3, 0]
    assert gym.find_actor_rigid_body_handle(env, BOX, "box") == 3
    assert gym.find_actor_rigid_body_handle(env, BOX, "arm") == gymapi.INVALID_HANDLE
    assert gym.get_actor_dof_names(env, ARM) == ["swing", "reach"]


def test_wrapped_tensors_share_stable_memory(lab):
    again = gymtorch.wrap_tensor(lab.gym.acquire_dof_state_tensor(lab.sim))
    corner = gymtorch.wrap_tensor(lab.gym.acquire_dof_state_tensor(lab.sim), (1, 0), (2, 1))
    lab.dof[1, 0] = 0.25
    assert again.data_ptr() == lab.dof.data_ptr() and again[1, 0] == 0.25
    assert corner.shape == (2, 1) and corner[0, 0] == 0.25


def test_properties_are_copies_until_they_are_set(lab):
    gym, env = lab.gym, lab.envs[0]
    shapes = gym.get_actor_rigid_shape_properties(env, BOX)
    shapes[0].friction = 0.25
    assert gym.get_actor_rigid_shape_properties(env, BOX)[0].friction == 1.0
    assert gym.set_actor_rigid_shape_properties(env, BOX, shapes)
    shapes[0].friction = 0.5
    assert gym.get_actor_rigid_shape_properties(env, BOX)[0].friction == 0.25
    assert gym.get_actor_rigid_shape_properties(lab.envs[1], BOX)[0].friction == 1.0
    params = gym.get_sim_params(lab.sim)
    params.gravity = gymapi.Vec3()
    lab.step()
    assert (lab.root[1::2, 9] < 0).all()
    gym.set_sim_params(lab.sim, params)
    speed = lab.root[1, 9].clone()
    lab.step()
    assert lab.root[1, 9] == speed and tensor(*[0.0] * 3).equal(lab.contact[3])

"""A small scene on the fake Isaac Gym, for its tests: in every env a fixed arm, then a free box."""

import fake_gym
import torch

fake_gym.install()

from isaacgym import gymapi, gymtorch  # noqa: E402

G, DT, SUBSTEPS, ENVS = 10.0, 0.02, 2, 2
H = DT / SUBSTEPS
ARM, BOX = 0, 1  # actors of an env
LENGTH = 0.5  # from the arm's hinge to its slide, m
LINK_MASS, TIP_MASS = 2.0, 0.25
BOX_MASS, HALF, COM = 4.0, 0.1, (0.02, 0.0, 0.05)
BOX_INERTIA = (0.04, 0.05, 0.06)
ARMATURE = 0.5

ARM_XML = """
<mujoco><compiler angle="radian"/><worldbody><body name="mount" pos="7 7 7">
  <geom type="sphere" size=".05" mass="1" contype="0" conaffinity="0"/>
  <body name="link"><joint name="swing" axis="0 1 0" range="-1 1.5" armature="%g"/>
    <inertial pos=".25 0 0" mass="%g" diaginertia=".01 .02 .02"/><geom type="capsule" fromto="0 0 0 .5 0 0" size=".02"/>
    <body name="tip" pos="%g 0 0"><joint name="reach" type="slide" axis="1 0 0"/>
      <inertial pos="0 0 0" mass="%g" diaginertia=".01 .01 .01"/><geom type="sphere" size=".02"/></body></body>
</body></worldbody>
<tendon><fixed name="cable" limited="true" range="0 1"><joint joint="swing" coef="1"/><joint joint="reach" coef="2"/>
</fixed></tendon></mujoco>""" % (ARMATURE, LINK_MASS, LENGTH, TIP_MASS)

BOX_XML = """
<mujoco><worldbody><body name="box"><inertial pos="%g %g %g" mass="%g" diaginertia="%g %g %g"/>
  <geom type="box" size="%g %g %g"/></body></worldbody></mujoco>""" % (*COM, BOX_MASS, *BOX_INERTIA, HALF, HALF, HALF)


def tensor(*values):
    return torch.tensor(values, dtype=torch.float32)


class Lab:
    """The scene and its wrapped tensors; gravity is 10 m/s^2 down, the box starts 1 m above the ground.

    Attributes:
        root (4, 13), dof (4, 2), body (8, 13), contact (8, 3), dof_force (4,), sensor (2, 6): rows of both envs,
            bodies of an env are mount, link, tip, box; the sensor is on the box.
    """

    def __init__(self, folder, gpu=False, prepare=True, edit=None, arm_edit=None, options=None):
        self.folder, self.gpu = folder, gpu
        self.gym = gymapi.acquire_gym()
        self.sim = self.gym.create_sim(0, -1, gymapi.SIM_PHYSX, sim_params(gpu))
        plane = gymapi.PlaneParams()
        plane.normal = gymapi.Vec3(0, 0, 1)
        self.gym.add_ground(self.sim, plane)
        fixed = gymapi.AssetOptions()
        fixed.fix_base_link = True
        self.arm = self.load("arm.xml", ARM_XML, fixed)
        self.box = self.load("box.xml", BOX_XML, options or gymapi.AssetOptions())
        self.gym.create_asset_force_sensor(self.box, 0, gymapi.Transform())
        self.envs = [self.env(i, arm_edit) for i in range(ENVS)]
        if edit:
            edit(self)
        if prepare:
            self.prepare()

    def load(self, name, text, options=None):
        (self.folder / name).write_text(text)
        return self.gym.load_asset(self.sim, str(self.folder), name, options)

    def env(self, index, arm_edit=None):
        env = self.gym.create_env(self.sim, gymapi.Vec3(-1, -1, 0), gymapi.Vec3(1, 1, 1), ENVS)
        self.gym.create_actor(env, self.arm, gymapi.Transform(p=gymapi.Vec3(0, 0, 0.5)), "arm", index, 0)
        self.gym.create_actor(env, self.box, gymapi.Transform(p=gymapi.Vec3(1, 0, 1)), "box", index, 0)
        if arm_edit:
            props = self.gym.get_actor_dof_properties(env, ARM)
            for field, values in arm_edit.items():
                props[field] = values
            self.gym.set_actor_dof_properties(env, ARM, props)
        return env

    def prepare(self):
        gym, wrap = self.gym, gymtorch.wrap_tensor
        gym.prepare_sim(self.sim)
        self.root = wrap(gym.acquire_actor_root_state_tensor(self.sim))
        self.dof = wrap(gym.acquire_dof_state_tensor(self.sim))
        self.body = wrap(gym.acquire_rigid_body_state_tensor(self.sim))
        self.contact = wrap(gym.acquire_net_contact_force_tensor(self.sim))
        self.sensor = wrap(gym.acquire_force_sensor_tensor(self.sim))
        self.dof_force = wrap(gym.acquire_dof_force_tensor(self.sim))
        self.refresh()

    def refresh(self):
        self.gym.refresh_actor_root_state_tensor(self.sim)
        self.gym.refresh_dof_state_tensor(self.sim)
        self.gym.refresh_rigid_body_state_tensor(self.sim)
        self.gym.refresh_net_contact_force_tensor(self.sim)
        self.gym.refresh_force_sensor_tensor(self.sim)
        self.gym.refresh_dof_force_tensor(self.sim)

    def step(self, times=1):
        for _ in range(times):
            self.gym.simulate(self.sim)
            self.gym.fetch_results(self.sim, True)
        self.refresh()

    def call(self, name, *tensors, count=None):
        """A setter with torch tensors; the last one holds actor indices if ``count`` is given or it ends _indexed."""
        handles = [gymtorch.unwrap_tensor(t) for t in tensors]
        if name.endswith("_indexed"):
            handles.append(tensors[-1].numel() if count is None else count)
        return getattr(self.gym, name)(self.sim, *handles)

    def set_roots(self, states, *actors):
        return self.call("set_actor_root_state_tensor_indexed", states, torch.tensor(actors, dtype=torch.int32))

    def set_dofs(self, states, *actors):
        return self.call("set_dof_state_tensor_indexed", states, torch.tensor(actors, dtype=torch.int32))


def sim_params(gpu=False):
    params = gymapi.SimParams()
    params.dt, params.substeps, params.up_axis = DT, SUBSTEPS, gymapi.UP_AXIS_Z
    params.gravity = gymapi.Vec3(0, 0, -G)
    params.use_gpu_pipeline = params.physx.use_gpu = gpu
    return params

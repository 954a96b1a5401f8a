"""The MuJoCo engines: mujoco.batch on the CPU, MuJoCo Warp on CUDA."""

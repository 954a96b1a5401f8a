"""PPO of rsl_rl: python examples/rsl_rl_ppo.py (pip install -c constraints.txt -e '.[peers]')"""

import torch
from rsl_rl.runners import OnPolicyRunner
from tensordict import TensorDict

import hepo_isaac
from hepo_isaac.api.rsl_rl import RslRlVecEnv

NETWORK = {"class_name": "MLPModel", "hidden_dims": [32, 32], "activation": "elu", "obs_normalization": True}
CONFIG = {
    "num_steps_per_env": 16,
    "save_interval": 1000,
    "obs_groups": {"actor": ["policy"], "critic": ["policy"]},
    "actor": {**NETWORK, "distribution_cfg": {"class_name": "GaussianDistribution", "init_std": 1.0}},
    "critic": NETWORK,
    "algorithm": {
        "class_name": "PPO",
        "num_learning_epochs": 4,
        "num_mini_batches": 4,
        "learning_rate": 1e-3,
        "schedule": "adaptive",
        "desired_kl": 0.01,
        "entropy_coef": 0.0,
    },
}


def main() -> hepo_isaac.Evaluation:
    """Train Cartpole on its shaping and say what the policy is worth on the task."""
    torch.manual_seed(1)
    torch.set_num_threads(1)
    env = hepo_isaac.make("Cartpole", 256, reward="heuristic", output="torch", seed=1)
    runner = OnPolicyRunner(RslRlVecEnv(env), CONFIG, log_dir=None, device=str(env.device))
    runner.learn(100, init_at_random_ep_len=True)
    act = runner.get_inference_policy()
    found = hepo_isaac.evaluate(
        lambda obs: act(TensorDict({"policy": obs}, batch_size=[len(obs)])), env, episodes=256, seed=2
    )
    print("%s, score %.3f" % (found, found.score or 0.0))
    env.close()
    return found


if __name__ == "__main__":
    main()

"""PPO of Stable-Baselines3: python examples/sb3_ppo.py (pip install -c constraints.txt -e '.[peers]')"""

import torch
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecNormalize

import hepo_isaac
from hepo_isaac.api.sb3 import Sb3VecEnv


def main() -> hepo_isaac.Evaluation:
    """Train Cartpole on its shaping and say what the policy is worth on the task."""
    torch.set_num_threads(1)
    env = hepo_isaac.make("Cartpole", 256, reward="heuristic", seed=1, random_start=True)
    normalized = VecNormalize(Sb3VecEnv(env))
    agent = PPO(
        "MlpPolicy",
        normalized,
        n_steps=16,
        batch_size=1024,
        n_epochs=4,
        learning_rate=1e-3,
        policy_kwargs={"net_arch": [32, 32], "activation_fn": torch.nn.ELU},
        seed=1,
        device="cpu",
    )
    agent.learn(400_000, progress_bar=False)
    normalized.training = False
    found = hepo_isaac.evaluate(
        lambda obs: agent.predict(normalized.normalize_obs(obs), deterministic=True)[0], env, episodes=256, seed=2
    )
    print("%s, score %.3f" % (found, found.score or 0.0))
    normalized.close()
    return found


if __name__ == "__main__":
    main()

"""PPO of skrl: python examples/skrl_ppo.py (pip install -c constraints.txt -e '.[peers]')"""

from typing import Any, Mapping

import torch
from skrl.agents.torch.ppo import PPO
from skrl.envs.wrappers.torch import wrap_env
from skrl.memories.torch import RandomMemory
from skrl.models.torch import DeterministicMixin, GaussianMixin, Model
from skrl.resources.preprocessors.torch import RunningStandardScaler
from skrl.trainers.torch import SequentialTrainer
from skrl.utils import set_seed
from torch import nn

import hepo_isaac


def mlp(inputs: int, outputs: int) -> nn.Sequential:
    """Two hidden layers."""
    return nn.Sequential(nn.Linear(inputs, 32), nn.ELU(), nn.Linear(32, 32), nn.ELU(), nn.Linear(32, outputs))


class Actor(GaussianMixin, Model):
    """Means and standard deviations of the actions."""

    def __init__(self, env: Any) -> None:
        Model.__init__(self, observation_space=env.observation_space, action_space=env.action_space, device=env.device)
        GaussianMixin.__init__(self, role="policy")
        self.mean, self.log_std = mlp(self.num_observations, self.num_actions), nn.Parameter(torch.zeros(1))

    def compute(self, inputs: Mapping[str, Any], role: str = "") -> Any:
        return self.mean(inputs["observations"]), {"log_std": self.log_std}


class Critic(DeterministicMixin, Model):
    """Expected return."""

    def __init__(self, env: Any) -> None:
        Model.__init__(self, observation_space=env.observation_space, action_space=env.action_space, device=env.device)
        DeterministicMixin.__init__(self, role="value")
        self.value = mlp(self.num_observations, 1)

    def compute(self, inputs: Mapping[str, Any], role: str = "") -> Any:
        return self.value(inputs["observations"]), {}


def main() -> hepo_isaac.Evaluation:
    """Train Cartpole on its shaping and say what the policy is worth on the task."""
    set_seed(1)
    torch.set_num_threads(1)
    vector = hepo_isaac.make("Cartpole", 256, reward="heuristic", seed=1, random_start=True)
    env = wrap_env(vector, verbose=False)
    cfg = {"rollouts": 16, "learning_epochs": 4, "mini_batches": 4, "experiment": {"write_interval": 0}}
    cfg.update(observation_preprocessor=RunningStandardScaler, value_preprocessor=RunningStandardScaler)
    cfg.update(observation_preprocessor_kwargs={"size": env.observation_space, "device": env.device})
    cfg.update(value_preprocessor_kwargs={"size": 1, "device": env.device})
    agent = PPO(
        models={"policy": Actor(env), "value": Critic(env)},
        memory=RandomMemory(memory_size=16, num_envs=env.num_envs, device=env.device),
        observation_space=env.observation_space,
        action_space=env.action_space,
        device=env.device,
        cfg=cfg,
    )
    settings = {"timesteps": 1600, "headless": True, "disable_progressbar": True, "close_environment_at_exit": False}
    SequentialTrainer(env=env, agents=agent, cfg=settings).train()
    agent.enable_training_mode(False)
    last = {"timestep": 0, "timesteps": 0}
    mean = lambda obs: agent.act(torch.as_tensor(obs), None, **last)[1]["mean_actions"].numpy()  # noqa: E731
    found = hepo_isaac.evaluate(mean, vector, episodes=256, seed=2)
    print("%s, score %.3f" % (found, found.score or 0.0))
    vector.close()
    return found


if __name__ == "__main__":
    main()

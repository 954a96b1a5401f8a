"""PPO of other libraries on this project's environments, for ``hepo-isaac bench --peers`` (extra ``[peers]``).

Each peer maximises h with the trunk, rows, minibatches, epochs and clipping of the task's ``ppo_h``, and is driven
through its own public interface: rl-games' A2CAgent, skrl's and Stable-Baselines3's PPO, and the loop that CleanRL's
scripts share, written out. They keep their own ways besides (normalisers, schedules, what they log): what is timed is
what a user of theirs would wait for.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
import time
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Mapping, Tuple

import gymnasium
import numpy as np
import torch
from torch import Tensor, nn

from hepo_isaac.agents.config import TrainConfig, train_config
from hepo_isaac.envs.make import make_env
from hepo_isaac.envs.rl_games import RlGamesVecEnv
from hepo_isaac.envs.task_env import OBS_CLIP, TaskEnv
from hepo_isaac.errors import UserError

# Returns CPU seconds of all threads for (rollout, update) of one iteration.
Iterate = Callable[[], Tuple[float, float]]


@dataclass(frozen=True)
class Problem:
    """What every peer is given: an environment whose reward is h, and PPO's settings."""

    env: TaskEnv
    train: TrainConfig
    seed: int

    @property
    def rows(self) -> int:
        """Rows of a rollout."""
        return self.env.num_envs * self.train.horizon_length

    @property
    def minibatches(self) -> int:
        """Gradient steps of a mini-epoch."""
        return self.rows // self.train.minibatch_size

    @property
    def spaces(self) -> Tuple[gymnasium.spaces.Box, gymnasium.spaces.Box]:
        """Observations and actions of one environment."""
        high, one = np.full(self.env.num_obs, OBS_CLIP, np.float32), np.ones(self.env.num_actions, np.float32)
        return gymnasium.spaces.Box(-high, high), gymnasium.spaces.Box(-one, one)

    def trunk(self) -> nn.Sequential:
        """Hidden layers of the task's network."""
        layers: List[nn.Module] = []
        size = self.env.num_obs
        for units in self.train.units:
            layers += [nn.Linear(size, units), activation(self.train)()]
            size = units
        return nn.Sequential(*layers)


def activation(train: TrainConfig) -> Any:
    """The module class of the settings' activation."""
    return {"elu": nn.ELU, "relu": nn.ReLU, "tanh": nn.Tanh, "selu": nn.SELU}[train.activation]


def make_peers(cfg: Mapping[str, Any]) -> Dict[str, Iterate]:
    """name -> one iteration of that peer, each on environments of its own.

    Args:
        cfg: resolved settings of the task with ``algo=ppo_h``.

    Raises:
        UserError: a peer is not installed, or the task has states for the critics alone.
    """
    made: Dict[str, Iterate] = {}
    for name, build in (("rl-games", rl_games), ("CleanRL", cleanrl), ("skrl", skrl), ("SB3", sb3)):
        env = make_env(cfg)
        if env.num_states:
            raise UserError(
                "task=%s: its critics see states of their own, which not every peer can; bench --peers expects a task "
                "without, such as Ant or FrankaCabinet" % cfg["task"]["name"]
            )
        problem = Problem(env, train_config(cfg["train"]), int(cfg["seed"]))
        try:
            made[name] = build(problem)
        except ImportError as error:
            raise UserError("%s is not installed (%s): pip install 'hepo-isaac[peers]'" % (name, error)) from error
    return made


# ---- rl-games -------------------------------------------------------------------------------------------------


class _HeuristicReward(RlGamesVecEnv):
    """The same environments with h as their one reward."""

    def get_env_info(self) -> Dict[str, Any]:
        return {**super().get_env_info(), "value_size": 1}

    def step(self, actions: Tensor) -> Tuple[Tensor, Tensor, Tensor, Dict[str, Any]]:
        obs, rewards, done, infos = super().step(actions)
        return obs, rewards[:, 1], done, {"time_outs": infos["time_outs"]}


def rl_games(problem: Problem) -> Iterate:
    """rl-games 1.6.5, the agent that Isaac Gym Envs trains with."""
    from rl_games.algos_torch.a2c_continuous import A2CAgent
    from rl_games.algos_torch.model_builder import ModelBuilder
    from rl_games.common.algo_observer import AlgoObserver

    t = problem.train
    network = {
        "name": "actor_critic",
        "separate": False,
        "space": {
            "continuous": {
                "mu_activation": "None",
                "sigma_activation": "None",
                "mu_init": {"name": "default"},
                "sigma_init": {"name": "const_initializer", "val": 0},
                "fixed_sigma": True,
            }
        },
        "mlp": {"units": t.units, "activation": t.activation, "d2rl": False, "initializer": {"name": "default"}},
    }
    params: Dict[str, Any] = {
        "seed": problem.seed,
        "algo": {"name": "a2c_continuous"},
        "model": {"name": "continuous_a2c_logstd"},
        "network": network,
    }
    config: Dict[str, Any] = {
        "name": "bench",
        "env_name": "bench",
        "vec_env": _HeuristicReward(problem.env),
        "env_info": _HeuristicReward(problem.env).get_env_info(),
        "device": "cpu",
        "multi_gpu": False,
        "features": {"observer": AlgoObserver()},
        "num_actors": problem.env.num_envs,
        "horizon_length": t.horizon_length,
        "minibatch_size": t.minibatch_size,
        "mini_epochs": t.mini_epochs,
        "learning_rate": t.learning_rate,
        "lr_schedule": "adaptive",
        "schedule_type": "standard",
        "kl_threshold": t.kl_threshold,
        "reward_shaper": lambda reward: reward,
        "normalize_advantage": True,
        "normalize_input": True,
        "normalize_value": True,
        "value_bootstrap": True,
        "truncate_grads": True,
        "ppo": True,
        "print_stats": False,
    }
    names = ("gamma", "tau", "e_clip", "clip_value", "critic_coef", "grad_norm", "entropy_coef", "bounds_loss_coef")
    config.update((name, getattr(t, name)) for name in names)
    params["config"] = config
    config["network"] = ModelBuilder().load(params)
    # It makes folders for checkpoints that nobody asks for, and prints what it is made of.
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        agent = A2CAgent("bench", {**params, "config": {**config, "train_dir": folder}})
    agent.init_tensors()
    agent.obs = agent.env_reset()
    spent = Timed(agent, "play_steps")
    return lambda: spent.split(agent.train_epoch)


class Timed:
    """Counts the CPU seconds of one method, so that the rest of an iteration can be told from it."""

    def __init__(self, of: Any, name: str) -> None:
        self._seconds = 0.0
        inner = getattr(of, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            began = time.process_time()
            result = inner(*args, **kwargs)
            self._seconds += time.process_time() - began
            return result

        setattr(of, name, timed)

    def split(self, iteration: Callable[[], Any]) -> Tuple[float, float]:
        """Run ``iteration``; seconds (in the method, outside of it)."""
        self._seconds, began = 0.0, time.process_time()
        iteration()
        total = time.process_time() - began
        return self._seconds, total - self._seconds


# ---- CleanRL ----------------------------------------------------------------------------------------------------


def cleanrl(problem: Problem) -> Iterate:
    """The loop of CleanRL's continuous PPO scripts, tensors throughout as in the one for Isaac Gym."""
    t, env = problem.train, problem.env
    net = _ActorCritic(problem)
    optimizer = torch.optim.Adam(net.parameters(), lr=t.learning_rate, eps=1e-5)
    shape = (t.horizon_length, env.num_envs)
    obs_buffer, actions = torch.zeros(*shape, env.num_obs), torch.zeros(*shape, env.num_actions)
    log_probs, rewards, dones, values = (torch.zeros(shape) for _ in range(4))
    now = {"obs": env.reset(), "done": torch.zeros(env.num_envs)}

    def rollout() -> Tuple[Tensor, Tensor]:
        for step in range(t.horizon_length):
            obs_buffer[step], dones[step] = now["obs"], now["done"]
            with torch.no_grad():
                distribution, value = net(now["obs"])
                actions[step] = distribution.sample()
            values[step] = value
            log_probs[step] = distribution.log_prob(actions[step]).sum(1)
            result = env.step(actions[step])
            rewards[step] = result.rewards[:, 1]
            now["obs"], now["done"] = result.obs, result.done.float()
        with torch.no_grad():
            next_value, next_done = net(now["obs"])[1], now["done"]
        advantages, last = torch.zeros(shape), torch.zeros(env.num_envs)
        for step in reversed(range(t.horizon_length)):
            delta = rewards[step] + t.gamma * next_value * (1.0 - next_done) - values[step]
            advantages[step] = last = delta + t.gamma * t.tau * (1.0 - next_done) * last
            next_value, next_done = values[step], dones[step]
        return advantages, advantages + values

    def update(advantages: Tensor, returns: Tensor) -> None:
        fields = (obs_buffer, actions, log_probs, advantages, returns, values)
        b_obs, b_actions, b_log_probs, b_advantages, b_returns, b_values = (f.flatten(0, 1) for f in fields)
        for _ in range(t.mini_epochs):
            for rows in torch.randperm(problem.rows).split(t.minibatch_size):
                distribution, value = net(b_obs[rows])
                ratio = (distribution.log_prob(b_actions[rows]).sum(1) - b_log_probs[rows]).exp()
                chosen = b_advantages[rows]
                chosen = (chosen - chosen.mean()) / (chosen.std() + 1e-8)
                policy_loss = torch.max(-chosen * ratio, -chosen * ratio.clamp(1 - t.e_clip, 1 + t.e_clip)).mean()
                kept = b_values[rows] + (value - b_values[rows]).clamp(-t.e_clip, t.e_clip)
                worse = torch.max((value - b_returns[rows]) ** 2, (kept - b_returns[rows]) ** 2)
                entropy = distribution.entropy().sum(1).mean()
                loss = policy_loss - t.entropy_coef * entropy + 0.5 * t.critic_coef * worse.mean()
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(net.parameters(), t.grad_norm)
                optimizer.step()

    def iterate() -> Tuple[float, float]:
        began = time.process_time()
        found = rollout()
        middle = time.process_time()
        update(*found)
        return middle - began, time.process_time() - middle

    return iterate


class _ActorCritic(nn.Module):
    """One trunk with an actor's and a critic's head."""

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        self.trunk = problem.trunk()
        self.mean = nn.Linear(problem.train.units[-1], problem.env.num_actions)
        self.value = nn.Linear(problem.train.units[-1], 1)
        self.log_std = nn.Parameter(torch.zeros(1, problem.env.num_actions))

    def forward(self, obs: Tensor) -> Tuple[torch.distributions.Normal, Tensor]:
        """Distribution of the actions and (B,) values."""
        features = self.trunk(obs)
        mean = self.mean(features)
        distribution = torch.distributions.Normal(mean, self.log_std.expand_as(mean).exp())
        return distribution, self.value(features).squeeze(1)


# ---- skrl ---------------------------------------------------------------------------------------------------------


def skrl(problem: Problem) -> Iterate:
    """skrl's PPO with one model for both roles, its scalers and its KL-adaptive rate, as in its Isaac Lab examples."""
    import logging

    from skrl import logger
    from skrl.agents.torch.ppo import PPO
    from skrl.memories.torch import RandomMemory
    from skrl.resources.preprocessors.torch import RunningStandardScaler
    from skrl.resources.schedulers.torch import KLAdaptiveLR

    logger.setLevel(logging.WARNING)
    t, env = problem.train, problem.env
    observations, action_space = problem.spaces
    model = _skrl_model(problem)
    settings: Dict[str, Any] = {
        "rollouts": t.horizon_length,
        "learning_epochs": t.mini_epochs,
        "mini_batches": problem.minibatches,
        "discount_factor": t.gamma,
        "gae_lambda": t.tau,
        "learning_rate": t.learning_rate,
        "learning_rate_scheduler": KLAdaptiveLR,
        "learning_rate_scheduler_kwargs": {"kl_threshold": t.kl_threshold},
        "observation_preprocessor": RunningStandardScaler,
        "observation_preprocessor_kwargs": {"size": observations, "device": "cpu"},
        "value_preprocessor": RunningStandardScaler,
        "value_preprocessor_kwargs": {"size": 1, "device": "cpu"},
        "grad_norm_clip": t.grad_norm,
        "ratio_clip": t.e_clip,
        "value_clip": t.e_clip if t.clip_value else 0.0,
        "entropy_loss_scale": t.entropy_coef,
        "value_loss_scale": 0.5 * t.critic_coef,
        "experiment": {"write_interval": 0, "checkpoint_interval": 0},
    }
    agent: Any = PPO(
        models={"policy": model, "value": model},
        memory=RandomMemory(memory_size=t.horizon_length, num_envs=env.num_envs, device="cpu"),
        observation_space=observations,
        action_space=action_space,
        device="cpu",
        cfg=settings,
    )
    agent.init()
    agent.enable_training_mode(True)
    spent = Timed(agent, "update")
    now = {"obs": env.reset()}
    at = {"timestep": 1, "timesteps": 10**9}  # only what it logs would depend on them

    def iteration() -> None:
        for _ in range(t.horizon_length):
            with torch.no_grad():
                actions, _ = agent.act(now["obs"], None, **at)
                result = env.step(actions)
                agent.record_transition(
                    observations=now["obs"],
                    states=None,
                    actions=actions,
                    rewards=result.rewards[:, 1:],
                    next_observations=result.obs,
                    next_states=None,
                    terminated=result.terminated.unsqueeze(1),
                    truncated=result.time_out.unsqueeze(1),
                    infos={},
                    **at,
                )
            agent.post_interaction(**at)
            now["obs"] = result.obs

    def iterate() -> Tuple[float, float]:
        update, rollout = spent.split(iteration)
        return rollout, update

    return iterate


def _skrl_model(problem: Problem) -> Any:
    from skrl.models.torch import DeterministicMixin, GaussianMixin, Model

    class Shared(GaussianMixin, DeterministicMixin, Model):
        """Policy and value on one trunk, evaluated once for both roles as skrl's examples do."""

        def __init__(self) -> None:
            observations, actions = problem.spaces
            Model.__init__(self, observation_space=observations, action_space=actions, device="cpu")
            GaussianMixin.__init__(self, role="policy")
            DeterministicMixin.__init__(self, role="value")
            self.net = _ActorCritic(problem)
            self._features: Any = None

        def act(self, inputs: Mapping[str, Any], *, role: str = "") -> Any:
            return (GaussianMixin if role == "policy" else DeterministicMixin).act(self, inputs, role=role)

        def compute(self, inputs: Mapping[str, Any], role: str = "") -> Any:
            if role == "policy":
                self._features = self.net.trunk(inputs["observations"])
                return self.net.mean(self._features), {"log_std": self.net.log_std.squeeze(0)}
            features = self.net.trunk(inputs["observations"]) if self._features is None else self._features
            self._features = None
            return self.net.value(features), {}

    return Shared()


# ---- Stable-Baselines3 ----------------------------------------------------------------------------------------


def sb3(problem: Problem) -> Iterate:
    """Stable-Baselines3's PPO; its environments are numpy arrays and a dict of infos per environment."""
    from stable_baselines3 import PPO
    from stable_baselines3.common.logger import Logger
    from stable_baselines3.common.vec_env import VecNormalize

    t = problem.train
    env = VecNormalize(_sb3_env(problem), norm_reward=False)
    agent = PPO(
        "MlpPolicy",
        env,
        learning_rate=t.learning_rate,
        n_steps=t.horizon_length,
        batch_size=t.minibatch_size,
        n_epochs=t.mini_epochs,
        gamma=t.gamma,
        gae_lambda=t.tau,
        clip_range=t.e_clip,
        clip_range_vf=t.e_clip if t.clip_value else None,
        ent_coef=t.entropy_coef,
        vf_coef=0.5 * t.critic_coef,
        max_grad_norm=t.grad_norm,
        policy_kwargs={**_sb3_trunk(problem), "net_arch": [], "ortho_init": False},
        seed=problem.seed,
        device="cpu",
    )
    agent.set_logger(Logger(folder=None, output_formats=[]))
    _, callback = agent._setup_learn(10**9, None)

    def iterate() -> Tuple[float, float]:
        began = time.process_time()
        agent.collect_rollouts(env, callback, agent.rollout_buffer, t.horizon_length)
        middle = time.process_time()
        agent.train()
        return middle - began, time.process_time() - middle

    return iterate


def _sb3_trunk(problem: Problem) -> Dict[str, Any]:
    """The trunk as what both roles share; ``net_arch`` would give each a trunk of its own."""
    from stable_baselines3.common.torch_layers import BaseFeaturesExtractor

    class Trunk(BaseFeaturesExtractor):
        """Hidden layers."""

        def __init__(self, observation_space: Any) -> None:
            super().__init__(observation_space, problem.train.units[-1])
            self.net = problem.trunk()

        def forward(self, observations: Tensor) -> Tensor:
            return self.net(observations)

    return {"features_extractor_class": Trunk}


def _sb3_env(problem: Problem) -> Any:
    from stable_baselines3.common.vec_env import VecEnv

    class HeuristicReward(VecEnv):
        """The environments as Stable-Baselines3 wants them."""

        def __init__(self) -> None:
            super().__init__(problem.env.num_envs, *problem.spaces)
            self._actions = torch.zeros(0)

        def reset(self) -> Any:
            return problem.env.reset().numpy()

        def step_async(self, actions: Any) -> None:
            self._actions = torch.from_numpy(actions)

        def step_wait(self) -> Any:
            result = problem.env.step(self._actions)
            infos: List[Dict[str, Any]] = [{} for _ in range(self.num_envs)]
            for i in result.done.nonzero().flatten().tolist():
                infos[i]["terminal_observation"] = result.final_obs[i].numpy()
                infos[i]["TimeLimit.truncated"] = bool(result.time_out[i])
            return result.obs.numpy(), result.rewards[:, 1].numpy(), result.done.numpy(), infos

        def close(self) -> None:
            problem.env.close()

        def get_attr(self, attr_name: str, indices: Any = None) -> Any:
            return [getattr(self, attr_name, None)] * self.num_envs

        def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
            setattr(self, attr_name, value)

        def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> Any:
            raise NotImplementedError(method_name)

        def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> Any:
            return [False] * self.num_envs

    return HeuristicReward()

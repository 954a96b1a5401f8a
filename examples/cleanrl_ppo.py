"""PPO in one file, in the manner of CleanRL, on tensors: python examples/cleanrl_ppo.py"""

import torch
from torch import nn
from torch.distributions import Normal

import hepo_isaac

ENVS, HORIZON, ITERATIONS, EPOCHS, MINIBATCH, GAMMA, LAMBDA, CLIP = 256, 16, 100, 4, 1024, 0.99, 0.95, 0.2


def mlp(inputs: int, outputs: int) -> nn.Sequential:
    """Two hidden layers."""
    return nn.Sequential(nn.Linear(inputs, 32), nn.ELU(), nn.Linear(32, 32), nn.ELU(), nn.Linear(32, outputs))


def main() -> hepo_isaac.Evaluation:
    """Train Cartpole on its shaping and say what the policy is worth on the task."""
    torch.manual_seed(1)
    torch.set_num_threads(1)
    env = hepo_isaac.make("Cartpole", ENVS, reward="heuristic", output="torch", seed=1, random_start=True)
    num_obs, num_actions = env.single_observation_space.shape[0], env.single_action_space.shape[0]
    actor, critic, log_std = mlp(num_obs, num_actions), mlp(num_obs, 1), nn.Parameter(torch.zeros(num_actions))
    parameters = [*actor.parameters(), *critic.parameters(), log_std]
    optimizer = torch.optim.Adam(parameters, lr=1e-3)

    def policy(observations: torch.Tensor) -> Normal:
        return Normal(actor(observations), log_std.exp())

    def value(observations: torch.Tensor) -> torch.Tensor:
        return critic(observations).squeeze(-1)

    obs, _ = env.reset()
    for iteration in range(ITERATIONS):
        steps = []
        for _ in range(HORIZON):
            with torch.no_grad():
                distribution, expected = policy(obs), value(obs)
                action = distribution.sample()
                following, reward, terminated, truncated, infos = env.step(action)
                # same-step autoreset: ``following`` may begin the next episode; what this one ended in is final_obs
                reward = reward + GAMMA * value(infos["final_obs"]) * truncated
            done = (terminated | truncated).float()
            steps.append((obs, action, distribution.log_prob(action).sum(1), expected, reward, done))
            obs = following
        b_obs, b_action, b_logp, values, rewards, dones = (torch.stack(part) for part in zip(*steps))
        advantage, last, next_value = torch.zeros_like(rewards), torch.zeros(ENVS), value(obs).detach()
        for t in reversed(range(HORIZON)):
            last = rewards[t] - values[t] + GAMMA * (1.0 - dones[t]) * (next_value + LAMBDA * last)
            advantage[t], next_value = last, values[t]
        batch = [x.flatten(0, 1) for x in (b_obs, b_action, b_logp, advantage, advantage + values)]
        for _ in range(EPOCHS):
            for rows in torch.randperm(ENVS * HORIZON).split(MINIBATCH):
                o, a, logp, adv, returns = (x[rows] for x in batch)
                ratio = (policy(o).log_prob(a).sum(1) - logp).exp()
                adv = (adv - adv.mean()) / (adv.std() + 1e-8)
                loss = -torch.min(ratio * adv, ratio.clamp(1 - CLIP, 1 + CLIP) * adv).mean()
                loss = loss + 0.5 * (value(o) - returns).square().mean()
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(parameters, 1.0)
                optimizer.step()
        if iteration % 20 == 19:
            print("iteration %d, mean reward %.3f" % (iteration + 1, rewards.mean()), flush=True)
    found = hepo_isaac.evaluate(actor, env, episodes=256, seed=2)
    print("%s, score %.3f" % (found, found.score or 0.0))
    env.close()
    return found


if __name__ == "__main__":
    main()

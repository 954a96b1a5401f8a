"""Play whole episodes with every policy of every run, after training, and leave the agent as it was."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Dict, List

import torch
from torch import Tensor

from hepo_isaac.agents.episodes import play_shares

if TYPE_CHECKING:
    from hepo_isaac.agents.agent import HepoAgent

EVALUATION_STREAM = 0x5BD1E995


def _nobody(step: int, most: int) -> None:
    """Nobody waits for an evaluation."""


@torch.no_grad()
def evaluate_policies(
    agent: HepoAgent, episodes: int, at: Callable[[int, int], None] = _nobody
) -> List[Dict[str, Any]]:
    """Undiscounted returns of stochastic policies, over fresh episodes from their beginning; one dict per run.

    Each policy plays in envs of its own, the same number of episodes in each env (so short ones are not favoured), at
    least ``episodes`` in all. Environment and random streams are put back afterwards.

    Args:
        at: told the number of each control step, and of how many at most.

    Returns:
        Per run {"episodes": n, policy: {"return_task", "return_task_se", "return_heuristic", "return_heuristic_se"}};
        standard errors over episodes.
    """
    policies, env, device = agent.learner.policies, agent.vec_env, agent.device
    saved = env.get_env_state()
    count = policies.num_policies
    owners = policies.owners if policies.owners is not None else torch.arange(count, device=device)
    blocks = len(owners)
    n = agent.num_envs // blocks
    share = -(-episodes // (n * min(policies.shares)))
    mine = (owners == torch.arange(count, device=device).unsqueeze(1)).to(torch.float32)
    noise_source = [torch.Generator(device).manual_seed(g.initial_seed() ^ EVALUATION_STREAM) for g in agent.generators]
    moments = torch.zeros(count, 4, device=device)
    counts = torch.zeros(count, device=device)

    def act(obs: Tensor) -> Tensor:
        shape = (sum(policies.shares), n, policies.num_actions)
        noise = torch.cat([torch.randn(shape, generator=g, device=device) for g in noise_source])
        return policies.act(obs.view(blocks, n, -1), noise)[0].reshape(agent.num_envs, -1)

    most = share * int(env.get_env_info()["max_episode_length"])
    for number, step in enumerate(play_shares(env, act, share, env.reset(random_start=False))):
        at(number + 1, most)
        ended = step.ended.to(step.sums.dtype)
        row = torch.cat((step.sums, step.sums * step.sums), 1) * ended.unsqueeze(1)
        moments += (row.view(blocks, n, 4).sum(1) * mine.unsqueeze(-1)).sum(1)
        counts += (ended.view(blocks, n).sum(1) * mine).sum(1)
    env.set_env_state(saved)
    return _by_run(agent, moments, counts)


def _by_run(agent: HepoAgent, moments: Tensor, counts: Tensor) -> List[Dict[str, Any]]:
    n = counts.clamp_min(1.0).unsqueeze(1)
    mean = moments[:, :2] / n
    error = ((moments[:, 2:] / n - mean * mean).clamp_min(0.0) / (n - 1.0).clamp_min(1.0)).sqrt()
    host = torch.cat((mean, error, counts.unsqueeze(1)), 1).double().tolist()  # host read: the result
    names, found = agent.policy_names, []
    for run in range(agent.num_runs):
        rows = host[run * len(names) : (run + 1) * len(names)]
        result: Dict[str, Any] = {"episodes": int(min(row[4] for row in rows))}
        for name, row in zip(names, rows):
            result[name] = {
                "return_task": row[0],
                "return_task_se": row[2],
                "return_heuristic": row[1],
                "return_heuristic_se": row[3],
            }
        found.append(result)
    return found

"""Stacked policies are the same functions, with the same gradients, as separate networks."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hepo_isaac.agents.config import ACTIVATIONS
from hepo_isaac.agents.network import PolicyStack

CPU = torch.device("cpu")


def _stack(policies=2, runs=1, seed=0):
    generators = [torch.Generator().manual_seed(seed + i) for i in range(runs)]
    return PolicyStack(policies, 5, 3, 2, [16, 8], "elu", generators, CPU)


def _module(stack, policy):
    """The policy as ordinary torch modules, from its rl-games state dict."""
    state = stack.policy_state(policy)
    mlp = nn.Sequential(nn.Linear(5, 16), nn.ELU(), nn.Linear(16, 8), nn.ELU())
    mlp.load_state_dict({k[len("a2c_network.actor_mlp.") :]: v for k, v in state.items() if "actor_mlp" in k})
    mu, value = nn.Linear(8, 3), nn.Linear(8, 2)
    for name, layer in (("mu", mu), ("value", value)):
        layer.weight.data, layer.bias.data = state["a2c_network.%s.weight" % name], state["a2c_network.%s.bias" % name]
    return mlp, mu, value


def test_forward_and_gradient_equal_separate_networks():
    stack = _stack()
    obs = torch.randn(2, 7, 5, generator=torch.Generator().manual_seed(1))
    mean, values, log_std = stack(obs)
    ((mean**2).sum() + (values**3).sum() + log_std.sum()).backward()
    for p in range(2):
        mlp, mu, value = _module(stack, p)
        features = mlp(obs[p])
        torch.testing.assert_close(mean[p], mu(features))
        torch.testing.assert_close(values[p], value(features))
        ((mu(features) ** 2).sum() + (value(features) ** 3).sum()).backward()
        # The first layer's gradient has been through everything.
        torch.testing.assert_close(
            stack.flat.grad[p, : 5 * 16].view(5, 16), mlp[0].weight.grad.t(), rtol=1e-4, atol=1e-5
        )
    assert stack.flat.grad[:, -3:].tolist() == [[1.0] * 3] * 2


def test_policies_of_a_stack_differ_and_do_not_touch():
    stack = _stack()
    assert not torch.equal(stack.flat[0], stack.flat[1])
    obs = torch.randn(2, 4, 5)
    stack(obs)[0][0].sum().backward()
    assert stack.flat.grad[1].abs().max().item() == 0.0


def test_a_runs_weights_do_not_depend_on_its_neighbours():
    alone, crowd = _stack(policies=2, runs=1, seed=7), _stack(policies=6, runs=3, seed=5)
    # crowd's generators are 5, 6, 7: its third run is seeded as ``alone``
    assert torch.equal(crowd.flat[4:], alone.flat)


def test_initialisation_is_torchs_default_for_linear_layers():
    stack = PolicyStack(1, 100, 3, 2, [64], "elu", [torch.Generator().manual_seed(0)], CPU)
    first = stack.flat[0, : 100 * 64]
    assert first.abs().max().item() <= 0.1
    assert first.std().item() == pytest.approx(0.1 / 3**0.5, rel=0.05)
    assert stack.log_std.tolist() == [[0.0] * 3]


def test_rescale_values_is_exact():
    stack, obs = _stack(), torch.randn(2, 4, 5)
    before = stack(obs)[1]
    scale, shift = torch.tensor([[2.0, 0.5], [1.0, 3.0]]), torch.tensor([[0.1, -0.2], [0.0, 4.0]])
    mean = stack(obs)[0]
    stack.rescale_values(scale, shift)
    torch.testing.assert_close(stack(obs)[1], before * scale.unsqueeze(1) + shift.unsqueeze(1))
    assert torch.equal(stack(obs)[0], mean)


def test_every_activation_of_the_settings_exists():
    for name in ACTIVATIONS:
        PolicyStack(1, 2, 1, 2, [4], name, [torch.Generator()], CPU)


def test_unknown_activation_is_named():
    with pytest.raises(ValueError, match="'gelu'.*elu"):
        PolicyStack(1, 2, 1, 2, [4], "gelu", [torch.Generator()], CPU)

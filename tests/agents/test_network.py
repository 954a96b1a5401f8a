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


class TestAsymmetric:
    """Actors see the first 4 of 7 columns, critics the last 3."""

    def stack(self):
        generators = [torch.Generator().manual_seed(3)]
        return PolicyStack(2, 7, 2, 2, [16, 8], "elu", generators, CPU, num_states=3, critic_units=[12])

    def modules(self, stack, policy):
        state = {k[len("a2c_network.") :]: v for k, v in stack.policy_state(policy).items()}
        actor = nn.Sequential(nn.Linear(4, 16), nn.ELU(), nn.Linear(16, 8), nn.ELU(), nn.Linear(8, 2))
        critic = nn.Sequential(nn.Linear(3, 12), nn.ELU(), nn.Linear(12, 2))
        for module, names in ((actor, ("actor_mlp.0", "actor_mlp.2", "mu")), (critic, ("critic_mlp.0", "value"))):
            for layer, name in zip([m for m in module if isinstance(m, nn.Linear)], names):
                layer.weight.data, layer.bias.data = state.pop(name + ".weight"), state.pop(name + ".bias")
        assert list(state) == ["sigma"]
        return actor, critic

    def test_forward_and_gradient_equal_separate_networks(self):
        stack = self.stack()
        x = torch.randn(2, 9, 7, generator=torch.Generator().manual_seed(1))
        mean, values, _ = stack(x)
        ((mean**2).sum() + (values**3).sum()).backward()
        for p in range(2):
            actor, critic = self.modules(stack, p)
            torch.testing.assert_close(mean[p], actor(x[p, :, :4]))
            torch.testing.assert_close(values[p], critic(x[p, :, 4:]))
            ((actor(x[p, :, :4]) ** 2).sum() + (critic(x[p, :, 4:]) ** 3).sum()).backward()
            mine = [layer.weight.grad.t().flatten() for layer in (actor[0], critic[0])]
            flat = stack.flat.grad[p]
            torch.testing.assert_close(flat[: 4 * 16], mine[0], rtol=1e-4, atol=1e-5)
            start = 4 * 16 + 16 + 16 * 8 + 8 + 8 * 2 + 2
            torch.testing.assert_close(flat[start : start + 3 * 12], mine[1], rtol=1e-4, atol=1e-5)

    def test_the_mask_covers_the_critic_and_nothing_else(self):
        stack = self.stack()
        x = torch.randn(2, 5, 7)
        stack(x)[1].sum().backward()
        touched = stack.flat.grad[0] != 0
        mask = stack.value_head_mask()
        assert (mask[touched] == 1).all() and mask.sum() == 3 * 12 + 12 + 12 * 2 + 2
        stack.flat.grad = None
        (stack(x)[0].sum() + stack.log_std.sum()).backward()
        assert (stack.flat.grad[0][mask == 1] == 0).all() and (stack.flat.grad[0][mask == 0] != 0).float().mean() > 0.9

    def test_rescaled_values(self):
        stack = self.stack()
        x = torch.randn(2, 5, 7)
        mean, values, _ = stack(x)
        scale, shift = torch.tensor([[2.0, 3.0], [0.5, 1.0]]), torch.tensor([[1.0, -1.0], [0.0, 4.0]])
        stack.rescale_values(scale, shift)
        moved_mean, moved, _ = stack(x)
        assert torch.equal(moved_mean, mean)
        torch.testing.assert_close(moved, values * scale[:, None] + shift[:, None])

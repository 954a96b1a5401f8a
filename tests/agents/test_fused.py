"""The compiled step against the eager one, option by option, and what happens where there is no compiler."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest
import torch

from hepo_isaac.agents import fused
from hepo_isaac.agents.config import train_config
from hepo_isaac.agents.learner import Learner
from hepo_isaac.agents.minibatch import Batch
from hepo_isaac.errors import UserError
from hepo_isaac.locate import group_names
from hepo_isaac.methods.method import method_from_config
from hepo_isaac.overrides import compose

CPU = torch.device("cpu")
ENVS, HORIZON = 60, 8
USUAL = {
    "horizon_length": HORIZON,
    "minibatch_size": 240,
    "mini_epochs": 2,
    "learning_rate": 1e-3,
    "lr_schedule": "minibatch",
    "entropy_coef": 0.01,
    "bounds_loss_coef": 0.01,
    "network": {"units": [40, 24], "activation": "elu"},
}


@pytest.fixture(autouse=True)
def needs_a_compiler(request):
    if "library" not in request.keywords and fused.library()[0] is None:
        pytest.skip("this machine has no compiled step: " + fused.library()[1])


def learner(which, algo="hepo", runs=1, obs=11, actions=3, states=0, envs=ENVS, **train):
    method = method_from_config({**compose(["task=Push2D", "algo=" + algo]).algo, "threshold": 0.5})
    settings = train_config({**USUAL, **train, "fused": which})
    generators = [torch.Generator().manual_seed(7 + i) for i in range(runs)]
    return Learner(method, settings, envs * runs, obs, actions, generators, CPU, states)


def batch(of, seed=3):
    """Random rows as a rollout gives them: ratios on both sides of every clip, own and the partner's."""
    draw = torch.Generator().manual_seed(seed)
    policies, rows, runs = of.num_policies, of.plan.run_rows, of.num_runs
    actions, obs = of.policies.num_actions, of.policies.net.num_obs

    def normal(*shape):
        return torch.randn(*shape, generator=draw)

    taken = normal(runs, rows, actions)
    density = -0.5 * taken.square().sum(-1) - actions * 0.5 * math.log(2 * math.pi)
    density = density.repeat_interleave(policies // runs, 0)
    on_policy = torch.ones(policies, rows)
    if of.method.num_blocks > 1:
        block = torch.arange(rows) // of.plan.block_rows
        members = of.plan.policies_per_run
        shares = torch.tensor(of.method.env_shares)
        owner = torch.arange(members).repeat_interleave(shares)[block]
        on_policy = torch.stack([(owner == p % members).float() for p in range(policies)])
    return Batch(
        obs=normal(runs, rows, obs),
        actions=taken,
        mean=0.3 * normal(policies, rows, actions),
        old_values=normal(policies, rows, 2),
        returns=normal(policies, rows, 2),
        advantage=normal(policies, rows),
        on_policy=on_policy,
        log_prob=density + 0.4 * normal(policies, rows),
    )


def compare(steps=2, tolerance=1e-5, change=None, **options):
    """Update twice with both and hold everything that changes together."""
    pair = learner(False, **options), learner(True, **options)
    assert pair[0].fused is None and pair[1].fused is not None
    for one in pair:
        if change:
            change(one)
    start = pair[0].policies.net.flat.detach().clone()
    for seed in range(steps):
        eager, compiled = (one.update(batch(one, seed)) for one in pair)
        for name, value in eager.items():
            torch.testing.assert_close(compiled[name], value, rtol=2e-4, atol=tolerance, msg=name)
    a, b = (one.policies.net.flat.detach() for one in pair)
    assert (a - start).abs().max() > 1e-3  # there was something to compare
    torch.testing.assert_close(b, a, rtol=1e-4, atol=tolerance)
    for name, value in pair[0].optimizer.state_dict().items():
        torch.testing.assert_close(pair[1].optimizer.state_dict()[name], value, rtol=1e-3, atol=tolerance, msg=name)


@pytest.mark.parametrize("algo", group_names("algo"))
def test_every_method(algo):
    if algo == "hepo_plus":  # in eight blocks of envs; tests/agents/test_members.py has more of unequal shares
        compare(algo=algo, envs=64, minibatch_size=256)
    else:
        compare(algo=algo)


@pytest.mark.parametrize(
    "options",
    [
        {"runs": 3},
        {"obs": 1, "actions": 1},
        {"obs": 50, "actions": 20, "states": 17},
        {"states": 4, "network": {"units": [40, 24], "critic_units": [16], "activation": "elu"}},
        {"states": 4, "network": {"units": [8], "critic_units": [33, 7, 5], "activation": "tanh"}},
        {"network": {"units": [130, 17, 3], "activation": "relu"}},
        {"network": {"units": [16], "activation": "tanh"}},
        {"network": {"units": [20, 20], "activation": "selu"}},
        {"clip_value": False},
        {"e_clip": 0.05, "grad_norm": 0.1},
        {"bounds_loss_coef": 1.0, "entropy_coef": 0.0},
        {"minibatch_size": 480, "critic_coef": 0.5},
        {"minibatch_size": 8},
    ],
    ids=str,
)
def test_every_option(options):
    compare(**options)


def test_policies_that_leave_the_box_are_drawn_back():
    def far(one):
        with torch.no_grad():
            one.policies.net.flat.mul_(6.0)

    compare(change=far, tolerance=1e-4)


def test_a_frozen_reference_stays():
    def freeze(one):
        norm = one.policies.obs_norm
        state = {"mean": norm.mean.clone(), "var": norm.var.clone(), "count": norm.count.clone()}
        one.freeze_reference(0.1 * torch.ones(one.policies.net.flat.shape[1]), state)

    compare(change=freeze)


def test_the_kl_of_every_step_is_the_same():
    """It drives the learning rate, so that a difference would show as another rate."""
    pair = learner(False, kl_threshold=1e-4), learner(True, kl_threshold=1e-4)
    for one in pair:
        one.update(batch(one))
    rates = [one.optimizer.learning_rate for one in pair]
    assert torch.equal(*rates) and (rates[0] < 1e-3).all()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("field", ["obs", "actions", "log_prob", "old_values", "returns", "advantage"])
def test_what_is_not_finite_goes_where_it_goes_in_the_eager_step(field, value):
    found = []
    for which in (False, True):
        one = learner(which, lr_schedule="fixed", mini_epochs=1, minibatch_size=480)
        rows = batch(one)
        getattr(rows, field)[0, 3] = value
        statistics = one.update(rows)
        found.append([one.policies.net.flat.detach(), *statistics.values()])
    for eager, compiled in zip(*found):
        assert torch.equal(eager.isnan(), compiled.isnan())
        torch.testing.assert_close(compiled, eager, rtol=1e-3, atol=1e-4, equal_nan=True)


def test_the_number_of_threads_changes_no_bit():
    found = []
    for threads in (1, 2, 3, 3):
        one = learner(True)
        parts = (one.policies.net, one.optimizer, one.train, one.critic_channels, one.method.dual_clip)
        one.fused = fused.FusedStep(*parts, threads)
        for seed in range(3):
            one.update(batch(one, seed))
        found.append(one.policies.net.flat.detach().clone())
    assert all(torch.equal(found[0], other) for other in found[1:])


def test_one_run_among_others_is_the_run_alone():
    alone, among = learner(True, runs=1), learner(True, runs=3)
    rows = batch(alone)
    alone.update(rows)
    others = batch(among, 9)
    for name in ("obs", "actions"):
        getattr(others, name)[:1] = getattr(rows, name)
    for name in ("mean", "old_values", "returns", "advantage", "on_policy", "log_prob"):
        getattr(others, name)[:2] = getattr(rows, name)
    among.update(others)
    assert torch.equal(among.policies.net.flat[:2], alone.policies.net.flat)


def test_the_eager_step_is_kept_for_other_precisions():
    torch.set_default_dtype(torch.float64)
    try:
        assert fused.reason(CPU, "auto") == "not float32"
    finally:
        torch.set_default_dtype(torch.float32)


# ---- where there is none ------------------------------------------------------------------------------------------


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """An empty cache, and nothing remembered of this machine's library."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    fused.library.cache_clear()
    yield tmp_path
    fused.library.cache_clear()


def compiler(folder, *lines):
    path = folder / "compiler"
    path.write_text("#!/bin/sh\n[ \"$1\" = --version ] && echo 'compiler 1' && exit 0\n" + "\n".join(lines) + "\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.library
class TestWithout:
    def test_without_a_compiler_training_is_eager_and_says_why(self, fresh, monkeypatch):
        monkeypatch.delenv("CXX", raising=False)
        monkeypatch.setattr(fused.shutil, "which", lambda name: None)
        assert fused.reason(CPU, "auto") == "no C++ compiler (apt install g++)"
        assert learner("auto").fused is None
        with pytest.raises(UserError, match="train.fused=true, but no C.. compiler .*; train.fused=auto goes on with"):
            learner(True)

    def test_a_compiler_that_fails_is_quoted(self, fresh, monkeypatch):
        monkeypatch.setenv("CXX", compiler(fresh, "echo 'x.cpp:3: error: no such header' >&2", "exit 1"))
        assert "failed: x.cpp:3: error: no such header" in fused.reason(CPU, "auto")
        assert [p.name for p in (fresh / "hepo_isaac").iterdir()] == []  # nothing half-made stays

    def test_a_compiler_that_cannot_be_run_is_named(self, fresh, monkeypatch):
        monkeypatch.setenv("CXX", "/no/such/compiler")
        assert fused.reason(CPU, "auto").startswith("/no/such/compiler cannot be run")

    def test_a_library_that_is_none_is_not_loaded(self, fresh, monkeypatch):
        script = 'while [ $# -gt 1 ]; do [ "$1" = -o ] && echo nonsense > "$2"; shift; done'
        monkeypatch.setenv("CXX", compiler(fresh, script))
        assert "the compiled step cannot be loaded" in fused.reason(CPU, "auto")

    def test_a_cache_that_cannot_be_written_is_named(self, fresh, monkeypatch):
        (fresh / "file").write_text("")
        monkeypatch.setenv("XDG_CACHE_HOME", str(fresh / "file"))
        monkeypatch.setenv("CXX", compiler(fresh, "exit 0"))
        assert "hepo_isaac cannot be written" in fused.reason(CPU, "auto")

    def test_an_older_cpu_has_the_eager_step(self, fresh, monkeypatch):
        read = Path.read_text
        monkeypatch.setattr(
            fused.Path,
            "read_text",
            lambda p, *a, **k: "flags : sse2" if str(p) == "/proc/cpuinfo" else read(p, *a, **k),
        )
        assert fused.reason(CPU, "auto") == "this CPU has no AVX2"

    def test_another_architecture_has_it_too(self, fresh, monkeypatch):
        monkeypatch.setattr(fused.platform, "machine", lambda: "aarch64")
        assert fused.reason(CPU, "auto") == "the compiled step is for x86-64, this is aarch64"

    def test_what_was_compiled_is_not_compiled_again(self, fresh, monkeypatch):
        if sys.platform != "linux" or fused.shutil.which("g++") is None:
            pytest.skip("no g++ here")
        monkeypatch.setenv("CXX", "g++")
        first = fused.build()
        made = first.stat().st_mtime_ns
        assert fused.build() == first and first.stat().st_mtime_ns == made
        assert [p.name for p in first.parent.iterdir()] == [first.name]

    def test_settings_can_ask_for_either(self):
        assert fused.reason(CPU, False) == "train.fused=false"
        assert fused.reason(torch.device("meta"), "auto") == "not on a CPU"
        with pytest.raises(ValueError, match="train.fused must be auto, true or false, got 'yes'"):
            train_config({"fused": "yes"})

"""Every file of cfg/algo through rl-games' Runner on a task of the suite and, slow, on FrankaCabinet; frozen
references; refused settings."""

from __future__ import annotations

import math

import pytest
import torch

from hepo_isaac.agents.register import run_training
from hepo_isaac.config import plain, resolve, validate
from hepo_isaac.envs.make import make_env
from hepo_isaac.envs.rl_games import RlGamesVecEnv
from hepo_isaac.errors import UserError
from hepo_isaac.locate import group_names
from hepo_isaac.methods.method import method_from_config
from hepo_isaac.overrides import compose
from tests.agents.test_agent import Recorder, _assert_equal
from tests.agents.test_release import load
from tests.host_reads import HostReads
from tests.toy import METHODS, TRAIN, PointMass

SMALL = [
    "num_envs=16",
    "device=cpu",
    "torch_threads=1",
    "task.episode_length=12",
    "train.max_iterations=6",
    "train.horizon_length=8",
    "train.minibatch_size=64",
    "train.mini_epochs=2",
    "train.network.units=[16,16]",
]
# Every preset, and the variants of one whose code is its own.
VARIANTS = [(name,) for name in group_names("algo")] + [
    ("pbrs", "algo.shaping.potential=state"),
    ("pbrs", "algo.shaping.potential=learned"),
    ("annealing", "algo.shaping.kind=sum"),
    ("hepo", "algo.objectives=[constrained,task]"),
    ("hepo", "algo.contrast=doubly_robust"),
    ("hepo", "algo.contrast=episode_return", "algo.critic_data=both"),
    ("hepo", "algo.multiplier.rule=pid", "algo.share_data=none"),
    ("hepo_alternating", "algo.contrast=episode_return"),
    ("eipo", "algo.switching=win_lose", "algo.max_stage_iterations=2"),
]


def settings(algo, *overrides, task="Push2D"):
    given = ["task=" + task, *SMALL, "algo=" + algo, *overrides]
    cfg = resolve(compose(given), given, cuda=False)
    validate(cfg)
    return plain(cfg)


def train(cfg, **observer):
    recorder = Recorder(**observer)
    run_training(cfg, RlGamesVecEnv(make_env(cfg)), recorder)
    return recorder


@pytest.mark.parametrize("task", ["Push2D", pytest.param("FrankaCabinet", marks=pytest.mark.slow)])
@pytest.mark.parametrize("variant", VARIANTS, ids=" ".join)
def test_trains_resumes_and_reads_nothing(task, variant):
    """Six iterations with finite metrics; equal to three, a checkpoint and three more, in every bit of the state; and
    an iteration reads no tensor on the host."""
    cfg = settings(*variant, task=task)
    whole, half = train(cfg), train(cfg, stop_at=3)
    rest = train({**cfg, "seed": 99}, state=half.agent.get_full_state_weights())
    assert whole.finished and len(whole.rows) == 6 and len(rest.rows) == 3
    state = whole.agent.get_full_state_weights()
    _assert_equal(state, rest.agent.get_full_state_weights())
    assert all(torch.isfinite(x).all() for x in state["learner"]["value_norm"].values())
    assert torch.isfinite(state["learner"]["flat"]).all()
    policies = whole.agent.policy_names
    for row in whole.rows:
        for key, value in row.items():
            policy = key.rsplit("/", 1)[-1]
            no_episode = policy in policies and row["episodes/" + policy] == 0.0 and math.isnan(value)
            no_window = key.startswith("window_") and row["windows"] == 0.0 and math.isnan(value)
            assert math.isfinite(value) or no_episode or no_window, key
        assert ("alpha" in row) == (whole.agent.method.constraint != "none")
    assert sum(row["episodes/" + policy] for row in whole.rows for policy in policies) > 0
    for mine, theirs in zip(whole.rows[3:], rest.rows):
        for key in set(mine) - {"env_steps_per_second", "rollout_s", "update_s"}:
            assert mine[key] == theirs[key] or math.isnan(mine[key]), key
    with HostReads() as reads:
        rest.agent.learn(rest.agent.collect())
    assert reads.found == []


def test_iteration_and_total_reach_the_learner():
    """What HuRL and annealing are scheduled by: finished iterations, of max_iterations."""
    cfg, seen = settings("hurl"), []
    recorder = Recorder()

    def after_init(agent, after=recorder.after_init):
        after(agent)
        learn = agent.learner.learn
        agent.learner.learn = lambda buffer, last, p: (seen.append((p.iteration, p.total)), learn(buffer, last, p))[1]

    recorder.after_init = after_init
    run_training(cfg, RlGamesVecEnv(make_env(cfg)), recorder)
    assert seen == [(i, 6) for i in range(6)]


def test_the_potential_of_a_state_reaches_the_buffer():
    """Phi of the state acted on and of the one it led to, across resets and a checkpoint."""
    cfg = settings("pbrs", "algo.shaping.potential=state")
    agent = train(cfg, stop_at=2).agent
    state = agent.get_full_state_weights()
    for restored in (False, True):
        if restored:
            agent.set_full_state_weights(state)  # of before the rollout
        first = agent.vec_env.potential().clone()
        agent.collect()
        b = agent.buffer
        phi, final = b.potential[:, 0], b.final_potential[:, 0]
        goes_on = ~(b.terminated | b.time_out)[:, 0]
        assert torch.equal(phi[0], first) and phi.std() > 1e-3
        assert torch.equal(final[:-1][goes_on[:-1]], phi[1:][goes_on[:-1]])
        assert (~goes_on).any() and (final[:-1] != phi[1:])[~goes_on[:-1]].all()


def test_final_observations_of_episodes_shorter_than_a_rollout():
    """Several time limits of one env in one rollout, each with the observation its episode really ended in."""
    cfg = {
        "num_envs": 16,
        "device": "cpu",
        "torch_threads": 1,
        "run_seeds": [1],
        "algo": METHODS["hepo"],
        "train": TRAIN,
    }
    agent = run_training(cfg, PointMass(16, episode_length=3), Recorder())
    agent.collect()
    b = agent.buffer
    slot = b.timeout_slot.unsqueeze(-1).expand(*b.obs.shape)
    x, clock = b.timeout_obs.gather(0, slot)[..., 0], b.timeout_obs.gather(0, slot)[..., 2]
    reached = (b.obs[..., 0] + 0.1 * b.actions[..., 0].clamp(-1, 1)).clamp(-2, 2)
    assert b.time_out.sum(0).max() == 3 and (clock[b.time_out] == 1.0).all()
    assert torch.equal(x[b.time_out], reached[b.time_out])


class TestThreshold:
    def test_half_way_between_the_tasks_scores(self):
        cfg = settings("ppo_lagrangian", "task.scores.random=0.1", "task.scores.optimal=0.7")
        assert cfg["algo"]["threshold"] == pytest.approx(0.4)
        assert settings("ppo_lagrangian_pid", "algo.threshold=0.2")["algo"]["threshold"] == 0.2

    def test_none_is_refused(self):
        given = ["task=Push2D", *SMALL, "algo=ppo_lagrangian"]
        cfg = compose(given)
        cfg.task.scores = None
        with pytest.raises(
            UserError, match="algo=ppo_lagrangian needs algo.threshold=.*task=Push2D has no task.scores"
        ):
            validate(resolve(cfg, given, cuda=False))


class TestReferences:
    def test_pi_j(self):
        """A2: a reference that maximises r is called pi_j, and has critics of both."""
        method = method_from_config({**METHODS["hepo"], "objectives": ["constrained", "task"]})
        assert method.policy_names == ("pi", "pi_j") and method.critic_channels() == ((True, True), (True, True))
        row = train(settings("hepo", "algo.objectives=[constrained,task]")).rows[-1]
        assert "kl/pi_j" in row and not any(key.endswith("/pi_h") for key in row)
        assert method_from_config(METHODS["hepo"]).policy_names == ("pi", "pi_h")

    @staticmethod
    def toy(method, recorder=None, **options):
        recorder = recorder or Recorder()
        cfg = {
            "num_envs": 16,
            "device": "cpu",
            "torch_threads": 1,
            "run_seeds": [5, 6] if len(method["objectives"]) == 2 else [1],
            "algo": method,
            "train": {**TRAIN, **options},
        }
        run_training(cfg, PointMass(16 * len(cfg["run_seeds"])), recorder)
        return recorder.agent

    @pytest.fixture
    def trained(self, tmp_path):
        """A finished H-only run and its checkpoint."""
        agent = self.toy(METHODS["ppo_h"])
        file = tmp_path / "last.pt"
        torch.save({"agent": agent.get_full_state_weights()}, file)
        return agent, str(file)

    def test_a_frozen_reference_learns_values_alone(self, trained):
        """Its trunk, mean, sigma and what it sees stay those of the checkpoint, in every run and after a resume."""
        source, file = trained
        method = {**METHODS["hepo"], "frozen_reference": file}
        half = self.toy(method, Recorder(stop_at=2))
        resumed = self.toy(method, Recorder(state=half.get_full_state_weights()))
        then = source.learner.policies.net.policy_state(0)
        for agent in (half, resumed):
            assert agent.iteration == (2 if agent is half else 5)
            for p in (1, 3):
                now = agent.learner.policies.net.policy_state(p)
                for name, value in then.items():
                    assert torch.equal(now[name], value) == ("value" not in name), name
            for name in ("mean", "var", "count"):
                theirs = getattr(source.learner.policies.obs_norm, name)
                assert torch.equal(getattr(agent.learner.policies.obs_norm, name), theirs.expand(2, -1)), name
        # pi goes on learning, and so do the reference's critics
        a, b = (agent.learner.policies.net.policy_state(0) for agent in (half, resumed))
        assert not any(torch.equal(a[name], b[name]) for name in a)
        rates = resumed.learner.optimizer.learning_rate.tolist()
        assert rates[1::2] == [pytest.approx(1e-3)] * 2  # its KL of 0 says nothing
        assert min(rates[0::2]) > 1.1e-3
        a, b = (agent.learner.policies.net.policy_state(1)["a2c_network.value.weight"] for agent in (half, resumed))
        assert ((a / b).std(1) > 1e-3).all()  # not only rescaled with the value statistics

    def test_a_frozen_reference_of_another_size_is_refused(self, trained):
        _, file = trained
        network = {"units": [8], "activation": "elu"}
        with pytest.raises(
            UserError, match="algo.frozen_reference=.*last.pt: its networks have 726 parameters, this run's 70;"
        ):
            self.toy({**METHODS["hepo"], "frozen_reference": file}, network=network)


HEPO = {"objectives": ["constrained", "heuristic"]}
TURNS = {**METHODS["hepo_owner"], "collection": "alternating"}


@pytest.mark.parametrize(
    "method, message",
    [
        ({"objectives": []}, "objectives is empty"),
        ({"objectives": ["task"] * 3}, "more than two policies need collection=members"),
        ({"constraint": "reference"}, "constraint=reference needs two objectives"),
        ({"constraint": "reference", "objectives": ["sum", "heuristic"]}, "constraint=reference needs"),
        ({"constraint": "threshold"}, "constraint=threshold needs the one objective lagrangian"),
        ({"objectives": ["lagrangian"]}, "lagrangian needs a threshold"),
        ({"objectives": ["lagrangian", "task"], "constraint": "threshold"}, "the one objective lagrangian"),
        ({"constraint": "eipo"}, "constraint=eipo needs two policies"),
        ({**load("eipo"), "collection": "halves"}, "constraint=eipo needs .* collection=alternating"),
        ({**load("eipo"), "share_data": "none"}, "constraint=eipo needs .* share_data=both"),
        ({"share_data": "pi"}, "share_data needs two"),
        ({"collection": "alternating"}, "collection=alternating needs two"),
        ({**TURNS, "critic_data": "both"}, "collection=alternating needs critic_data=own"),
        ({**TURNS, "minibatch_order": "contiguous"}, "collection=alternating needs .* minibatch_order=stratified"),
        ({**TURNS, "whitening": "joint"}, "collection=alternating needs whitening=owner or none"),
        ({**TURNS, "contrast": "start_value"}, "collection=alternating needs contrast=raw_gae or episode_return"),
        ({**TURNS, "switching": "difference"}, "switching=difference needs the utilities of constraint=eipo"),
        ({**TURNS, "contrast_after_update": True}, "contrast_after_update needs"),
        ({"contrast_after_update": True}, "contrast_after_update needs constraint=reference"),
        ({**METHODS["hepo"], "contrast": "episode_return", "contrast_after_update": True}, "a contrast of critics"),
        ({"whitening": "critic"}, "whitening=critic needs two policies"),
        ({"whitening": "joint"}, "whitening=joint needs two policies"),
        ({"critic_data": "both"}, "critic_data=both needs two policies and share_data"),
        ({**HEPO, "share_data": "none", "critic_data": "both"}, "critic_data=both needs two policies and share_data"),
        ({"frozen_reference": "x.pt"}, "frozen_reference needs two policies"),
        ({**TURNS, "frozen_reference": "x.pt"}, "frozen_reference needs collection=halves"),
        (
            {**HEPO, "share_data": "none", "minibatch_order": "interleaved"},
            "minibatch_order=interleaved needs share_data=both",
        ),
        ({"shaping": {"kind": "sum"}}, "shaping goes with the objective sum alone"),
        ({**HEPO, "shaping": {"kind": "potential"}}, "shaping goes with the objective sum alone"),
        ({"off_policy_fraction": 0.0}, r"off_policy_fraction must be in \(0, 1\], got 0.0"),
        ({"off_policy_fraction": 1.5}, r"off_policy_fraction must be in \(0, 1\], got 1.5"),
        ({"dual_clip": 1.0}, "dual_clip must be > 1"),
        ({"dual_clip": math.nan}, "dual_clip must be > 1, got nan"),
        ({"max_stage_iterations": 0}, "max_stage_iterations must be >= 1, got 0"),
    ],
)
def test_contradictions_are_refused_by_name(method, message):
    with pytest.raises(ValueError, match="^algo mine: .*" + message):
        method_from_config({**method, "name": "mine"})


@pytest.mark.parametrize(
    "method, message",
    [
        ({"objectives": ["both"]}, "unknown objective 'both' of mine; valid: .*lagrangian"),
        ({"whitening": "all"}, "unknown algo.whitening 'all'; valid: owner, joint"),
        ({"shaping": {"schedule": "cosine"}}, "unknown algo.shaping.schedule 'cosine'; valid: constant, linear, tanh"),
        ({"shaping": {"annealing": "step"}}, "unknown algo.shaping.annealing 'step'; valid: none, constant"),
        ({"shaping": {"annealing_fraction": 0.0}}, r"algo.shaping.annealing_fraction must be in \(0, 1\], got 0.0"),
        ({"shaping": {"horizon_initial": 1.5}}, r"algo.shaping.horizon_initial must be in \[0, 1\]"),
        ({"shaping": {"horizon_rate": 0.0}}, ".* and horizon_rate positive, got 0.95 and 0.0"),
        ({"alpha": 1.0}, "unknown key algo.alpha; valid: .*multiplier"),
        ({"shaping": {"lam": 1.0}}, "unknown key algo.shaping.lam; valid: annealing"),
        ({"multiplier": {"rate": 1.0}}, "unknown key algo.multiplier.rate; valid: .*median_window"),
    ],
)
def test_unknown_settings_are_refused_with_what_is_known(method, message):
    with pytest.raises(ValueError, match="^" + message):
        method_from_config({**method, "name": "mine"})

"""The last states of a world that went bad: the right ones, whatever came after, and a film of them."""

from __future__ import annotations

import torch

from hepo_isaac import cli
from hepo_isaac.config import plain, resolve
from hepo_isaac.envs.make import make_env
from hepo_isaac.envs.ring import StateRing, restore
from hepo_isaac.overrides import compose
from hepo_isaac.runs import launch

GIVEN = ["task=Cartpole", "num_envs=4", "device=cpu", "sim.threads=1"]


class CountingSim:
    """Two worlds whose only joint counts the steps, world 1 from 100 on."""

    num_envs, device = 2, torch.device("cpu")

    def __init__(self):
        self.dof_pos, self.dof_vel = torch.tensor([[0.0], [100.0]]), torch.zeros(2, 1)
        self.root_state = torch.zeros(2, 1, 13)


def stepped(ring, sim, bad_at, steps):
    for step in range(steps):
        ring.before_step(torch.full((2, 1), float(step)))
        sim.dof_pos += 1.0
        ring.note(torch.tensor([False, step in bad_at]))


def test_the_last_row_is_the_state_in_which_the_fatal_action_was_taken():
    sim = CountingSim()
    ring = StateRing(sim, 6, torch.zeros(2, 1))
    stepped(ring, sim, {7}, 10)
    (found,) = ring.take(5)
    # rows of steps 4 to 7: of the six kept, two are newer, and what is older has been overwritten
    assert found["env"] == 1 and found["dof_pos"].flatten().tolist() == [104.0, 105.0, 106.0, 107.0]
    assert found["action"].flatten().tolist() == [4.0, 5.0, 6.0, 7.0]
    assert ring.take(5) == []


def test_the_first_time_counts_and_a_start_is_no_wrap():
    sim = CountingSim()
    ring = StateRing(sim, 8, torch.zeros(2, 1))
    stepped(ring, sim, {1, 3}, 5)
    (found,) = ring.take(1)
    assert found["dof_pos"].flatten().tolist() == [100.0, 101.0]


def test_states_are_put_back_into_an_engine():
    env = make_env(plain(resolve(compose(GIVEN), GIVEN, cuda=False)))
    env.keep_states(8)
    env.reset()
    for _ in range(4):
        env.step(torch.rand(4, env.num_actions))
    env._ring.note(torch.tensor([False, False, True, False]))
    (found,) = env.bad_states(3)
    restore(env.sim, found, len(found["action"]) - 1)
    wanted = found["dof_pos"][-1].expand_as(env.sim.dof_pos)
    torch.testing.assert_close(env.sim.dof_pos, wanted)
    torch.testing.assert_close(env.sim.dof_vel, found["dof_vel"][-1].expand_as(env.sim.dof_vel))


def test_a_run_keeps_them_and_replay_bad_films_them(capfd, tmp_path, monkeypatch):
    step, calls = launch_step(), iter(range(10**6))

    def poisoned(self, actions):
        if next(calls) in (20, 24):
            self.sim.batch.bind("qpos")[3, 0] = float("nan")
        return step(self, actions)

    monkeypatch.setattr("hepo_isaac.envs.task_env.TaskEnv.step", poisoned)
    small = [
        "train.max_iterations=3",
        "train.minibatch_size=64",
        "train.horizon_length=16",
        "train.max_bad_fraction=0.5",
    ]
    small += ["plot=false", "tensorboard=false", "torch_threads=1", "run_root=%s" % tmp_path]
    assert launch.main([*GIVEN, "algo=hepo", *small]) == 0, capfd.readouterr().err
    (file,) = tmp_path.rglob("bad_worlds/*.pt")
    assert file.name == "iteration_000002_env_3.pt"
    assert len(torch.load(file, weights_only=True)["action"]) == 21
    drawn = []
    monkeypatch.setattr(
        "hepo_isaac.runs.play.video.render_trajectory", lambda **film: drawn.append(film) or film["out"]
    )
    capfd.readouterr()
    assert cli.main(["replay-bad", "run=%s" % file.parent.parent]) == 0
    out = capfd.readouterr().out
    assert "env 3, 21 steps; in the last state the fastest joint, " in out and "iteration_000002_env_3.mp4" in out
    assert len(drawn[0]["qpos"]) == 21


def test_a_run_that_diverges_in_bulk_keeps_them_too(capfd, tmp_path, monkeypatch):
    step = launch_step()

    def poisoned(self, actions):
        self.sim.batch.bind("qpos")[:, 0] = float("nan")
        return step(self, actions)

    monkeypatch.setattr("hepo_isaac.envs.task_env.TaskEnv.step", poisoned)
    small = ["train.max_iterations=3", "train.minibatch_size=64", "train.horizon_length=16", "plot=false"]
    small += ["tensorboard=false", "torch_threads=1", "run_root=%s" % tmp_path]
    assert launch.main([*GIVEN, "algo=hepo", *small]) == 1 and "diverged in iteration 1" in capfd.readouterr().err
    assert len(list(tmp_path.rglob("bad_worlds/*.pt"))) == 4


def test_what_has_been_overwritten_is_not_given():
    sim = CountingSim()
    ring = StateRing(sim, 4, torch.zeros(2, 1))
    stepped(ring, sim, {1}, 9)
    assert ring.take(5) == []


def launch_step():
    from hepo_isaac.envs.task_env import TaskEnv

    return TaskEnv.step


def test_what_cannot_be_replayed_is_one_sentence(capfd, tmp_path):
    for arguments, said in ((["replay-bad"], "run=<run folder>"), (["replay-bad", "rnu=x"], "did you mean 'run'")):
        assert cli.main(arguments) == 2 and said in capfd.readouterr().err

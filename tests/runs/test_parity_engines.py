"""hepo-isaac parity: what it must find, what it must not find, its files and its refusals."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from hepo_isaac import cli
from hepo_isaac.errors import UserError
from hepo_isaac.locate import robot_tasks
from hepo_isaac.runs.parity import command as parity_command
from hepo_isaac.runs.parity import report as parity_report
from hepo_isaac.runs.parity import rollout as parity_rollout
from hepo_isaac.runs.parity.compare import compare, correlation, departure
from hepo_isaac.runs.parity.recording import Recording, check_comparable, load, save
from hepo_isaac.runs.parity.rollout import Roller, StepStreams, evenly, roll
from hepo_isaac.runs.record import steps
from hepo_isaac.runs.record.bundled import bundled_run

ROOT = Path(__file__).resolve().parents[2]
RECORDINGS = ROOT / "tasks" / "robots" / "recordings"  # a task need not have one


def quiet(line):
    pass


def job(task, *overrides, engine="mujoco_batch", steps=12, num_envs=4, actions="random"):
    mine = ["task=" + task, *(["sim.threads=1"] if engine == "mujoco_batch" else []), *overrides]
    return {
        "engine": engine, "overrides": mine, "steps": steps, "num_envs": num_envs, "seed": 1, "actions": actions,
        "run": None, "singles": 5, "episodes": 2,
    }  # fmt: skip


@pytest.fixture(scope="module")
def ant():
    return roll(job("Ant"), say=quiet)


@pytest.fixture(scope="module")
def cartpole():
    return roll(job("Cartpole"), say=quiet)


# ---- what it finds ------------------------------------------------------------------------------------------------


class TestEngines:
    @pytest.mark.parametrize("task", ["Ant", "Ingenuity", "FrankaCabinet", "ShadowHand"])
    def test_an_engine_differs_from_itself_by_nothing(self, task):
        first = roll(job(task), say=quiet)
        found = compare(first, roll(job(task), first, quiet))
        assert found["identical"]
        assert found["bad"] == [0, 0]
        assert found["free"]["obs"]["spread"] > 0.0  # something moved
        assert {row["max"] for q in found["free"].values() for row in q["rows"]} == {0.0}
        assert [row["step"] for row in found["free"]["obs"]["rows"]] == [1, 2, 5, 10, 12]
        assert found["terms"]["h"]["correlation"] == pytest.approx(1.0)

    def test_a_changed_joint_is_found_and_named(self, ant):
        found = compare(ant, roll(job("Ant", "task.physics.joints.damping=0.103"), ant, quiet))
        assert not found["identical"]
        row = found["single"]["dof_vel"]
        assert row["n"] == 20
        assert 1e-3 < row["median"] <= row["q90"] <= row["max"] < 1.0
        assert row["where"].startswith("ant/")
        assert found["physics"] == [("physics.joints.damping", 0.1, 0.103)]
        text = "\n".join(parity_report.notes(found))
        assert row["where"] in text
        assert "task.physics.joints.damping is 0.1 on mujoco_batch and 0.103" in text

    def test_another_gravity_shows_in_the_height(self, monkeypatch):
        first = roll(job("Quadcopter"), say=quiet)
        build = parity_rollout.make_env

        def lighter(*args, **kwargs):
            env = build(*args, **kwargs)
            everyone = torch.ones(env.num_envs, dtype=torch.bool)
            env.sim.randomize("gravity", everyone, torch.tensor([[0.0, 0.0, -9.7]]).expand(env.num_envs, 3))
            return env

        monkeypatch.setattr(parity_rollout, "make_env", lighter)
        found = compare(first, roll(job("Quadcopter"), first, quiet))
        row, dt = found["single"]["root_lin_vel"], first.meta["control_dt"]
        assert row["where"].endswith(" z")
        assert row["median"] == pytest.approx(0.11 * dt, rel=0.05)

    def test_a_term_that_alone_differs_shows_in_its_row(self, ant, monkeypatch):
        build = parity_rollout.make_env

        def biased(*args, **kwargs):
            env = build(*args, **kwargs)
            rewards = env.task.rewards

            def more():
                made = rewards()
                return dataclasses.replace(made, terms={**made.terms, "energy": made.terms["energy"] + 0.01})

            env.task.rewards = more
            return env

        monkeypatch.setattr(parity_rollout, "make_env", biased)
        found = compare(ant, roll(job("Ant"), ant, quiet))
        assert not found["identical"]
        assert found["terms"]["energy"]["single_max"] == pytest.approx(0.01, rel=1e-3)
        assert found["terms"]["energy"]["difference"] == pytest.approx(0.12, rel=1e-3)
        others = [t for name, t in found["terms"].items() if name != "energy"]
        assert {t["single_max"] for t in others} == {0.0}
        assert {row["max"] for row in found["single"].values()} == {0.0}
        rows = {row[0]: row for row in parity_report.term_rows(found)}
        assert rows["energy"][3] == "0.12"

    def test_joints_and_actors_go_by_name(self, ant):
        other = copy.deepcopy(ant)
        turned = {"dof_pos": "dof", "dof_vel": "dof", "terms": "term", "metrics": "metric"}
        for kind in set(turned.values()):
            other.meta["names"][kind].reverse()
        for name, value in other.arrays.items():
            if name.split("/")[0] in ("free", "single") and name.split("/")[1] in turned:
                other.arrays[name] = value[..., ::-1].copy()
        assert compare(ant, other)["identical"]

    def test_start_states_go_by_name_into_an_engine_with_another_order(self, ant):
        other = copy.deepcopy(ant)
        for name in ("start/dof_pos", "start/dof_vel", "start/dof_target_pos"):
            other.arrays[name] = other.arrays[name][..., ::-1].copy()
        other.meta["names"]["dof"].reverse()
        cfg = parity_rollout.settings("mujoco_batch", job("Ant")["overrides"], 4, None)
        roller = Roller(cfg, 1, other)
        roller.start()
        assert np.array_equal(roller.env.sim.dof_pos.numpy(), ant.arrays["start/dof_pos"])

    @pytest.mark.parametrize("task", ["Ant", "FrankaCubeStack", "Ingenuity", "ShadowHand"])
    def test_a_state_can_be_put_back(self, task):
        cfg = parity_rollout.settings("mujoco_batch", job(task)["overrides"], 3, None)
        roller = Roller(cfg, 1, None)
        roller.start()
        env, move = roller.env, torch.full((3, roller.env.num_actions), 0.3)
        for _ in range(3):
            env.step(move)
        before, obs = parity_rollout.snapshot(env), env.task.observe().clone()
        for _ in range(3):
            env.step(-move)
        changed = [k for k, v in parity_rollout.snapshot(env).items() if not np.array_equal(v, before[k])]
        assert {"progress", "task/actions"} & set(changed)
        parity_rollout.put(env, before, env.sim.dof_names, env.sim.actor_names)
        after = parity_rollout.snapshot(env)
        assert set(after) == set(before)
        for name, value in before.items():
            assert np.array_equal(after[name], value), name
        if task not in ("Ant", "ShadowHand"):  # theirs hold forces of the last physics step
            assert torch.allclose(env.task.observe(), obs, atol=1e-5)

    def test_what_a_task_draws_is_the_same_on_both_whatever_else_was_drawn(self, monkeypatch):
        pushed = job("ShadowHand", "task.force_scale=1.0")
        first = roll(pushed, say=quiet)
        assert first.arrays["states/task/push"].any()
        step = Roller._step

        def draws_more(self, *args):
            result = step(self, *args)
            self.env.task.streams.rand(1)
            self.env.task.streams.randn(3)
            return result

        monkeypatch.setattr(Roller, "_step", draws_more)
        assert compare(first, roll(pushed, first, quiet))["identical"]

    def test_the_state_that_an_episode_ended_in_is_kept(self):
        recording = roll(job("Cartpole", steps=25), say=quiet)
        over = recording.arrays["free/terminated"]
        assert over.any()
        step, env = (int(k[0]) for k in over.nonzero())
        cart = recording.arrays["free/dof_pos"][step, env]
        assert max(abs(cart[0]) / 3.0, abs(cart[1]) / (np.pi / 2)) > 1.0  # out of bounds, where a reset is within
        assert np.ptp(recording.arrays["free/dof_pos"][: step + 1, env], axis=0).max() > 1.0

    @pytest.mark.parametrize(
        ("engines", "named"),
        [
            (("mujoco_batch", "mujoco_warp"), ["physics.drives.mujoco.stiffness"]),
            (("mujoco_batch", "isaacgym"), []),
            (("mujoco_warp", "mujoco_warp"), ["physics.drives.mujoco.stiffness", "physics.options.mujoco_warp.rows"]),
        ],
    )
    def test_settings_that_both_engines_read_are_named(self, engines, named):
        mine, its = made(0.0), made(0.0)
        its.meta["task_settings"]["physics"].update(
            drives={"isaacgym": {"stiffness": 1.0}, "mujoco": {"stiffness": 2.0}},
            options={"isaacgym": {"substeps": 2}, "mujoco_warp": {"rows": 1}},
        )
        mine.meta["engine"], its.meta["engine"] = engines
        assert [key for key, _, _ in compare(mine, its)["physics"]] == named

    def test_long_rollouts_say_how_long(self, monkeypatch, capfd):
        """Free steps, single steps and the episodes of a policy's closed loop."""
        monkeypatch.setattr(steps, "FIRST_S", 0.0)
        monkeypatch.setattr(steps, "EVERY_S", 0.0)
        lines = []
        acting = {"actions": "run", "run": str(bundled_run("Cartpole")), "singles": 2, "episodes": 4}
        roll({**job("Cartpole", steps=3), **acting}, say=lines.append)
        assert lines[0].startswith("mujoco_batch on cpu, 4 environments × 3 control steps")
        said = capfd.readouterr().err
        for number in (1, 2, 3):
            assert "mujoco_batch: %d of 3 control steps, ETA 0:0" % number in said
        assert "mujoco_batch: 2 of 2 single steps, ETA 0:00" in said
        assert re.search(r"playing pi: [1-9][0-9]* of 499 steps, ETA 0:0", said)

    def test_zero_actions(self):
        assert not roll(job("Cartpole", actions="zero"), say=quiet).arrays["actions"].any()

    def test_an_engine_that_cannot_be_imported_is_one_sentence(self, monkeypatch):
        def broken(*args, **kwargs):
            raise ImportError("no module named physx")

        monkeypatch.setattr(parity_rollout, "make_env", broken)
        with pytest.raises(UserError, match=r"no module named physx; python.mujoco_batch= takes"):
            roll(job("Ant"), say=quiet)


@pytest.mark.slow
@pytest.mark.parametrize(("task", "bound"), [("FrankaCabinet", 1e-4), ("Cartpole", 1e-4), ("Ant", 1e-3)])
def test_warp_does_in_a_step_what_mujoco_c_does(task, bound):
    pytest.importorskip("mujoco_warp")
    first = roll(job(task), say=quiet)
    found = compare(first, roll(job(task, engine="mujoco_warp"), first, quiet))
    assert not found["identical"]
    assert found["second"]["device"].startswith(("warp-cpu", "cuda"))
    assert found["single"]["obs"]["q90"] < bound
    assert found["terms"]["h"]["correlation"] > 0.99


@pytest.mark.parametrize("file", sorted(RECORDINGS.glob("*.npz")), ids=lambda file: file.stem)
def test_the_recording_that_comes_along_is_what_mujoco_batch_does_today(file):
    """Its single steps; free rollouts end elsewhere on a processor that rounds differently."""
    task = file.stem
    recorded = load(file)
    assert task in robot_tasks() and file.stat().st_size < 100_000
    found = compare(recorded, roll({**job(task), "overrides": recorded.meta["overrides"]}, recorded, quiet))
    assert found["physics"] == []
    for row in found["single"].values():
        assert row["n"] > 0
        assert row["median"] < 1e-4
    at = {row["step"]: row for row in found["free"]["dof_pos"]["rows"]} if "dof_pos" in found["free"] else {}
    assert all(at[k]["median"] < 1e-3 for k in (1, 2, 5) if k in at)
    for term in found["terms"].values():
        assert term["difference"] == pytest.approx(0.0, abs=1e-2 * (1.0 + abs(term["first"])))


# ---- numbers ------------------------------------------------------------------------------------------------------


def made(rewards, ended=(), steps=4, envs=3):
    """A recording by hand: one joint that stands still, rewards (T, N), and where episodes end as (step, env)."""
    still = np.zeros((steps, envs, 1), np.float32)
    over = np.zeros((steps, envs), bool)
    for place in ended:
        over[place] = True
    pair = np.stack((np.broadcast_to(np.asarray(rewards, np.float32), (steps, envs)),) * 2, -1)
    free = {
        "dof_pos": still, "dof_vel": still, "root_state": np.zeros((steps, envs, 1, 13), np.float32), "obs": still,
        "rewards": pair, "terms": pair[..., :1], "metrics": still, "terminated": over,
        "time_out": np.zeros_like(over), "bad": np.zeros_like(over),
    }  # fmt: skip
    one = {k: v[:1] for k, v in free.items()}
    names = {"dof": ["a/j"], "actor": ["a"], "free": [], "term": ["t"], "metric": ["m"]}
    meta = {
        "task": "T", "engine": "e", "device": "cpu", "heuristic": "default", "seed": 1, "actions": "zero",
        "steps": steps, "num_envs": envs, "single_steps": [0], "obs_steps": list(range(1, steps + 1)),
        "task_settings": {"episode_length": 9, "physics": {"dt": 1}}, "names": names, "control_dt": 0.1, "overflows": 0,
        "sim": {}, "versions": {}, "hardware": {"gpus": [], "cpu": "x"}, "git": None, "success": None,
    }  # fmt: skip
    arrays = {"free/" + k: v for k, v in free.items()}
    arrays.update({"single/" + k: v for k, v in one.items()})
    arrays.update({"actions": still, "start/dof_pos": still[0]})
    return Recording(meta, {k: v.copy() for k, v in arrays.items()})


class TestNumbers:
    def test_median_quantile_and_largest_over_environments(self):
        mine, its = made(0.0), made(0.0)
        its.arrays["free/dof_pos"][2, :, 0] = [0.0, 1.0, 3.0]
        row = {r["step"]: r for r in compare(mine, its)["free"]["dof_pos"]["rows"]}[3]
        assert (row["median"], row["max"], row["where"], row["n"]) == (1.0, 3.0, "a/j", 3)
        assert row["q90"] == pytest.approx(np.quantile([0.0, 1.0, 3.0], 0.9))

    def test_nothing_is_compared_after_the_first_end_on_either_engine(self):
        mine, its = made(1.0, [(1, 0)]), made(1.0, [(2, 1)])
        its.arrays["free/dof_pos"][2:, 0] = 5.0  # the next episode's
        its.arrays["free/dof_pos"][3:, 1] = 7.0
        its.arrays["free/rewards"][2:, 0] = 9.0
        found = compare(mine, its)
        rows = found["free"]["dof_pos"]["rows"]
        # the step that ends an episode still belongs to it
        assert [row["n"] for row in rows] == [row["n"] for row in found["free"]["r"]["rows"]] == [3, 3, 2, 1]
        assert {row["max"] for row in rows} == {0.0}
        assert {row["max"] for row in found["free"]["r"]["rows"]} == {0.0}

    def test_sums_are_of_each_engines_own_first_episode(self):
        found = compare(made(1.0, [(1, 0)]), made(1.0))
        assert found["terms"]["r"]["first"] == pytest.approx((2 + 4 + 4) / 3)
        assert found["terms"]["r"]["second"] == pytest.approx(4.0)
        assert found["episodes"]["first"]["terminated"] == 1
        assert found["episodes"]["second"]["terminated"] == 0
        assert found["episodes"]["first"]["mean_length"] == pytest.approx(10 / 3)

    def test_correlation_is_of_steps(self):
        rewards = np.arange(12.0).reshape(4, 3)
        assert compare(made(rewards), made(-2.0 * rewards))["terms"]["t"]["correlation"] == pytest.approx(-1.0)
        assert np.isnan(correlation(np.ones(4), np.arange(4.0)))

    def test_worlds_that_diverged_do_not_count(self):
        its = made(1.0)
        its.arrays["free/bad"][1, 2] = its.arrays["single/bad"][0, 2] = True
        its.arrays["free/dof_pos"][1:, 2] = np.nan
        its.arrays["single/dof_pos"][0, 2] = its.arrays["single/terms"][0, 2] = 1e6
        its.arrays["single/rewards"][0, 2] = 1e6
        found = compare(made(1.0), its)
        assert found["terms"]["t"]["single_max"] == found["single"]["r"]["max"] == 0.0
        assert found["bad"] == [0, 2]
        assert found["single"]["dof_pos"]["max"] == 0.0
        assert found["single"]["dof_pos"]["n"] == 2
        assert [row["n"] for row in found["free"]["dof_pos"]["rows"]] == [3, 2, 2, 2]
        assert {row["max"] for row in found["free"]["dof_pos"]["rows"]} == {0.0}
        assert "e: worlds diverged in 2 environment steps" in "\n".join(parity_report.notes(found))

    @pytest.mark.parametrize("angle", [1e-4, 0.5, 3.0])
    def test_rotations_depart_by_their_angle_whatever_the_sign(self, angle):
        one = np.array([[[[0.0, 0.0, 0.0, 1.0]]]])
        turned = np.array([[[[0.0, np.sin(angle / 2), 0.0, np.cos(angle / 2)]]]])
        assert departure("root_rot", one, turned) == pytest.approx(angle)
        assert departure("root_rot", one, -turned) == pytest.approx(angle)

    def test_single_steps_are_spread_evenly(self):
        assert evenly(10, 4) == [0, 3, 6, 9]
        assert evenly(3, 20) == [0, 1, 2]
        assert evenly(1, 1) == [0]

    @pytest.mark.parametrize(
        ("value", "text"), [(0.0, "0"), (float("nan"), "–"), (None, "–"), (1234.6, "1235"), (3.3e-7, "3.3e-07")]
    )
    def test_how_numbers_look(self, value, text):
        assert parity_report.number(value) == text


class TestStreams:
    def test_numbers_depend_on_seed_step_and_order_alone(self):
        a, b = (StepStreams(3, 4, torch.device("cpu")) for _ in range(2))
        a.begin(1)
        a.rand(5)  # an episode that ended here alone
        a.randn(2, mask=torch.zeros(4, dtype=torch.bool))
        for streams in (a, b):
            streams.begin(2)
        assert torch.equal(a.rand(3), b.rand(3))
        assert torch.equal(a.randint(7), b.randint(7))
        second = b.rand(3)
        b.begin(2)
        first = b.rand(3)
        assert not torch.equal(first, second)
        b.begin(3)
        assert not torch.equal(first, b.rand(3))
        other = StepStreams(4, 4, torch.device("cpu"))
        other.begin(2)
        b.begin(2)
        assert not torch.equal(other.rand(3), b.rand(3))

    def test_kinds_and_ranges(self):
        streams = StepStreams(1, 2000, torch.device("cpu"))
        uniform, normal, whole = streams.rand(2), streams.randn(2), streams.randint(5)
        assert uniform.dtype == normal.dtype == torch.float32
        assert 0.0 <= uniform.min() < 0.01
        assert 0.99 < uniform.max() < 1.0
        assert abs(normal.mean()) < 0.1
        assert abs(normal.std() - 1.0) < 0.1
        assert whole.dtype == torch.int64
        assert set(whole.tolist()) == set(range(5))


# ---- files --------------------------------------------------------------------------------------------------------


class TestFiles:
    def test_a_recording_survives_its_file(self, ant, tmp_path):
        file = save(tmp_path / "new" / "ant.npz", ant)
        again = load(file)
        assert again.meta == json.loads(json.dumps(ant.meta))
        assert set(again.arrays) == set(ant.arrays)
        for name, value in ant.arrays.items():
            assert again.arrays[name].dtype == value.dtype
            assert np.array_equal(again.arrays[name], value)
        assert compare(ant, again)["identical"]

    def test_what_is_no_recording_is_refused(self, ant, tmp_path):
        with pytest.raises(UserError, match=r"no\.npz does not exist"):
            load(tmp_path / "no.npz")
        file = save(tmp_path / "ant.npz", ant)
        file.write_bytes(file.read_bytes()[:1000])
        with pytest.raises(UserError, match="is no recording"):
            load(file)
        (tmp_path / "text.npz").write_text("hello")
        with pytest.raises(UserError, match="is no recording"):
            load(tmp_path / "text.npz")
        np.savez(tmp_path / "other.npz", a=np.zeros(3))
        with pytest.raises(UserError, match="is no recording"):
            load(tmp_path / "other.npz")

    def test_another_format_is_refused(self, ant, tmp_path, monkeypatch):
        monkeypatch.setattr("hepo_isaac.runs.parity.recording.FORMAT", 2)
        file = save(tmp_path / "ant.npz", ant)
        monkeypatch.undo()
        with pytest.raises(UserError, match="has format 2 and this release reads 1"):
            load(file)

    @pytest.mark.parametrize("key", ["task", "heuristic", "seed", "actions", "steps", "num_envs"])
    def test_other_settings_are_refused_by_name(self, ant, key):
        other = Recording({**ant.meta, key: "other"}, ant.arrays)
        with pytest.raises(UserError, match="different %s cannot be compared: .* and other" % key):
            check_comparable(ant, other)

    def test_a_task_setting_is_refused_and_a_physics_setting_is_not(self, cartpole):
        other = copy.deepcopy(cartpole)
        other.meta["task_settings"]["physics"]["new"] = 3
        check_comparable(cartpole, other)
        other.meta["task_settings"]["episode_length"] = 7
        with pytest.raises(UserError, match="task.episode_length cannot be compared: 499 and 7"):
            check_comparable(cartpole, other)

    @pytest.mark.parametrize(
        ("name", "text"), [("actions", "different actions"), ("start/dof_pos", "different start states")]
    )
    def test_other_actions_or_starts_are_refused(self, ant, name, text):
        other = Recording(ant.meta, {**ant.arrays, name: ant.arrays[name] + 1.0})
        with pytest.raises(UserError, match=text):
            check_comparable(ant, other)

    def test_other_joints_are_refused(self, ant):
        other = copy.deepcopy(ant)
        other.meta["names"]["dof"][0] = "ant/tail"
        with pytest.raises(UserError, match="dof names"):
            check_comparable(ant, other)


# ---- the page -----------------------------------------------------------------------------------------------------


class TestPage:
    def test_writing_twice_is_writing_once(self, cartpole):
        found = compare(cartpole, cartpole)
        once = parity_report.update_page("# Cartpole\n\nOld text.\n", found, "command a")
        assert once.startswith("# Cartpole\n\nOld text.\n\n")
        assert parity_report.update_page(once, found, "command a") == once

    def test_what_surrounds_the_section_stays(self, cartpole):
        found = compare(cartpole, cartpole)
        page = parity_report.update_page("# Cartpole\n", found, "command a") + "\n## Below\n"
        again = parity_report.update_page(page, found, "command b")
        assert again == page.replace("command a", "command b")
        assert again.endswith("\n## Below\n")

    def test_each_pair_has_its_place(self, cartpole):
        page = parity_report.update_page("", compare(cartpole, cartpole), "command a")
        assert page.startswith("# Cartpole")
        assert "nobody has run that yet" in page
        other = copy.deepcopy(cartpole)
        other.meta["engine"] = "isaacgym"
        both = parity_report.update_page(page, compare(cartpole, other), "command b")
        assert both.count("command a") == both.count("command b") == 1
        assert both.count(parity_report.HEADING) == 1
        assert "nobody has run that yet" not in both
        assert parity_report.update_page(both, compare(cartpole, other), "command b") == both

    def test_tables_are_of_one_width(self, cartpole):
        lines = parity_report.body(compare(cartpole, cartpole), "command")
        tables = "\n".join(line for line in lines if line.startswith("|") or not line).split("\n\n")
        for table in [t for t in tables if t.strip()]:
            assert len({line.count("|") for line in table.strip().splitlines()}) == 1

    def test_every_page_has_the_section_of_its_task(self):
        pages = {path.stem: path for path in (ROOT / "docs" / "parity").glob("*.md")}
        with_page = [task for task in robot_tasks() if task in pages]
        assert len(with_page) >= 11
        for task in with_page:
            page = pages[task].read_text(encoding="utf-8")
            assert page.count(parity_report.BEGIN) == page.count(parity_report.END) == 1
            assert "hepo-isaac parity task=%s engine=isaacgym page=true" % task in page
            assert parity_report.PAIR % "mujoco_batch mujoco_warp" in page


# ---- the command --------------------------------------------------------------------------------------------------


class TestCommand:
    @pytest.mark.parametrize(
        ("arguments", "names"),
        [
            (["task=Push2D"], ["task=Push2D", "sim=analytic"]),
            (["task=Antt"], ["'Antt'", "'Ant'"]),
            (["task=Ant", "engine=physx"], ["unknown engine 'physx'", "isaacgym"]),
            (["task=Ant", "engine=analytic"], ["unknown engine 'analytic'"]),
            (["task=Ant", "engines=mujoco_batch"], ["takes two engines"]),
            (["task=Ant", "engines=mujoco_batch,mujoco_warp", "engine=isaacgym"], ["leave it out"]),
            (["task=Ant", "sim=mujoco_batch"], ["engine=mujoco_batch", "not sim="]),
            (["task=Ant", "steps=0"], ["steps must be", "got 0"]),
            (["task=Ant", "num_envs=many"], ["num_envs must be", "many"]),
            (["task=Ant", "page=perhaps"], ["page must be true or false"]),
            (["task=Ant", "actions=bold"], ["unknown actions 'bold'", "random"]),
            (["task=Ant", "actions=run"], ["needs run="]),
            (["task=Ant", "num_env=3"], ["num_env", "'num_envs'"]),
            (["task=Ant", "sim.thread=3"], ["sim.thread", "sim.threads"]),
            (["task=Ant", "Ant"], ["takes key=value", "'Ant'"]),
            (["engine=mujoco_batch"], ["needs task="]),
            (["engine=mujoco_batch", "against=none.npz"], ["none.npz does not exist"]),
            (["task=Ant", "engine=mujoco_batch", "python.mujoco_batch=/nowhere"], ["/nowhere cannot be run"]),
            (["task=Ant", "python.mujoco=/nowhere"], ["unknown engine 'mujoco'"]),
            (["task=Ant", "engine=mujoco_batch", "num_envs=5"], ["num_envs=4, which it replays, not num_envs=5"]),
            (["task=Cartpole", "engine=mujoco_batch", "against=tasks/robots/recordings/Ant.npz"], ["task=Ant"]),
        ],
    )
    def test_a_mistake_is_one_line(self, capfd, monkeypatch, arguments, names):
        monkeypatch.chdir(ROOT)
        assert cli.main(["parity", *arguments]) == 2
        err = capfd.readouterr().err
        assert err.count("\n") == 1
        for name in names:
            assert name in err

    def test_an_installed_package_has_no_page(self, monkeypatch):
        monkeypatch.setattr(parity_report, "bundled", lambda: True)
        with pytest.raises(UserError, match=r"page=true writes docs/parity/Ant\.md of a checkout"):
            parity_command.main(["task=Ant", "page=true"])

    def test_help_shows_how(self, capsys):
        assert cli.main(["parity", "--help"]) == 0
        assert "hepo-isaac parity task=FrankaCabinet" in capsys.readouterr().out

    def test_one_engine_here_and_another_elsewhere(self, capfd, monkeypatch, tmp_path):
        monkeypatch.chdir(tmp_path)
        size = ["num_envs=4", "steps=8", "singles=3"]
        assert cli.main(["parity", "task=Cartpole", "engine=mujoco_batch", "save=first.npz", *size]) == 0
        assert list(tmp_path.iterdir()) == [tmp_path / "first.npz"]
        folder = tmp_path / "parity" / "Cartpole_mujoco_batch_vs_mujoco_batch"
        assert cli.main(["parity", "engine=mujoco_batch", "against=first.npz"]) == 0
        out = capfd.readouterr().out
        assert "Nothing differs" in out
        assert max(map(len, out.splitlines()[4:])) < 200
        report = json.loads((folder / "report.json").read_text())
        assert report["identical"] is True
        assert report["first"]["steps"] == 8
        text = (folder / "report.md").read_text()
        assert "hepo-isaac parity engine=mujoco_batch against=first.npz" in text
        assert ("![trajectories](trajectories.png)" in text) == (folder / "trajectories.png").is_file()

    def test_an_engine_that_is_missing_is_said_by_the_process_it_lives_in(self, capfd, monkeypatch, tmp_path):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("PYTHONPATH", str(ROOT))
        assert cli.main(["parity", "task=Ant", "engine=isaacgym"]) == 2
        err = capfd.readouterr().err
        assert "isaacgym" in err
        assert "Traceback" not in err
        assert err.count("\n") == 1

    def test_the_fake_isaac_gym_against_the_recording_is_one_command(self, monkeypatch, tmp_path):
        """Isaac Gym must be imported before torch, which the fake insists on: in the process of the rollout it is."""
        environment = dict(os.environ, PYTHONPATH=os.pathsep.join([str(ROOT), str(ROOT / "tests" / "fakes")]))
        environment.pop("FAKE_ISAACGYM_AFTER_TORCH", None)
        command = [sys.executable, "-m", "hepo_isaac.cli", "parity", "task=Cartpole", "engine=isaacgym", "device=cpu"]
        done = subprocess.run(command, cwd=str(tmp_path), env=environment, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        report = json.loads((tmp_path / "parity/Cartpole_mujoco_batch_vs_isaacgym/report.json").read_text())
        assert report["second"]["engine"] == "isaacgym"
        assert report["single"]["dof_pos"]["n"] == 20
        assert report["identical"] is False
        assert report["physics"] == []

    def test_the_interpreter_of_an_engine_can_come_from_the_environment(self, monkeypatch):
        monkeypatch.setenv("HEPO_PYTHON_ISAACGYM", "/opt/python3.8")
        assert parity_command.parse(["task=Ant"]).pythons == {"isaacgym": "/opt/python3.8"}
        typed = parity_command.parse(["task=Ant", "python.isaacgym=/other"])
        assert typed.pythons == {"isaacgym": "/other"}

    def test_engines_of_this_machine_by_default(self, monkeypatch):
        monkeypatch.setattr(parity_command, "_installed", lambda package: True)
        assert parity_command.parse(["task=Ant"]).engines == ("mujoco_batch", "mujoco_warp")
        monkeypatch.setattr(parity_command, "_installed", lambda package: package in ("mujoco", "isaacgym"))
        request = parity_command.parse(["task=Ant"])
        assert request.engines == ("isaacgym",)
        assert request.reference == RECORDINGS / "Ant.npz"

    def test_options_of_one_engine_do_not_disturb_another(self):
        kept = parity_rollout.engine_overrides("mujoco_warp", ["task=Ant", "sim.threads=1", "sim.refine=true"])
        assert kept == ["task=Ant", "sim.refine=true"]
        assert parity_rollout.engine_overrides("mujoco_batch", ["device=cuda:0", "sim.threads=1"]) == ["sim.threads=1"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    from hepo_isaac.runs.launch import main as train

    root = tmp_path_factory.mktemp("trained")
    settings = ["num_envs=16", "train.max_iterations=2", "tensorboard=false", "plot=false", "torch_threads=1"]
    assert train(["task=Cartpole", "algo=hepo", "run_root=%s" % root, *settings]) == 0
    return str(next((root / "Cartpole" / "hepo").iterdir()))


class TestRun:
    def test_the_policys_actions_and_its_own_episodes(self, trained):
        mine = {**job("Cartpole", actions="run"), "run": trained}
        first = roll(mine, say=quiet)
        assert first.arrays["actions"].std() > 0.0
        found = compare(first, roll(mine, first, quiet))
        assert found["identical"]
        value = found["evaluation"]["pi"]["J"]
        assert value["first"]["n"] == 4  # one in each environment, and at least the two asked for
        assert value["difference"] == 0.0
        assert value["std_error"] > 0.0
        labels = [row[0] for row in parity_report.evaluation_rows(found)]
        assert {"pi, J", "pi, H", "pi_h, J", "pi, survived"} <= set(labels)

    def test_a_run_of_another_task_is_refused(self, trained):
        with pytest.raises(UserError, match="was trained with task=Cartpole, not Ant"):
            roll({**job("Ant", actions="run"), "run": trained}, say=quiet)

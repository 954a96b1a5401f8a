"""python train.py -m …: jobs on their own feet, finished ones skipped, interrupted ones resumed, and the table."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import pickle
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from hepo_isaac.overrides import compose
from hepo_isaac.runs import launch
from hepo_isaac.runs.record.files import read_json, write_json
from hepo_isaac.runs.record.folder import FINISHED, INTERRUPTED, RUNNING, RunFolder
from hepo_isaac.runs.record.lock import SILENT_S
from hepo_isaac.runs.sweep import multirun as sweep
from hepo_isaac.runs.sweep import twins

ROOT = Path(__file__).resolve().parents[2]
SMALL = [
    "task=Push2D", "algo=hepo", "num_envs=4", "train.max_iterations=1", "train.mini_epochs=1",
    "torch_threads=1", "tensorboard=false", "plot=false",
]  # fmt: skip


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def run(capfd, *arguments):
    """Exit code, the states in the table, stdout and stderr."""
    code = launch.main(list(arguments))
    out, err = capfd.readouterr()
    return code, states(), out, err


def states():
    """The state of every job of the newest sweep."""
    folders = sorted(Path("runs/.multirun").glob("2*"), key=lambda p: p.stat().st_mtime_ns)
    return [r["state"] for r in sweep.collect(folders[-1])] if folders else []


def folders():
    return sorted(p.parent for p in Path("runs").glob("*/*/*/config.yaml"))


def failing(monkeypatch, seed, error):
    """Make the training of one seed raise."""
    train = launch.train

    def patched(cfg, facts):
        if cfg["seed"] == seed:
            raise error
        return train(cfg, facts)

    monkeypatch.setattr(launch, "train", patched)


# ---- failures ---------------------------------------------------------------------------------------------------


def test_a_crash_and_a_mistake_stop_only_their_own_jobs(capfd, monkeypatch):
    failing(monkeypatch, 2, ValueError("out of cheese"))
    code, found, out, err = run(capfd, "-m", *SMALL, "seed=1,2", "algo=ppo_h,hepo", "num_envs=3,4")
    # in the order of first mention: algo, num_envs, seed; three environments cannot be split over HEPO's policies
    by_job = dict(zip(itertools.product(("ppo_h", "hepo"), (3, 4), (1, 2)), found))
    for (algo, envs, seed), state in by_job.items():
        bad = seed == 2 or (algo, envs) == ("hepo", 3)
        assert state == ("failed" if bad else "trained"), (algo, envs, seed)
    assert code == 1
    assert "sweep of 8 jobs: 3 trained, 5 failed" in out
    assert "ValueError: out of cheese" in out
    assert "num_envs=3 cannot be split" in out
    assert err.count("Traceback") == 3
    assert len(folders()) == 3
    for folder in folders():
        assert str(folder) in out.split("sweep of")[1]


def test_a_sweep_of_mistakes_exits_with_2(capfd):
    code, found, _, err = run(capfd, "-m", *SMALL, "seed=1,2", "num_envs=3")
    assert (code, found) == (2, ["failed", "failed"])
    assert err.count("error: num_envs=3") == err.count("\n") == 2


def test_an_unknown_method_is_refused_before_anything_starts(capfd):
    code, found, out, err = run(capfd, "-m", *SMALL, "algo=hepo,ppo_hh", "seed=1,2")
    assert (code, found, out) == (2, [], "")
    assert err.count("\n") == 1
    assert "unknown algo 'ppo_hh'" in err
    assert "'ppo_h'" in err
    assert not Path("runs").exists()


def test_ctrl_c_ends_the_sweep_and_says_what_is_left(capfd, monkeypatch):
    failing(monkeypatch, 2, KeyboardInterrupt())
    code, found, out, _ = run(capfd, "-m", *SMALL, "seed=1,2,3")
    assert (code, found) == (130, ["trained", "interrupted", "not started"])
    assert "1 trained, 1 interrupted, 1 not started" in out


@pytest.fixture
def interruptible():
    """SIGINT as a terminal's program has it: what a shell starts in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_a_ctrl_c_between_two_jobs_starts_no_other(capfd, monkeypatch):
    train = launch.train

    def patched(cfg, facts):
        code = train(cfg, facts)
        os.kill(os.getpid(), signal.SIGINT)  # the training has given the signal back to the sweep
        return code

    monkeypatch.setattr(launch, "train", patched)
    before = signal.getsignal(signal.SIGINT)
    code, found, _, err = run(capfd, "-m", *SMALL, "seed=1,2,3")
    assert (code, found) == (130, ["trained", "not started", "not started"])
    assert "once more ends the sweep" in err
    assert signal.getsignal(signal.SIGINT) == before


def test_a_job_that_died_without_a_word_is_in_the_table(tmp_path):
    write_json(tmp_path / sweep.JOBS_FILE, {"jobs": [["seed=1", "a=0"], ["seed=2", "a=0"]], "pid": 1, "host": "x"})
    write_json(tmp_path / "job_0.json", {"state": "running", "overrides": ["seed=1", "a=0"], "code": 1})
    assert [r["state"] for r in sweep.collect(tmp_path)] == ["lost", "not started"]
    assert sweep.finish(tmp_path, 0) == 1
    text = sweep.table(sweep.collect(tmp_path))
    assert "out of memory" in text
    assert "seed=1" in text
    assert "a=0" not in text  # all jobs share it


def test_the_sweeps_folder_is_not_to_be_moved(capfd):
    code, _, _, err = run(capfd, "-m", *SMALL, "hydra.sweep.dir=elsewhere")
    assert code == 2
    assert "run_root" in err


# ---- the same job again -----------------------------------------------------------------------------------------


def test_finished_runs_are_skipped_in_a_sweep_and_repeated_alone(capfd):
    assert run(capfd, "-m", *SMALL, "seed=1,2")[:2] == (0, ["trained", "trained"])
    code, found, out, _ = run(capfd, "-m", *SMALL, "seed=1,2,3", "video=false", "checkpoint_every=7", "sim=analytic")
    assert (code, found) == (0, ["skipped", "skipped", "trained"])
    assert out.count("skipped: this configuration has been trained in runs/Push2D/hepo/") == 2
    assert len(folders()) == 3
    assert run(capfd, "-m", *SMALL, "seed=1", "train.gamma=0.9")[1] == ["trained"]
    assert run(capfd, "-m", *SMALL, "seed=1", "skip_finished=false")[1] == ["trained"]
    assert run(capfd, *SMALL, "seed=1")[0] == 0
    assert len(folders()) == 6
    code, _, out, _ = run(capfd, *SMALL, "seed=1", "skip_finished=true")
    assert code == 0
    assert "skipped" in out
    assert len(folders()) == 6


def interrupt(folder, iterations, **status):
    """Make a finished run look as if it had been killed on its way to ``iterations``."""
    cfg = OmegaConf.load(folder / "config.yaml")
    cfg.train.max_iterations = iterations
    OmegaConf.save(cfg, folder / "config.yaml")
    (folder / "summary.json").unlink()
    write_json(folder / "status.json", {"status": INTERRUPTED, **status})


def rows(folder):
    return len((folder / "metrics.csv").read_text().splitlines()) - 1


def test_an_interrupted_run_is_resumed(capfd):
    assert run(capfd, *SMALL, "seed=1")[0] == 0
    (folder,) = folders()
    interrupt(folder, 3)
    code, found, out, err = run(capfd, "-m", *SMALL, "seed=1,2", "train.max_iterations=3", "checkpoint_every=1")
    assert (code, found) == (0, ["resumed", "trained"]), err
    assert "resuming %s from iteration 1" % folder in out
    assert rows(folder) == 3
    assert RunFolder(folder).status() == FINISHED
    assert OmegaConf.load(folder / "config.yaml").checkpoint_every == 1
    assert len(folders()) == 2


def test_a_run_that_was_killed_after_its_last_iteration_is_only_closed(capfd):
    assert run(capfd, *SMALL, "seed=1")[0] == 0
    (folder,) = folders()
    interrupt(folder, 1)
    code, found, _, _ = run(capfd, "-m", *SMALL, "seed=1", "train.max_iterations=1")
    assert (code, found, rows(folder)) == (0, ["resumed"], 1)
    assert RunFolder(folder).status() == FINISHED and (folder / "summary.json").exists()


@pytest.mark.parametrize("damage", ["no checkpoint", "broken checkpoint"])
def test_what_cannot_be_resumed_is_trained_anew(capfd, damage):
    assert run(capfd, *SMALL, "seed=1")[0] == 0
    (folder,) = folders()
    interrupt(folder, 2)
    if damage == "no checkpoint":
        (folder / "checkpoints" / "last.pt").unlink()
    if damage == "broken checkpoint":
        (folder / "checkpoints" / "last.pt").write_bytes(b"half")
    iterations = OmegaConf.load(folder / "config.yaml").train.max_iterations
    code, found, _, _ = run(capfd, "-m", *SMALL, "seed=1", "train.max_iterations=%d" % iterations)
    assert (code, found) == (0, ["trained"])
    assert [RunFolder(f).status() for f in folders()] == [INTERRUPTED, FINISHED]


def test_a_run_that_lives_is_left_alone_and_a_silent_one_resumed(capfd):
    assert run(capfd, *SMALL, "seed=1")[0] == 0
    (folder,) = folders()
    interrupt(folder, 2, status=RUNNING, host="another", pid=1)
    write_json(folder / ".lock", {"host": "another", "pid": 1, "writing": True})
    later = time.time() + 3600  # however long this machine takes to ask
    os.utime(folder / ".lock", (later, later))
    assert run(capfd, "-m", *SMALL, "seed=1", "train.max_iterations=2")[:2] == (0, ["elsewhere"])
    long_ago = time.time() - SILENT_S - 10
    os.utime(folder / ".lock", (long_ago, long_ago))
    assert run(capfd, "-m", *SMALL, "seed=1", "train.max_iterations=2")[:2] == (0, ["resumed"])
    assert rows(folder) == 2


def test_runs_side_by_side_are_skipped_and_completed_side_by_side(capfd):
    assert run(capfd, "-m", *SMALL, "seed=1", "seeds=2")[1] == ["trained"]
    assert [f.name[-5:] for f in folders()] == ["seed1", "seed2"]
    assert run(capfd, "-m", *SMALL, "seed=1,2")[1] == ["skipped", "skipped"]
    assert run(capfd, "-m", *SMALL, "seed=1", "seeds=2")[1] == ["skipped"]
    for folder in folders():
        interrupt(folder, 2)
    code, found, _, err = run(capfd, "-m", *SMALL, "seed=1", "seeds=3", "train.max_iterations=2")
    assert (code, found) == (0, ["resumed"]), err
    assert [(f.name[-5:], rows(f)) for f in folders()] == [("seed1", 2), ("seed2", 2), ("seed3", 2)]


def settled(*overrides):
    return launch.prepare(compose([*SMALL, *overrides]), [*SMALL, *overrides])


@pytest.mark.parametrize(
    "same",
    ["run_root=x", "wandb.enabled=true", "video=true", "torch_threads=3", "skip_finished=true", "checkpoint_every=3"],
)
def test_recording_does_not_make_another_run(same):
    assert twins.identity(settled(same)) == twins.identity(settled())


@pytest.mark.parametrize(
    "other",
    [
        "seed=3", "num_envs=6", "algo=ppo_h", "task=Maze2D", "train.gamma=0.5", "budget=paper",
        "train.max_iterations=2", "algo.multiplier.lr=0.5", "heuristic=sparse", "task.episode_length=7",
    ],
)  # fmt: skip
def test_everything_else_does(other):
    assert twins.identity(settled(other)) != twins.identity(settled())


def test_engine_threads_gpu_number_and_new_null_settings_do_not():
    base = {**settled(), "sim": {"name": "mujoco_batch", "threads": 0}, "device": "cuda:0"}
    assert twins.identity({**base, "sim": {"name": "mujoco_batch", "threads": 4}}) == twins.identity(base)
    assert twins.identity({**base, "device": "cuda:1", "brand_new": None}) == twins.identity(base)
    assert twins.identity({**base, "device": "cpu"}) != twins.identity(base)


# ---- claims -----------------------------------------------------------------------------------------------------


def test_two_sweeps_do_not_train_the_same_job(capfd):
    name = twins.identity(twins.one_per_seed(settled("seed=1"))[0])
    with twins.claims(Path("runs/.multirun/claims"), [name]) as holder:
        assert holder is None
        code, found, out, _ = run(capfd, "-m", *SMALL, "seed=1,2")
    assert (code, found) == (0, ["elsewhere", "trained"])
    assert "process %d" % os.getpid() in out
    assert run(capfd, "-m", *SMALL, "seed=1,2")[1] == ["trained", "skipped"]


def test_a_killed_process_leaves_no_claim_behind(tmp_path):
    code = (
        "import time; from pathlib import Path; from hepo_isaac.runs.sweep.twins import claims\n"
        "with claims(Path(%r), ['a', 'b']): print('held', flush=True); time.sleep(60)" % str(tmp_path)
    )
    env = dict(os.environ, PYTHONPATH=str(ROOT))
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=env)
    try:
        assert child.stdout.readline() == "held\n"
        with twins.claims(tmp_path, ["b"]) as holder:
            assert "process %d on" % child.pid in holder
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
    with twins.claims(tmp_path, ["a", "b"]) as holder:
        assert holder is None


# ---- launchers --------------------------------------------------------------------------------------------------


def test_the_job_can_be_sent_to_another_process():
    assert pickle.loads(pickle.dumps(launch.hydra_job)) is launch.hydra_job


@pytest.mark.parametrize(
    ("launcher", "jobs", "cores"),
    [
        ({"_target_": "x.JoblibLauncher", "n_jobs": 2}, 9, 4),
        ({"_target_": "x.JoblibLauncher", "n_jobs": 2}, 1, 8),
        ({"_target_": "x.JoblibLauncher", "n_jobs": -1}, 9, 1),
        ({"_target_": "x.JoblibLauncher", "n_jobs": -1}, 4, 2),
        ({"_target_": "x.JoblibLauncher", "n_jobs": 99}, 99, 1),
        ({"_target_": "x.RayLauncher", "ray": {"remote": {"num_cpus": 3}}}, 9, 3),
        ({"_target_": "x.RayLauncher", "ray": {"remote": {}}}, 9, 1),
        ({"_target_": "x.LocalLauncher", "cpus_per_task": None}, 4, 2),
        ({"_target_": "x.LocalLauncher", "cpus_per_task": 5}, 4, 5),
        ({"_target_": "x.SlurmLauncher"}, 4, None),
        ({"_target_": "hydra._internal.core_plugins.basic_launcher.BasicLauncher"}, 4, None),
    ],
)
def test_jobs_share_the_cores(tmp_path, monkeypatch, launcher, jobs, cores):
    from hydra.core.hydra_config import HydraConfig

    write_json(tmp_path / sweep.JOBS_FILE, {"jobs": [[]] * jobs})
    monkeypatch.setattr(sweep, "usable_cores", lambda: 8)
    monkeypatch.setattr(sweep, "current", lambda: tmp_path)
    fake = types.SimpleNamespace(launcher=OmegaConf.create(launcher))
    monkeypatch.setattr(HydraConfig, "get", staticmethod(lambda: fake))
    assert sweep.cores_per_job() == cores
    shared = sweep.share_cores({"torch_threads": 4, "sim": {"name": "mujoco_batch", "threads": 0}}, "auto")
    assert shared["torch_threads"] == (4 if cores is None else max(1, cores // 2))
    assert shared["sim"]["threads"] == (cores or 0)
    given = {"torch_threads": 7, "sim": {"name": "mujoco_batch", "threads": 7}}
    assert sweep.share_cores(given, 7) == given


LAUNCHERS = {
    "joblib": (["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"], "hydra_plugins.hydra_joblib_launcher"),
    "slurm": (["hydra/launcher=submitit_local"], "hydra_plugins.hydra_submitit_launcher"),
    "ray": (["hydra/launcher=ray", "+hydra.launcher.ray.init.num_cpus=2"], "hydra_plugins.hydra_ray_launcher"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LAUNCHERS)
def test_launchers(name):
    """With what is installed of the extras sweep-joblib, sweep-slurm and sweep-ray."""
    options, module = LAUNCHERS[name]
    pytest.importorskip(module)
    command = [sys.executable, str(ROOT / "train.py"), "-m", *SMALL, "seed=1,2", "num_envs=3,4", *options]
    for expected in (["failed", "failed", "trained", "trained"], ["failed", "failed", "skipped", "skipped"]):
        done = subprocess.run(command, capture_output=True, text=True, timeout=240)
        assert done.returncode == 2, done.stderr
        assert "sweep of 4 jobs" in done.stdout
        assert sorted(states()) == expected
        first, *_ = sorted(Path("runs/.multirun").glob("2*"))
        workers = {json.loads(p.read_text())["pid"] for p in first.glob("job_*.json")}
        assert len(workers) >= 2, "two workers at least did the four jobs"
    assert len(folders()) == 2


def workers_of(child):
    """Processes of the sweep ``child`` that run a job now."""
    import psutil

    with contextlib.suppress(psutil.Error):
        return [p for p in psutil.Process(child.pid).children(recursive=True) if p.cpu_times().user > 1.0]
    return []


def running_jobs():
    found = [json.loads(f.read_text()) for f in Path("runs").rglob("job_*.json")]
    return [record for record in found if record["state"] == "running"]


def long_sweep(*more):
    command = [sys.executable, str(ROOT / "train.py"), "-m", *SMALL, "seed=1,2,3,4", "checkpoint_every=5"]
    command += ["train.max_iterations=400", *LAUNCHERS["joblib"][0], *more]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while len(list(Path("runs").rglob("last.pt"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    return child


@pytest.mark.slow
def test_a_killed_worker_does_not_end_a_sweep():
    pytest.importorskip(LAUNCHERS["joblib"][1])
    child = long_sweep()
    workers = workers_of(child)
    assert workers and running_jobs()
    workers[0].kill()
    out, err = child.communicate(timeout=240)
    assert child.returncode == 0, err
    assert "jobs are left to do; going on with them" in out
    assert set(states()) <= {"trained", "resumed"} and len(states()) == 4
    assert [RunFolder(f).status() for f in folders()] == [FINISHED] * 4


@pytest.mark.slow
def test_a_sweep_that_is_terminated_leaves_nobody_behind_and_goes_on_later():
    pytest.importorskip(LAUNCHERS["joblib"][1])
    child = long_sweep()
    workers = workers_of(child)
    child.send_signal(signal.SIGTERM)
    child.communicate(timeout=60)
    assert child.returncode in (130, 143)
    time.sleep(1.0)
    assert not [w for w in workers if w.is_running() and w.status() != "zombie"]
    assert {RunFolder(f).status() for f in folders()} == {INTERRUPTED} and len(folders()) == 2


def test_records_are_complete(capfd):
    run(capfd, "-m", *SMALL, "seed=1")
    (file,) = Path("runs/.multirun").glob("2*/job_0.json")
    record = json.loads(file.read_text())
    assert record["code"] == 0
    assert record["seconds"] > 0
    assert record["folders"] == [str(folders()[0])]
    assert "seed=1" in record["overrides"]
    assert read_json(file.parent / sweep.JOBS_FILE)["jobs"] == [record["overrides"]]

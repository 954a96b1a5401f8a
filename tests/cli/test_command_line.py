"""Help, completion, the newest run, ways of starting, and what is said where a package is missing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hepo_isaac import cli, completion, helps, locate
from hepo_isaac.errors import UserError
from hepo_isaac.limits import LIMITS, Limit, check_name, check_names, check_number, check_numbers, limit
from hepo_isaac.locate import group_names
from hepo_isaac.overrides import check_launcher, compose, known_keys
from hepo_isaac.runs import launch
from hepo_isaac.runs.parity import command as parity
from hepo_isaac.runs.record import metadata, plots
from hepo_isaac.runs.record.folder import RunFolder, latest_run
from hepo_isaac.sim import registry

ROOT = Path(__file__).resolve().parents[2]


# ---- help ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", sorted(cli.COMMANDS))
def test_every_command_has_usage_examples_and_keys(capfd, command):
    try:
        code = cli.main([command, "--help"])
    except SystemExit as stop:  # argparse's
        code = stop.code
    out, err = capfd.readouterr()
    assert (code, err) == (0, "")
    assert "usage: hepo-isaac " + command in out
    examples = helps.HELP[command].examples if command in helps.HELP else helps.EXAMPLES[command]
    assert len(examples) >= 3 and all(example in out for example in examples)


def test_keys_in_the_help_are_keys(capfd):
    """Of commands that read any setting, those named there are known."""
    known = set(known_keys(compose([]))) | {"task", "algo", "sim", "budget"}
    own = {"run", "episodes", "deterministic", "robots", "port", "host"}
    for command in ("train", "eval", "play", "view"):
        assert {key[:-1] for key in helps.keys_of(command)} <= known | own


def test_the_train_command_has_its_help(capfd):
    for arguments in (["--help"], ["task=Ant", "-h"]):
        assert launch.typed(arguments) == 0
        assert "usage: hepo-isaac train" in capfd.readouterr().out


# ---- where there is no train.py ------------------------------------------------------------------------------------


def test_hints_name_the_command_that_is_there(monkeypatch, tmp_path):
    assert locate.train_command() == "python train.py"
    monkeypatch.setattr(locate, "PACKAGE", tmp_path / "site-packages" / "hepo_isaac")
    assert locate.train_command() == "hepo-isaac train"
    folder = RunFolder(tmp_path / "a run")
    assert folder.resume_command() == "hepo-isaac train resume='%s'" % folder.path


def test_python_m_hepo_isaac(tmp_path):
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-m", "hepo_isaac", "--version"], cwd=tmp_path, env=env, capture_output=True)
    assert done.returncode == 0 and done.stdout.startswith(b"hepo-isaac ")


# ---- the newest run ------------------------------------------------------------------------------------------------


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Three run folders, the newest of which is Ant's."""
    monkeypatch.chdir(tmp_path)
    for number, task in enumerate(("Ant", "Push2D", "Ant")):
        folder = tmp_path / "runs" / task / "hepo" / str(number)
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text("")
        (folder / "status.json").write_text("{}")
        os.utime(folder / "status.json", (1000 + number, 1000 + number))
    return tmp_path / "runs"


def test_latest_is_the_run_that_was_written_last(runs):
    assert latest_run(runs) == runs / "Ant" / "hepo" / "2"
    assert latest_run(runs, "Push2D") == runs / "Push2D" / "hepo" / "1"
    os.utime(runs / "Ant" / "hepo" / "0" / "status.json", (2000, 2000))
    assert latest_run(runs) == runs / "Ant" / "hepo" / "0"
    with pytest.raises(UserError, match="no run in"):
        latest_run(runs, "Cartpole")


@pytest.mark.parametrize("command", ["eval", "play", "view", "export", "audit", "replay-bad", "parity"])
def test_every_command_takes_the_latest_run(capfd, monkeypatch, runs, command):
    seen = []
    monkeypatch.setitem(cli.COMMANDS, command, (lambda arguments: seen.append(arguments) or 0, ""))
    assert cli.main([command, "run=latest"]) == 0
    assert seen == [["run=" + os.path.join("runs", "Ant", "hepo", "2")]]
    assert "run=latest: runs/Ant/hepo/2" in capfd.readouterr().out


def test_resume_takes_the_latest_run(monkeypatch, runs):
    seen = []
    monkeypatch.setattr(launch, "resume", lambda path, rest: seen.append((path, rest)) or 0)
    assert launch.typed(["resume=latest", "task=Push2D", "train.max_iterations=7"]) == 0
    assert seen == [("runs/Push2D/hepo/1", ["train.max_iterations=7"])]


# ---- completion ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ([""], sorted(cli.COMMANDS)),
        (["ev"], ["eval"]),
        (["train", "task=Fr"], ["task=FrankaCabinet", "task=FrankaCubeStack"]),
        (["train", "task=Ant,Bal"], ["task=Ant,BallBalance"]),
        (["train", "budget="], ["budget=auto", "budget=cpu", "budget=demo", "budget=paper"]),
        (["train", "train.gam"], ["train.gamma="]),
        (["train", "train.network.un"], ["train.network.units="]),
        (["train", "algo.multiplier.l"], ["algo.multiplier.lr="]),
        (["train", "wandb.mo"], ["wandb.mode="]),
        (["train", "wandb.mode=of"], ["wandb.mode=offline"]),
        (["train", "seed=1", "see"], ["seeds="]),
        (["export", "format=o"], ["format=onnx"]),
        (["compare", "--ba"], ["--baseline"]),
        (["bench", "--tasks", "Cart"], ["Cartpole"]),
        (["completion", "b"], ["bash"]),
        (["eval", "run=l"], ["run=latest"]),
        (["nothing", "x"], []),
    ],
)
def test_completion(words, found):
    assert completion.complete(words) == found


def test_completion_knows_every_group_and_setting():
    for group in ("task", "algo", "sim"):
        assert completion.complete(["train", group + "="]) == ["%s=%s" % (group, n) for n in group_names(group)]
    leaves = [k for k in known_keys(compose([])) if k.startswith(("train.", "algo."))]
    groups = {k.rsplit(".", 1)[0] for k in leaves}
    offered = completion.complete(["train", "train."]) + completion.complete(["train", "algo."])
    assert sorted(k + "=" for k in leaves if k not in groups) == sorted(offered)
    assert completion.COMMANDS and set(completion.COMMANDS) == set(cli.COMMANDS)


def test_completion_of_runs(runs):
    assert completion.complete(["eval", "run=runs/A"]) == ["run=runs/Ant/hepo/0", "run=runs/Ant/hepo/2"]


def test_completion_imports_nothing_heavy_and_is_fast(tmp_path):
    """The best of three, since the machine may be busy; the limit is for a whole process."""
    code = (
        "import sys\nfrom hepo_isaac import cli\ncli.main(['__complete', 'train', 'task=Fr'])\n"
        "sys.exit(str(sorted({'torch', 'hydra', 'numpy', 'omegaconf', 'rich'} & set(sys.modules)) or ''))"
    )
    env, best = {**os.environ, "PYTHONPATH": str(ROOT)}, 9.0
    for _ in range(3):
        start = os.times()
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True)
        spent = os.times()
        best = min(best, spent.children_user + spent.children_system - start.children_user - start.children_system)
        assert done.stdout.split() == ["task=FrankaCabinet", "task=FrankaCubeStack"]
        assert done.stderr.strip() == ""
    assert best < 0.3


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")
@pytest.mark.parametrize(
    ("line", "words", "reply"),
    [
        ("hepo-isaac train task=Fr", ["hepo-isaac", "train", "task", "=", "Fr"], "FrankaCabinet FrankaCubeStack"),
        ("hepo-isaac aud", ["hepo-isaac", "aud"], "audit"),
        ("python train.py algo=hepo_p", ["python", "train.py", "algo", "=", "hepo_p"], "hepo_plus"),
        ("python train.py budget=", ["python", "train.py", "budget", "="], "auto cpu demo paper"),
    ],
)
def test_bash_completes(tmp_path, line, words, reply):
    """As bash calls it: words broken at =, the line as it is."""
    (tmp_path / "hepo-isaac").write_text('#!/bin/sh\nexec %s -m hepo_isaac "$@"\n' % sys.executable)
    (tmp_path / "hepo-isaac").chmod(0o755)
    function = "_hepo_isaac_train" if words[0] == "python" else "_hepo_isaac"
    script = (
        '%s\nCOMP_WORDS=(%s)\nCOMP_CWORD=%d\nCOMP_LINE="%s"\nCOMP_POINT=${#COMP_LINE}\n%s\necho "${COMPREPLY[*]}"\n'
        % (
            completion.script("bash"),
            " ".join('"%s"' % word for word in words),
            len(words) - 1,
            line,
            function,
        )
    )
    env = {**os.environ, "PATH": "%s:%s" % (tmp_path, os.environ["PATH"]), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.stdout.split() == reply.split(), done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_there_is_a_script_for_each_shell(capfd, shell):
    assert cli.main(["completion", shell]) == 0
    out = capfd.readouterr().out
    assert "__complete" in out and "train.py" in out
    if shutil.which(shell):
        assert subprocess.run([shell, "-n"], input=out, text=True, capture_output=True).returncode == 0


# ---- what is missing -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "package", "extra"),
    [
        ("joblib", "hydra_joblib_launcher", "sweep-joblib"),
        ("submitit_slurm", "hydra_submitit_launcher", "sweep-slurm"),
        ("submitit_local", "hydra_submitit_launcher", "sweep-slurm"),
        ("ray", "hydra_ray_launcher", "sweep-ray"),
    ],
)
def test_a_launcher_that_is_not_installed(capfd, monkeypatch, tmp_path, name, package, extra):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "hydra_plugins." + package, None)
    assert launch.typed(["-m", "task=Push2D", "seed=1,2", "hydra/launcher=" + name]) == 2
    err = capfd.readouterr().err
    assert "pip install 'hepo-isaac[%s]'" % extra in err and err.count("\n") == 1
    assert extra in (ROOT / "pyproject.toml").read_text()
    assert list(tmp_path.iterdir()) == []
    check_launcher("basic")


@pytest.fixture
def no_warp(monkeypatch):
    for name in ("warp", "mujoco_warp"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "isaacgym", None)  # nor a fake that another test has left
    monkeypatch.setattr(registry.isaacgym_install, "package_folder", lambda: None)


def test_gpu_check_without_warp(capfd, monkeypatch, tmp_path, no_warp):
    monkeypatch.chdir(tmp_path)
    for arguments in (["--fake"], ["--device", "cpu"], []):
        assert cli.main(["gpu-check", "--tasks", "Cartpole", *arguments]) == 2
        err = capfd.readouterr().err
        assert "pip install 'hepo-isaac[cuda]'" in err and err.count("\n") == 1, err
    assert list(tmp_path.iterdir()) == []


def test_parity_without_warp_does_not_compare_an_engine_with_itself(capfd, monkeypatch, tmp_path, no_warp):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["parity", "task=Cartpole"]) == 2
    err = capfd.readouterr().err
    assert "no second engine" in err and "pip install 'hepo-isaac[cuda]'" in err and err.count("\n") == 1
    assert parity.parse(["task=Cartpole", "engine=mujoco_batch"]).engines == ("mujoco_batch",)


# ---- limits --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", group_names("task"))
def test_no_number_of_a_task_is_beyond_its_limits(task):
    """The table refuses nothing that the project's own files say."""
    from omegaconf import OmegaConf

    composed = OmegaConf.to_container(compose(["task=" + task]), resolve=True)
    check_numbers(composed)
    check_names(composed)


def test_limits():
    assert not Limit(0, 1).allows(float("nan")) and Limit(0, 1).allows(0) and not Limit(0, 1, above=True).allows(0)
    assert Limit(0, 1, infinite=True).allows(float("inf")) and not Limit(0, 1, infinite=True).allows(float("-inf"))
    for key in LIMITS:
        with pytest.raises(UserError, match=key):
            check_number(key, float("nan"))
    assert limit("plot", True) is None and limit("task.name", "Ant") is None
    with pytest.raises(UserError, match="31 digits"):
        check_number("task.budgets.demo.num_envs", 10**30)


@pytest.mark.parametrize("name", ["hepo", "hepo_2.0", "a-b", "lr=0.1", "7"])
def test_names_of_folders(name):
    check_name("algo.name", name)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "-x", ".x", "a b", "a\\b", "a\n", "é", "a" * 101])
def test_names_that_are_no_folders(name):
    with pytest.raises(UserError, match=r"algo\.name must be the name of a folder"):
        check_name("algo.name", name)


# ---- what a run leaves ---------------------------------------------------------------------------------------------


def test_code_that_git_does_not_know_makes_a_checkout_dirty(tmp_path):
    def git(*arguments):
        mail = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        subprocess.run(["git", *mail, *arguments], cwd=tmp_path, check=True, capture_output=True)

    git("init")
    (tmp_path / ".gitignore").write_text("__pycache__/\n")
    (tmp_path / "hepo_isaac").mkdir()
    (tmp_path / "hepo_isaac" / "a.py").write_text("")
    git("add", "-A")
    git("commit", "-m", "first")

    def dirty():
        return metadata.git_state(tmp_path)["dirty"]

    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "metrics.csv").write_text("1")
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "hepo_isaac" / "__pycache__").mkdir()
    (tmp_path / "hepo_isaac" / "__pycache__" / "a.pyc").write_text("x")
    assert dirty() is False
    for place in ("hepo_isaac/b.py", "tasks/robots/c.py", "cfg/task/D.yaml", "train.py"):
        file = tmp_path / place
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("x")
        assert dirty() is True, place
        file.unlink()
        assert dirty() is False
    (tmp_path / "hepo_isaac" / "a.py").write_text("changed")
    assert dirty() is True


def test_a_plot_without_an_episode_says_so(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    text = "iteration,env_steps,return_task/pi,return_heuristic/pi,episode_length/pi,episodes/pi\n"
    rows = "".join("%d,%d,nan,nan,nan,0\n" % (n, 64 * n) for n in (1, 2))
    figures = []
    original = plots._finish
    monkeypatch.setattr(plots, "_finish", lambda figure, *rest: figures.append(figure) or original(figure, *rest))
    for name, more in (("none", ""), ("one", "3,192,0.5,1.0,30,2\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.csv").write_text(text + rows + more)
    assert plots.plot_run(tmp_path / "none").stat().st_size > 5000
    plots.plot_run(tmp_path / "one")
    plots.plot_runs({"hepo": [tmp_path / "none"]}, tmp_path / "a.png")
    plots.plot_runs({"hepo": [tmp_path / "none", tmp_path / "one"]}, tmp_path / "b.png")
    said = [[sum(t.get_text() == plots.NO_EPISODE for t in axis.texts) for axis in f.axes] for f in figures]
    assert said == [[1, 1, 1], [0, 0, 0], [1, 1], [0, 0]]
    assert figures[0].axes[0].get_xlim()[1] >= 128


def test_tasks_fits_80_columns(capfd, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.main(["tasks"]) == 0
    out = capfd.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    assert all(name in out for name in ("FrankaCubeStack", "16384 × 15000", "256 × 400", "CatchOver2Underarm"))
    names = [line.split()[0] for line in out.splitlines() if "│" in line]
    groups = [names.index(title) for title in ("robots", "dexterous", "small")]
    rows = [names[k + 1 : n] for k, n in zip(groups, [*groups[1:], len(names)])]
    assert [len([name for name in part if name[0].isupper()]) for part in rows] == [11, 22, 12]
    assert "ShadowHand" in rows[0] and rows[1][:2] == ["BlockStack", "BottleCap"] and "Push2D" in rows[2]
    monkeypatch.setenv("COLUMNS", "200")
    assert cli.main(["tasks", "--long"]) == 0
    assert "h1 … h12" in capfd.readouterr().out

"""Tasks of others: what is found, and what is said when something is wrong with it."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from hepo_isaac import plugins
from hepo_isaac.cli import task_rows
from hepo_isaac.errors import UserError
from hepo_isaac.locate import group_names, plugin_tasks, robot_tasks, task_class
from hepo_isaac.overrides import check_overrides, compose
from hepo_isaac.runs.launch import main as launch

MODULE = """
from hepo_isaac.locate import task_class

class Lazy(task_class("TwoArm")):
    name = "Lazy"
"""
SETTINGS = """
defaults:
  - /train: suite
  - _self_
task:
  name: Lazy
  episode_length: 7
  heuristic: ${heuristic}
  engines: [analytic]
  budgets: {demo: {num_envs: 4}}
"""


@pytest.fixture(autouse=True)
def nobody_else(monkeypatch):
    """No plug-in but those of the test, and none left behind."""
    monkeypatch.setattr(plugins, "_named", {})
    monkeypatch.setattr(plugins, "_entry_points", list)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for name in [n for n, m in sys.modules.items() if n.split(".")[0].startswith("lazy_")]:
        del sys.modules[name]


def write(folder: Path, stem: str = "lazy_one", module: str = MODULE, settings: str = SETTINGS) -> Path:
    (folder / (stem + ".py")).write_text(module)
    (folder / "Lazy.yaml").write_text(settings)
    return folder / (stem + ".py")


def installed(monkeypatch, folder, *pairs):
    monkeypatch.syspath_prepend(str(folder))
    entries = [SimpleNamespace(name=name, value=value) for name, value in pairs]
    monkeypatch.setattr(plugins, "_entry_points", lambda: entries)


class TestFromFiles:
    @pytest.mark.parametrize("end", ["/lazy_one.py:Lazy", "/lazy_one.py", ""])
    def test_a_file_or_its_folder_names_a_task(self, tmp_path, end):
        write(tmp_path)
        given = plugins.named_on_command_line(["task=%s%s" % (tmp_path, end), "algo=hepo", "-m"])
        assert given == ["task=Lazy", "algo=hepo", "-m"]
        cfg = compose(given[:2])
        assert cfg.task.episode_length == 7 and cfg.train.minibatch_size > 0
        assert cfg.task.source == "%s:Lazy" % (tmp_path / "lazy_one.py")
        assert task_class("Lazy").name == "Lazy" and "Lazy" in group_names("task")
        check_overrides(["task=Lazy", "task.episode_length=9"])

    def test_several_tasks_of_a_sweep_with_ours_among_them(self, tmp_path):
        write(tmp_path)
        given = plugins.named_on_command_line(["task=Ant,%s/lazy_one.py:Lazy" % tmp_path])
        assert given == ["task=Ant,Lazy"]

    def test_names_of_tasks_stay(self):
        assert plugins.named_on_command_line(["task=Ant", "heuristic=a.b:c", "run_root=a/b"]) == [
            "task=Ant",
            "heuristic=a.b:c",
            "run_root=a/b",
        ]

    def test_a_run_knows_where_its_task_came_from(self, tmp_path):
        path = write(tmp_path)
        plugins.know("Lazy", "%s:Lazy" % path)
        assert task_class("Lazy").name == "Lazy"

    def test_and_says_so_when_it_is_gone(self, tmp_path):
        plugins.know("Lazy", "%s:Lazy" % (tmp_path / "lazy_gone.py"))
        with pytest.raises(UserError, match="task=Lazy came from .*lazy_gone.py, which is not there; put it back"):
            task_class("Lazy")

    @pytest.mark.parametrize(
        ("end", "said"),
        [
            ("/none.py:Lazy", "there is no .*none.py; expected path/to/x.py:Class or a folder"),
            ("/lazy_one.py:Lasy", "expected a class Lasy in .*, found none"),
            ("/other", "expected one class whose settings <Class>.yaml lie beside it in .*, found none"),
        ],
    )
    def test_what_is_not_there_is_named(self, tmp_path, end, said):
        write(tmp_path)
        (tmp_path / "other").mkdir()
        with pytest.raises(UserError, match=said):
            plugins.add(str(tmp_path) + end)

    def test_a_folder_with_two_tasks_asks_which(self, tmp_path):
        write(tmp_path)
        write(tmp_path, "lazy_two")
        with pytest.raises(UserError, match="found .*lazy_one.py:Lazy, .*lazy_two.py:Lazy"):
            plugins.add(str(tmp_path))

    def test_a_file_called_as_another_module_is_refused(self, tmp_path):
        write(tmp_path, "argparse")
        plugins.add("%s/argparse.py:Lazy" % tmp_path)
        with pytest.raises(UserError, match="another module called argparse, .*; rename argparse.py"):
            task_class("Lazy")

    @pytest.mark.parametrize(
        ("module", "said"),
        [
            ("import no_such_module\nclass Lazy: pass", "cannot be imported: ModuleNotFoundError: .*no_such_module"),
            ("class Lazy: pass", "is no task; expected a subclass of hepo_isaac.envs.task.Task"),
            (MODULE.replace('name = "Lazy"', 'name = "Busy"'), "has name = 'Busy'; expected 'Lazy'"),
        ],
    )
    def test_a_class_that_will_not_do_is_named(self, tmp_path, module, said):
        plugins.add("%s:Lazy" % write(tmp_path, module=module))
        with pytest.raises(UserError, match=said):
            task_class("Lazy")

    @pytest.mark.parametrize(
        ("settings", "said"),
        [
            ("task: {name: Other}", "must hold task: {name: Lazy"),
            ("- 1", "must hold task: {name: Lazy"),
            ("task: {name: Lazy", "cannot be read"),
        ],
    )
    def test_settings_that_will_not_do_are_named_and_stop_nobody_else(self, tmp_path, settings, said):
        plugins.add("%s:Lazy" % write(tmp_path, settings=settings))
        with pytest.raises(UserError, match=said):
            check_overrides(["task=Lazy"])
        check_overrides(["task=Cartpole"])
        assert compose(["task=Cartpole"]).task.name == "Cartpole"
        assert any(row[0] == "Lazy" and "Lazy.yaml" in row[3] for row in task_rows())


def test_a_run_of_a_file_is_resumed_and_evaluated_without_naming_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write(tmp_path)
    quick = ["num_envs=4", "train.horizon_length=8", "train.minibatch_size=32", "tensorboard=false", "plot=false"]
    assert launch(["task=./lazy_one.py:Lazy", "train.max_iterations=2", *quick]) == 0
    (run,) = tmp_path.glob("runs/Lazy/hepo/*")
    for arguments in (["resume=%s" % run, "train.max_iterations=4"], ["test=true", "checkpoint=%s" % run]):
        monkeypatch.setattr(plugins, "_named", {})  # as in another process
        assert launch(arguments) == 0
    assert "iteration 4/4" in capsys.readouterr().out


class TestFromPackages:
    def test_an_entry_point_names_a_task(self, tmp_path, monkeypatch):
        write(tmp_path, "lazy_three")
        installed(monkeypatch, tmp_path, ("Lazy", "lazy_three:Lazy"))
        assert compose(["task=Lazy"]).task.episode_length == 7
        assert "source" not in compose(["task=Lazy"]).task
        assert "lazy_three" not in sys.modules  # nothing of it is imported before it is used
        assert task_class("Lazy").__module__ == "lazy_three"
        assert "Lazy" not in robot_tasks()  # a task without physics, and not ours

    def test_settings_are_package_data(self, tmp_path, monkeypatch):
        write(tmp_path, "lazy_four").with_name("Lazy.yaml").unlink()
        installed(monkeypatch, tmp_path, ("Lazy", "lazy_four:Lazy"))
        with pytest.raises(UserError, match=r"expected Lazy.yaml beside .*lazy_four.py \(a package has to include it"):
            check_overrides(["task=Lazy"])

    def test_a_module_that_is_not_there_is_named(self, tmp_path, monkeypatch):
        installed(monkeypatch, tmp_path, ("Lazy", "lazy_none:Lazy"))
        with pytest.raises(UserError, match="there is no module lazy_none; expected what the entry point in group"):
            check_overrides(["task=Lazy"])
        check_overrides(["task=Cartpole"])

    def test_two_packages_with_one_name_are_named(self, tmp_path, monkeypatch):
        installed(monkeypatch, tmp_path, ("Lazy", "lazy_one:Lazy"), ("Lazy", "lazy_two:Lazy"))
        with pytest.raises(UserError, match="bring a task called Lazy: lazy_one:Lazy and lazy_two:Lazy; uninstall one"):
            plugins.plugins()

    def test_a_task_cannot_take_the_place_of_ours(self, tmp_path, monkeypatch):
        installed(monkeypatch, tmp_path, ("Ant", "lazy_ants:Ant"))
        with pytest.raises(UserError, match="lazy_ants:Ant brings a task called Ant, which hepo_isaac has; rename it"):
            plugin_tasks()

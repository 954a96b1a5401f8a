"""What a user reads when Isaac Gym cannot run, and that it is imported before torch in every process of ours."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch

from hepo_isaac.errors import UserError
from hepo_isaac.sim.isaacgym import install
from hepo_isaac.sim.isaacgym.install import check_assets, problems, require_isaacgym

ROOT = Path(__file__).resolve().parents[2]
# Like the real one it greets, and refuses to come after torch.
PACKAGE = """
import sys
print("Importing module 'gym_38'")
if "torch" in sys.modules:
    raise ImportError("PyTorch was imported before isaacgym modules.  Please import torch after isaacgym modules.")
"""


def write_package(folder, body=PACKAGE, gymtorch="import torch\n", native=False):
    package = folder / "isaacgym" / "python" / "isaacgym"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "gymapi.py").write_text(body)
    (package / "gymtorch.py").write_text(gymtorch)
    if native:
        (package / "_bindings" / "linux-x86_64").mkdir(parents=True)
        (package / "_bindings" / "linux-x86_64" / "gym_38.so").write_text("")
    return package.parent


@pytest.fixture(autouse=True)
def _clean(monkeypatch):
    """Neither sees the other tests' isaacgym nor leaves one behind."""
    monkeypatch.setattr(install, "_first_error", None)

    def take():
        return {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] == "isaacgym"}

    others = take()
    importlib.invalidate_caches()
    yield
    take()
    sys.modules.update(others)
    importlib.invalidate_caches()


@pytest.fixture
def installed(monkeypatch, tmp_path):
    """A stand-in on sys.path, and a machine on which everything else is as Isaac Gym wants it."""

    def install_it(python=(3, 8, 18), version="2.4.1+cu121", driver=True, tools=("ninja", "g++"), gpus=1, **package):
        monkeypatch.syspath_prepend(str(write_package(tmp_path, **{"body": "", "native": True, **package})))
        pretend(monkeypatch, python, version, driver, tools, gpus)

    return install_it


def pretend(monkeypatch, python=(3, 8, 18), version="2.4.1+cu121", driver=True, tools=("ninja", "g++"), gpus=1):
    monkeypatch.setattr(install.sys, "version_info", python)
    monkeypatch.setattr(install, "_torch_version", lambda: version)
    monkeypatch.setattr(install, "_driver_loads", lambda: driver)
    monkeypatch.setattr(install.shutil, "which", lambda tool: tool if tool in tools else None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.delenv("CXX", raising=False)


def refusal(device="cuda:0"):
    with pytest.raises(UserError) as caught:
        require_isaacgym(device)
    text = str(caught.value)
    assert text.startswith("sim=isaacgym: ")
    assert "\n" not in text
    assert ". " not in text  # one sentence
    return text


def test_a_complete_installation_has_no_problems(installed):
    installed()
    assert problems() == []
    require_isaacgym("cuda:0")
    assert "isaacgym.gymtorch" in sys.modules


def test_without_the_package_everything_else_is_said_too(monkeypatch):
    monkeypatch.setattr(install, "package_folder", lambda: None)
    pretend(monkeypatch, (3, 11, 7), "2.13.0+cpu", driver=False, tools=(), gpus=0)
    assert [p.name for p in problems()] == ["package", "Python", "torch", "driver", "ninja", "g++"]
    text = refusal()
    for word in (
        "Preview 4",
        "developer.nvidia.com/isaac-gym",
        "Python 3.8",
        "pip install --no-deps -e isaacgym/python",
    ):
        assert word in text
    assert "sim=mujoco_batch" in text
    pretend(monkeypatch)
    assert [p.name for p in problems()] == ["package"]
    assert "mujoco" not in refusal()  # nor is there a batched MuJoCo on Python 3.8


@pytest.mark.parametrize(
    ("machine", "name", "words"),
    [
        ({"python": (3, 11, 7)}, "Python", ["Python 3.11.7", "3.6 to 3.8"]),
        ({"python": (3, 7, 2)}, "Python", ["Python 3.7.2", "needs 3.8"]),
        ({"version": None}, "torch", ["torch is not installed", "pip install"]),
        ({"version": "1.8.0"}, "torch", ["torch 1.8.0", "2.0 to 2.4"]),
        ({"version": "2.5.0+cu124"}, "torch", ["torch 2.5.0+cu124", "2.0 to 2.4"]),
        ({"driver": False}, "driver", ["libcuda.so.1", "device=cpu", "docker run --gpus all"]),
        ({"tools": ("g++",)}, "ninja", ["ninja", "PATH"]),
        ({"tools": ("ninja",)}, "g++", ["g++", "apt install g++"]),
    ],
)
def test_one_thing_wrong(installed, machine, name, words):
    installed(**machine)
    assert [p.name for p in problems()] == [name]
    text = refusal()
    for word in words:
        assert word in text


@pytest.mark.parametrize("version", ["2.0.0", "2.4.1", "2.4.1+cpu"])
def test_torch_that_fits(installed, version):
    installed(version=version)
    assert problems() == []


def test_a_gpu_is_needed_unless_the_cpu_was_asked_for(installed, monkeypatch):
    installed(gpus=0)
    monkeypatch.setattr(torch.version, "cuda", "12.1")
    text = refusal("cuda:0")
    assert "nvidia-smi" in text
    assert "device=cpu" in text
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "built for the CPU" in refusal("cuda:0")
    require_isaacgym("cpu")


def test_bindings_for_another_python(installed, tmp_path):
    installed()
    (tmp_path / "isaacgym/python/isaacgym/_bindings/linux-x86_64/gym_38.so").unlink()
    assert "no bindings for Python 3.8" in refusal()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            'ImportError("libpython3.8.so.1.0: cannot open shared object file: No such file or directory")',
            ["libpython3.8.so.1.0", "LD_LIBRARY_PATH=", "apt install libpython3.8"],
        ),
        ('RuntimeError("No gym module found for the active version of Python (3.8)")', ["RuntimeError", "No gym"]),
        ('ImportError("undefined symbol: f\\nof gym")', ["undefined symbol: f of gym"]),
    ],
)
def test_an_import_that_fails(installed, error, words):
    installed(body="raise %s\n" % error)
    text = refusal()
    for word in words:
        assert word in text


def test_torch_first(installed):
    installed(body=PACKAGE)
    text = refusal()
    assert "import hepo_isaac" in text
    assert "above import torch" in text


def test_gymtorch_that_does_not_compile(installed):
    installed(
        gymtorch="raise RuntimeError('[1/2] c++ ...\\ngym.cpp:3: fatal error: cuda.h: No such file\\nninja: stop.')"
    )
    text = refusal()
    assert "gym.cpp:3: fatal error: cuda.h" in text
    assert "g++ and ninja" in text


def test_ninja_that_is_only_beside_python(installed, monkeypatch, tmp_path):
    installed(tools=("g++",))
    (tmp_path / "ninja").write_text("")
    monkeypatch.setattr(install.sys, "executable", str(tmp_path / "python"))
    assert "activate the environment" in refusal()


def test_a_stand_in_without_bindings_is_judged_by_its_import(installed):
    installed(native=False, python=(3, 11, 7), version="2.13.0", driver=False, tools=(), gpus=0)
    assert problems("cpu") == []
    assert [p.name for p in problems("cuda:0")] == ["CUDA"]
    require_isaacgym("cpu")


def test_a_module_without_a_spec_is_no_installation(monkeypatch):
    monkeypatch.setitem(sys.modules, "isaacgym", types.ModuleType("isaacgym"))
    assert install.package_folder() is None


def test_assets(tmp_path):
    (tmp_path / "mjcf").mkdir()
    (tmp_path / "mjcf/nv_ant.xml").write_text("")
    assert check_assets(str(tmp_path), ["mjcf/nv_ant.xml"]) == tmp_path
    with pytest.raises(UserError, match=r"lacks mjcf/nv_humanoid.xml, urdf/cartpole.urdf: name .* IsaacGymEnvs"):
        check_assets(str(tmp_path), ["mjcf/nv_humanoid.xml", "mjcf/nv_ant.xml", "urdf/cartpole.urdf"])
    with pytest.raises(UserError, match=r"sim.assets=/no/such is no folder"):
        check_assets("/no/such", [])


def test_nvidias_assets_lie_beside_the_package(installed, tmp_path):
    installed()
    assert install.nvidia_assets() is None
    (tmp_path / "isaacgym/assets").mkdir()
    assert install.nvidia_assets() == tmp_path / "isaacgym/assets"


# ---- import order, in processes of its own ----------------------------------------------------------------------


def python(folder, *arguments):
    path = os.pathsep.join([str(ROOT), str(folder)])
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=dict(os.environ, PYTHONPATH=path), capture_output=True, text=True
    )


STATE = """
import json
from hepo_isaac.sim.isaacgym import install
error = install._first_error
print(json.dumps([sorted(m for m in ("isaacgym.gymapi", "torch") if m in sys.modules), error and str(error)]))
"""


@pytest.mark.parametrize(
    "first",
    [
        "import train",
        "import hepo_isaac.cli",
        "import hepo_isaac.envs.make, torch",
        # what a worker process of a sweep's launcher does
        "import pickle; pickle.loads(b'chepo_isaac.runs.launch\\nhydra_job\\n.')",
    ],
)
def test_isaacgym_comes_before_torch(tmp_path, first):
    done = python(write_package(tmp_path), "-c", "import sys\n%s\n%s" % (first, STATE))
    assert done.returncode == 0, done.stderr
    loaded, error = json.loads(done.stdout)  # stdout is ours alone: no greetings
    assert "isaacgym.gymapi" in loaded
    assert error is None


def test_a_script_that_imports_torch_first_is_told_so(tmp_path):
    script = "import torch, hepo_isaac\nfrom hepo_isaac.sim.isaacgym.install import require_isaacgym\n"
    folder = write_package(tmp_path)
    done = python(folder, "-c", script + "require_isaacgym('cpu')")
    assert "torch was imported before isaacgym" in done.stderr
    # and may never use Isaac Gym
    assert python(folder, "-c", script).returncode == 0


def test_a_broken_isaacgym_disturbs_no_other_engine(tmp_path):
    folder = write_package(tmp_path, body=PACKAGE + "raise OSError('libgym_38.so: broken')\n")
    assert python(folder, "-m", "hepo_isaac.cli", "--version").returncode == 0
    done = python(folder, "train.py", "task=Push2D", "algo=ppo_h", "train.max_iterations=0")
    assert "train.max_iterations" in done.stderr
    done = python(folder, "train.py", "task=FrankaCabinet", "sim=isaacgym", "device=cpu")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "libgym_38.so: broken" in done.stderr  # the first error, not that torch has come since


def test_nothing_is_imported_where_it_is_not_installed(tmp_path):
    done = python(tmp_path, "-c", "import sys, hepo_isaac; print([m for m in sys.modules if 'isaacgym' in m])")
    assert done.stdout.strip() == "[]"

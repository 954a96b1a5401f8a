"""A run folder that came from somebody else, for tests of what it may do: nothing."""

from __future__ import annotations

import shutil
import sys

from omegaconf import OmegaConf

from hepo_isaac.runs import launch
from hepo_isaac.runs.record.stored import SIGNATURE

SMALL = (
    "task=Push2D", "algo=hepo", "num_envs=16", "train.minibatch_size=64", "train.network.units=[16]", "seed=1",
    "train.max_iterations=2", "evaluation_episodes=0", "plot=false", "tensorboard=false", "torch_threads=1",
    "train.fused=false", "device=cpu",
)  # fmt: skip
MODULE = "stranger_of_test_hostile"


def trained(root):
    """The folder of a small run."""
    assert launch.main([*SMALL, "run_root=%s" % root]) == 0
    (file,) = root.rglob("config.yaml")
    return file.parent


def downloaded(original, tmp_path, monkeypatch):
    """A copy that this account has not signed, in a folder with a module that leaves a mark when it is imported."""
    folder = tmp_path / "downloaded"
    shutil.copytree(original, folder)
    (folder / SIGNATURE).unlink()
    code = "from pathlib import Path\nPath(%r).write_text('was here')\n" % str(tmp_path / "mark")
    code += "def shaping(state):\n    return -state.pos[:, 0].abs()\n"
    (tmp_path / (MODULE + ".py")).write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, MODULE, raising=False)
    monkeypatch.setenv("A_SECRET", "hunter2")
    return folder


def said(capfd, main, arguments):
    capfd.readouterr()
    code = main(arguments)
    out, err = capfd.readouterr()
    assert "Traceback" not in err and "hunter2" not in out + err, err
    return code, out, err


def changed(folder, **settings):
    cfg = OmegaConf.load(folder / "config.yaml")
    for key, value in settings.items():
        OmegaConf.update(cfg, key.replace("__", "."), value, merge=False, force_add=True)
    OmegaConf.save(cfg, folder / "config.yaml")

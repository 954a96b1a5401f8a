"""A run folder from a stranger: no code, no secret, no upload, no file elsewhere, and never a traceback."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import time
import zipfile
from pathlib import Path

import pytest
import torch

from hepo_isaac import cli
from hepo_isaac.runs import launch
from hepo_isaac.runs.record import screen
from hepo_isaac.runs.record.checkpoint import load_checkpoint, serialise
from hepo_isaac.runs.record.stored import foreign_code, read_run, signed
from tests.runs.hostile_lab import MODULE, SMALL, changed, downloaded, said, trained


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("original"))


@pytest.fixture
def run(original, tmp_path, monkeypatch):
    return downloaded(original, tmp_path, monkeypatch)


def commands(folder):
    return [
        (launch.main, ["resume=%s" % folder, "train.max_iterations=3"]),
        (cli.main, ["eval", "run=%s" % folder, "episodes=16"]),
    ]


# ---- code and consent -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["heuristic", "potential", "task__source"])
def test_code_that_a_strangers_run_names_is_not_run_unasked(capfd, run, tmp_path, key):
    value = MODULE + ":shaping" if key != "task__source" else "%s:Push2D" % (tmp_path / (MODULE + ".py"))
    changed(run, **{key: value})
    for main, arguments in commands(run):
        code, _, err = said(capfd, main, arguments)
        assert code == 2 and err.count("\n") == 1 and "add trust=true" in err and MODULE in err
    assert cli.main(["compare", str(run), "--out", str(tmp_path / "report")]) in (0, 2)
    capfd.readouterr()
    assert not (tmp_path / "mark").exists()


def test_with_consent_it_runs(capfd, run, tmp_path):
    changed(run, heuristic=MODULE + ":shaping")
    for main, arguments in commands(run):
        code, _, err = said(capfd, main, [*arguments, "trust=true"])
        assert code == 0, err
    assert (tmp_path / "mark").exists()


def test_runs_of_ones_own_ask_for_nothing_and_stay_ones_own_when_resumed(capfd, run, tmp_path):
    own = [*SMALL, "heuristic=%s:shaping" % MODULE, "run_root=%s" % (tmp_path / "own")]
    assert said(capfd, launch.main, own)[0] == 0
    (file,) = (tmp_path / "own").rglob("config.yaml")
    assert signed(file)
    for more in (3, 4):
        code, _, err = said(capfd, launch.main, ["resume=%s" % file.parent, "train.max_iterations=%d" % more])
        assert code == 0 and signed(file), err
    file.write_text(file.read_text() + "# touched\n")
    assert not signed(file)
    assert "add trust=true" in said(capfd, cli.main, ["eval", "run=%s" % file.parent, "episodes=16"])[2]


def test_where_an_account_has_no_place_for_a_key_nothing_is_signed(monkeypatch, run, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "file"))
    assert not signed(run / "config.yaml")
    changed(run, heuristic="hepo_isaac.studies.claims.scaled:push2d_hundred")
    assert foreign_code(read_run(run)) == []  # this package's own code needs no consent


@pytest.mark.parametrize("key", ["wandb__project", "heuristic", "run_root", "algo__name", "device"])
def test_nothing_in_a_stored_configuration_is_looked_up(capfd, run, key):
    changed(run, **{key: "x"})
    text = (run / "config.yaml").read_text()
    line = next(line for line in text.splitlines() if line.strip() == key.split("__")[-1] + ": x")
    (run / "config.yaml").write_text(text.replace(line, line[:-1] + "${oc.env:A_SECRET}"))
    for main, arguments in commands(run):
        said(capfd, main, arguments)
    files = [f for f in run.rglob("*") if f.is_file() and f.suffix != ".pt"]
    assert "hunter2" not in "".join(f.read_text(errors="replace") for f in files)


def test_a_strangers_wandb_gets_nothing(run):
    changed(run, wandb__enabled=True, wandb__mode="online", wandb__entity="stranger", wandb__project="theirs")
    found = read_run(run).wandb
    assert (found.enabled, found.mode, found.entity, found.project) == (False, "offline", None, "hepo_isaac")
    assert read_run(run, trust=True).wandb.entity == "stranger"


def contents(path):
    return path.read_text() if path.is_file() else sorted((f.name, f.stat().st_size) for f in path.iterdir())


@pytest.mark.parametrize("name", ["checkpoints", "tensorboard", ".lock", "metrics.csv", "status.json"])
def test_links_lead_nowhere(capfd, run, tmp_path, name):
    elsewhere = tmp_path / "elsewhere"
    if name in ("checkpoints", "tensorboard"):
        shutil.copytree(run / "checkpoints", elsewhere)
        shutil.rmtree(run / name, ignore_errors=True)
    else:
        elsewhere.write_text("precious")
        (run / name).unlink(missing_ok=True)
    (run / name).symlink_to(elsewhere)
    before = contents(elsewhere)
    code, _, err = said(capfd, launch.main, ["resume=%s" % run, "train.max_iterations=9", "keep_checkpoints=1"])
    assert code == 2 and "is a link; expected a run folder with files of its own" in err
    after = (
        sorted((f.name, f.stat().st_size) for f in elsewhere.iterdir()) if elsewhere.is_dir() else elsewhere.read_text()
    )
    assert after == before


# ---- broken configurations ------------------------------------------------------------------------------------------

WHOLE_FILES = {
    "empty": "",
    "a list": "- a\n- b\n",
    "a word": "hello\n",
    "a tab": "task:\n\tname: x\n",
    "truncated": "task: {name: Pu",
    "a tag": "task: !!python/object/apply:os.system ['touch x']\n",
    "a tag of our own": "task: !x {name: Push2D}\n",
    "aliases": "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n",
    "a loop": "task: &t {name: *t}\n",
    "two documents": "a: 1\n---\nb: 2\n",
    "a key twice at odds": "task: {name: Push2D}\ntask: 3\n",
    "nothing known": "x: 1\n",
    "deep": "a: " + "[" * 5000 + "]" * 5000,
}
VALUES = [
    *[("task", value) for value in ("Push2D", None)],
    *[("task__name", value) for value in ("Nothing", 3, "../../etc/passwd")],
    *[("task__episode_length", value) for value in ("long", -1)],
    *[("algo", value) for value in ([], 3)],
    *[("algo__name", value) for value in (None, [1])],
    *[("algo__objectives", value) for value in ("constrained", [], ["x"])],
    ("algo__shares", [-1, 2]),
    ("algo__multiplier", 3),
    ("algo__dual_clip", "much"),
    ("algo__nonsense", 1),
    *[("train", value) for value in (None, [1])],
    ("train__gamma", "x"),
    *[("train__minibatch_size", value) for value in (-4, 0, "x")],
    *[("train__network", value) for value in ([1], None)],
    *[("train__network__units", value) for value in ("wide", [-3], [])],
    *[("train__horizon_length", value) for value in (1e9, 0)],
    ("train__nonsense", 1),
    ("train__max_iterations", "many"),
    *[("num_envs", value) for value in (10**12, -1, "x", True, 3)],
    *[("seed", value) for value in ("x", 2**40, -1)],
    *[("seeds", value) for value in ([], "x")],
    *[("sim", value) for value in (3, None)],
    *[("sim__name", value) for value in ("unreal", None)],
    *[("device", value) for value in ("quantum", 3)],
    *[("heuristic", value) for value in (7, "unknown")],
    ("evaluation_episodes", "x"),
    ("checkpoint_every", 0),
    *[("torch_threads", value) for value in ("x", 0)],
    ("budget", 3),
    ("wandb", "on"),
]


def assert_refused(capfd, folder, both=True):
    for main, arguments in commands(folder) if both else commands(folder)[:1]:
        code, _, err = said(capfd, main, arguments)
        assert code in (0, 2), err  # what evaluation does not read may be as it will
        assert code == 0 or err.count("\n") == 1, err


@pytest.mark.parametrize("name", WHOLE_FILES)
def test_a_file_that_is_no_configuration_is_one_sentence(capfd, run, name):
    (run / "config.yaml").write_text(WHOLE_FILES[name])
    began = time.monotonic()
    for main, arguments in commands(run):
        code, _, err = said(capfd, main, arguments)
        assert code == 2 and "config.yaml" in err and err.count("\n") == 1, err
    assert time.monotonic() - began < 10.0


@pytest.mark.parametrize("data", [b"\xff\xfe\x00binary", b"\x00" * 100, b"task: \xc3\x28\n", b"a: b\n" * 300_000])
def test_bytes_that_are_no_text_are_one_sentence(capfd, run, data):
    (run / "config.yaml").write_bytes(data)
    for main, arguments in commands(run):
        code, _, err = said(capfd, main, arguments)
        assert code == 2 and "config.yaml" in err and err.count("\n") == 1, err


@pytest.mark.parametrize(("key", "value"), VALUES, ids=["%s=%s" % pair for pair in VALUES])
def test_a_setting_that_cannot_be_is_one_sentence(capfd, run, key, value):
    changed(run, **{key: value})
    assert_refused(capfd, run)


def test_aliases_that_multiply_take_no_time(capfd, run):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += ["a%d: &a%d [%s]" % (k, k, ", ".join(["*a%d" % (k - 1)] * 9)) for k in range(1, 10)]
    (run / "config.yaml").write_text("\n".join(lines) + "\n")
    began = time.monotonic()
    for main, arguments in commands(run):
        assert said(capfd, main, arguments)[0] == 2
    assert cli.main(["compare", str(run)]) == 2
    capfd.readouterr()
    assert time.monotonic() - began < 5.0


# ---- broken and hostile checkpoints ---------------------------------------------------------------------------------


class Bomb:
    def __reduce__(self):
        return (os.system, ("touch %s" % self.mark,))


def hostile_checkpoints(folder, good):
    """{name: file} of checkpoints that must not be loaded."""
    found = {name: folder / (name + ".pt") for name in ("pickle", "script", "empty", "text", "hole", "foreign", "zip")}
    bomb = Bomb()
    bomb.mark = folder / "exploded"
    torch.save({"agent": bomb}, found["pickle"])
    torch.jit.script(torch.nn.Linear(1, 1)).save(str(found["script"]))
    found["empty"].write_bytes(b"")
    found["text"].write_text("hello")
    data = bytearray(good.read_bytes())
    data[len(data) // 2] ^= 0xFF
    found["hole"].write_bytes(bytes(data))
    torch.save({"weights": torch.zeros(3)}, found["foreign"])
    with zipfile.ZipFile(found["zip"], "w") as archive:
        archive.writestr("x/data.pkl", pickle.dumps({"a": 1}))
    return found


@pytest.mark.parametrize("name", ["pickle", "script", "empty", "text", "hole", "foreign", "zip"])
def test_a_checkpoint_that_is_none_is_one_sentence_wherever_it_is_given(capfd, run, tmp_path, name):
    file = hostile_checkpoints(tmp_path, run / "checkpoints" / "last.pt")[name]
    given = [
        (launch.main, [*SMALL, "algo.frozen_reference=%s" % file, "run_root=%s" % tmp_path]),
        (cli.main, ["eval", "task=Push2D", "run=%s" % file, "episodes=16"]),
    ]
    for main, arguments in given:
        code, _, err = said(capfd, main, arguments)
        assert code == 2 and err.count("\n") == 1 and name in err, err
    shutil.copy(file, run / "checkpoints" / "last.pt")
    code, _, err = said(capfd, launch.main, ["resume=%s" % run, "train.max_iterations=9"])
    assert code == 2 and err.count("\n") == 1
    assert not (tmp_path / "exploded").exists()


def rewritten(source, target, change, name="archive/data.pkl"):
    """A copy of a file of torch.save with another pickle, and ``name`` for it."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for entry in old.infolist():
            data = old.read(entry)
            if entry.filename.endswith("/data.pkl"):
                changed = change(data)
                assert changed != data or name != "archive/data.pkl"
                new.writestr(name, changed)
                if name != "archive/data.pkl":
                    new.writestr("archive/data.pkl", data)
            else:
                new.writestr(entry.filename.replace(source.stem + "/", "archive/", 1), data)
    return target


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda data: data[:-1] + b"K\x00K\x07s.", "archive/data.pkl"),  # tensor[0] = 7 while it is loaded
        (lambda data: data[:-1] + b"(K\x00K\x07u.", "archive/data.pkl"),
        (lambda data: data.replace(b"K\x05", b"K\x09"), "archive/data.pkl"),  # a storage of 9 where the file has 5
        (lambda data: data.replace(b"K\x03", b"K\x09"), "archive/data.pkl"),  # a tensor of 9 in a storage of 5
        (lambda data: data.replace(b"_rebuild_tensor_v2", b"_rebuild_wrapper_s"), "archive/data.pkl"),
        (lambda data: data, "archive/DATA.pkl"),  # which of the two torch reads is its own affair
        (lambda data: data, "other/data.pkl"),
    ],
)
def test_a_pickle_that_does_more_than_hold_tensors_is_refused_before_torch_sees_it(tmp_path, monkeypatch, change, name):
    """Whatever torch does with it: old versions of it write out of bounds (CVE-2026-24747)."""
    good = tmp_path / "good.pt"
    torch.save(torch.zeros(5)[:3], good)
    assert torch.equal(screen.load(good), torch.zeros(3))
    bad = rewritten(good, tmp_path / "bad.pt", change, name)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("torch was asked"))
    with pytest.raises(screen.ForeignError):
        screen.load(bad)


def test_what_a_checkpoint_may_hold_passes_the_screen(tmp_path):
    kinds = (torch.float64, torch.float32, torch.float16, torch.int64, torch.int32, torch.bool)
    held = {
        "tensors": [torch.zeros((), dtype=kind) for kind in kinds],
        "more": (torch.zeros(0, 3), torch.arange(6).view(2, 3).t(), torch.get_rng_state()),
        "bytes": b"\0\xff",
        "none": None,
        "numbers": [1, 2**70, 0.5, float("nan"), True, 1j],
        "text": "\u03c0",
    }
    (tmp_path / "x.pt").write_bytes(serialise(held))
    found = screen.load(tmp_path / "x.pt")
    assert found["bytes"] == held["bytes"] and found["text"] == held["text"] and found["numbers"][1] == 2**70
    assert torch.equal(found["more"][1], held["more"][1])


@pytest.mark.parametrize(
    "damage",
    [
        lambda p: p.update(agent={}),
        lambda p: p["agent"].pop("learner"),
        lambda p: p["agent"].update(learner=3),
        lambda p: p["agent"]["learner"].update(flat=torch.zeros(1, 1)),
        lambda p: p["agent"].update(env={}),
        lambda p: p.update(iteration="x"),
        lambda p: p.update(runs=3),
        lambda p: p.update(num_envs="x"),
    ],
)
def test_a_checkpoint_with_parts_missing_is_one_sentence(capfd, run, damage):
    file = run / "checkpoints" / "last.pt"
    payload = load_checkpoint(file)
    damage(payload)
    torch.save(payload, file)
    (run / "checkpoints" / "best.pt").unlink(missing_ok=True)
    for main, arguments in commands(run):
        code, _, err = said(capfd, main, arguments)
        assert code in (0, 2) and (code == 0 or err.count("\n") == 1), err


def test_status_and_metadata_may_hold_anything(capfd, run):
    for name in ("status.json", "metadata.json", "summary.json"):
        (run / name).write_text(json.dumps([1, 2]) if name != "metadata.json" else "{")
    (run / "metrics.csv").write_text("a,b\n1\n")
    assert_refused(capfd, run)
    assert isinstance(Path(run), Path)

"""The arrows of the architecture, the syntax of Python 3.8 and the size of files, read from the sources."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted([*(ROOT / "hepo_isaac").rglob("*.py"), *(ROOT / "tasks").rglob("*.py"), ROOT / "train.py"])
MAX_LINES = 500

# layer -> layers it may import. The top-level modules errors, cuda, plugins and locate serve everyone.
BASE = {"errors", "cuda"}
COMMANDS = {"arguments", "helps"}
SETTINGS = {
    "aliases",
    "config",
    "limits",
    "locate",
    "older",
    "overrides",
    "plugins",
    "schema",
    "settings",
    "typed",
} | COMMANDS
ALLOWED = {
    "errors": set(),
    "cuda": set(),
    "ranks": set(),
    "launched": set(),
    "aliases": BASE | {"locate"},
    "settings": BASE,
    "limits": BASE,
    "helps": set(),
    "arguments": BASE | {"helps"},
    "completion": BASE | {"helps", "locate", "sim"},
    "plugins": BASE | {"limits"},
    "locate": BASE | {"plugins"},
    "schema": BASE | {"agents", "methods", "locate"},
    "older": BASE | {"plugins", "schema"},
    "config": BASE | {"agents", "limits", "methods", "locate", "sim"},
    "typed": BASE | {"aliases", "overrides", "plugins"},
    "overrides": BASE | {"aliases", "config", "limits", "locate", "schema", "sim"},
    "sim": {"sim"} | BASE,
    "envs": {"envs", "sim", "locate"} | BASE,
    "tasks": {"tasks", "envs", "sim"} | BASE,
    "methods": {"methods", "ranks"},
    "agents": {"agents", "methods", "envs", "ranks"} | BASE,
    "runs": {"runs", "agents", "envs", "methods", "sim", "ranks", "launched"} | BASE | SETTINGS,
    "registration": BASE | {"locate"},
    "api": {"api", "runs", "agents", "envs", "methods", "sim"} | BASE | SETTINGS,
    "studies": {"studies", "runs", "agents", "envs", "methods", "sim"} | BASE | SETTINGS,
}
# room of runs/ -> rooms of runs/ it may import; "launch" is the file on top of those that make a run.
ROOMS = {
    "record": set(),
    "train": {"record"},
    "play": {"record"},
    "export": {"record"},
    "sweep": {"record", "train"},
    "compare": {"record"},
    "launch": {"play", "record", "sweep", "train"},
    "parity": {"play", "record", "train"},
    "view": {"play", "record"},
    "machine": {"launch", "parity", "record", "train"},
}
# layer -> other people's packages it must not know
FORBIDDEN = {
    "sim": {"rl_games", "hydra", "omegaconf"},
    "envs": {"mujoco", "mujoco_warp", "warp", "isaacgym", "hydra", "omegaconf"},
    "tasks": {"mujoco", "mujoco_warp", "warp", "isaacgym", "rl_games", "gymnasium", "hydra", "omegaconf"},
    "methods": {"mujoco", "mujoco_warp", "warp", "isaacgym", "rl_games", "gymnasium", "hydra", "omegaconf"},
    "agents": {"mujoco", "mujoco_warp", "warp", "isaacgym", "hydra", "omegaconf"},
    "api": {"mujoco", "mujoco_warp", "warp", "isaacgym"},
}
# Engines and rl-games must be importable only where they are used, so nothing below may import them when loaded.
LAZY = {"mujoco_warp", "warp", "isaacgym", "wandb", "matplotlib", "imageio", "onnx", "onnxruntime", "viser", "trimesh"}
# Methods and keywords that Python 3.8's objects do not have. vermin (make lint) knows the whole standard library, but a
# method only where it can tell the type of the object.
NEWER_METHODS = {"removeprefix", "removesuffix", "is_relative_to", "with_stem", "hardlink_to", "bit_count", "add_note"}
NEWER_KEYWORDS = {"zip": "strict", "write_text": "newline", "dataclass": "slots kw_only", "field": "kw_only"}


def imports(tree, package):
    """Every imported module as (dotted name, at module level?); relative imports resolved against ``package``."""
    top = {id(node) for node in tree.body}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, id(node) in top
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, base]).rstrip(".")
            yield base, id(node) in top
            if base == "hepo_isaac":
                for alias in node.names:
                    yield "hepo_isaac." + alias.name, id(node) in top


def package_of(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts[:-1])


def layer_of(module):
    """Layer of a dotted module of ours, or None for other people's and for hepo_isaac itself."""
    parts = module.split(".")
    if parts[0] == "tasks":
        return "tasks"
    return parts[1] if parts[0] == "hepo_isaac" and len(parts) > 1 else None


def layer_of_file(path):
    return layer_of(".".join(path.relative_to(ROOT).with_suffix("").parts))


def room_of(module):
    """Room of runs/ of a dotted module, or None."""
    parts = module.split(".")
    return parts[2] if parts[:2] == ["hepo_isaac", "runs"] and len(parts) > 2 else None


def violations(source, layer, package, room=None):
    """What is wrong with the imports of one file."""
    found = []
    for module, at_top in imports(ast.parse(source), package):
        other = layer_of(module)
        if room and room_of(module) not in (None, room, *ROOMS[room]):
            found.append("runs/%s imports %s" % (room, module))
        if layer in ALLOWED and other is not None and other != "__version__" and other not in ALLOWED[layer]:
            found.append("%s imports %s" % (layer, module))
        if module.split(".")[0] in FORBIDDEN.get(layer, ()):
            found.append("%s imports %s" % (layer, module))
        if at_top and module.split(".")[0] in LAZY and layer != "sim":
            found.append("%s is imported when the module loads" % module)
        if layer == "tasks" and module.split(".")[0] == "tasks" and not package.startswith("tasks"):
            found.append("a task must import its siblings relatively")
    return found


def newer(tree):
    """What parses with feature_version=(3, 8) and still is not there in Python 3.8."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Match):
            found.append("match")
        if isinstance(node, ast.Attribute) and node.attr in NEWER_METHODS:
            found.append(node.attr)
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            keywords = NEWER_KEYWORDS.get(name, "").split()
            found += ["%s(%s=)" % (name, k.arg) for k in node.keywords if k.arg in keywords]
    return found


def test_there_is_something_to_check():
    assert {layer_of_file(p) for p in SOURCES} >= {"sim", "envs", "methods", "agents", "tasks", "runs", "cli"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_arrows_run_one_way(path):
    room = room_of(module_of(path))
    assert violations(path.read_text(encoding="utf-8"), layer_of_file(path), package_of(path), room) == []


def test_rooms_are_listed_below_what_they_may_import():
    """So there is no circle of rooms, and no room without a place."""
    folders = {path.name for path in (ROOT / "hepo_isaac" / "runs").iterdir() if (path / "__init__.py").exists()}
    assert set(ROOMS) == folders | {"launch"}
    above = list(ROOMS)
    for room, allowed in ROOMS.items():
        assert allowed <= set(above[: above.index(room)])


def module_of(path):
    """Dotted name of a file."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def import_graph(sources):
    """module -> modules of ours that it imports when it is loaded, for sources {module: (source, package)}.

    Imports inside functions and under TYPE_CHECKING draw no arrow: they tie no file to another when it is loaded.
    """
    graph = {}
    for module, (source, package) in sources.items():
        graph[module] = set()
        for node in ast.parse(source).body:
            if not isinstance(node, ast.Import | ast.ImportFrom):
                continue
            for name, _ in imports(ast.Module([node], []), package):
                named = [f"{name}.{alias.name}" for alias in node.names] if isinstance(node, ast.ImportFrom) else []
                if not named or not set(named) <= set(sources):  # else nothing of the package itself is asked for
                    named.append(name)
                graph[module] |= {target for target in named if target in sources and target != module}
    return graph


def circles(graph):
    """Modules that can be reached from themselves, in groups that reach each other."""
    reach = {module: set(targets) for module, targets in graph.items()}
    changed = True
    while changed:
        changed = False
        for targets in reach.values():
            further = set().union(*(reach[t] for t in targets)) - targets
            if further:
                targets |= further
                changed = True
    return sorted(
        {tuple(sorted(m for m in reach[module] if module in reach[m])) for module in reach if module in reach[module]}
    )


def test_no_circle_of_files():
    sources = {module_of(p): (p.read_text(encoding="utf-8"), package_of(p)) for p in SOURCES}
    graph = import_graph(sources)
    assert sum(map(len, graph.values())) > 300
    assert circles(graph) == []


def test_a_circle_is_found():
    """Also through a package's face, and not through a function or what only a type checker reads."""
    package = {"a": ("from b import x", ""), "b": ("import c", ""), "c": ("from a import y", ""), "d": ("import a", "")}
    assert circles(import_graph(package)) == [("a", "b", "c")]
    lazy = {"a": ("def f():\n    import b", ""), "b": ("import a\nif TYPE_CHECKING:\n    import b", "")}
    assert circles(import_graph(lazy)) == []
    face = {"p": ("from p import a", "p"), "p.a": ("from p import b", "p"), "p.b": ("import p", "p")}
    assert circles(import_graph(face)) == [("p", "p.a", "p.b")]


def asks_for_an_engine(source):
    """Whether code compares the engine's name with anything: what differs between engines is data (for_engine)."""
    compares = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Compare)]
    return any(isinstance(n, ast.Name) and n.id == "engine" for node in compares for n in ast.walk(node))


@pytest.mark.parametrize("path", [p for p in SOURCES if p.is_relative_to(ROOT / "tasks")], ids=lambda p: p.name)
def test_no_task_asks_which_engine_it_is_on(path):
    assert not asks_for_an_engine(path.read_text(encoding="utf-8"))
    assert asks_for_an_engine('gains = drives["a" if engine == "isaacgym" else "b"]')


@pytest.mark.parametrize("path", [p for p in SOURCES if p.is_relative_to(ROOT / "tasks")], ids=lambda p: p.name)
def test_tasks_import_their_siblings_relatively(path):
    """In a wheel they live in hepo_isaac.tasks, where ``import tasks`` finds nothing."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            assert not any(a.name.split(".")[0] == "tasks" for a in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            assert (node.module or "").split(".")[0] != "tasks"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_python_38_syntax_and_size(path):
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text, filename=str(path), feature_version=(3, 8))
    assert len(text.splitlines()) <= MAX_LINES
    if tree.body[1:]:
        # without it, annotations such as Dict[str, int] | None are evaluated, and fail in 3.8
        assert "from __future__ import annotations" in text
    assert newer(tree) == []


def builtin_generics(tree):
    """Annotations in another style than typing's: dict[str, int], int | None."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.AnnAssign | ast.arg):
            annotation = node.annotation
        elif isinstance(node, ast.FunctionDef):
            annotation = node.returns
        else:
            continue
        for part in ast.walk(annotation) if annotation is not None else ():
            name = part.value.id if isinstance(part, ast.Subscript) and isinstance(part.value, ast.Name) else ""
            if name in ("dict", "list", "tuple", "set", "type") or isinstance(part, ast.BinOp):
                found.append(ast.unparse(annotation))
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_types_are_written_in_one_style(path):
    assert builtin_generics(ast.parse(path.read_text(encoding="utf-8"))) == []


def test_another_style_is_found():
    assert len(builtin_generics(ast.parse("def f(x: int | None) -> dict[str, int]:\n    y: list[int] = []"))) == 3
    assert builtin_generics(ast.parse("def f(x: Optional[int]) -> Dict[str, int]:\n    y: int = 1 | 2")) == []


@pytest.mark.parametrize(
    "source",
    [
        "def f(name):\n    return name.removeprefix('task=')",
        "if path.is_relative_to(root):\n    pass",
        "for a, b in zip(x, y, strict=True):\n    pass",
        "@dataclass(frozen=True, slots=True)\nclass A:\n    pass",
        "match a:\n    case 1:\n        pass",
    ],
)
def test_what_python_38_lacks_is_found(source):
    assert len(newer(ast.parse(source))) == 1


@pytest.mark.parametrize(
    "source",
    [
        "import functools\nfunctools.cache(int)\n",
        "'task=Ant'.removeprefix('task=')\n",
        "a = {} | {'b': 1}\n",
        "import math\nmath.lcm(2, 3)\n",
    ],
)
def test_vermin_finds_newer_parts_of_the_standard_library(source, tmp_path):
    """As make lint calls it."""
    call = next(line for line in (ROOT / "Makefile").read_text().splitlines() if "bin/vermin" in line)
    options = call.split("bin/vermin")[1].split()
    assert options[-3:] == ["hepo_isaac", "tasks", "train.py"]
    vermin = shutil.which("vermin", path=os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]]))
    assert vermin, "not installed: pip install -c constraints.txt -e '.[dev]'"
    for text, status in ((source, 1), ("import functools\n", 0)):
        (tmp_path / "new.py").write_text(text)
        command = [vermin, *options[:-3], str(tmp_path / "new.py")]
        assert subprocess.run(command, capture_output=True).returncode == status


@pytest.mark.parametrize(
    ("layer", "package", "source"),
    [
        ("sim", "hepo_isaac.sim", "from hepo_isaac.envs.task import Task"),
        ("sim", "hepo_isaac.sim", "def f():\n    from hepo_isaac import runs"),
        ("sim", "hepo_isaac.sim", "from ..agents import agent"),
        ("tasks", "tasks", "import mujoco"),
        ("tasks", "tasks", "from hepo_isaac.methods import losses"),
        ("methods", "hepo_isaac.methods", "import hepo_isaac.sim.spec"),
        ("envs", "hepo_isaac.envs", "from hepo_isaac.agents.config import TrainConfig"),
        ("agents", "hepo_isaac.agents", "from hepo_isaac.runs.train.observer import RunObserver"),
        ("runs", "hepo_isaac.runs", "import wandb"),
        ("runs", "hepo_isaac.runs", "from hepo_isaac.api.make import make"),
        ("registration", "hepo_isaac", "from hepo_isaac.api.make import make"),
        ("api", "hepo_isaac.api", "import mujoco"),
    ],
)
def test_the_check_finds_what_it_is_for(layer, package, source):
    assert violations(source, layer, package)


def test_an_arrow_between_rooms_that_is_not_there_is_found():
    source = "from hepo_isaac.runs.train.observer import RunObserver"
    assert violations(source, "runs", "hepo_isaac.runs.record", "record")
    assert not violations(source, "runs", "hepo_isaac.runs.sweep", "sweep")

"""Our typings of Isaac Gym against the public ones (isaacgym-stubs), and the fake against ours.

The real package cannot be installed here, so this is what keeps the engine's calls honest: pyright checks the engine
against our typings, these tests check our typings against what others extracted from the real binding.
"""

import ast
import importlib.metadata
import inspect
import re
from pathlib import Path

import fake_gym
import pytest

TYPINGS = Path(__file__).resolve().parents[2] / "typings" / "isaacgym"


class Interface:
    """What a stub file declares, by dotted name: types of attributes, parameters and results of functions."""

    def __init__(self, source):
        self.lines, self.attributes, self.functions, self.classes = source.encode().split(b"\n"), {}, {}, []
        self._read(ast.parse(source).body, "")

    def _read(self, body, prefix):
        for node in body:
            if isinstance(node, ast.ClassDef):
                self.classes.append(node.name)
                self._read(node.body, node.name + ".")
            elif isinstance(node, ast.AnnAssign):
                self.attributes[prefix + node.target.id] = self._text(node.annotation)
            elif isinstance(node, ast.FunctionDef):
                if any(getattr(d, "id", "") == "property" for d in node.decorator_list):
                    self.attributes[prefix + node.name] = self._text(node.returns)
                else:
                    self.functions[prefix + node.name] = self._function(node, bool(prefix))

    def _text(self, node):
        if node is None:
            return "Any"
        lines = self.lines[node.lineno - 1 : node.end_lineno]  # ast.unparse is not in Python 3.8
        lines[-1] = lines[-1][: node.end_col_offset]
        lines[0] = lines[0][node.col_offset :]
        return re.sub(r"\s+", "", b"".join(lines).decode())

    def _function(self, node, method):
        """[(name, type, has a default, by position only)], result. Docstrings know more than *args do."""
        match = re.match(r"\s*(?:static )?%s\((.*)\) -> (.+)" % node.name, ast.get_docstring(node) or "")
        if match:
            return parse_docstring(match.group(1)), normal(match.group(2))
        args = node.args
        every = args.posonlyargs + args.args
        required = len(every) - len(args.defaults)
        params = [
            (a.arg, normal(self._text(a.annotation)), i >= required, a in args.posonlyargs or bool(ANONYMOUS(a.arg)))
            for i, a in enumerate(every)
        ]
        if args.vararg:
            params = None
        elif method:
            params = params[1:]
        return params, normal(self._text(node.returns))


ANONYMOUS = re.compile(r"arg\d+$").match


def parse_docstring(text):
    """The parameters in a pybind11 signature such as ``self: Gym, arg0: Sim, wait: bool = True``."""
    text = re.sub(r"<.*?>", "0", text)
    params = []
    for part in re.split(r",\s*(?=\w+: )", text)[1:]:
        name, _, rest = part.partition(": ")
        kind, _, default = rest.partition(" = ")
        kind = "Optional[%s]" % kind if default.strip() == "None" else kind
        params.append((name, normal(kind), bool(default), bool(ANONYMOUS(name))))
    return params


def normal(kind):
    """One spelling per type: numpy arrays of anything are alike, so are prefixes of modules."""
    kind = re.sub(r"\s+", "", kind)
    kind = re.sub(r"(numpy\.ndarray|NDArray)\[.*\]", "ndarray", kind)
    kind = kind.replace("gymapi.", "").replace("double", "float")
    return re.sub(r"^(Tuple|tuple)\b.*", "tuple", kind)


def compatible(ours, theirs):
    return theirs in ("Any", "object", ours)


@pytest.fixture(scope="module")
def ours():
    return Interface((TYPINGS / "gymapi.pyi").read_text())


@pytest.fixture(scope="module")
def public():
    files = importlib.metadata.files("isaacgym-stubs")  # of the extra [dev]
    path = next(f for f in files if f.name == "gymapi.pyi").locate()
    source = Path(str(path)).read_text(encoding="utf-8")
    return Interface(source.replace("def lambda(", "def lambda_("))  # a name that Python cannot parse


# -- ours against the public stubs -------------------------------------------------------------------------------
def test_the_reader_understands_docstrings():
    params = parse_docstring("self: Gym, asset: Asset, idx: int, arg2: Vec3 = <Vec3 object at 0x7f>, p: Props = None")
    assert params == [
        ("asset", "Asset", False, False),
        ("idx", "int", False, False),
        ("arg2", "Vec3", True, True),
        ("p", "Optional[Props]", True, False),
    ]


def test_every_class_and_attribute_exists_publicly(ours, public):
    assert set(ours.classes) <= set(public.classes)
    wrong = {
        name: (kind, public.attributes.get(name))
        for name, kind in ours.attributes.items()
        if not compatible(normal(kind), normal(public.attributes.get(name, "missing")))
    }
    assert not wrong


def test_every_function_has_the_public_parameters(ours, public):
    wrong = []
    for name, (params, result) in ours.functions.items():
        if name not in public.functions:
            if not name.endswith(("__int__", "__init__")):
                wrong.append("%s does not exist" % name)
            continue
        expected, expected_result = public.functions[name]
        if not compatible(result, expected_result):
            wrong.append("%s returns %s, not %s" % (name, result, expected_result))
        if expected is None:  # acquire_gym and constructors without a signature
            continue
        if len(params) != len(expected):
            wrong.append("%s takes %d arguments, not %d" % (name, len(expected), len(params)))
        wrong += ["%s: %s" % (name, e) for p, q in zip(params, expected) for e in differences(p, q)]
    assert not wrong


def differences(ours, theirs):
    name, kind, default, by_position = ours
    their_name, their_kind, their_default, anonymous = theirs
    if by_position != anonymous or (not anonymous and name != their_name):
        yield "%s is called %s there" % (name, "nothing" if anonymous else their_name)
    if default != their_default:
        yield "%s is %s there" % (name, "optional" if their_default else "required")
    if not compatible(kind, their_kind):
        yield "%s is %s there, not %s" % (name, their_kind, kind)


def test_few_public_functions_have_no_parameters_to_compare(ours, public):
    unknown = [n for n in ours.functions if public.functions.get(n, ([], ""))[0] is None]
    assert unknown == ["acquire_gym"]


# -- the fake against ours ---------------------------------------------------------------------------------------
def public_names(owner):
    return {name for name in vars(owner) if not name.startswith("_")}


def signature(function, method):
    params = list(inspect.signature(function).parameters.values())[int(method) :]
    return [(p.name, p.default is not p.empty, p.kind is p.POSITIONAL_ONLY) for p in params]


def without_types(params):
    return [(name, default, by_position) for name, _, default, by_position in params]


@pytest.fixture(scope="module")
def gymapi():
    fake_gym.install()
    from isaacgym import gymapi

    return gymapi


def test_the_fake_has_exactly_our_names(ours, gymapi):
    ignored = {"annotations", "SceneCalls", "TensorCalls"}
    declared = set(ours.classes) | {n for n in list(ours.attributes) + list(ours.functions) if "." not in n}
    assert public_names(gymapi) - ignored == declared


def test_the_fakes_functions_have_our_parameters(ours, gymapi):
    wrong = []
    for name, (params, _) in ours.functions.items():
        owner, _, method = name.rpartition(".")
        function = getattr(getattr(gymapi, owner), method) if owner else getattr(gymapi, name)
        if signature(function, bool(owner)) != without_types(params):
            wrong.append((name, signature(function, bool(owner)), params))
    assert not wrong
    extra = [n for base in gymapi.Gym.__mro__[:-1] for n in public_names(base) if "Gym." + n not in ours.functions]
    assert not extra


def test_the_fakes_records_have_our_attributes(ours, gymapi):
    for name in ours.classes:
        owner = getattr(gymapi, name)
        declared = {a.split(".")[1]: kind for a, kind in ours.attributes.items() if a.startswith(name + ".")}
        if hasattr(owner, "_types"):
            types = {n: kind.__name__ for n, kind in owner._types.items()}
            types.update({n: declared.get(n) for n in public_names(owner)})  # properties
            assert types == declared, name
        elif name != "Gym":
            there = public_names(owner) | (public_names(owner()) if name == "Tensor" else set())
            assert there == set(declared), name


def test_gymtorch_has_our_parameters(gymapi):
    from isaacgym import gymtorch

    ours = Interface((TYPINGS / "gymtorch.pyi").read_text())
    for name, (params, _) in ours.functions.items():
        assert signature(getattr(gymtorch, name), method=False) == without_types(params)

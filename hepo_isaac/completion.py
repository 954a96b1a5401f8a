"""Completion in a shell: what may follow what was typed so far. Read from names of files and texts; torch stays out.

The shell's script asks ``hepo-isaac __complete <words>``: the words of the command line after its name, the last one
being completed. ``python train.py`` is ``train`` with the same words.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Dict, List, Sequence

from hepo_isaac.errors import unknown
from hepo_isaac.helps import EXAMPLES, HELP, keys_of

COMMANDS = (*HELP, *EXAMPLES)
GROUPS = ("task", "algo", "sim", "budget")
BOOLEANS = ("video", "test", "tensorboard", "plot", "trust", "overwrite", "deterministic", "page")
VALUES: Dict[str, Sequence[str]] = {
    "device": ("auto", "cpu", "cuda:0"),
    "format": ("onnx", "torchscript", "rl_games"),
    "policy": ("pi", "heuristic"),
    "actions": ("random", "zero", "run"),
    "wandb.mode": ("offline", "online", "disabled"),
    **dict.fromkeys(BOOLEANS, ("true", "false")),
}
TAKES_SETTINGS = ("train", "eval", "play", "view", "parity")
MOST_RUNS = 200


def complete(words: Sequence[str]) -> List[str]:
    """What the last of ``words`` can become; whole words, sorted."""
    if len(words) <= 1:
        start = words[0] if words else ""
        return sorted(name for name in COMMANDS if name.startswith(start))
    command, word = words[0], words[-1]
    key, equals, value = word.partition("=")
    if command == "completion":
        found = ["bash", "fish", "zsh"]
    elif word.startswith("-"):
        found = _options(command)
    elif equals:
        *before, start = value.split(",") if key != "run" else [value]
        head = "%s=%s" % (key, "".join(part + "," for part in before))
        return sorted(head + name for name in _values(command, key, start) if name.startswith(start))
    elif command in EXAMPLES:
        found = _names("task") if "--tasks" in words else []
    else:
        typed = {w.partition("=")[0] + "=" for w in words[1:-1]}
        more = _settings() if command in TAKES_SETTINGS and word else []
        found = list({*keys_of(command), *more} - typed)
    return sorted(name for name in found if name.startswith(word))


def _values(command: str, key: str, start: str) -> List[str]:
    if key in GROUPS:
        return _names(key)
    if key in ("run", "resume", "checkpoint"):
        random = [] if key == "resume" else ["random"]
        return ["latest", *random, *_runs(start)]
    if key == "heuristic":
        return ["default"]
    if key in ("engine", "engines"):
        from hepo_isaac.sim.engines import physics_engines

        return list(physics_engines())
    return list(VALUES.get(key, ()))


def _cfg() -> Path:
    from hepo_isaac.locate import cfg_dir

    return cfg_dir()


def _names(group: str) -> List[str]:
    return [file.stem for file in (_cfg() / group).glob("*.yaml") if not file.stem.startswith("_")]


def _runs(start: str) -> List[str]:
    """Run folders under the folder that is being typed, or under runs/, newest first."""
    base = Path(start) if start.endswith("/") else Path(start).parent if "/" in start else Path("runs")
    found: List[Path] = []
    for depth in ("", "*/", "*/*/", "*/*/*/"):
        found += [file.parent for file in base.glob(depth + "status.json")]
        if len(found) > MOST_RUNS:
            break
    return [str(folder) for folder in found[:MOST_RUNS]]


def _settings() -> List[str]:
    """``key=`` of what stands in cfg/config.yaml and of train and algo, by their texts."""
    found = []
    group = ""
    for line in (_cfg() / "config.yaml").read_text(encoding="utf-8").splitlines():
        match = re.match(r"( *)([a-z_]+):", line)
        if match is None or match.group(2) in ("defaults", "hydra"):
            group = "hydra" if match else group
            continue
        indent, name = match.groups()
        if not indent:
            group = name
            if "#" in line.split(":", 1)[1] or line.split(":", 1)[1].strip():
                found.append(name + "=")
        elif group not in ("hydra", "defaults", ""):
            found.append("%s.%s=" % (group, name))
    return sorted({*found, *_fields()})


# Where the fields of train and algo are declared: file, class, and what stands in front of them.
_DECLARED = (
    ("agents/config.py", "TrainConfig", "train."),
    ("methods/method.py", "MethodConfig", "algo."),
    ("methods/method.py", "ShapingConfig", "algo.shaping."),
    ("methods/multiplier.py", "MultiplierConfig", "algo.multiplier."),
    ("methods/references.py", "ReferencesConfig", "algo.references."),
)
_NETWORK = ("units", "activation", "critic_units")


def _fields() -> List[str]:
    """``key=`` of every field of those dataclasses, read from their sources: importing them would cost seconds."""
    found, trees = [], {}
    for file, name, prefix in _DECLARED:
        if file not in trees:
            trees[file] = ast.parse((Path(__file__).resolve().parent / file).read_text(encoding="utf-8"))
        body = [n.body for n in trees[file].body if isinstance(n, ast.ClassDef) and n.name == name][0]
        for node in body:
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                field = node.target.id
                if isinstance(node.value, ast.Call):  # a group of its own
                    continue
                place = prefix + "network." if name == "TrainConfig" and field in _NETWORK else prefix
                found.append("%s%s=" % (place, field))
    return found


def _options(command: str) -> List[str]:
    """Options of a command; argparse's are read from its source, which is not imported."""
    files = {"compare": "compare/command.py", "bench": "machine/bench.py", "gpu-check": "machine/gpu_check.py",
             "bundle": "machine/bundle.py"}  # fmt: skip
    found = ["--help"]
    if command in files:
        text = (Path(__file__).resolve().parent / "runs" / files[command]).read_text(encoding="utf-8")
        found += re.findall(r"add(?:_argument)?\(\s*\"(--[a-z-]+)\"", text)
    found += {"train": ["--cfg", "--multirun", "-m"], "tasks": ["--long"]}.get(command, [])
    return found


# ---- the shells' scripts ------------------------------------------------------------------------------------------

_BASH = """# hepo-isaac and python train.py, for bash. In ~/.bashrc: eval "$(hepo-isaac completion bash)"
_hepo_isaac_ask() {
    local cur="${COMP_LINE:0:COMP_POINT}" words word i
    read -ra words <<< "$cur"
    [[ "$cur" == *[[:space:]] ]] && words+=("")
    for ((i = 0; i < ${#words[@]}; i++)); do
        [[ "${words[i]}" == "$1" || "${words[i]}" == */"$1" ]] && break
    done
    words=("${words[@]:i+1}")
    word="${words[${#words[@]}-1]}"
    local IFS=$'\\n'
    COMPREPLY=($(hepo-isaac __complete $2 "${words[@]}" 2>/dev/null))
    # bash breaks words at = and at :, and replaces what stands behind the last of them
    local last="${COMP_WORDS[COMP_CWORD]}" head
    [[ "$last" == "=" || "$last" == ":" ]] && last=""
    head="${word%"$last"}"
    [[ ${#COMPREPLY[@]} -gt 0 ]] && COMPREPLY=("${COMPREPLY[@]#"$head"}")
    [[ ${#COMPREPLY[@]} -eq 1 && "${COMPREPLY[0]}" == *[=/] ]] && compopt -o nospace 2>/dev/null
    return 0
}
_hepo_isaac() { _hepo_isaac_ask hepo-isaac; }
_hepo_isaac_train() {
    if [[ " ${COMP_WORDS[*]:0:COMP_CWORD} " == *"train.py "* ]]; then
        _hepo_isaac_ask train.py train
    else
        COMPREPLY=($(compgen -f -- "${COMP_WORDS[COMP_CWORD]}"))
    fi
}
complete -F _hepo_isaac hepo-isaac
complete -o bashdefault -o default -F _hepo_isaac_train python python3
"""
_ZSH = """#compdef hepo-isaac
# hepo-isaac and python train.py, for zsh. In ~/.zshrc, after compinit: source <(hepo-isaac completion zsh)
_hepo_isaac() {
    local -a found
    found=("${(@f)$(hepo-isaac __complete "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    compadd -Q -S '' -- $found
}
_hepo_isaac_train() {
    local at=${words[(i)*train.py]}
    if (( at < CURRENT )); then
        local -a found
        found=("${(@f)$(hepo-isaac __complete train "${(@)words[at+1,CURRENT]}" 2>/dev/null)}")
        compadd -Q -S '' -- $found
    else
        _files
    fi
}
compdef _hepo_isaac hepo-isaac
compdef _hepo_isaac_train python python3
"""
_FISH = """# hepo-isaac and python train.py, for fish:
# hepo-isaac completion fish > ~/.config/fish/completions/hepo-isaac.fish
function __hepo_isaac
    set -l words (commandline -opc) (commandline -ct)
    hepo-isaac __complete $words[2..-1] 2>/dev/null
end
function __hepo_isaac_train
    set -l words (commandline -opc) (commandline -ct)
    hepo-isaac __complete train $words[3..-1] 2>/dev/null
end
complete -c hepo-isaac -f -a '(__hepo_isaac)'
complete -c python -n 'contains train.py (commandline -opc)' -f -a '(__hepo_isaac_train)'
"""
SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


def script(shell: str) -> str:
    """The script of ``shell``.

    Raises:
        UserError: there is none for it.
    """
    if shell not in SCRIPTS:
        raise unknown("shell", shell, SCRIPTS)
    return SCRIPTS[shell]

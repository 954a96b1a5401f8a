"""What a user of Isaac Gym Envs types: accepted under the name it has here, or answered with that name in one line."""

from __future__ import annotations

import re
from typing import Dict, List, Sequence

from hepo_isaac.errors import UserError
from hepo_isaac.locate import full_name

# Their name -> ours, where the meaning is the same.
ALIASES: Dict[str, str] = {
    "max_iterations": "train.max_iterations",
    "minibatch_size": "train.minibatch_size",
    "wandb_activate": "wandb.enabled",
    "wandb_project": "wandb.project",
    "wandb_entity": "wandb.entity",
    "wandb_group": "wandb.group",
    "capture_video": "video",
    "sim_device": "device",
    "rl_device": "device",
}
# Their name -> the values that say what is done here anyway.
GRANTED: Dict[str, Sequence[str]] = {"headless": ("true",), "experiment": ("", "''", '""')}
# Their name -> what to do here instead.
ANSWERS: Dict[str, str] = {
    "headless": "no window is ever opened; video=true or hepo-isaac play run=<run folder> films the trained policy",
    "experiment": "a run writes <run_root>/<task>/<algo.name>/…, so use algo.name=<label> or run_root=<folder>",
    "pipeline": "tensors stay on the device that simulates, so use device=cpu or device=cuda:0",
    "graphics_device_id": "films are drawn off-screen when training is over, so take it out; video=true makes one",
}


# Infinity as YAML and our files write it; Hydra's command line knows it without the dot.
INFINITY = re.compile(r"(^|,)([+-]?)\.inf(?=,|$)", re.IGNORECASE)


# Settings whose value is a path: never a list of values to sweep over, whatever is in it.
PATHS = ("run_root", "checkpoint")


def quoted(text: str) -> str:
    """``text`` as Hydra's command line takes it to the letter: no sweep, no interpolation, no type but a word."""
    text = re.sub(r"(\\*)\$\{", r"\1\1\\${", text)  # OmegaConf's escape of an interpolation
    text = re.sub(r"(\\*)'", r"\1\1\'", text)
    return "'%s'" % re.sub(r"(\\+)$", r"\1\1", text)


def unquoted(text: str) -> str:
    """Without the quotes of Hydra's that somebody who knows them put around it."""
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text


def translate(arguments: Sequence[str]) -> List[str]:
    """Command-line arguments with the names of this project; whatever is not ``name=value`` of theirs stays.

    Raises:
        UserError: a name that has no counterpart, with what to do instead, or two devices where there is one.
    """
    out: List[str] = []
    devices: Dict[str, str] = {}
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if equals and name in GRANTED and value.lower() in GRANTED[name]:
            continue
        if equals and name in ANSWERS:
            raise UserError("%s is no setting here: %s" % (argument, ANSWERS[name]))
        ours = ALIASES.get(name, name)
        if equals and ours == "device":
            devices[name] = value
            if len(devices) > 1:
                continue  # said once is enough: they have to agree
        if equals and ours in PATHS and value:
            value = quoted(unquoted(value))
        if equals and ours == "task":  # Over is ShadowHandOver
            value = ",".join(full_name(name) for name in value.split(","))
        value = INFINITY.sub(r"\1\2inf", value)
        out.append("%s=%s" % (ours, value) if equals else argument)
    _check_one_device(devices)
    return out


def _check_one_device(devices: Dict[str, str]) -> None:
    if len(set(devices.values())) > 1:
        raise UserError(
            "%s: physics and learning share one device, so use device=<one of them>"
            % " and ".join("%s=%s" % pair for pair in devices.items())
        )

"""A policy as an ONNX graph, written node by node: it is a chain, and so needs no exporter of torch's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping

import numpy as np

from hepo_isaac.agents.policies import Policies
from hepo_isaac.agents.trained import Actor
from hepo_isaac.envs.faults import LARGEST
from hepo_isaac.envs.task_env import OBS_CLIP
from hepo_isaac.runs.export.describe import ACTION, OBSERVATION

# Old enough for the runtimes of robots (onnxruntime 1.12, TensorRT 8.5), new enough for every operator here.
OPSET, IR_VERSION = 17, 8
OPERATORS = {"elu": "Elu", "relu": "Relu", "selu": "Selu", "tanh": "Tanh"}


class _Chain:
    """Nodes, each of which takes the one before, and their constants."""

    def __init__(self, first: str) -> None:
        self.nodes: List[Any] = []
        self.constants: List[Any] = []
        self.last = first

    def then(self, operator: str, *constants: Any, output: str = "", **attributes: Any) -> None:
        """Append ``operator(last, *constants)``."""
        from onnx import helper

        names = [self.constant(value) for value in constants]
        self._append(helper.make_node(operator, [self.last, *names], [output or self._name()], **attributes))

    def keep_sound(self) -> None:
        """0 where a number is none, is infinite or absurd, as in the environments."""
        from onnx import helper

        zero, largest = self.constant(np.float32(0.0)), self.constant(np.float32(LARGEST))
        size, sound, kept = (self._name() + part for part in ("_size", "_sound", "_kept"))
        self.nodes.append(helper.make_node("Abs", [self.last], [size]))
        self.nodes.append(helper.make_node("LessOrEqual", [size, largest], [sound]))
        self._append(helper.make_node("Where", [sound, self.last, zero], [kept]))

    def constant(self, value: Any) -> str:
        """Name of a constant of the graph."""
        from onnx import numpy_helper

        name = "constant_%d" % len(self.constants)
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value, dtype=np.float32), name))
        return name

    def _append(self, node: Any) -> None:
        self.nodes.append(node)
        self.last = node.output[0]

    def _name(self) -> str:
        return "step_%d" % len(self.nodes)


def write(actor: Actor, policies: Policies, policy: int, about: Mapping[str, Any]) -> bytes:
    """The file: observation (N, O) float32 to action (N, A) in [-1, 1]; ``about`` in its metadata, a JSON a key."""
    import onnx
    from onnx import TensorProto, helper

    chain, bound = _Chain(OBSERVATION), np.float32
    chain.keep_sound()
    chain.then("Clip", bound(-OBS_CLIP), bound(OBS_CLIP))
    if actor.mean is not None and actor.std is not None:
        chain.then("Sub", actor.mean.numpy())
        chain.then("Div", actor.std.numpy())
        chain.then("Clip", bound(-actor.clip), bound(actor.clip))
    for weight, bias in actor.layers[:-1]:
        chain.then("Gemm", weight.numpy(), bias.numpy(), transB=1)
        chain.then(OPERATORS[actor.activation])
    weight, bias = actor.layers[-1]
    chain.then("Gemm", weight.numpy(), bias.numpy(), transB=1)
    chain.then("Clip", bound(-1.0), bound(1.0), output=ACTION)
    graph = helper.make_graph(
        chain.nodes,
        "%s_%s" % (about["task"], about["policy"]),
        [helper.make_tensor_value_info(OBSERVATION, TensorProto.FLOAT, ["N", actor.num_obs])],
        [helper.make_tensor_value_info(ACTION, TensorProto.FLOAT, ["N", actor.num_actions])],
        chain.constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    model.producer_name, model.producer_version = "hepo_isaac", str(about["hepo_isaac"])
    helper.set_model_props(model, {key: json.dumps(value) for key, value in about.items()})
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def run(file: Path) -> Callable[[np.ndarray], np.ndarray]:
    """The file as onnxruntime runs it, on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])

    def act(obs: np.ndarray) -> np.ndarray:
        return np.asarray(session.run([ACTION], {OBSERVATION: obs})[0])

    return act


def metadata(file: Path) -> Dict[str, Any]:
    """What ``about`` was when the file was written."""
    import onnx

    return {item.key: json.loads(item.value) for item in onnx.load(str(file)).metadata_props}

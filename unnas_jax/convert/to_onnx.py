"""Writes a network as an ONNX graph: (N, channels, height, width) to logits."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from unnas_jax.convert.to_torch import unknown
from unnas_jax.core import extras
from unnas_jax.layers import heads
from unnas_jax.layers.blocks import BN_EPSILON, ReluConvBN
from unnas_jax.spaces.darts import network as darts
from unnas_jax.spaces.darts import operations
from unnas_jax.spaces.nasbench101 import network as nasbench101
from unnas_jax.spaces.nasbench201 import network as nasbench201
from unnas_jax.spaces.nasbench201.spec import NODES

OPSET, IR_VERSION = 18, 9
"""The versions of the files; runtimes from 2023 on (onnxruntime 1.15) read them."""


def library() -> Any:
    """The package onnx.

    Raises:
      UserError: it, or onnxruntime, is not installed.
    """
    extras.require("onnx", "--format=onnx")
    return importlib.import_module("onnx")


class _Graph:
    """Collects the nodes of a graph; its methods take and give names of tensors.

    Args:
      weights: arrays by PyTorch's names, see `flat.as_in_torch`.
    """

    def __init__(self, weights: Mapping[str, np.ndarray]) -> None:
        self._onnx, self._weights = library(), weights
        self.nodes: list[Any] = []
        self.constants: dict[str, np.ndarray] = {}

    def node(self, kind: str, inputs: Sequence[str], **attributes: Any) -> str:
        """Adds a node with one output."""
        output = f"{kind}_{len(self.nodes)}"
        made = self._onnx.helper.make_node(kind, list(inputs), [output], name=output, **attributes)
        self.nodes.append(made)
        return output

    def constant(self, values: Any, dtype: Any = np.int64) -> str:
        """A constant array; equal ones are one."""
        array = np.asarray(values, dtype)
        name = f"constant_{array.dtype}_{'_'.join(map(str, array.ravel()))}_{array.ndim}"
        self.constants[name] = array
        return name

    def weight(self, name: str) -> str:
        """A variable of the network."""
        self.constants[name] = self._weights[name]
        return name

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a variable of the network."""
        return self._weights[name].shape

    def conv(
        self,
        x: str,
        name: str,
        stride: tuple[int, int] = (1, 1),
        dilation: int = 1,
        groups: int = 1,
    ) -> str:
        """A convolution, padded by dilation * (kernel // 2); with a bias if it has one."""
        kernel = self._weights[f"{name}.weight"].shape[2:]
        inputs = [x, self.weight(f"{name}.weight")]
        if f"{name}.bias" in self._weights:
            inputs.append(self.weight(f"{name}.bias"))
        pads = [dilation * (k // 2) for k in kernel]
        return self.node(
            "Conv",
            inputs,
            kernel_shape=list(kernel),
            strides=list(stride),
            dilations=[dilation] * 2,
            pads=pads * 2,
            group=groups,
        )

    def bn(self, x: str, name: str) -> str:
        """Batch norm by the running statistics."""
        parts = ("weight", "bias", "running_mean", "running_var")
        inputs = [x, *(self.weight(f"{name}.{part}") for part in parts)]
        return self.node("BatchNormalization", inputs, epsilon=BN_EPSILON)

    def relu(self, x: str) -> str:
        """The positive part."""
        return self.node("Relu", [x])

    def conv_bn(self, x: str, name: str, stride: int = 1) -> str:
        """Of modules whose parts are called `convolution` and `bn`."""
        return self.bn(self.conv(x, f"{name}.convolution", (stride, stride)), f"{name}.bn")

    def pool(self, x: str, kind: str, kernel: int, stride: int, padding: int) -> str:
        """Max or mean of windows; padding does not count."""
        options: dict[str, Any] = {} if kind == "Max" else {"count_include_pad": 0}
        return self.node(
            f"{kind}Pool",
            [x],
            kernel_shape=[kernel] * 2,
            strides=[stride] * 2,
            pads=[padding] * 4,
            **options,
        )

    def sum(self, parts: Sequence[str]) -> str:
        """The sum of some tensors."""
        total = parts[0]
        for part in parts[1:]:
            total = self.node("Add", [total, part])
        return total

    def concat(self, parts: Sequence[str]) -> str:
        """Tensors joined along the channels."""
        return self.node("Concat", parts, axis=1) if len(parts) > 1 else parts[0]

    def cut(self, x: str, starts: Sequence[int], ends: Sequence[int], axes: Sequence[int]) -> str:
        """A part of a tensor."""
        return self.node("Slice", [x, *map(self.constant, (starts, ends, axes))])

    def zeros(self, x: str, stride: int = 1) -> str:
        """Zeros of a tensor's shape, at a stride."""
        far = np.iinfo(np.int64).max
        bounds = ([0, 0], [far, far], [2, 3], [stride, stride])
        part = self.node("Slice", [x, *map(self.constant, bounds)]) if stride > 1 else x
        return self.node("Mul", [part, self.constant(0.0, np.float32)])

    def reduced(self, x: str, name: str) -> str:
        """Factorized reduction."""
        x = self.relu(x)
        far = np.iinfo(np.int64).max
        moved = self.cut(x, [1, 1], [far, far], [2, 3])
        moved = self.node("Pad", [moved, self.constant([0, 0, 0, 0, 0, 0, 1, 1])])
        halves = [
            self.conv(x, f"{name}.conv_1", (2, 2)),
            self.conv(moved, f"{name}.conv_2", (2, 2)),
        ]
        return self.bn(self.concat(halves), f"{name}.bn")


def _operation(g: _Graph, x: str, op: str, stride: int, name: str, channels: int) -> str:
    """An operation of the DARTS space."""
    builder = operations.BUILDERS[op]
    if op == "skip_connect":
        return x if stride == 1 else g.reduced(x, name)
    if builder is operations.Zero:
        return g.zeros(x, stride)
    kind = builder.func if isinstance(builder, partial) else builder
    options = dict(builder.keywords) if isinstance(builder, partial) else {}
    if kind is operations.Separable:
        for k in range(options.get("repeats", 1)):
            step = (stride if k == 0 else 1,) * 2
            dilation = options.get("dilation", 1)
            x = g.conv(g.relu(x), f"{name}.depthwise_{k}", step, dilation, channels)
            x = g.bn(g.conv(x, f"{name}.pointwise_{k}"), f"{name}.bn_{k}")
        return x
    if kind is operations.Spatial:
        x = g.conv(g.relu(x), f"{name}.row", (1, stride))
        return g.bn(g.conv(x, f"{name}.column", (stride, 1)), f"{name}.bn")
    if kind is ReluConvBN:
        return g.conv_bn(g.relu(x), name, stride)
    if kind is operations.Pool:
        size = options["kernel"]
        of = {"max": "Max", "avg": "Average"}[options["kind"]]
        return g.pool(x, of, size, stride, size // 2 if size % 2 else 0)
    raise unknown(f"operation {op!r}")


def _darts(g: _Graph, network: darts.Network, x: str) -> str:
    x = g.bn(_strided(g, x, network, 0), "stem.bn_0")
    before, after = x, x
    if network.stem == "imagenet":
        before = g.bn(_strided(g, g.relu(x), network, 1), "stem.bn_1")
        after = g.bn(_strided(g, g.relu(before), network, 2), "stem.bn_2")
    for cell in darts.cells_of(network):
        name = str(cell.name)
        states = [
            g.reduced(before, f"{name}.preprocess0")
            if cell.reduce_input0
            else g.conv_bn(g.relu(before), f"{name}.preprocess0"),
            g.conv_bn(g.relu(after), f"{name}.preprocess1"),
        ]
        outputs = []
        for k, (op, place) in enumerate(cell.pairs):
            stride = 2 if cell.reduction and place < 2 else 1
            made = _operation(g, states[place], op, stride, f"{name}.op_{k}", cell.channels)
            outputs.append(made)
            if k % 2:
                states.append(g.sum(outputs[-2:]))
        before, after = after, g.concat([states[k] for k in cell.concat])
    return after


def _strided(g: _Graph, x: str, network: darts.Network, k: int) -> str:
    stride = 1 if network.stem == "cifar" else 2
    return g.conv(x, f"stem.conv_{k}", (stride, stride))


def _nasbench101(g: _Graph, network: nasbench101.Network, x: str) -> str:
    for layer in nasbench101.stem_of(network):
        x = g.relu(g.conv_bn(x, str(layer.name), layer.stride))
    width = nasbench101.stem_of(network)[-1].channels
    for index, stack in enumerate(nasbench101.stacks_of(network)):
        x = g.pool(x, "Max", 2, 2, 0) if index else x
        for module in stack:
            x = _module(g, module, x, width)
            width = module.channels
    return x


def _module(g: _Graph, module: nasbench101.Module, x: str, width: int) -> str:
    """A cell of NAS-Bench-101."""
    matrix, last = module.spec.matrix, len(module.spec.matrix) - 1
    channels = nasbench101.vertex_channels(matrix, width, module.channels)

    def projected(vertex: int) -> str:
        return g.relu(g.conv_bn(x, f"{module.name}.input_op_{vertex}"))

    states: dict[int, str] = {}
    for vertex in range(1, last):
        fed = [k for k in range(1, vertex) if matrix[k][vertex]]
        parts = [
            states[k]
            if channels[k] == channels[vertex]
            else g.cut(states[k], [0], [channels[vertex]], [1])
            for k in fed
        ]
        parts += [projected(vertex)] if matrix[0][vertex] else []
        state = g.sum(parts)
        if module.spec.operations[vertex] in nasbench101.KERNELS:
            states[vertex] = g.relu(g.conv_bn(state, f"{module.name}.vertex_op_{vertex}"))
        else:
            states[vertex] = g.pool(state, "Max", 3, 1, 1)
    outputs = [states[vertex] for vertex in range(1, last) if matrix[vertex][last]]
    parts = [g.concat(outputs)] if outputs else []
    return g.sum(parts + ([projected(last)] if matrix[0][last] else []))


def _nasbench201(g: _Graph, network: nasbench201.Network, x: str) -> str:
    x = g.conv_bn(x, "stem")
    for stage in range(nasbench201.STAGES):
        if stage:
            name = f"reduction_{stage}"
            beside = g.conv(g.pool(x, "Average", 2, 2, 0), f"{name}.shortcut")
            for k, stride in enumerate((2, 1)):
                x = g.conv_bn(g.relu(x), f"{name}.block_{k}", stride)
            x = g.sum([beside, x])
        for k in range(network.cells_each):
            x = _cell201(g, network, x, f"stage_{stage}_cell_{k}")
    return g.relu(g.bn(x, "bn"))


def _cell201(g: _Graph, network: nasbench201.Network, x: str, name: str) -> str:
    """A cell of NAS-Bench-201."""
    states = [x]
    for node in range(1, NODES):
        parts = []
        for place, op in network.spec.entering(node):
            if op in nasbench201.KERNELS:
                parts.append(g.conv_bn(g.relu(states[place]), f"{name}.edge_{place}_{node}"))
            elif op == "avg_pool_3x3":
                parts.append(g.pool(states[place], "Average", 3, 1, 1))
            elif op == "skip_connect":
                parts.append(states[place])
        states.append(g.sum(parts) if parts else g.zeros(x))
    return states[-1]


def _head(g: _Graph, head: Any, x: str, inputs: str) -> str:
    if isinstance(head, heads.ImageHead):
        x = g.node("Flatten", [g.node("GlobalAveragePool", [x])])
        if head.group > 1:
            width = g.shape("head.linear.weight")[1]
            x = g.node("Reshape", [x, g.constant([-1, width])])
        parts = [g.weight(f"head.linear.{part}") for part in ("weight", "bias")]
        return g.node("Gemm", [x, *parts], transB=1)
    if isinstance(head, heads.PixelHead):
        x = g.conv(x, "head")
    elif isinstance(head, heads.AsppHead):
        x = _aspp(g, head, x)
    else:
        raise unknown(f"head, {type(head).__name__},")
    # To the size of the inputs.
    classes, sides = g.node("Shape", [x], end=2), g.node("Shape", [inputs], start=2)
    return g.node(
        "Resize",
        [x, "", "", g.node("Concat", [classes, sides], axis=0)],
        mode="linear",
        coordinate_transformation_mode="align_corners",
    )


def _aspp(g: _Graph, head: heads.AsppHead, x: str) -> str:
    def layer(x: str, name: str, dilation: int = 1) -> str:
        x = g.conv(x, f"head.conv_{name}", dilation=dilation)
        return g.relu(g.bn(x, f"head.bn_{name}"))

    branches = [layer(x, "pixel")]
    branches += [layer(x, f"rate_{rate}", rate) for rate in head.rates]
    image = layer(g.node("GlobalAveragePool", [x]), "image")
    branches.append(g.node("Expand", [image, g.node("Shape", [branches[0]])]))
    return g.conv(layer(g.concat(branches), "join"), "head.classifier")


_BODIES: dict[type, Callable[[_Graph, Any, str], str]] = {
    darts.Network: _darts,
    nasbench101.Network: _nasbench101,
    nasbench201.Network: _nasbench201,
}


def model(
    network: Any,
    weights: Mapping[str, np.ndarray],
    input_shape: Sequence[int],
    facts: Mapping[str, str],
) -> Any:
    """The ONNX model of a discrete network, checked by onnx; its input is `images`.

    Args:
      network: of one of the three spaces.
      weights: its variables, see `flat.as_in_torch`.
      input_shape: channels, height, width; networks that answer for pixels take any sides.
      facts: what is kept in the model's metadata.

    Raises:
      UserError: onnx is missing, or a part of the network has no form in ONNX.
    """
    onnx = library()
    body = _BODIES.get(type(network))
    if body is None:
        raise unknown("space")
    graph = _Graph(weights)
    output = _head(graph, network.head, body(graph, network, "images"), "images")
    graph.nodes.append(onnx.helper.make_node("Identity", [output], ["logits"], name="logits"))
    dense = not isinstance(network.head, heads.ImageHead)
    channels, *sides = input_shape
    sides = ["height", "width"] if dense else sides  # type: ignore[list-item]
    shapes = {
        "images": ["images", channels, *sides],
        "logits": ["answers", None, *(sides if dense else ())],
    }
    ends = {
        name: onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name, shape in shapes.items()
    }
    made = onnx.helper.make_model(
        onnx.helper.make_graph(
            graph.nodes,
            "network",
            [ends["images"]],
            [ends["logits"]],
            [onnx.numpy_helper.from_array(a, name) for name, a in graph.constants.items()],
        ),
        producer_name="unnas_jax",
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
    )
    made.ir_version = IR_VERSION
    onnx.helper.set_model_props(made, dict(facts))
    onnx.checker.check_model(made, full_check=True)
    return made

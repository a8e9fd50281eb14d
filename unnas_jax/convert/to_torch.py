"""Writes a network as PyTorch source: one readable file, which needs nothing of this project."""

from collections.abc import Callable
from functools import partial
from typing import Any

from unnas_jax.convert import torch_layers
from unnas_jax.core.errors import UserError
from unnas_jax.layers import heads
from unnas_jax.layers.blocks import ReluConvBN
from unnas_jax.spaces.darts import network as darts
from unnas_jax.spaces.darts import operations
from unnas_jax.spaces.nasbench101 import network as nasbench101
from unnas_jax.spaces.nasbench201 import network as nasbench201
from unnas_jax.spaces.nasbench201.spec import NODES

_INDENT = " " * 8


class _Source:
    """Collects the lines of a file and the layers that they use."""

    def __init__(self) -> None:
        self.uses: set[str] = set()
        self.classes: list[str] = []

    def layer(self, name: str, *arguments: Any, **options: Any) -> str:
        """The text that makes a layer of `torch_layers`, or of torch.nn."""
        if name in torch_layers.SOURCES:
            self.uses.add(name)
        words = [*map(str, arguments), *(f"{key}={value}" for key, value in options.items())]
        return f"{name}({', '.join(words)})"

    def file(self, head: str) -> str:
        """The whole file."""
        used = [torch_layers.SOURCES[name] for name in torch_layers.needed(self.uses)]
        return "\n\n\n".join([head, *used, *self.classes]) + "\n"


def _class(
    name: str, says: str, arguments: str, init: list[str], call: str, body: list[str]
) -> str:
    return "\n".join(
        [
            f"class {name}(nn.Module):",
            f'    """{says}"""',
            "",
            f"    def __init__(self{', ' if arguments else ''}{arguments}):",
            f"{_INDENT}super().__init__()",
            *(_INDENT + line for line in init),
            "",
            f"    def forward(self, {call}):",
            *(_INDENT + line for line in body),
        ]
    )


def operation(source: _Source, name: str, channels: str, stride: int) -> str:
    """The text of an operation of the DARTS space."""
    builder = operations.BUILDERS[name]
    if name == "skip_connect":
        if stride == 1:
            return "nn.Identity()"
        return source.layer("FactorizedReduction", channels, channels)
    if builder is operations.Zero:
        return source.layer("Zero", stride)
    kind = builder.func if isinstance(builder, partial) else builder
    options = dict(builder.keywords) if isinstance(builder, partial) else {}
    if kind is operations.Separable:
        return source.layer("Separable", channels, options.pop("kernel"), stride, **options)
    if kind is operations.Spatial:
        return source.layer("Spatial", channels, options["kernel"], stride)
    if kind is ReluConvBN:
        return source.layer("ReluConvBN", channels, channels, options["kernel"][0], stride)
    if kind is operations.Pool:
        size = options["kernel"]
        padding = size // 2 if size % 2 else 0
        if options["kind"] == "max":
            return f"nn.MaxPool2d({size}, {stride}, {padding})"
        return f"nn.AvgPool2d({size}, {stride}, {padding}, count_include_pad=False)"
    raise unknown(f"operation {name!r}")


def unknown(what: str) -> UserError:
    """The error for parts of a network, such as a user's own, that have no PyTorch source."""
    return UserError(f"the network's {what} has no form outside of JAX; use --format=stablehlo")


def _darts_cell(source: _Source, cell: darts.Cell) -> str:
    name = "ReductionCell" if cell.reduction else "NormalCell"
    reduced = source.layer("FactorizedReduction", "ins0", "channels")
    init = [
        "if reduce_input0:",
        f"    self.preprocess0 = {reduced}",
        "else:",
        f"    self.preprocess0 = {source.layer('ReluConvBN', 'ins0', 'channels')}",
        f"self.preprocess1 = {source.layer('ReluConvBN', 'ins1', 'channels')}",
    ]
    body = ["state0, state1 = self.preprocess0(input0), self.preprocess1(input1)"]
    for k, (op, place) in enumerate(cell.pairs):
        stride = 2 if cell.reduction and place < 2 else 1
        init.append(f"self.op_{k} = {operation(source, op, 'channels', stride)}  # {op}")
        if k % 2:
            first = f"self.op_{k - 1}(state{cell.pairs[k - 1][1]})"
            body.append(f"state{2 + k // 2} = {first} + self.op_{k}(state{place})")
    joined = ", ".join(f"state{state}" for state in cell.concat)
    body.append(f"return torch.cat([{joined}], dim=1)")
    says = "Halves the sides of its inputs." if cell.reduction else "Keeps the sides of its inputs."
    arguments = "ins0, ins1, channels, reduce_input0"
    return _class(name, says, arguments, init, "input0, input1", body)


def _darts(source: _Source, network: darts.Network, ins: int) -> tuple[list[str], list[str], int]:
    """The lines that make the layers before the head, those that use them, and the channels."""
    cells = darts.cells_of(network)
    kinds = {cell.reduction: cell for cell in cells}
    source.classes += [_darts_cell(source, kinds[kind]) for kind in sorted(kinds)]
    stem = "CifarStem" if network.stem == "cifar" else "ImageNetStem"
    init = [f"self.stem = {source.layer(stem, ins, network.width)}"]
    before = after = 3 * network.width if network.stem == "cifar" else network.width
    for cell in cells:
        kind = "ReductionCell" if cell.reduction else "NormalCell"
        make = f"{kind}({before}, {after}, {cell.channels}, reduce_input0={cell.reduce_input0})"
        init.append(f"self.{cell.name} = {make}")
        before, after = after, len(cell.concat) * cell.channels
    body = ["before, x = self.stem(x)"]
    body += [f"before, x = x, self.{cell.name}(before, x)" for cell in cells]
    return init, body, after


def _nasbench101(
    source: _Source, network: nasbench101.Network, ins: int
) -> tuple[list[str], list[str], int]:
    spec = network.spec.pruned()
    matrix, last = spec.matrix, len(spec.matrix) - 1
    init, body = [], []

    def projected(vertex: int) -> str:
        make = source.layer("ConvBNRelu", "ins", f"channels[{vertex}]", 1)
        init.append(f"self.input_op_{vertex} = {make}")
        return f"self.input_op_{vertex}(x)"

    for vertex in range(1, last):
        fed = [k for k in range(1, vertex) if matrix[k][vertex]]
        parts = [f"state{k}[:, : self.channels[{vertex}]]" for k in fed]
        parts += [projected(vertex)] if matrix[0][vertex] else []
        op, wide = spec.operations[vertex], f"channels[{vertex}]"
        if op in nasbench101.KERNELS:
            made = source.layer("ConvBNRelu", wide, wide, nasbench101.KERNELS[op])
        else:
            made = "nn.MaxPool2d(3, 1, 1)"
        init.append(f"self.vertex_op_{vertex} = {made}")
        body.append(f"state{vertex} = self.vertex_op_{vertex}({' + '.join(parts)})")
    outputs = [f"state{vertex}" for vertex in range(1, last) if matrix[vertex][last]]
    parts = [f"torch.cat([{', '.join(outputs)}], dim=1)"] if outputs else []
    parts += [projected(last)] if matrix[0][last] else []
    body.append(f"return {' + '.join(parts)}")
    source.classes.append(
        _class(
            "Module",
            f"The cell {spec}; channels are those of its vertices.",
            "ins, channels",
            ["self.channels = channels", *init],
            "x",
            body,
        )
    )
    makes: list[str] = []
    uses: list[str] = []
    width = ins
    for layer in nasbench101.stem_of(network):
        make = source.layer("ConvBNRelu", width, layer.channels, layer.kernel, layer.stride)
        makes.append(f"self.{layer.name} = {make}")
        uses.append(f"x = self.{layer.name}(x)")
        width = layer.channels
    for index, stack in enumerate(nasbench101.stacks_of(network)):
        uses += ["x = F.max_pool2d(x, 2)"] if index else []
        for module in stack:
            channels = tuple(nasbench101.vertex_channels(matrix, width, module.channels))
            makes.append(f"self.{module.name} = Module({width}, {channels})")
            uses.append(f"x = self.{module.name}(x)")
            width = module.channels
    return makes, uses, width


def _nasbench201(
    source: _Source, network: nasbench201.Network, ins: int
) -> tuple[list[str], list[str], int]:
    init, body = [], ["state0 = x"]
    for node in range(1, NODES):
        parts = []
        for place, op in network.spec.entering(node):
            if op in nasbench201.KERNELS:
                kernel = nasbench201.KERNELS[op]
                make = source.layer("ReluConvBN", "channels", "channels", kernel)
                init.append(f"self.edge_{place}_{node} = {make}")
                parts.append(f"self.edge_{place}_{node}(state{place})")
            elif op == "avg_pool_3x3":
                pooled = f"F.avg_pool2d(state{place}, 3, 1, 1, count_include_pad=False)"
                parts.append(pooled)
            elif op == "skip_connect":
                parts.append(f"state{place}")
        body.append(f"state{node} = {' + '.join(parts) or 'torch.zeros_like(x)'}")
    body.append(f"return state{NODES - 1}")
    says = f"The cell {network.spec}."
    source.classes.append(_class("Cell", says, "channels", init, "x", body))
    width = network.width
    made = [f"self.stem = {source.layer('ConvBN', ins, width)}"]
    used = ["x = self.stem(x)"]
    for stage in range(nasbench201.STAGES):
        channels = network.width * 2**stage
        if stage:
            make = source.layer("Reduction", width, channels)
            made.append(f"self.reduction_{stage} = {make}")
            used.append(f"x = self.reduction_{stage}(x)")
        for k in range(network.cells_each):
            made.append(f"self.stage_{stage}_cell_{k} = Cell({channels})")
            used.append(f"x = self.stage_{stage}_cell_{k}(x)")
        width = channels
    made.append(f"self.bn = nn.BatchNorm2d({width})")
    used.append("x = F.relu(self.bn(x))")
    return made, used, width


def _head(source: _Source, head: Any, features: int) -> tuple[str, list[str]]:
    """The text that makes the head, and the lines that use it."""
    if isinstance(head, heads.ImageHead):
        make = source.layer("ImageHead", features, head.classes, head.group)
        return make, ["return self.head(x)"]
    wide = [
        "x = self.head(x)",
        'return F.interpolate(x, size, mode="bilinear", align_corners=True)',
    ]
    if isinstance(head, heads.PixelHead):
        return f"nn.Conv2d({features}, {head.classes}, 1)", wide
    if isinstance(head, heads.AsppHead):
        make = source.layer("AsppHead", features, head.classes, head.channels, tuple(head.rates))
        return make, wide
    raise unknown(f"head, {type(head).__name__},")


_BODIES: dict[type, Callable[..., tuple[list[str], list[str], int]]] = {
    darts.Network: _darts,
    nasbench101.Network: _nasbench101,
    nasbench201.Network: _nasbench201,
}


def source_of(network: Any, input_channels: int, says: str) -> str:
    """The text of a file with a class `Network`, whose `state_dict` is `flat.as_in_torch`'s.

    Networks that answer for pixels give logits at the size of their inputs, in all exports.

    Args:
      network: a discrete network of one of the three spaces.
      input_channels: of its inputs.
      says: the file's docstring.

    Raises:
      UserError: a part of the network has no form in PyTorch.
    """
    source = _Source()
    body_of = _BODIES.get(type(network))
    if body_of is None:
        raise unknown("space")
    init, body, features = body_of(source, network, input_channels)
    make, end = _head(source, network.head, features)
    size = ["size = x.shape[-2:]"] if len(end) > 1 else []
    source.classes.append(
        _class(
            "Network",
            "The whole network: (N, channels, height, width) to logits.",
            "",
            [*init, f"self.head = {make}"],
            "x",
            [*size, *body, *end],
        )
    )
    return source.file(torch_layers.HEAD.format(says=says))

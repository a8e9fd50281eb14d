"""Parameters and multiply-adds of a network, layer by layer.

Nothing is traced or run. Each kind of module has one function here that says what it holds and
computes for an input of some size, from the module's own attributes; a network is the sum over its
cells. It takes milliseconds, where tracing the modules takes seconds. The tests compare every
module with the parameters and the program that it really has.

A multiply-add is one product of a convolution or a linear layer, at true output sizes (dilation
included). Batch norm, pooling and activations count none.
"""

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from unnas_jax.layers.blocks import FactorizedReduction, ReluConvBN
from unnas_jax.layers.heads import AsppHead, ImageHead, PixelHead
from unnas_jax.spaces.darts import network as network_lib
from unnas_jax.spaces.darts import supernet as supernet_lib
from unnas_jax.spaces.darts.network import AuxiliaryHead, Cell, Network
from unnas_jax.spaces.darts.operations import BUILDERS, Identity, Pool, Separable, Spatial, Zero
from unnas_jax.spaces.darts.supernet import MixedCell, SourceEdges, Supernet
from unnas_jax.spaces.nasbench101 import network as nasbench101

Size = tuple[int, int, int]
"""Height, width and channels."""

AnyNetwork = Network | nasbench101.Network | Supernet | nn.Module

AUXILIARY = "auxiliary"


@dataclasses.dataclass(frozen=True)
class Layer:
    """What one layer holds and computes for one answer of the network.

    Attributes:
      name: its path, as flax names it.
      parameters: trainable values.
      multiply_adds: products of a forward pass.
    """

    name: str
    parameters: int
    multiply_adds: int


@dataclasses.dataclass(frozen=True)
class Counts:
    """The layers of a network in order of execution, and their sums."""

    layers: tuple[Layer, ...]

    @property
    def parameters(self) -> int:
        """Without the auxiliary head, which evaluation does not run."""
        return sum(layer.parameters for layer in self.layers if not _is_auxiliary(layer))

    @property
    def parameters_with_auxiliary(self) -> int:
        """With the auxiliary head."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def multiply_adds(self) -> int:
        """Of evaluation: without the auxiliary head."""
        return sum(layer.multiply_adds for layer in self.layers if not _is_auxiliary(layer))

    def totals(self) -> dict[str, int]:
        """The three sums by name."""
        names = ("parameters", "parameters_with_auxiliary", "multiply_adds")
        return {name: getattr(self, name) for name in names}


def _is_auxiliary(layer: Layer) -> bool:
    return layer.name.split("/")[0] == AUXILIARY


def parameters(params: Any) -> int:
    """The number of values in a tree of arrays or shapes."""
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(params))


@dataclasses.dataclass(frozen=True)
class Scope:
    """Where in the network the count is, and the layers found so far.

    Attributes:
      layers: shared by all scopes of a network.
      prefix: of the layers' names.
      images: how many images an answer takes through these layers.
    """

    layers: list[Layer]
    prefix: str = ""
    images: int = 1

    def at(self, name: str) -> "Scope":
        """The scope of a module within this one."""
        return dataclasses.replace(self, prefix=f"{self.prefix}{name}/")

    def add(self, name: str, values: int, products: int) -> None:
        """Adds a layer; `products` are those of one image."""
        self.layers.append(Layer(self.prefix + name, values, self.images * products))

    def kernel(
        self,
        name: str,
        size: Size,
        channels: int,
        kernel: tuple[int, int] = (1, 1),
        *,
        groups: int = 1,
        bias: bool = False,
    ) -> Size:
        """A convolution from `size[2]` channels whose output has the sides of `size`."""
        height, width, ins = size
        values = kernel[0] * kernel[1] * ins // groups * channels
        self.add(name, values + bias * channels, height * width * values)
        return height, width, channels

    def conv(
        self,
        name: str,
        size: Size,
        channels: int,
        kernel: tuple[int, int] = (1, 1),
        stride: tuple[int, int] = (1, 1),
        groups: int = 1,
    ) -> Size:
        """A `layers.Conv`: the padding keeps the sides but for the stride."""
        height, width = -(-size[0] // stride[0]), -(-size[1] // stride[1])
        return self.kernel(
            f"{name}/conv", (height, width, size[2]), channels, kernel, groups=groups
        )

    def norm(self, name: str, size: Size, affine: bool = True) -> Size:
        """A batch norm."""
        if affine:
            self.add(name, 2 * size[2], 0)
        return size

    def linear(self, name: str, features: int, classes: int) -> None:
        """A linear layer with bias."""
        self.add(name, (features + 1) * classes, features * classes)


@functools.singledispatch
def count_layers(module: nn.Module, size: Size, scope: Scope) -> Size:
    """Adds a module's layers for an input of `size` to `scope` and returns its output's size.

    A new kind of module needs a function of this name for its type.
    """
    raise TypeError(f"counting: no count for modules of the type {type(module).__name__}")


@count_layers.register
def _(module: ReluConvBN, size: Size, scope: Scope) -> Size:
    strides = (module.stride, module.stride)
    size = scope.conv("convolution", size, module.channels, module.kernel, strides)
    return scope.norm("bn", size, module.affine)


@count_layers.register
def _(module: FactorizedReduction, size: Size, scope: Scope) -> Size:
    half = module.channels // 2
    height, width, _ = scope.conv("conv_1", size, half, stride=(2, 2))
    scope.conv("conv_2", size, module.channels - half, stride=(2, 2))
    return scope.norm("bn", (height, width, module.channels), module.affine)


@count_layers.register
def _(module: Separable, size: Size, scope: Scope) -> Size:
    kernel = (module.kernel, module.kernel)
    for half in range(module.repeats):
        strides = (module.stride if half == 0 else 1,) * 2
        channels = size[2]
        size = scope.conv(f"depthwise_{half}", size, channels, kernel, strides, groups=channels)
        size = scope.conv(f"pointwise_{half}", size, module.channels)
        size = scope.norm(f"bn_{half}", size)
    return size


@count_layers.register
def _(module: Spatial, size: Size, scope: Scope) -> Size:
    size = scope.conv("row", size, module.channels, (1, module.kernel), (1, module.stride))
    size = scope.conv("column", size, module.channels, (module.kernel, 1), (module.stride, 1))
    return scope.norm("bn", size)


@count_layers.register
def _(module: Pool, size: Size, scope: Scope) -> Size:
    pad = module.kernel // 2 if module.kernel % 2 else 0
    height, width = ((side + 2 * pad - module.kernel) // module.stride + 1 for side in size[:2])
    return height, width, size[2]


@count_layers.register
def _(module: Identity, size: Size, scope: Scope) -> Size:
    return size


@count_layers.register
def _(module: Zero, size: Size, scope: Scope) -> Size:
    return -(-size[0] // module.stride), -(-size[1] // module.stride), size[2]


@count_layers.register
def _(module: ImageHead, size: Size, scope: Scope) -> Size:
    scope.linear("linear", module.group * size[2], module.classes)
    return 1, 1, module.classes


@count_layers.register
def _(module: PixelHead, size: Size, scope: Scope) -> Size:
    return scope.kernel("conv", size, module.classes, bias=True)


@count_layers.register
def _(module: AsppHead, size: Size, scope: Scope) -> Size:
    def layer(size: Size, name: str, side: int = 1) -> Size:
        size = scope.conv(f"conv_{name}", size, module.channels, (side, side))
        return scope.norm(f"bn_{name}", size)

    layer(size, "pixel")
    for rate in module.rates:
        layer(size, f"rate_{rate}", 3)
    layer((1, 1, size[2]), "image")
    joined = layer((size[0], size[1], (2 + len(module.rates)) * module.channels), "join")
    return count_layers(PixelHead(module.classes), joined, scope.at("classifier"))


@count_layers.register
def _(module: AuxiliaryHead, size: Size, scope: Scope) -> Size:
    stride = 2 if module.imagenet else 3
    height, width = ((side - 5) // stride + 1 for side in size[:2])
    size = scope.norm("bn_0", scope.conv("conv_0", (height, width, size[2]), 128))
    size = scope.kernel("conv_1", (size[0] - 1, size[1] - 1, 128), 768, (2, 2))
    if not module.imagenet:
        scope.norm("bn_1", size)
    scope.linear("linear", size[0] * size[1] * size[2], module.classes)
    return 1, 1, module.classes


@count_layers.register
def _(module: nasbench101.ConvBNRelu, size: Size, scope: Scope) -> Size:
    kernel, strides = (module.kernel, module.kernel), (module.stride, module.stride)
    return scope.norm("bn", scope.conv("convolution", size, module.channels, kernel, strides))


@count_layers.register
def _(module: nasbench101.Module, size: Size, scope: Scope) -> Size:
    spec = module.spec
    channels = nasbench101.vertex_channels(spec.matrix, size[2], module.channels)
    for vertex, operation in enumerate(spec.operations):
        inside = (size[0], size[1], channels[vertex])
        if spec.matrix[0][vertex]:
            projection = nasbench101.ConvBNRelu(channels[vertex], 1)
            count_layers(projection, size, scope.at(f"input_op_{vertex}"))
        if operation in nasbench101.KERNELS:
            layer = nasbench101.ConvBNRelu(channels[vertex], nasbench101.KERNELS[operation])
            count_layers(layer, inside, scope.at(f"vertex_op_{vertex}"))
    return size[0], size[1], module.channels


@count_layers.register
def _(module: SourceEdges, size: Size, scope: Scope) -> Size:
    """Every operation of every edge; its layers hold the kernels of all edges."""
    edges, channels = module.targets, module.channels
    height, width = -(-size[0] // module.stride), -(-size[1] // module.stride)

    def add(name: str, values: int) -> None:
        scope.add(name, edges * values, edges * values * height * width)

    if module.stride > 1:
        for half in (1, 2):
            add(f"skip_connect_conv_{half}", channels * (channels // 2))
    for operation, kernel, _ in supernet_lib.CONVOLUTIONS:
        for part in ("first", "second") if operation.startswith("sep") else ("first",):
            add(f"{operation}_{part}_depthwise", kernel * kernel * channels)
            add(f"{operation}_{part}_pointwise", channels * channels)
    return height, width, channels


def _inputs(
    module: Cell | MixedCell, sizes: tuple[Size, Size], scope: Scope, affine: bool
) -> list[Size]:
    """The first two states of a cell: its inputs, brought to its channels and one size."""
    before = FactorizedReduction if module.reduce_input0 else ReluConvBN
    preprocess = (
        before(module.channels, affine=affine, name="preprocess0"),
        ReluConvBN(module.channels, affine=affine, name="preprocess1"),
    )
    return [
        count_layers(layer, size, scope.at(str(layer.name)))
        for layer, size in zip(preprocess, sizes, strict=True)
    ]


def _cell(module: Cell | MixedCell, sizes: tuple[Size, Size], scope: Scope) -> Size:
    """The size of a cell's output; like `count_layers`, but a cell has two inputs."""
    states = _inputs(module, sizes, scope, affine=isinstance(module, Cell))
    if isinstance(module, MixedCell):
        for edges in supernet_lib.sources_of(module):
            source = int(str(edges.name).rpartition("_")[2])
            states.append(count_layers(edges, states[source], scope.at(str(edges.name))))
        height, width, channels = states[-1]
        return height, width, module.nodes * channels
    for k, (operation, source) in enumerate(module.pairs):
        stride = 2 if module.reduction and source < 2 else 1
        layer = BUILDERS[operation](module.channels, stride, module.dtype, f"op_{k}")
        output = count_layers(layer, states[source], scope.at(f"op_{k}"))
        if k % 2:
            states.append(output)
    chosen = [states[state] for state in module.concat]
    return chosen[0][0], chosen[0][1], sum(state[2] for state in chosen)


def _stem(network: Network | Supernet, size: Size, scope: Scope) -> tuple[Size, Size]:
    def conv_bn(size: Size, channels: int, stride: int, k: int) -> Size:
        size = scope.conv(f"conv_{k}", size, channels, (3, 3), (stride, stride))
        return scope.norm(f"bn_{k}", size)

    if network.stem == "cifar":
        size = conv_bn(size, 3 * network.width, 1, 0)
        return size, size
    first = conv_bn(conv_bn(size, network.width // 2, 2, 0), network.width, 2, 1)
    return first, conv_bn(first, network.width, 2, 2)


@functools.singledispatch
def count_features(network: nn.Module, size: Size, scope: Scope) -> Size:
    """Adds all layers before the head to `scope` and returns the size of the last features."""
    raise TypeError(f"counting: no count for networks of the type {type(network).__name__}")


@count_features.register
def _(network: Network, size: Size, scope: Scope) -> Size:
    states = _stem(network, size, scope.at("stem"))
    for index, cell in enumerate(network_lib.cells_of(network)):
        states = (states[1], _cell(cell, states, scope.at(str(cell.name))))
        if network.auxiliary_classes and index == 2 * network.cells // 3:
            auxiliary = AuxiliaryHead(network.auxiliary_classes, network.stem == "imagenet")
            count_layers(auxiliary, states[1], scope.at(AUXILIARY))
    return states[1]


@count_features.register
def _(network: Supernet, size: Size, scope: Scope) -> Size:
    states = _stem(network, size, scope.at("stem"))
    for cell in supernet_lib.cells_of(network):
        states = (states[1], _cell(cell, states, scope.at(str(cell.name))))
    return states[1]


@count_features.register
def _(network: nasbench101.Network, size: Size, scope: Scope) -> Size:
    for layer in nasbench101.stem_of(network):
        size = count_layers(layer, size, scope.at(str(layer.name)))
    for index, stack in enumerate(nasbench101.stacks_of(network)):
        if index:
            size = size[0] // 2, size[1] // 2, size[2]
        for module in stack:
            size = count_layers(module, size, scope.at(str(module.name)))
    return size


def count(network: AnyNetwork, size: Size) -> Counts:
    """Counts the layers of a network for one answer.

    An answer is what the head gives one of: it takes one image, or all the tiles of a puzzle. The
    auxiliary head's layers are in the list under `auxiliary/`, and left out of the sums that do
    not name it.

    Args:
      network: a discrete network; or a supernet, which is counted by its definition: every
        operation on every edge, in the depthwise form.
      size: height, width and channels of what the network is fed.
    """
    layers: list[Layer] = []
    whole = Scope(layers)
    body = dataclasses.replace(whole, images=getattr(network.head, "group", 1))
    features = count_features(network, size, body)
    count_layers(network.head, features, whole.at("head"))
    return Counts(tuple(layers))

"""Parameters and multiply-adds of NAS-Bench-201's networks, for `unnas_jax.layers.counting`."""

from unnas_jax.layers.blocks import ReluConvBN
from unnas_jax.layers.counting import Scope, Size, count_features, count_layers
from unnas_jax.spaces.nasbench201.network import KERNELS, STAGES, Cell, Network, Reduction
from unnas_jax.spaces.nasbench201.spec import EDGES


@count_layers.register
def _(module: Cell, size: Size, scope: Scope) -> Size:
    for (source, target), operation in zip(EDGES, module.spec.operations, strict=True):
        if operation in KERNELS:
            layer = ReluConvBN(module.channels, (KERNELS[operation],) * 2)
            count_layers(layer, size, scope.at(f"edge_{source}_{target}"))
    return size


@count_layers.register
def _(module: Reduction, size: Size, scope: Scope) -> Size:
    half = size[0] // 2, size[1] // 2, size[2]
    scope.conv("shortcut", half, module.channels)
    for k, stride in enumerate((2, 1)):
        layer = ReluConvBN(module.channels, (3, 3), stride)
        size = count_layers(layer, size, scope.at(f"block_{k}"))
    return size


@count_features.register
def _(network: Network, size: Size, scope: Scope) -> Size:
    stem = scope.at("stem")
    size = stem.norm("bn", stem.conv("convolution", size, network.width, (3, 3)))
    for stage in range(STAGES):
        channels = network.width * 2**stage
        if stage:
            size = count_layers(Reduction(channels), size, scope.at(f"reduction_{stage}"))
        for k in range(network.cells_each):
            cell = Cell(network.spec, channels)
            size = count_layers(cell, size, scope.at(f"stage_{stage}_cell_{k}"))
    return scope.norm("bn", size)

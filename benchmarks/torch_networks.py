"""Discrete networks and their training step in PyTorch: what a training is timed beside.

Written from the definitions (DARTS, section 2 and its appendix; Ying et al., section 2) in the way
that PyTorch code writes them: a module an operation, channels last. Parameters have the names of
the method's PyTorch release, so that `unnas_jax.convert` brings weights over.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from benchmarks.torch_supernet import FactorizedReduction, ReluConvBN, Separable, norm
from unnas_jax.spaces.darts.genotype import Genotype
from unnas_jax.spaces.nasbench101.network import KERNELS, vertex_channels
from unnas_jax.spaces.nasbench101.spec import Spec


def _conv(ins: int, outs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(ins, outs, kernel, stride=stride, padding=kernel // 2, bias=False)


def _operation(name: str, channels: int, stride: int) -> nn.Module:
    """An operation of a discrete DARTS cell."""
    if name == "max_pool_3x3":
        return nn.MaxPool2d(3, stride, 1)
    if name == "avg_pool_3x3":
        return nn.AvgPool2d(3, stride, 1, count_include_pad=False)
    if name == "skip_connect":
        return nn.Identity() if stride == 1 else FactorizedReduction(channels, channels, True)
    kernel, dilated = int(name[-1]), name.startswith("dil")
    return Separable(channels, kernel, stride, 2 if dilated else 1, 1 if dilated else 2, True)


class DartsCell(nn.Module):
    """Nodes that sum two operations each."""

    def __init__(
        self, genotype: Genotype, ins: tuple[int, int], channels: int, reduction: bool, halved: bool
    ) -> None:
        super().__init__()
        first = FactorizedReduction if halved else ReluConvBN
        self.preprocess0 = first(ins[0], channels, True)
        self.preprocess1 = ReluConvBN(ins[1], channels, True)
        pairs = genotype.reduce if reduction else genotype.normal
        self.sources = [source for _, source in pairs]
        self.concat = genotype.reduce_concat if reduction else genotype.normal_concat
        self._ops = nn.ModuleList(
            _operation(name, channels, 2 if reduction and source < 2 else 1)
            for name, source in pairs
        )

    def forward(self, input0: torch.Tensor, input1: torch.Tensor) -> torch.Tensor:
        """Both inputs (N, C, H, W) to the concatenated nodes."""
        states = [self.preprocess0(input0), self.preprocess1(input1)]
        for k in range(0, len(self.sources), 2):
            first, second = (self._ops[n](states[self.sources[n]]) for n in (k, k + 1))
            states.append(first + second)
        return torch.cat([states[k] for k in self.concat], dim=1)


class Darts(nn.Module):
    """Stem `cifar`, cells of a genotype, global average pooling, linear; no auxiliary head."""

    def __init__(self, genotype: Genotype, classes: int, width: int, cells: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(_conv(3, 3 * width, 3), norm(3 * width, True))
        self.cells = nn.ModuleList()
        ins, halved, size = (3 * width, 3 * width), False, width
        for index in range(cells):
            reduction = index in (cells // 3, 2 * cells // 3)
            size *= 2 if reduction else 1
            self.cells.append(DartsCell(genotype, ins, size, reduction, halved))
            ins, halved = (ins[1], len(self.cells[-1].concat) * size), reduction
        self.classifier = nn.Module()
        self.classifier.classifier = nn.Linear(ins[1], classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (N, classes) of images (N, 3, H, W)."""
        before = last = self.stem(x)
        for cell in self.cells:
            before, last = last, cell(before, last)
        return self.classifier.classifier(last.mean(dim=(2, 3)))


class ConvBNRelu(nn.Module):
    """Convolution, batch norm, ReLU."""

    def __init__(self, ins: int, outs: int, kernel: int) -> None:
        super().__init__()
        self.conv_bn_relu = nn.Sequential(_conv(ins, outs, kernel), norm(outs, True), nn.ReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to the same sides."""
        return self.conv_bn_relu(x)


class BenchModule(nn.Module):
    """A NAS-Bench-101 cell."""

    def __init__(self, spec: Spec, ins: int, outs: int) -> None:
        super().__init__()
        self.matrix, self.last = spec.matrix, len(spec.matrix) - 1
        self.channels = vertex_channels(spec.matrix, ins, outs)
        self.vertex_op, self.input_op = nn.ModuleDict(), nn.ModuleDict()
        for vertex, name in enumerate(spec.operations):
            size = self.channels[vertex]
            if name in KERNELS:
                operation: nn.Module = ConvBNRelu(size, size, KERNELS[name])
                self.vertex_op[str(vertex)] = nn.ModuleDict({name: operation})
            elif 0 < vertex < self.last:
                self.vertex_op[str(vertex)] = nn.ModuleDict({name: nn.MaxPool2d(3, 1, 1)})
            if self.matrix[0][vertex]:
                self.input_op[str(vertex)] = nn.ModuleDict({"conv1x1": ConvBNRelu(ins, size, 1)})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to the same sides."""
        states: dict[int, torch.Tensor] = {}
        for vertex in range(1, self.last + 1):
            parts = [
                states[source][:, : self.channels[vertex]]
                for source in range(1, vertex)
                if self.matrix[source][vertex]
            ]
            if vertex == self.last and parts:
                parts = [torch.cat([states[k] for k in states if self.matrix[k][vertex]], dim=1)]
            if self.matrix[0][vertex]:
                parts.append(self.input_op[str(vertex)]["conv1x1"](x))
            state = sum(parts[1:], start=parts[0])
            if vertex < self.last:
                (operation,) = self.vertex_op[str(vertex)].values()
                state = operation(state)
            states[vertex] = state
        return states[self.last]


class Bench(nn.Module):
    """A network of NAS-Bench-101 with the stem `cifar`."""

    def __init__(self, spec: Spec, classes: int, width: int, stacks: int, modules: int) -> None:
        super().__init__()
        self.stem = nn.ModuleDict({"conv3x3": ConvBNRelu(3, width, 3)})
        self.layers, ins = nn.ModuleList(), width
        for stack in range(stacks):
            if stack:
                self.layers.append(nn.MaxPool2d(2, 2))
            for _ in range(modules):
                self.layers.append(BenchModule(spec.pruned(), ins, width * 2**stack))
                ins = width * 2**stack
        self.classifier = nn.Module()
        self.classifier.classifier = nn.Linear(ins, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (N, classes) of images (N, 3, H, W)."""
        x = self.stem["conv3x3"](x)
        for layer in self.layers:
            x = layer(x)
        return self.classifier.classifier(x.mean(dim=(2, 3)))


def of_config(
    config: Mapping[str, Any], cells: Any, classes: int, tensors: Mapping[str, Any]
) -> nn.Module:
    """The network of a training's config with the tensors of `unnas_jax.convert.params_to_torch`.

    Args:
      config: as a dict; the stem is `cifar`, and there is no auxiliary head.
      cells: the genotype or the NAS-Bench-101 cell that it names.
      classes: of the head.
      tensors: arrays by name.
    """
    section = config["network"]
    width = int(section["width"])
    if section["space"] == "darts":
        model: nn.Module = Darts(cells, classes, width, section["cells"])
    else:
        model = Bench(cells, classes, width, section["stacks"], section["modules"])
    model.load_state_dict(
        {name.removeprefix("net_."): torch.tensor(value) for name, value in tensors.items()}
    )
    return model.to(memory_format=torch.channels_last)


def training_step(
    model: nn.Module, config: Mapping[str, Any], mean: Any, std: Any, *, compiled: bool
) -> Callable[[torch.Tensor, torch.Tensor], float]:
    """A function of uint8 images (B, H, W, 3) and labels (B,): one SGD step; the loss before it.

    Args:
      model: is trained in place.
      config: of the training; its section `weights` is used, at the full learning rate.
      mean, std: of the colours in [0, 1].
      compiled: whether through `torch.compile`.
    """
    c = config["weights"]
    optimizer = torch.optim.SGD(
        model.parameters(),
        c["learning_rate"],
        momentum=c["momentum"],
        nesterov=c["nesterov"],
        weight_decay=c["weight_decay"],
    )
    shift, scale = (torch.tensor(value, dtype=torch.float32) for value in (mean, std))
    forward = torch.compile(model) if compiled else model

    def step(images: torch.Tensor, labels: torch.Tensor) -> float:
        # Permuted, images are channels last.
        x = ((images / 255.0 - shift) / scale).permute(0, 3, 1, 2)
        loss = functional.cross_entropy(forward(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return step

"""The supernet and its search step in eager PyTorch, edge by edge: what the search is timed beside.

Written from the method's definition (DARTS, section 2; the operations of its table) in the way
that PyTorch code writes it: a module an operation, channels last. Parameters have the names of the
method's PyTorch release, so that `unnas_jax.convert` brings weights over.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from unnas_jax.spaces.darts.candidates import OPERATIONS


def norm(channels: int, affine: bool = False) -> nn.BatchNorm2d:
    """Batch norm with the method's constants."""
    return nn.BatchNorm2d(channels, eps=1e-5, momentum=0.1, affine=affine)


class ReluConvBN(nn.Module):
    """ReLU, 1x1 convolution, batch norm."""

    def __init__(self, ins: int, outs: int, affine: bool = False) -> None:
        super().__init__()
        conv = nn.Conv2d(ins, outs, 1, bias=False)
        self.op = nn.Sequential(nn.ReLU(), conv, norm(outs, affine))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to the same sides."""
        return self.op(x)


class FactorizedReduction(nn.Module):
    """ReLU, two 1x1 convolutions of stride 2, one of them of the image moved by a pixel, BN."""

    def __init__(self, ins: int, outs: int, affine: bool = False) -> None:
        super().__init__()
        self.conv_1 = nn.Conv2d(ins, outs // 2, 1, stride=2, bias=False)
        self.conv_2 = nn.Conv2d(ins, outs // 2, 1, stride=2, bias=False)
        self.bn = norm(outs, affine)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to half the sides."""
        x = functional.relu(x)
        moved = functional.pad(x[:, :, 1:, 1:], (0, 1, 0, 1))
        return self.bn(torch.cat([self.conv_1(x), self.conv_2(moved)], dim=1))


class Separable(nn.Module):
    """ReLU, depthwise, pointwise, BN; once (dilated by 2) or twice."""

    def __init__(
        self,
        channels: int,
        kernel: int,
        stride: int,
        dilation: int,
        times: int,
        affine: bool = False,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for half in range(times):
            layers += [
                nn.ReLU(),
                nn.Conv2d(
                    channels,
                    channels,
                    kernel,
                    stride=stride if half == 0 else 1,
                    padding=dilation * (kernel // 2),
                    dilation=dilation,
                    groups=channels,
                    bias=False,
                ),
                nn.Conv2d(channels, channels, 1, bias=False),
                norm(channels, affine),
            ]
        self.op = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to sides divided by the stride."""
        return self.op(x)


class Zero(nn.Module):
    """The operation `none`."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Zeros of the output's shape."""
        return torch.zeros_like(x[:, :, :: self.stride, :: self.stride])


def _operation(name: str, channels: int, stride: int) -> nn.Module:
    if name == "none":
        return Zero(stride)
    if name == "max_pool_3x3":
        return nn.Sequential(nn.MaxPool2d(3, stride, 1), norm(channels))
    if name == "avg_pool_3x3":
        pool = nn.AvgPool2d(3, stride, 1, count_include_pad=False)
        return nn.Sequential(pool, norm(channels))
    if name == "skip_connect":
        return nn.Identity() if stride == 1 else FactorizedReduction(channels, channels)
    kernel, dilated = int(name[-1]), name.startswith("dil")
    return Separable(channels, kernel, stride, 2 if dilated else 1, 1 if dilated else 2)


class MixedOperation(nn.Module):
    """All operations of an edge, weighted."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self._ops = nn.ModuleList(_operation(name, channels, stride) for name in OPERATIONS)

    def forward(self, x: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """The weighted sum."""
        return sum(w * op(x) for w, op in zip(weights, self._ops, strict=True))


class Cell(nn.Module):
    """Nodes that sum the mixed operations of both inputs and all earlier nodes."""

    def __init__(
        self, ins: tuple[int, int], channels: int, nodes: int, reduction: bool, halved: bool
    ) -> None:
        super().__init__()
        first = FactorizedReduction if halved else ReluConvBN
        self.preprocess0 = first(ins[0], channels)
        self.preprocess1 = ReluConvBN(ins[1], channels)
        self.nodes = nodes
        self._ops = nn.ModuleList(
            MixedOperation(channels, 2 if reduction and source < 2 else 1)
            for node in range(nodes)
            for source in range(node + 2)
        )

    def forward(
        self, input0: torch.Tensor, input1: torch.Tensor, weights: torch.Tensor
    ) -> torch.Tensor:
        """Weights (edges, operations)."""
        states, edge = [self.preprocess0(input0), self.preprocess1(input1)], 0
        for _ in range(self.nodes):
            count = len(states)
            states.append(
                sum(self._ops[edge + k](states[k], weights[edge + k]) for k in range(count))
            )
            edge += count
        return torch.cat(states[2:], dim=1)


class Supernet(nn.Module):
    """Stem `imagenet`, cells, head.

    The head pools every image and answers `group` of them together with a linear layer, or, if
    `dense`, answers each pixel with a 1x1 convolution, upsampled to the input's sides.
    """

    def __init__(
        self,
        classes: int,
        width: int,
        cells: int,
        nodes: int,
        channels: int = 3,
        group: int = 1,
        dense: bool = False,
    ) -> None:
        super().__init__()
        self.group, self.dense = group, dense

        def conv(ins: int, outs: int) -> nn.Conv2d:
            return nn.Conv2d(ins, outs, 3, stride=2, padding=1, bias=False)

        self.stem0 = nn.Sequential(
            conv(channels, width // 2),
            norm(width // 2, True),
            nn.ReLU(),
            conv(width // 2, width),
            norm(width, True),
        )
        self.stem1 = nn.Sequential(nn.ReLU(), conv(width, width), norm(width, True))
        self.cells = nn.ModuleList()
        ins, halved, size = (width, width), True, width
        self.reductions = (cells // 3, 2 * cells // 3)
        for index in range(cells):
            reduction = index in self.reductions
            size *= 2 if reduction else 1
            self.cells.append(Cell(ins, size, nodes, reduction, halved))
            ins, halved = (ins[1], nodes * size), reduction
        self.classifier = nn.Module()
        self.classifier.classifier = (
            nn.Conv2d(ins[1], classes, 1) if dense else nn.Linear(group * ins[1], classes)
        )
        rows = sum(node + 2 for node in range(nodes))
        self.alphas_normal = nn.Parameter(1e-3 * torch.randn(rows, len(OPERATIONS)))
        self.alphas_reduce = nn.Parameter(1e-3 * torch.randn(rows, len(OPERATIONS)))

    def alphas(self) -> list[nn.Parameter]:
        """The architecture parameters."""
        return [self.alphas_normal, self.alphas_reduce]

    def weights(self) -> list[nn.Parameter]:
        """All other parameters."""
        return [value for name, value in self.named_parameters() if not name.startswith("alphas")]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (N / group, classes) or (N, classes, H, W) of images (N, channels, H, W)."""
        before = self.stem0(x)
        last = self.stem1(before)
        normal = self.alphas_normal.softmax(dim=-1)
        reduce = self.alphas_reduce.softmax(dim=-1)
        for index, cell in enumerate(self.cells):
            weights = reduce if index in self.reductions else normal
            before, last = last, cell(before, last, weights)
        if self.dense:
            logits = self.classifier.classifier(last)
            return functional.interpolate(
                logits, size=x.shape[2:], mode="bilinear", align_corners=True
            )
        pooled = last.mean(dim=(2, 3))
        return self.classifier.classifier(pooled.reshape(-1, self.group * pooled.shape[1]))


def of_variables(tensors: dict[str, Any], classes: int, network: dict[str, Any]) -> Supernet:
    """The supernet with the tensors that `unnas_jax.convert.params_to_torch` gives, as arrays."""
    model = Supernet(classes, network["width"], network["cells"], network["nodes"])
    state = {name.removeprefix("net_."): torch.tensor(value) for name, value in tensors.items()}
    model.load_state_dict(state)
    return model.to(memory_format=torch.channels_last)


def loss_and_alpha_gradients(
    model: Supernet, inputs: Any, targets: Any
) -> tuple[float, dict[str, Any]]:
    """Mean cross entropy of inputs (N, H, W, C), and its gradients in the alphas; arrays."""
    images = torch.tensor(inputs).permute(0, 3, 1, 2)
    value = functional.cross_entropy(model(images), torch.tensor(targets, dtype=torch.long))
    normal, reduce = torch.autograd.grad(value, model.alphas())
    return float(value.detach()), {"normal": normal.numpy(), "reduce": reduce.numpy()}


Loss = Callable[[Any], torch.Tensor]
"""(what a step is given) -> the loss."""

Step = Callable[[Any], torch.Tensor]
"""(what the loss is given) -> the loss before the step; changes the model."""


def search_steps(model: Supernet, config: dict[str, Any], loss: Loss) -> tuple[Step, Step]:
    """The alpha step and the weight step of a search.

    Both gradients are as a search takes them: each pass computes only what its step uses.
    """
    own, other = model.weights(), model.alphas()
    c = config["weights"]
    weights = torch.optim.SGD(
        own, c["learning_rate"], momentum=c["momentum"], weight_decay=c["weight_decay"]
    )
    a = config["alphas"]
    alphas = torch.optim.Adam(
        other, a["learning_rate"], betas=(a["b1"], a["b2"]), weight_decay=a["weight_decay"]
    )

    def step(optimizer: torch.optim.Optimizer, frozen: list[nn.Parameter], batch: Any) -> Any:
        for parameter in frozen:
            parameter.requires_grad_(False)
        optimizer.zero_grad()
        value = loss(batch)
        value.backward()
        for parameter in frozen:
            parameter.requires_grad_(True)
        if optimizer is weights:
            nn.utils.clip_grad_norm_(own, c["clip_norm"])
        optimizer.step()
        return value.detach()

    return (lambda batch: step(alphas, own, batch)), (lambda batch: step(weights, other, batch))


def rotation_loss(model: Supernet, device: str = "cpu") -> Loss:
    """The loss of uint8 images (B, 3, H, W) in their four turns."""
    labels: dict[int, torch.Tensor] = {}
    mean = torch.tensor([0.485, 0.456, 0.406], device=device)[:, None, None]
    std = torch.tensor([0.229, 0.224, 0.225], device=device)[:, None, None]

    def loss(images: torch.Tensor) -> torch.Tensor:
        x = (images / 255.0 - mean) / std
        turned = torch.cat([torch.rot90(x, k, (2, 3)) for k in range(4)])
        turned = turned.contiguous(memory_format=torch.channels_last)
        count = len(images)
        if count not in labels:
            labels[count] = torch.arange(4, device=device).repeat_interleave(count)
        return functional.cross_entropy(model(turned), labels[count])

    return loss


def rotation_step(model: Supernet, config: dict[str, Any]) -> Step:
    """A function of uint8 images (B, 3, H, W): an alpha step, a weight step; the last loss."""
    of_alphas, of_weights = search_steps(model, config, rotation_loss(model))

    def step(images: torch.Tensor) -> torch.Tensor:
        of_alphas(images)
        return of_weights(images)

    return step

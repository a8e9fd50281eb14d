"""The layers of exported PyTorch files, as text; a file contains those that it uses."""

import re

HEAD = '''"""{says}"""

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import nn'''

SOURCES = {
    "conv": '''def conv(ins, outs, kernel, stride=1, dilation=1, groups=1):
    """A convolution without bias that at stride 1 keeps the size."""
    kernel = kernel if isinstance(kernel, tuple) else (kernel, kernel)
    padding = tuple(dilation * (k // 2) for k in kernel)
    return nn.Conv2d(ins, outs, kernel, stride, padding, dilation, groups, bias=False)''',
    "ConvBN": '''class ConvBN(nn.Sequential):
    """3x3 convolution, batch norm."""

    def __init__(self, ins, outs):
        super().__init__(OrderedDict(convolution=conv(ins, outs, 3), bn=nn.BatchNorm2d(outs)))''',
    "ConvBNRelu": '''class ConvBNRelu(nn.Module):
    """Convolution, batch norm, ReLU."""

    def __init__(self, ins, outs, kernel, stride=1):
        super().__init__()
        self.convolution = conv(ins, outs, kernel, stride)
        self.bn = nn.BatchNorm2d(outs)

    def forward(self, x):
        return F.relu(self.bn(self.convolution(x)))''',
    "ReluConvBN": '''class ReluConvBN(nn.Module):
    """ReLU, convolution, batch norm."""

    def __init__(self, ins, outs, kernel=1, stride=1):
        super().__init__()
        self.convolution = conv(ins, outs, kernel, stride)
        self.bn = nn.BatchNorm2d(outs)

    def forward(self, x):
        return self.bn(self.convolution(F.relu(x)))''',
    "FactorizedReduction": '''class FactorizedReduction(nn.Module):
    """Halves the sides: half of the channels from the image, half from it moved by a pixel."""

    def __init__(self, ins, outs):
        super().__init__()
        self.conv_1 = conv(ins, outs // 2, 1, stride=2)
        self.conv_2 = conv(ins, outs - outs // 2, 1, stride=2)
        self.bn = nn.BatchNorm2d(outs)

    def forward(self, x):
        x = F.relu(x)
        moved = F.pad(x[:, :, 1:, 1:], (0, 1, 0, 1))
        return self.bn(torch.cat([self.conv_1(x), self.conv_2(moved)], dim=1))''',
    "Separable": '''class Separable(nn.Sequential):
    """`repeats` times: ReLU, depthwise convolution, pointwise convolution, batch norm."""

    def __init__(self, channels, kernel, stride, dilation=1, repeats=1):
        layers = OrderedDict()
        for k in range(repeats):
            step = stride if k == 0 else 1
            layers[f"relu_{k}"] = nn.ReLU()
            layers[f"depthwise_{k}"] = conv(
                channels, channels, kernel, step, dilation, groups=channels
            )
            layers[f"pointwise_{k}"] = conv(channels, channels, 1)
            layers[f"bn_{k}"] = nn.BatchNorm2d(channels)
        super().__init__(layers)''',
    "Spatial": '''class Spatial(nn.Module):
    """ReLU, 1xk and kx1 convolutions, batch norm."""

    def __init__(self, channels, kernel, stride):
        super().__init__()
        self.row = conv(channels, channels, (1, kernel), (1, stride))
        self.column = conv(channels, channels, (kernel, 1), (stride, 1))
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x):
        return self.bn(self.column(self.row(F.relu(x))))''',
    "Zero": '''class Zero(nn.Module):
    """Zeros."""

    def __init__(self, stride):
        super().__init__()
        self.stride = stride

    def forward(self, x):
        return torch.zeros_like(x[:, :, :: self.stride, :: self.stride])''',
    "CifarStem": '''class CifarStem(nn.Module):
    """3x3 convolution and batch norm: both inputs of the first cell."""

    def __init__(self, ins, width):
        super().__init__()
        self.conv_0 = conv(ins, 3 * width, 3)
        self.bn_0 = nn.BatchNorm2d(3 * width)

    def forward(self, x):
        x = self.bn_0(self.conv_0(x))
        return x, x''',
    "ImageNetStem": '''class ImageNetStem(nn.Module):
    """3x3 convolutions of stride 2: the inputs of the first cell, at 1/4 and 1/8 of the sides."""

    def __init__(self, ins, width):
        super().__init__()
        self.conv_0 = conv(ins, width // 2, 3, stride=2)
        self.bn_0 = nn.BatchNorm2d(width // 2)
        self.conv_1 = conv(width // 2, width, 3, stride=2)
        self.bn_1 = nn.BatchNorm2d(width)
        self.conv_2 = conv(width, width, 3, stride=2)
        self.bn_2 = nn.BatchNorm2d(width)

    def forward(self, x):
        x = F.relu(self.bn_0(self.conv_0(x)))
        first = self.bn_1(self.conv_1(x))
        return first, self.bn_2(self.conv_2(F.relu(first)))''',
    "Reduction": '''class Reduction(nn.Module):
    """A residual block that halves the sides."""

    def __init__(self, ins, outs):
        super().__init__()
        self.shortcut = conv(ins, outs, 1)
        self.block_0 = ReluConvBN(ins, outs, 3, stride=2)
        self.block_1 = ReluConvBN(outs, outs, 3)

    def forward(self, x):
        return self.shortcut(F.avg_pool2d(x, 2)) + self.block_1(self.block_0(x))''',
    "ImageHead": '''class ImageHead(nn.Module):
    """The mean over all pixels, of `group` images that follow each other; a linear layer."""

    def __init__(self, features, classes, group):
        super().__init__()
        self.group = group
        self.linear = nn.Linear(group * features, classes)

    def forward(self, x):
        x = x.mean(dim=(2, 3))
        return self.linear(x.reshape(len(x) // self.group, -1))''',
    "AsppHead": '''class AsppHead(nn.Module):
    """Atrous spatial pyramid pooling, and a class for every pixel (DeepLabv3)."""

    def __init__(self, features, classes, channels, rates):
        super().__init__()
        self.rates = rates
        self.conv_pixel = conv(features, channels, 1)
        self.bn_pixel = nn.BatchNorm2d(channels)
        for rate in rates:
            self.add_module(f"conv_rate_{rate}", conv(features, channels, 3, dilation=rate))
            self.add_module(f"bn_rate_{rate}", nn.BatchNorm2d(channels))
        self.conv_image = conv(features, channels, 1)
        self.bn_image = nn.BatchNorm2d(channels)
        self.conv_join = conv((2 + len(rates)) * channels, channels, 1)
        self.bn_join = nn.BatchNorm2d(channels)
        self.classifier = nn.Conv2d(channels, classes, 1)

    def layer(self, name, x):
        return F.relu(getattr(self, f"bn_{name}")(getattr(self, f"conv_{name}")(x)))

    def forward(self, x):
        branches = [self.layer(name, x) for name in ["pixel", *(f"rate_{r}" for r in self.rates)]]
        image = self.layer("image", x.mean(dim=(2, 3), keepdim=True))
        branches.append(image.expand_as(branches[0]))
        return self.classifier(self.layer("join", torch.cat(branches, dim=1)))''',
}
"""The text of every layer; modules are called as those of the Flax networks are."""


def needed(names: set[str]) -> list[str]:
    """These layers and those that they are made of, in an order in which each is defined."""
    found = set(names)

    def parts(text: str) -> set[str]:
        return {name for name in SOURCES if re.search(rf"\b{name}\(", text)}

    while more := set().union(*(parts(SOURCES[name]) for name in found)) - found:
        found |= more
    return [name for name in SOURCES if name in found]

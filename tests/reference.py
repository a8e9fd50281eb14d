"""The numerical definitions that tests compare with: NumPy, float64, as written in the papers.

Nothing here shares code with the package. Images are (N, H, W, C), kernels (kh, kw, in, out).
Convolutions and pools take their windows tap by tap from a padded image.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

EPSILON = 1e-5


def random_like(shapes: Any, seed: int, dtype: Any = np.float64) -> Any:
    """A tree of variables (`params`, `batch_stats`) of the given shapes with no special values.

    BN scales and variances are positive; kernels are large enough to let signals pass.
    """
    rng = np.random.default_rng(seed)

    def draw(path: tuple[str, ...], node: Any) -> Any:
        if isinstance(node, Mapping):
            return {name: draw((*path, name), child) for name, child in node.items()}
        if path[-1] in ("scale", "var"):
            return rng.uniform(0.5, 1.5, node.shape).astype(dtype)
        scale = 0.3 if path[-1] in ("bias", "mean") else 0.5
        return (scale * rng.standard_normal(node.shape)).astype(dtype)

    return draw((), shapes)


def relu(x: np.ndarray) -> np.ndarray:
    return np.where(x > 0, x, 0.0)


def _taps(
    x: np.ndarray,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: int,
    fill: float,
) -> np.ndarray:
    """(kh * kw, N, H', W', C): for each place in the window, the pixel that it sees."""
    n, height, width, channels = x.shape
    wide = np.full((n, height + 2 * padding[0], width + 2 * padding[1], channels), fill)
    wide[:, padding[0] : padding[0] + height, padding[1] : padding[1] + width] = x
    rows = (wide.shape[1] - dilation * (kernel[0] - 1) - 1) // stride[0] + 1
    columns = (wide.shape[2] - dilation * (kernel[1] - 1) - 1) // stride[1] + 1
    taps = np.empty((kernel[0] * kernel[1], n, rows, columns, channels))
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            for row in range(rows):
                for column in range(columns):
                    taps[i * kernel[1] + j, :, row, column] = wide[
                        :, row * stride[0] + i * dilation, column * stride[1] + j * dilation
                    ]
    return taps


def conv2d(
    x: np.ndarray,
    kernel: np.ndarray,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    dilation: int = 1,
    groups: int = 1,
) -> np.ndarray:
    """Group g maps its share of the input channels to its share of the output channels."""
    height, width, ins, outs = kernel.shape
    taps = _taps(x, (height, width), stride, padding, dilation, 0.0)
    weights = kernel.reshape(height * width, ins, groups, outs // groups)
    outputs = [
        np.einsum("tnhwi,tio->nhwo", taps[..., g * ins : (g + 1) * ins], weights[:, :, g])
        for g in range(groups)
    ]
    return np.concatenate(outputs, axis=-1)


def pool(x: np.ndarray, kind: str, kernel: int, stride: int, padding: int) -> np.ndarray:
    """Max, or the mean over those pixels of the window that lie in the image."""
    taps = _taps(x, (kernel,) * 2, (stride,) * 2, (padding,) * 2, 1, np.nan)
    return np.nanmax(taps, axis=0) if kind == "max" else np.nanmean(taps, axis=0)


def batch_norm(
    x: np.ndarray,
    affine: Mapping[str, np.ndarray] | None = None,
    running: Mapping[str, np.ndarray] | None = None,
) -> np.ndarray:
    """With the batch's own statistics, or with `running` ones."""
    flat = x.reshape(-1, x.shape[-1])
    mean = flat.mean(axis=0) if running is None else running["mean"]
    variance = ((flat - mean) ** 2).mean(axis=0) if running is None else running["var"]
    y = (x - mean) / np.sqrt(variance + EPSILON)
    return y if affine is None else y * affine["scale"] + affine["bias"]


def updated(running: Mapping[str, np.ndarray], x: np.ndarray) -> dict[str, np.ndarray]:
    """The running statistics after a batch of inputs `x`."""
    flat = x.reshape(-1, x.shape[-1])
    return {
        "mean": 0.9 * running["mean"] + 0.1 * flat.mean(axis=0),
        "var": 0.9 * running["var"] + 0.1 * flat.var(axis=0),
    }


def factorized_reduction(x: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Before its BN. `first` and `second`: (C_in, C_out / 2)."""
    x = relu(x)
    moved = np.zeros_like(x)
    moved[:, :-1, :-1] = x[:, 1:, 1:]
    return np.concatenate([x[:, ::2, ::2] @ first, moved[:, ::2, ::2] @ second], axis=-1)


def separable(
    x: np.ndarray, depthwise: np.ndarray, pointwise: np.ndarray, stride: int, dilation: int
) -> np.ndarray:
    """ReLU, depthwise (k, k, C), pointwise (C, C'): before the BN."""
    size, channels = depthwise.shape[0], x.shape[-1]
    x = conv2d(
        relu(x),
        depthwise.reshape(size, size, 1, channels),
        (stride, stride),
        (dilation * (size // 2),) * 2,
        dilation,
        groups=channels,
    )
    return x @ pointwise


_SEPARABLE = {  # kernel, dilation, repeats
    "sep_conv_3x3": (3, 1, 2),
    "sep_conv_5x5": (5, 1, 2),
    "sep_conv_7x7": (7, 1, 2),
    "dil_conv_3x3": (3, 2, 1),
    "dil_conv_5x5": (5, 2, 1),
    "dil_sep_conv_3x3": (3, 2, 2),
}


def operation(name: str, x: np.ndarray, params: Mapping[str, Any], stride: int) -> np.ndarray:
    """An operation of a discrete network in training; `params` is its module's tree."""

    def kernel(layer: str) -> np.ndarray:
        return params[layer]["conv"]["kernel"]

    if name == "none":
        return np.zeros((len(x), -(-x.shape[1] // stride), -(-x.shape[2] // stride), x.shape[3]))
    if name == "skip_connect" and stride == 1:
        return x
    if name == "skip_connect":
        y = factorized_reduction(x, kernel("conv_1")[0, 0], kernel("conv_2")[0, 0])
        return batch_norm(y, params["bn"])
    if "pool" in name:
        size = int(name[-1])
        return pool(x, name[:3], size, stride, 0 if size == 2 else size // 2)
    if name in ("conv_1x1", "conv_3x3"):
        pad = int(name[-1]) // 2
        y = conv2d(relu(x), kernel("convolution"), (stride,) * 2, (pad,) * 2)
        return batch_norm(y, params["bn"])
    if name in ("conv_3x1_1x3", "conv_7x1_1x7"):
        pad = int(name[-1]) // 2
        y = conv2d(relu(x), kernel("row"), (1, stride), (0, pad))
        y = conv2d(y, kernel("column"), (stride, 1), (pad, 0))
        return batch_norm(y, params["bn"])
    _, dilation, repeats = _SEPARABLE[name]
    for half in range(repeats):
        depthwise = kernel(f"depthwise_{half}")[:, :, 0]
        pointwise = kernel(f"pointwise_{half}")[0, 0]
        x = separable(x, depthwise, pointwise, stride if half == 0 else 1, dilation)
        x = batch_norm(x, params[f"bn_{half}"])
    return x


def mixed_edge(
    x: np.ndarray,
    weights: Mapping[str, float],
    kernels: Mapping[str, np.ndarray],
    stride: int,
) -> np.ndarray:
    """The weighted sum of the eight operations of a supernet's edge, in training.

    Args:
      x: (N, H, W, C), the state that the edge leaves.
      weights: of the operations by name.
      kernels: `<operation>_<first or second>_depthwise` (k, k, C) and `_pointwise` (C, C); at
        stride 2 also `skip_connect_conv_1` and `_2` (C, C / 2).
      stride: 1 or 2.
    """
    total = weights["none"] * np.zeros_like(x[:, ::stride, ::stride])
    for kind in ("max", "avg"):
        total += weights[f"{kind}_pool_3x3"] * batch_norm(pool(x, kind, 3, stride, 1))
    skip = x
    if stride == 2:
        reduced = factorized_reduction(
            x, kernels["skip_connect_conv_1"], kernels["skip_connect_conv_2"]
        )
        skip = batch_norm(reduced)
    total += weights["skip_connect"] * skip
    for name in ("sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5"):
        _, dilation, repeats = _SEPARABLE[name]
        y = x
        for half in range(repeats):
            prefix = f"{name}_{('first', 'second')[half]}"
            y = separable(
                y,
                kernels[f"{prefix}_depthwise"],
                kernels[f"{prefix}_pointwise"],
                stride if half == 0 else 1,
                dilation,
            )
            y = batch_norm(y)
        total += weights[name] * y
    return total


def lift(matrix_rows: np.ndarray, size: int) -> np.ndarray:
    """Linear interpolation of (h, ...) to (size, ...) with aligned corners, sample by sample."""
    source = len(matrix_rows)
    out = []
    for k in range(size):
        place = k * (source - 1) / (size - 1) if size > 1 else 0.0
        below = min(int(np.floor(place)), source - 1)
        above = min(below + 1, source - 1)
        share = place - below
        out.append((1 - share) * matrix_rows[below] + share * matrix_rows[above])
    return np.stack(out)


def bilinear(x: np.ndarray, height: int, width: int) -> np.ndarray:
    """(N, h, w, K) to (N, height, width, K), aligned corners."""
    x = np.moveaxis(lift(np.moveaxis(x, 1, 0), height), 0, 1)
    return np.moveaxis(lift(np.moveaxis(x, 2, 0), width), 0, 2)


def cross_entropy(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """-log softmax(logits)[target] along the last axis."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    log_sum = np.log(np.exp(shifted).sum(axis=-1))
    return log_sum - np.take_along_axis(shifted, targets[..., None], axis=-1)[..., 0]

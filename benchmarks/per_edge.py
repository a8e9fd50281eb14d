"""The supernet in its plain formulation: every operation on every edge by itself, then summed.

It takes the variables of `unnas_jax.spaces.darts.supernet.Supernet` and equals it up to rounding.
The tests hold the supernet to this definition; `search_step.py` measures what the formulation by
source state gains over it.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from unnas_jax.core import precision, sharding
from unnas_jax.tasks.base import Task

Tree = Mapping[str, Any]

_EPSILON, _MOMENTUM = 1e-5, 0.9
_OPERATIONS = (
    "none",
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)
_CONVOLUTIONS = ("sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5")


def supernet(
    params: Tree,
    batch_stats: Tree,
    inputs: jax.Array,
    alphas: Tree,
    *,
    width: int,
    cells: int,
    nodes: int,
    stem: str,
    head_apply: Callable[[Tree, jax.Array], jax.Array],
    train: bool,
    single_reduction: bool = False,
) -> tuple[jax.Array, dict[str, Any]]:
    """The outputs and the running statistics after them.

    Args:
      params: of a `Supernet`.
      batch_stats: the running statistics of one.
      inputs: (N, H, W, channels); their type is the type that is computed in.
      alphas: `normal` and `reduce`, each (edges, operations).
      width: see `Supernet`.
      cells: see `Supernet`.
      nodes: see `Supernet`.
      stem: see `Supernet`.
      head_apply: (the head's parameters, features) to outputs.
      train: whether batch norm uses the batch's statistics and updates the running ones.
      single_reduction: see `Supernet`.
    """
    weights = {kind: jax.nn.softmax(value, axis=-1) for kind, value in alphas.items()}
    (before, last), stem_stats = _stem(
        params["stem"], batch_stats["stem"], inputs, stem=stem, train=train
    )
    new_stats: dict[str, Any] = {"stem": stem_stats}
    reducing = {cells // 3} if single_reduction else {cells // 3, 2 * cells // 3}
    channels, halved = width, stem == "imagenet"
    for index in range(cells):
        reduction, name = index in reducing, f"cell_{index}"
        channels *= 2 if reduction else 1
        output, new_stats[name] = _cell(
            params[name],
            batch_stats[name],
            before,
            last,
            weights["reduce" if reduction else "normal"],
            channels=channels,
            nodes=nodes,
            reduction=reduction,
            halved=halved,
            train=train,
        )
        before, last, halved = last, output, reduction
    return head_apply(params.get("head", {}), last), new_stats


class PerEdge:
    """The plain formulation with the interface of a linen module."""

    def __init__(self, c: dict[str, Any], task: Task) -> None:
        head = task.head(precision.compute_dtype(c["precision"]))
        self._dtype = precision.compute_dtype(c["precision"])
        self._run = functools.partial(
            supernet,
            **c["network"],
            head_apply=lambda params, x: head.apply({"params": params}, x, True),
            single_reduction=task.single_reduction,
        )

    def apply(
        self, variables: Any, inputs: jax.Array, alphas: Any, *, train: bool, mutable: Any = None
    ) -> Any:
        """Like `linen.Module.apply`."""
        outputs, batch_stats = self._run(
            variables["params"],
            variables["batch_stats"],
            inputs.astype(self._dtype),
            alphas,
            train=train,
        )
        return (outputs, {"batch_stats": batch_stats}) if mutable else outputs


# Outside of a jitted step, edges of one shape share one program.
@functools.partial(jax.jit, static_argnames=("stride", "train"))
def mixed_edge(
    params: Tree, stats: Tree, x: jax.Array, weights: jax.Array, *, stride: int, train: bool
) -> tuple[jax.Array, dict[str, Tree]]:
    """The weighted sum of the eight operations on one edge, and its new running statistics.

    Args:
      params: this edge's kernels, see `edge_params`.
      stats: this edge's running statistics, one `mean` and `var` per batch norm, see `edge_stats`.
      x: (N, H, W, C), the state that the edge leaves.
      weights: (operations,), of the type of x.
      stride: 1, or 2 on the edges from a reduction cell's inputs.
      train: see `supernet`.
    """
    total = jnp.zeros_like(x[:, ::stride, ::stride])
    new_stats: dict[str, Tree] = {}

    def norm(x: jax.Array, name: str) -> jax.Array:
        y, new_stats[name] = _norm(x, stats[name], None, train)
        return y

    for position, name in enumerate(_OPERATIONS):
        if name == "none":
            y = jnp.zeros_like(total)
        elif name.endswith("pool_3x3"):
            y = norm(_pool(x, name, stride), name)
        elif name == "skip_connect" and stride == 1:
            y = x
        elif name == "skip_connect":
            y = norm(
                _factorized(x, params["skip_connect_conv_1"], params["skip_connect_conv_2"]), name
            )
        else:
            y = x
            for half in ("first", "second") if name.startswith("sep") else ("first",):
                y = _separable(
                    y,
                    params[f"{name}_{half}_depthwise"],
                    params[f"{name}_{half}_pointwise"],
                    stride=stride if half == "first" else 1,
                    dilation=2 if name.startswith("dil") else 1,
                )
                y = norm(y, f"{name}_{half}")
        total = total + weights[position] * y
    return total, new_stats


def edge_params(source: Tree, position: int) -> dict[str, jax.Array]:
    """The kernels of the edge at `position` among those that leave a state."""
    result = {}
    for name, value in source.items():
        if name.endswith("_depthwise"):  # (k, k, E, C)
            result[name] = value[:, :, position]
        elif name.endswith("_pointwise"):  # (E, C, C)
            result[name] = value[position]
        else:  # skip_connect_conv_1 and _2: (C, E, C / 2)
            result[name] = value[:, position]
    return result


def edge_stats(source: Tree, position: int, channels: int) -> dict[str, Tree]:
    """The running statistics of the edge at `position` among those that leave a state."""

    def pick(bn: Tree, row: int) -> Tree:
        return {k: v.reshape(-1, channels)[row] for k, v in bn.items()}

    edges = source["bn_first"]["mean"].size // (len(_CONVOLUTIONS) * channels)
    result = {
        "max_pool_3x3": pick(source["bn_pool"], 0),
        "avg_pool_3x3": pick(source["bn_pool"], 1),
    }
    if "bn_skip" in source:
        result["skip_connect"] = pick(source["bn_skip"], position)
    for row, name in enumerate(_CONVOLUTIONS):
        result[f"{name}_first"] = pick(source["bn_first"], row * edges + position)
        if name.startswith("sep"):
            result[f"{name}_second"] = pick(source["bn_second"], row * edges + position)
    return result


def _joined_stats(edges: list[dict[str, Tree]]) -> dict[str, Any]:
    """The inverse of `edge_stats` for all edges that leave a state, in order."""

    def join(parts: list[Tree]) -> Tree:
        return {k: jnp.concatenate([part[k] for part in parts]) for k in ("mean", "var")}

    def every(names: list[str]) -> Tree:
        return join([edge[name] for name in names for edge in edges])

    result = {
        # Of equal batch norms on the edges the supernet keeps one.
        "bn_pool": join([edges[0]["max_pool_3x3"], edges[0]["avg_pool_3x3"]]),
        "bn_first": every([f"{name}_first" for name in _CONVOLUTIONS]),
        "bn_second": every(["sep_conv_3x3_second", "sep_conv_5x5_second"]),
    }
    if "skip_connect" in edges[0]:
        result["bn_skip"] = every(["skip_connect"])
    return result


def _cell(
    params: Tree,
    stats: Tree,
    before: jax.Array,
    last: jax.Array,
    weights: jax.Array,
    *,
    channels: int,
    nodes: int,
    reduction: bool,
    halved: bool,
    train: bool,
) -> tuple[jax.Array, dict[str, Any]]:
    new_stats: dict[str, Any] = {}
    states = []
    for name, x in (("preprocess0", before), ("preprocess1", last)):
        own = params[name]
        if halved and name == "preprocess0":
            kernels = [own[conv]["conv"]["kernel"][0, 0] for conv in ("conv_1", "conv_2")]
            x = _factorized(x, *kernels)
        else:
            x = _conv(jax.nn.relu(x), own["convolution"]["conv"]["kernel"])
        x, bn = _norm(x, stats[name]["bn"], None, train)
        states.append(x)
        new_stats[name] = {"bn": bn}
    leaving: dict[int, list[dict[str, Tree]]] = {source: [] for source in range(nodes + 1)}
    row = 0
    for node in range(nodes):
        total: Any = 0
        for source in range(node + 2):
            position, name = len(leaving[source]), f"source_{source}"
            output, edge = mixed_edge(
                edge_params(params[name], position),
                edge_stats(stats[name], position, channels),
                states[source],
                weights[row].astype(before.dtype),
                stride=2 if reduction and source < 2 else 1,
                train=train,
            )
            total = total + output
            leaving[source].append(edge)
            row += 1
        states.append(total)
    new_stats |= {f"source_{source}": _joined_stats(edges) for source, edges in leaving.items()}
    return jnp.concatenate(states[2:], axis=-1), new_stats


def _stem(
    params: Tree, stats: Tree, x: jax.Array, *, stem: str, train: bool
) -> tuple[tuple[jax.Array, jax.Array], dict[str, Any]]:
    new_stats: dict[str, Any] = {}

    def conv_bn(x: jax.Array, k: int, stride: int) -> jax.Array:
        y = _conv(x, params[f"conv_{k}"]["conv"]["kernel"], stride=stride, pad=1)
        y, new_stats[f"bn_{k}"] = _norm(y, stats[f"bn_{k}"], params[f"bn_{k}"], train)
        return y

    if stem == "cifar":
        x = conv_bn(x, 0, 1)
        return (x, x), new_stats
    first = conv_bn(jax.nn.relu(conv_bn(x, 0, 2)), 1, 2)
    second = conv_bn(jax.nn.relu(first), 2, 2)
    return (first, second), new_stats


def _conv(
    x: jax.Array,
    kernel: jax.Array,
    *,
    stride: int = 1,
    pad: int = 0,
    dilation: int = 1,
    groups: int = 1,
) -> jax.Array:
    return jax.lax.conv_general_dilated(
        x,
        kernel.astype(x.dtype),
        (stride, stride),
        ((pad, pad), (pad, pad)),
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def _separable(
    x: jax.Array, depthwise: jax.Array, pointwise: jax.Array, *, stride: int, dilation: int
) -> jax.Array:
    """ReLU, depthwise (k, k, C), pointwise (C, C)."""
    size = len(depthwise)
    x = _conv(
        jax.nn.relu(x),
        depthwise[:, :, None],
        stride=stride,
        pad=dilation * (size // 2),
        dilation=dilation,
        groups=x.shape[-1],
    )
    return _conv(x, pointwise[None, None])


def _factorized(x: jax.Array, first: jax.Array, second: jax.Array) -> jax.Array:
    """ReLU, then two pointwise stride-2 convolutions of x and of x moved by one pixel."""
    x = jax.nn.relu(x)
    moved = jnp.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)))[:, 1:, 1:]
    parts = [
        _conv(image, kernel[None, None], stride=2)
        for image, kernel in ((x, first), (moved, second))
    ]
    return jnp.concatenate(parts, axis=-1)


def _pool(x: jax.Array, name: str, stride: int) -> jax.Array:
    """3x3, padded by one pixel that does not count."""

    def reduce(x: jax.Array, start: float, function: Any) -> jax.Array:
        return jax.lax.reduce_window(
            x,
            np.asarray(start, x.dtype),  # A constant, or the window reduction has no gradient.
            function,
            (1, 3, 3, 1),
            (1, stride, stride, 1),
            ((0, 0), (1, 1), (1, 1), (0, 0)),
        )

    if name == "max_pool_3x3":
        return reduce(x, -jnp.inf, jax.lax.max)
    ones = jnp.ones((1, *x.shape[1:3], 1), x.dtype)
    return reduce(x, 0.0, jax.lax.add) / reduce(ones, 0.0, jax.lax.add)


def _mean(x: jax.Array) -> jax.Array:
    """The mean over the global batch and its pixels."""
    mean, axis = jnp.mean(x, axis=(0, 1, 2)), sharding.parted_axis()
    return mean if axis is None else jax.lax.pmean(mean, axis)


def _norm(x: jax.Array, stats: Tree, affine: Tree | None, train: bool) -> tuple[jax.Array, Tree]:
    """Batch norm over all but the last axis; statistics in float32 or better."""
    values = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    mean, variance = stats["mean"], stats["var"]
    if train:
        mean = _mean(values)
        variance = _mean((values - mean.reshape(1, 1, 1, -1)) ** 2)
        stats = {
            "mean": _MOMENTUM * stats["mean"] + (1 - _MOMENTUM) * mean,
            "var": _MOMENTUM * stats["var"] + (1 - _MOMENTUM) * variance,
        }
    scale = jax.lax.rsqrt(variance + _EPSILON)
    y = (values - mean.reshape(1, 1, 1, -1)) * scale.reshape(1, 1, 1, -1)
    if affine is not None:
        y = y * affine["scale"].reshape(1, 1, 1, -1) + affine["bias"].reshape(1, 1, 1, -1)
    return y.astype(x.dtype), stats

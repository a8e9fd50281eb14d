"""The variables of a fused supernet as those of the plain definition, and statistics back."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from unnas_jax.spaces.darts import candidates

Tree = Mapping[str, Any]

SEPARABLE = ("sep_conv_3x3", "sep_conv_5x5")
CONVOLUTIONS = (*SEPARABLE, "dil_conv_3x3", "dil_conv_5x5")


def halves(operation: str) -> tuple[str, ...]:
    return ("first", "second") if operation in SEPARABLE else ("first",)


def kernels_of_edge(source: Tree, position: int) -> dict[str, jax.Array]:
    """The kernels of the edge at `position` among those that leave a state, by their names."""
    result = {}
    for name, value in source.items():
        if name.endswith("_depthwise"):  # (k, k, E, C)
            result[name] = value[:, :, position]
        elif name.endswith("_pointwise"):  # (E, C, C)
            result[name] = value[position]
        else:  # skip_connect_conv_1 and _2, auxiliary_skip_conv_1 and _2: (C, E, C / 2)
            result[name] = value[:, position]
    return result


def params_of_edge(source: Tree, position: int) -> dict[str, Any]:
    """Those of the `MixedOperation` that the edge is."""
    kernels = kernels_of_edge(source, position)

    def conv(kernel: jax.Array) -> dict[str, Any]:
        return {"conv": {"kernel": kernel}}

    result: dict[str, Any] = {}
    for name in CONVOLUTIONS:
        result[name] = {}
        for k, half in enumerate(halves(name)):
            depthwise = kernels[f"{name}_{half}_depthwise"][:, :, None]
            result[name][f"depthwise_{k}"] = conv(depthwise)
            result[name][f"pointwise_{k}"] = conv(kernels[f"{name}_{half}_pointwise"][None, None])
    for name in ("skip_connect", "auxiliary_skip"):
        if f"{name}_conv_1" in kernels:
            halving = {f"conv_{k}": conv(kernels[f"{name}_conv_{k}"][None, None]) for k in (1, 2)}
            result[name] = halving
    return result


def stats_of_edge(source: Tree, position: int, channels: int) -> dict[str, Any]:
    """Those of the `MixedOperation` that the edge is."""

    def pick(bn: Tree, row: int) -> dict[str, Any]:
        return {key: value.reshape(-1, channels)[row] for key, value in bn.items()}

    edges = source["bn_first"]["mean"].size // (len(CONVOLUTIONS) * channels)
    result: dict[str, Any] = {
        "max_pool_3x3_bn": pick(source["bn_pool"], 0),
        "avg_pool_3x3_bn": pick(source["bn_pool"], 1),
    }
    for name, bn in (("skip_connect", "bn_skip"), ("auxiliary_skip", "bn_auxiliary_skip")):
        if bn in source:
            result[name] = {"bn": pick(source[bn], position)}
    for row, name in enumerate(CONVOLUTIONS):
        result[name] = {
            f"bn_{k}": pick(source[f"bn_{half}"], row * edges + position)
            for k, half in enumerate(halves(name))
        }
    return result


def _places(nodes: int) -> list[tuple[int, int, int]]:
    """(source, node, position among the edges that leave the source) of every edge."""
    return [(source, node, node - max(source - 1, 0)) for source, node in candidates.edges(nodes)]


def of_fused(params: Tree, stats: Tree, nodes: int, parts: int = 1) -> dict[str, Any]:
    """The variables of the plain definition; operations work on one channel of `parts`."""
    result: dict[str, Any] = {"params": {}, "batch_stats": {}}
    for collection, tree in (("params", params), ("batch_stats", stats)):
        for name, value in tree.items():
            own = {k: v for k, v in value.items() if not k.startswith("source_")}
            if name.startswith("cell_"):
                channels = stats[name]["preprocess1"]["bn"]["mean"].size // parts
                for source, node, position in _places(nodes):
                    edges = value[f"source_{source}"]
                    own[f"edge_{source}_{node}"] = (
                        params_of_edge(edges, position)
                        if collection == "params"
                        else stats_of_edge(edges, position, channels)
                    )
            result[collection][name] = own
    return result


def stats_to_fused(stats: Tree, nodes: int) -> dict[str, Any]:
    """The inverse of `of_fused` for the statistics."""

    def joined(parts: list[Tree]) -> dict[str, Any]:
        return {key: jnp.concatenate([part[key] for part in parts]) for key in ("mean", "var")}

    result: dict[str, Any] = {}
    for name, value in stats.items():
        own = {k: v for k, v in value.items() if not k.startswith("edge_")}
        for source in range(nodes + 1) if name.startswith("cell_") else ():
            edges = [value[f"edge_{s}_{node}"] for s, node, _ in _places(nodes) if s == source]
            own[f"source_{source}"] = {
                # Of equal batch norms on the edges the fused forms keep one.
                "bn_pool": joined([edges[0][f"{kind}_pool_3x3_bn"] for kind in ("max", "avg")]),
                "bn_first": joined([edge[op]["bn_0"] for op in CONVOLUTIONS for edge in edges]),
                "bn_second": joined([edge[op]["bn_1"] for op in SEPARABLE for edge in edges]),
            }
            if "skip_connect" in edges[0]:
                skips = [edge["skip_connect"]["bn"] for edge in edges]
                own[f"source_{source}"]["bn_skip"] = joined(skips)
        result[name] = own
    return result

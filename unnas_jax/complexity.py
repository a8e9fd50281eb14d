"""Parameters and multiply-adds of networks, counted from shapes without running anything."""

from collections.abc import Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core as jax_core

from unnas_jax.spaces.darts.genotype import Genotype
from unnas_jax.spaces.darts.network import Network
from unnas_jax.tasks.heads import ImageHead


def parameters(params: Any) -> int:
    """The number of values in a tree of arrays or shapes."""
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(params))


def _equations(jaxpr: jax_core.Jaxpr) -> Iterator[Any]:
    """All equations of a program, those of the programs it calls included."""
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            for inner in value if isinstance(value, (tuple, list)) else (value,):
                if isinstance(inner, jax_core.ClosedJaxpr):
                    yield from _equations(inner.jaxpr)
                elif isinstance(inner, jax_core.Jaxpr):
                    yield from _equations(inner)


def _multiply_adds(equation: Any) -> int:
    """Of one convolution or matrix product; everything else counts nothing."""
    out = int(np.prod(equation.outvars[0].aval.shape))
    if equation.primitive.name == "conv_general_dilated":
        kernel = equation.invars[1].aval.shape
        features = equation.params["dimension_numbers"].rhs_spec[0]
        return out * int(np.prod(kernel)) // kernel[features]
    if equation.primitive.name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        left = equation.invars[0].aval.shape
        return out * int(np.prod([left[axis] for axis in contracted]))
    return 0


def multiply_adds(function: Any, *arguments: Any) -> dict[str, int]:
    """Multiply-adds of a function's convolutions and matrix products, by layer.

    Args:
      function: a traceable function, such as a network's forward pass.
      *arguments: arrays or `jax.ShapeDtypeStruct`s.

    Returns:
      Multiply-adds by module path (as flax names it), in order of execution.
    """
    counts: dict[str, int] = {}
    for equation in _equations(jax.make_jaxpr(function)(*arguments).jaxpr):
        count = _multiply_adds(equation)
        if count:
            layer = str(equation.source_info.name_stack)
            counts[layer] = counts.get(layer, 0) + count
    return counts


def discrete(
    genotype: Genotype,
    *,
    width: int,
    cells: int,
    stem: str,
    head: nn.Module,
    input_shape: tuple[int, int, int],
    auxiliary_classes: int = 0,
    dense_task: bool = False,
) -> dict[str, int]:
    """Counts of a discrete network on one image.

    Args:
      genotype, width, cells, stem, head, auxiliary_classes, dense_task: as for `Network`.
      input_shape: height, width and channels of an image.

    Returns:
      `parameters` and `multiply_adds` without the auxiliary head, which evaluation does not run,
      and `parameters_with_auxiliary`.
    """
    network = Network(
        genotype=genotype,
        width=width,
        cells=cells,
        stem=stem,
        head=head,
        auxiliary_classes=auxiliary_classes,
        dense_task=dense_task,
    )
    image = jax.ShapeDtypeStruct((1, *input_shape), jnp.float32)
    key = jax.eval_shape(lambda: jax.random.key(0))
    variables = jax.eval_shape(lambda k, x: network.init(k, x, train=False), key, image)
    layers = multiply_adds(lambda v, x: network.apply(v, x, train=False)[0], variables, image)
    main = {name: value for name, value in variables["params"].items() if name != "auxiliary"}
    return {
        "parameters": parameters(main),
        "parameters_with_auxiliary": parameters(variables["params"]),
        "multiply_adds": sum(layers.values()),
    }


def evaluation_sizes(genotype: Genotype) -> list[dict[str, Any]]:
    """The counts of a genotype's network at the sizes of the ImageNet and CIFAR-10 evaluations.

    Widths are the paper's for the ImageNet network (48 is where published cells stand) and DARTS'
    own for CIFAR-10.
    """
    sizes = (
        ("ImageNet-1K classification", "imagenet", 14, 48, 224, 1000),
        ("CIFAR-10 classification", "cifar", 20, 36, 32, 10),
    )
    rows = []
    for name, stem, cells, width, size, classes in sizes:
        counts = discrete(
            genotype,
            width=width,
            cells=cells,
            stem=stem,
            head=ImageHead(classes),
            input_shape=(size, size, 3),
            auxiliary_classes=classes,
        )
        rows.append({"name": name, "cells": cells, "width": width, "input_size": size, **counts})
    return rows

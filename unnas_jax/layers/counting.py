"""Parameters and multiply-adds of any flax module, layer by layer, by tracing it.

Nothing is run. A module is traced as JAX would compile it, and the convolutions and matrix products
of the program are counted, in the plain form of every operation, whatever this machine would
compute in its place. Modules that are equal and get inputs of equal shapes are traced once in a
process and counted from memory wherever they appear again.

A multiply-add is one product of a convolution or a linear layer, at true output sizes (dilation
included). Batch norm, pooling and activations count none.
"""

import collections
import collections.abc
import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core.tracers import current_trace
from jax.extend import core as jax_core

from unnas_jax.core import sharding

AUXILIARY = "auxiliary"
"""The name of the auxiliary head in a network that has one."""

WEIGHTED_SUM = "weighted_sum"
"""The `jax.named_scope` of a sum that is computed as a product; it is no layer and not counted."""


@dataclasses.dataclass(frozen=True)
class Layer:
    """The parameters and multiply-adds of one layer.

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
    """The layers of a module in order of execution, and their sums."""

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
        """In evaluation: without the auxiliary head."""
        return sum(layer.multiply_adds for layer in self.layers if not _is_auxiliary(layer))

    def totals(self) -> dict[str, int]:
        """The three sums by name."""
        names = ("parameters", "parameters_with_auxiliary", "multiply_adds")
        return {name: getattr(self, name) for name in names}


def _is_auxiliary(layer: Layer) -> bool:
    return layer.name.split("/")[0] == AUXILIARY


def parameters(params: Any) -> int:
    """The number of values in a tree of arrays or shapes."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


def count(module: nn.Module, *arguments: Any, **settings: Any) -> Counts:
    """Counts the layers of a module as `module(*arguments, **settings)` runs them.

    The auxiliary head's layers are in the list under `auxiliary/`, and left out of the sums that do
    not name it. The body of a `while` loop, whose number of turns is unknown, counts once.

    Args:
      module: not bound to parameters.
      arguments, settings: of its call; for arrays `jax.ShapeDtypeStruct`s do.
    """
    tracing = _Tracing()
    with sharding.nowhere(), nn.intercept_methods(tracing.intercept):
        found = tracing.module(module.clone(parent=None), arguments, settings)
    layers: dict[str, list[int]] = {}
    for name, values, products in found.layers:
        row = layers.setdefault("/".join(name), [0, 0])
        # A module that is called twice has its parameters once.
        row[0], row[1] = max(row[0], values), row[1] + products
    return Counts(tuple(Layer(name, *row) for name, row in layers.items()))


def answer(network: nn.Module, size: tuple[int, int, int]) -> jax.ShapeDtypeStruct:
    """The images of height, width and channels `size` of which a network's head makes one answer.

    It takes one image, or all the tiles of a puzzle.
    """
    images = getattr(getattr(network, "head", None), "group", 1)
    return jax.ShapeDtypeStruct((images, *size), jnp.float32)


Path = tuple[str, ...]


class _Found(NamedTuple):
    """The result of tracing a module.

    Attributes:
      layers: (path within the module, parameters, multiply-adds), in order of execution.
      outputs: a pytree of shapes.
    """

    layers: tuple[tuple[Path, int, int], ...]
    outputs: Any


class _Call(NamedTuple):
    """A module and its inputs; equal ones are traced once.

    Attributes:
      module: without name or parent.
      structure: of the arguments and settings.
      leaves: their leaves, arrays as shapes.
    """

    module: nn.Module
    structure: Any
    leaves: tuple[Any, ...]


_MEMORY: collections.OrderedDict[_Call, _Found] = collections.OrderedDict()
_REMEMBERED = 2**15


def forget() -> None:
    """Modules are traced anew, for what their fields name may be something else now."""
    _MEMORY.clear()


@dataclasses.dataclass
class _Frame:
    """A module that is being traced.

    Attributes:
      trace: JAX's, while the module itself runs; another one within scans, checkpoints and so on.
      paths: of all modules that ran inside, counted from memory or not.
      layers: of the calls that were counted from memory.
    """

    trace: Any = None
    paths: dict[Path, None] = dataclasses.field(default_factory=lambda: {(): None})
    layers: list[tuple[Path, int, int]] = dataclasses.field(default_factory=list)


class _Tracing:
    """Traces modules within modules."""

    def __init__(self) -> None:
        self._frames: list[_Frame] = []

    def module(self, module: nn.Module, arguments: Any, settings: Any) -> _Found:
        """The result for a module without parent."""
        leaves, structure = jax.tree.flatten((arguments, settings))
        call = _Call(module, structure, tuple(map(_shape, leaves)))
        if not _is_plain(module):
            return self._trace(call)
        found = _MEMORY.get(call)
        if found is None:
            found = _MEMORY[call] = self._trace(call)
            if len(_MEMORY) > _REMEMBERED:
                _MEMORY.popitem(last=False)
        return found

    def _trace(self, call: _Call) -> _Found:
        frame = _Frame()
        arrays = [leaf for leaf in call.leaves if isinstance(leaf, jax.ShapeDtypeStruct)]

        def run(arrays: list[jax.Array]) -> Any:
            given = iter(arrays)
            leaves = [
                next(given) if isinstance(leaf, jax.ShapeDtypeStruct) else leaf
                for leaf in call.leaves
            ]
            arguments, settings = jax.tree.unflatten(call.structure, leaves)
            frame.trace = current_trace()
            return call.module.init_with_output(jax.random.key(0), *arguments, **settings)

        self._frames.append(frame)
        try:
            program, (outputs, variables) = jax.make_jaxpr(run, return_shape=True)(arrays)
        finally:
            self._frames.pop()
        values: collections.Counter[Path] = collections.Counter()
        for path, leaf in jax.tree.leaves_with_path(variables.get("params", {})):
            layer = tuple(step.key for step in path[:-1])
            frame.paths.setdefault(layer)
            values[layer] += math.prod(leaf.shape)
        products: collections.Counter[Path] = collections.Counter()
        for scope, number in _products(program.jaxpr):
            products[_innermost(scope[1:], frame.paths)] += number
        own = [
            (path, values[path], products[path])
            for path in frame.paths
            if values[path] or products[path]
        ]
        order = {path: place for place, path in enumerate(frame.paths)}
        layers = sorted(
            own + frame.layers, key=lambda layer: order[_innermost(layer[0], frame.paths)]
        )
        return _Found(tuple(layers), outputs)

    def intercept(self, run: Any, arguments: Any, settings: Any, context: Any) -> Any:
        """Stands between a module and its parent; see `nn.intercept_methods`."""
        module, frame = context.module, self._frames[-1]
        if context.method_name != "__call__" or not module.path:
            return run(*arguments, **settings)
        frame.paths.setdefault(module.path)
        # Within a scan or another transformation its parameters may be many times its own.
        if current_trace() != frame.trace or not _fields_are_plain(module):
            return run(*arguments, **settings)
        if not all(map(_is_plain, map(_shape, jax.tree.leaves((arguments, settings))))):
            return run(*arguments, **settings)
        found = self.module(module.clone(parent=None, name=None), arguments, settings)
        frame.layers += [(module.path + path, *numbers) for path, *numbers in found.layers]
        return jax.tree.map(_zeros, found.outputs)


def _zeros(leaf: Any) -> Any:
    return jnp.zeros(leaf.shape, leaf.dtype)


def _shape(leaf: Any) -> Any:
    if hasattr(leaf, "shape") and hasattr(leaf, "dtype"):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
    return leaf


def _fields_are_plain(module: nn.Module) -> bool:
    return all(
        _is_plain(value)
        for field in dataclasses.fields(module)
        if field.name not in ("name", "parent")
        for value in jax.tree.leaves(
            vars(module).get(field.name), is_leaf=lambda value: isinstance(value, nn.Module)
        )
    )


def _is_plain(value: Any) -> bool:
    """Whether an equal value can stand for this one."""
    if isinstance(value, nn.Module):
        return value.scope is None and _fields_are_plain(value)
    # Functions made within functions are new ones each time.
    return isinstance(value, collections.abc.Hashable) and not getattr(value, "__closure__", None)


def _innermost(scope: Path, paths: Mapping[Path, None]) -> Path:
    """The longest path of a module with which a scope begins."""
    while scope not in paths:
        scope = scope[:-1]
    return scope


def _products(
    program: jax_core.Jaxpr, caller: Path = (), times: int = 1
) -> Iterator[tuple[Path, int]]:
    """The scope and the multiply-adds of every convolution and matrix product of a program."""
    for equation in program.eqns:
        stack = str(equation.source_info.name_stack)
        # flax calls a module's method that is not its call `name.method`.
        scope = (*caller, *(part.partition(".")[0] for part in stack.split("/") if part))
        if WEIGHTED_SUM in scope:
            continue
        count = _of_equation(equation)
        if count:
            yield scope, times * count
        branches = equation.params.get("branches")
        if branches:
            every = [list(_products(branch.jaxpr, scope, times)) for branch in branches]
            yield from max(every, key=lambda found: sum(number for _, number in found))
            continue
        turns = equation.params.get("length", 1) if equation.primitive.name == "scan" else 1
        for inner in equation.params.values():
            if isinstance(inner, jax_core.ClosedJaxpr):
                inner = inner.jaxpr
            if isinstance(inner, jax_core.Jaxpr):
                yield from _products(inner, scope, times * turns)


def _of_equation(equation: Any) -> int:
    """The products of one convolution or matrix product; everything else has none."""
    if equation.primitive.name == "conv_general_dilated":
        kernel, names = equation.invars[1].aval.shape, equation.params["dimension_numbers"]
        shape, axes = equation.outvars[0].aval.shape, names.out_spec
        if max(equation.params["lhs_dilation"]) > 1:
            # Transposed: every input pixel, not every output pixel, meets the whole kernel.
            shape, axes = equation.invars[0].aval.shape, names.lhs_spec
        return math.prod(kernel) * math.prod(shape) // shape[axes[1]]
    if equation.primitive.name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        left = equation.invars[0].aval.shape
        inner = math.prod(left[axis] for axis in contracted)
        return inner * math.prod(equation.outvars[0].aval.shape)
    return 0

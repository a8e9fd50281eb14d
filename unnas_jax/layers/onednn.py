"""Convolutions by oneDNN, Intel's library of kernels for CPUs, which PyTorch uses, too.

XLA's own convolutions take two to five times as long on a CPU, in the gradients above all. oneDNN
comes with the extra `cpu` (x86-64, Linux). Without it, for other types than float32 and on several
devices, of which a call from outside XLA would need all data, convolutions are XLA's.

A result and its gradients are three functions of one another, so that they can be differentiated
any number of times.
"""

import atexit
import contextlib
import functools
import itertools
import logging
import math
import os
import platform
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from unnas_jax.core import foreign, onednn
from unnas_jax.core.onednn import Shape, Window

_LOG = logging.getLogger("unnas_jax")

# Fewer multiply-adds are left to XLA: a call costs 0.06 ms, and its kernels are no quicker.
_FEWEST = 2**20

# Every thread of XLA that calls gets a team of as many threads as there are cores; with more cores
# than this all calls are made by one thread, which costs 0.03 ms a call.
_FEW_CORES = 8

# Programs whose primitives are kept: a network has about a hundred, of up to some MB each.
_KEPT = 1024


def _many_cores() -> bool:
    return len(os.sched_getaffinity(0)) > _FEW_CORES


@functools.cache
def _library() -> onednn.Library | None:
    """The library, and its functions known to XLA; None if it cannot be used here."""
    path = onednn.path()
    if not path:
        return None
    try:
        library = onednn.Library(path)
    except (OSError, AttributeError, RuntimeError) as error:
        # For another machine, or another version; or libgomp is not there.
        _LOG.warning("Convolutions are XLA's: %s does not load (%s).", onednn.PACKAGE, error)
        return None
    run = foreign.one_thread() if _many_cores() else lambda function: function()
    make = functools.lru_cache(_KEPT)(functools.partial(onednn.Convolution, library))

    def known(kind: str, order: Sequence[int]) -> None:
        """`order`: where images, kernel and result are among the arguments and then the result."""

        def function(
            arguments: Sequence[foreign.Array],
            results: Sequence[foreign.Array],
            numbers: Sequence[int],
        ) -> None:
            arrays = [*arguments, *results]
            x, kernel, result = (arrays[place] for place in order)
            window = Window.of(numbers)

            def compute() -> None:
                with library.lock:
                    computation = make(kind, x.shape, kernel.shape, window)
                    computation(x.address, kernel.address, result.address)

            run(compute)

        foreign.register(_target(kind), function)

    known("forward", (0, 1, 2))
    known("of_images", (2, 1, 0))
    known("of_kernel", (0, 2, 1))
    return library


@functools.cache
def _settle_at_exit() -> None:
    """Once a process, which is not that of its forks."""
    atexit.register(_settle, os.getpid())


def _settle(process: int) -> None:
    """Waits for programs that run: they must not call a Python that is gone, or going."""
    if os.getpid() != process:
        return
    # XLA begins it after all others of this thread; of some no array may be left to wait for.
    last = jax.jit(lambda x: x + 1)(np.float32(0))
    for array in (last, *jax.live_arrays()):
        # Of a failed or deleted one there is nothing to wait for.
        with contextlib.suppress(Exception):
            array.block_until_ready()


def _target(kind: str) -> str:
    return f"unnas_jax.onednn.{kind}"


def available() -> bool:
    """Whether the library is installed and loads; it is loaded by that."""
    return _library() is not None


@functools.cache
def tell(backend: str, devices: int) -> None:
    """Says in the log, once a process, by what a run's convolutions are computed, and the remedy.

    Nothing where there is no choice: not on CPUs, on several devices, where the library is not
    made for the platform. One that does not load says so itself.

    Args:
      backend: as jax names it.
      devices: of the run.
    """
    made_for = sys.platform == "linux" and platform.machine() == "x86_64"
    if backend != "cpu" or devices > 1 or not made_for:
        return
    if available():
        _LOG.info("Large convolutions in float32 are oneDNN's in networks that train alone.")
    elif not onednn.path():
        _LOG.info(
            "Convolutions are XLA's; pip install 'unnas_jax[cpu]' makes trainings on this CPU "
            "up to 1.7 times as fast."
        )


def _called(kind: str, shape: Shape, window: Window) -> Callable[..., jax.Array]:
    _settle_at_exit()
    result = jax.ShapeDtypeStruct(shape, jnp.float32)
    call = jax.ffi.ffi_call(_target(kind), result, vmap_method="sequential")
    return functools.partial(call, window=window.numbers())


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _forward(x: jax.Array, kernel: jax.Array, window: Window) -> jax.Array:
    shape = (len(x), *onednn.output_sides(x.shape, kernel.shape, window), kernel.shape[3])
    return _called("forward", shape, window)(x, kernel)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _of_images(gradient: jax.Array, kernel: jax.Array, shape: Shape, window: Window) -> jax.Array:
    """The gradient in the images, which have a shape."""
    return _called("of_images", shape, window)(gradient, kernel)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _of_kernel(x: jax.Array, gradient: jax.Array, shape: Shape, window: Window) -> jax.Array:
    """The gradient in the kernel, which has a shape."""
    return _called("of_kernel", shape, window)(x, gradient)


# The sum of all products of a result with its gradient is the same for all three functions.
_forward.defvjp(
    lambda x, kernel, window: (_forward(x, kernel, window), (x, kernel)),
    lambda window, kept, gradient: (
        _of_images(gradient, kept[1], kept[0].shape, window),
        _of_kernel(kept[0], gradient, kept[1].shape, window),
    ),
)
_of_images.defvjp(
    lambda y, kernel, shape, window: (_of_images(y, kernel, shape, window), (y, kernel)),
    lambda shape, window, kept, gradient: (
        _forward(gradient, kept[1], window),
        _of_kernel(gradient, kept[0], kept[1].shape, window),
    ),
)
_of_kernel.defvjp(
    lambda x, y, shape, window: (_of_kernel(x, y, shape, window), (x, y)),
    lambda shape, window, kept, gradient: (
        _of_images(kept[1], gradient, kept[0].shape, window),
        _forward(kept[0], gradient, window),
    ),
)


def _phases(x: jax.Array, step: int) -> jax.Array:
    """Every so many-th row and column as an image: (N, H, W, C) to more, smaller ones."""
    _, height, width, channels = x.shape
    x = x.reshape(-1, height // step, step, width // step, step, channels)
    return x.transpose(2, 4, 0, 1, 3, 5).reshape(-1, height // step, width // step, channels)


def _joined(x: jax.Array, step: int) -> jax.Array:
    """The images of which `_phases` makes these."""
    _, height, width, channels = x.shape
    x = x.reshape(step, step, -1, height, width, channels)
    return x.transpose(2, 3, 0, 4, 1, 5).reshape(-1, height * step, width * step, channels)


def _same(x: jax.Array) -> jax.Array:
    return x


class _Plan(NamedTuple):
    """A convolution without dilation, in which oneDNN has no fast gradients.

    Attributes:
      before: makes its images of the given ones.
      window: of its kernel.
      after: makes the result of its own.
    """

    before: Callable[[jax.Array], jax.Array]
    window: Window
    after: Callable[[jax.Array], jax.Array]


def _plan(x: Shape, kernel: Shape, given: Window, step: int) -> _Plan | None:
    """How oneDNN computes a convolution that is dilated by `step`; None: not, or not as fast."""
    if step == 1:
        return _Plan(_same, given, _same)
    pads = (*given.before, *given.after)
    if any(pad % step for pad in pads):
        return None
    top, left, bottom, right = (pad // step for pad in pads)
    if given.strides == (1, 1) and x[1] % step == x[2] % step == 0:
        # A tap meets pixels of one phase only.
        window = Window((1, 1), (top, left), (bottom, right), given.groups)
        return _Plan(lambda x: _phases(x, step), window, lambda x: _joined(x, step))
    if given.strides == (step, step):
        # All taps meet the first phase only.
        window = Window((1, 1), (top, left), (bottom, right), given.groups)
        return _Plan(lambda x: x[:, ::step, ::step], window, _same)
    return None


def convolve(
    x: jax.Array,
    kernel: jax.Array,
    strides: Sequence[int],
    padding: Any,
    *,
    otherwise: Callable[..., jax.Array],
    **more: Any,
) -> jax.Array:
    """Replaces `jax.lax.conv_general_dilated` in a `nn.Conv`.

    Args:
      x: (N, H, W, C).
      kernel: (h, w, C / groups, D).
      strides: of rows and columns.
      padding: for both axes the pixels before and after, or a name.
      otherwise: computes, of the same arguments, what oneDNN does not, or not as fast.
      **more: further arguments that a `nn.Conv` gives.

    Returns:
      (N, H', W', D).
    """
    if plan := _planned(x, kernel, strides, padding, **more):
        return plan.after(_forward(plan.before(x), kernel, plan.window))
    return otherwise(x, kernel, strides, padding, **more)


def _planned(
    x: jax.Array,
    kernel: jax.Array,
    strides: Sequence[int],
    padding: Any,
    *,
    rhs_dilation: Sequence[int],
    lhs_dilation: Sequence[int] | None = None,
    feature_group_count: int = 1,
    **same: Any,
) -> _Plan | None:
    del same
    groups, outs = feature_group_count, kernel.shape[-1]
    if (
        isinstance(padding, str)
        or not (x.dtype == kernel.dtype == jnp.float32)
        or groups > 1
        and not groups == x.shape[-1] == outs
        or rhs_dilation[0] != rhs_dilation[1]
        or set(lhs_dilation or ()) - {1}
        or min(itertools.chain(*padding)) < 0
        or jax.device_count() > 1
        or not available()
    ):
        return None
    (top, bottom), (left, right) = padding
    given = Window((strides[0], strides[1]), (top, left), (bottom, right), groups)
    plan = _plan(x.shape, kernel.shape, given, rhs_dilation[0])
    if plan is None:
        return None
    shape = jax.eval_shape(plan.before, jax.ShapeDtypeStruct(x.shape, x.dtype)).shape
    products = (
        shape[0] * math.prod(onednn.output_sides(shape, kernel.shape, plan.window)) * kernel.size
    )
    return plan if products >= _FEWEST else None

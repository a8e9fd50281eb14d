"""Convolutions by oneDNN, Intel's library of kernels for CPUs, which PyTorch uses, too.

XLA's own convolutions take two to five times as long on a CPU, in the gradients above all. oneDNN
comes with the extra `cpu` (x86-64, Linux). Without it, for other types than float32 and on several
devices, of which a call from outside XLA would need all data, convolutions are XLA's.

A result and its gradients are three functions of one another, so that they can be differentiated
any number of times.
"""

import atexit
import contextlib
import ctypes
import dataclasses
import functools
import importlib.metadata
import itertools
import logging
import math
import os
import platform
import sys
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from unnas_jax.core import foreign

_LOG = logging.getLogger("unnas_jax")

Pair = tuple[int, int]
Shape = tuple[int, ...]

PACKAGE = "onednn-cpu-gomp"
"""Brings the library; of the extra `cpu`."""

# Fewer multiply-adds are left to XLA: a call costs 0.05 ms, and a library's kernels are no quicker.
_FEWEST = 2**20

# Every thread of XLA that calls gets a team of as many threads as there are cores; with more cores
# than this all calls are made by one thread, which costs 0.03 ms a call.
_FEW_CORES = 8

# Of oneDNN's C interface, version 3: oneapi/dnnl/dnnl_types.h.
_CPU, _IN_ORDER, _F32, _ANY = 1, 1, 3, 1
_FORWARD_TRAINING, _DIRECT = 64, 1
_ALLOCATE = ctypes.c_void_p(-1)
_WEIGHTS_MD, _DIFF_WEIGHTS_MD = 131, 132
_SRC, _DST, _WEIGHTS = 1, 17, 33
_DIFF_SRC, _DIFF_WEIGHTS, _DIFF_DST = 129, 161, 145
_Dims = ctypes.c_int64 * 12

# Programs whose primitives are kept: a network has about a hundred, of up to some MB each.
_KEPT = 1024


class _Argument(ctypes.Structure):
    _fields_ = [("role", ctypes.c_int), ("memory", ctypes.c_void_p)]


@dataclasses.dataclass(frozen=True)
class _Window:
    """How a kernel moves; pairs are of rows and columns, `before` and `after` of padding."""

    strides: Pair
    before: Pair
    after: Pair
    groups: int

    @classmethod
    def of(cls, numbers: Sequence[int]) -> "_Window":
        a, b, c, d, e, f, groups = numbers
        return cls((a, b), (c, d), (e, f), groups)

    def numbers(self) -> np.ndarray:
        every = (*self.strides, *self.before, *self.after, self.groups)
        return np.asarray(every, np.int64)


class _Library:
    """oneDNN in this process. Its calls take turns: each uses all cores."""

    def __init__(self, path: str):
        self.lock = threading.Lock()
        # Its threads must not spin between calls, when the cores are XLA's. Read when it is loaded.
        given = "OMP_WAIT_POLICY" in os.environ
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
        try:
            self._functions = ctypes.CDLL(path)
        finally:
            if not given:
                del os.environ["OMP_WAIT_POLICY"]
        query = self._functions.dnnl_primitive_desc_query_md
        query.restype = ctypes.c_void_p
        self._engine = self._new("engine_create", _CPU, ctypes.c_size_t(0))
        self._stream = self._new("stream_create", self._engine, _IN_ORDER)

    def call(self, name: str, *arguments: Any) -> None:
        """Raises `RuntimeError` if a function fails."""
        status = getattr(self._functions, f"dnnl_{name}")(*arguments)
        if status:
            raise RuntimeError(f"{name} of oneDNN failed with status {status}")

    def _new(self, name: str, *arguments: Any) -> ctypes.c_void_p:
        """What a function puts into its first argument."""
        made = ctypes.c_void_p()
        self.call(name, ctypes.byref(made), *arguments)
        return made

    def _made(
        self, owner: contextlib.ExitStack, what: str, name: str, *arguments: Any
    ) -> ctypes.c_void_p:
        """The same, destroyed as one of `what` when its owner is closed."""
        made = self._new(name, *arguments)
        owner.callback(self.call, f"{what}_destroy", made)
        return made

    def layout(
        self, owner: contextlib.ExitStack, sides: Shape, strides: Shape | None
    ) -> ctypes.c_void_p:
        """Of an array; None leaves the strides to oneDNN."""
        how = ("with_tag", _ANY) if strides is None else ("with_strides", _Dims(*strides))
        function = f"memory_desc_create_{how[0]}"
        dims = (len(sides), _Dims(*sides), _F32)
        return self._made(owner, "memory_desc", function, *dims, how[1])

    def memory(
        self, owner: contextlib.ExitStack, layout: ctypes.c_void_p, data: Any = None
    ) -> ctypes.c_void_p:
        """An array whose place is given later, or `_ALLOCATE`."""
        return self._made(owner, "memory", "memory_create", layout, self._engine, data)

    def convolution(
        self, owner: contextlib.ExitStack, name: str, *arguments: Any
    ) -> ctypes.c_void_p:
        """The description of a computation."""
        function = f"convolution_{name}_primitive_desc_create"
        return self._made(owner, "primitive_desc", function, self._engine, *arguments)

    def primitive(self, owner: contextlib.ExitStack, described: ctypes.c_void_p) -> ctypes.c_void_p:
        """A computation, compiled."""
        return self._made(owner, "primitive", "primitive_create", described)

    def reorder(
        self, owner: contextlib.ExitStack, source: ctypes.c_void_p, target: ctypes.c_void_p
    ) -> ctypes.c_void_p:
        """A copy from one layout to another."""
        function, both = "reorder_primitive_desc_create", (source, self._engine, target)
        with contextlib.ExitStack() as passing:
            made = self._made(passing, "primitive_desc", function, *both, self._engine, None)
            return self.primitive(owner, made)

    def chosen(self, described: ctypes.c_void_p, what: int) -> ctypes.c_void_p:
        """The layout that oneDNN chose for an array; it lives as long as the description."""
        found = self._functions.dnnl_primitive_desc_query_md(described, what, 0)
        return ctypes.c_void_p(found)

    def run(self, primitive: ctypes.c_void_p, arguments: Any) -> None:
        self.call("primitive_execute", primitive, self._stream, len(arguments), arguments)

    def wait(self) -> None:
        self.call("stream_wait", self._stream)


class _Convolution:
    """One of the three functions, for arrays of certain shapes."""

    def __init__(self, library: _Library, kind: str, x: Shape, kernel: Shape, window: _Window):
        self._library = library
        # What is kept until this object goes, and what only its making needs.
        with contextlib.ExitStack() as kept, contextlib.ExitStack() as passing:
            self._make(kept, passing, kind, x, kernel, window)
            weakref.finalize(self, kept.pop_all().close).atexit = False

    def _make(
        self,
        kept: contextlib.ExitStack,
        passing: contextlib.ExitStack,
        kind: str,
        x: Shape,
        kernel: Shape,
        window: _Window,
    ) -> None:
        library = self._library
        (count, height, width, ins), (rows, columns, each, outs) = x, kernel
        out_rows, out_columns = _sides(x, kernel, window)
        groups = window.groups
        sides: Shape = (outs, each, rows, columns)
        strides: Shape = (1, outs, columns * each * outs, each * outs)
        if groups > 1:
            sides, strides = (groups, outs // groups, *sides[1:]), (outs // groups, *strides)
        images, results, ours, free = (
            library.layout(passing, *layout)
            for layout in (
                ((count, ins, height, width), _nhwc(height, width, ins)),
                ((count, outs, out_rows, out_columns), _nhwc(out_rows, out_columns, outs)),
                (sides, strides),
                (sides, None),
            )
        )
        moves = tuple(
            _Dims(*pair) for pair in (window.strides, (0, 0), window.before, window.after)
        )
        described = library.convolution(
            passing,
            "forward",
            _FORWARD_TRAINING,
            _DIRECT,
            images,
            free,
            None,
            results,
            *moves,
            None,
        )
        self._memory = [library.memory(kept, layout) for layout in (images, ours, results)]
        image, weights, result = self._memory
        if kind == "of_kernel":
            arrays = (images, free, None, results)
            described = library.convolution(
                passing, "backward_weights", _DIRECT, *arrays, *moves, described, None
            )
            layout = library.chosen(described, _DIFF_WEIGHTS_MD)
            theirs = library.memory(kept, layout, _ALLOCATE)
            roles = {_SRC: image, _DIFF_DST: result, _DIFF_WEIGHTS: theirs}
            self._steps = [
                _step(library.primitive(kept, described), roles),
                _step(library.reorder(kept, layout, ours), {_SRC: theirs, _DST: weights}),
            ]
            return
        roles = {_SRC: image, _DST: result}
        if kind == "of_images":
            described = library.convolution(
                passing, "backward_data", _DIRECT, images, free, results, *moves, described, None
            )
            roles = {_DIFF_SRC: image, _DIFF_DST: result}
        layout = library.chosen(described, _WEIGHTS_MD)
        theirs = library.memory(kept, layout, _ALLOCATE)
        self._steps = [
            _step(library.reorder(kept, ours, layout), {_SRC: weights, _DST: theirs}),
            _step(library.primitive(kept, described), {**roles, _WEIGHTS: theirs}),
        ]

    def __call__(self, x: int, kernel: int, result: int) -> None:
        """Takes the addresses of its three arrays; the caller has the library's lock."""
        for memory, address in zip(self._memory, (x, kernel, result), strict=True):
            self._library.call("memory_set_data_handle", memory, ctypes.c_void_p(address))
        for step in self._steps:
            self._library.run(*step)
        self._library.wait()


def _nhwc(height: int, width: int, channels: int) -> Shape:
    """Strides by which oneDNN, which names axes NCHW, finds what lies in memory as NHWC."""
    return height * width * channels, 1, width * channels, channels


def _step(primitive: Any, roles: dict[int, ctypes.c_void_p]) -> tuple[Any, Any]:
    every = (_Argument(role, memory) for role, memory in roles.items())
    return primitive, (_Argument * len(roles))(*every)


def _sides(x: Shape, kernel: Shape, window: _Window) -> Pair:
    """Rows and columns of the result, which may be none."""

    def along(axis: int) -> int:
        padded = x[1 + axis] + window.before[axis] + window.after[axis]
        return max(0, (padded - kernel[axis]) // window.strides[axis] + 1)

    return along(0), along(1)


def _path() -> str:
    """Where the library lies; '' if it is not installed."""
    try:
        installed = importlib.metadata.distribution(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        return ""
    for file in installed.files or ():
        if file.name == "libdnnl.so.3":
            return str(installed.locate_file(file))
    return ""


def _many_cores() -> bool:
    return len(os.sched_getaffinity(0)) > _FEW_CORES


@functools.cache
def _library() -> _Library | None:
    """The library, and its functions known to XLA; None if it cannot be used here."""
    path = _path()
    if not path:
        return None
    try:
        library = _Library(path)
    except (OSError, AttributeError, RuntimeError) as error:
        # For another machine, or another version; or libgomp is not there.
        _LOG.warning("Convolutions are XLA's: %s does not load (%s).", PACKAGE, error)
        return None
    run = foreign.one_thread() if _many_cores() else lambda function: function()
    make = functools.lru_cache(_KEPT)(functools.partial(_Convolution, library))

    def known(kind: str, order: Sequence[int]) -> None:
        """`order`: where images, kernel and result are among the arguments and then the result."""

        def function(
            arguments: Sequence[foreign.Array],
            results: Sequence[foreign.Array],
            numbers: Sequence[int],
        ) -> None:
            arrays = [*arguments, *results]
            x, kernel, result = (arrays[place] for place in order)
            window = _Window.of(numbers)

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
        _LOG.info("Large convolutions in float32 are oneDNN's.")
    elif not _path():
        _LOG.info(
            "Convolutions are XLA's; pip install 'unnas_jax[cpu]' makes trainings on this CPU "
            "about twice as fast."
        )


def _called(kind: str, shape: Shape, window: _Window) -> Callable[..., jax.Array]:
    _settle_at_exit()
    result = jax.ShapeDtypeStruct(shape, jnp.float32)
    call = jax.ffi.ffi_call(_target(kind), result, vmap_method="sequential")
    return functools.partial(call, window=window.numbers())


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _forward(x: jax.Array, kernel: jax.Array, window: _Window) -> jax.Array:
    shape = (len(x), *_sides(x.shape, kernel.shape, window), kernel.shape[3])
    return _called("forward", shape, window)(x, kernel)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _of_images(gradient: jax.Array, kernel: jax.Array, shape: Shape, window: _Window) -> jax.Array:
    """The gradient in the images, which have a shape."""
    return _called("of_images", shape, window)(gradient, kernel)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _of_kernel(x: jax.Array, gradient: jax.Array, shape: Shape, window: _Window) -> jax.Array:
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
    window: _Window
    after: Callable[[jax.Array], jax.Array]


def _plan(x: Shape, kernel: Shape, given: _Window, step: int) -> _Plan | None:
    """How oneDNN computes a convolution that is dilated by `step`; None: not, or not as fast."""
    if step == 1:
        return _Plan(_same, given, _same)
    pads = (*given.before, *given.after)
    if any(pad % step for pad in pads):
        return None
    top, left, bottom, right = (pad // step for pad in pads)
    if given.strides == (1, 1) and x[1] % step == x[2] % step == 0:
        # A tap meets pixels of one phase only.
        window = _Window((1, 1), (top, left), (bottom, right), given.groups)
        return _Plan(lambda x: _phases(x, step), window, lambda x: _joined(x, step))
    if given.strides == (step, step):
        # All taps meet the first phase only.
        window = _Window((1, 1), (top, left), (bottom, right), given.groups)
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
    given = _Window((strides[0], strides[1]), (top, left), (bottom, right), groups)
    plan = _plan(x.shape, kernel.shape, given, rhs_dilation[0])
    if plan is None:
        return None
    shape = jax.eval_shape(plan.before, jax.ShapeDtypeStruct(x.shape, x.dtype)).shape
    products = shape[0] * math.prod(_sides(shape, kernel.shape, plan.window)) * kernel.size
    return plan if products >= _FEWEST else None

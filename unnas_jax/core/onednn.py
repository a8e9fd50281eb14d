"""Intel's library oneDNN through its C interface: convolutions of float32 arrays in memory."""

import contextlib
import ctypes
import dataclasses
import importlib.metadata
import os
import threading
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np

Pair = tuple[int, int]
Shape = tuple[int, ...]

PACKAGE = "onednn-cpu-gomp"
"""Brings the library; of the extra `cpu`."""

# Of version 3: oneapi/dnnl/dnnl_types.h.
_CPU, _IN_ORDER, _F32, _ANY = 1, 1, 3, 1
_FORWARD_TRAINING, _DIRECT = 64, 1
_ALLOCATE = ctypes.c_void_p(-1)
_WEIGHTS_MD, _DIFF_WEIGHTS_MD = 131, 132
_SRC, _DST, _WEIGHTS = 1, 17, 33
_DIFF_SRC, _DIFF_WEIGHTS, _DIFF_DST = 129, 161, 145
_Dims = ctypes.c_int64 * 12


class _Argument(ctypes.Structure):
    _fields_ = [("role", ctypes.c_int), ("memory", ctypes.c_void_p)]


@dataclasses.dataclass(frozen=True)
class Window:
    """How a kernel moves; pairs are of rows and columns, `before` and `after` of padding."""

    strides: Pair
    before: Pair
    after: Pair
    groups: int

    @classmethod
    def of(cls, numbers: Sequence[int]) -> "Window":
        """The inverse of `numbers`."""
        a, b, c, d, e, f, groups = numbers
        return cls((a, b), (c, d), (e, f), groups)

    def numbers(self) -> np.ndarray:
        """All of it as int64 (7,)."""
        every = (*self.strides, *self.before, *self.after, self.groups)
        return np.asarray(every, np.int64)


class Library:
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
        """Begins a computation."""
        self.call("primitive_execute", primitive, self._stream, len(arguments), arguments)

    def wait(self) -> None:
        """Until all that was begun is done."""
        self.call("stream_wait", self._stream)


class Convolution:
    """One of the three functions, for arrays of certain shapes."""

    def __init__(self, library: Library, kind: str, x: Shape, kernel: Shape, window: Window):
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
        window: Window,
    ) -> None:
        library = self._library
        (count, height, width, ins), (rows, columns, each, outs) = x, kernel
        out_rows, out_columns = output_sides(x, kernel, window)
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


def output_sides(x: Shape, kernel: Shape, window: Window) -> Pair:
    """Rows and columns of the result, which may be none."""

    def along(axis: int) -> int:
        padded = x[1 + axis] + window.before[axis] + window.after[axis]
        return max(0, (padded - kernel[axis]) // window.strides[axis] + 1)

    return along(0), along(1)


def path() -> str:
    """Where the library lies; '' if it is not installed."""
    try:
        installed = importlib.metadata.distribution(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        return ""
    for file in installed.files or ():
        if file.name == "libdnnl.so.3":
            return str(installed.locate_file(file))
    return ""

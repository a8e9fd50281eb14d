"""Python functions that compiled programs call, on the memory of their arrays, without copies.

A target of XLA's foreign function interface is a C function that gets a call frame; here it is one
that ctypes makes of a Python function. Layouts and numbers are those of `xla/ffi/api/c_api.h`, a
header that jaxlib carries. XLA keeps old versions of it working, and asks every handler for its
own (0.1 here) before anything else.
"""

import ctypes
import queue
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax

_EXECUTE = 3  # XLA_FFI_ExecutionStage_EXECUTE; earlier stages prepare, for which nothing is done.
_METADATA = 1  # XLA_FFI_Extension_Metadata
_INTERNAL = 13  # XLA_FFI_Error_Code_INTERNAL
_MAJOR, _MINOR = 0, 1

_HEAD: list[tuple[str, Any]] = [("struct_size", ctypes.c_size_t), ("extension", ctypes.c_void_p)]


class _Version(ctypes.Structure):
    _fields_ = [*_HEAD, ("major", ctypes.c_int), ("minor", ctypes.c_int)]


class _Metadata(ctypes.Structure):
    _fields_ = [
        ("struct_size", ctypes.c_size_t),
        ("version", _Version),
        ("traits", ctypes.c_uint32),
    ]


class _Extension(ctypes.Structure):
    """Of the kind that asks for a handler's metadata."""

    _fields_ = [
        ("struct_size", ctypes.c_size_t),
        ("type", ctypes.c_int),
        ("next", ctypes.c_void_p),
        ("metadata", ctypes.POINTER(_Metadata)),
    ]


class _Buffer(ctypes.Structure):
    _fields_ = [
        *_HEAD,
        ("dtype", ctypes.c_int),
        ("data", ctypes.c_void_p),
        ("rank", ctypes.c_int64),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
    ]


class _Buffers(ctypes.Structure):
    _fields_ = [
        *_HEAD,
        ("count", ctypes.c_int64),
        ("types", ctypes.c_void_p),
        ("buffers", ctypes.POINTER(ctypes.POINTER(_Buffer))),
    ]


class _Numbers(ctypes.Structure):
    _fields_ = [
        ("dtype", ctypes.c_int),
        ("count", ctypes.c_size_t),
        ("data", ctypes.POINTER(ctypes.c_int64)),
    ]


class _Attributes(ctypes.Structure):
    """All are arrays of int64 here."""

    _fields_ = [
        *_HEAD,
        ("count", ctypes.c_int64),
        ("types", ctypes.c_void_p),
        ("names", ctypes.c_void_p),
        ("arrays", ctypes.POINTER(ctypes.POINTER(_Numbers))),
    ]


class _Complaint(ctypes.Structure):
    _fields_ = [*_HEAD, ("message", ctypes.c_char_p), ("code", ctypes.c_int)]


class _Api(ctypes.Structure):
    _fields_ = [
        *_HEAD,
        ("version", _Version),
        ("internal", ctypes.c_void_p),
        ("create_error", ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.POINTER(_Complaint))),
    ]


class _Frame(ctypes.Structure):
    _fields_ = [
        ("struct_size", ctypes.c_size_t),
        ("extension", ctypes.POINTER(_Extension)),
        ("api", ctypes.POINTER(_Api)),
        ("context", ctypes.c_void_p),
        ("stage", ctypes.c_int),
        ("arguments", _Buffers),
        ("results", _Buffers),
        ("attributes", _Attributes),
    ]


class Array(NamedTuple):
    """An array of a running program, contiguous, row by row.

    Attributes:
      address: of its first element.
      shape: its sides.
    """

    address: int
    shape: tuple[int, ...]


Function = Callable[[Sequence[Array], Sequence[Array], Sequence[int]], None]
"""Fills results from arguments, given the numbers of the call; may raise."""

_Handler = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.POINTER(_Frame))

# XLA knows handlers by their address: they must outlive all programs.
_HANDLERS: list[Any] = []


def register(name: str, function: Function) -> None:
    """Makes a function known on CPUs by a name, once a process, for `jax.ffi.ffi_call`.

    A call has at most one attribute, an array of int64. The function runs in a thread of XLA, and
    holds Python's lock unless what it calls lets go of it. What it raises is an error of the
    program.
    """

    def handle(frame: Any) -> int | None:
        call = frame.contents
        if call.extension and call.extension.contents.type == _METADATA:
            found = call.extension.contents.metadata.contents
            found.version.major, found.version.minor, found.traits = _MAJOR, _MINOR, 0
            return None
        if call.stage != _EXECUTE:
            return None
        try:
            numbers: Sequence[int] = ()
            if call.attributes.count:
                array = call.attributes.arrays[0].contents
                numbers = tuple(array.data[: array.count])
            function(_arrays(call.arguments), _arrays(call.results), numbers)
        except BaseException as error:  # Not even Ctrl-C may pass through XLA, or go unnoticed.
            message = f"{name}: {str(error) or type(error).__name__}".encode(errors="replace")
            complaint = _Complaint(ctypes.sizeof(_Complaint), None, message, _INTERNAL)
            created: int | None = call.api.contents.create_error(ctypes.byref(complaint))
            return created
        return None

    handler = _Handler(handle)
    _HANDLERS.append(handler)
    jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(handler), platform="cpu")


def one_thread() -> Callable[[Callable[[], None]], None]:
    """Starts a thread; the function returned runs others in it and raises what they raise.

    For libraries that keep a team of threads for each thread that calls them: XLA calls from any of
    as many as there are cores.
    """
    waiting: queue.SimpleQueue[tuple[Callable[[], None], list[BaseException], threading.Event]]
    waiting = queue.SimpleQueue()

    def work() -> None:
        while True:
            function, raised, done = waiting.get()
            try:
                function()
            except BaseException as error:
                raised.append(error)
            done.set()

    def run(function: Callable[[], None]) -> None:
        raised: list[BaseException] = []
        done = threading.Event()
        waiting.put((function, raised, done))
        try:
            done.wait()
        except BaseException:  # Ctrl-C; the arrays are still in use.
            done.wait()
            raise
        if raised:
            raise raised[0]

    threading.Thread(target=work, daemon=True).start()
    return run


def _arrays(buffers: _Buffers) -> list[Array]:
    found = (buffers.buffers[k].contents for k in range(buffers.count))
    return [Array(buffer.data or 0, tuple(buffer.shape[: buffer.rank])) for buffer in found]

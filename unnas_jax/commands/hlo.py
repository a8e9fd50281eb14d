"""Reads a compiled program's text (optimised HLO): the memory and the network that it uses.

XLA's own cost analysis counts the bytes that every operation accesses, wherever they lie. On a TPU
most of a small network's arrays never leave the chip: XLA places them in VMEM, and only what lies
in HBM waits for it.
"""

import math
import re
from collections.abc import Iterator

_COLLECTIVE = re.compile(
    r" = (\S.*?) (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(-start)?\("
)
_ARRAY = re.compile(r"\b([a-z]+\d+|pred)\[([\d,]*)\](?:\{([^}]*)\})?")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?(\S+) = (.*?) ([a-z][\w-]*)\(([^)]*)\)", re.MULTILINE)
_NAME = re.compile(r"%([\w.-]+)")
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')

_BYTES = {"pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "bf16": 2, "f16": 2, "s64": 8, "f64": 8}

# These move nothing: they name memory, or wait for what another operation started.
_NOTHING_MOVES = {"parameter", "constant", "bitcast", "tuple", "get-tuple-element", "after-all"}


def _size(dtype: str, dimensions: str) -> int:
    return math.prod(int(n) for n in dimensions.split(",") if n) * _BYTES.get(dtype, 4)


def collectives(hlo: str) -> dict[str, dict[str, int]]:
    """How many collective operations of each kind a compiled program has and the bytes they move.

    Bytes are those of the results on one chip; of an asynchronous pair the start counts.
    """
    found: dict[str, dict[str, int]] = {}
    for shapes, kind, start in _COLLECTIVE.findall(hlo):
        sizes = [_size(dtype, dimensions) for dtype, dimensions, _ in _ARRAY.findall(shapes)]
        # The start of all but all-reduce also names its operand and, some, a context.
        moved = max(sizes, default=0) if start and kind != "all-reduce" else sum(sizes)
        of_kind = found.setdefault(kind, {"count": 0, "bytes": 0})
        of_kind["count"] += 1
        of_kind["bytes"] += moved
    return found


def _entry(hlo: str) -> str:
    """The instructions of the program itself, without those of its fusions."""
    return hlo[hlo.find("\nENTRY ") + 1 :]


def conditionals(hlo: str) -> int:
    """How many operations choose one of several branches, whose insides nothing here counts."""
    return sum(operation == "conditional" for *_, operation, _ in _INSTRUCTION.findall(_entry(hlo)))


def _stored(shapes: str) -> Iterator[tuple[int, bool]]:
    """The bytes that each array of a shape takes, with its tiles' padding, and if it lies in HBM.

    A layout such as {2,0,1:T(8,128)(2,1)S(1)} names the dimensions from the minor one, the tile
    over the last of these, and the memory: without S it is HBM, S(1) is VMEM.
    """
    for dtype, dimensions, layout in _ARRAY.findall(shapes):
        sizes = [int(n) for n in dimensions.split(",") if n]
        order, _, tiling = layout.partition(":")
        minor_first = [sizes[int(k)] for k in order.split(",") if k] or sizes[::-1]
        tile = re.match(r"T\(([\d,]+)\)", tiling)
        sides = [int(n) for n in tile.group(1).split(",")][::-1] if tile else []
        for k, side in enumerate(sides[: len(minor_first)]):
            minor_first[k] = -(-minor_first[k] // side) * side
        yield math.prod(minor_first) * _BYTES.get(dtype, 4), "S(" not in tiling


def hbm_bytes(hlo: str) -> int:
    """The bytes that a TPU program moves to and from HBM.

    An operand that is read in part counts as a whole, but for asynchronous copies and slices, with
    which XLA moves arrays between HBM and VMEM. What loops repeat counts once; the steps of this
    package have none that matter.

    Args:
      hlo: a compiled program's text, with the layouts of its arrays.
    """
    arrays: dict[str, list[tuple[int, bool]]] = {}
    total = 0
    for name, shapes, operation, operands in _INSTRUCTION.findall(_entry(hlo)):
        results = arrays[name] = list(_stored(shapes))
        if operation in _NOTHING_MOVES or operation.endswith("-done"):
            continue
        if operation in ("copy-start", "slice-start"):
            # From and to; the part that is moved is the smaller one. Besides, a flag.
            ends = sorted(results)[-2:]
            total += ends[0][0] * sum(in_hbm for _, in_hbm in ends)
            continue
        moved = results + [x for used in _NAME.findall(operands) for x in arrays.get(used, [])]
        total += sum(size for size, in_hbm in moved if in_hbm)
    return total


def estimated_cycles(hlo: str) -> int:
    """How many cycles of a TPU's clock XLA expects the operations of a program to take.

    It is the estimate by which XLA's compiler for TPUs compares its choices, not a measurement. 0
    for other devices.
    """
    return sum(int(cycles) for cycles in _CYCLES.findall(_entry(hlo)))

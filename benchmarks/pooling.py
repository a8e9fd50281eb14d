"""Time of the poolings, forward and backward, against flax's.

    python benchmarks/pooling.py

The last line is JSON: for each shape and stride the median milliseconds of both and their ratio.
They take turns, so that a machine whose speed drifts is fair to both.
"""

import json
import pathlib
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

import flax.linen as nn  # noqa: E402
import jax  # noqa: E402

from unnas_jax.layers import pooling  # noqa: E402

# The layouts of a search on a CPU, (C, H, W, N), and of a training, (N, H, W, C).
SHAPES = ((16, 8, 8, 64), (64, 2, 2, 64), (64, 32, 32, 16), (64, 16, 16, 64))
TURNS = 30


def _flax(kind: str, stride: int) -> Callable[[jax.Array], jax.Array]:
    settings: dict[str, Any] = {"strides": (stride,) * 2, "padding": ((1, 1), (1, 1))}
    if kind == "max":
        return lambda x: nn.max_pool(x, (3, 3), **settings)
    return lambda x: nn.avg_pool(x, (3, 3), count_include_pad=False, **settings)


def _ours(kind: str, stride: int) -> Callable[[jax.Array], jax.Array]:
    pool = pooling.max_pool if kind == "max" else pooling.avg_pool
    return lambda x: pool(x, 3, stride, 1)


def _program(pool: Callable[[jax.Array], jax.Array], x: jax.Array) -> Callable[[], None]:
    def both(x: jax.Array) -> Any:
        pooled, back = jax.vjp(pool, x)
        return pooled, back(pooled)

    run = jax.jit(both)
    jax.block_until_ready(run(x))
    return lambda: jax.block_until_ready(run(x))


def main() -> None:
    """Measures and prints."""
    rows = []
    for shape in SHAPES:
        x = jax.random.normal(jax.random.key(0), shape)
        for stride in (1, 2):
            for kind in ("max", "avg"):
                programs = [_program(form(kind, stride), x) for form in (_ours, _flax)]
                times: list[list[float]] = [[], []]
                for _ in range(TURNS):
                    for program, found in zip(programs, times, strict=True):
                        start = time.perf_counter()
                        program()
                        found.append(1e3 * (time.perf_counter() - start))
                ours, flax = (statistics.median(found) for found in times)
                row = {"kind": kind, "shape": shape, "stride": stride}
                row |= {"ms": round(ours, 3), "flax_ms": round(flax, 3)}
                rows.append(row | {"ratio": round(flax / ours, 2)})
                print(f"{kind} {shape} stride {stride}: {ours:.3f} ms, flax {flax:.3f} ms")
    print(json.dumps({"backend": jax.default_backend(), "rows": rows}))


if __name__ == "__main__":
    main()

"""NAS-Bench-201's supernet for single-path search: one operation an edge in a step."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from unnas_jax.config.options import Config
from unnas_jax.config.sections import SupernetConfig
from unnas_jax.core import precision
from unnas_jax.core.errors import UserError
from unnas_jax.spaces import vectors
from unnas_jax.spaces.nasbench201 import space, spec
from unnas_jax.spaces.nasbench201 import supernet as supernet_lib
from unnas_jax.spaces.nasbench201.network import KERNELS, STAGES
from unnas_jax.spaces.nasbench201.spec import EDGES, NODES, OPERATIONS, Spec
from unnas_jax.spaces.vectors import Part
from unnas_jax.tasks.base import Examples, Task


def validate(config: SupernetConfig) -> None:
    """Raises `UserError` for settings of the DARTS space."""
    network = config.network
    space.check_stack(network)
    others = {"partial_channels": 1, "auxiliary_skip": False, "affine": False}
    for key, plain in {**others, "operations": ()}.items():
        value = getattr(network, key)
        if value != plain and list(value if key == "operations" else [value]):
            raise UserError(
                f"config.network.{key}={value!r}: supernets of NAS-Bench-201 have no such thing; "
                f"use {plain!r}"
            )


def build(config: Config, task: Task) -> "Paths":
    """The supernet of a search's valid config with the head of a task."""
    c = SupernetConfig.of(config)
    dtype = precision.compute_dtype(c.precision)
    each = c.network.cells // STAGES
    return Paths(supernet_lib.Supernet(task.head(dtype), c.network.width, each, dtype=dtype))


@dataclasses.dataclass(frozen=True)
class Paths:
    """See `unnas_jax.spaces.single_path.Paths`; a path is `supernet.path`."""

    network: supernet_lib.Supernet

    def draw(self, key: jax.Array) -> dict[str, jax.Array]:
        """Any of the five operations on every edge."""
        return {"operations": jax.random.randint(key, (len(EDGES),), 0, len(OPERATIONS))}

    def of(self, cell: Spec) -> dict[str, Any]:
        """The numbers of its operations."""
        return dict(supernet_lib.path(cell))

    def init(self, key: jax.Array, inputs: jax.ShapeDtypeStruct) -> Mapping[str, Any]:
        """Fresh variables."""
        fresh = self.network.init(key, jnp.zeros_like(inputs), train=True)
        return {name: fresh[name] for name in ("params", "batch_stats")}

    def apply(
        self, variables: Mapping[str, Any], inputs: jax.Array, path: Any, *, train: bool
    ) -> tuple[Any, Any]:
        """Outputs and running statistics."""
        path = {"operations": jnp.asarray(path["operations"], jnp.int32)}
        own: dict[str, Any] = {**variables, supernet_lib.COLLECTION: path}
        if not train:
            outputs: Any = self.network.apply(own, inputs, train=False)
            return outputs[0], variables["batch_stats"]
        (answers, _), updated = self.network.apply(own, inputs, train=True, mutable=["batch_stats"])
        return answers, updated["batch_stats"]

    def cells(self, count: int, seed: int) -> Sequence[Spec]:
        """Cells no two of which compute the same."""
        return spec.sample(count, seed)

    def parts(self, cell: Spec) -> Sequence[Part]:
        """Paths lead from the input of a cell to its output."""
        net = self.network
        parts = [Part(("stem",)), Part(("bn",)), Part(("head",), bias=False)]
        chosen = {
            edge: name for edge, name in zip(EDGES, cell.operations, strict=True) if name != "none"
        }
        times = vectors.repeats(list(chosen), (0,), (NODES - 1,))
        for stage in range(STAGES):
            channels = net.width * 2**stage
            if stage:
                parts.append(Part((f"reduction_{stage}",)))
            still = {
                "avg_pool_3x3": vectors.pooling(channels),
                "skip_connect": vectors.identity(channels),
                **dict.fromkeys(KERNELS, (0, 0.0)),
            }
            for k in range(net.cells_each):
                for (source, target), name in chosen.items():
                    where = (f"stage_{stage}_cell_{k}", f"edge_{source}_{target}", name)
                    parts.append(Part(where, times[source, target], *still[name]))
        return parts

    def resolve(self, text: str) -> Spec:
        """A text or a file."""
        return space.resolve(text)

    def document(self, cell: Spec) -> dict[str, Any]:
        """The cell's own."""
        return cell.as_dict()

    def check_inputs(self, examples: Examples) -> None:
        """As trainings of the space do."""
        space.check_sides(examples)

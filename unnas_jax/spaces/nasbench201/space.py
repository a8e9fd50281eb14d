"""NAS-Bench-201 as a `registry.Space`: its trainings' settings, its cells, its networks."""

import functools
from typing import Any

from unnas_jax.config.schema import SampleSection
from unnas_jax.config.sections import NetworkSection, SupernetSection
from unnas_jax.core.errors import UserError
from unnas_jax.spaces import benchmark
from unnas_jax.spaces.nasbench201 import spec as spec_lib
from unnas_jax.spaces.nasbench201 import supernet
from unnas_jax.spaces.nasbench201.network import STAGES, Network
from unnas_jax.spaces.nasbench201.spec import Spec
from unnas_jax.spaces.programs import Program
from unnas_jax.tasks.base import Examples, Task

ANY = "|nor_conv_3x3~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|"
"""A valid cell, where none is chosen yet."""

identity = spec_lib.identity
from_dict = spec_lib.from_dict


def draw(section: SampleSection, seed: int) -> list[Spec]:
    """The cells that a sweep's section `sample` asks for."""
    return spec_lib.sample(section.count, seed)


def file_of(name: str) -> str | None:
    """None for a cell's text (see `spec.parse`); a directory stands for its genotype.json."""
    if name.lstrip()[:1] in ("|", "["):
        return None
    return benchmark.file_of(name)


def load(path: str) -> tuple[Spec, dict[str, Any]]:
    """The cell and the whole content of a file, which is as `Spec.as_dict` or has more keys."""
    return benchmark.load(path, from_dict)


def resolve(name: str) -> Spec:
    """The cell of a text such as `|nor_conv_3x3~0|+|...|+|...|`, or of a file."""
    path = file_of(name)
    return spec_lib.parse(name) if path is None else load(path)[0]


def validate(section: NetworkSection) -> None:
    """Raises `UserError` for settings of other spaces, or if there is no such cell."""
    benchmark.refuse_settings(section, "NAS-Bench-201", width=16)
    check_stack(section)
    resolve(section.genotype)


def check_stack(section: NetworkSection | SupernetSection) -> None:
    """Raises `UserError` if there is no network of this stem and so many cells."""
    if section.stem != "cifar":
        raise UserError(
            f"config.network.stem={section.stem!r}: networks of NAS-Bench-201 have one stem; "
            "use 'cifar'"
        )
    cells = section.cells
    if cells % STAGES:
        raise UserError(
            f"config.network.cells={cells}: networks of NAS-Bench-201 have {STAGES} stages of "
            f"equally many cells; use a multiple of {STAGES}, 15 in the benchmark"
        )


def build(section: NetworkSection, task: Task, dtype: Any) -> Network:
    """The network of a valid config with the head of a task."""
    return Network(
        spec=resolve(section.genotype),
        head=task.head(dtype),
        width=int(section.width),
        cells_each=section.cells // STAGES,
        dtype=dtype,
    )


def check_inputs(section: NetworkSection, task: Task, examples: Examples) -> None:
    """Raises `UserError` unless both reductions find even sides."""
    del section, task
    check_sides(examples)


def check_sides(examples: Examples) -> None:
    """Raises `UserError` unless both reductions find even sides."""
    for side in examples.inputs.shape[1:3]:
        if side % 2 ** (STAGES - 1):
            raise UserError(
                f"config.input.crop: networks of NAS-Bench-201 halve the sides of their inputs "
                f"twice; {side} pixels are no multiple of {2 ** (STAGES - 1)}"
            )


def kind(cell: Spec) -> str:
    """One text: all cells share the program of a supernet; see `sharing.Sharing`."""
    del cell
    return "all"


def program(own: Network) -> Program:
    """The supernet with a cell's path, which computes what its own network does."""
    return Program(
        supernet.Supernet(own.head, own.width, own.cells_each, dtype=own.dtype),
        own,
        {supernet.COLLECTION: supernet.path(own.spec)},
        functools.partial(supernet.place, own.spec),
    )

"""NAS-Bench-101 as a `registry.Space`: its trainings' settings, its cells, its networks."""

import functools
from typing import Any

from unnas_jax.config.schema import SampleSection
from unnas_jax.config.sections import NetworkSection
from unnas_jax.core.errors import UserError
from unnas_jax.spaces import benchmark
from unnas_jax.spaces.nasbench101 import enumeration, padded
from unnas_jax.spaces.nasbench101 import spec as spec_lib
from unnas_jax.spaces.nasbench101.network import Network
from unnas_jax.spaces.nasbench101.spec import Spec
from unnas_jax.spaces.programs import Program
from unnas_jax.tasks.base import Examples, Task

ANY = "011-001-000:conv3x3"
"""A valid cell, where none is chosen yet."""

from_dict = spec_lib.from_dict
identity = spec_lib.identity
file_of = benchmark.file_of


def draw(section: SampleSection, seed: int) -> list[Spec]:
    """The cells that a sweep's section `sample` asks for."""
    return enumeration.sample(section.count, seed)


def load(path: str) -> tuple[Spec, dict[str, Any]]:
    """The cell and the whole content of a file, which is as `Spec.as_dict` or has more keys."""
    return benchmark.load(path, from_dict)


def resolve(name: str) -> Spec:
    """The cell of a text such as `0110-0001-0001-0000:conv3x3,maxpool3x3`, or of a file."""
    path = file_of(name)
    return spec_lib.parse(name) if path is None else load(path)[0]


def validate(section: NetworkSection) -> None:
    """Raises `UserError` for settings of the DARTS space alone, or if there is no such cell."""
    benchmark.refuse_settings(section, "NAS-Bench-101", width=128)
    resolve(section.genotype)


def build(section: NetworkSection, task: Task, dtype: Any) -> Network:
    """The network of a valid config with the head of a task."""
    return Network(
        spec=resolve(section.genotype),
        head=task.head(dtype),
        width=int(section.width),
        stacks=section.stacks,
        modules=section.modules,
        stem=section.stem,
        dtype=dtype,
    )


def check_inputs(section: NetworkSection, task: Task, examples: Examples) -> None:
    """Raises `UserError` if the poolings between the stacks leave no pixel."""
    side = min(examples.inputs.shape[1:3])
    # Strided convolutions round up, poolings down.
    features = -(-side // 8) if section.stem != "cifar" else side
    if features < 2 ** (section.stacks - 1):
        raise UserError(
            f"config.network.stacks={section.stacks}: inputs of {side} pixels leave nothing to "
            "pool before the last stack; use fewer stacks or a larger config.input.crop"
        )


def kind(cell: Spec) -> str:
    """The same text for cells of one padded network; see `sharing.Sharing`."""
    return str(padded.feeding(cell))


def program(own: Network) -> Program:
    """The padded network that computes what a cell's own does; see `sharing.Sharing`."""
    cell, size = own.spec.pruned(), (own.width, own.stacks, own.modules, own.stem)
    return Program(
        padded.Network(padded.feeding(cell), own.head, *size, dtype=own.dtype),
        own,
        {padded.COLLECTION: padded.cell(cell, own.width, own.stacks)},
        functools.partial(padded.place, cell),
    )

"""A search's programs are the same for every seed, which they take as an argument."""

import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from tests import tiny
from unnas_jax.config.sections import MethodConfig
from unnas_jax.core import compilation, sharding
from unnas_jax.methods import draws, registry
from unnas_jax.methods.base import SearchMethod, Setting
from unnas_jax.methods.compiled import Compiled
from unnas_jax.methods.darts import Darts
from unnas_jax.tasks import registry as tasks

# What draws: augmentation, targets, operations, mixing weights. Few operations, without weights.
CASES = {
    "labels, noise, an adversary": (
        "random_labels",
        "darts",
        {"perturbation": "adversarial"},
        ("noise", "skip_connect"),
    ),
    "maps and Gumbel noise": ("regression", "gdas", {}, ("skip_connect", "avg_pool_3x3")),
}


def method_of(case: str, seed: int, devices: int = 1) -> Darts:
    task, name, options, operations = CASES[case]
    config = tiny.config(task)
    config.seed, config.network.nodes, config.network.operations = seed, 1, operations
    side = 32 if task == "regression" else 8
    config.input.update(crop=side, resize=side)
    registry.choose(config, name, **options)
    c = config.to_dict()
    mesh = sharding.data_mesh(jax.devices()[:devices])
    setting = Setting(MethodConfig.of(c), tasks.create(c, tiny.dataset()), mesh, 4)
    found = registry.METHODS[config.search.method](setting)
    assert isinstance(found, Darts)
    return found


def batch_shapes(method: SearchMethod) -> dict[str, jax.ShapeDtypeStruct]:
    side, split = method.config.input.crop, sharding.split(method.setting.mesh)
    shapes: dict[str, tuple[tuple[int, ...], Any]] = {
        "image": ((8, side, side, 3), np.uint8),
        "label": ((8,), np.int32),
        "record": ((8,), np.int32),
    }
    return {k: jax.ShapeDtypeStruct(*of, sharding=split) for k, of in shapes.items()}


def texts(method: Darts) -> Iterator[str]:
    batch = batch_shapes(method)
    for programs in method.lower(batch).values():
        yield from (program.as_text() for program in programs)
    state = method.shapes()
    number = method.replicated(jax.ShapeDtypeStruct((), np.int32))
    yield method.programs.scores.lower(state, batch, number).as_text()


@pytest.mark.parametrize("case", CASES)
def test_seeds_have_the_same_programs(case: str) -> None:
    pairs = zip(texts(method_of(case, 0)), texts(method_of(case, 7)), strict=True)
    assert all(one == other for one, other in pairs)


def drawn(method: SearchMethod, record: jax.Array) -> Any:
    assert hasattr(method.task, "labels")
    return jax.random.key_data(method.key(draws.DRAW, 3)), method.task.labels(record)


@pytest.fixture
def empty_cache(tmp_path: pathlib.Path) -> Iterator[None]:
    before = jax.config.jax_compilation_cache_dir
    for directory in (str(tmp_path), before):
        jax.config.update("jax_compilation_cache_dir", directory)
        compilation_cache.reset_cache()
        if directory != before:
            yield


@pytest.mark.usefixtures("empty_cache")
@pytest.mark.parametrize("devices", [1, 2])
def test_draws_are_those_of_the_seed_and_one_seed_compiles_for_all(devices: int) -> None:
    new = []
    for seed in (0, 12345, 2**31 + 5, 2**40 + 7):
        method = method_of("labels, noise, an adversary", seed, devices)
        record = method.placed(np.arange(4, dtype=np.int32))
        program = Compiled(method, drawn)
        with compilation.measured() as compiled:
            found = program(record)
        new.append(compiled.programs - compiled.cache_hits)
        jax.tree.map(np.testing.assert_array_equal, found, drawn(method, record))
    assert new == [1, 0, 0, 0]

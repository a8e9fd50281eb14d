"""Scores by name: of networks of any space, with seeds, and as units of a sample."""

import dataclasses
import json
import pathlib

import cv2
import numpy as np
import pytest

import tests.toy_space  # noqa: F401 (Registers the space `chains`.)
from tests import tiny
from unnas_jax.analysis import accuracies, comparisons, result_files
from unnas_jax.config import schema
from unnas_jax.core.errors import UserError
from unnas_jax.runs import shared
from unnas_jax.sweep import sample, unit_work, units, validation
from unnas_jax.sweep.architectures import Architecture
from unnas_jax.sweep.scores import registry, subjects, weights
from unnas_jax.sweep.scores.registry import Batch
from unnas_jax.sweep.scoring import Judging

RNG = np.random.default_rng(0)
BATCH = Batch(
    RNG.normal(size=(16, 8, 8, 3)).astype(np.float32), RNG.integers(0, 3, 16).astype(np.int32), 3
)
CELLS = {
    "chains": "3-1",
    "darts": "darts_v2",
    "nasbench101": "011-001-000:conv3x3",
    "nasbench201": "|nor_conv_3x3~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|",
}


ALONE = [n for n, s in registry.SCORES.items() if n != "gennas" and not s.needs_supernet]
"""Scores for which a network is enough."""


def subject(space: str, seed: int = 0, batch: Batch = BATCH) -> registry.Subject:
    config = Judging(space, BATCH, width=4, depth=1, side=8, seed=0).config(CELLS[space])
    return subjects.subject(config, batch, seed)


@pytest.mark.parametrize("space", list(CELLS))
def test_sizes_are_counted(space: str) -> None:
    """In every space, also one's own."""
    network = subject(space).classifier().own
    leaves = weights.shapes(network, (8, 8, 3))
    expected = sum(int(np.prod(s.shape)) for path, s in leaves.items() if path[0] == "params")
    assert registry.value("parameters", subject(space)) == expected
    assert registry.value("multiply_adds", subject(space)) > expected


@pytest.mark.parametrize("name", ALONE)
def test_every_score_judges_a_network_of_one_s_own(name: str) -> None:
    """It is a number, the same again, and another one with another seed unless nothing is drawn."""
    first, again, other = (registry.value(name, subject("chains", seed)) for seed in (0, 0, 1))
    assert np.isfinite(first) and first != registry.WORST
    assert first == again
    assert (first != other) == registry.SCORES[name].draws


def test_a_network_without_stages_has_no_regression() -> None:
    with pytest.raises(UserError, match="marks no ends of its stages"):
        registry.value("gennas", subject("chains"))


def test_a_supernet_that_is_not_given(tmp_path: pathlib.Path) -> None:
    with pytest.raises(UserError, match="score angle: needs the weights of a supernet"):
        registry.value("angle", subject("chains"))
    config = schema.sample()
    config.tasks = ("classification", "shared_weights")
    with pytest.raises(UserError, match="config.scores.supernet='': the score shared_weights"):
        validation.validate(config)
    (tmp_path / "config.json").write_text(json.dumps(schema.search().to_dict()))
    with pytest.raises(UserError, match="its search's method is 'darts'"):
        shared.read(tmp_path)


def test_labels_that_are_not_there() -> None:
    with pytest.raises(UserError, match="score snip: needs labels"):
        registry.value("snip", subject("chains", batch=dataclasses.replace(BATCH, labels=None)))


def test_what_is_not_finite_is_the_worst() -> None:
    nan = registry.Score(lambda subject: float("nan"), "no number")
    registry.SCORES._items["nan"] = nan
    try:
        assert registry.value("nan", subject("chains")) == registry.WORST
    finally:
        del registry.SCORES._items["nan"]


def test_a_sample_takes_scores_beside_tasks(tmp_path: pathlib.Path) -> None:
    """A unit a cell and score, seeds averaged; the figures read them."""
    for number, image in enumerate(tiny.upright(16, 8)):
        cv2.imwrite(str(tmp_path / f"{number:02d}.png"), image)
    config = schema.sample()
    config.tasks = ("rotation", "parameters", "synflow")
    config.training.dataset.update(name="folder", path=str(tmp_path))
    config.training.network.update(space="chains", width="4")
    config.training.input.update(crop=8, resize=8)
    config.training.seeds = 2
    config.scores.images = 16
    validation.validate(config)
    cells = [Architecture(f"chains-{k}", str(k)) for k in (1, 3, 5)]
    store = units.Store(str(tmp_path / "runs"))
    for unit in sample.all_units(config, cells):
        if unit.name.endswith("rotation"):
            assert "score" not in unit.task
        else:
            assert units.process(store, unit, unit_work.do_unit) == "finished"
    name = f"{cells[0].name}/synflow"
    unit = result_files.read_unit(store.result_path(units.Unit(name, None)))
    assert unit["seeds"] == [0, 1] and unit["accuracy"] == pytest.approx(np.mean(unit["values"]))
    table = accuracies.table(accuracies.read([tmp_path / "runs"]))
    sizes = table["chains", "folder", "parameters"]
    assert sizes[cells[0].name] < sizes[cells[1].name] < sizes[cells[2].name]
    labels = {("chains", "folder", "classification"): {k: v / 1e6 for k, v in sizes.items()}}
    found = {c.task: c for c in comparisons.compare({**table, **labels})}
    assert found["parameters"].correlation.rho == pytest.approx(1)
    assert found["synflow"].measure == "SynFlow" and found["synflow"].factor == 1


def test_a_name_that_is_neither() -> None:
    config = schema.sample()
    config.tasks = ("synflo",)
    with pytest.raises(UserError, match="config.tasks='synflo'"):
        validation.validate(config)

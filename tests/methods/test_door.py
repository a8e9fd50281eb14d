"""The door for search methods: one of one's own runs, stops and goes on like DARTS."""

import copy
import json
import pathlib

import jax
import numpy as np
import pytest

from tests import conftest, signals, tiny
from tests.methods import toy
from unnas_jax.analysis import results
from unnas_jax.config.sections import MethodConfig
from unnas_jax.core import sharding
from unnas_jax.core.errors import UserError
from unnas_jax.data import examples
from unnas_jax.methods import registry
from unnas_jax.methods.base import SearchMethod, Setting
from unnas_jax.methods.darts import Darts
from unnas_jax.runs import validation
from unnas_jax.runs.search import search
from unnas_jax.spaces.darts.candidates import OPERATIONS
from unnas_jax.spaces.darts.genotype import strongest
from unnas_jax.tasks import registry as tasks

STAGE = 8  # Steps: two epochs of four.
pytestmark = pytest.mark.usefixtures("on_one_device")


def config_of(method, images):
    config = tiny.config(epochs=4)
    config.dataset.update(name="folder", path=str(images))
    config.network.nodes = 1
    config.checkpoint_every_steps, config.workers = 3, 0
    registry.choose(config, method)
    return config


def rows(workdir: pathlib.Path, *kinds: str) -> list[dict]:
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return [line for line in lines if line["kind"] in kinds]


@pytest.fixture(scope="module")
def uninterrupted(images, tmp_path_factory):
    """The final state of a search with the toy, its workdir, and the steps that B was read for."""
    workdir, steps, read = tmp_path_factory.mktemp("toy") / "w", set(), examples.TrainRow.__call__

    def noting(row, position):
        if row.seed == 1:  # Half B's, of the seed 0.
            steps.add(position // 8)
        return read(row, position)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(examples.TrainRow, "__call__", noting)
        return search(config_of("shared", images), str(workdir)), workdir, steps


def test_all_files_of_a_search_are_there_and_say_what_the_method_says(uninterrupted):
    state, workdir, _ = uninterrupted
    assert int(state.step) == 2 * STAGE
    for name in ("cells.svg", "alphas.png", "curves.png", "report.html"):
        assert (workdir / name).stat().st_size > 0
    with np.load(workdir / "alphas.npz") as columns:
        assert columns["step"].tolist() == [0, 4, 8, 12, 16]
        assert columns["stage"].tolist() == [0, 0, 0, 1, 1]
        assert columns["operations"].shape == (3, 8) and columns["edges"].shape == (3, 2)
        assert columns["stage1/operations"].shape == (2, 3)
        np.testing.assert_array_equal(columns["stage1/edges"][-1], state.alphas["edges"])
        best = sorted(np.argsort(-columns["operations"][-1])[:3])
        row = np.zeros(8)
        row[best] = np.exp(np.float64(columns["stage1/operations"][-1]))
        gates = 1 / (1 + np.exp(-np.float64(columns["stage1/edges"][-1])))
        expected = gates[:, None] * row / row.sum()
        np.testing.assert_allclose(columns["mixing/normal"][-1], expected, rtol=1e-12)
        assert columns["mixing/reduce"].shape == (5, 2, 8)
    document = json.loads((workdir / "genotype.json").read_text())
    assert document["genotype"] == strongest(expected, expected).as_dict()
    assert {name for name, _ in document["genotype"]["normal"]} <= {OPERATIONS[k] for k in best}
    np.testing.assert_allclose(document["alphas_softmax"]["reduce"], expected, atol=1e-6)
    assert document["method"] == "shared" and document["finished"]
    assert [row["step"] for row in rows(workdir, "method")] == [4, 8, 12, 16]
    assert rows(workdir, "method")[-1]["mean_edge"] == float(np.mean(state.alphas["edges"]))


def test_half_b_is_read_only_for_the_steps_that_use_it(uninterrupted):
    assert uninterrupted[2] == set(range(0, 2 * STAGE, 2))


@pytest.mark.usefixtures("no_reports")
def test_it_goes_on_exactly_within_stages_and_between_them(
    uninterrupted, images, tmp_path, monkeypatch
):
    expected, other, _ = uninterrupted
    step, taken = toy.Shared.step, []
    interruptions = {5: "killed", 7: "stopped", 8: "killed", 10: "stopped", 11: "killed"}

    def interrupted(self, state, batch_a, batch_b):
        number = int(state.step)
        what = interruptions.pop(number, None)
        if what == "killed":
            raise RuntimeError(what)
        if what == "stopped":  # This step is the last one: at 7 that of the first stage.
            signals.interrupt()
        taken.append(number)
        return step(self, state, batch_a, batch_b)

    monkeypatch.setattr(toy.Shared, "step", interrupted)
    starts = 0
    while interruptions or not taken or taken[-1] < 2 * STAGE - 1:
        starts += 1
        try:
            state = search(config_of("shared", images), str(tmp_path / "w"))
        except RuntimeError as error:
            assert str(error) == "killed"
    assert starts == 6 and {7, 8, 10} <= set(taken) and len(taken) > 2 * STAGE
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(state), jax.device_get(expected))
    with np.load(other / "alphas.npz") as a, np.load(tmp_path / "w" / "alphas.npz") as b:
        assert a.files == b.files
        for name in a.files:
            np.testing.assert_array_equal(a[name], b[name])
    assert rows(tmp_path / "w", "validation", "method") == rows(other, "validation", "method")
    assert results.read(tmp_path / "w").genotype == results.read(other).genotype


def test_the_page_shows_this_method():
    page = (conftest.ROOT / "docs" / "walks" / "search_method.md").read_text()
    code = pathlib.Path(toy.__file__).read_text().split('"""', 2)[2].strip()
    assert f"```python\n{code}\n```" in page


class Named(Darts):
    """Only registered: DARTS by another name."""

    name = "named"


@pytest.mark.usefixtures("no_reports")
def test_a_registered_method_is_found_and_runs(images, tmp_path):
    registry.METHODS.register(Named.name, Named)
    config = config_of("named", images)
    config.network.operations = tiny.FEW
    config.train.max_steps = 1
    state = search(config, str(tmp_path / "w"))
    assert int(state.step) == 1 and set(state.alphas) == {"normal", "reduce"}
    assert json.loads((tmp_path / "w" / "genotype.json").read_text())["method"] == "named"
    with pytest.raises(UserError, match="search method 'named': the name is taken"):
        registry.METHODS.register(Named.name, Darts)


class Chooser(Darts):
    """It says that it chooses, and not how."""

    name = "chooser"
    chooses = True

    def judge(self, state, cells, images):
        return [{"merit": 0.0} for _ in cells]


class Silent(SearchMethod):
    """It has neither steps nor a meaning of its alphas."""

    name = "silent"


@pytest.mark.parametrize(
    ("method", "lacking"),
    [(Chooser, "candidates, document"), (Silent, "evaluate, initial, step, mix")],
)
def test_what_a_method_lacks_is_told_when_it_is_registered(method, lacking):
    with pytest.raises(UserError, match=f"^search method '{method.name}': lacks {lacking}, which"):
        registry.register_method(method)
    assert method.name not in registry.METHODS


def test_the_programs_of_its_steps_can_be_compiled_ahead(images):
    c, mesh = config_of("shared", images).to_dict(), sharding.data_mesh(jax.devices()[:1])
    method = toy.Shared(
        Setting(MethodConfig.of(c), tasks.create(c, tiny.dataset()), mesh, 4, 1, 8, ["none"])
    )
    assert int(method.shapes().alphas["operations"].size) == 1
    batch = {
        "image": jax.ShapeDtypeStruct((8, 16, 16, 3), np.uint8, sharding=sharding.split(mesh)),
        "label": jax.ShapeDtypeStruct((8,), np.int32, sharding=sharding.split(mesh)),
    }
    assert {name: len(parts) for name, parts in method.lower(batch).items()} == {
        "alphas": 2,
        "weights": 2,
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"search": {"method": "dart"}}, "config.search.method='dart': did you mean 'darts'"),
        ({"method": {"kep": 2}}, "config.method.kep: did you mean 'kept'"),
        ({"method": {"kept": "two"}}, "config.method.kept='two': must be of type int"),
        ({"method": {"kept": True}}, "config.method.kept=True: must be of type int"),
        (
            {"search": {"method": "darts"}},
            "config.method.every: .*the method 'darts' has the options",
        ),
        ({"search": {"order": 3}}, "config.search.order=3: use 1 or 2"),
    ],
)
def test_mistakes_in_its_config_are_told(change, message):
    config = copy.deepcopy(config_of("shared", "images"))
    with config.unlocked(), config.ignore_type():
        config.update(change)
    with pytest.raises(UserError, match=message):
        validation.validate(config)

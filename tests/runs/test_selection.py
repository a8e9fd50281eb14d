"""Selections of cells from a finished search: by perturbation, stopped and continued; by size."""

import csv
import json
import pathlib
import shutil
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from tests import tiny, tiny_training
from unnas_jax.analysis.history import Alphas, Row
from unnas_jax.commands import select
from unnas_jax.config.sections import MethodConfig
from unnas_jax.core import files, sharding
from unnas_jax.core.errors import UserError
from unnas_jax.data import halves, open_dataset, order, pipeline
from unnas_jax.methods import draws, registry
from unnas_jax.methods.base import Setting
from unnas_jax.methods.darts import Darts
from unnas_jax.methods.p_darts import PDarts
from unnas_jax.runs import search as search_lib
from unnas_jax.runs import selected, selection
from unnas_jax.runs.selecting import Scores, Selecting
from unnas_jax.runs.selection import Options
from unnas_jax.spaces.darts import genotype
from unnas_jax.spaces.darts.candidates import KINDS, OPERATIONS
from unnas_jax.spaces.nasbench201 import space as space201
from unnas_jax.spaces.nasbench201.spec import Spec
from unnas_jax.tasks import registry as tasks

OPTIONS = Options(epochs=1, max_images=16, learning_rate=0.01)
NAMES = ("skip_connect", "max_pool_3x3")


pytestmark = pytest.mark.usefixtures("on_one_device")


def config_of(method: str, images: pathlib.Path, names: tuple[str, ...], **options: Any) -> Any:
    config = tiny.config(epochs=1)
    config.weights.learning_rate = 5e-3  # So that not every answer is right.
    config.dataset.update(name="folder", path=str(images))
    config.network.update(nodes=1, operations=names)
    config.input.update(crop=8, resize=10)
    config.workers = 0
    registry.choose(config, method, **options)
    return config


@pytest.fixture(scope="module")
def searched(
    on_one_device: None, images: pathlib.Path, tmp_path_factory: pytest.TempPathFactory
) -> pathlib.Path:
    workdir = tmp_path_factory.mktemp("runs") / "search"
    search_lib.search(config_of("darts", images, NAMES), str(workdir))
    return workdir


@pytest.fixture(scope="module")
def in_stages(
    on_one_device: None, images: pathlib.Path, tmp_path_factory: pytest.TempPathFactory
) -> pathlib.Path:
    """A search by P-DARTS that ends in its second stage, which has dropout on skips."""
    stages = {"cells_added": (0, 0, 0), "kept": (2, 1), "skip_dropout": (0.0, 0.9, 0.0)}
    config = config_of("p_darts", images, (*NAMES, "avg_pool_3x3"), **stages)
    config.train.update(epochs=3, max_steps=8)
    workdir = tmp_path_factory.mktemp("runs") / "stages"
    search_lib.search(config, str(workdir))
    return workdir


def last_checkpoint(workdir: pathlib.Path) -> Any:
    with ocp.CheckpointManager(workdir / "checkpoints") as manager:
        items = ocp.args.Composite(
            state=ocp.args.StandardRestore(None), progress=ocp.args.JsonRestore()
        )
        return manager.restore(manager.latest_step(), args=items)


@pytest.fixture(scope="module")
def whole(searched: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    out = tmp_path_factory.mktemp("whole") / "out"
    assert selection.by_perturbation(str(searched), str(out), OPTIONS) is not None
    return out


@pytest.fixture(scope="module")
def of_stage(in_stages: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    out = tmp_path_factory.mktemp("of_stage") / "out"
    assert selection.by_perturbation(str(in_stages), str(out), OPTIONS) is not None
    return out


def table(out: pathlib.Path) -> list[dict[str, str]]:
    with open(out / "choices.csv", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_what_a_selection_leaves(whole: pathlib.Path) -> None:
    cells, document = genotype.load(whole / "genotype.json")
    rows = table(whole)
    # Two edges of two cells, each without one of two operations.
    assert [row["decision"] for row in rows] == ["1"] * 4 + ["2"] * 4
    for kind, pairs in (("normal", cells.normal), ("reduce", cells.reduce)):
        for operation, source in pairs:
            of_edge = [r for r in rows if r["cell"] == kind and r["input"] == str(source)]
            assert [row["without"] for row in of_edge] == list(NAMES)
            worst = min(of_edge, key=lambda row: float(row["score"]))
            assert worst["without"] == operation and worst["result"] == f"keeps {operation}"
    assert document["selection"]["by"] == "perturbation" and document["finished"]
    assert (whole / "cells.svg").stat().st_size > 1000 < (whole / "cells.png").stat().st_size
    lines = (whole / "metrics.jsonl").read_text().splitlines()
    kinds = [json.loads(line)["kind"] for line in lines]
    assert kinds.count("validation") == 1


def test_a_selection_of_a_later_stage(
    in_stages: pathlib.Path, of_stage: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It chooses among what the stage before left, and goes on in the stage."""
    carried = last_checkpoint(in_stages).progress["carried"]
    cells, _ = genotype.load(of_stage / "genotype.json")
    rows = table(of_stage)
    for kind, pairs in (("normal", cells.normal), ("reduce", cells.reduce)):
        assert [source for _, source in pairs] == [0, 1]
        for edge, (operation, _) in enumerate(pairs):
            of_edge = [r for r in rows if r["cell"] == kind and r["input"] == str(edge)]
            assert [row["without"] for row in of_edge] == carried[kind][edge]
            assert len(of_edge) == 2 and operation in carried[kind][edge]
    end = last_checkpoint(of_stage)
    assert end.progress["stage"] == 1 and end.progress["carried"] == carried
    assert int(end.state["step"]) == 8 + 4
    monkeypatch.delattr(Selecting, "_score")
    again = selection.by_perturbation(str(in_stages), str(of_stage), OPTIONS)
    assert again is not None and again.cells == cells


def test_a_first_stage_without_its_dropout_has_the_same_parameters(images: pathlib.Path) -> None:
    """With eight operations, which without dropout would be computed by a fused form."""
    config = config_of("p_darts", images, OPERATIONS, skip_dropout=(0.1, 0.4, 0.7))
    config.train.epochs = 3
    before, made = config.to_dict(), []
    for c in (before, selection.config_for(before, 0.0)):
        task = tasks.create(c, open_dataset(c["dataset"]))
        made.append(PDarts(Setting(MethodConfig.of(c), task, sharding.data_mesh(), 4)))
    dropped, plain = made
    assert dropped.skips(0) and not plain.skips(0)
    shapes = [jax.eval_shape(method.initial).params for method in made]
    jax.tree.map(lambda a, b: np.testing.assert_equal(a.shape, b.shape), *shapes)


@pytest.mark.parametrize("runs", [("searched", "whole"), ("in_stages", "of_stage")])
def test_a_score_is_that_of_the_supernet_without_an_operation(
    runs: tuple[str, str], request: pytest.FixtureRequest
) -> None:
    """Mixed by hand, on the same images."""
    search, out = (request.getfixturevalue(name) for name in runs)
    c = selected.config_of(str(search), "search")
    dataset = open_dataset(c["dataset"])
    task, mesh = tasks.create(c, dataset), sharding.data_mesh()
    state, progress = (last_checkpoint(search)[item] for item in ("state", "progress"))
    stage = {"stage": progress["stage"], "carried": progress["carried"]}
    method = registry.of_config(c)(Setting(MethodConfig.of(c), task, mesh, 4, **stage))
    network = method.supernet.clone(mix=lambda weights: weights)  # Those of its own operations.
    left = stage["carried"] or dict.fromkeys(KINDS, [list(NAMES)] * 2)
    exact = {}
    for kind in KINDS:
        powers = np.exp(np.asarray(state["alphas"][kind], np.float64))
        exact[kind] = np.float32(powers / powers.sum(1, keepdims=True))
    held_out = order.evaluation_sample(halves(64, 0)[1], 16, 0)
    batches = pipeline.eval_batches(
        dataset.splits["train"], held_out, batch_size=8, crop=8, resize=10, apply_exif=True,
        workers=0,
    )  # fmt: skip
    answer = jax.jit(
        lambda inputs, mixing: network.apply(
            {"params": state["params"], "batch_stats": state["batch_stats"]},
            inputs,
            mixing,
            train=True,
            mutable=["batch_stats"],
        )[0]
    )
    seen = [
        task.examples(
            method.key(draws.EVALUATION, number),
            {"image": batch["image"], "label": batch["label"]},
            train=False,
        )
        for number, batch in enumerate(batches)
    ]
    rows = table(out)
    first = [r for r in rows if (r["decision"], r["cell"]) == ("1", rows[0]["cell"])]
    assert len(first) == 2
    for row in first:
        cell, edge = row["cell"], int(row["input"])
        mixing = {kind: weights.copy() for kind, weights in exact.items()}
        mixing[cell][edge, left[cell][edge].index(row["without"])] = 0
        hits, count = 0, 0
        for examples in seen:
            answers = np.argmax(np.asarray(answer(examples.inputs, mixing)), -1)
            hits += np.sum(answers == np.asarray(examples.targets))
            count += len(answers)
        assert count == 64 and hits < 60
        assert float(row["score"]) == pytest.approx(hits / count, abs=1.01 / count)


class Killed(Exception):
    """In the place of a signal that no process survives."""


def test_it_goes_on_where_it_was_killed(
    searched: pathlib.Path, whole: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """In a decision, and between two; what was measured is not measured again."""
    out, measured, ends = tmp_path / "out", [], [("score", 2), ("step", 6)]

    def select_again() -> selected.Selected | None:
        return selection.by_perturbation(str(searched), str(out), OPTIONS)

    with pytest.MonkeyPatch.context() as patch:
        score, step = Selecting._score, Darts.weight_step

        def scored(self: Selecting, given: Any) -> float:
            if ends[:1] == [("score", len(measured))]:
                raise Killed
            measured.append(given)
            return score(self, given)

        def stepped(self: Darts, state: Any, *others: Any) -> Any:
            if ends[:1] == [("step", int(state.step))]:
                raise Killed
            return step(self, state, *others)

        patch.setattr(Selecting, "_score", scored)
        patch.setattr(Darts, "weight_step", stepped)
        while ends:
            with pytest.raises(Killed):
                select_again()
            ends.pop(0)
        found = select_again()
        assert found is not None and len(measured) == 8
        # Once finished it measures nothing.
        again = select_again()
        assert again is not None and again.cells == found.cells and len(measured) == 8
    for name in ("choices.csv", "genotype.json"):
        assert (out / name).read_bytes() == (whole / name).read_bytes()
    jax.tree.map(
        np.testing.assert_array_equal, *(last_checkpoint(run).state for run in (out, whole))
    )


def test_scores_of_another_decision_are_forgotten(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "scores.json")
    first, second = Scores(path, True), Scores(path, True)
    omitted = ("normal", 0, "none")
    assert first.of(0, omitted, lambda: 0.25) == 0.25 == first.of(0, omitted, lambda: 1 / 0)
    assert Scores(path, True).of(0, omitted, lambda: 1 / 0) == 0.25
    assert first.of(1, omitted, lambda: 0.5) == 0.5
    assert Scores(path, True).of(0, omitted, lambda: 0.75) == 0.75
    assert second.of(0, omitted, lambda: 0.125) == 0.125


def test_by_magnitude(searched: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The cells of any epoch, as the search itself would have left them."""
    with np.load(searched / "alphas.npz") as columns:
        mixing = {kind: columns[f"mixing/{kind}"] for kind in KINDS}
    names = dict.fromkeys(KINDS, (NAMES,) * 2)
    assert select.main([str(searched), "--by=magnitude", "--epoch=1"]) == 0
    cells, document = genotype.load(searched / "magnitude_epoch_1" / "genotype.json")
    expected = genotype.strongest(mixing["normal"][1], mixing["reduce"][1], names)
    assert cells == expected and document["selection"] == {"by": "magnitude", "of_epoch": 1.0}
    assert str(cells) in capsys.readouterr().out
    found = selected.by_magnitude(str(searched))
    assert found.cells == genotype.load(searched / "genotype.json")[0]
    assert len(table(searched / "magnitude_epoch_1")) == 4


def test_by_magnitude_in_nas_bench_201(tmp_path: pathlib.Path) -> None:
    config = tiny.config()
    config.network.update(space="nasbench201", stem="cifar", nodes=4, operations=())
    files.write_json(tmp_path / "config.json", config.to_dict())
    mixing = np.random.default_rng(0).dirichlet(np.ones(5), (2, 6))
    rows = [Row(k, float(k), 0, {"cell": rows}, {"cell": rows}) for k, rows in enumerate(mixing)]
    np.savez(tmp_path / "alphas.npz", **Alphas(tuple(rows)).columns())
    found = selected.by_magnitude(str(tmp_path), str(tmp_path / "out"), epoch=0)
    assert isinstance(found.cells, Spec)
    assert found.cells.numbers() == tuple(mixing[0].argmax(1))
    strongest = [float(row["weight"]) for row in table(tmp_path / "out")]
    np.testing.assert_allclose(strongest, mixing[0].max(1), atol=1e-6)
    assert space201.load(str(tmp_path / "out" / "genotype.json"))[0] == found.cells
    assert (tmp_path / "out" / "cells.svg").stat().st_size > 1000


def mistake(*words: str) -> str:
    with pytest.MonkeyPatch.context() as patch:
        said: list[str] = []
        patch.setattr(select.command_line, "fail", lambda text, status=2: said.append(text) or 2)
        assert select.main(words) == 2
    assert len(said) == 1 and "\n" not in said[0]
    return said[0]


def test_mistakes(searched: pathlib.Path, whole: pathlib.Path, tmp_path: pathlib.Path) -> None:
    search, out = str(searched), str(whole)
    assert "has alphas of the epochs 0 to 1" in mistake(search, "--by=magnitude", "--epoch=7")
    assert "--seed: is for --by=perturbation" in mistake(search, "--by=magnitude", "--seed=1")
    assert "--epoch: is for --by=magnitude" in mistake(search, "--epoch=1")
    assert "--epochs=0: must be at least 1" in mistake(search, "--epochs=0")
    assert "--learning-rate=nan: must be" in mistake(search, "--learning-rate=nan")
    assert "no such workdir" in mistake(str(tmp_path / "none"))
    assert "other options (epochs: 1 -> 5;" in mistake(search, f"--out={out}")
    assert "is the folder of something else" in mistake(search, f"--out={search}")
    assert "is the workdir of a run" in mistake(search, "--by=magnitude", f"--out={search}")
    few = mistake(search, f"--out={tmp_path / 'few'}", "--max-images=4")
    assert "give at least a batch, 8 images" in few
    of_training = tmp_path / "training"
    of_training.mkdir()
    files.write_json(of_training / "config.json", tiny_training.config().to_dict())
    assert "is the workdir of a training" in mistake(str(of_training))


def test_searches_of_which_it_cannot_select(searched: pathlib.Path, tmp_path: pathlib.Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(searched, other, ignore=shutil.ignore_patterns("checkpoints", "perturbation"))
    config, document = (
        json.loads((other / f"{name}.json").read_text()) for name in ("config", "genotype")
    )

    def refused() -> str:
        with pytest.raises(UserError) as caught:
            selection.by_perturbation(str(other))
        assert not (other / "perturbation" / "genotype.json").exists()
        return str(caught.value)

    assert "has no checkpoint" in refused()
    files.write_json(other / "genotype.json", {**document, "finished": False})
    assert "the search is not finished, at epoch 1" in refused()
    changed = {**config, "search": {**config["search"], "method": "gdas"}, "method": {}}
    files.write_json(other / "config.json", changed)
    assert "does not mix all" in refused()
    files.write_json(
        other / "config.json", {**config, "weights": {**config["weights"], "optimizer": "object"}}
    )
    assert "its optimizer of the weights was passed from Python" in refused()

"""Single-path search in both spaces: files, exact continuation, choice, what judging computes."""

import copy
import json
import pathlib
import types
from typing import Any

import jax
import numpy as np
import pytest

from tests import signals, tiny
from tests.methods.made_once import made_once
from unnas_jax.analysis import results
from unnas_jax.commands import correlate
from unnas_jax.config.sections import MethodConfig
from unnas_jax.core import sharding
from unnas_jax.core.errors import UserError
from unnas_jax.learning import statistics
from unnas_jax.methods import draws, registry
from unnas_jax.methods.base import Setting
from unnas_jax.methods.single_path import SinglePath
from unnas_jax.runs import choosing, shared, validation
from unnas_jax.runs.search import search
from unnas_jax.spaces import vectors
from unnas_jax.spaces.darts import genotype
from unnas_jax.spaces.darts.genotype import Genotype
from unnas_jax.spaces.darts.network import Network
from unnas_jax.spaces.nasbench201 import space as nasbench201
from unnas_jax.tasks import registry as tasks

OPERATIONS = ("none", "skip_connect", "conv_3x3")


@pytest.fixture(scope="module", autouse=True)
def one_device():
    """Of the eight, which would only take longer to compile for."""
    with pytest.MonkeyPatch.context() as patch:
        mesh = sharding.data_mesh
        patch.setattr(
            sharding, "data_mesh", lambda devices=None: mesh(devices or jax.devices()[:1])
        )
        yield


@pytest.fixture(scope="module", autouse=True)
def one_instance_for_a_setting():
    with made_once(SinglePath):
        yield


def config_of(images: Any, criterion: str = "accuracy", **network: Any) -> Any:
    config = tiny.config(epochs=2)
    config.dataset.update(name="folder", path=str(images))
    config.network.update(stem="cifar", nodes=1, operations=OPERATIONS, affine=True)
    config.network.update(network)
    config.input.update(crop=8, resize=8)
    config.workers = 0
    registry.choose(config, "single_path", candidates=5, bn_images=12, criterion=criterion)
    return config


def in_nasbench201(images: Any, criterion: str) -> Any:
    plain = {"operations": (), "affine": False, "nodes": 4}
    return config_of(images, criterion, space="nasbench201", **plain)


def judged(workdir: pathlib.Path) -> list[dict]:
    return [json.loads(line) for line in (workdir / "candidates.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def finished(images, tmp_path_factory) -> tuple[Any, pathlib.Path]:
    workdir = tmp_path_factory.mktemp("single") / "w"
    return search(config_of(images), str(workdir)), workdir


def test_the_best_of_the_judged_cells_is_the_genotype(finished) -> None:
    state, workdir = finished
    assert int(state.step) == 8 and state.alphas == {}
    rows, document = judged(workdir), json.loads((workdir / "genotype.json").read_text())
    assert len({row["cell"] for row in rows}) == 5
    assert all(0 <= row["accuracy"] == row["merit"] <= 1 and row["step"] == 8 for row in rows)
    best = max(rows, key=lambda row: row["accuracy"])
    assert document["cell"] == best["cell"] and document["finished"]
    assert str(results.read(workdir).genotype) == best["cell"]
    merits = sorted(row["merit"] for row in rows)
    assert document["candidates"]["count"] == 5
    assert document["candidates"]["merits"]["median"] == merits[2]
    assert document["candidates"]["best"]["accuracy"] == merits[-1]
    page = (workdir / "report.html").read_text()
    assert "best of 5 random cells by accuracy" in page and "<h2>Cells" in page
    assert "half B on random cells" in page and results.read(workdir).finished


def test_a_damaged_summary_is_told(finished, tmp_path) -> None:
    _, workdir = finished
    document = json.loads((workdir / "genotype.json").read_text())
    (tmp_path / "config.json").write_text((workdir / "config.json").read_text())
    for change in ({"merits": {}}, {"best": {"loss": "low"}}, {"best": {"loss": 1.0}}):
        damaged = {**document, "candidates": {**document["candidates"], **change}}
        (tmp_path / "genotype.json").write_text(json.dumps(damaged))
        with pytest.raises(UserError, match="genotype.json is damaged: .*; remove it"):
            results.read(tmp_path)


def test_nasbench201_by_the_angle(images, tmp_path, monkeypatch) -> None:
    """Without the evaluations, whose program is that of training forwards."""
    sums = {"loss": 1.0, "correct": 0.0, "count": 1.0, "targets": np.ones(3)}
    monkeypatch.setattr(SinglePath, "evaluate", lambda *arguments: sums)
    config = in_nasbench201(images, "angle")
    config.task.name, config.task.random_classes = "random_labels", 3
    config.train.max_steps = 2
    search(config, str(tmp_path))
    rows, document = judged(tmp_path), json.loads((tmp_path / "genotype.json").read_text())
    best = max(rows, key=lambda row: row["angle"])
    cell, _ = nasbench201.load(str(tmp_path / "genotype.json"))
    assert str(cell) == best["cell"] == document["cell"] and 0 < best["angle"] < 1
    page = (tmp_path / "report.html").read_text()
    assert best["cell"] in page and "--config.network.space=nasbench201" in page


def test_it_goes_on_exactly_in_training_and_in_judging(
    finished, images, tmp_path, monkeypatch
) -> None:
    expected, other = finished
    monkeypatch.setattr(choosing, "CELLS_AT_ONCE", 2)
    step, judge = SinglePath.step, SinglePath.judge
    steps, calls = [], []

    def stopped_step(self, state, batch_a, batch_b):
        assert batch_b is None
        steps.append(int(state.step))
        if len(steps) == 3:
            signals.interrupt()
        return step(self, state, batch_a, batch_b)

    def killed_judge(self, state, cells, images):
        calls.append(len(cells))
        if len(calls) == 2:
            raise RuntimeError("killed")
        if len(calls) == 3:
            signals.interrupt()
        return judge(self, state, cells, images)

    monkeypatch.setattr(SinglePath, "step", stopped_step)
    monkeypatch.setattr(SinglePath, "judge", killed_judge)
    workdir = tmp_path / "w"
    assert int(search(config_of(images), str(workdir)).step) < 8
    with pytest.raises(RuntimeError, match="killed"):
        search(config_of(images), str(workdir))
    assert len(judged(workdir)) == 2 and not (workdir / "genotype.json").exists()
    with open(workdir / "candidates.jsonl", "a") as file:
        file.write('{"step": 8, "cel')  # Of a process that was killed while it wrote.
    search(config_of(images), str(workdir))
    assert not (workdir / "genotype.json").exists()
    page = (workdir / "report.html").read_text()
    assert "No cell is chosen yet" in page
    state = search(config_of(images), str(workdir))
    assert calls == [2, 2, 2, 1] and steps == list(range(8))
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(state), jax.device_get(expected))
    lines = (workdir / "candidates.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines if '"merit"' in line] == judged(other)
    assert (workdir / "genotype.json").read_text() == (other / "genotype.json").read_text()


def test_its_weights_judge_the_cells_of_a_table(finished, tmp_path, capsys) -> None:
    """The score of a candidate is what the search found of it."""
    state, workdir = finished
    rows = judged(workdir)
    table = tmp_path / "table.csv"
    lines = [f'"{row["cell"]}",{k}' for k, row in enumerate(rows)]
    table.write_text("\n".join(["cell,accuracy", *lines, f'"{rows[0]["cell"]}",9']) + "\n")
    out = tmp_path / "out"
    flags = [f"--table={table}", f"--supernet={workdir}", f"--workdir={out}"]
    scores = "--scores=shared_weights,angle"
    assert correlate.main([*flags, "--space=darts", scores]) == 0
    lines = map(json.loads, (out / "scores.jsonl").read_text().splitlines())
    found = {(row["cell"], row["score"]): row["value"] for row in lines}
    assert len(found) == 10
    method = shared.read(workdir).method
    for row in rows:
        assert found[row["cell"], "shared_weights"] == row["accuracy"]
        (angle,) = method.angles(state, [method.paths.resolve(row["cell"])])
        assert found[row["cell"], "angle"] == angle > 0
    assert "shared_weights" in capsys.readouterr().out
    assert correlate.main([*flags, "--space=darts", scores, "--show"]) == 0


CHANGES = [
    ({"method": {"criterion": "angel"}}, "criterion='angel': use one of accuracy, loss, angle"),
    ({"method": {"candidates": 0}}, "config.method.candidates=0: must be at least 1"),
    ({"method": {"bn_images": 0}}, "config.method.bn_images=0: must be at least 1"),
    ({"network": {"cells": 4}}, "config.network.cells=4: .* a multiple of 3"),
    ({"network": {"affine": True}}, "config.network.affine=True: supernets of NAS-Bench-201"),
    ({"network": {"operations": ("none",)}}, "config.network.operations.*NAS-Bench-201"),
    ({"network": {"space": "nasbench101"}}, "space='nasbench101': .*'single_path' searches in"),
    (
        {"search": {"method": "p_darts"}, "method": None},
        "space='nasbench201': the method 'p_darts' searches in darts; in nasbench201 "
        "search.method='darts' does",
    ),
    (
        {"network": {"space": "darts", "operations": ("noise", "skip_connect")}},
        "'noise' cannot be computed by itself",
    ),
    (
        {"network": {"space": "darts"}, "search": {"formulation": "dense"}},
        "config.search.formulation='dense': computes all operations",
    ),
    (
        {"network": {"space": "darts", "auxiliary_skip": True}},
        "config.network.auxiliary_skip=True: a single path has no such thing",
    ),
]


@pytest.mark.parametrize(("change", "message"), CHANGES)
def test_mistakes_are_told_before_anything_is_built(change: Any, message: str) -> None:
    config = copy.deepcopy(in_nasbench201("images", "accuracy"))
    with config.unlocked(), config.ignore_type():
        if "method" in change and change["method"] is None:
            change = {**change, "method": {}}
            config.method = {}
        config.update(change)
    with pytest.raises(UserError, match=message):
        validation.validate(config)


def test_more_candidates_than_there_are(images, tmp_path) -> None:
    config = config_of(images, space="darts", nodes=1, operations=("skip_connect", "none"))
    config.method.candidates = 2
    with pytest.raises(UserError, match="hardly 2 different cells of 1 nodes"):
        search(config, str(tmp_path / "w"))


def batch(method: SinglePath, seed: int, images: int = 8) -> dict[str, jax.Array]:
    rng = np.random.default_rng(seed)
    both = {
        "image": rng.integers(0, 256, (images, 8, 8, 3), np.uint8),
        "label": np.zeros(images, np.int32),
    }
    return sharding.to_devices(both, method.setting.mesh)


@pytest.fixture(scope="module")
def darts_method() -> SinglePath:
    c, mesh = config_of("images").to_dict(), sharding.data_mesh(jax.devices()[:1])
    return SinglePath(Setting(MethodConfig.of(c), tasks.create(c, tiny.dataset()), mesh, 4))


def test_a_step_of_darts_space(darts_method) -> None:
    """One and two devices agree; it depends on nothing but the state; only the path learns."""
    one = darts_method
    two = SinglePath(Setting(one.config, one.task, sharding.data_mesh(jax.devices()[:2]), 4))
    state = jax.device_get(one.init())

    def stepped(method: SinglePath) -> Any:
        fresh = sharding.replicate(state, method.setting.mesh)
        after, sums = method.step(fresh, batch(method, 0), None)
        assert sums["alpha"] is None
        return jax.device_get((after, sums["weights"]))

    first, sums = stepped(one)
    jax.tree.map(np.testing.assert_array_equal, stepped(one)[0], first)
    again, others = stepped(two)
    np.testing.assert_allclose(others["loss"], sums["loss"], rtol=1e-4)
    for a, b in zip(jax.tree.leaves(again.params), jax.tree.leaves(first.params), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)
    path = jax.device_get(one.paths.draw(one.key(draws.DRAW, 0)))
    before, after = state.params["cell_0"], first.params["cell_0"]
    for edge in range(2):
        own = (tree[f"edge_{edge}_0"]["chosen"]["conv_3x3"] for tree in (before, after))
        changed = [np.abs(a - b).max() for a, b in zip(*map(jax.tree.leaves, own), strict=True)]
        assert path["normal"][edge].sum() == 1 and path["normal"][edge][0] == 0
        # Weight decay moves all, a gradient more.
        assert (max(changed) > 1e-4) == (
            OPERATIONS[int(path["normal"][edge].argmax())] == "conv_3x3"
        )


def own_tree(tree: Any, cell: Genotype) -> Any:
    """The variables of a cell's own network among those of the supernet."""
    found = {name: value for name, value in tree.items() if not name.startswith("cell_")}
    for number in range(3):
        here, kind = tree[f"cell_{number}"], "reduce" if number else "normal"
        own = {name: here[name] for name in ("preprocess0", "preprocess1") if name in here}
        for k, (operation, source) in enumerate(getattr(cell, kind)):
            chosen = here.get(f"edge_{source}_0", {}).get("chosen", {}).get(operation, {})
            own |= {f"op_{k}": chosen[operation]} if operation in chosen else {}
        found[f"cell_{number}"] = own
    return found


def network_of(cell: Genotype, task: Any) -> Network:
    return Network(cell, 4, 3, stem="cifar", head=task.head("float32"))


def test_judging_evaluates_the_cell_s_own_network(darts_method) -> None:
    """With its weights, and the statistics of the training images; padding does not count."""
    method, state = darts_method, darts_method.init()
    cell = genotype.parse("conv_3x3:0,skip_connect:1+skip_connect:0,conv_3x3:1")
    training = [batch(method, seed) for seed in (1, 2)]
    held = []
    for seed, real in ((3, 16), (4, 5)):
        mask = {"mask": np.float32(np.arange(16) < real)}
        held.append({**batch(method, seed, 16), **sharding.to_devices(mask, method.setting.mesh)})
    asked = []

    def few(count: int) -> Any:
        asked.append(count)
        return iter(training)

    other = method.paths.cells(1, 7)[0]
    images = types.SimpleNamespace(first=few, evaluation=lambda: iter(held))
    found, *_ = method.judge(state, [cell, other], images)
    again, *_ = method.judge(state, [cell], images)
    assert found == again and asked == [2, 2]  # 12 images are two batches of 8.

    task, variables = method.task, jax.device_get(state)
    examples_of = jax.jit(task.examples, static_argnames="train")
    applied = jax.jit(network_of(cell, task).apply, static_argnums=2, static_argnames="mutable")
    params = own_tree(variables.params, cell)
    zeros = jax.tree.map(np.zeros_like, own_tree(variables.batch_stats, cell))
    each = []
    for number, images in enumerate(training):
        key = method._statistics_key(np.int32(number))
        inputs = examples_of(key, images, train=True).inputs
        own = {"params": params, "batch_stats": zeros}
        _, updated = applied(own, inputs, True, mutable="batch_stats")
        each.append(jax.tree.map(lambda x: np.asarray(x) / 0.1, updated["batch_stats"]))
    own = {"params": params, "batch_stats": statistics.pooled(each, [8, 8])}
    sums = []
    for number, images in enumerate(held):
        examples = examples_of(method.key(draws.EVALUATION, number), images, train=False)
        outputs, _ = applied(own, examples.inputs, False)
        sums.append(task.score(outputs, examples, train=False))
    expected = task.summarize(sums)
    assert sums[1]["count"] == 20 and found["merit"] == found["accuracy"] == expected["accuracy"]
    np.testing.assert_allclose(found["loss"], expected["loss"], rtol=1e-4)


def test_the_angle_is_that_from_the_first_weights(darts_method) -> None:
    method = copy.copy(darts_method)
    method.options = {**method.options, "criterion": "angle"}
    state = method.init()
    cells = method.paths.cells(3, 0)
    unmoved = method.judge(state, cells, None)
    assert [row["merit"] for row in unmoved] == [0, 0, 0]
    first = jax.device_get(state.params)
    state, _ = method.step(state, batch(method, 0), None)
    moved = method.judge(state, cells, None)
    after = jax.device_get(state.params)
    expected = [vectors.angle(first, after, method.paths.parts(cell)) for cell in cells]
    assert [row["angle"] for row in moved] == expected and min(expected) > 0

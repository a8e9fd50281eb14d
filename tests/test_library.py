"""The package as a library: pieces and whole runs from Python, on images in memory."""

import functools
import json
import logging
import os
import pathlib
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import unnas_jax as un
from tests import conftest, tiny, tiny_training
from unnas_jax.commands import library
from unnas_jax.core import sharding
from unnas_jax.runs import trained, validation
from unnas_jax.spaces.nasbench201 import spec

PAGE = (conftest.ROOT / "docs" / "library.md").read_text()
pytestmark = [
    pytest.mark.usefixtures("on_one_device"),
    # Of ml_collections, when it reads a recipe.
    pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning"),
]
SMALL = {"cells": 3, "nodes": 1, "width": 4, "operations": tiny.FEW}


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.stack(tiny.upright(64, 16))


def test_an_import_is_quick_and_changes_nothing() -> None:
    code = """
import logging, sys, time
before = set(sys.modules)
start = time.process_time()
import unnas_jax as un
seconds = time.process_time() - start
new = {name.split(".")[0] for name in set(sys.modules) - before}
assert not new & {"jax", "flax", "absl", "numpy", "ml_collections", "cv2"}, new
assert seconds < 1, seconds
assert not logging.root.handlers and not logging.getLogger("unnas_jax").handlers
assert issubclass(un.UserError, Exception) and "search" in dir(un)
assert "jax" not in sys.modules, "a piece brings only what it needs"
"""
    done = subprocess.run(
        [sys.executable, "-c", code, "--no-such-flag"],
        cwd=conftest.ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and not done.stdout and not done.stderr, done.stderr


def test_every_name_is_there() -> None:
    for name in un.__all__:
        assert getattr(un, name) is not None
        assert getattr(un, name) is getattr(un, name)
    assert set(dir(un)) == set(un.__all__)
    with pytest.raises(AttributeError, match="no attribute 'serach'"):
        un.serach  # noqa: B018
    assert (pathlib.Path(un.__file__).parent / "py.typed").exists()


def blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def run_block(number: int, replacements: dict[str, str], names: dict) -> dict:
    """Runs a code block of the page at toy size."""
    code = blocks()[number]
    for old, new in replacements.items():
        assert old in code, old
        code = code.replace(old, new)
    exec(compile(code, f"docs/library.md, block {number}", "exec"), names)
    return names


@pytest.fixture(scope="module")
def first_block(tmp_path_factory, pixels):
    """What the first example of the page leaves, in a directory of its own."""
    root = tmp_path_factory.mktemp("library")
    labels = np.arange(64) % 2
    dark = pixels.copy()
    dark[labels == 1] //= 3
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        np.savez("mine.npz", images=dark, labels=labels)
        names = run_block(
            0,
            {
                'train={"epochs": 10}': 'train={"epochs": 1, "batch_size": 8}, log_every_steps=1,'
                ' network={"cells": 3, "nodes": 1, "width": 4}, eval={"batch_size": 16},'
                ' input={"pad": 0}',
                "train=dict(epochs=100)": "train=dict(epochs=2, batch_size=8,"
                " precise_bn_images=16),"
                " seeds=2,"
                ' network={"cells": 3, "width": "4", "drop_path": 0.0},'
                ' eval={"batch_size": 8, "every_epochs": 1, "max_images": 12}',
            },
            {},
        )
    return names, root


def test_the_first_example_runs(first_block) -> None:
    names, root = first_block
    assert names["found"].finished and isinstance(names["found"].genotype, un.Genotype)
    assert (root / "cells.png").stat().st_size > 1000
    config = json.loads((root / "runs" / "search" / "config.json").read_text())
    assert config["task"]["name"] == "rotation" and config["input"]["crop"] == 16
    result = json.loads((root / "runs" / "train" / "result.json").read_text())
    assert result["cells_used"] == names["found"].genotype.as_dict()
    assert names["logits"].shape == (64, 2)


def test_a_loaded_network_has_the_accuracy_of_its_result(first_block) -> None:
    from unnas_jax.data.order import evaluation_sample, halves

    names, root = first_block
    workdir = root / "runs" / "train"
    result = json.loads((workdir / "result.json").read_text())
    held = evaluation_sample(halves(64, 0)[1], 12, 0)  # As the training held out.
    images, labels = names["images"][held], names["labels"][held]
    probabilities = []
    for seed, accuracy in enumerate(result["values"]):
        module, variables, preprocessing = un.load_network(workdir, seed=seed)
        logits = jax.jit(module.apply)(variables, preprocessing(list(images)))
        assert logits.shape == (12, 2)
        assert np.mean(np.argmax(logits, axis=-1) == labels) == pytest.approx(accuracy)
        log_p = jax.nn.log_softmax(logits)[np.arange(12), labels]
        assert -float(jnp.mean(log_p)) == pytest.approx(result["loss"][seed], rel=1e-5)
        probabilities.append(jax.nn.softmax(logits))
    assert preprocessing.class_names == ("0", "1")
    module, variables, preprocessing = un.load_network(workdir, seed="all")
    together = np.exp(jax.jit(module.apply)(variables, preprocessing(list(images))))
    np.testing.assert_allclose(together, np.mean(probabilities, axis=0), atol=1e-6)


def test_the_best_checkpoint_is_that_of_the_best_evaluation(first_block) -> None:
    names, root = first_block
    workdir = root / "runs" / "train"
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    found = {row["step"]: row["accuracy"] for row in rows if row["kind"] == "validation"}
    best = trained.read(workdir, checkpoint="best").step
    assert found[best] == max(found.values()) and len(found) == 2
    assert trained.read(workdir).step == max(found)
    with pytest.raises(un.UserError, match="checkpoint='first': use one of last, best"):
        un.load_network(workdir, checkpoint="first")


def test_a_loaded_network_takes_images_of_any_size(first_block) -> None:
    _, root = first_block
    module, variables, preprocessing = un.load_network(os.fspath(root / "runs" / "train"))
    images = [np.full((30, 40, 3), 255, np.uint8), np.zeros((17, 16, 3), np.uint8)]
    inputs = preprocessing(images)
    assert inputs.shape == (2, 16, 16, 3)
    # White and black, by the statistics of ImageNet.
    np.testing.assert_allclose(inputs[0, 0, 0, 0], (1 - 0.485) / 0.229, rtol=1e-6)
    np.testing.assert_allclose(inputs[1, 0, 0, 0], -0.485 / 0.229, rtol=1e-6)
    assert jax.jit(module.apply)(variables, inputs).shape == (2, 2)


def test_what_cannot_be_loaded_is_told(first_block, tmp_path) -> None:
    _, root = first_block
    with pytest.raises(un.UserError, match="is that of a search, which keeps no network"):
        un.load_network(root / "runs" / "search")
    with pytest.raises(un.UserError, match="seed=7: .* has the seeds 0, 1"):
        un.load_network(root / "runs" / "train", seed=7)
    with pytest.raises(un.UserError):
        un.load_network(tmp_path / "nothing")
    _, _, preprocessing = un.load_network(root / "runs" / "train")
    with pytest.raises(un.UserError, match="image 0: must be uint8"):
        preprocessing(np.zeros((1, 16, 16, 3), np.float32))


def test_the_second_example_trains_on_arrays_in_a_loop_of_its_own(pixels) -> None:
    names = run_block(
        1,
        {
            "width=16, cells=8": "**SMALL",
            "range(1000)": "range(3)",
            "crop=32": "crop=16",
            "size=64": "size=8",
        },
        {"images": pixels, "SMALL": SMALL},
    )
    assert int(names["state"].step) == 3
    assert set(names["metrics"]) == {"weights", "alphas"}
    assert 0 <= names["metrics"]["weights"]["accuracy"] <= 1
    assert isinstance(names["genotype"], un.Genotype)


def test_the_third_example_builds_networks() -> None:
    names = run_block(
        2,
        {
            "width=36, depth=20": "width=4, depth=3",
            "width=16, cells=8": "width=4, cells=3, nodes=1",
        },
        {},
    )
    assert names["logits"].shape == (2, 10) and names["logits"].dtype == jnp.float32
    assert names["outputs"].shape == (8, 4)


def test_own_steps_are_those_of_a_run(pixels) -> None:
    """The same optimizers give the same bits as the method by its config."""
    from unnas_jax.config.sections import MethodConfig
    from unnas_jax.methods.base import Setting
    from unnas_jax.methods.darts import Darts

    task = un.task("rotation", lighting=0.0)
    config = tiny.config()
    config.network.update(SMALL)
    c = config.to_dict()
    method = Darts(Setting(MethodConfig.of(c), task, sharding.data_mesh(), steps_per_epoch=1))
    own = un.SearchStep(
        task,
        *method.optimizers(),
        crop=16,
        stem="imagenet",
        **SMALL,
    )
    theirs, mine = method.init(), own.init()
    batch = sharding.to_devices(
        {"image": pixels[:8], "label": np.zeros(8, np.int32)}, sharding.data_mesh()
    )
    theirs, sums = method.step(theirs, batch, batch)
    mine, metrics = own(mine, pixels[:8], pixels[:8])
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(mine), jax.device_get(theirs))
    total = sums["weights"]
    assert metrics["weights"]["loss"] == pytest.approx(float(total["loss"] / total["count"]))
    assert metrics["alphas"]["loss"] == pytest.approx(
        float(sums["alpha"]["loss"] / sums["alpha"]["count"])
    )
    before = jax.device_get(mine.alphas)
    mine, metrics = own(mine, (pixels[:8], np.zeros(8, np.int32)))
    assert set(metrics) == {"weights"}
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(mine.alphas), before)
    assert set(own.evaluate(mine, {"image": pixels[:8]})) >= {"loss", "accuracy"}
    with pytest.raises(un.UserError, match=r"uint8 of the shape \(B, 16, 16, 3\)"):
        own(mine, pixels[:8].astype(np.float32))


def test_a_task_needs_no_config() -> None:
    task = un.task("classification", classes=7, mean=(0.5,) * 3, std=(0.25,) * 3, lighting=0.0)
    image = np.full((1, 8, 8, 3), 255, np.uint8)
    batch = {"image": jnp.asarray(image), "label": jnp.zeros(1, jnp.int32)}
    examples = task.examples(jax.random.key(0), batch, train=False)
    np.testing.assert_allclose(examples.inputs, 2.0)
    assert task.num_classes == 7
    assert un.task("jigsaw", grid=2, permutations=24).num_classes == 24
    dataset = un.arrays(np.zeros((4, 8, 8, 3), np.uint8), [0, 1, 2, 0])
    assert un.task("classification", dataset).num_classes == 3
    for arguments, words in [
        (("rotatoin",), "did you mean 'rotation'"),
        (("rotation", None, {"girth": 2}), "no option 'girth'"),
        (("jigsaw", None, {"grid": 4}), "config.task.grid=4"),
        (("classification",), "has no labels"),
    ]:
        name, given, options = (*arguments, None, {})[:3] if len(arguments) < 3 else arguments
        with pytest.raises(un.UserError, match=words):
            un.task(name, given, **options)


@pytest.mark.parametrize(("platform", "dense"), [("cpu", False), ("gpu", True), ("tpu", True)])
def test_a_supernet_takes_form_and_format_of_the_backend(monkeypatch, platform, dense) -> None:
    monkeypatch.setattr(sharding, "platform", lambda: platform)
    supernet = un.Supernet(width=4, cells=3, task=un.task("rotation"))
    assert supernet.dtype == (jnp.bfloat16 if dense else jnp.float32)
    assert supernet.formulation == ("dense" if dense else "depthwise")


def test_impossible_networks_are_refused() -> None:
    with pytest.raises(un.UserError, match="config.network.width=5: must be even"):
        un.Supernet(width=5, cells=3, task=un.task("rotation"))
    with pytest.raises(un.UserError, match="widht: no such argument"):
        un.Supernet(widht=4, task=un.task("rotation"))
    with pytest.raises(un.UserError, match="darts_v2"):
        un.Network("darts_v3")
    with pytest.raises(un.UserError, match="config.network.cells=2"):
        un.Network("darts_v2", depth=2)


def test_a_network_has_the_parameters_of_the_one_that_is_trained() -> None:
    from unnas_jax.spaces.networks import build_network
    from unnas_jax.tasks import registry

    config = tiny_training.config().to_dict()
    trained = build_network(config, registry.create(config, tiny.dataset()))
    x = jnp.zeros((1, 16, 16, 3))
    module = un.Network(tiny_training.CELLS, width=4, depth=3, classes=2)
    ours = jax.eval_shape(module.init, jax.random.key(0), x)
    theirs = jax.jit(functools.partial(trained.init, train=False))(jax.random.key(0), x)
    assert jax.tree.map(jnp.shape, ours) == jax.tree.map(jnp.shape, theirs)
    expected = jax.jit(functools.partial(trained.apply, train=False))(theirs, x)[0]
    np.testing.assert_array_equal(jax.jit(module.apply)(theirs, x), expected)


def test_a_run_takes_a_recipe_by_name_and_refuses_mistakes(tmp_path, pixels) -> None:
    for what, options, words in [
        ("rot_photo", {}, "rot_photos"),
        ("rot_photos", {"train": {"epoch": 1}}, "config.train.epoch: no such key"),
        ("rot_photos", {"train": {"epochs": "one"}}, "must be of type int"),
        ("eval_photos", {}, "config of a training, not of a search"),
        (pixels.astype(np.float32), {}, "uint8"),
        (None, {}, "not NoneType"),
        (pixels, {"task": "rotatoin"}, "rotation"),
    ]:
        with pytest.raises(un.UserError, match=words):
            un.search(what, tmp_path / "w", **options)
    assert not (tmp_path / "w").exists()


def test_cells_bring_their_space_along(tmp_path, pixels, monkeypatch) -> None:
    """What a search in NAS-Bench-201 found is trained in the benchmark's network."""
    seen = []
    monkeypatch.setattr(library.train_lib, "train", lambda config, *_, **__: seen.append(config))
    cell, data = spec.sample(1, 0)[0], un.arrays(pixels, np.arange(64) % 2)
    un.train(data, tmp_path, cell)
    un.train(data, tmp_path, cell, network={"width": "8", "cells": 6})
    small = seen[-1].copy_and_resolve_references()
    un.train(small, tmp_path, cell)  # A config of the space keeps its sizes.
    un.train(data, tmp_path, "darts_v1")
    networks = [config.network for config in seen]
    assert [network.space for network in networks] == ["nasbench201"] * 3 + ["darts"]
    assert [network.width for network in networks] == ["16", "8", "8", "36"]
    assert [network.cells for network in networks] == [15, 6, 6, 20]
    assert networks[0].genotype == str(cell) and networks[0].drop_path == 0
    for config in seen:
        config.dataset.name = "digits"
        validation.validate(config)
    with pytest.raises(un.UserError, match="has found none yet"):
        un.train(data, tmp_path, None)


def test_progress_is_shown_and_logging_left_as_it_was(capsys) -> None:
    from unnas_jax.core import logs

    log = logging.getLogger("unnas_jax")
    before = log.level, log.propagate, list(log.handlers)
    with logs.shown():
        log.info("hello")
    assert "hello" in capsys.readouterr().err
    assert (log.level, log.propagate, list(log.handlers)) == before
    with logs.shown(False):
        log.info("hello")
    assert "hello" not in capsys.readouterr().err


def test_the_optimizers_are_those_that_were_given(pixels) -> None:
    """A rate of 0 moves nothing, and the first step of Adam is as long as its rate."""
    own = un.SearchStep(
        un.task("rotation"), optax.sgd(0.0), optax.adam(0.1), crop=16, **SMALL, order=1
    )
    state = own.init()
    weights, alphas = jax.device_get((state.params, state.alphas))
    state, _ = own(state, pixels[:8], pixels[8:16])
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(state.params), weights)
    moved = jax.device_get(state.alphas)["normal"] - alphas["normal"]
    np.testing.assert_allclose(np.abs(moved), 0.1, rtol=0.02)

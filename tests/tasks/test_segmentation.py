"""Tests of segmentation: its examples, ASPP head, confusion matrix and mIoU against NumPy."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import reference
from tests.tasks import datasets
from unnas_jax.core import sharding
from unnas_jax.core.errors import UserError
from unnas_jax.layers.heads import AsppHead
from unnas_jax.tasks import base, dense, registry, segmentation


def task(dataset: Any = None, **changes: Any) -> Any:
    """The task on 19 classes; `changes` go into the config's section `input`."""
    config = datasets.config("segmentation", aspp_channels=4, aspp_rates=(2,))
    config["input"].update(changes)
    return registry.create(config, dataset or datasets.dataset(num_classes=19))


def labelled(count: int, size: int) -> dict[str, np.ndarray]:
    """Images whose red channel is the label map."""
    images = datasets.images(count, size)
    return {"image": images, "label": images[..., 0].copy()}


def test_image_and_label_map_move_alike() -> None:
    batch = labelled(32, 9)
    examples = datasets.examples(task(datasets.plain(), pad=3), 0, batch, train=True)
    red = np.rint(np.asarray(examples.inputs[..., 0]) * 255)
    labels = np.asarray(examples.targets)
    assert labels.dtype == np.int32
    # Where the padding came in, the image is the mean colour (here 0) and the label is ignored.
    inside = labels != 255
    np.testing.assert_array_equal(red[inside], labels[inside])
    assert 0.05 < np.mean(~inside) < 0.6
    same = datasets.examples(task(datasets.plain()), 0, batch, train=True)
    targets = np.asarray(same.targets)
    np.testing.assert_array_equal(np.rint(np.asarray(same.inputs[..., 0]) * 255), targets)
    flipped = np.all(targets == batch["label"][:, :, ::-1], axis=(1, 2))
    kept = np.all(targets == batch["label"], axis=(1, 2))
    assert np.all(flipped ^ kept)
    assert 0 < flipped.sum() < 32


def test_evaluation_changes_nothing() -> None:
    batch = {**labelled(2, 7), "mask": np.array([1.0, 0.0], np.float32)}
    examples = datasets.examples(task(pad=3, gray=0.5), 0, batch, train=False)
    np.testing.assert_array_equal(examples.targets, batch["label"])
    np.testing.assert_array_equal(examples.weights, batch["mask"])
    expected = (batch["image"] / 255.0 - datasets.MEAN) / datasets.STD
    np.testing.assert_allclose(examples.inputs, expected, rtol=1e-4, atol=1e-5)


def test_rectangles_can_be_evaluated() -> None:
    batch = {"image": np.zeros((1, 5, 9, 3), np.uint8), "label": np.zeros((1, 5, 9), np.uint8)}
    examples = datasets.examples(task(), 0, batch, train=False)
    assert (examples.inputs.shape, examples.targets.shape) == ((1, 5, 9, 3), (1, 5, 9))


def test_attributes() -> None:
    t = task()
    assert (t.num_classes, t.input_channels, t.dense, t.metric) == (19, 3, True, "miou")
    assert (t.single_reduction, t.label_maps) == (True, True)
    others = [value for name, value in registry.TASKS.items() if name != "segmentation"]
    assert not any(other.single_reduction or other.label_maps for other in others)


def test_what_cannot_be_segmented_is_refused() -> None:
    with pytest.raises(UserError, match="'segmentation'.*'some images' has no labels"):
        task(datasets.dataset(num_classes=0))
    batch = {"image": datasets.images(2, 4), "label": np.zeros(2, np.int32)}
    with pytest.raises(UserError, match="one label an image, not one a pixel"):
        datasets.examples(task(), 0, batch, train=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"aspp_channels": 0}, "config.task.aspp_channels=0"),
        ({"aspp_rates": (6, 0)}, "whole numbers from 1 on"),
        ({"aspp_rates": (6, 6)}, "give each rate once"),
    ],
)
def test_impossible_heads_are_refused(changes: dict[str, Any], message: str) -> None:
    values = {"aspp_channels": 4, "aspp_rates": (6,), **changes}
    with pytest.raises(UserError, match=message):
        registry.validate(datasets.config("segmentation", **values))


def test_aspp() -> None:
    head = AsppHead(5, 3, (2, 4))
    features = np.random.default_rng(0).standard_normal((4, 9, 7, 6)).astype(np.float32)
    shapes = jax.eval_shape(lambda: head.init(jax.random.key(0), features, True))
    variables = reference.random_like(shapes, seed=1, dtype=np.float32)
    params = variables["params"]
    x = features.astype(np.float64)

    def layer(x: np.ndarray, name: str, rate: int = 0) -> np.ndarray:
        y = reference.conv2d(
            x, params[f"conv_{name}"]["conv"]["kernel"], padding=(rate, rate), dilation=max(rate, 1)
        )
        return reference.relu(reference.batch_norm(y, params[f"bn_{name}"]))

    image = layer(x.mean(axis=(1, 2), keepdims=True), "image")
    branches = [
        layer(x, "pixel"),
        layer(x, "rate_2", 2),
        layer(x, "rate_4", 4),
        np.broadcast_to(image, (4, 9, 7, 3)),
    ]
    joined = layer(np.concatenate(branches, axis=-1), "join")
    classifier = params["classifier"]["conv"]
    expected = joined @ classifier["kernel"][0, 0] + classifier["bias"]
    outputs, _ = jax.jit(lambda v, x: head.apply(v, x, True, mutable=["batch_stats"]))(
        variables, features
    )
    np.testing.assert_allclose(outputs, expected, rtol=1e-3, atol=1e-3)


def brute_force(answers: np.ndarray, targets: np.ndarray, classes: int) -> np.ndarray:
    confusion = np.zeros((classes, classes), np.int64)
    for target, answer in zip(targets.ravel(), answers.ravel(), strict=True):
        if target < classes:
            confusion[target, answer] += 1
    return confusion


def scene(count: int, size: tuple[int, int], classes: int, seed: int = 0) -> Any:
    """Logits at a lower resolution, and targets of which a fifth is ignored."""
    rng = np.random.default_rng(seed)
    logits = rng.standard_normal((count, -(-size[0] // 4), -(-size[1] // 4), classes))
    targets = rng.integers(0, classes, (count, *size))
    targets[rng.uniform(size=targets.shape) < 0.2] = 255
    return logits.astype(np.float32), targets.astype(np.int32)


# All rows at once; a few rows at a time, the last block not full; row by row.
@pytest.mark.parametrize("limit", [1_000_000, 4 * 21 * 6 + 5, 1])
def test_confusion(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dense, "_BLOCK_LOGITS", limit)
    logits, targets = scene(3, (13, 21), 6)
    targets[2] = 255
    weights = np.array([1.0, 0.0, 1.0], np.float32)
    sums = jax.jit(functools.partial(dense.pixel_score, confusion=True))(logits, targets, weights)
    answers = reference.bilinear(logits.astype(np.float64), 13, 21).argmax(axis=-1)
    expected = brute_force(answers[:1], targets[:1], 6)
    assert sums["confusion"].dtype == jnp.int32
    np.testing.assert_array_equal(sums["confusion"], expected)
    assert float(sums["count"]) == expected.sum()
    assert float(sums["correct"]) == np.trace(expected)


def test_the_score_has_a_confusion_in_evaluation_only() -> None:
    logits, targets = scene(1, (5, 5), 19)
    examples = base.Examples(jnp.zeros((1, 5, 5, 3)), jnp.asarray(targets), jnp.ones(1))
    t = task()
    assert "confusion" not in datasets.score(t, jnp.asarray(logits), examples, train=True)
    evaluated = datasets.score(t, jnp.asarray(logits), examples, train=False)
    assert evaluated["confusion"].shape == (19, 19)


def test_miou_is_that_of_all_pixels_together() -> None:
    parts = [scene(2, (9, 11), 19, seed) for seed in range(3)]
    t = task()
    sums, answers = [], []
    for logits, targets in parts:
        examples = base.Examples(jnp.zeros((2, 9, 11, 3)), jnp.asarray(targets), jnp.ones(2))
        sums.append(jax.device_get(datasets.score(t, jnp.asarray(logits), examples, train=False)))
        answers.append(reference.bilinear(logits.astype(np.float64), 9, 11).argmax(axis=-1))
    targets, whole = np.stack([p[1] for p in parts]), np.stack(answers)
    valid = targets != 255
    ious = []
    for k in range(19):
        both = np.sum((targets == k) & (whole == k) & valid)
        either = np.sum(((targets == k) | (whole == k)) & valid)
        ious.append(both / either)
    metrics = t.summarize(sums)
    assert metrics["miou"] == pytest.approx(np.mean(ious), abs=1e-12)
    assert metrics["accuracy"] == pytest.approx(np.mean((targets == whole)[valid]))
    losses = [float(s["loss"]) for s in sums]
    assert metrics["loss"] == pytest.approx(sum(losses) / valid.sum())


def test_classes_that_do_not_occur_are_left_out() -> None:
    confusion = np.zeros((4, 4), np.int64)
    confusion[0, 0], confusion[0, 1], confusion[1, 1] = 3, 1, 2
    assert segmentation.mean_iou(confusion) == pytest.approx((3 / 4 + 2 / 3) / 2)
    # A class that is only ever a wrong answer occurs: its intersection is empty.
    confusion[1, 3] = 2
    assert segmentation.mean_iou(confusion) == pytest.approx((3 / 4 + 2 / 5 + 0) / 3)
    assert segmentation.mean_iou(np.zeros((4, 4), np.int64)) == 0


@pytest.mark.parametrize("devices", [1, 2, 8])
def test_sums_over_devices(devices: int) -> None:
    mesh = sharding.data_mesh(jax.devices()[:devices])
    logits, targets = scene(8, (7, 9), 5)
    batch = sharding.to_devices({"logits": logits, "targets": targets}, mesh)
    score = jax.jit(
        lambda b: dense.pixel_score(b["logits"], b["targets"], jnp.ones(8), confusion=True),
        out_shardings=sharding.replicated(mesh),
    )
    answers = reference.bilinear(logits.astype(np.float64), 7, 9).argmax(axis=-1)
    np.testing.assert_array_equal(score(batch)["confusion"], brute_force(answers, targets, 5))


def test_a_whole_cityscapes_image() -> None:
    # Features of a network that reduces once behind the stem: 1/16 of 1025 x 2049 pixels.
    rng = np.random.default_rng(0)
    logits = jnp.asarray(rng.standard_normal((1, 65, 129, 19)), jnp.float32)
    full = np.asarray(dense.interpolated(logits, dense.interpolation(65, 1025), 2049))[0]
    answers = full.argmax(axis=-1)
    targets = np.where(rng.uniform(size=answers.shape) < 0.7, answers, 3).astype(np.int32)
    targets[-1], targets[:, -1] = 255, 255
    score = jax.jit(lambda t: dense.pixel_score(logits, t, jnp.ones(1), confusion=True))
    sums = score(jnp.asarray(targets[None]))
    assert float(sums["count"]) == 1024 * 2048
    assert int(sums["confusion"].sum()) == 1024 * 2048
    valid = targets != 255
    expected = np.bincount(19 * targets[valid] + answers[valid], minlength=361).reshape(19, 19)
    # Rows interpolated in another order: near ties may fall the other way.
    assert np.abs(np.asarray(sums["confusion"]) - expected).sum() < 100

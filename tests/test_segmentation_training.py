"""A segmentation training from end to end: whole images, their mIoU, and the size that counts."""

import dataclasses

import cv2
import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from tests import label_maps, tiny_training
from unnas_jax.commands import predict
from unnas_jax.core.registry import Registry
from unnas_jax.data import registry as datasets
from unnas_jax.data.records import IMAGENET_MEAN, IMAGENET_STD
from unnas_jax.runs import train
from unnas_jax.spaces import complexity
from unnas_jax.spaces.networks import build_network

WHOLE = (21, 28)

pytestmark = pytest.mark.usefixtures("on_two_devices")


def _config():
    c = tiny_training.config(epochs=16)
    c.dataset.name = "cityscapes"
    c.task.update(name="segmentation", aspp_channels=4, aspp_rates=(2,))
    c.input.update(train_crop="scale_random", resize=HEIGHT)
    c.network.genotype = str(tiny_training.CELLS)
    c.weights.momentum = 0.9
    c.eval.update(crop="whole", whole_size=WHOLE, every_epochs=16)
    c.seeds, c.workers = 1, 0
    return c


HEIGHT = label_maps.HEIGHT


def _mean_iou(answers, labels):
    """Of lists of arrays; pixels labelled 255 do not count."""
    valid = [label < 255 for label in labels]
    found, true = (
        np.concatenate([x[v] for x, v in zip(xs, valid, strict=True)]) for xs in (answers, labels)
    )
    return np.mean(
        [((found == k) & (true == k)).sum() / ((found == k) | (true == k)).sum() for k in (0, 1)]
    )


def _answers(c, task, state):
    """What a network says about every whole image, one at a time, upsampled by NumPy."""
    variables = {k: jax.tree.map(lambda v: v[0], state[k]) for k in ("params", "batch_stats")}
    network = build_network(c, task)
    apply = jax.jit(lambda x: network.apply(variables, x, train=False)[0])

    def along(logits, axis, size):
        places = np.linspace(0, logits.shape[axis] - 1, size)
        known = np.arange(logits.shape[axis])
        return np.apply_along_axis(lambda v: np.interp(places, known, v), axis, logits)

    answers, labels = [], []
    for seed in range(100, 105):
        image, label = label_maps.scene(seed)
        whole = np.empty((*WHOLE, 3))
        whole[:] = np.round(255 * np.asarray(IMAGENET_MEAN))  # The mean colour, in whole levels.
        whole[: label_maps.HEIGHT, : label_maps.WIDTH] = image
        x = np.float32((whole / 255.0 - IMAGENET_MEAN) / IMAGENET_STD)
        logits = along(along(np.asarray(apply(x[None]))[0], 0, WHOLE[0]), 1, WHOLE[1])
        answers.append(logits.argmax(axis=-1)[: label_maps.HEIGHT, : label_maps.WIDTH])
        labels.append(label)
    return answers, labels


def _by_predict(root):
    """The mIoU of the label maps that `predict` writes for the images held out."""
    labels = []
    (root / "images").mkdir()
    for seed in range(100, 105):
        image, label = label_maps.scene(seed)
        cv2.imwrite(str(root / "images" / f"{seed}.png"), image[..., ::-1])
        labels.append(label)
    words = [str(root / "run"), str(root / "images"), f"--output={root / 'maps'}"]
    assert predict.main(words) == 0
    paths = sorted((root / "maps").glob("*.png"))
    return _mean_iou([cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in paths], labels)


def test_segmentation_is_learned_and_evaluated_on_whole_images(tmp_path, monkeypatch):
    entry = dataclasses.replace(
        datasets.DATASETS["cityscapes"], opens="tests.label_maps:open_dataset", classes=2
    )
    others = {name: each for name, each in datasets.DATASETS.items() if name != "cityscapes"}
    registry = Registry("dataset", {**others, "cityscapes": entry})
    monkeypatch.setattr(datasets, "DATASETS", registry)
    c = _config()
    result = train.train(c, str(tmp_path / "run"))
    assert result["finished"] and result["metric"] == "miou"
    assert result["mean"] > 0.8  # Bright is sky; one class everywhere has 0.25 to 0.3.

    manager = ocp.CheckpointManager(tmp_path / "run" / "checkpoints")
    state = manager.restore(manager.latest_step()).state
    manager.close()
    values = c.to_dict()
    task = complexity.task_of(values, classes=2)
    expected = _mean_iou(*_answers(values, task, state))
    # Two ways to interpolate in float32 may see a pixel or two on the border apart.
    assert result["mean"] == pytest.approx(expected, abs=1e-3)

    # What is counted is an evaluation, of whole images.
    counts = complexity.of_config(values, classes=2)
    assert counts["input_size"] == list(WHOLE)
    assert result["multiply_adds"] == counts["multiply_adds"]
    assert result["parameters"] == counts["parameters"]
    values["eval"]["crop"] = "centre"
    assert complexity.of_config(values, classes=2)["multiply_adds"] < result["multiply_adds"] / 2

    assert _by_predict(tmp_path) == pytest.approx(result["mean"], abs=1e-6)

    c.mode = "eval"
    again = train.train(c, str(tmp_path / "run"))
    assert again["values"] == result["values"]

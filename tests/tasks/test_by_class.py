"""What evaluations tell of every class: counted by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from tests.tasks import datasets
from unnas_jax.tasks import base
from unnas_jax.tasks import registry as tasks

LOGITS = np.array(
    [  # The right class, 3, comes first, fifth, sixth, and second of a picture that is padding.
        [0, 0, 0, 9, 0, 0, 0],
        [5, 4, 3, 1, 2, 0, 0],
        [5, 4, 3, 1, 2, 1.5, 0],
        [0, 0, 0, 8, 9, 0, 0],
    ],
    np.float32,
)
TARGETS, WEIGHTS = np.full(4, 3, np.int32), np.array([1, 1, 1, 0], np.float32)


def test_top5_and_confusion_of_a_classification():
    task = tasks.task("classification", classes=7)
    examples = base.Examples(jnp.zeros((4, 1)), jnp.asarray(TARGETS), jnp.asarray(WEIGHTS))
    sums = datasets.score(task, jnp.asarray(LOGITS), examples, train=False)
    found = task.summarize([sums, sums])
    assert found["accuracy"] == pytest.approx(1 / 3) and found["top5"] == pytest.approx(2 / 3)
    expected = np.zeros((7, 7), int)
    expected[3, 3], expected[3, 0] = 1, 2
    np.testing.assert_array_equal(sums["confusion"], expected)
    name, shares = task.by_class(np.asarray(sums["confusion"]))
    assert name == "accuracy" and shares[3] == pytest.approx(1 / 3) and not shares[:3].any()
    assert "confusion" not in datasets.score(task, jnp.asarray(LOGITS), examples, train=True)


def test_iou_by_class_of_a_segmentation():
    task = tasks.task("segmentation", classes=3)
    # 4 + 1 + 2 pixels in the union of class 0, 2 + 1 + 1 in that of class 1; no third.
    confusion = np.array([[4, 2, 0], [1, 1, 0], [0, 0, 0]])
    name, shares = task.by_class(confusion)
    assert name == "IoU"
    np.testing.assert_allclose(shares, [4 / 7, 1 / 4, np.nan])
    sums = {"loss": 0.0, "correct": 5, "count": 8, "confusion": confusion}
    assert task.summarize([sums])["miou"] == pytest.approx((4 / 7 + 1 / 4) / 2)

"""The embedded digits: the fixed split, the enlargement, what a run needs to know."""

import cv2
import numpy as np
import pytest
from sklearn import datasets

from unnas_jax.core.errors import UserError
from unnas_jax.data import inspection, open_dataset
from unnas_jax.data.registry import DATASETS
from unnas_jax.tasks.colorization import Colorization


def test_the_first_1200_are_for_training_and_the_others_held_out() -> None:
    digits, published = open_dataset({"name": "digits"}), datasets.load_digits()
    assert {split: len(records) for split, records in digits.splits.items()} == {
        "train": 1200,
        "test": 597,
    }
    for split, number, source in (("train", 0, 0), ("train", 1199, 1199), ("test", 596, 1796)):
        record = digits.splits[split][number]
        assert record["label"] == published.target[source]
        image = cv2.imdecode(np.frombuffer(record["image"], np.uint8), cv2.IMREAD_COLOR)
        assert image.shape == (32, 32, 3) and np.ptp(image, axis=-1).max() == 0
        small = cv2.resize(image, (8, 8), interpolation=cv2.INTER_AREA)[..., 0] / 255 * 16
        # Means over squares of a linear interpolation are smoother than what was interpolated.
        assert np.corrcoef(small.ravel(), published.images[source].ravel())[0, 1] > 0.97


def test_the_facts_are_those_of_the_images() -> None:
    digits, entry = open_dataset({"name": "digits"}), DATASETS["digits"]
    values = np.asarray(digits.splits["train"].images) / 255
    assert values.mean() == pytest.approx(entry.mean[0], abs=1e-3)
    assert values.std() == pytest.approx(entry.std[0], abs=1e-3)
    assert (digits.mean, digits.std) == (entry.mean, entry.std)
    assert (digits.num_classes, len(digits.splits["train"])) == (entry.classes, entry.train_images)
    with pytest.raises(UserError, match="have no colour"):
        inspection.check_images(digits, 16, Colorization)

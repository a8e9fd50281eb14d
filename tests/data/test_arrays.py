"""Images in memory are a dataset like any other."""

import numpy as np
import pytest

from unnas_jax.core.errors import UserError
from unnas_jax.data import decoding, open_dataset, pipeline
from unnas_jax.data.arrays import arrays
from unnas_jax.data.records import fingerprint
from unnas_jax.data.registry import DATASETS, Entry


def images(count: int = 6, side: int = 12) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), np.uint8)


def test_pixels_and_labels_come_back_unchanged() -> None:
    pixels, labels = images(), np.array([0, 1, 2, 0, 1, 2])
    dataset = arrays(pixels, labels, validation=(pixels[:2], labels[:2]))
    assert dataset.num_classes == 3 and dataset.class_names == ("0", "1", "2")
    for i, (image, label) in enumerate(zip(pixels, labels, strict=True)):
        record = dataset.splits["train"][i]
        decoded = decoding.decode(record["image"], apply_exif=False)
        np.testing.assert_array_equal(decoded, image)
        assert record["label"] == label


def test_an_array_is_opened_by_a_registered_name() -> None:
    dataset = arrays(images())
    DATASETS.register("an_array", Entry(opens=lambda section: dataset))
    opened = open_dataset({"name": "an_array"})
    assert opened.num_classes == 0 and len(opened.splits["train"]) == 6
    with pytest.raises(UserError, match="dataset 'an_array': the name is taken"):
        DATASETS.register("an_array", Entry("another:opened"))


def test_other_pixels_are_other_data() -> None:
    assert fingerprint(arrays(images())) == fingerprint(arrays(images()))
    other = images()
    other[0, 0, 0, 0] ^= 1
    assert fingerprint(arrays(images())) != fingerprint(arrays(other))


def test_other_labels_are_other_data() -> None:
    """Labels come after the pixels: neither hides a change of the other, whatever its place is."""
    labels = np.array([0, 1, 2, 0, 1, 2])
    digests = {arrays(images(), labels).splits["train"].names_digest()}
    for place in range(len(labels)):
        other = labels.copy()
        other[place] = (other[place] + 1) % 3
        digests.add(arrays(images(), other).splits["train"].names_digest())
    digests.add(arrays(images(), labels[::-1]).splits["train"].names_digest())
    assert len(digests) == 2 + len(labels)
    same = arrays(images(), labels.astype(np.uint8)).splits["train"].names_digest()
    assert same in digests  # Of the numbers, not of how they were given.


@pytest.mark.parametrize(
    ("pixels", "labels", "words"),
    [
        (np.zeros((2, 4, 4, 3), np.float32), None, r"uint8 .* not float32 \(2, 4, 4, 3\)"),
        (np.zeros((2, 4, 4), np.uint8), None, r"not uint8 \(2, 4, 4\)"),
        (np.zeros((0, 4, 4, 3), np.uint8), None, "no image"),
        (np.zeros((2, 4, 4, 3), np.uint8), [0], "2 class numbers"),
        (np.zeros((2, 4, 4, 3), np.uint8), [0, -1], "from 0 on"),
        (np.zeros((2, 4, 4, 3), np.uint8), [0.5, 1.0], "class numbers"),
    ],
)
def test_other_arrays_are_refused_in_one_line(pixels, labels, words) -> None:
    with pytest.raises(UserError, match=words):
        arrays(pixels, labels)


def test_a_held_out_class_that_training_lacks_is_refused() -> None:
    with pytest.raises(UserError, match="validation: has the class 7; there are 2"):
        arrays(images(2), [0, 1], validation=(images(1), [7]))


def test_batches_are_fed_from_arrays() -> None:
    dataset = arrays(images(8), np.arange(8))
    batches = pipeline.train_batches(
        dataset.splits["train"],
        np.arange(8),
        batch_size=4,
        crop=12,
        resize=12,
        train_crop="none",
        apply_exif=False,
        seed=0,
        start_step=0,
        workers=0,
    )
    batch = next(iter(batches))
    assert batch["image"].shape == (4, 12, 12, 3) and len(set(batch["label"].tolist())) == 4

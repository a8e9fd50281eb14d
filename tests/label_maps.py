"""A tiny dataset of images and label maps: a bright sky over dark ground, and where either is."""

import cv2
import numpy as np

from unnas_jax.config.sections import DatasetSection
from unnas_jax.data import Dataset
from unnas_jax.data.crops import LabelMap
from unnas_jax.data.records import IMAGENET_MEAN, IMAGENET_STD

HEIGHT, WIDTH = 20, 24
IGNORE = 255


def scene(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """An image, uint8 (20, 24, 3), and the class of every pixel; around the horizon none."""
    rng = np.random.default_rng(seed)
    horizon = int(rng.integers(6, 15))
    image = rng.integers(0, 60, (HEIGHT, WIDTH, 3))
    image[:horizon] += 150
    labels = np.ones((HEIGHT, WIDTH), np.uint8)
    labels[:horizon] = 0
    labels[horizon] = IGNORE
    return image.astype(np.uint8), labels


class _Scenes:
    def __init__(self, first: int, count: int) -> None:
        self.first, self.count = first, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int) -> dict:
        image, labels = scene(self.first + i)
        bgr = image[..., ::-1]
        encoded, classes = (cv2.imencode(".png", x)[1].tobytes() for x in (bgr, labels))
        return {"image": encoded, "label": LabelMap(classes)}


def open_dataset(section: DatasetSection) -> Dataset:
    """16 scenes to train on, 5 to evaluate on; as an entry of `registry.DATASETS` opens them."""
    splits = {"train": _Scenes(0, 16), "validation": _Scenes(100, 5)}
    return Dataset(
        section.name, splits, 2, ("sky", "ground"), IMAGENET_MEAN, IMAGENET_STD, label_maps=True
    )

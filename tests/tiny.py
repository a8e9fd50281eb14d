"""A search small enough to compile in seconds, shared by the tests of whole steps and runs."""

import cv2
import ml_collections
import numpy as np

from unnas_jax.config import schema as config_lib
from unnas_jax.data import Dataset


class Memory:
    """Records of encoded images."""

    def __init__(self, images: list[np.ndarray], labels: list[int]) -> None:
        self.encoded = [cv2.imencode(".png", image[..., ::-1])[1].tobytes() for image in images]
        self.labels = labels

    def __len__(self) -> int:
        return len(self.encoded)

    def __getitem__(self, i: int) -> dict:
        return {"image": self.encoded[i], "label": self.labels[i]}


def upright(count: int, size: int, seed: int = 0) -> list[np.ndarray]:
    """Noisy images with a bright sky: their rotation is easy to tell, their label hard."""
    rng = np.random.default_rng(seed)
    sky = np.linspace(200, 40, size)[:, None, None]
    return [
        np.clip(sky + rng.normal(0, 25, (size, size, 3)), 0, 255).astype(np.uint8)
        for _ in range(count)
    ]


def dataset(count: int = 64, size: int = 20) -> Dataset:
    """`upright` images with two arbitrary labels."""
    images = upright(count, size)
    records = Memory(images, [i % 2 for i in range(count)])
    return Dataset("tiny", {"train": records}, 2, ("even", "odd"))


def config(task: str = "rotation", **train: int) -> ml_collections.ConfigDict:
    """The paper's rotation search with 3 cells of 2 nodes, width 4 and crops of 16 pixels."""
    c = config_lib.search()
    c.dataset.name = "photos"
    c.task.name = task
    c.task.update(grid=2, permutations=24)
    c.input.update(crop=16, resize=18, train_crop="resize_random")
    c.network.update(width=4, cells=3, nodes=2)
    c.search.arch_start_epoch = 0.0
    c.alphas.learning_rate = 1e-2
    c.train.update(batch_size=8, epochs=2)
    c.train.update(train)
    c.eval.update(batch_size=16, max_images=32)
    return c


FEW = ("skip_connect", "dil_conv_3x3")
"""Two operations, one of them with weights: a third of DARTS' eight in the compiler's time."""


def quick(task: str = "rotation", **train: int) -> ml_collections.ConfigDict:
    """`config` with one node and `FEW` operations: of tests of runs, which look at no operation."""
    c = config(task, **train)
    c.network.update(nodes=1, operations=FEW)
    return c

"""Prepares CIFAR-10 from its Python version: cifar-10-python.tar.gz, or unpacked."""

import functools
import io
import os
import pickle
import tarfile
import zlib
from typing import Any

import cv2
import numpy as np
import tensorflow_datasets as tfds

from unnas_jax.core.errors import UserError
from unnas_jax.data import shards

CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)  # fmt: skip
_FOLDER, _ARCHIVE = "cifar-10-batches-py", "cifar-10-python.tar.gz"
_BATCHES = {"train": [f"data_batch_{k}" for k in range(1, 6)], "test": ["test_batch"]}
_SIDE = 32


def cifar10(source: str) -> shards.Recipe:
    """CIFAR-10.

    Args:
      source: the archive, the folder of the batches, or the folder of either.

    Raises:
      UserError: the files are not there.
    """
    inner = [os.path.join(source, name) for name in (_FOLDER, _ARCHIVE)]
    path = next((path for path in inner if os.path.exists(path)), source)
    if os.path.isdir(path) and not os.path.exists(os.path.join(path, "data_batch_1")):
        raise UserError(f"--source={source!r}: has neither {_FOLDER}/ nor {_ARCHIVE}")
    groups = {
        split: [
            shards.Group(batch, functools.partial(_list_batch, path, batch), (path,))
            for batch in batches
        ]
        for split, batches in _BATCHES.items()
    }
    return shards.Recipe(
        name="cifar10",
        version="1.0.0",
        description="CIFAR-10.",
        source=source,
        features=_features,
        groups=groups,
        make=_make,
        expected={"train": 50_000, "test": 10_000},
    )


def _features() -> tfds.features.FeaturesDict:
    """As TFDS's own cifar10."""
    return tfds.features.FeaturesDict(
        {
            "id": tfds.features.Text(),
            "image": tfds.features.Image(shape=(_SIDE, _SIDE, 3), encoding_format="png"),
            "label": tfds.features.ClassLabel(names=list(CLASSES)),
        }
    )


class _Unpickler(pickle.Unpickler):
    """Makes arrays, and nothing that could run."""

    _NAMES = ("_reconstruct", "ndarray", "dtype")

    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] == "numpy" and name in self._NAMES:
            return super().find_class(module.replace("numpy.core", "numpy._core"), name)
        if (module, name) == ("_codecs", "encode"):  # Bytes, as Python 3 writes them for 2.
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"holds {module}.{name}")


@functools.lru_cache(maxsize=2)
def _load(path: str, batch: str) -> tuple[np.ndarray, tuple[int, ...]]:
    """Images, uint8 (N, 32, 32, 3), and labels of a batch."""
    try:
        if os.path.isdir(path):
            with open(os.path.join(path, batch), "rb") as file:
                data = file.read()
        else:
            with tarfile.open(path) as archive:
                member = archive.extractfile(f"{_FOLDER}/{batch}")
                data = member.read() if member else b""
        content = _Unpickler(io.BytesIO(data), encoding="bytes").load()
        pixels, labels = content[b"data"], tuple(int(label) for label in content[b"labels"])
        if pixels.dtype != np.uint8 or pixels.shape != (len(labels), 3 * _SIDE * _SIDE):
            raise ValueError(f"has {len(labels)} labels and images {pixels.shape}")
        if labels and not 0 <= min(labels) <= max(labels) < len(CLASSES):
            raise ValueError("has labels that are no class")
    except (OSError, EOFError, KeyError, ValueError, AttributeError, TypeError) as error:
        raise _damaged(path, batch, error) from error
    except (tarfile.TarError, pickle.UnpicklingError, zlib.error) as error:
        raise _damaged(path, batch, error) from error
    return pixels.reshape(-1, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1), labels


def _damaged(path: str, batch: str, error: Exception) -> UserError:
    line = " ".join(str(error).split())
    return UserError(f"--source: {batch} in {path} is damaged ({line}); download it again")


def _list_batch(path: str, batch: str) -> shards.Listing:
    images, labels = _load(path, batch)
    items = [(f"{batch}_{k:05d}", [path, batch, k]) for k in range(len(labels))]
    return shards.Listing(items, images.nbytes)


def _make(name: str, payload: Any) -> shards.Example:
    path, batch, k = payload
    images, labels = _load(path, batch)
    png = cv2.imencode(".png", np.ascontiguousarray(images[k][..., ::-1]))[1].tobytes()
    return shards.Example({"id": name, "image": png, "label": labels[k]})

"""Prepares CIFAR-10 from its Python version: cifar-10-python.tar.gz, or unpacked."""

import functools
import io
import os
import pickle
import pickletools
from typing import Any

import cv2
import numpy as np
import tensorflow_datasets as tfds

from unnas_jax.core.errors import UserError
from unnas_jax.data import archives, shards

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


def _encode(text: str, encoding: str) -> bytes:
    """Stands for `_codecs.encode`, with which Python 3 writes bytes for Python 2."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"holds bytes as {encoding!r}")
    return text.encode("latin1")


class _Unpickler(pickle.Unpickler):
    """Makes arrays, and nothing that could run: names are allowed, not modules."""

    def find_class(self, module: str, name: str) -> Any:
        match (module, name):
            case ("_codecs", "encode"):
                return _encode
            case ("numpy", "ndarray" | "dtype"):
                return super().find_class(module, name)
            case ("numpy.core.multiarray" | "numpy._core.multiarray", "_reconstruct"):
                return super().find_class("numpy._core.multiarray", name)
        raise pickle.UnpicklingError(f"holds {module}.{name}")


def _check_memo(data: bytes) -> None:
    """Refuses a pickle that numbers more objects than it has bytes: a table is made for them."""
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(argument or 0) > len(data):
            raise pickle.UnpicklingError(f"numbers an object {argument}")


@functools.lru_cache(maxsize=2)
def _load(path: str, batch: str) -> tuple[np.ndarray, tuple[int, ...]]:
    """Images, uint8 (N, 32, 32, 3), and labels of a batch."""
    try:
        if os.path.isdir(path):
            data = archives.read(archives.Place(os.path.join(path, batch)))
        else:
            (data,) = archives.tar_files(path, (f"{_FOLDER}/{batch}",))
        _check_memo(data)
        content = _Unpickler(io.BytesIO(data), encoding="bytes").load()
        pixels, labels = content[b"data"], tuple(int(label) for label in content[b"labels"])
        if pixels.dtype != np.uint8 or pixels.shape != (len(labels), 3 * _SIDE * _SIDE):
            raise ValueError(f"has {len(labels)} labels and images {pixels.shape}")
        if labels and not 0 <= min(labels) <= max(labels) < len(CLASSES):
            raise ValueError("has labels that are no class")
        return pixels.reshape(-1, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1), labels
    except Exception as error:  # What is called to make the objects raises anything.
        raise _damaged(path, batch, error) from error


def _damaged(path: str, batch: str, error: Exception) -> UserError:
    line = " ".join(str(error).split())[:200] or type(error).__name__
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

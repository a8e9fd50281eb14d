"""Prepares CIFAR-10 and CIFAR-100 from their Python versions: an archive, or unpacked."""

import dataclasses
import functools
import io
import os
import pickle
import pickletools
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
import tensorflow_datasets as tfds

from unnas_jax.core.errors import UserError
from unnas_jax.data import archives, download, listing, shards

_SIDE = 32
_CLASSES_10 = "airplane automobile bird cat deer dog frog horse ship truck"
_CLASSES_100 = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus
butterfly camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch
crab crocodile cup dinosaur dolphin elephant flatfish forest fox girl hamster house
kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle
mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree
plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark
shrew skunk skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table
tank telephone television tiger tractor train trout tulip turtle wardrobe whale
willow_tree wolf woman worm
"""


@dataclasses.dataclass(frozen=True)
class _Version:
    """CIFAR-10 or CIFAR-100: how its files are named, and how its fields.

    Attributes:
      folder: of the batches; the archive is named after it.
      batches: split -> the names of its files.
      labels: the field of an image's class.
      classes: their names, in the order of their numbers.
      published: the archive.
    """

    name: str
    description: str
    folder: str
    batches: Mapping[str, tuple[str, ...]]
    labels: bytes
    classes: tuple[str, ...]
    published: download.Published

    @property
    def archive(self) -> str:
        return self.published.url.rsplit("/", 1)[-1]


_HOME = "https://www.cs.toronto.edu/~kriz/"
_VERSIONS = {
    version.name: version
    for version in (
        _Version(
            "cifar10",
            "CIFAR-10.",
            "cifar-10-batches-py",
            {"train": tuple(f"data_batch_{k}" for k in range(1, 6)), "test": ("test_batch",)},
            b"labels",
            tuple(_CLASSES_10.split()),
            download.Published(
                f"{_HOME}cifar-10-python.tar.gz",
                "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
            ),
        ),
        _Version(
            "cifar100",
            "CIFAR-100 with its fine classes.",
            "cifar-100-python",
            {"train": ("train",), "test": ("test",)},
            b"fine_labels",
            tuple(_CLASSES_100.split()),
            download.Published(
                f"{_HOME}cifar-100-python.tar.gz",
                "85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
            ),
        ),
    )
}


def recipe(name: str, source: str) -> shards.Recipe:
    """CIFAR-10 or CIFAR-100.

    Args:
      name: cifar10 or cifar100.
      source: the archive, the folder of the batches, or the folder of either.

    Raises:
      UserError: the files are not there.
    """
    version = _VERSIONS[name]
    inner = [os.path.join(source, part) for part in (version.folder, version.archive)]
    path = next((path for path in inner if os.path.exists(path)), source)
    first = version.batches["train"][0]
    if os.path.isdir(path) and not os.path.isfile(os.path.join(path, first)):
        raise UserError(f"--source={source!r}: has neither {version.folder}/ nor {version.archive}")
    groups = {
        split: [
            listing.Group(batch, functools.partial(_list_batch, name, path, batch), (path,))
            for batch in batches
        ]
        for split, batches in version.batches.items()
    }
    return shards.Recipe(
        name=name,
        version="1.0.0",
        description=version.description,
        source=source,
        features=functools.partial(_features, name),
        groups=groups,
        make=functools.partial(_make, name),
        expected={"train": 50_000, "test": 10_000},
    )


cifar10 = functools.partial(recipe, "cifar10")
cifar100 = functools.partial(recipe, "cifar100")


def published(name: str) -> download.Published:
    """Where the archive of cifar10 or cifar100 is, and its checksum."""
    return _VERSIONS[name].published


def _features(name: str) -> tfds.features.FeaturesDict:
    """As TFDS's own cifar10; of CIFAR-100 without the coarse classes."""
    return tfds.features.FeaturesDict(
        {
            "id": tfds.features.Text(),
            "image": tfds.features.Image(shape=(_SIDE, _SIDE, 3), encoding_format="png"),
            "label": tfds.features.ClassLabel(names=list(_VERSIONS[name].classes)),
        }
    )


def _encode(text: str, encoding: str) -> bytes:
    """Replaces `_codecs.encode`, with which Python 3 pickles bytes for Python 2."""
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
def _load(name: str, path: str, batch: str) -> tuple[np.ndarray, tuple[int, ...]]:
    """Images, uint8 (N, 32, 32, 3), and labels of a batch."""
    version = _VERSIONS[name]
    try:
        if os.path.isdir(path):
            data = archives.read(archives.Place(os.path.join(path, batch)))
        else:
            (data,) = archives.tar_files(path, (f"{version.folder}/{batch}",))
        _check_memo(data)
        content = _Unpickler(io.BytesIO(data), encoding="bytes").load()
        pixels, labels = content[b"data"], tuple(int(label) for label in content[version.labels])
        if pixels.dtype != np.uint8 or pixels.shape != (len(labels), 3 * _SIDE * _SIDE):
            raise ValueError(f"has {len(labels)} labels and images {pixels.shape}")
        if labels and not 0 <= min(labels) <= max(labels) < len(version.classes):
            raise ValueError("has labels that are no class")
        return pixels.reshape(-1, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1), labels
    except Exception as error:  # The functions that make the objects raise anything.
        line = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(
            f"--source: {batch} in {path} is damaged ({line}); download it again"
        ) from error


def _list_batch(name: str, path: str, batch: str) -> listing.Listing:
    images, labels = _load(name, path, batch)
    items = [(f"{batch}_{k:05d}", [path, batch, k]) for k in range(len(labels))]
    return listing.Listing(items, images.nbytes)


def _make(name: str, key: str, payload: Any) -> shards.Example:
    path, batch, k = payload
    images, labels = _load(name, path, batch)
    png = cv2.imencode(".png", np.ascontiguousarray(images[k][..., ::-1]))[1].tobytes()
    return shards.Example({"id": key, "image": png, "label": labels[k]})

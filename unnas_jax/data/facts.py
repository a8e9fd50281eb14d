"""The facts of a run's dataset, kept in its workdir for later use of the network."""

import dataclasses
import os

from unnas_jax.core import files, reading
from unnas_jax.core.errors import UserError
from unnas_jax.data.records import Dataset

FILE = "dataset.json"

_SHAPE = {
    "name": str,
    "num_classes": int,
    "class_names": [str],
    "mean": [float],
    "std": [float],
    "apply_exif": bool,
    "label_maps": bool,
    "colors": [[int]],
}


def write(directory: str, dataset: Dataset) -> None:
    """Writes class names, statistics and colours: all but the images and their place."""
    facts = {field: getattr(dataset, field) for field in _SHAPE}
    facts |= {field: list(map(float, facts[field])) for field in ("mean", "std")}
    files.write_json(os.path.join(directory, FILE), facts)


def read(directory: str) -> Dataset | None:
    """The dataset of a run without its splits, None if the run kept no facts.

    Raises:
      UserError: the file is damaged.
    """
    path = os.path.join(directory, FILE)
    if not os.path.exists(path):
        return None
    found = reading.document(path, _SHAPE, what="dataset")
    mean, std = (tuple(map(float, found[field])) for field in ("mean", "std"))
    if not len(mean) == len(std) == 3 or any(len(color) != 3 for color in found["colors"]):
        raise UserError(f"{path} is damaged: it has other than three channels")
    lists = {
        "class_names": tuple(found["class_names"]),
        "mean": mean,
        "std": std,
        "colors": tuple(map(tuple, found["colors"])),
    }
    return dataclasses.replace(Dataset("", {}, 0, ()), **{**found, **lists, "splits": {}})

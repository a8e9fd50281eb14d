"""Datasets by name, and what a dataset is to the rest of the program."""

import dataclasses
import difflib
import importlib
import os
from collections.abc import Mapping
from typing import Any, Protocol

from unnas_jax.core import files
from unnas_jax.core.errors import UserError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

DATASETS: Mapping[str, str] = {
    "photos": "unnas_jax.data.photos",
    "folder": "unnas_jax.data.folder",
    "imagenet2012": "unnas_jax.data.tfds_source",
    "imagenet22k": "unnas_jax.data.tfds_source",
    "cifar10": "unnas_jax.data.tfds_source",
    "cityscapes": "unnas_jax.data.cityscapes",
}
"""Name -> the module whose `open_dataset(name, path, data_dir)` opens it.

Modules, not functions, so that a dataset's libraries are imported only when it is asked for.
"""


class Records(Protocol):
    """The examples of a split, still encoded, by number.

    Records are pickled into the processes that decode them: they open files only when read. They
    may have a method `describe(i) -> str` that says what record `i` is, for error messages, and
    `names() -> Sequence[str]`, a name for every record, by which subset lists name them.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, i: int, /) -> Mapping[str, Any]:
        """{'image': the bytes of an encoded image, 'label': int or a `crops.LabelMap`}."""
        ...


@dataclasses.dataclass(frozen=True)
class Dataset:
    """An image dataset.

    Attributes:
      name: for messages.
      splits: 'train', and 'validation' or 'test' where there is one.
      num_classes: 0 if there are no labels (they are then 0 in every record).
      class_names: a name for every label.
      mean, std: of the RGB channels in [0, 1], for the normalisation on the device.
      apply_exif: whether images are turned upright as their EXIF orientation says.
      label_maps: whether every pixel has a label; the records' labels are then `crops.LabelMap`.
      colors: RGB of every class, where label maps have customary ones.
      directory: of the prepared files, '' where there is none; subset lists lie below it.
    """

    name: str
    splits: Mapping[str, Records]
    num_classes: int
    class_names: tuple[str, ...]
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    apply_exif: bool = False
    label_maps: bool = False
    colors: tuple[tuple[int, int, int], ...] = ()
    directory: str = ""


def open_dataset(config_dataset: Mapping[str, Any]) -> Dataset:
    """Opens the dataset that a config's section `dataset` names; prepares it if it can.

    Args:
      config_dataset: `name` (a key of `DATASETS` or tfds:NAME[/CONFIG][:VERSION]), `path` (the
        folder of images, for 'folder'), `data_dir` (where TFDS keeps datasets, or '' for its
        default; of datasets that are prepared by a command also gs://BUCKET/NAME) and
        `subset` (a list of names of training examples, to use no others, or '').

    Raises:
      UserError: there is no such dataset, or it cannot be read.
    """
    name = config_dataset["name"]
    key = "unnas_jax.data.tfds_source" if name.startswith("tfds:") else DATASETS.get(name)
    if key is None:
        close = difflib.get_close_matches(name, DATASETS, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise UserError(
            f"config.dataset.name={name!r}: {hint}use one of {', '.join(sorted(DATASETS))}, or "
            "tfds:NAME[/CONFIG][:VERSION]"
        )
    for field in ("path", "subset"):
        files.check_mounted(f"config.dataset.{field}", config_dataset.get(field, ""))
    from unnas_jax.data.subsets import restrict  # It needs this module's types.

    module = importlib.import_module(key)
    dataset: Dataset = module.open_dataset(
        name,
        os.path.expanduser(config_dataset.get("path", "")),
        os.path.expanduser(config_dataset.get("data_dir", "")),
    )
    subset = config_dataset.get("subset", "")
    return restrict(dataset, subset) if subset else dataset


def describe(records: Records, i: int) -> str:
    """What record `i` is, in words: its number and, where the records know, where it is."""
    known = getattr(records, "describe", None)
    return f"record {i}" if known is None else f"record {i} ({known(i)})"

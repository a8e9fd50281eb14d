"""Datasets by name: one record each, to which others can add theirs."""

import dataclasses
import importlib
import logging
import os
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from unnas_jax.config.options import Config, as_dict
from unnas_jax.config.sections import DatasetSection
from unnas_jax.core import buckets, extras, files
from unnas_jax.core.errors import UserError
from unnas_jax.core.registry import Registry, nearest
from unnas_jax.data.records import IMAGENET_MEAN, IMAGENET_STD, Dataset
from unnas_jax.data.subsets import restrict

_LOG = logging.getLogger("unnas_jax")

_TFDS = "unnas_jax.data.tfds_source:open_dataset"


@dataclasses.dataclass(frozen=True)
class Entry:
    """The facts of a dataset that are known before it is opened.

    Functions are given as 'module:function' where their libraries should be imported only when the
    dataset is asked for, or as they are.

    Attributes:
      opens: (a config's section `dataset`) -> Dataset.
      classes: how many it has; 0: known when it is opened.
      train_images: examples of its training split; 0: known when it is opened.
      mean, std: of the RGB channels in [0, 1].
      recipe: (source folder, keyword options) -> shards.Recipe, of datasets that
        `unnas-jax prepare` makes from their published files; '' of others.
      options: the options that `recipe` takes.
      download: (the dataset's name) -> download.Published, of datasets that may be fetched; ''
        of others.
      in_buckets: whether its prepared files may lie at gs://BUCKET/NAME.
      takes_path: whether `dataset.path` names its images.
      extra: of this package, which it needs to be opened, or ''.
    """

    opens: str | Callable[[DatasetSection], Dataset]
    classes: int = 0
    train_images: int = 0
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    recipe: str | Callable[..., Any] = ""
    options: tuple[str, ...] = ()
    download: str | Callable[[str], Any] = ""
    in_buckets: bool = False
    takes_path: bool = False
    extra: str = ""


DATASETS = Registry(
    "dataset",
    {
        "photos": Entry(
            "unnas_jax.data.photos:open_dataset", classes=11, train_images=3080, extra="photos"
        ),
        "digits": Entry(
            "unnas_jax.data.digits:open_dataset",
            classes=10,
            train_images=1200,
            mean=(0.306,) * 3,
            std=(0.323,) * 3,
            extra="digits",
        ),
        "folder": Entry("unnas_jax.data.folder:open_dataset", takes_path=True),
        "folder_maps": Entry("unnas_jax.data.folder_maps:open_dataset", takes_path=True),
        "imagenet2012": Entry(
            _TFDS,
            classes=1000,
            train_images=1_281_167,
            recipe="unnas_jax.data.imagenet:imagenet_1k",
            options=("partial",),
            in_buckets=True,
            extra="tfds",
        ),
        "imagenet22k": Entry(
            _TFDS,
            classes=21_841,
            recipe="unnas_jax.data.imagenet:imagenet_22k",
            options=("files",),
            in_buckets=True,
            extra="tfds",
        ),
        "cifar10": Entry(
            _TFDS,
            classes=10,
            train_images=50_000,
            mean=(125.3 / 255, 123.0 / 255, 113.9 / 255),
            std=(63.0 / 255, 62.1 / 255, 66.7 / 255),
            recipe="unnas_jax.data.cifar:cifar10",
            download="unnas_jax.data.cifar:published",
            in_buckets=True,
            extra="tfds",
        ),
        "cifar100": Entry(
            _TFDS,
            classes=100,
            train_images=50_000,
            mean=(0.5071, 0.4865, 0.4409),
            std=(0.2673, 0.2564, 0.2762),
            recipe="unnas_jax.data.cifar:cifar100",
            download="unnas_jax.data.cifar:published",
            in_buckets=True,
            extra="tfds",
        ),
        "cityscapes": Entry(
            "unnas_jax.data.cityscapes:open_dataset",
            classes=19,
            train_images=2_975,
            recipe="unnas_jax.data.cityscapes:cityscapes",
            in_buckets=True,
            extra="tfds",
        ),
    },
    made_by=lambda entry: entry.opens,
)
"""The datasets, by the value of config.dataset.name; others are tfds:NAME[/CONFIG][:VERSION]."""


def register_dataset(
    name: str, dataset: Entry | Dataset | Callable[[DatasetSection], Dataset]
) -> Entry:
    """Adds a dataset, for this process, as the value `name` of config.dataset.name.

    Args:
      name: of letters, digits and _.
      dataset: its record; or a dataset, such as `arrays` makes; or a function that opens one, from
        a config's section `dataset`.

    Raises:
      UserError: the name is that of something else, see `Registry.register`.
    """
    if isinstance(dataset, Dataset):
        opened = dataset
        dataset = Entry(
            lambda section: opened,
            classes=opened.num_classes,
            train_images=len(opened.splits["train"]),
            mean=opened.mean,
            std=opened.std,
        )
    return DATASETS.register(name, dataset if isinstance(dataset, Entry) else Entry(dataset))


def function_of(value: str | Callable[..., Any]) -> Callable[..., Any]:
    """The function that an entry means by 'module:function', or by itself."""
    if not isinstance(value, str):
        return value
    module, _, name = value.partition(":")
    function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return function


def entry_of(name: str) -> Entry:
    """The entry of a config's dataset; a dataset of TFDS has the facts of its namesake here.

    Raises:
      UserError: there is no such dataset.
    """
    base = name.removeprefix("tfds:").split(":")[0].split("/")[0]
    if name.startswith("tfds:"):
        known = DATASETS.get(base, Entry(_TFDS))
        return dataclasses.replace(known, opens=_TFDS, in_buckets=True, extra="tfds")
    if name not in DATASETS:
        raise UserError(
            f"config.dataset.name={name!r}: {nearest(name, DATASETS)}use one of "
            f"{', '.join(sorted(DATASETS))}, or tfds:NAME[/CONFIG][:VERSION]"
        )
    return DATASETS[name]


def check(section: DatasetSection) -> None:
    """Raises `UserError` unless the dataset of a section exists and has a path if it needs one."""
    name, path, takes_path = section.name, section.path, entry_of(section.name).takes_path
    if takes_path and not path:
        raise UserError(f"config.dataset.path={path!r}: give the folder of images")
    if path and not takes_path:
        raise UserError(
            f"config.dataset.path={path!r}: the dataset {name!r} has none; 'folder' and "
            "'folder_maps' have one"
        )


def _section(dataset: str | Config, fields: Mapping[str, Any]) -> DatasetSection:
    """The section of a name, or of a section, with other values of some fields."""
    if not isinstance(dataset, str | Mapping | DatasetSection):
        raise UserError(
            "open_dataset: give a name, such as 'photos', or a config's section `dataset`, not "
            f"{type(dataset).__name__}"
        )
    given = {"name": dataset} if isinstance(dataset, str) else as_dict(dataset)
    values: dict[str, Any] = {**given, **fields}
    if "name" not in values:
        raise UserError("config.dataset.name: is missing; give the name of a dataset")
    known = as_dict(DatasetSection())
    for key, value in values.items():
        if key not in known:
            raise UserError(
                f"open_dataset: {nearest(key, known)}there is no field {key!r}; the fields are "
                f"{', '.join(known)}"
            )
        if isinstance(value, os.PathLike):
            value = values[key] = os.fspath(value)
        if type(value) is not type(known[key]):
            kind = type(known[key]).__name__
            raise UserError(f"config.dataset.{key}={value!r}: must be of type {kind}")
    section = DatasetSection.of(values)
    if section.name not in DATASETS and os.path.isdir(os.path.expanduser(section.name)):
        raise UserError(
            f"config.dataset.name={section.name!r}: is a folder; open it with "
            f"open_dataset('folder', path={section.name!r})"
        )
    check(section)
    return section


def open_dataset(dataset: str | Config = MappingProxyType({}), /, **fields: Any) -> Dataset:
    """Opens a dataset by its name; prepares it if it can.

        photos = un.open_dataset("photos")
        mine = un.open_dataset("folder", path="~/my_images")

    Args:
      dataset: a name of `DATASETS` or tfds:NAME[/CONFIG][:VERSION]; or a config's section
        `dataset`, as a dict or as a record.
      fields: of the section, by name: `path` (the folder of images, for 'folder' and
        'folder_maps'), `data_dir` (where TFDS keeps datasets; of datasets that `unnas-jax prepare`
        makes also gs://BUCKET/NAME), `subset` (a file that lists the training images to use),
        `max_pixels` (of an image of 'folder'), `ignore_label` (of 'folder_maps').

    Raises:
      UserError: there is no such dataset or field, its packages are not installed, or it cannot
        be read.
    """
    section = _section(dataset, fields)
    name, entry = section.name, entry_of(section.name)
    for key, path in (("path", section.path), ("subset", section.subset)):
        files.check_mounted(f"config.dataset.{key}", path)
    section = dataclasses.replace(
        section,
        path=os.path.expanduser(section.path),
        data_dir=os.path.expanduser(section.data_dir),
    )
    if buckets.is_address(section.data_dir) and not entry.in_buckets:
        raise UserError(
            f"config.dataset.data_dir={section.data_dir!r}: the dataset {name!r} is read from a "
            "directory of this machine only"
        )
    if entry.extra:
        extras.require(entry.extra, f"config.dataset.name={name!r}")
    opened: Dataset = function_of(entry.opens)(section)
    if section.subset:
        opened = restrict(opened, section.subset)
    counts = ", ".join(f"{split} {len(records):,}" for split, records in opened.splits.items())
    _LOG.info(
        "Dataset %s: %s images; %s.",
        name,
        counts,
        f"{opened.num_classes:,} classes" if opened.num_classes else "no labels",
    )
    return opened

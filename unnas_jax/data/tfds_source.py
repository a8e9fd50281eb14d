"""Datasets prepared by TFDS in array_record, read without TensorFlow: `tfds:NAME`."""

import contextlib
import dataclasses
import difflib
import functools
import glob
import logging
import os
import resource
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from array_record.python import array_record_module  # type: ignore[import-untyped]
from etils import epath
from tensorflow_datasets.core import file_adapters, read_only_builder
from tensorflow_datasets.proto import tf_example_pb2

from unnas_jax.config.sections import DatasetSection
from unnas_jax.core import buckets, files
from unnas_jax.core.errors import Interruption, UserError
from unnas_jax.data import crops, registry, shards
from unnas_jax.data.records import Dataset, digest_of_names

_LOG = logging.getLogger("unnas_jax")


@dataclasses.dataclass(frozen=True)
class TfdsRecords:
    """A split of a prepared dataset; opened when first read, in every process anew.

    Attributes:
      directory: of the prepared version, .../NAME/[CONFIG/]VERSION.
      split: its name.
      count: examples.
      image: the name of the image feature.
      label: the name of the label feature, or '' for none.
      label_map: the name of the feature with label maps, instead.
      table: of the label maps, as `crops.LabelMap.table`.
    """

    directory: str
    split: str
    count: int
    image: str
    label: str
    label_map: str = ""
    table: bytes = b""

    def __len__(self) -> int:
        return self.count

    @functools.cached_property
    def _source(self) -> Sequence[bytes]:
        _allow_open_files()
        builder = tfds.builder_from_directory(self.directory)
        source: Sequence[bytes] = builder.as_data_source(
            self.split,
            deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES,
            file_format="array_record",
        )
        return source

    def _example(self, i: int) -> Any:
        """The features of record `i` by name.

        As tf.train.Example, in which TFDS stores them: its own parser takes 0.07 ms more.
        """
        try:
            return tf_example_pb2.Example.FromString(self._source[i]).features.feature
        except Exception as error:  # array_record and protobuf name no common one.
            line = " ".join(str(error).split())[:200]
            if buckets.is_address(self.directory):
                raise Interruption(
                    f"dataset: cannot read record {i} {self.describe(i)} ({line}); the same "
                    "command continues"
                ) from error
            raise UserError(
                f"dataset: cannot read record {i} {self.describe(i)} ({line}); copy its files again"
            ) from error

    def __getstate__(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    def __getitem__(self, i: int, /) -> Mapping[str, Any]:
        example = self._example(i)
        label: int | crops.LabelMap = 0
        if self.label_map:
            label = crops.LabelMap(example[self.label_map].bytes_list.value[0], self.table)
        elif self.label:
            label = example[self.label].int64_list.value[0]
        return {"image": example[self.image].bytes_list.value[0], "label": label}

    def names(self) -> Sequence[str]:
        """A name for every record, from a list beside the dataset or else from all records.

        Raises:
          UserError: the records have no names.
        """
        try:
            names = epath.Path(shards.names_path(self.directory, self.split)).read_text()
            return str(names).split("\n")[:-1]
        except FileNotFoundError:
            return self._read_names()

    def names_digest(self) -> str:
        """A digest of the names if there is a list of them; a version of TFDS's does not change."""
        try:
            names = epath.Path(shards.names_path(self.directory, self.split)).read_text()
        except FileNotFoundError:
            return ""
        return digest_of_names(str(names))

    def _read_names(self) -> Sequence[str]:
        first = self._example(0)
        feature = next((name for name in _NAMES if name in first), "")
        if not feature:
            raise UserError(
                f"config.dataset.subset: the examples of {self.directory} have no names; use all"
            )
        _LOG.info("reading the names of %s records of %s", f"{self.count:,}", self.directory)
        names = [self._example(i)[feature].bytes_list.value[0].decode() for i in range(self.count)]
        path = shards.names_path(self.directory, self.split)
        # Unless the directory belongs to somebody else.
        with contextlib.suppress(OSError), files.replacing(path) as file:
            file.writelines(f"{name}\n" for name in names)
        return names

    def describe(self, i: int) -> str:
        """Where record `i` is."""
        return f"of the split {self.split!r} in {self.directory}"


# Features that name an example in TFDS's own datasets and in this package's.
_NAMES = ("file_name", "image_id", "id", "filename", "image/filename")


def _allow_open_files() -> None:
    """Reading keeps a file open for every shard; TFDS cuts ImageNet in 1,024, the usual limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _features(builder: tfds.core.DatasetBuilder) -> dict[str, Any]:
    features = builder.info.features
    return dict(features.items()) if isinstance(features, tfds.features.FeaturesDict) else {}


def _image_features(builder: tfds.core.DatasetBuilder) -> list[str]:
    return [k for k, v in _features(builder).items() if isinstance(v, tfds.features.Image)]


def _find_features(builder: tfds.core.DatasetBuilder, name: str) -> tuple[str, str]:
    """The names of the image and the label feature, found by type; '' for no label."""
    items, images = _features(builder), _image_features(builder)
    if not images:
        raise UserError(
            f"config.dataset.name={name!r}: has no image; its features are "
            f"{', '.join(sorted(items)) or 'not named'}; use an image dataset"
        )
    labels = [key for key, value in items.items() if isinstance(value, tfds.features.ClassLabel)]
    number = items.get("label")
    if not labels and number is not None and number.shape == ():
        labels = ["label"] if np.issubdtype(number.np_dtype, np.integer) else []
    image = "image" if "image" in images else images[0]
    return image, "label" if "label" in labels else next(iter(labels), "")


def _check_shards(builder: tfds.core.DatasetBuilder, name: str) -> None:
    """Refuses a dataset of which files are missing or do not hold the records that they should."""
    directory = os.fspath(builder.data_path)
    suffix = file_adapters.FileFormat.ARRAY_RECORD.file_suffix
    present = {path.name for path in epath.Path(directory).iterdir()}
    for split in builder.info.splits.values():
        template = split.filename_template.replace(filetype_suffix=suffix)
        lengths = split.shard_lengths
        for path, length in zip(template.sharded_filepaths(len(lengths)), lengths, strict=True):
            found = "is missing"
            if path.name in present:
                # An object of a bucket arrived whole or not at all.
                found = "" if buckets.is_address(directory) else _damage(path, length)
            if found:
                raise UserError(
                    f"config.dataset.name={name!r}: the shard {os.fspath(path)} {found}; copy it "
                    "again, or prepare the dataset anew"
                )


def _damage(path: epath.Path, length: int) -> str:
    """Why a shard does not hold so many records, or ''."""
    try:
        reader = array_record_module.ArrayRecordReader(os.fspath(path))
        records = reader.num_records()
        reader.close()
    except (OSError, RuntimeError, ValueError) as error:
        return f"is damaged ({' '.join(str(error).split())[:200] or 'it ends too early'})"
    return "" if records == length else f"is damaged ({records:,} of {length:,} records)"


def from_builder(builder: tfds.core.DatasetBuilder, name: str) -> Dataset:
    """The dataset that a builder has prepared in array_record.

    Args:
      builder: prepared.
      name: as the user wrote it, for messages.

    Raises:
      UserError: it has no image, no split 'train' or another file format, or is not whole.
    """
    directory = os.fspath(builder.data_path)
    formats = builder.info.available_file_formats()
    if file_adapters.FileFormat.ARRAY_RECORD not in formats:
        found = ", ".join(sorted(f.value for f in formats))
        raise UserError(
            f"config.dataset.name={name!r}: {directory} is in the format {found}; add array_record "
            "files, where TensorFlow is installed, with: tfds convert_format "
            f"--dataset_version_dir={directory} --out_file_format=array_record"
        )
    image, label = _find_features(builder, name)
    _check_shards(builder, name)
    counts = {key: split.num_examples for key, split in builder.info.splits.items()}
    splits = {
        key: TfdsRecords(directory, key, count, image, label)
        for key, count in counts.items()
        if count
    }
    if "train" not in splits:
        raise UserError(
            f"config.dataset.name={name!r}: has no split 'train', only "
            f"{', '.join(sorted(splits)) or 'empty ones'}; prepare it again or use another dataset"
        )
    feature = builder.info.features[label] if label else None
    # How many classes plain integers have is not known: 0, and no names.
    names = tuple(feature.names) if isinstance(feature, tfds.features.ClassLabel) else ()
    known = registry.entry_of(f"tfds:{builder.name}")
    return Dataset(
        name, splits, len(names), names, known.mean, known.std, directory=os.fspath(directory)
    )


def _around(directory: str) -> list[str]:
    """The directories that may be meant: up to two levels above it and one below."""
    if buckets.is_address(directory):
        return []
    parent = os.path.dirname(os.path.abspath(directory))
    below = sorted(glob.glob(os.path.join(glob.escape(directory), "*", "")))
    return [parent, os.path.dirname(parent), *(path.rstrip("/") for path in below)]


def _is_prepared(folder: str, name: str) -> bool:
    """Whether a directory of datasets holds a version of this one, of any configuration."""
    inside = os.path.join(glob.escape(folder), glob.escape(name))
    return any(
        glob.glob(os.path.join(inside, *depth, "dataset_info.json"))
        for depth in (("*",), ("*", "*"))
    )


def _not_found(name: str, wanted: str, data_dir: str) -> UserError:
    base = wanted.split("/")[0].split(":")[0]
    known = tfds.list_builders(with_community_datasets=False)
    where = data_dir or os.path.expanduser(os.fspath(tfds.core.constants.DATA_DIR))
    if base not in known:
        close = difflib.get_close_matches(base, known, n=3)
        hint = f"; did you mean {' or '.join(close)}?" if close else ""
        return UserError(
            f"config.dataset.name={name!r}: TFDS knows no dataset {base!r} and {where} has "
            f"none{hint or '; see tensorflow.org/datasets/catalog'}"
        )
    flag = f" --data_dir={data_dir}" if data_dir else ""
    for folder in _around(where):
        if _is_prepared(folder, base):
            return UserError(
                f"config.dataset.name={name!r}: is prepared in {folder}, not in {where}; give "
                f"--config.dataset.data_dir={folder}"
            )
    if registry.entry_of(f"tfds:{base}").recipe:
        return UserError(
            f"config.dataset.name={name!r}: is not prepared in {where}; prepare it once with: "
            f"unnas-jax prepare {base} --source=FOLDER{flag}"
        )
    return UserError(
        f"config.dataset.name={name!r}: is not prepared in {where}; prepare it once with: "
        f"tfds build {wanted} --file_format=array_record{flag} (this needs TensorFlow, on any "
        "machine: pip install tensorflow; reading does not)"
    )


def open_dataset(section: DatasetSection) -> Dataset:
    """Opens a prepared dataset.

    Args:
      section: a config's `dataset`: of its fields `name` and `data_dir`, where TFDS keeps datasets.

    Raises:
      UserError: the name is unknown, or the dataset is not prepared as it must be.
    """
    name, data_dir = section.name, section.data_dir
    return from_builder(find_builder(name.removeprefix("tfds:"), name, data_dir), name)


def find_builder(wanted: str, name: str, data_dir: str) -> tfds.core.DatasetBuilder:
    """The builder of a prepared dataset.

    Args:
      wanted: NAME[/CONFIG][:VERSION]; without a version, the highest that is there.
      name: as the user wrote it, for messages.
      data_dir: where TFDS keeps datasets; '': its default.

    Raises:
      UserError: there is none.
    """
    root = os.path.expanduser(data_dir)
    if buckets.is_address(root):  # TFDS and array_record read them.
        buckets.open_path("config.dataset.data_dir", root)
    try:
        # From the files, not from TFDS's own code: any prepared version will do, and the code of
        # some datasets needs TensorFlow.
        return read_only_builder.builder_from_files(wanted, data_dir=root or None)
    except tfds.core.DatasetNotFoundError as error:
        raise _not_found(name, wanted, root) from error
    except (AssertionError, ValueError) as error:
        line = " ".join(str(error).split())
        raise UserError(
            f"config.dataset.name={name!r}: {line}; write tfds:NAME[/CONFIG][:VERSION]"
        ) from error
    except Exception as error:  # Damaged metadata raises errors of JSON, protobuf and TFDS.
        if buckets.is_address(root):
            raise buckets.unreachable("config.dataset.data_dir", root, error) from error
        line = " ".join(str(error).split())[:200]
        raise UserError(
            f"config.dataset.name={name!r}: cannot read dataset_info.json or features.json of "
            f"{wanted} in {root or 'the default directory'} ({line}); copy them again, or prepare "
            "the dataset anew"
        ) from error

"""Writes datasets as TFDS does, in array_record; parallel, restartable, dropping nothing silently.

TFDS's own writer works in one process, begins anew after a kill, and raises at the first bad
example. This one lists the sources, cuts the list in shards, and writes every shard in a process
to a file that is renamed when it is complete: a run that was killed goes on with the shards that
are missing. Features, their serialisation and the metadata are TFDS's, so that
`tfds.builder_from_directory` and `tfds.load` read the result as any dataset.

Records lie in the order of their names, group by group: the number of a record, and with it the
halves of a search, depends on the names alone, not on the order or number of files.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import pathlib
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow_datasets as tfds
from array_record.python import array_record_module  # type: ignore[import-untyped]
from tensorflow_datasets.core import (
    dataset_info,
    example_serializer,
    file_adapters,
    naming,
    splits,
    utils,
)

from unnas_jax.core import files
from unnas_jax.core.errors import UserError
from unnas_jax.data import jobs, listing
from unnas_jax.data import workers as workers_lib
from unnas_jax.data.listing import Group, Listed, Problem

SHARD_BYTES = 512 * 2**20
MAX_SHARDS = 512
"""Every process that reads holds a file open for every shard."""

INFO = "dataset_info.json"
"""TFDS's own file, the last to be written of a prepared dataset."""

REPORT = "report.json"
# Images are compressed already; raw pixels stay so on purpose.
_OPTIONS = "group_size:1,uncompressed"


class Rejected(Exception):
    """An example that cannot be used; the message says why."""


@dataclass(frozen=True)
class Example:
    """An example as it is stored.

    Attributes:
      features: as TFDS's feature connectors take them.
      remark: a note on something unusual, or ''.
    """

    features: dict[str, Any]
    remark: str = ""


@dataclass(frozen=True)
class Recipe:
    """How a dataset is prepared.

    Attributes:
      name, version, description: as TFDS shows them.
      source: what the user named.
      features: makes the features, in every process.
      groups: split -> its groups.
      make: (name, payload) -> example, in a process of its own; raises `Rejected`.
      expected: split -> its published number of examples; another number is a remark.
      notes: for the report.
    """

    name: str
    version: str
    description: str
    source: str
    features: Callable[[], tfds.features.FeaturesDict]
    groups: Mapping[str, Sequence[Group]]
    make: Callable[[str, Any], Example]
    expected: Mapping[str, int]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Shard:
    """A file to write: parts [start, stop) of listings, in order."""

    split: str
    path: str
    parts: tuple[tuple[str, int, int], ...]
    count: int


def directory(data_dir: str, name: str, version: str) -> str:
    """Where a dataset is when prepared."""
    return os.path.join(data_dir, name, version)


def is_prepared(path: str) -> bool:
    """Whether a directory holds a complete dataset."""
    return os.path.exists(os.path.join(path, INFO))


def prepare(
    recipe: Recipe, data_dir: str, workers: int = -1, shard_bytes: int = SHARD_BYTES
) -> dict[str, Any]:
    """Prepares a dataset, or goes on with it, and returns its report.

    Args:
      recipe: what to prepare.
      data_dir: TFDS's directory of datasets.
      workers: processes; -1: one per core; 0: none but this one.
      shard_bytes: about the size of a shard.

    Raises:
      UserError: the sources changed since the run that this one continues, another run works on
        the same, or not one example can be used.
    """
    workers_lib.refuse_unguarded_main()
    final = directory(data_dir, recipe.name, recipe.version)
    staging = final + ".incomplete"
    if is_prepared(final):
        return dict(files.read_json(os.path.join(final, REPORT)))
    workers = workers_lib.cores() if workers < 0 else workers
    with _locked(os.path.join(data_dir, recipe.name, ".lock")), warnings.catch_warnings():
        if is_prepared(final):  # Prepared by the process that had the lock before.
            return dict(files.read_json(os.path.join(final, REPORT)))
        index = os.path.join(staging, "index")
        os.makedirs(index, exist_ok=True)
        warnings.simplefilter("ignore")  # Pillow's, in this process.
        _remove_leftovers(staging)
        started = time.monotonic()
        listed = listing.to_files(recipe.groups, recipe.source, index, workers)
        _same_plan(recipe, staging, listed)
        shards = [
            shard
            for split, groups in listed.items()
            for shard in _plan(recipe, staging, split, groups, shard_bytes)
        ]
        missing = [shard for shard in shards if not os.path.exists(_record(shard.path))]
        total, left = (sum(shard.count for shard in some) for some in (shards, missing))
        progress = jobs.Progress("preparing", total, total - left)
        work = [(recipe.make, recipe.features, shard) for shard in missing]
        jobs.run(_write_shard, work, workers, progress)
        progress.end()
        report = _finish(recipe, staging, listed, shards)
        report["seconds"] = round(time.monotonic() - started, 1)
        files.write_json(os.path.join(staging, REPORT), report)
        _write_metadata(recipe, staging, shards)
        os.rename(staging, final)
        # The files needed to go on are removed last: after a kill there are these or the dataset.
        shutil.rmtree(os.path.join(final, "index"))
        os.unlink(os.path.join(final, "plan.json"))
    return report


@contextlib.contextmanager
def _locked(path: str) -> Iterator[None]:
    """Keeps other runs out; the lock ends with the process, however it ends."""
    with contextlib.ExitStack() as stack:
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            file = stack.enter_context(open(path, "w", encoding="utf-8"))
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"{path}: another run is preparing this; wait for its end") from error
        except OSError as error:
            raise UserError(
                f"--data_dir: cannot write or lock {path} ({error.strerror}); name a directory on "
                "a file system that can"
            ) from error
        yield


def _remove_leftovers(staging: str) -> None:
    """Half-written files of a run that was killed."""
    for folder in (staging, os.path.join(staging, "index")):
        for entry in list(os.scandir(folder)):
            if entry.name.startswith(".") and entry.is_file():
                os.unlink(entry.path)


def _same_plan(recipe: Recipe, staging: str, listed: Mapping[str, Sequence[Listed]]) -> None:
    """Refuses to continue with other files than those that the run began with."""
    digest = hashlib.sha256()
    for groups in listed.values():
        for group in groups:
            digest.update(pathlib.Path(group.path).read_bytes())
    plan = {"name": recipe.name, "version": recipe.version, "digest": digest.hexdigest()}
    path = os.path.join(staging, "plan.json")
    if not os.path.exists(path):
        files.write_json(path, plan)
    elif files.read_json(path) != plan:
        raise UserError(
            f"{staging}: was begun from other files than {recipe.source}; delete it and run the "
            "command again"
        )


def _plan(
    recipe: Recipe, staging: str, split: str, groups: Sequence[Listed], shard_bytes: int
) -> Iterator[_Shard]:
    """Cuts a split in shards of equal numbers of examples."""
    total = sum(group.count for group in groups)
    size = sum(group.size for group in groups)
    number = max(1, min(MAX_SHARDS, total, round(size / shard_bytes)))
    bounds = [total * k // number for k in range(number + 1)]
    starts = [0]
    for group in groups:
        starts.append(starts[-1] + group.count)
    template = _template(recipe, staging, split)
    first = 0
    for k in range(number):
        begin, end = bounds[k], bounds[k + 1]
        while starts[first + 1] <= begin:
            first += 1
        parts, g = [], first
        while g < len(groups) and starts[g] < end:
            part = max(begin, starts[g]) - starts[g], min(end, starts[g + 1]) - starts[g]
            if part[0] < part[1]:
                parts.append((groups[g].path, *part))
            g += 1
        path = os.fspath(template.sharded_filepath(shard_index=k, num_shards=number))
        yield _Shard(split, path, tuple(parts), end - begin)


def _template(recipe: Recipe, path: str, split: str) -> naming.ShardedFileTemplate:
    return naming.ShardedFileTemplate(
        dataset_name=recipe.name,
        data_dir=path,
        split=split,
        filetype_suffix=file_adapters.FileFormat.ARRAY_RECORD.file_suffix,
    )


# Writing.


def _record(path: str) -> str:
    """The record of a shard, written when it is complete."""
    return os.path.join(os.path.dirname(path), "index", os.path.basename(path) + ".written.json")


def _items(shard: _Shard) -> Iterator[tuple[str, Any]]:
    for path, start, stop in shard.parts:
        yield from files.read_json(path)["items"][start:stop]


def _write_shard(
    make: Callable[[str, Any], Example],
    features: Callable[[], tfds.features.FeaturesDict],
    shard: _Shard,
) -> None:
    """Writes a shard and its record."""
    connectors = features()
    serializer = example_serializer.ExampleSerializer(connectors.get_serialized_info())
    names: list[str] = []
    rejected: list[Problem] = []
    remarks: list[Problem] = []
    size = 0
    with warnings.catch_warnings(), files.renamed(shard.path) as temporary:
        warnings.simplefilter("ignore")  # Pillow's on odd metadata: pixels are what counts.
        writer = array_record_module.ArrayRecordWriter(temporary, _OPTIONS)
        try:
            for name, payload in _items(shard):
                jobs.tick()
                try:
                    example = make(name, payload)
                except Rejected as error:
                    rejected.append({"name": name, "reason": str(error)})
                    continue
                encoded = connectors.encode_example(example.features)
                # Equal examples can serialise differently; this gives always the same bytes.
                data = serializer.get_tf_example(encoded).SerializeToString(deterministic=True)
                writer.write(data)
                names.append(name)
                size += len(data)
                if example.remark:
                    remarks.append({"name": name, "reason": example.remark})
        finally:
            writer.close()
    content = {"names": names, "size": size, "rejected": rejected, "remarks": remarks}
    with files.replacing(_record(shard.path)) as file:
        json.dump(content, file)


def names_path(path: str, split: str) -> str:
    """The file with the names of a split's records, one a line."""
    return os.path.join(path, f"names-{split}.txt")


def _finish(
    recipe: Recipe,
    staging: str,
    listed: Mapping[str, Sequence[Listed]],
    shards: Sequence[_Shard],
) -> dict[str, Any]:
    """The report; writes the names."""
    report: dict[str, Any] = {
        "dataset": f"{recipe.name}:{recipe.version}",
        "source": recipe.source,
        "examples": {},
        "rejected": [],
        "duplicates": [],
        "remarks": [],
        "notes": list(recipe.notes),
    }
    for split, groups in listed.items():
        found: dict[str, list[Problem]] = {"rejected": [], "duplicates": [], "remarks": []}
        for group in groups:
            content = files.read_json(group.path)
            found["rejected"] += content["rejected"]
            found["duplicates"] += content["duplicates"]
        count = 0
        with files.replacing(names_path(staging, split)) as file:
            for shard in _of(shards, split):
                content = files.read_json(_record(shard.path))
                count += len(content["names"])
                file.writelines(f"{name}\n" for name in content["names"])
                found["rejected"] += content["rejected"]
                found["remarks"] += content["remarks"]
        if not count:
            first = found["rejected"][0]
            raise UserError(
                f"--source={recipe.source!r}: none of the {split} images can be used (the first, "
                f"{first['name']}: {first['reason']}); delete {staging} once that is repaired"
            )
        for kind, problems in found.items():
            report[kind] += [{"split": split, **problem} for problem in problems]
        report["examples"][split] = count
        published = recipe.expected.get(split, count)
        if count != published:
            report["notes"].append(f"{split}: {count:,} examples; {published:,} are published")
    return report


def _of(shards: Sequence[_Shard], split: str) -> list[_Shard]:
    return [shard for shard in shards if shard.split == split]


def _write_metadata(recipe: Recipe, staging: str, shards: Sequence[_Shard]) -> None:
    """TFDS's dataset_info.json and features.json."""
    identity = dataset_info.DatasetIdentity(
        name=recipe.name,
        version=utils.Version(recipe.version),
        data_dir=staging,
        module_name=__name__,
    )
    info = dataset_info.DatasetInfo(
        builder=identity, description=recipe.description, features=recipe.features()
    )
    info.set_file_format(file_adapters.FileFormat.ARRAY_RECORD)
    infos = []
    for split in recipe.groups:
        written = [files.read_json(_record(shard.path)) for shard in _of(shards, split)]
        infos.append(
            splits.SplitInfo(
                name=split,
                shard_lengths=[len(content["names"]) for content in written],
                num_bytes=sum(content["size"] for content in written),
                filename_template=_template(recipe, staging, split),
            )
        )
    info.set_splits(splits.SplitDict(infos))
    info.write_to_directory(staging)

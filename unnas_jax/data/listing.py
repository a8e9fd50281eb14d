"""The examples of a dataset to prepare: listed group by group, each listing kept in a file."""

import contextlib
import hashlib
import json
import os
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from unnas_jax.core import files
from unnas_jax.core.errors import UserError
from unnas_jax.data import archives, jobs

Problem = dict[str, str]
"""`name` and `reason`."""


@dataclass(frozen=True)
class Listing:
    """The examples of a group.

    Attributes:
      items: name and payload, which is JSON, of every example; in any order.
      size: of the examples as they will be stored, about, in bytes.
      problems: files that are no examples, and why.
    """

    items: list[tuple[str, Any]]
    size: int
    problems: list[Problem] = field(default_factory=list)


@dataclass(frozen=True)
class Group:
    """Examples that are listed together, as those of a class.

    Attributes:
      name: no other group's in the split; groups are sorted by it, and it begins the names of its
        examples or else is unique in them.
      list: finds the examples, in a process of its own.
      sources: files or folders: a change of them is noticed.
    """

    name: str
    list: Callable[[], Listing]
    sources: tuple[str, ...]


@dataclass(frozen=True)
class Listed:
    """A group whose listing is in a file."""

    path: str
    count: int
    size: int


def _path(folder: str, split: str, number: int) -> str:
    return os.path.join(folder, f"{split}-{number:05d}.json")


def _signature(group: Group) -> list[Any]:
    """What a listing depends on: how it is made, with all arguments, and from which files."""
    how = hashlib.sha256(pickle.dumps(group.list)).hexdigest()
    stats = [os.stat(path) for path in group.sources]
    return [group.name, how, [[s.st_size, s.st_mtime_ns] for s in stats], list(group.sources)]


def _list_group(group: Group, path: str) -> None:
    """Writes a group's listing, sorted, unless it is there and its sources did not change."""
    signature = _signature(group)
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        if files.read_json(path)["signature"] == signature:
            jobs.tick()
            return
    listing = group.list()
    items: list[tuple[str, Any]] = []
    duplicates = []
    problems = list(listing.problems)
    for name, payload in sorted(listing.items, key=lambda item: item[0]):
        unusable = archives.unusable_name(name)
        if unusable:  # The lists of names hold one a line.
            problems.append({"name": name, "reason": unusable})
        elif items and items[-1][0] == name:
            reason = "is there more than once; the first is kept"
            duplicates.append({"name": name, "reason": reason})
        else:
            items.append((name, payload))
    content = {
        "signature": signature,
        "items": items,
        "size": listing.size,
        "rejected": sorted(problems, key=lambda problem: problem["name"]),
        "duplicates": duplicates,
    }
    with files.replacing(path) as file:
        json.dump(content, file)
    jobs.tick()


def to_files(
    groups: Mapping[str, Sequence[Group]], source: str, folder: str, workers: int
) -> dict[str, list[Listed]]:
    """Lists all groups, but those whose listing is there already.

    Args:
      groups: split -> its groups.
      source: what the user named.
      folder: of the listings.
      workers: processes; 0: none but this one.

    Returns:
      split -> its listings, by the names of the groups.

    Raises:
      UserError: a split has no example.
    """
    todo, paths = [], dict[str, list[str]]()
    for split, members in groups.items():
        ordered = sorted(members, key=lambda group: group.name)
        paths[split] = [_path(folder, split, k) for k in range(len(ordered))]
        todo += list(zip(ordered, paths[split], strict=True))
    progress = jobs.Progress("listing", len(todo))
    # Few groups are listed sooner than a process starts.
    jobs.run(_list_group, todo, workers if len(todo) > 50 else 0, progress)
    listed: dict[str, list[Listed]] = {}
    for split, own in paths.items():
        listed[split] = []
        for path in own:
            content = files.read_json(path)
            listed[split].append(Listed(path, len(content["items"]), content["size"]))
        if not sum(group.count for group in listed[split]):
            raise UserError(f"--source={source!r}: has no image for the split {split!r}")
    return listed

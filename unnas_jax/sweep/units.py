"""Many independent units of work, each done once, by processes that may die at any time.

A unit leaves one file, in one step. A worker holds a lock on its unit's claim, which the operating
system releases when the process ends, however it ends: a claim never outlives a worker. Everything
is in files, so that engines, shards and machines that see one directory agree.

    units/NAME.json       what a finished unit found
    failures/NAME.json    why a unit failed, until the next start tries again
    claims/NAME           locked while somebody works on it
    scratch/NAME/         of a unit that is not finished
    logs/                 what workers print
"""

import contextlib
import dataclasses
import fcntl
import json
import logging
import os
import shutil
import socket
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

from unnas_jax.core import failures, files, reading
from unnas_jax.core.errors import UserError, one_line

_LOG = logging.getLogger("unnas_jax")


@dataclasses.dataclass(frozen=True)
class Unit:
    """A piece of work.

    Attributes:
      name: a relative path that tells it apart.
      task: what to do, for the function that does it; can be pickled.
      kind: units of one kind can be done jointly, see `Jointly`; empty: not with any other.
    """

    name: str
    task: Any
    kind: str = ""


Work = Callable[[Any, str], dict[str, Any] | None]
"""(a unit's task, its scratch directory) -> what to keep, in the types of JSON; None if a signal
asked it to stop. It continues what the scratch directory holds. A function of a module."""


@dataclasses.dataclass(frozen=True)
class Jointly:
    """How several units are done in one go.

    Attributes:
      work: (the units' tasks, their scratch directories) -> what to keep of each, as `Work`; None
        if a signal asked it to stop. What it continues depends on the units: the same ones again.
        If it raises, halves of the units are tried, and at last each by itself.
      most: how many units at most.
    """

    work: Callable[[Sequence[Any], Sequence[str]], Sequence[dict[str, Any]] | None]
    most: int


Outcome = Literal["finished", "failed", "busy", "stopped"]


@dataclasses.dataclass(frozen=True)
class Claim:
    """The process that works on a unit, and since when (seconds since 1970)."""

    host: str
    process: int
    since: float


def _insisting(action: Callable[[], None]) -> None:
    """Makes something in a folder that other processes may remove meanwhile, as it was empty.

    `os.makedirs` says that a folder exists when it did and is gone a moment later.
    """
    for _ in range(100):
        with contextlib.suppress(FileNotFoundError, FileExistsError):
            return action()
    action()


class Store:
    """The directory of a sweep."""

    def __init__(self, directory: str) -> None:
        self.directory = os.path.abspath(directory)

    def _path(self, kind: str, unit: Unit, suffix: str = "") -> str:
        return os.path.join(self.directory, kind, unit.name + suffix)

    def finished(self, unit: Unit) -> bool:
        """Whether its result is there."""
        return os.path.exists(self.result_path(unit))

    def failed(self, unit: Unit) -> bool:
        """Whether it failed since the last start."""
        return os.path.exists(self._path("failures", unit, ".json"))

    def settled(self, unit: Unit) -> bool:
        """Whether this start has nothing left to do for the unit."""
        return self.finished(unit) or self.failed(unit)

    def result(self, unit: Unit) -> dict[str, Any]:
        """The result of a finished unit."""
        value: dict[str, Any] = reading.document(
            self.result_path(unit), {str: object}, remedy="remove it and start again"
        )
        return value

    def result_path(self, unit: Unit) -> str:
        """The file with the result of a finished unit."""
        return self._path("units", unit, ".json")

    def reason(self, unit: Unit) -> str:
        """Why a unit failed, in one line."""
        try:
            path = self._path("failures", unit, ".json")
            return one_line(reading.document(path, {"reason": str, str: object})["reason"])
        except UserError:
            return "unknown"

    def finish(self, unit: Unit, document: dict[str, Any]) -> None:
        """Keeps a result, in one step, and removes the unit's scratch directory."""
        self._write("units", unit, document)
        self.tidy(unit)
        self.forget_failure(unit)

    def tidy(self, unit: Unit) -> None:
        """Removes the scratch directory of a finished unit, if its worker was killed before."""
        path = self._path("scratch", unit)
        if self.finished(unit) and os.path.exists(path):
            shutil.rmtree(path, ignore_errors=True)
            self._remove_empty("scratch", unit)

    def fail(self, unit: Unit, reason: str, details: str = "") -> None:
        """Notes that a unit failed; `reason` is one line."""
        self._write("failures", unit, {"reason": reason, "details": details, "at": time.time()})

    def forget_failure(self, unit: Unit) -> None:
        """Lets the unit be tried again."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path("failures", unit, ".json"))
        self._remove_empty("failures", unit)

    def _remove_empty(self, kind: str, unit: Unit) -> None:
        """Removes the folders below `kind` that are empty without a unit's file or folder."""
        folder = os.path.dirname(unit.name)
        while folder:
            try:
                os.rmdir(os.path.join(self.directory, kind, folder))
            except OSError:  # Not empty, or gone.
                return
            folder = os.path.dirname(folder)

    def _write(self, kind: str, unit: Unit, document: dict[str, Any]) -> None:
        path = self._path(kind, unit, ".json")

        def write() -> None:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            files.write_json(path, document)

        _insisting(write)

    def scratch(self, unit: Unit) -> str:
        """The directory of a unit that is not finished."""
        path = self._path("scratch", unit)
        _insisting(lambda: os.makedirs(path, exist_ok=True))
        return path

    @contextlib.contextmanager
    def claim(self, unit: Unit, *, wait: bool = False) -> Iterator[bool]:
        """A block in which nobody else works on the unit; false if somebody does.

        The file stays: removing it would let two processes lock two files of one name.

        Args:
          unit: the unit.
          wait: whether to wait for the process that has it.
        """
        path = self._path("claims", unit)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "a+", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
                return
            file.truncate(0)
            json.dump(
                dataclasses.asdict(Claim(socket.gethostname(), os.getpid(), time.time())), file
            )
            file.flush()
            yield True

    def claimed(self, unit: Unit) -> Claim | None:
        """The process that works on a unit, or that left it unfinished."""
        shape = {"host": str, "process": int, "since": float}
        try:
            value = reading.document(self._path("claims", unit), shape)
        except UserError:  # Nobody, or it is being written.
            return None
        return Claim(**{name: value[name] for name in shape})

    def running(self, unit: Unit) -> bool:
        """Whether somebody works on it now."""
        try:
            with reading.opened(self._path("claims", unit), reading.SMALL) as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except (OSError, ValueError):
            return False
        return False


def _one_line(error: BaseException) -> str:
    words = " ".join(str(error).split())
    text = words if isinstance(error, UserError) else f"{type(error).__name__}: {words}"
    return text if len(text) <= 300 else text[:297] + "..."


def process(store: Store, unit: Unit, work: Work, *, wait: bool = False) -> Outcome:
    """Does a unit unless it is done, and keeps its result or the reason why it failed.

    Args:
      store: the directory of the sweep.
      unit: what to do.
      work: how.
      wait: whether to wait for a process that works on it; otherwise returns "busy".

    Raises:
      OSError: the disk is full, which no other unit would survive either.
    """
    with store.claim(unit, wait=wait) as mine:
        if not mine:
            return "busy"
        # Only now: the last owner of the claim may have finished it.
        if store.settled(unit):
            return "failed" if store.failed(unit) else "finished"
        try:
            document = work(unit.task, store.scratch(unit))
        except Exception as error:
            if failures.is_full_disk(error):
                raise
            reason = _one_line(error)
            _LOG.warning("%s failed: %s", unit.name, reason)
            store.fail(unit, reason, traceback.format_exc())
            return "failed"
        if document is None:
            return "stopped"
        store.finish(unit, document)
        return "finished"


def groups(units: Sequence[Unit], most: int) -> list[list[Unit]]:
    """Units of one kind, up to so many in a group, in the order of each group's first unit.

    They depend on nothing but the arguments: who continues finds the same.
    """
    found: list[list[Unit]] = []
    open_ones: dict[str, list[Unit]] = {}
    for unit in units:
        group = open_ones.get(unit.kind)
        if not unit.kind or group is None or len(group) == most:
            group = []
            found.append(group)
            open_ones[unit.kind] = group
        group.append(unit)
    return found


def process_jointly(
    store: Store, group: Sequence[Unit], work: Work, jointly: Jointly | None
) -> Outcome:
    """Does the units of a group that are not done, in one go; as `process` otherwise.

    Who has the claim of the first unit has the group.
    """
    if len(group) == 1 or jointly is None:
        return process(store, group[0], work)
    with contextlib.ExitStack() as stack:
        if not stack.enter_context(store.claim(group[0])):
            return "busy"
        others = [unit for unit in group[1:] if not store.settled(unit)]
        claimed = [unit for unit in others if stack.enter_context(store.claim(unit))]
        left = [unit for unit in (group[0], *claimed) if not store.settled(unit)]
        if len(left) > 1:
            try:
                tasks, places = [unit.task for unit in left], [store.scratch(unit) for unit in left]
                documents = jointly.work(tasks, places)
            except Exception as error:
                if failures.is_full_disk(error):
                    raise
                _LOG.warning(
                    "%d units from %s on failed together (%s): they are tried in halves.",
                    len(left),
                    left[0].name,
                    _one_line(error),
                )
            else:
                if documents is None:
                    return "stopped"
                for unit, document in zip(left, documents, strict=True):
                    store.finish(unit, document)
                left = []
    outcomes: list[Outcome] = ["busy"] * (len(others) - len(claimed))
    middle = (len(left) + 1) // 2
    for half in (left[:middle], left[middle:]):
        if half:
            outcomes.append(process_jointly(store, half, work, jointly))
    return next((one for one in ("stopped", "busy", "failed") if one in outcomes), "finished")


def work_off(
    store: Store,
    units: Sequence[Unit],
    work: Work,
    poll: float = 1.0,
    jointly: Jointly | None = None,
) -> bool:
    """Does units, in order, until none is left; waits for those that others work on.

    The unit of a process that dies goes to one that waits.

    Args:
      store: the directory of the sweep.
      units: what to do.
      work: how.
      poll: seconds between looks at the units of others.
      jointly: how to do several at once; None: one after the other.

    Returns:
      whether it came to the end; False if a signal asked it to stop.
    """
    while True:
        busy = False
        for group in groups(units, jointly.most if jointly else 1):
            if all(store.settled(unit) for unit in group):
                continue
            outcome = process_jointly(store, group, work, jointly)
            if outcome == "stopped":
                return False
            busy |= outcome == "busy"
        if not busy:
            return True
        time.sleep(poll)


def shard(units: Sequence[Unit], text: str, group: int) -> list[Unit]:
    """Part i of n, `i/n` with i from 0, of units in groups that stay together.

    The parts are disjoint, cover all units, and depend on nothing but the arguments.
    """
    index, count = (int(word) for word in text.split("/"))
    return [unit for k, unit in enumerate(units) if k // group % count == index]

"""Every loader takes damaged and made-up files or refuses them, in one line, soon and cheaply."""

import contextlib
import gc
import os
import pathlib
import resource
from collections.abc import Iterator

import pytest

from tests.fuzzing import Run, bombs
from unnas_jax.core.errors import UserError

MEGABYTES = 700  # That all bombs together may add to this process.


@pytest.fixture
def run(tmp_path: pathlib.Path) -> Iterator[Run]:
    # Other tests leave a million objects in this process, which every collection would go through.
    gc.freeze()
    yield Run(tmp_path, seed=0)
    gc.unfreeze()


def test_sound_files_are_taken(run: Run) -> None:
    for name, loader in run.loaders.items():
        run.one(name, loader.content)
    assert all(outcome["taken"] for outcome in run.outcomes.values())


def test_damaged_files_are_taken_or_refused_in_one_line(run: Run) -> None:
    run.random(1500)
    assert run.outcomes.keys() == run.loaders.keys()


def test_bombs_are_refused_in_seconds_and_little_memory(run: Run) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for content in bombs().values():
        for name in run.loaders:
            run.one(name, content)
    added = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert added < MEGABYTES, f"{added:.0f} MB"


def test_pipes_and_devices_are_refused_at_once(run: Run) -> None:
    for name, loader in run.loaders.items():
        run.one(name, loader.content)
        path = run.folders[name] / loader.file
        path.unlink()
        os.mkfifo(path)
        with contextlib.suppress(UserError):
            loader.load(run.folders[name])
        path.unlink()
        path.symlink_to("/dev/zero")
        with contextlib.suppress(UserError):
            loader.load(run.folders[name])

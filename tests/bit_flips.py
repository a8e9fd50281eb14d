"""Single flipped bits in every file of a checkpoint, and what a run makes of them.

    python -m tests.bit_flips --flips=150 --seed=1

A tiny search saves two checkpoints, of the steps 4 and 8. Then a bit of the newer one is flipped,
in every file, at every byte or at so many random ones, and it is restored: by a reader, as
evaluations and exports do, and, if the file holds no arrays, one time in three by a writer, which
then saves a further checkpoint. Allowed is what was saved at step 8; what was saved at step 4, with
a line that says so; or an error of one line. Anything else ends the program.
"""

import argparse
import collections
import contextlib
import dataclasses
import io
import logging
import os
import pathlib
import random
import re
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import jax
from absl import logging as absl_logging

from tests import tiny
from unnas_jax.core.errors import Interruption, UserError
from unnas_jax.runs.checkpoint import Checkpoints
from unnas_jax.runs.search import search
from unnas_jax.runs.snapshot import on_host

OLDER, NEWER, NEXT = 4, 8, 12
LONGEST = 600  # Characters of a message.
SECONDS = 10.0  # Of processor time, for a restore.


def classes(checkpoint: pathlib.Path) -> dict[str, list[pathlib.Path]]:
    """The files of a checkpoint by what they are, whatever their random names."""
    found: dict[str, list[pathlib.Path]] = {}
    for path in sorted(checkpoint.rglob("*")):
        if path.is_file():
            name = re.sub(r"/[0-9a-f]{32}$", "/*", str(path.relative_to(checkpoint)))
            found.setdefault(name, []).append(path)
    return found


def make(workdir: pathlib.Path) -> None:
    """A search that saves the two checkpoints."""
    import cv2

    images = workdir.parent / "images"
    images.mkdir()
    for number, image in enumerate(tiny.upright(64, 20)):
        cv2.imwrite(str(images / f"{number:03d}.png"), image)
    config = tiny.config(epochs=2)
    config.dataset.update(name="folder", path=str(images))
    config.network.update(nodes=1, operations=("skip_connect", "avg_pool_3x3"))
    search(config, str(workdir))


def same(a: Any, b: Any) -> bool:
    """Whether two trees hold the same bits."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(
        x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == y.tobytes() for x, y in pairs
    )


@dataclasses.dataclass(frozen=True)
class Saved:
    """What is in the checkpoints of a workdir."""

    like: Any
    states: dict[int, Any]
    positions: dict[int, dict[str, Any]]


def read(workdir: pathlib.Path) -> Saved:
    """Restores both checkpoints while they are sound."""
    import orbax.checkpoint as ocp

    states, positions = {}, {}
    with ocp.CheckpointManager(workdir / "checkpoints") as manager:
        like = manager.restore(NEWER).state
    for step in (OLDER, NEWER):
        alone = workdir.parent / f"only{step}" / "checkpoints"
        shutil.copytree(workdir / "checkpoints" / str(step), alone / str(step))
        with Checkpoints(str(alone), read_only=True) as checkpoints:
            found = checkpoints.restore(like)
        assert found is not None
        states[step], positions[step] = on_host(found[0]), found[1]
    return Saved(like, states, positions)


@contextlib.contextmanager
def captured() -> Iterator[io.StringIO]:
    """What is logged, by anybody."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    loggers = [logging.getLogger(), absl_logging.get_absl_logger()]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield stream
    finally:
        for logger in loggers:
            logger.removeHandler(handler)


class Flips:
    """Restores damaged checkpoints and counts what became of them.

    Args:
      workdir: of `make`.
      scratch: an empty directory.
      seed: of positions and bits.
    """

    def __init__(self, workdir: pathlib.Path, scratch: pathlib.Path, seed: int) -> None:
        self.workdir, self.scratch, self.rng = workdir, scratch, random.Random(seed)
        self.saved = read(workdir)
        self.counts: dict[str, collections.Counter[str]] = {}

    def one(self, path: pathlib.Path, position: int, bit: int, *, write: bool) -> str:
        """What becomes of a flipped bit; `AssertionError` if it is not allowed."""
        pristine = path.read_bytes()
        data = bytearray(pristine)
        data[position] ^= 1 << bit
        path.write_bytes(bytes(data))
        where = f"{path.relative_to(self.workdir)}, byte {position}, bit {bit}, write={write}"
        began = time.process_time()
        try:
            with captured() as log:
                if write:
                    copy = self.scratch / "w"
                    shutil.copytree(self.workdir, copy)
                    outcome = self._outcome(copy, where, log, write=True)
                    shutil.rmtree(copy)
                else:
                    outcome = self._outcome(self.workdir, where, log, write=False)
        finally:
            path.write_bytes(pristine)
        assert "Traceback" not in log.getvalue(), (where, log.getvalue())
        assert time.process_time() - began < SECONDS, where
        return outcome

    def _outcome(self, workdir: pathlib.Path, where: str, log: io.StringIO, *, write: bool) -> str:
        try:
            with Checkpoints(str(workdir / "checkpoints"), read_only=not write) as checkpoints:
                found = checkpoints.restore(self.saved.like)
                assert found is not None, where
                state, position = on_host(found[0]), found[1]
                if write:
                    checkpoints.save(NEXT, state, {**position, "step": NEXT}, ranking=1.0)
                    checkpoints.wait()
                    again = checkpoints.restore(self.saved.like)
                    assert again and again[1]["step"] == NEXT and same(again[0], state), where
        except (UserError, Interruption) as error:
            assert str(error).isprintable() and len(str(error)) <= LONGEST, (where, str(error))
            return "refused"
        except Exception as error:
            raise AssertionError(where) from error
        step = position["step"]
        assert position == self.saved.positions.get(step), (where, position)
        assert same(state, self.saved.states[step]), f"{where}: other values"
        if step == OLDER:
            assert f"checkpoint of step {NEWER} is damaged" in log.getvalue(), (
                where,
                log.getvalue(),
            )
            return "the one before"
        return "as it was saved"

    def of_class(self, name: str, paths: list[pathlib.Path], flips: int) -> None:
        """Flips bits of the files of a class."""
        counts = self.counts.setdefault(name, collections.Counter())
        places = [(path, k) for path in paths for k in range(path.stat().st_size)]
        if len(places) > flips:
            # Also the first and the last bytes, which hold numbers of the format and checksums.
            ends = [place for place in places if not 16 <= place[1] < place[0].stat().st_size - 16]
            chosen = self.rng.sample(ends, min(len(ends), flips // 3))
            places = chosen + self.rng.sample(places, flips - len(chosen))
        for number, (path, position) in enumerate(places):
            counts[self.one(path, position, self.rng.randrange(8), write=False)] += 1
            if "/d/" not in name and number % 3 == 0:  # Which takes four times as long.
                self.one(path, position, self.rng.randrange(8), write=True)
                counts["written"] += 1

    def table(self) -> str:
        """The counts as Markdown."""
        outcomes = ("as it was saved", "the one before", "refused")
        lines = ["| file | flips | " + " | ".join(outcomes) + " |", "|---" * 5 + "|"]
        for name, counts in self.counts.items():
            numbers = [counts[outcome] for outcome in outcomes]
            lines.append(f"| `{name}` | {sum(numbers)} | " + " | ".join(map(str, numbers)) + " |")
        return "\n".join(lines)


def main() -> int:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--flips", type=int, default=150, help="in the files of a class")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    with tempfile.TemporaryDirectory() as folder:
        scratch = pathlib.Path(folder)
        make(scratch / "search")
        flips = Flips(scratch / "search", scratch, options.seed)
        began = time.process_time()
        for name, paths in classes(scratch / "search" / "checkpoints" / str(NEWER)).items():
            flips.of_class(name, paths, options.flips)
            print(name, dict(flips.counts[name]), flush=True)
        print(flips.table())
        total = sum(flips.counts.values(), collections.Counter[str]())
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(
            f"{total.total() - total['written']} flips, no wrong value and no other error; "
            f"{total['written']} more by writers; {time.process_time() - began:.0f} s of "
            f"processor time, at most {memory:.1f} GB"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())

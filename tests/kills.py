"""Real runs, killed at random moments, which must end as if nobody had touched them.

    python -m tests.kills --kind=search --kills=100 --seed=1

One run (of main.py, a tiny network on 64 tiny images) goes through undisturbed. Others of the same
config are killed by SIGKILL and started again until they end. Then their checkpoints must hold the
same bits, their metrics the same rows, their results the same values, and no file may be there
that the undisturbed run has not.

Starts cost more than steps. Therefore most are forked from this process, which has imported what a
run imports, and go on as main.py does; those that are killed during the start are new processes.
"""

import argparse
import collections
import importlib
import multiprocessing
import os
import pathlib
import random
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from typing import Any

from tests import outcomes

ROOT = pathlib.Path(__file__).resolve().parent.parent

KINDS = {"search": "tiny", "training": "tiny_training", "sweep": "tiny_sweep"}
EPOCHS, TOTAL = 24, 96  # Of a search or a training.
CELLS = [
    f"{first}:0,{second}:1+max_pool_3x3:0,skip_connect:1"
    for first, second in (
        ("skip_connect", "avg_pool_3x3"),
        ("none", "skip_connect"),
        ("max_pool_3x3", "skip_connect"),
    )
]
UNITS = 2 * len(CELLS)

# By a run; not here, because the environment says how jax is to start.
IMPORTED = ("unnas_jax.sweep.sample", "unnas_jax.runs.search")

MOMENTS = {"start": 2, "steps": 5, "saving": 5, "end": 3}
"""When a run is killed, and how often in proportion."""


def _settings(scratch: pathlib.Path) -> None:
    """The environment of the runs; before jax is imported."""
    os.environ.update(
        JAX_PLATFORMS="cpu",
        XLA_FLAGS="--xla_backend_optimization_level=0",
        JAX_COMPILATION_CACHE_DIR=str(scratch / "cache"),
        JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0",
        JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES="-1",
        PYTHONPATH=str(ROOT),
    )


def _images(folder: pathlib.Path) -> pathlib.Path:
    import cv2

    from tests import tiny

    for number, image in enumerate(tiny.upright(64, 20)):
        path = folder / "images" / ("above", "below")[number % 2] / f"{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), image if number % 2 else image[::-1])
    return folder / "images"


def _forked(action: Callable[[], Any]) -> Any:
    """What an action returns in a process of its own: this one must not start jax."""
    context = multiprocessing.get_context("fork")
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=lambda: sending.send(action()))
    process.start()
    sending.close()
    try:
        return receiving.recv()
    finally:
        process.join()


class Start:
    """A process that does what the command does.

    Args:
      arguments: of main.py.
      log: gets what it prints.
      forked: from this process, or a new one.
    """

    def __init__(self, arguments: list[str], log: pathlib.Path, *, forked: bool) -> None:
        self.began = time.monotonic()
        self._status: int | None = None
        with open(log, "ab") as output:
            if not forked:
                self.pid = subprocess.Popen(
                    [sys.executable, "main.py", *arguments],
                    cwd=ROOT,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                ).pid
                return
            self.pid = os.fork()
            if self.pid == 0:
                self._become(arguments, output.fileno())

    def _become(self, arguments: list[str], output: int) -> None:
        status = 70
        try:
            os.setsid()
            os.chdir(ROOT)
            os.dup2(output, 1)
            os.dup2(output, 2)
            sys.argv = ["main.py", *arguments]
            runpy.run_path("main.py", run_name="__main__")
        except SystemExit as error:
            status = error.code if isinstance(error.code, int) else int(error.code is not None)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)

    def ended(self) -> int | None:
        """Its exit status, if it has ended."""
        if self._status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._status = os.waitstatus_to_exitcode(status)
        return self._status

    def kill(self, victims: list[int]) -> None:
        """Kills some processes; returns when its own ended if it is among them."""
        for victim in victims:
            try:
                (os.killpg if victim == -self.pid else os.kill)(abs(victim), signal.SIGKILL)
            except ProcessLookupError:
                continue
        while {self.pid, -self.pid} & set(victims) and self.ended() is None:
            time.sleep(0.002)

    def workers(self) -> list[int]:
        """The processes of a sweep that it started to train."""
        children = pathlib.Path(f"/proc/{self.pid}/task/{self.pid}/children")
        try:
            pids = [int(word) for word in children.read_text().split()]
            return [
                pid
                for pid in pids
                if b"spawn_main" in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
            ]
        except (FileNotFoundError, ProcessLookupError):
            return []


class Killer:
    """Kills runs of a kind and compares what they leave."""

    def __init__(self, kind: str, scratch: pathlib.Path, seed: int) -> None:
        self.kind, self.scratch, self.rng = kind, scratch, random.Random(seed)
        self.images = _forked(lambda: _images(scratch))
        self.counts: collections.Counter[str] = collections.Counter()
        self.wrong: list[str] = []
        self.runs, self.began = 0, time.monotonic()
        # What an undisturbed run takes from its start to its first step, and from the last to its
        # end; and what it leaves. The first one only fills the cache of compiled programs.
        self.starting = self.stepping = self.ending = 0.0
        for name in ("undisturbed",) if (scratch / "cache").exists() else ("cold", "undisturbed"):
            self._undisturbed(scratch / name)
        self.expected = _forked(lambda: outcomes.outcome(scratch / "undisturbed"))

    def arguments(self, workdir: pathlib.Path) -> list[str]:
        """Of main.py; the operations are those that compile soonest."""
        cells = self.scratch / "cells.txt"
        cells.write_text("".join(f"{cell}\n" for cell in CELLS))
        of_kind = {
            "search": ["--config.network.operations=('skip_connect', 'avg_pool_3x3')"],
            "training": [f"--config.network.genotype={CELLS[0]}"],
            "sweep": [f"--config.sample.architectures={cells}"],
        }
        name = "training.dataset" if self.kind == "sweep" else "dataset"
        return [
            f"--config=tests/configs/{KINDS[self.kind]}.py",
            f"--config.{name}.path={self.images}",
            f"--workdir={workdir}",
            *of_kind[self.kind],
            *([] if self.kind == "sweep" else [f"--config.train.epochs={EPOCHS}"]),
        ]

    def _undisturbed(self, workdir: pathlib.Path) -> None:
        log = workdir.with_suffix(".log")
        start = Start(self.arguments(workdir), log, forked=False)
        first = last = None
        while start.ended() is None:
            now = time.monotonic()
            first = first or (now if _quietly(lambda: self._moved(workdir, 0)) else None)
            last = last or (now if _quietly(lambda: self._at_end(workdir)) else None)
            time.sleep(0.02)
        if start.ended() != 0 or not first or not last:
            raise SystemExit(f"the undisturbed run failed:\n{log.read_text()}")
        self.starting, self.stepping = first - start.began, last - first
        self.ending = time.monotonic() - last

    # What can be seen of a run from outside.

    def _units(self, workdir: pathlib.Path) -> int:
        return len(list(workdir.glob("units/*/*.json")))

    def _starts(self, workdir: pathlib.Path) -> int:
        return sum(row["kind"] == "start" for row in outcomes.rows(workdir))

    def _moved(self, workdir: pathlib.Path, starts: int) -> bool:
        """Whether steps were done after so many starts."""
        if self.kind == "sweep":
            metrics = [path.parent for path in workdir.glob("scratch/*/*/metrics.jsonl")]
            return any(
                outcomes.rows(folder) and outcomes.rows(folder)[-1]["kind"] != "start"
                for folder in metrics
            )
        found = outcomes.rows(workdir)
        return self._starts(workdir) > starts and found[-1]["kind"] != "start"

    def _saves(self, workdir: pathlib.Path) -> bool:
        if self.kind == "sweep":  # The last evaluation of a unit: its file is next.
            paths = [p.parent for p in workdir.glob("scratch/*/*/result.json")]
            return any('"finished": true' in (p / "result.json").read_text() for p in paths)
        return any("tmp" in path.name for path in workdir.glob("checkpoints/*"))

    def _at_end(self, workdir: pathlib.Path) -> bool:
        if self.kind == "sweep":
            return self._units(workdir) == UNITS
        found = outcomes.rows(workdir)
        return bool(found) and found[-1]["kind"] == "validation" and found[-1]["step"] == TOTAL

    def _near_end(self, workdir: pathlib.Path) -> bool:
        if self.kind == "sweep":
            return self._units(workdir) >= UNITS - 1
        return max([row["step"] for row in outcomes.rows(workdir)], default=0) > TOTAL * 2 / 3

    def _saved(self, workdir: pathlib.Path) -> bool:
        """Whether there is something to lose."""
        steps = [p for p in workdir.glob("checkpoints/*") if p.name.isdecimal()]
        return bool(steps) or self._units(workdir) > 0

    # The kills.

    def _victims(self, start: Start) -> list[int]:
        if self.kind != "sweep":
            return [-start.pid]
        workers = start.workers()
        return self.rng.choice([[-start.pid], [start.pid], workers, workers]) or [-start.pid]

    def _kill_once(self, start: Start, workdir: pathlib.Path, starts: int, moment: str) -> bool:
        """Waits for a moment and kills; False if the run ended before."""
        conditions = {
            "start": (lambda: True, self.starting),
            "steps": (lambda: self._moved(workdir, starts), self.stepping / 6),
            "saving": (lambda: self._saves(workdir), self.rng.choice((0.002, 0.02, 0.2))),
            "end": (lambda: self._at_end(workdir), self.ending),
        }
        condition, delay = conditions[moment]
        for _ in range(self.rng.randrange(1, 5) if moment == "saving" else 1):
            while not _quietly(condition):
                if start.ended() is not None:
                    return False
                time.sleep(0.003 if moment == "saving" else 0.02)
            time.sleep(0.003)
        time.sleep(self.rng.uniform(0, delay))
        victims = self._victims(start)
        if start.ended() is not None:
            return False
        self.counts["after a checkpoint or a unit"] += self._saved(workdir)
        start.kill(victims)
        self.counts["of a worker alone"] += self.kind == "sweep" and start.pid not in map(
            abs, victims
        )
        self.counts[moment] += 1
        self.counts["all"] += 1
        return True

    def run(self, kills: int, moments: list[str], minutes: float) -> None:
        """Kills a run until it ends, then compares; the next one, until there were enough.

        Args:
          kills: how many.
          moments: of `MOMENTS`.
          minutes: after which nothing more is killed; the last run ends and is compared.
        """
        weights = [MOMENTS[name] for name in moments]

        def done() -> bool:
            late = time.monotonic() - self.began > 60 * minutes
            return late or self.counts["all"] >= kills

        while not done():
            self.runs += 1
            workdir = self.scratch / f"run{self.runs}"
            log = workdir.with_suffix(".log")
            ended = None
            while ended is None:
                [moment] = self.rng.choices(moments, weights)
                if moment == "end" and len(moments) > 1 and not self._near_end(workdir):
                    moment = "steps"
                starts = self._starts(workdir)
                start = Start(self.arguments(workdir), log, forked=moment != "start")
                while not done() and self._kill_once(start, workdir, starts, moment):
                    if start.ended() is not None:
                        break  # Else a worker was killed, and the run goes on.
                    moment = self.rng.choice(("steps", "saving"))
                while start.ended() is None:
                    time.sleep(0.01)
                ended = None if start.ended() == -signal.SIGKILL else start.ended()
            self._compare(workdir, log, ended)

    def _compare(self, workdir: pathlib.Path, log: pathlib.Path, status: int) -> None:
        before = len(self.wrong)
        text = log.read_text(errors="replace")
        if status or "Traceback" in text:
            self.wrong.append(f"{workdir.name}: status {status}: {text[-3000:]}")
        found = _forked(lambda: outcomes.outcome(workdir))
        for key in sorted(self.expected.keys() | found.keys()):
            a, b = self.expected.get(key), found.get(key)
            if a != b:
                self.wrong.append(f"{workdir.name}: {key}: {outcomes.difference(a, b)}")
        if len(self.wrong) == before:
            shutil.rmtree(workdir)
        print("\n".join([*self.wrong[before:], self.summary()]), flush=True)

    def summary(self) -> str:
        """What was done until now."""
        counts = self.counts
        moments = ", ".join(f"{counts[name]} {name}" for name in MOMENTS)
        return (
            f"{self.kind}: {counts['all']} kills ({moments}; {counts['of a worker alone']} of a "
            f"worker alone; {counts['after a checkpoint or a unit']} after a checkpoint or a "
            f"unit), {self.runs} runs, {len(self.wrong)} differences, "
            f"{time.monotonic() - self.began:.0f} s"
        )


def _quietly(condition: Callable[[], bool]) -> bool:
    """A condition on files that may vanish while they are looked at."""
    try:
        return condition()
    except (OSError, ValueError):
        return False


def main() -> int:
    """Prints a row of a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kind", choices=KINDS, required=True)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", help="a directory for what differs; default: a temporary one")
    parser.add_argument("--minutes", type=float, default=1e9, help="kill nothing after so many")
    parser.add_argument("--moments", nargs="*", choices=MOMENTS, default=list(MOMENTS))
    options = parser.parse_args()
    scratch = pathlib.Path(options.keep or tempfile.mkdtemp(prefix="kills")).absolute()
    scratch.mkdir(parents=True, exist_ok=True)
    _settings(scratch)
    for name in IMPORTED:
        importlib.import_module(name)
    killer = Killer(options.kind, scratch, options.seed)
    killer.run(options.kills, options.moments, options.minutes)
    if not killer.wrong and not options.keep:
        shutil.rmtree(scratch)
    return int(bool(killer.wrong))


if __name__ == "__main__":
    sys.exit(main())

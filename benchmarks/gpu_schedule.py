"""What a benchmark with little time needs: a clock, a report that survives, programs in rounds.

Everything that is measured is a `Row`. Rows come in rounds: a round's programs are compiled at once
in threads, then its rows are measured one after the other. A program that takes too long does not
hold up the others: its row is measured when it is ready. What was measured while programs compiled
says so, and is measured again at the end if there is time.
"""

import dataclasses
import gc
import json
import os
import pathlib
import queue
import statistics
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax

_MARGIN = 5.0  # Seconds before the limit in which nothing is begun.
_ROUND = 0.25  # Of the whole time, what a round waits for its programs at most.

NOT_TUNED = {"xla_gpu_autotune_level": 0}
"""XLA's options that spare it trying out algorithms on the GPU: sooner compiled, maybe slower."""


class Clock:
    """Seconds that are left of a limit."""

    def __init__(self, seconds: float, start: float) -> None:
        self._end, self._start, self.total = start + seconds, start, seconds

    def left(self) -> float:
        """Until the limit, in seconds."""
        return self._end - time.monotonic()

    def now(self) -> float:
        """Since the start, in seconds."""
        return round(time.monotonic() - self._start, 1)


class Report:
    """A JSON file that is whole and up to date after every `put`."""

    def __init__(self, path: pathlib.Path) -> None:
        self.content: dict[str, Any] = {}
        self._path, self._lock = path, threading.RLock()
        path.parent.mkdir(parents=True, exist_ok=True)

    def put(self, keys: Sequence[str], value: Any) -> None:
        """Sets a value, by its keys from the outside in, and writes the file."""
        with self._lock:
            place = self.content
            for key in keys[:-1]:
                place = place.setdefault(key, {})
            place[keys[-1]] = value
            text = json.dumps(self.content, indent=1)
            temporary = self._path.with_suffix(".part")
            temporary.write_text(text + "\n", encoding="utf-8")
            os.replace(temporary, self._path)


class Program:
    """A program that is compiled in a thread.

    Attributes:
      compiled: None until it is done.
      facts: `trace_s`, `compile_s`, `flops` (as XLA counts the operations before it replaces
        them), `bytes_accessed` and `planned_bytes`; or `error`.
    """

    def __init__(
        self,
        name: str,
        lower: Callable[[], jax.stages.Lowered],
        options: dict[str, Any] | None = None,
    ) -> None:
        """A program's name, how it is traced, and XLA's options for it."""
        self.name, self.compiled = name, None
        self.ended, self.begun = threading.Event(), False
        self.facts: dict[str, Any] = {}
        self._lower, self._options = lower, options

    compiled: Any

    def compile(self, tracing: threading.Lock) -> None:
        """Does the work; never raises."""
        self.begun = True
        try:
            with tracing:  # Python traces one at a time anyway; so the first is ready first.
                start = time.monotonic()
                lowered = self._lower()
                self.facts["trace_s"] = round(time.monotonic() - start, 2)
            start = time.monotonic()
            compiled: Any = lowered.compile(compiler_options=self._options)
            self.facts["compile_s"] = round(time.monotonic() - start, 2)
            plan, cost = compiled.memory_analysis(), compiled.cost_analysis() or {}
            self.facts |= {
                "flops": _flops(lowered) or cost.get("flops"),
                "bytes_accessed": cost.get("bytes accessed"),
                "planned_bytes": plan.argument_size_in_bytes
                + plan.output_size_in_bytes
                + plan.temp_size_in_bytes
                - plan.alias_size_in_bytes,
            }
            self.compiled = compiled
        except Exception as error:  # What else goes wrong concerns this program alone.
            self.facts["error"] = one_line(error)
        finally:
            self.ended.set()


def _flops(lowered: Any) -> float | None:
    """Before the compilation: library calls, which GPUs' convolutions become, have no count."""
    try:
        return float((lowered.cost_analysis() or {})["flops"])
    except Exception:
        return None


def one_line(error: BaseException) -> str:
    """An exception as one line of limited length."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:400]


class Compiler:
    """Daemon threads that compile programs in the order in which they are added."""

    def __init__(self, threads: int) -> None:
        self._queue: queue.SimpleQueue[Program] = queue.SimpleQueue()
        self._added: list[Program] = []
        self._tracing = threading.Lock()
        for _ in range(threads):
            threading.Thread(target=self._work, daemon=True).start()

    def _work(self) -> None:
        while True:
            self._queue.get().compile(self._tracing)

    def add(self, programs: Iterable[Program]) -> None:
        """Adds programs that are not added yet."""
        for program in programs:
            if program not in self._added:
                self._added.append(program)
                self._queue.put(program)

    def running(self) -> int:
        """How many programs are being compiled."""
        return sum(p.begun and not p.ended.is_set() for p in self._added)


@dataclasses.dataclass
class Row:
    """Something to measure.

    Attributes:
      keys: where its result goes in the report.
      programs: what must be compiled before.
      measure: () -> the result; called when the programs are.
      seconds: what measuring takes, roughly.
    """

    keys: tuple[str, ...]
    programs: list[Program]
    measure: Callable[[], dict[str, Any]]
    seconds: float = 3.0


def run_rounds(
    rounds: Iterable[Sequence[Row]], clock: Clock, report: Report, compiler: Compiler
) -> None:
    """Measures rows round by round until the time is up; every row gets a result or a reason.

    A generator of rounds can look at the report before it yields the next one.
    """
    late: list[Row] = []
    disturbed: list[Row] = []

    def measure(row: Row) -> None:
        if _measure(row, clock, report, compiler):
            disturbed.append(row)

    for number, fresh in enumerate(rounds):
        programs = list(dict.fromkeys(p for row in fresh for p in row.programs))
        begun = clock.now()
        compiler.add(programs)
        measuring = sum(row.seconds for row in fresh)
        _wait(programs, min(_ROUND * clock.total, clock.left() - measuring - _MARGIN))
        report.put(("rounds", str(number)), {"begun_s": begun, "compiled_s": clock.now()})
        rows, late = [*late, *fresh], []
        for row in rows:
            if all(p.ended.is_set() for p in row.programs):
                measure(row)
            else:
                late.append(row)
    while late:
        ready = [row for row in late if all(p.ended.is_set() for p in row.programs)]
        if not ready and clock.left() > late[0].seconds + _MARGIN:
            time.sleep(0.2)
            continue
        row = ready[0] if ready else late[0]
        late.remove(row)
        measure(row)
    for row in disturbed:
        if clock.left() > row.seconds + _MARGIN and not compiler.running():
            _measure(row, clock, report, compiler)


def _wait(programs: Sequence[Program], seconds: float) -> None:
    end = time.monotonic() + seconds
    for program in programs:
        program.ended.wait(max(0.0, end - time.monotonic()))


def _measure(row: Row, clock: Clock, report: Report, compiler: Compiler) -> bool:
    """Puts a row's result, or why there is none; whether programs compiled meanwhile."""
    failed = [p.facts["error"] for p in row.programs if "error" in p.facts]
    if failed:
        report.put(row.keys, {"error": failed[0]})
        return False
    if not all(p.ended.is_set() for p in row.programs) or clock.left() < row.seconds + _MARGIN:
        report.put(row.keys, {"skipped": "time"})
        return False
    compiling, begun = compiler.running(), clock.now()
    try:
        result: dict[str, Any] = row.measure()
    except Exception as error:
        result = {"error": one_line(error)}
        gc.collect()  # Arrays that the traceback held.
    if compiling:
        result["compiling_meanwhile"] = compiling
    report.put(row.keys, result | {"measured_at_s": begun})
    print(f"{clock.now():6.1f} s  {'/'.join(row.keys)}: {str(result)[:160]}", flush=True)
    return compiling > 0


def timed(step: Callable[[], Any], wait: Callable[[Any], Any], seconds: float) -> dict[str, Any]:
    """The time of a step that returns before it is done, in milliseconds.

    Args:
      step: begins one and returns its result.
      wait: returns when a result is there.
      seconds: to spend on it, roughly.

    Returns:
      `ms`, the median over blocks of several steps; `spread`, of the blocks' (maximum - minimum) /
      median; `dispatch_ms`, until a step has returned; `steps`, how many were timed.
    """
    wait(step())
    start = time.perf_counter()
    wait(step())
    once = time.perf_counter() - start
    together = max(1, min(20, int(0.15 / once)))
    blocks = max(3, min(9, int(seconds / (once * together))))
    times, dispatches = [], []
    for _ in range(blocks):
        start = time.perf_counter()
        result = None
        for _ in range(together):
            result = step()
        dispatches.append((time.perf_counter() - start) / together)
        wait(result)
        times.append((time.perf_counter() - start) / together)
    middle = statistics.median(times)
    return {
        "ms": round(1e3 * middle, 3),
        "spread": round((max(times) - min(times)) / middle, 3),
        "dispatch_ms": round(1e3 * statistics.median(dispatches), 3),
        "steps": blocks * together,
    }

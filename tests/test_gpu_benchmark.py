"""The benchmark of GPUs at toy size on a CPU, and its schedule with programs that are none."""

import json
import pathlib
import threading
import types
from collections.abc import Iterable, Iterator

import jax
import numpy as np
import pytest

from benchmarks import gpu, gpu_networks, gpu_schedule, gpu_search, profile_summary
from benchmarks.gpu_schedule import Clock, Compiler, Program, Report, Row


def _program(
    name: str = "double",
    wait: threading.Event | None = None,
    error: str = "",
    begun: threading.Event | None = None,
) -> Program:
    def lower() -> jax.stages.Lowered:
        if error:
            raise ValueError(error)
        if begun is not None:
            begun.set()
        if wait is not None:
            wait.wait(600)
        return jax.jit(lambda x: 2.0 * x).lower(jax.ShapeDtypeStruct((3,), np.float32))

    return Program(name, lower)


def _run(rounds: Iterable[list[Row]], path: pathlib.Path, seconds: float = 3600.0) -> dict:
    report = Report(path / "gpu.json")
    clock = Clock(seconds, gpu_schedule.time.monotonic())
    gpu_schedule.run_rounds(rounds, clock, report, Compiler(2))
    return json.loads((path / "gpu.json").read_text())


def test_a_failure_is_one_line_and_the_rest_goes_on(tmp_path: pathlib.Path) -> None:
    good, bad = _program(), _program(error="no such\nlayout")

    def fail() -> dict:
        raise MemoryError("out of\nmemory")

    def double() -> dict:
        return {"value": float(good.compiled(np.float32([1, 2, 3]))[2])}

    found = _run(
        [
            [
                Row(("a", "not compiled"), [bad], double),
                Row(("a", "not measured"), [good], fail),
                Row(("a", "good"), [good], double),
            ]
        ],
        tmp_path,
    )["a"]
    assert found["not compiled"] == {"error": "ValueError: no such layout"}
    assert found["not measured"]["error"] == "MemoryError: out of memory"
    assert found["good"]["value"] == 6.0


def test_rows_without_time_say_so(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that moves only where the schedule waits."""
    now = 0.0

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    clock = types.SimpleNamespace(monotonic=lambda: now, sleep=sleep)
    monkeypatch.setattr(gpu_schedule, "time", clock)
    monkeypatch.setattr(gpu_schedule, "_ROUND", 0.0)
    never = threading.Event()
    rows = [
        Row(("long",), [], lambda: {"ran": True}, seconds=1000.0),
        Row(("stuck",), [program := _program(wait=never)], lambda: {"ran": True}),
        Row(("short",), [], lambda: {"ran": True}, seconds=0.1),
    ]
    found = _run([rows], tmp_path, seconds=10.0)
    never.set()
    assert program.ended.wait(600)  # It compiles after all, but not during other tests.
    assert found["long"] == found["stuck"] == {"skipped": "time"}
    assert found["short"]["ran"]


def test_a_slow_program_holds_up_no_other_and_is_measured_when_ready(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_schedule, "_ROUND", 0.0)
    begun, ready, order = threading.Event(), threading.Event(), []

    def measure(name: str) -> dict:
        order.append(name)
        if name == "second round":
            ready.set()
        return {}

    def rounds() -> Iterator[list[Row]]:
        yield [Row(("slow",), [_program(wait=ready, begun=begun)], lambda: measure("slow"))]
        assert begun.wait(600)
        yield [Row(("second round",), [], lambda: measure("second round"))]

    found = _run(rounds(), tmp_path)
    # What was measured while another compiled is measured again.
    assert order == ["second round", "slow", "second round"]
    assert "compiling_meanwhile" not in found["second round"]


def test_the_report_is_whole_after_every_row(tmp_path: pathlib.Path) -> None:
    report = Report(tmp_path / "out" / "gpu.json")
    for keys in (("a", "b"), ("a", "c")):
        report.put(keys, 1)
        assert json.loads((tmp_path / "out" / "gpu.json").read_text()) == report.content
    assert report.content == {"a": {"b": 1, "c": 1}}


def test_timed_is_the_time_of_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 20 ms, of which 5 pass before it returns, by a clock that nothing else moves."""
    now, left = 0.0, 0.0

    def step() -> None:
        nonlocal now, left
        now, left = now + 0.005, left + 0.015

    def wait(_: None) -> None:
        nonlocal now, left
        now, left = now + left, 0.0

    clock = types.SimpleNamespace(perf_counter=lambda: now)
    monkeypatch.setattr(gpu_schedule, "time", clock)
    found = gpu_schedule.timed(step, wait, 0.9)
    assert found == {"ms": 20.0, "spread": 0.0, "dispatch_ms": 5.0, "steps": 42}


def test_summary_of_a_trace() -> None:
    def event(name: str, operation: str, start: float, duration: float) -> types.SimpleNamespace:
        stats = [("hlo_op", operation)]
        return types.SimpleNamespace(name=name, stats=stats, start_ns=start, duration_ns=duration)

    # Two steps of two kernels, in nanoseconds.
    stream = types.SimpleNamespace(
        name="Stream #7(Compute)",
        events=[
            event("cudnn_wgrad", "custom-call.1", 0, 3e6),
            event("loop_add_fusion_1", "add_fusion.1", 3e6, 1e6),
            event("cudnn_wgrad", "custom-call.2", 6e6, 3e6),
            event("loop_add_fusion_2", "add_fusion.2", 9e6, 1e6),
        ],
    )
    other = types.SimpleNamespace(name="XLA Ops", events=stream.events)  # The same once more.
    device = types.SimpleNamespace(name="/device:GPU:0", lines=[stream, other])
    found = profile_summary.summarise(types.SimpleNamespace(planes=[device]), steps=2)
    assert found["kernels"] == 2
    assert (found["busy_ms"], found["wall_ms"]) == (4.0, 5.0)
    assert found["by_kind"] == {"convolution": 3.0, "elementwise": 1.0}
    assert found["top_kernels"][0] == {"name": "cudnn_wgrad", "ms": 3.0, "calls": 1.0}
    assert found["top_operations"][1] == {"name": "add_fusion", "ms": 1.0, "calls": 1.0}


def test_projected_hours_are_the_recipe_s_steps() -> None:
    form = {"weights": {"ms": 30.0}, "alphas": {"ms": 20.0}, "step": {"ms": 55.0}}
    found = gpu_search.projection({"supernet": {"rot": {"batch x1": {"dense": form}}}})
    # 20,018 steps an epoch (README): two epochs of weights and updates, one of alphas.
    expected = (40_036 * (30.0 + 5.0) + 20_018 * 20.0) / 3.6e6
    assert found == {"batch x1": {"dense": pytest.approx(expected, abs=1e-3)}}


@pytest.mark.parametrize(
    ("tuned", "not_tuned", "expected"),
    [
        ({"compile_s": 50.0}, {"compile_s": 20.0}, True),
        ({"compile_s": 90.0}, {"compile_s": 20.0}, False),
        ({"skipped": "time"}, {"compile_s": 20.0}, False),
        ({"skipped": "time"}, {"error": "no algorithm"}, True),
    ],
)
def test_all_programs_are_tuned_if_that_is_quick_or_nothing_else_works(
    tuned: dict, not_tuned: dict, expected: bool
) -> None:
    forms = {"dense": {"weights": tuned}, "dense, not tuned": {"weights": not_tuned}}
    content = {"supernet": {"rot": {"batch x1": forms}}}
    assert gpu_search.is_tuning_quick(content, 84.0) is expected


def test_toy_run_leaves_results_of_its_sections(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_READY_S", "_ANSWER_S"):  # Of processes that are started and compile.
        monkeypatch.setattr(gpu_networks, name, 600.0)
    sections = "--only=ceilings,agreement,profile,shared_device"
    assert gpu.main([f"--out={tmp_path}", "--tiny", "--minutes=600", "--threads=2", sections]) == 0
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert found["ended"].startswith("after")
    assert "broken" not in found
    assert found["ceilings"]["copy_gb_per_s"] > 0
    assert found["agreement"]["float32_agrees"], found["agreement"]
    rows = found["agreement"]["rows"]
    # bfloat16 keeps 8 bits: near, but not the same.
    assert 0 < rows["cpu/dense/bfloat16"]["loss_error"] < 0.05
    summary = found["profile"]["dense, not tuned"]
    assert summary["kernels"] > 100
    assert summary["busy_ms"] > 0
    assert (tmp_path / "profile" / "rot_dense_not_tuned.xplane.pb.gz").stat().st_size > 0
    assert found["shared_device"]["2 processes"]["images_per_s"] > 0


def test_unknown_section_is_refused(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        gpu.main([f"--out={tmp_path}", "--only=supernets"])
    assert "--only=supernets: no such section; use some of" in capsys.readouterr().err

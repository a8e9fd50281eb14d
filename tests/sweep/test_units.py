"""Sweeps of trivial units: workers are killed, units fail, two starts run at once."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from tests import sweep_work
from tests.conftest import ROOT
from unnas_jax.core import memory
from unnas_jax.core.errors import UserError
from unnas_jax.sweep import local_engine
from unnas_jax.sweep import units as sweep
from unnas_jax.sweep.units import Store, Unit


def units(directory, count: int, **more) -> list[Unit]:
    names = [f"group{k // 2}/unit{k}" for k in range(count)]
    return [Unit(n, {"directory": str(directory), "name": n, **more}) for n in names]


def run(store, todo, work=sweep_work.plain, workers=2, attempts=3) -> bool:
    return local_engine.run(
        store, todo, work, [{}] * workers, attempts=attempts, report=lambda: None
    )


def check_each_once(directory, todo) -> None:
    """Every unit was done, and none twice."""
    done = [name for word, name in sweep_work.words(directory) if word == "done"]
    assert sorted(done) == sorted(unit.name for unit in todo)


def began(directory) -> list[str]:
    """The units that were begun, in order."""
    return [name for word, name in sweep_work.words(directory) if word == "began"]


def test_killed_workers_lose_and_repeat_nothing(tmp_path):
    store, todo = Store(tmp_path / "w"), units(tmp_path, 12, held=True)
    killed = set()

    def kill() -> None:
        """Kills both workers, each in the middle of a unit."""
        sweep_work.wait_for(lambda: len(began(tmp_path)) == 2)
        killed.update(store.claimed(unit).process for unit in todo if store.running(unit))
        for process in killed:
            os.kill(process, signal.SIGKILL)
        sweep_work.allow(tmp_path)

    killer = threading.Thread(target=kill)
    killer.start()
    assert run(store, todo)
    killer.join()
    assert len(killed) == 2
    check_each_once(tmp_path, todo)
    assert len(began(tmp_path)) == len(todo) + 2  # What was killed began again, nothing else.
    assert all(store.result(unit)["name"] == unit.name for unit in todo)
    assert not list((tmp_path / "w" / "scratch").iterdir())


def test_a_second_start_does_only_what_is_missing(tmp_path):
    store, todo = Store(tmp_path / "w"), units(tmp_path, 3)
    for unit in todo[:2]:
        assert sweep.process(store, unit, sweep_work.plain) == "finished"
    os.unlink(tmp_path / "w" / "units" / f"{todo[0].name}.json")
    assert sweep.work_off(store, todo, sweep_work.plain)
    assert began(tmp_path) == [todo[0].name, todo[1].name, todo[0].name, todo[2].name]


def test_empty_folders_go_while_others_are_made(tmp_path):
    """Two units of a group: one ends, and removes their folder, while the other one begins."""
    store, (one, other) = Store(tmp_path / "w"), units(tmp_path, 2)
    errors = []

    def work(unit: Unit) -> None:
        try:
            for _ in range(200):
                store.scratch(unit)
                store.fail(unit, "no luck")
                store.finish(unit, {})
        except OSError as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(unit,)) for unit in (one, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    for kind in ("scratch", "failures"):
        assert not list((tmp_path / "w" / kind).iterdir())


def test_a_folder_that_goes_while_it_is_looked_at(tmp_path, monkeypatch):
    """It was there when `mkdir` was called, and is gone when `os.makedirs` looks for it."""
    store, (unit, _) = Store(tmp_path / "w"), units(tmp_path, 2)
    mkdir, seen = os.mkdir, set()

    def was_there(path, *args, **kwargs):
        if path not in seen:
            seen.add(path)
            raise FileExistsError(17, "File exists", path)
        mkdir(path, *args, **kwargs)

    monkeypatch.setattr(os, "mkdir", was_there)
    assert os.path.isdir(store.scratch(unit))
    store.fail(unit, "no luck")
    assert store.failed(unit)


def test_two_starts_at_once_share_the_units(tmp_path):
    store, todo = Store(tmp_path / "w"), units(tmp_path, 8, held=True)
    code = (
        "from tests import sweep_work; from tests.sweep import test_units; "
        "from unnas_jax.sweep import units as sweep; import sys;"
        "todo = test_units.units(sys.argv[1], 8, held=True);"
        "sweep.work_off(sweep.Store(sys.argv[1] + '/w'), todo, sweep_work.plain)"
    )
    other = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT)

    def allow() -> None:
        """Once both are at work."""
        sweep_work.wait_for(lambda: len(began(tmp_path)) == 2)
        sweep_work.allow(tmp_path)

    sweep_work.wait_for(lambda: began(tmp_path) or other.poll() is not None)
    assert other.poll() is None
    allowing = threading.Thread(target=allow)
    allowing.start()
    assert sweep.work_off(store, todo, sweep_work.plain, poll=0.05)
    allowing.join()
    assert other.wait(600) == 0
    check_each_once(tmp_path, todo)
    assert len({store.result(unit)["process"] for unit in todo}) == 2


def test_a_stopped_sweep_takes_its_workers_along_and_goes_on(tmp_path):
    store, todo = Store(tmp_path / "w"), units(tmp_path, 3, held=True)
    code = (
        "from tests import sweep_work; from tests.sweep import test_units; "
        "from unnas_jax.sweep import units as sweep; import sys;"
        "todo = test_units.units(sys.argv[1], 3, held=True);"
        "store = sweep.Store(sys.argv[1] + '/w');"
        "sys.exit(0 if test_units.run(store, todo, workers=1) else 75)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT)
    sweep_work.wait_for(lambda: began(tmp_path) or parent.poll() is not None)
    parent.terminate()
    assert parent.wait(600) == 75
    assert not any(store.running(unit) for unit in todo)
    assert not any(store.finished(unit) for unit in todo)
    sweep_work.allow(tmp_path)
    assert sweep.work_off(store, todo, sweep_work.plain)
    check_each_once(tmp_path, todo)


def test_failures_cost_only_their_unit_and_are_tried_again(tmp_path):
    store, todo = Store(tmp_path / "w"), units(tmp_path, 4)
    moods = ("raises", "dies", "continues", "works")
    todo = [Unit(u.name, {**u.task, "mood": m}) for u, m in zip(todo, moods, strict=True)]
    assert run(store, todo, sweep_work.moody, workers=1, attempts=2)
    assert [store.finished(unit) for unit in todo] == [False, False, True, True]
    assert store.reason(todo[0]) == "ValueError: no such luck"
    assert store.reason(todo[1]) == "its worker died 2 times, at last with signal 9"
    assert store.result(todo[2]) == {"continued": True}
    died = [name for word, name in sweep_work.words(tmp_path) if word == "died"]
    assert died == [todo[1].name] * 2
    # Until somebody starts again, which forgets the failures, nobody tries.
    assert sweep.process(store, todo[0], sweep_work.plain) == "failed"
    store.forget_failure(todo[0])
    assert sweep.process(store, todo[0], sweep_work.plain) == "finished"


def test_a_full_disk_ends_the_sweep(tmp_path):
    store = Store(tmp_path / "w")
    todo = [Unit("a/b", {"mood": "full"})]
    with pytest.raises(OSError, match="No space left"):
        run(store, todo, sweep_work.moody, workers=1)
    assert not store.settled(todo[0])


def test_workers_that_cannot_start_end_in_one_line(tmp_path):
    # A task that cannot be read in the worker: it dies before it takes a unit.
    todo = [Unit("a/b", Unreadable())]
    with pytest.raises(UserError, match="workers die .* before they take a unit"):
        run(Store(tmp_path / "w"), todo, sweep_work.plain, workers=1)


class Unreadable:
    def __reduce__(self):
        return os._exit, (3,)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_shards_are_a_partition_and_keep_groups(tmp_path, count):
    todo = units(tmp_path, 12)
    parts = [sweep.shard(todo, f"{k}/{count}", 2) for k in range(count)]
    assert sorted(u.name for part in parts for u in part) == sorted(u.name for u in todo)
    groups = [{unit.name.split("/")[0] for unit in part} for part in parts]
    assert sum(map(len, groups)) == 6


def test_places_of_a_machine(monkeypatch):
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    places = local_engine.slots("gpu", 2, workers_per_device=2, cores_per_worker=1)
    assert [place["CUDA_VISIBLE_DEVICES"] for place in places] == ["4", "4", "7", "7"]
    assert {place["XLA_PYTHON_CLIENT_MEM_FRACTION"] for place in places} == {"0.450"}
    places = local_engine.slots("tpu", 4, workers_per_device=2, cores_per_worker=1)
    assert [place["TPU_VISIBLE_CHIPS"] for place in places] == ["0", "1", "2", "3"]
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    places = local_engine.slots("cpu", 1, workers_per_device=1, cores_per_worker=3)
    cores = [set(place["UNNAS_WORKER_CORES"].split(",")) for place in places]
    assert {place["GLIBC_TUNABLES"] for place in places} == {memory.TUNABLES}
    assert all("--xla_backend_optimization_level=0" in place["XLA_FLAGS"] for place in places)
    monkeypatch.setenv("GLIBC_TUNABLES", "")
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=false")
    (place, *_) = local_engine.slots("cpu", 1, workers_per_device=1, cores_per_worker=1)
    given, effort, *_, parts = place["XLA_FLAGS"].split()
    assert given == "--xla_cpu_enable_fast_math=false" and place["GLIBC_TUNABLES"] == ""
    assert effort == "--xla_backend_optimization_level=1"
    assert parts == "--xla_cpu_parallel_codegen_split_count=1"
    assert len(cores) == 2 and cores[0].isdisjoint(cores[1]) and len(set.union(*cores)) == 8

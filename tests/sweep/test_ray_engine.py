"""A sweep on a Ray cluster of two nodes of which one is killed; skipped where Ray is missing."""

import contextlib
import os

import pytest

from tests import sweep_work
from tests.data.test_workers import alive
from tests.sweep.test_units import began, check_each_once, units
from unnas_jax.core.errors import UserError
from unnas_jax.sweep.units import Store

ray = pytest.importorskip("ray")

from unnas_jax.sweep import ray_engine  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own.


def test_what_a_unit_asks_for():
    asked = ray_engine.resources({"GPU": 8.0}, workers_per_device=4, cores_per_worker=1)
    assert asked["num_gpus"] == 0.25
    assert asked["runtime_env"]["env_vars"] == {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.225"}
    asked = ray_engine.resources({"TPU": 4.0}, workers_per_device=1, cores_per_worker=1)
    assert asked["resources"] == {"TPU": 1}
    asked = ray_engine.resources({"CPU": 4.0}, workers_per_device=1, cores_per_worker=2)
    assert asked == {"num_cpus": 2}


def test_no_cluster_is_one_line(tmp_path):
    with pytest.raises(UserError, match="sweep.address='127.0.0.1:1'.*ray start --head") as error:
        run(Store(tmp_path), [], address="127.0.0.1:1")
    assert "\n" not in str(error.value)


def run(store, todo, address="auto", work=sweep_work.plain, report=lambda: None) -> bool:
    return ray_engine.run(
        store,
        todo,
        work,
        address=address,
        attempts=3,
        workers_per_device=1,
        cores_per_worker=1,
        report=report,
        every=0.1,
    )


@pytest.fixture
def cluster(monkeypatch):
    """One node, that has time where processes come late: Ray itself waits 30 seconds for a node."""
    from ray import cluster_utils
    from ray._private import services

    # A node that is gone is noticed soon, and one that is slow or short of memory is left alone.
    monkeypatch.setenv("RAY_health_check_period_ms", "300")
    monkeypatch.setenv("RAY_health_check_timeout_ms", "600000")
    monkeypatch.setenv("RAY_worker_register_timeout_seconds", "600")
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "0")
    get_node = services.get_node

    def awaited(*arguments):
        found = []

        def is_there() -> bool:
            with contextlib.suppress(RuntimeError):
                found.append(get_node(*arguments))
            return bool(found)

        sweep_work.wait_for(is_there)
        return found[0]

    monkeypatch.setattr(services, "get_node", awaited)
    made = cluster_utils.Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "wait": False}
    )
    yield made
    ray.shutdown()
    made.shutdown()


def test_a_killed_node_loses_and_repeats_nothing(cluster, tmp_path):
    store, todo = Store(tmp_path / "w"), units(tmp_path, 8, held=True)
    second = cluster.add_node(num_cpus=1, wait=False)
    cluster.wait_for_nodes(timeout=600)
    ray.init(address=cluster.address, logging_level="ERROR", log_to_driver=False)
    killed = []

    def kill() -> None:
        """Kills the second node once both nodes are at work, with what it is at."""
        if killed or len(began(tmp_path)) < 2:
            return
        at_work = {store.claimed(unit).process for unit in todo if store.running(unit)}
        assert len(at_work) == 2
        cluster.remove_node(second, allow_graceful=False)
        killed.append(second)
        sweep_work.wait_for(lambda: sum(map(alive, at_work)) < 2)
        sweep_work.allow(tmp_path)

    assert run(store, todo, report=kill)
    assert killed
    check_each_once(tmp_path, todo)
    assert all(store.finished(unit) for unit in todo)
    assert len(began(tmp_path)) == len(todo) + 1
    # A failure is noted, not raised; a second start does only what is missing.
    os.unlink(tmp_path / "w" / "units" / f"{todo[0].name}.json")
    assert run(store, todo[:1], work=fails) and store.reason(todo[0]) == "ValueError: no"
    store.forget_failure(todo[0])
    assert run(store, todo) and store.finished(todo[0])
    assert len([1 for word, _ in sweep_work.words(tmp_path) if word == "done"]) == 9


def fails(task: dict, scratch: str) -> dict:
    raise ValueError("no")

"""A sweep on a Ray cluster of two nodes of which one is killed; skipped where Ray is missing."""

import os
import time

import pytest

from tests import sweep_work
from tests.sweep.test_units import check_each_once, units
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


def run(store, todo, address="auto", work=sweep_work.slow, report=lambda: None) -> bool:
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


def test_a_killed_node_loses_and_repeats_nothing(tmp_path):
    from ray.cluster_utils import Cluster

    store, todo = Store(tmp_path / "w"), units(tmp_path, 8, seconds=1.0)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        second = cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        ray.init(address=cluster.address, logging_level="ERROR", log_to_driver=False)
        killed = []

        def kill() -> None:
            """Kills the second node once both nodes are at work, with what it is at."""
            at_work = {c.process for u in todo if store.running(u) and (c := store.claimed(u))}
            if not killed and len(at_work) == 2:
                cluster.remove_node(second, allow_graceful=False)
                killed.append(time.monotonic())

        assert run(store, todo, report=kill)
        assert killed
        check_each_once(tmp_path, todo)
        assert all(store.finished(unit) for unit in todo)
        began = [name for word, name in sweep_work.words(tmp_path) if word == "began"]
        assert len(todo) <= len(began) <= len(todo) + 1
        # A failure is noted, not raised; a second start does only what is missing.
        os.unlink(tmp_path / "w" / "units" / f"{todo[0].name}.json")
        assert run(store, todo[:1], work=fails) and store.reason(todo[0]) == "ValueError: no"
        store.forget_failure(todo[0])
        assert run(store, todo) and store.finished(todo[0])
        assert len([1 for word, _ in sweep_work.words(tmp_path) if word == "done"]) == 9
    finally:
        ray.shutdown()
        cluster.shutdown()


def fails(task: dict, scratch: str) -> dict:
    raise ValueError("no")

"""Trackers get every number of a run; those of packages get them as the packages want them."""

import pathlib
import sys
import types
from unittest import mock

import pytest

from unnas_jax.core.errors import UserError
from unnas_jax.learning import metrics, trackers

CONFIG = {"seed": 3, "weights": {"momentum": 0.9}}


def run(names: list[str], workdir: pathlib.Path, step: int = 0) -> None:
    started = trackers.started(names, str(workdir), CONFIG, step)
    log = metrics.MetricsLog(str(workdir), step, started)
    log.write("train", step + 1, loss=0.5, epoch=0.1, seconds_left=9.0, note="first")
    log.write("validation", step + 1, accuracy=0.25)
    log.close()


def test_tensorboard_gets_numbers_and_does_not_import_torch(tmp_path: pathlib.Path) -> None:
    with mock.patch.dict(sys.modules):
        for name in [name for name in sys.modules if name.partition(".")[0] == "tensorboardX"]:
            del sys.modules[name]
        torch = "torch" in sys.modules
        run(["tensorboard"], tmp_path)
        assert ("torch" in sys.modules) == torch
    [events] = (tmp_path / "tensorboard").iterdir()
    content = events.read_bytes()
    assert b"train/loss" in content and b"validation/accuracy" in content
    assert b"epoch" not in content and b"seconds_left" not in content


def test_one_s_own_tracker(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list = []

    class Mine(trackers.Tracker):
        def start(self, workdir, config, step):
            calls.append((workdir, config["seed"], step))

        def write(self, step, values):
            calls.append((step, dict(values)))

        def close(self):
            calls.append("closed")

    monkeypatch.setattr(trackers.TRACKERS, "_items", dict(trackers.TRACKERS))
    trackers.register_tracker("mine", Mine)
    with pytest.raises(UserError, match="the name is taken"):
        trackers.register_tracker("mine", trackers.TensorBoard)
    trackers.check(["tensorboard", "mine"])
    run(["mine"], tmp_path, step=4)
    assert calls == [
        (str(tmp_path), 3, 4),
        (5, {"train/loss": 0.5}),
        (5, {"validation/accuracy": 0.25}),
        "closed",
    ]
    assert not (tmp_path / "tensorboard").exists()


def test_weights_and_biases_continues_the_run_of_a_workdir(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = mock.MagicMock()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    run(["wandb"], tmp_path)
    run(["wandb"], tmp_path, step=10)
    first, second = (call.kwargs for call in wandb.init.call_args_list)
    assert first == second and first["resume"] == "allow" and first["config"] == CONFIG
    logged = wandb.init.return_value.log.call_args_list
    assert logged[0] == mock.call({"train/loss": 0.5}, step=1)
    assert logged[-1] == mock.call({"validation/accuracy": 0.25}, step=11)
    assert wandb.init.return_value.finish.call_count == 2


def test_mlflow_continues_the_run_of_a_workdir(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = mock.MagicMock()
    client.search_runs.side_effect = [[], [client.create_run.return_value]]
    module = types.SimpleNamespace(
        MlflowClient=lambda: client, exceptions=types.SimpleNamespace(MlflowException=KeyError)
    )
    entities = types.SimpleNamespace(Metric=lambda *values: values)
    monkeypatch.setitem(sys.modules, "mlflow", module)
    monkeypatch.setitem(sys.modules, "mlflow.entities", entities)
    run(["mlflow"], tmp_path)
    run(["mlflow"], tmp_path, step=10)
    assert client.create_run.call_count == 1 and client.log_dict.call_count == 1
    [metric] = client.log_batch.call_args_list[0].args[1]
    assert (metric[0], metric[1], metric[3]) == ("train/loss", 0.5, 1)
    assert client.set_terminated.call_count == 2


def test_what_cannot_be_tracked_is_told_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="config.trackers='tensorbord': did you mean 'tensorboard'"):
        trackers.check(["tensorbord"])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        UserError, match=r"needs the package wandb; pip install 'unnas_jax\[wandb\]'"
    ):
        trackers.check(["wandb"])

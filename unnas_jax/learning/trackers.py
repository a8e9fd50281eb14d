"""Where metrics go besides metrics.jsonl: TensorBoard, Weights & Biases, MLflow, your own."""

import abc
import hashlib
import importlib
import os
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from unnas_jax.core import extras
from unnas_jax.core.errors import UserError
from unnas_jax.core.registry import Registry

PROJECT = "unnas_jax"
"""The name of the project, or experiment, that runs belong to."""


class Tracker(abc.ABC):
    """Takes the metrics of one run; process 0 makes it, without arguments.

    Attributes:
      extra: of this package, which it needs, or ''.
    """

    extra: ClassVar[str] = ""

    @abc.abstractmethod
    def start(self, workdir: str, config: Mapping[str, Any], step: int) -> None:
        """Begins, or goes on.

        Args:
          workdir: of the run, an absolute path; it tells the run apart.
          config: the run's config as a dict.
          step: that the run continues from. Metrics of later steps, which a killed run wrote, will
            come again.
        """

    @abc.abstractmethod
    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Takes the metrics of a step, named `kind/name`."""

    @abc.abstractmethod
    def close(self) -> None:
        """Writes what is buffered: the process leaves the run, which another may continue."""


def _summary_writer() -> Any:
    """The writer of tensorboardX, without its needless import of torch, which takes seconds."""
    hide = "torch" not in sys.modules
    if hide:
        sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        return importlib.import_module("tensorboardX").SummaryWriter
    finally:
        if hide:
            del sys.modules["torch"]


class TensorBoard(Tracker):
    """Events in WORKDIR/tensorboard."""

    def start(self, workdir: str, config: Mapping[str, Any], step: int) -> None:
        """See `Tracker.start`."""
        del config
        self._writer = _summary_writer()(
            os.path.join(workdir, "tensorboard"), purge_step=step + 1 if step else None
        )

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """See `Tracker.write`."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """See `Tracker.close`."""
        self._writer.close()


def identity(workdir: str) -> str:
    """A short name of a workdir, the same whenever a run continues there."""
    path = os.path.abspath(workdir).encode("utf-8", "surrogateescape")
    return hashlib.sha256(path).hexdigest()[:16]


def _name(workdir: str) -> str:
    return os.path.basename(os.path.abspath(workdir))


class WeightsAndBiases(Tracker):
    """A run of Weights & Biases; WANDB_MODE, WANDB_PROJECT, WANDB_API_KEY work as they do there.

    A run that continues from an older step than it had reached keeps the first values of a step.
    """

    extra = "wandb"

    def start(self, workdir: str, config: Mapping[str, Any], step: int) -> None:
        """See `Tracker.start`."""
        del step
        wandb = importlib.import_module("wandb")
        try:
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", PROJECT),
                name=_name(workdir),
                id=identity(workdir),
                resume="allow",
                dir=workdir,
                config=dict(config),
            )
        except (wandb.errors.Error, OSError) as error:
            raise UserError(
                f"config.trackers: wandb cannot start ({' '.join(str(error).split())[:200]}); log "
                "in, set WANDB_MODE=offline, or leave it out"
            ) from error

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """See `Tracker.write`."""
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        """See `Tracker.close`."""
        self._run.finish()


class MLflow(Tracker):
    """A run of MLflow, at MLFLOW_TRACKING_URI."""

    extra = "mlflow"

    def start(self, workdir: str, config: Mapping[str, Any], step: int) -> None:
        """See `Tracker.start`."""
        del step
        mlflow = importlib.import_module("mlflow")
        self._metric = importlib.import_module("mlflow.entities").Metric
        try:
            self._client = mlflow.MlflowClient()
            experiment = self._client.get_experiment_by_name(PROJECT)
            number = experiment and experiment.experiment_id
            number = number or self._client.create_experiment(PROJECT)
            tag, value = f"{PROJECT}.workdir", identity(workdir)
            found = self._client.search_runs([number], f"tags.`{tag}` = '{value}'")
            run = found[0] if found else None
            if run is None:
                run = self._client.create_run(number, tags={tag: value}, run_name=_name(workdir))
                self._client.log_dict(run.info.run_id, dict(config), "config.json")
        except (mlflow.exceptions.MlflowException, OSError) as error:
            raise UserError(
                f"config.trackers: mlflow cannot start ({' '.join(str(error).split())[:200]}); "
                "see MLFLOW_TRACKING_URI, or leave it out"
            ) from error
        self._run = run.info.run_id

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """See `Tracker.write`."""
        now = int(time.time() * 1000)
        self._client.log_batch(
            self._run, [self._metric(name, value, now, step) for name, value in values.items()]
        )

    def close(self) -> None:
        """See `Tracker.close`."""
        self._client.set_terminated(self._run)


TRACKERS: Registry[type[Tracker]] = Registry(
    "tracker", {"tensorboard": TensorBoard, "wandb": WeightsAndBiases, "mlflow": MLflow}
)
"""The values of config.trackers."""


def register_tracker(name: str, tracker: type[Tracker]) -> None:
    """Makes a class of one's own a value of config.trackers, for this process.

    Raises:
      UserError: the name is that of something else, see `Registry.register`.
    """
    TRACKERS.register(name, tracker)


def check(names: Sequence[str]) -> None:
    """Raises `UserError` for a tracker that does not exist, or whose package is not installed."""
    for name in names:
        if extra := TRACKERS.find(name, "trackers").extra:
            extras.require(extra, f"config.trackers: {name!r}")


def started(
    names: Sequence[str], workdir: str, config: Mapping[str, Any], step: int
) -> list[Tracker]:
    """The trackers of a run; see `Tracker.start`."""
    trackers = [TRACKERS.find(name, "trackers")() for name in names]
    for tracker in trackers:
        tracker.start(os.path.abspath(workdir), config, step)
    return trackers

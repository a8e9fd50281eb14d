"""The forms of a training step of a discrete network that `network_step.py` times."""

import time
from typing import Any

import jax
import numpy as np

from unnas_jax import convert
from unnas_jax.config import schema as config
from unnas_jax.config.sections import TaskConfig, Training
from unnas_jax.core import sharding
from unnas_jax.data import Dataset
from unnas_jax.learning import trainer
from unnas_jax.runs import validation
from unnas_jax.spaces import networks
from unnas_jax.spaces import registry as spaces
from unnas_jax.tasks import base
from unnas_jax.tasks.base import example_shapes
from unnas_jax.tasks.classification import Classification

CLASSES, CROP = 10, 32

_DATASET = Dataset("random", {}, CLASSES, ())


class Plain(Classification):
    """Classification of the images as they are."""

    def examples(self, key: jax.Array, batch: base.Batch, *, train: bool) -> base.Examples:
        """One example per image."""
        return super().examples(key, batch, train=False)


def _config(network: dict[str, Any], batch_size: int) -> dict[str, Any]:
    c = config.training()
    c.seeds = 1
    c.dataset.name = "tfds:random"
    c.task.label_smoothing = 0.0
    c.input.update(crop=CROP, resize=CROP)
    c.network.update(stem="cifar", auxiliary_weight=0.0)
    c.network.update(network)
    c.weights.update(learning_rate=0.05, warmup_epochs=0)
    c.train.batch_size = batch_size
    validation.validate(c)
    plain: dict[str, Any] = c.to_dict()
    return plain


def _batch(size: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "image": rng.integers(0, 256, (size, CROP, CROP, 3), np.uint8),
        "label": rng.integers(0, CLASSES, size).astype(np.int32),
    }


class Network:
    """A network and its first state.

    Args:
      network: the section of a config.
      batch_size: images of a step.
    """

    def __init__(self, network: dict[str, Any], batch_size: int) -> None:
        self.config = _config(network, batch_size)
        self.task = Plain.create(TaskConfig.of(self.config), _DATASET)
        self.mesh = sharding.data_mesh(jax.devices()[:1])
        inputs = example_shapes(self.config, self.task).inputs
        module = networks.build_network(self.config, self.task)
        self.steps = trainer.build_steps(
            Training.of(self.config), module, self.task, self.mesh, 1000, inputs
        )
        self.state = self.steps.init([0])

    def tensors(self) -> dict[str, np.ndarray]:
        """The parameters and statistics now, by the names of PyTorch's."""
        variables = {"params": self.state.params, "batch_stats": self.state.batch_stats}
        one = jax.tree.map(lambda leaf: leaf[0], jax.device_get(variables))
        return convert.params_to_torch(one, self.config)


class Here(Network):
    """The step of trainings of one seed."""

    def __init__(self, network: dict[str, Any], batch_size: int) -> None:
        super().__init__(network, batch_size)
        start = time.perf_counter()
        lowered = trainer.lower(Training.of(self.config), self.task, self.steps, 1, self.mesh)
        traced = time.perf_counter()
        self._program = lowered.compile()
        self._facts = {
            "trace_s": round(traced - start, 2),
            "compile_s": round(time.perf_counter() - traced, 2),
            "temp_bytes": self._program.memory_analysis().temp_size_in_bytes,
        }
        self._batch = trainer.stack_seeds([_batch(batch_size)], self.mesh)

    def facts(self) -> dict[str, float]:
        """What is reported besides times of steps."""
        return self._facts

    def step(self) -> float:
        """Takes a step; the loss before it."""
        self.state, sums = self._program(self.state, self._batch)
        return float(sums["loss"].sum() / sums["count"].sum())


class Torch:
    """The step in PyTorch.

    Args:
      network: the section of a config.
      batch_size: images of a step.
      first: the first parameters and statistics, by the names of PyTorch's.
      compiled: whether through `torch.compile`.
    """

    def __init__(
        self,
        network: dict[str, Any],
        batch_size: int,
        first: dict[str, np.ndarray],
        *,
        compiled: bool,
    ) -> None:
        import torch

        from benchmarks import torch_networks

        c = _config(network, batch_size)
        section = c["network"]
        cells = spaces.SPACES[section["space"]].resolve(section["genotype"])
        self._names = list(first)
        self._model = torch_networks.of_config(c, cells, CLASSES, first)
        self._run = torch_networks.training_step(
            self._model, c, _DATASET.mean, _DATASET.std, compiled=compiled
        )
        batch = _batch(batch_size)
        self._images = torch.tensor(batch["image"])
        self._labels = torch.tensor(batch["label"], dtype=torch.long)

    def facts(self) -> dict[str, float]:
        """Nothing: it compiles in its first step."""
        return {}

    def step(self) -> float:
        """Takes a step; the loss before it."""
        return self._run(self._images, self._labels)

    def tensors(self) -> dict[str, np.ndarray]:
        """The parameters and statistics now."""
        values = self._model.state_dict().values()
        return {name: x.numpy().copy() for name, x in zip(self._names, values, strict=True)}

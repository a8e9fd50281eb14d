"""The network of a training, ready to use: module, variables, preprocessing, class names."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from unnas_jax.config import run_config
from unnas_jax.config.schema import TrainConfig
from unnas_jax.config.sections import Batches, Eval, Input, Training
from unnas_jax.core import sharding
from unnas_jax.core.errors import UserError
from unnas_jax.data import crops, facts, open_dataset
from unnas_jax.data.records import Dataset, check_same, fingerprint
from unnas_jax.data.registry import entry_of
from unnas_jax.learning import rows, trainer
from unnas_jax.learning.feed import Feed
from unnas_jax.learning.trainer import TrainState, TrainSteps
from unnas_jax.runs import checkpoint as checkpoints
from unnas_jax.runs import workdir as workdir_lib
from unnas_jax.runs.pieces import Logits
from unnas_jax.runs.seeds import Seeds, subsets
from unnas_jax.runs.workdir import Workdir
from unnas_jax.spaces.networks import build_network
from unnas_jax.tasks import registry
from unnas_jax.tasks.base import Task, example_shapes
from unnas_jax.tasks.transforms import Augmentation

_WANTED = ("params", "batch_stats", "average")  # The entries of a state.

CHECKPOINTS = ("last", "best")
"""Which checkpoint of a training: its last, or that of its best evaluation."""


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """The preprocessing of an evaluation.

    Attributes:
      input, eval: of the training's config.
      dataset: its statistics and class names; without images.
      task: what was learned.
    """

    input: Input
    eval: Eval
    dataset: Dataset
    task: Task

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the dataset's classes, in the order of their numbers."""
        return self.dataset.class_names

    def crops(self, images: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
        """Resizes and crops images, uint8 (H, W, 3) of any sizes, to uint8 (N, S, S, 3)."""
        for number, image in enumerate(images):
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3:
                raise UserError(
                    f"image {number}: must be uint8 of the shape (H, W, 3), RGB, not "
                    f"{image.dtype} {image.shape}"
                )
        if not len(images):
            raise UserError("there is no image")
        return np.stack([self.crop(image) for image in images])

    def crop(self, image: np.ndarray) -> np.ndarray:
        """The crop of an image, uint8 (H, W, 3), in an evaluation: uint8 (S, S, 3)."""
        if self.input.mirrored:
            image = np.ascontiguousarray(image[:, ::-1])
        if self.eval.crop == "whole":
            height, width = self.eval.whole_size
            try:
                return crops.pad(image, height, width, self.padding)
            except ValueError as error:
                raise UserError(f"an image {error}; the network was evaluated on less") from error
        size = self.input.crop
        box = crops.centre_box(image.shape[0], image.shape[1], size, self.input.resize)
        return crops.cut(image, box, size, self.input.resampling)

    @property
    def padding(self) -> tuple[int, ...]:
        """The colour of the padding of whole images, which is zero when normalised."""
        mean = Augmentation.create(self.input, self.dataset).mean
        return tuple(round(255 * value) for value in mean)

    def inputs(self, crops: jax.Array) -> jax.Array:
        """The network's inputs (N, H, W, channels) for crops, uint8 (N, H, W, 3); can be jitted."""
        shape = crops.shape[:3] if self.task.label_maps else crops.shape[:1]
        batch = {
            "image": crops,
            "label": jnp.zeros(shape, jnp.int32),
            "record": jnp.arange(len(crops), dtype=jnp.int32),
        }
        return self.task.examples(jax.random.key(0), batch, train=False).inputs

    def __call__(self, images: Sequence[np.ndarray] | np.ndarray) -> jax.Array:
        """The network's inputs (N, H, W, channels) for images, uint8 (H, W, 3) of any sizes.

        Tasks that make several inputs of an image make them here, too: N is a multiple then.
        """
        return self.inputs(jnp.asarray(self.crops(images)))


@dataclasses.dataclass(frozen=True)
class Ensemble:
    """Networks of several seeds as one, which answers with the mean of their probabilities.

    Attributes:
      member: one of the networks; the leaves of the variables have a leading axis of all.
    """

    member: nn.Module

    def apply(self, variables: Mapping[str, Any], inputs: jax.Array, **options: Any) -> jax.Array:
        """The logarithms of the mean probabilities, (N, ..., classes), for inputs of a network."""

        def one(of_seed: Mapping[str, Any]) -> jax.Array:
            outputs: Any = self.member.apply(of_seed, inputs, **options)
            return jax.nn.log_softmax(outputs)

        outputs = jax.lax.map(one, variables)
        mean: jax.Array = jax.nn.logsumexp(outputs, axis=0) - jnp.log(len(outputs))
        return mean


@dataclasses.dataclass(frozen=True)
class Trained:
    """A training as one of its checkpoints has it.

    Attributes:
      name: of its workdir.
      config: of the training.
      dataset: the facts of the dataset; without images.
      task: what was learned.
      network: called as network(inputs, train); its head's output is the first of a pair.
      variables: what evaluations use, as NumPy arrays whose leading axis is that of `seeds`.
      seeds: of the networks.
      step: after so many steps.
    """

    name: str
    config: TrainConfig
    dataset: Dataset
    task: Task
    network: Any
    variables: dict[str, Any]
    seeds: tuple[int, ...]
    step: int

    @property
    def preprocessing(self) -> Preprocessing:
        """The function that makes the network's inputs from images."""
        return Preprocessing(self.config.input, self.config.eval, self.dataset, self.task)

    def module(self) -> tuple[Logits | Ensemble, dict[str, Any]]:
        """One network, or an ensemble if there are several, and its variables."""
        if len(self.seeds) > 1:
            return Ensemble(Logits(self.network)), self.variables
        return Logits(self.network), jax.tree.map(lambda leaf: leaf[0], self.variables)


def load_network(
    workdir: str | os.PathLike[str],
    *,
    seed: int | str | None = None,
    checkpoint: str = "last",
    dataset: Dataset | None = None,
) -> tuple[Logits | Ensemble, dict[str, Any], Preprocessing]:
    """The network of a training as one of its checkpoints has it.

        module, variables, preprocessing = load_network("runs/eval")
        logits = module.apply(variables, preprocessing(images))
        names = [preprocessing.class_names[k] for k in logits.argmax(-1)]

    Args:
      workdir: of the training, a directory or an address gs://BUCKET/NAME.
      seed: which of its networks, by its seed; None: the first; 'all': all of them as an
        `Ensemble`, which is called like one.
      checkpoint: 'last', or 'best': that of the best evaluation (chosen by held-out images, so that
        its accuracy on them is too optimistic).
      dataset: of trainings on datasets that are not known by name: for its statistics, and for the
        training images where the evaluation takes batch-norm statistics of them.

    Returns:
      The module, called as module.apply(variables, inputs); its parameters and running statistics
      as NumPy arrays (the averages, if the training made them; with the statistics of training
      images, if the evaluation took them); and the function that makes its inputs from images,
      which also has the `class_names`.

    Raises:
      UserError: it is not the workdir of a training, has no sound checkpoint, or the statistics of
        its images are not known.
    """
    trained = read(workdir, seed=seed, checkpoint=checkpoint, dataset=dataset)
    return *trained.module(), trained.preprocessing


def read(
    workdir: str | os.PathLike[str],
    *,
    seed: int | str | None = None,
    checkpoint: str = "last",
    dataset: Dataset | None = None,
    precision: str = "",
    exact: bool = True,
) -> Trained:
    """A training as one of its checkpoints has it; see `load_network`.

    Args:
      workdir, seed, checkpoint, dataset: as there.
      precision: replaces the config's, if it is given.
      exact: also takes the statistics of training images, if the evaluation did.
    """
    name = os.fspath(workdir)
    if checkpoint not in CHECKPOINTS:
        raise UserError(f"checkpoint={checkpoint!r}: use one of {', '.join(CHECKPOINTS)}")
    with workdir_lib.opened(name, write=False) as place:
        values = run_config.read(place.path, f"workdir {name}", of="a training")
        if (kind := values["experiment"]) != "train":
            raise UserError(
                f"workdir {name} is that of {run_config.KINDS[kind]}, which keeps no network to "
                "use; train its cells (--config=eval_...:CELLS) and give that workdir"
            )
        config = TrainConfig.of(values)
        config = dataclasses.replace(config, precision=precision or config.precision)
        seeds = [config.seed + k for k in range(config.seeds)]
        wanted = seeds[0] if seed is None else seed
        chosen = seeds if wanted == "all" else [number for number in seeds if number == wanted]
        if not chosen:
            raise UserError(f"seed={seed}: {name} has the seeds {', '.join(map(str, seeds))}")
        kept = os.path.join(place.path, "genotype.json")
        if os.path.exists(kept):  # The file that the config names may be gone by now, or changed.
            network_section = dataclasses.replace(config.network, genotype=kept)
            config = dataclasses.replace(config, network=network_section)
        known = _facts(place, config, dataset)
        task = registry.create(config, known)
        network = build_network(config, task)
        mesh = sharding.data_mesh()
        inputs = example_shapes(config, task).inputs
        # Its optimizer's state is not needed, nor is the optimizer known if it was an object.
        nothing = optax.identity()
        steps = trainer.build_steps(Training.of(config), network, task, mesh, 1, inputs, nothing)
        shapes = steps.shapes(len(seeds))
        best = checkpoint == "best"
        found, position = checkpoints.read(
            place, lambda position: shapes, _WANTED, "train first", best=best
        )
        state = shapes.replace(
            **found,
            seed=np.asarray(seeds, np.int32),
            step=np.full(len(seeds), position["step"], np.int32),
        )
        numbers = np.array([seeds.index(each) for each in chosen])
        state = sharding.replicate(
            jax.tree.map(lambda leaf: leaf[numbers], jax.device_get(state)), mesh
        )
        if exact and config.train.precise_bn_images:
            images = _images(name, config, dataset, position)
            state = _precise(config, images, task, steps, chosen, state)
        variables = jax.device_get(trainer.evaluated(state))
    step = int(position["step"])
    return Trained(name, config, known, task, network, variables, tuple(chosen), step)


def _facts(place: Workdir, config: TrainConfig, dataset: Dataset | None) -> Dataset:
    """The facts of a training's dataset, without its images."""
    if dataset is not None:
        return dataclasses.replace(dataset, splits={})
    kept = facts.read(place.path)
    if kept is not None:
        return kept
    # A run of an older version, which kept no facts.
    name = config.dataset.name
    try:
        entry = entry_of(name)
    except UserError as error:
        raise UserError(
            f"workdir {place.name}: the dataset {name!r} is not registered in this program; "
            "register it, or give the argument dataset"
        ) from error
    classes = _classes(place.path, entry.classes)
    names = tuple(map(str, range(classes)))
    return Dataset(name, {}, classes, names, entry.mean, entry.std)


def _classes(workdir: str, known: int) -> int:
    """The classes of a training's head, as its log says; else those known of its dataset."""
    path = os.path.join(workdir, "metrics.jsonl")
    found, _ = rows.read(path) if os.path.exists(path) else ([], 0)
    starts = [row["num_classes"] for _, row in found if row.get("kind") == "start"]
    return int(starts[-1]) if starts else known


def _images(
    name: str,
    config: TrainConfig,
    dataset: Dataset | None,
    position: Mapping[str, Any],
) -> Dataset:
    """The training images from which an evaluation takes statistics."""
    try:
        images = open_dataset(config.dataset) if dataset is None else dataset
    except UserError as error:
        raise UserError(
            f"workdir {name}: its networks are evaluated with batch-norm statistics of training "
            f"images (config.train.precise_bn_images), which cannot be read: {error}"
        ) from error
    check_same(name, position.get("data"), fingerprint(images), {"train"})
    return images


def _precise(
    config: TrainConfig,
    images: Dataset,
    task: Task,
    steps: TrainSteps,
    seeds: list[int],
    state: TrainState,
) -> TrainState:
    """The state with the statistics that its evaluation uses."""
    mesh = sharding.data_mesh()
    training, held_out = subsets(config, images, task)
    size = 1 if jax.default_backend() == "cpu" else len(seeds)
    trained = Seeds(
        [seeds[k : k + size] for k in range(0, len(seeds), size)],
        steps,
        task,
        Feed(dataclasses.replace(Batches.of(config), workers=0), images, task, mesh),
        mesh,
        training,
        held_out,
        config.train.batch_size,
        config.train.precise_bn_images,
    )
    return trainer.joined(trained.precise(trainer.grouped(state, size, mesh)), mesh)

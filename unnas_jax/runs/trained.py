"""The network of a finished training, ready to use: module, variables, preprocessing."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
import optax
from etils import epath

from unnas_jax.config import run_config
from unnas_jax.config.sections import Batches, Training
from unnas_jax.core import sharding
from unnas_jax.core.errors import UserError
from unnas_jax.data.arrays import ArrayRecords
from unnas_jax.data.records import Dataset
from unnas_jax.data.registry import entry_of
from unnas_jax.learning import rows, trainer
from unnas_jax.learning.feed import Feed
from unnas_jax.runs import checkpoint
from unnas_jax.runs import workdir as workdir_lib
from unnas_jax.runs.pieces import Logits
from unnas_jax.spaces.networks import build_network
from unnas_jax.tasks import registry
from unnas_jax.tasks.base import Task, example_shapes


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """What an evaluation does to images before the network sees them.

    Attributes:
      config: of the training, as a dict.
      dataset: its statistics; without images.
      task: what was learned.
    """

    config: Mapping[str, Any]
    dataset: Dataset
    task: Task

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
        records = ArrayRecords(images, np.zeros(len(images), np.int64))
        mesh = sharding.data_mesh(jax.devices()[:1])
        config = Batches.of({**self.config, "workers": 0})
        feed = Feed(config, self.dataset, self.task, mesh)
        batches = feed.evaluation(records, np.arange(len(images)), place=False)
        return np.concatenate([batch["image"][batch["mask"] > 0] for batch in batches])

    def __call__(self, images: Sequence[np.ndarray] | np.ndarray) -> jax.Array:
        """The network's inputs (N, H, W, channels) for images, uint8 (H, W, 3) of any sizes.

        Tasks that make several inputs of an image make them here, too: N is a multiple then.
        """
        crops = self.crops(images)
        shape = crops.shape[:3] if self.task.label_maps else crops.shape[:1]
        batch = {
            "image": jax.numpy.asarray(crops),
            "label": jax.numpy.zeros(shape, "int32"),
            "record": jax.numpy.arange(len(crops), dtype="int32"),
        }
        return self.task.examples(jax.random.key(0), batch, train=False).inputs


def _classes(workdir: str, known: int) -> int:
    """The classes of a training's head, as its log says; else those known of its dataset."""
    path = os.path.join(workdir, "metrics.jsonl")
    found, _ = rows.read(path) if os.path.exists(path) else ([], 0)
    starts = [row["num_classes"] for _, row in found if row.get("kind") == "start"]
    return int(starts[-1]) if starts else known


def load_network(
    workdir: str | os.PathLike[str], *, seed: int | None = None, dataset: Dataset | None = None
) -> tuple[Logits, dict[str, Any], Preprocessing]:
    """The network of a training as its last checkpoint has it.

        module, variables, preprocessing = load_network("runs/eval")
        logits = module.apply(variables, preprocessing(images))

    Args:
      workdir: of the training, a directory or an address gs://BUCKET/NAME.
      seed: which of its networks, by its seed; None: the first.
      dataset: for its mean and deviation, of trainings on datasets that are not known by name.

    Returns:
      The module, called as module.apply(variables, inputs); its parameters and running statistics
      (the averages, if the training made them), as NumPy arrays; and what makes its inputs of
      images.

    Raises:
      UserError: it is not the workdir of a training, has no sound checkpoint, or the statistics of
        its images are not known.
    """
    name = os.fspath(workdir)
    with workdir_lib.opened(name, write=False) as place:
        config = run_config.read(place.path, f"workdir {name}")
        run_config.check_same(name, config, {"experiment": "train"})
        seeds = [config["seed"] + k for k in range(config["seeds"])]
        if seed is not None and seed not in seeds:
            raise UserError(f"seed={seed}: {name} has the seeds {', '.join(map(str, seeds))}")
        if config["train"]["precise_bn_images"]:
            raise UserError(
                f"workdir {name}: its networks are evaluated with statistics of training images "
                "(config.train.precise_bn_images), which checkpoints do not have"
            )
        kept = os.path.join(place.path, "genotype.json")
        if os.path.exists(kept):  # A file that may be gone by now, or changed.
            config["network"]["genotype"] = kept
        known: Any = dataset or _entry(name, config["dataset"]["name"])
        classes = _classes(place.path, dataset.num_classes if dataset else known.classes)
        facts = Dataset(
            config["dataset"]["name"],
            {},
            classes,
            tuple(map(str, range(classes))),
            known.mean,
            known.std,
        )
        task = registry.create(config, facts)
        network = build_network(config, task)
        mesh = sharding.data_mesh()
        inputs = example_shapes(config, task).inputs
        # Its optimizer's state is not needed, nor is the optimizer known if it was an object.
        nothing = optax.identity()
        steps = trainer.build_steps(Training.of(config), network, task, mesh, 1, inputs, nothing)
        shapes = steps.shapes(len(seeds))
        wanted = {name: getattr(shapes, name) for name in ("params", "batch_stats", "average")}
        restored = None
        if epath.Path(place.checkpoints).is_dir():
            with checkpoint.Checkpoints(place.checkpoints, read_only=True) as checkpoints:
                restored = checkpoints.restore_part(wanted)
        if restored is None:
            raise UserError(f"workdir {name} has no checkpoint; train first")
        number = 0 if seed is None else seeds.index(seed)
        evaluated = trainer.evaluated(shapes.replace(**restored))
        variables = jax.tree.map(lambda leaf: leaf[number], jax.device_get(evaluated))
    return Logits(network), variables, Preprocessing(config, facts, task)


def _entry(workdir: str, name: str) -> Any:
    try:
        return entry_of(name)
    except UserError as error:
        raise UserError(
            f"workdir {workdir}: the dataset {name!r} is not registered in this program; register "
            "it, or give the argument dataset"
        ) from error

"""What a task is: how images become examples, the head that answers, and the score of an answer."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol, Self

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from unnas_jax.config.options import Config, as_dict
from unnas_jax.config.sections import Input, TaskConfig
from unnas_jax.core import sharding
from unnas_jax.core.errors import UserError

Batch = Mapping[str, jax.Array]
"""`image` uint8 (B, S, S, 3), `label` int32 (B,) or, of label maps, (B, S, S), and in evaluation
`mask` float32 (B,). For tasks that ask for it (`Task.records`) also `record` int32 (B,), the
images' numbers in their split."""

Sums = dict[str, jax.Array]
"""float32 scalars `loss`, `correct` and `count`, each a sum over a batch (over pixels where the
task is dense), and what else a task sums; sums over batches give exact means whatever the batch
size. `Task.summarize` makes the reported metrics of them."""


@flax.struct.dataclass
class Examples:
    """The inputs of a network with their targets.

    Attributes:
      inputs: (N, h, w, channels), float32 or in the network's format. N may be a multiple of the
        images (rotations, tiles).
      targets: int32 (M,) or, for dense tasks, (M, h, w), one row per answer of the head; or, where
        answers are no classes, what the task compares them with: arrays with M rows.
      weights: float32 (M,), 1 for real rows and 0 for padding.
    """

    inputs: jax.Array
    targets: Any
    weights: jax.Array


@dataclasses.dataclass(frozen=True)
class Panel:
    """A picture of an example.

    Attributes:
      title: its kind, and its target.
      image: uint8 (h, w, 3).
    """

    title: str
    image: np.ndarray


class Task(Protocol):
    """A pretext task or a supervised one. Instances are immutable and have no arrays.

    A new task is a class of this shape, registered with `registry.register_task` (see
    docs/walks/task.md).

    Attributes:
      num_classes: classes of one answer; chance accuracy is its inverse. 0 where answers are no
        classes: `summarize` then gives `majority`, what answering without looking would score.
      input_channels: channels of `Examples.inputs`.
      dense: whether an answer is given for each pixel.
      records: whether its examples depend on the image's number, `record` in a batch.
      memorises: whether what is learned belongs to the training images: the task is then evaluated
        on them, without augmentation, because it has no answer for others.
      label_maps: whether it learns from the dataset's labels of pixels, (B, S, S) in a batch.
      whole_images: whether it can be evaluated on whole images, padded right and bottom.
      colours: whether it learns from the colours of images.
      single_reduction: whether its networks reduce once, not twice, to keep more resolution.
      metric: the name of the metric that tells which of two networks is better.
    """

    name: ClassVar[str]
    dense: ClassVar[bool] = False
    records: ClassVar[bool] = False
    memorises: ClassVar[bool] = False
    label_maps: ClassVar[bool] = False
    whole_images: ClassVar[bool] = False
    colours: ClassVar[bool] = False
    single_reduction: ClassVar[bool] = False
    metric: ClassVar[str] = "accuracy"
    num_classes: int
    input_channels: int

    @classmethod
    def validate(cls, config: TaskConfig) -> None:
        """Raises `UserError` for a config that this task cannot run."""

    @classmethod
    def create(cls, config: TaskConfig, dataset: Any) -> Self:
        """The task of a valid config on a `unnas_jax.data.Dataset`, of which it reads the facts."""

    def examples(self, key: jax.Array, batch: Batch, *, train: bool) -> Examples:
        """Makes the network's examples of a batch, on the device; augmented if `train`."""

    def with_seed(self, seed: jax.Array | int) -> Self:
        """The task that another seed makes: itself, unless draws are a part of it.

        The seed may be a number that is being traced, so that a program serves all seeds.
        """
        return self

    def input_side(self, crop: int) -> int:
        """The side of what the network sees of a crop, in pixels: less than it for tiles."""
        return crop

    def head(self, dtype: Any) -> nn.Module:
        """The last layers: `head(features (N, h', w', C), train) -> outputs`."""

    def score(self, outputs: Any, examples: Examples, *, train: bool) -> Sums:
        """Loss and correct answers of a batch, summed; the training loss is loss / count.

        In evaluation (not `train`) also what the task's other metrics need.
        """

    def summarize(self, sums: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        """The metrics of an evaluation from its batches' sums: loss, accuracy and `metric`."""
        return means(total(sums))

    def by_class(self, confusion: np.ndarray) -> tuple[str, np.ndarray]:
        """A share by class from an evaluation: its name and its values (K,).

        Args:
          confusion: (K, K), how often class i (row) was answered as j; from sums `confusion`.
        """
        return "accuracy", np.diag(confusion) / np.maximum(confusion.sum(axis=1), 1)

    def panels(self, examples: Examples, dataset: Any) -> list[list[Panel]]:
        """The examples of a batch as pictures with titles, a list for every image."""


def of_seed(task: Task, seed: jax.Array | int) -> Task:
    """`Task.with_seed` of a task; a class without it, such as one that wraps a task, is unchanged.

    An attribute that a wrapper passes on would give the task without its wrapper.
    """
    own = getattr(type(task), "with_seed", None)
    return task if own is None else own(task, seed)


def total(sums: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """The sums of several batches, added up on the host in float64 or int64."""
    names = sums[0] if sums else ()

    def exact(value: Any) -> np.ndarray:
        value = np.asarray(value)
        return value.astype(np.int64 if value.dtype.kind in "iu" else np.float64)

    return {name: np.sum([exact(batch[name]) for batch in sums], axis=0) for name in names}


def means(sums: Mapping[str, Any]) -> dict[str, float]:
    """Mean loss and accuracy from sums; 0 where nothing counted.

    Where `target_counts` are among the sums, also `majority`, the share of the most frequent class:
    the score of one answer to everything.
    """
    count = max(float(sums.get("count", 0.0)), 1.0)
    found = {
        "loss": float(sums.get("loss", 0.0)) / count,
        "accuracy": float(sums.get("correct", 0.0)) / count,
    }
    if "correct_top5" in sums:
        found["top5"] = float(sums["correct_top5"]) / count
    if "targets" in sums:
        found["majority"] = float(np.max(sums["targets"])) / max(float(np.sum(sums["targets"])), 1)
    return found


def evaluated(task: Task, outputs: Any, examples: Examples) -> Sums:
    """The score of a batch in evaluation, with the `targets` of tasks that answer with classes."""
    sums = task.score(outputs, examples, train=False)
    if not task.num_classes:
        return sums
    return {**sums, "targets": target_counts(examples, task.num_classes)}


def target_counts(examples: Examples, num_classes: int) -> jax.Array:
    """How often each class is the right answer, int32 (classes,): the sums' `targets`."""
    rows = (slice(None), *(None,) * (examples.targets.ndim - 1))
    counted = jnp.broadcast_to(examples.weights[rows] > 0, examples.targets.shape)
    inside = (examples.targets >= 0) & (examples.targets < num_classes)
    classes = jnp.where(counted & inside, examples.targets, num_classes).ravel()
    return jnp.bincount(classes, length=num_classes + 1)[:num_classes].astype(jnp.int32)


def image_weights(batch: Batch) -> jax.Array:
    """float32 (B,): the batch's mask, ones where it has none."""
    if "mask" in batch:
        return batch["mask"]
    return jnp.ones(batch["image"].shape[:1], jnp.float32)


def record_numbers(task: Task, batch: Batch) -> jax.Array:
    """int32 (B,): the batch's `record`; `UserError` if it has none."""
    if "record" not in batch:
        raise UserError(
            f"task {task.name!r}: needs the images' numbers; give batches with the key 'record', "
            "whole numbers that tell the images apart"
        )
    return batch["record"]


def refuse_auxiliary_head(config: TaskConfig, name: str) -> None:
    """Raises `UserError` for an auxiliary head, which answers with a class."""
    weight = config.network.auxiliary_weight
    if weight:
        raise UserError(
            f"config.network.auxiliary_weight={weight}: an auxiliary head answers with a class, "
            f"which is not the task {name!r}; use 0, for no auxiliary head"
        )


def explained(sums: Mapping[str, Any]) -> dict[str, float]:
    """Metrics of a regression from the sums of an evaluation: `accuracy` is the explained share.

    1 - `loss` / `squares`, but at least 0, where `squares` is the loss of answering 0 everywhere;
    that answer is the `majority`, whose share is 0.
    """
    squares = max(float(sums["squares"]), float(np.finfo(np.float32).tiny))
    share = max(0.0, 1.0 - float(sums["loss"]) / squares)
    return {**means(sums), "accuracy": share, "majority": 0.0}


def regression_sums(loss: jax.Array, squares: jax.Array, count: jax.Array) -> Sums:
    """`Sums` of a regression: `correct` over `count` is the batch's explained share of squares.

    The batch is the global one, inside of `sharding.by_device`, too.
    """
    tiny = np.finfo(np.float32).tiny
    left, all_squares = sharding.total(jax.lax.stop_gradient((loss, squares)))
    share = jnp.maximum(1.0 - left / jnp.maximum(all_squares, tiny), 0.0)
    return {"loss": loss, "correct": share * count, "count": count, "squares": squares}


def classification_score(
    logits: jax.Array, targets: jax.Array, weights: jax.Array, *, smoothing: float = 0.0
) -> Sums:
    """Softmax cross entropy and top-1 hits of logits (M, K) against classes (M,), summed.

    With smoothing e the true class has the probability 1 - e and each other one e / (K - 1). The
    first of several equal logits counts as the answer. Computed in float32.
    """
    logits = logits.astype(jnp.float32)
    log_probability = jax.nn.log_softmax(logits)
    nll = -jnp.take_along_axis(log_probability, targets[:, None], axis=-1)[:, 0]
    if smoothing:
        others = -jnp.sum(log_probability, axis=-1) - nll
        nll = (1.0 - smoothing) * nll + smoothing / (logits.shape[-1] - 1) * others
    hits = (jnp.argmax(logits, axis=-1) == targets).astype(jnp.float32)
    return {
        "loss": jnp.sum(nll * weights),
        "correct": jnp.sum(hits * weights),
        "count": jnp.sum(weights),
    }


def batch_shapes(
    task: Task, images: tuple[int, ...], crop: int
) -> dict[str, tuple[tuple[int, ...], Any]]:
    """The shapes and dtypes of a training batch as the feed makes it, by name.

    Args:
      task: the task, which says what it needs.
      images: how many, with leading axes if there are any.
      crop: their side.
    """
    label = ((*images, crop, crop), np.uint8) if task.label_maps else (images, np.int32)
    shapes = {"image": ((*images, crop, crop, 3), np.uint8), "label": label}
    if task.records:
        shapes["record"] = (images, np.int32)
    return shapes


def example_shapes(config: Config, task: Task, images: int = 1) -> Examples:
    """The shapes and dtypes of the examples that a batch of images becomes."""
    shapes = batch_shapes(task, (images,), Input.of(as_dict(config)["input"]).crop)
    batch = {name: jax.ShapeDtypeStruct(*shape) for name, shape in shapes.items()}
    return jax.eval_shape(lambda batch: task.examples(jax.random.key(0), batch, train=True), batch)

"""Draws the inputs of a network: `unnas-jax show --config=configs/X.py`.

One look at the sheet shows a broken pipeline. Every group of pictures is an image: first the crop
as it leaves the host, then what the task makes of it, with the targets in words.
"""

import os
from collections.abc import Sequence

import jax
import ml_collections
from absl import flags
from matplotlib.figure import Figure

from unnas_jax.analysis import style
from unnas_jax.commands import command_line
from unnas_jax.config import schema
from unnas_jax.config.options import Config
from unnas_jax.core import files
from unnas_jax.core.errors import UserError
from unnas_jax.data import Dataset, halves, open_dataset, pipeline
from unnas_jax.sweep import validation
from unnas_jax.tasks import base, registry

_COLUMNS = 10
_INCHES = 1.7  # The side of a picture.


def panels(
    config: Config, dataset: Dataset, images: int
) -> tuple[base.Task, list[list[base.Panel]]]:
    """The task of a config and, for each of some training images, its pictures.

    Args:
      config: of a search or a training.
      dataset: that of the config.
      images: how many.
    """
    c = schema.record(config)
    task = registry.create(c, dataset)
    half, _ = halves(len(dataset.splits["train"]), c.seed)
    batches = pipeline.train_batches(
        dataset.splits["train"],
        half,
        batch_size=images,
        crop=c.input.crop,
        resize=c.input.resize,
        train_crop=c.input.train_crop,
        apply_exif=dataset.apply_exif,
        seed=c.seed,
        start_step=0,
        workers=0,
        label_maps=task.label_maps,
        resampling=c.input.resampling,
        mirrored=c.input.mirrored,
    )
    batch = next(batches)
    batches.close()
    names = ("image", "label", *(("record",) if task.records else ()))
    columns = {name: batch[name] for name in names}
    examples = jax.jit(lambda key, batch: task.examples(key, batch, train=True))(
        jax.random.key(c.seed), columns
    )
    of_task = task.panels(jax.device_get(examples), dataset)
    return task, [
        [base.Panel("crop", image), *rest]
        for image, rest in zip(batch["image"], of_task, strict=True)
    ]


def sheet(groups: Sequence[Sequence[base.Panel]], title: str) -> bytes:
    """A PNG of groups of pictures of the same number."""
    width = len(groups[0])
    across = max(1, min(len(groups), _COLUMNS // width))
    down = -(-len(groups) // across)
    figure = Figure(
        figsize=(_INCHES * across * (width + 0.15), (_INCHES + 0.25) * down + 0.4),
        layout="constrained",
    )
    figure.suptitle(title, fontsize=9, color=style.INK)
    ratios = ([1.0] * width + [0.1]) * across
    axes = figure.subplots(down, len(ratios), squeeze=False, width_ratios=ratios)
    for axis in axes.flat:
        axis.axis("off")
    for number, group in enumerate(groups):
        row, column = divmod(number, across)
        for k, panel in enumerate(group):
            axis = axes[row, column * (width + 1) + k]
            axis.imshow(panel.image, interpolation="nearest")
            axis.set_title(panel.title, fontsize=6, color=style.INK, pad=2)
    return style.render(figure, "png")


def show(config: ml_collections.ConfigDict, path: str, images: int) -> None:
    """Writes the sheet of a config.

    Raises:
      UserError: bad input, or the file cannot be written.
    """
    if images < 1:
        raise UserError(f"--images={images}: must be at least 1")
    validation.validate(config)
    c = schema.record(config.to_dict())
    dataset = open_dataset(c.dataset)
    images = min(images, len(dataset.splits["train"]) // 2)
    if not images:
        raise UserError(f"config.dataset.name={dataset.name!r}: has less than two images")
    task, groups = panels(c, dataset, images)
    title = f"{task.name} on {dataset.name}: {c.input.train_crop} crops of {c.input.crop}, " + (
        f"{task.num_classes} classes" if task.num_classes else "no classes"
    )
    try:
        with files.replacing(path, "wb") as file:
            file.write(sheet(groups, title))
    except OSError as error:
        raise UserError(f"--out={path!r}: cannot be written ({error.strerror})") from error


def _define(values: flags.FlagValues) -> None:
    flags.DEFINE_string("out", "inputs.png", "The picture to write.", flag_values=values)
    flags.DEFINE_integer("images", 12, "Images on it.", flag_values=values)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status, 2 for a mistake of the user."""
    with command_line.user_errors() as outcome:
        values = command_line.parse_config(arguments, _define, __doc__)
        path = os.path.expanduser(values.out)
        show(values.config, path, values.images)
        print(os.path.abspath(path))
    return outcome.status

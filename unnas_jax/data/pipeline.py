"""Batches of uint8 crops for one process, a pure function of (seed, step), through Grain."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import grain
import numpy as np

from unnas_jax.core.errors import UserError
from unnas_jax.data import crops
from unnas_jax.data import workers as workers_lib
from unnas_jax.data.examples import EvalRow, TrainRow
from unnas_jax.data.order import Order
from unnas_jax.data.records import IMAGENET_MEAN, Records
from unnas_jax.data.workers import Batch

_MAX_THREADS = 16


@dataclasses.dataclass(frozen=True)
class _Rows:
    """This process's rows of all global batches, row by row -> global position."""

    batch_size: int  # Global.
    rows: int  # This process's share of a global batch.
    first: int
    make: Callable[[int], dict[str, Any]]

    def __call__(self, row: int) -> dict[str, Any]:
        step, offset = divmod(row, self.rows)
        return self.make(step * self.batch_size + self.first + offset)


@dataclasses.dataclass(frozen=True)
class _RowsOf:
    """Row by row of the batches of some steps, numbered from 0 -> this process's row."""

    steps: Sequence[int]
    rows: int
    row: _Rows

    def __call__(self, number: int) -> dict[str, Any]:
        place, offset = divmod(number, self.rows)
        return self.row(self.steps[place] * self.rows + offset)


@dataclasses.dataclass(frozen=True)
class _Steps:
    """Step -> this process's rows of its batch."""

    rows: int
    row: _Rows

    def __call__(self, step: int) -> list[dict[str, Any]]:
        return [self.row(k) for k in range(step * self.rows, (step + 1) * self.rows)]


class Batches(Protocol):
    """An iterator of batches."""

    def __iter__(self) -> Iterator[Batch]: ...

    def __next__(self) -> Batch: ...

    def close(self) -> None:
        """Ends the threads or processes that make batches ahead."""


def _batches(
    make: Callable[[int], dict[str, Any]],
    steps: Sequence[int],
    batch_size: int,
    workers: int,
    process_index: int,
    process_count: int,
) -> Batches:
    if batch_size % process_count:
        raise UserError(
            f"batch_size={batch_size}: is not divisible by the {process_count} processes"
        )
    rows = batch_size // process_count
    to_example = _Rows(batch_size, rows, process_index * rows, make)
    # A thread or process makes whole batches: the order then does not depend on their number.
    number = workers_lib.count(workers)
    if number:
        return workers_lib.Stream(_Steps(rows, to_example), steps, number)
    dataset = grain.MapDataset.range(len(steps) * rows).map(_RowsOf(steps, rows, to_example))
    batches = dataset.batch(rows, drop_remainder=True)
    threads = min(workers_lib.cores(), _MAX_THREADS)
    iterator: Batches = iter(batches.to_iter_dataset(grain.ReadOptions(threads, threads + 1)))
    return iterator


def train_batches(
    records: Records,
    indices: Sequence[int] | np.ndarray,
    *,
    batch_size: int,
    crop: int,
    resize: int,
    train_crop: str,
    apply_exif: bool,
    seed: int,
    start_step: int,
    workers: int,
    steps: Sequence[int] | None = None,
    process_index: int = 0,
    process_count: int = 1,
    label_maps: bool = False,
    resampling: str = "area",
    mirrored: bool = False,
) -> Batches:
    """Training batches without end, from step `start_step` on.

    Epoch e = step // steps_per_epoch goes through a permutation of `indices` drawn from (seed, e),
    and the crop at a global position (step x batch_size + row) is drawn from (seed, position):
    a batch depends on nothing but the arguments and its step, so that a run resumes exactly, with
    any number of workers, threads and processes.

    Args:
      records: where examples are read from.
      indices: the examples to train on, numbers into `records`.
      batch_size: of the global batch; process p of n gets its rows [p, p + 1) x batch_size / n.
      crop: side of the images.
      resize: short side before some crops.
      train_crop: a key of `crops.TRAIN_CROPS`.
      apply_exif: as `Dataset.apply_exif`.
      seed: of permutations and crops; give streams over different indices different seeds.
      start_step: the step of the first batch.
      workers: processes that decode, which all streams of the run share; 0: threads of this one;
        -1: by the number of cores.
      steps: of which steps batches are made, in order; None: of all from `start_step` on.
      process_index: this process, of `process_count`.
      process_count: processes that share every global batch.
      label_maps: crops the label map along with the image. Without, the maps of a dataset that
        has them stay encoded, and the labels are 0.
      resampling: one of `crops.RESAMPLINGS`.
      mirrored: mirrors crops left to right, and label maps not.

    Returns:
      An iterator with a method `close()` of {'image': uint8 (b, crop, crop, 3), 'label': int32
      (b,) or, with `label_maps`, uint8 (b, crop, crop), 'record': int32 (b,), the example's
      number in `records`}.

    Raises:
      UserError: there are fewer examples than a batch has, the batch cannot be shared, or, while
        iterating, an image does not decode.
    """
    numbers = np.asarray(indices)
    if len(numbers) < batch_size:
        raise UserError(
            f"batch_size={batch_size}: is larger than the {len(numbers)} images to train on; "
            "use a smaller batch or more images"
        )
    order = Order(numbers, batch_size, seed)
    make = TrainRow(
        records,
        order,
        crop,
        resize,
        train_crop,
        apply_exif,
        seed,
        label_maps,
        resampling,
        mirrored,
    )
    if steps is None:
        steps = range(start_step, start_step + 2**40)
    return _batches(make, steps, batch_size, workers, process_index, process_count)


def eval_batches(
    records: Records,
    indices: Sequence[int] | np.ndarray,
    *,
    batch_size: int,
    crop: int | tuple[int, int],
    resize: int,
    apply_exif: bool,
    workers: int,
    process_index: int = 0,
    process_count: int = 1,
    label_maps: bool = False,
    eval_crop: str = "centre",
    resampling: str = "area",
    mirrored: bool = False,
    padding: Sequence[float] = IMAGENET_MEAN,
) -> Batches:
    """One pass over `indices` in order; the last batch is padded, never dropped.

    Args:
      records: where examples are read from.
      indices: the examples to evaluate on.
      batch_size: of the global batch.
      crop: side of the images, or height and width of 'whole' ones.
      resize: short side before the central crop.
      apply_exif: as `Dataset.apply_exif`.
      workers: processes that decode.
      process_index: this process.
      process_count: processes that share every global batch.
      label_maps: labels are maps.
      eval_crop: 'centre', the central square; or 'whole', all of the image at its own scale,
        padded right and bottom to `crop` with the colour `padding` and the label 255.
      resampling: one of `crops.RESAMPLINGS`.
      mirrored: mirrors crops and whole images left to right, and label maps not.
      padding: RGB in [0, 1]; the mean colour is zero once it is normalised, to half a gray level.

    Returns:
      An iterator with a method `close()` of {'image': uint8 (b, height, width, 3), 'label': int32
      (b,) or, with `label_maps`, uint8 (b, height, width), 'record': int32 (b,), the example's
      number in `records` (0 for padding), 'mask': float32 (b,), 1 for an image and 0 for
      padding}.

    Raises:
      UserError: the batch cannot be shared, or, while iterating, an image does not decode or is
        larger than it may be.
    """
    numbers = np.asarray(indices)
    size = (crop, crop) if isinstance(crop, int) else (crop[0], crop[1])
    if eval_crop not in crops.EVAL_CROPS:
        raise ValueError(f"eval_crop={eval_crop!r}: use one of {crops.EVAL_CROPS}")
    if eval_crop == "centre" and size[0] != size[1]:
        raise ValueError(f"crop={crop}: the central crop is a square")
    make = EvalRow(
        records,
        numbers,
        size,
        resize,
        apply_exif,
        label_maps,
        eval_crop,
        resampling,
        mirrored,
        tuple(round(255 * value) for value in padding),
    )
    steps = range(-(-len(numbers) // batch_size))
    return _batches(make, steps, batch_size, workers, process_index, process_count)

"""Batches of uint8 crops for one process, a pure function of (seed, step), through Grain."""

import collections
import dataclasses
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import grain
import numpy as np

from unnas_jax.core.errors import UserError
from unnas_jax.data import crops, decoding
from unnas_jax.data import workers as workers_lib
from unnas_jax.data.records import IMAGENET_MEAN, Records, describe
from unnas_jax.data.workers import Batch

# The purpose of a draw. Its entropy is the seed, the purpose and, where there are several, a
# number; always in this order, or an epoch's shuffle (seed, 2, epoch 3) and a crop (seed, position
# 2, 3) would draw the same bits. `unnas_jax.data.subsets` has 4.
_HALVES, _SHUFFLE, _CROP, _EVALUATION = 1, 2, 3, 5

_MAX_THREADS = 16


def permutation(count: int, *entropy: int) -> np.ndarray:
    """A permutation of range(count), int32: the order of `count` random 64-bit numbers.

    From the raw output of PCG64, which NumPy never changes, unlike the methods of its generators:
    the same on every machine and in every version. (Grain's constant-memory `index_shuffle` is
    neither uniform for small counts nor sure to return: 0.2.18 loops for ever in
    `index_shuffle(1, max_index=3, seed=645445395, rounds=4)`.)
    """
    bits = np.random.PCG64(np.random.SeedSequence(entropy)).random_raw(count)
    return np.argsort(bits, kind="stable").astype(np.int32)


def halves(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Cuts `count` examples in two equal halves, A for the weights and B for the alphas.

    One permutation that depends on nothing but the arguments; of an odd count one example is left
    out. The halves are in random order: any prefix is a fair sample.

    Returns:
      Two int32 arrays of count // 2 example numbers.
    """
    order = permutation(count, seed, _HALVES)
    half = count // 2
    return order[:half], order[half : 2 * half]


def evaluation_sample(indices: np.ndarray, max_images: int, seed: int) -> np.ndarray:
    """At most `max_images` of the examples, drawn at random, in their old order.

    Records are in the order of their names, and so of their classes: a prefix would have few
    classes. The draw depends on nothing but the arguments; a smaller sample is a part of a larger
    one.

    Args:
      indices: of all examples.
      max_images: how many; -1: all.
      seed: of the draw.
    """
    if max_images < 0:
        return indices
    drawn = permutation(len(indices), seed, _EVALUATION)[:max_images]
    return indices[np.sort(drawn)]


def steps_per_epoch(count: int, batch_size: int) -> int:
    """Whole batches in `count` examples; the rest is left to the next epoch's permutation."""
    return count // batch_size


class _Order:
    """Global position -> example, by a permutation of `indices` that is new in every epoch."""

    def __init__(self, indices: np.ndarray, batch_size: int, seed: int) -> None:
        self._indices, self._seed = indices, seed
        self._epoch_length = steps_per_epoch(len(indices), batch_size) * batch_size
        # Two epochs, because threads that prefetch stand on both sides of the border.
        self._cache: collections.OrderedDict[int, np.ndarray] = collections.OrderedDict()
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_cache", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _cache=collections.OrderedDict(), _lock=threading.Lock())

    def __call__(self, position: int) -> int:
        epoch, offset = divmod(position, self._epoch_length)
        with self._lock:
            order = self._cache.get(epoch)
            if order is None:
                order = permutation(len(self._indices), self._seed, _SHUFFLE, epoch)
                self._cache[epoch] = order
                while len(self._cache) > 2:
                    self._cache.popitem(last=False)
        return int(self._indices[order[offset]])


def _image(records: Records, i: int, data: bytes, apply_exif: bool, factor: int = 1) -> np.ndarray:
    """Record i's image, its sides divided by a factor.

    Raises:
      UserError: naming the record, if it does not decode.
    """
    try:
        if factor > 1:
            return decoding.decode_reduced(data, factor, apply_exif=apply_exif)
        return decoding.decode(data, apply_exif=apply_exif)
    except ValueError as error:
        raise UserError(
            f"dataset: the image of {describe(records, i)} {error}; repair or remove it"
        ) from error
    except MemoryError as error:
        raise UserError(
            f"dataset: there is too little memory for the image of {describe(records, i)}; use "
            "fewer config.workers, a smaller batch or smaller images"
        ) from error


def _answer(
    records: Records, i: int, label: Any, label_maps: bool, size: tuple[int, ...]
) -> np.ndarray | int:
    """Record i's label, or its label map for an image of a size.

    Raises:
      UserError: naming the record, if its label map does not decode or does not fit.
    """
    if not label_maps:
        return 0 if isinstance(label, crops.LabelMap) else label
    if not isinstance(label, crops.LabelMap):
        raise UserError(
            f"dataset: {describe(records, i)} has no label map; use a dataset for segmentation"
        )
    try:
        classes = label.decode()
        if classes.shape != size:
            sizes = " and ".join(f"{a[1]} x {a[0]}" for a in (classes.shape, size))
            raise ValueError(f"and the image differ in size ({sizes})")
    except ValueError as error:
        raise UserError(
            f"dataset: the label map of {describe(records, i)} {error}; prepare the dataset again"
        ) from error
    return classes


def _read(
    records: Records, i: int, apply_exif: bool, label_maps: bool
) -> tuple[np.ndarray, np.ndarray | int]:
    """Record i's image and label or label map.

    Raises:
      UserError: naming the record, if it does not decode or its parts do not fit.
    """
    record = records[i]
    image = _image(records, i, record["image"], apply_exif)
    return image, _answer(records, i, record["label"], label_maps, image.shape[:2])


@dataclasses.dataclass(frozen=True)
class _TrainRow:
    """Global position -> training example."""

    records: Records
    order: Callable[[int], int]
    size: int
    resize: int
    train_crop: str
    apply_exif: bool
    seed: int
    label_maps: bool
    resampling: str
    mirrored: bool

    def __call__(self, position: int) -> dict[str, Any]:
        number = self.order(position)
        record = self.records[number]
        factor, size = self._plan(record["image"], position)
        image = _image(self.records, number, record["image"], self.apply_exif, factor)
        if factor > 1 and image.shape[:2] != tuple(-(-side // factor) for side in size):
            # Two readers of a damaged orientation may disagree.
            factor = 1
            image = _image(self.records, number, record["image"], self.apply_exif)
        label = _answer(self.records, number, record["label"], self.label_maps, image.shape[:2])
        if factor > 1:
            box = crops.reduced(self._box(position, *size), factor)
        else:
            box = self._box(position, image.shape[0], image.shape[1])
        return {
            **_cut(image, label, box, self.size, self.resampling, self.mirrored),
            "record": np.int32(number),
        }

    def _box(self, position: int, height: int, width: int) -> crops.Box:
        rng = np.random.default_rng((self.seed, _CROP, position))
        return crops.TRAIN_CROPS[self.train_crop](height, width, self.size, self.resize, rng)

    def _plan(self, data: bytes, position: int) -> tuple[int, tuple[int, int]]:
        """By how much to shrink an image while it is decoded, and its size if by more than 1."""
        if self.label_maps or self.resampling != "area":
            return 1, (0, 0)
        least = crops.LEAST_REDUCED * self.size
        size = decoding.jpeg_size(data, least, apply_exif=self.apply_exif)
        if size is None:
            return 1, (0, 0)
        return crops.reduction(self._box(position, *size), self.size), size


def _cut(
    image: np.ndarray,
    label: np.ndarray | int,
    box: crops.Box,
    size: int,
    resampling: str,
    mirrored: bool,
) -> dict[str, Any]:
    """The region of the image, and its class or the region of the label map."""
    region = crops.cut(image, box, size, resampling)
    if mirrored:
        region = _mirror(region)
    if isinstance(label, np.ndarray):
        return {"image": region, "label": crops.cut_map(label, box, size, resampling)}
    return {"image": region, "label": np.int32(label)}


def _mirror(image: np.ndarray) -> np.ndarray:
    """(height, width, 3), left to right."""
    return np.ascontiguousarray(image[:, ::-1])


@dataclasses.dataclass(frozen=True)
class _EvalRow:
    """Position in `indices` -> evaluation example, or padding behind their end."""

    records: Records
    indices: np.ndarray
    size: tuple[int, int]
    resize: int
    apply_exif: bool
    label_maps: bool
    eval_crop: str
    resampling: str
    mirrored: bool
    padding: tuple[int, ...]

    def __call__(self, position: int) -> dict[str, Any]:
        real = position < len(self.indices)
        number = int(self.indices[position]) if real else 0
        if real:
            example = self._example(number)
        else:
            image = np.zeros((*self.size, 3), np.uint8)
            label = np.full(self.size, crops.IGNORE, np.uint8) if self.label_maps else np.int32(0)
            example = {"image": image, "label": label}
        return {**example, "record": np.int32(number), "mask": np.float32(real)}

    def _example(self, i: int) -> dict[str, Any]:
        image, label = _read(self.records, i, self.apply_exif, self.label_maps)
        if self.eval_crop == "centre":
            box = crops.centre_box(image.shape[0], image.shape[1], self.size[0], self.resize)
            return _cut(image, label, box, self.size[0], self.resampling, self.mirrored)
        try:
            # Mirrored first: the padding stays at the right.
            padded = crops.pad(_mirror(image) if self.mirrored else image, *self.size, self.padding)
        except ValueError as error:
            raise UserError(
                f"dataset: the image of {describe(self.records, i)} {error}; evaluate on larger "
                "images"
            ) from error
        if isinstance(label, np.ndarray):
            return {"image": padded, "label": crops.pad(label, *self.size, crops.IGNORE)}
        return {"image": padded, "label": np.int32(label)}


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
    order = _Order(numbers, batch_size, seed)
    make = _TrainRow(
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
    make = _EvalRow(
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

"""Batches of uint8 crops for one process, a pure function of (seed, step), through Grain."""

import collections
import dataclasses
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from typing import Any

import grain
import numpy as np
from absl import flags

from unnas_jax.core.errors import UserError
from unnas_jax.data import crops
from unnas_jax.data.registry import IMAGENET_MEAN, Records, describe

Batch = dict[str, np.ndarray]

# What a draw is for; with the seed and a number it makes the entropy of that draw.
_HALVES, _SHUFFLE, _CROP = 1, 2, 3

_MAX_THREADS = 16
_MAX_WORKERS = 16


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


def _read(
    records: Records, i: int, apply_exif: bool, label_maps: bool
) -> tuple[np.ndarray, np.ndarray | int]:
    """Record i's image and label or label map.

    Raises:
      UserError: naming the record, if it does not decode or its parts do not fit.
    """
    record = records[i]
    label = record["label"]
    try:
        image = crops.decode(record["image"], apply_exif=apply_exif)
    except ValueError as error:
        raise UserError(
            f"dataset: the image of {describe(records, i)} {error}; repair or remove it"
        ) from error
    if not label_maps:
        return image, 0 if isinstance(label, crops.LabelMap) else label
    if not isinstance(label, crops.LabelMap):
        raise UserError(
            f"dataset: {describe(records, i)} has no label map; use a dataset for segmentation"
        )
    try:
        classes = label.decode()
        if classes.shape != image.shape[:2]:
            sizes = " and ".join(f"{a.shape[1]} x {a.shape[0]}" for a in (classes, image))
            raise ValueError(f"and the image differ in size ({sizes})")
    except ValueError as error:
        raise UserError(
            f"dataset: the label map of {describe(records, i)} {error}; prepare the dataset again"
        ) from error
    return image, classes


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

    def __call__(self, position: int) -> dict[str, Any]:
        image, label = _read(self.records, self.order(position), self.apply_exif, self.label_maps)
        rng = np.random.default_rng((self.seed, position, _CROP))
        height, width = image.shape[:2]
        box = crops.TRAIN_CROPS[self.train_crop](height, width, self.size, self.resize, rng)
        # 31 bits, so that the device may take the number as int32.
        return {
            "image": crops.cut(image, box, self.size),
            "label": _cut_label(label, box, self.size),
            "index": np.int32(position % 2**31),
        }


def _cut_label(label: np.ndarray | int, box: crops.Box, size: int) -> np.ndarray | np.int32:
    """The class, or the region of the label map."""
    return crops.cut_map(label, box, size) if isinstance(label, np.ndarray) else np.int32(label)


# Where an evaluation image is padded: zero once it is normalised, to half a gray level.
_PADDING = tuple(round(255 * value) for value in IMAGENET_MEAN)


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

    def __call__(self, position: int) -> dict[str, Any]:
        real = position < len(self.indices)
        if real:
            image, label = self._example(int(self.indices[position]))
        else:
            image = np.zeros((*self.size, 3), np.uint8)
            label = np.full(self.size, crops.IGNORE, np.uint8) if self.label_maps else np.int32(0)
        index, mask = np.int32(position), np.float32(real)
        return {"image": image, "label": label, "index": index, "mask": mask}

    def _example(self, i: int) -> tuple[np.ndarray, np.ndarray | np.int32]:
        image, label = _read(self.records, i, self.apply_exif, self.label_maps)
        if self.eval_crop == "centre":
            box = crops.centre_box(image.shape[0], image.shape[1], self.size[0], self.resize)
            return crops.cut(image, box, self.size[0]), _cut_label(label, box, self.size[0])
        try:
            padded = crops.pad(image, *self.size, _PADDING)
        except ValueError as error:
            raise UserError(
                f"dataset: the image of {describe(self.records, i)} {error}; evaluate on larger "
                "images"
            ) from error
        if isinstance(label, np.ndarray):
            return padded, crops.pad(label, *self.size, crops.IGNORE)
        return padded, np.int32(label)


@dataclasses.dataclass(frozen=True)
class _Rows:
    """This process's rows of all global batches, row by row -> global position."""

    batch_size: int  # Global.
    rows: int  # Of a global batch, this process's.
    first: int
    make: Callable[[int], dict[str, Any]]

    def __call__(self, row: int) -> dict[str, Any]:
        step, offset = divmod(row, self.rows)
        return self.make(step * self.batch_size + self.first + offset)


def cores() -> int:
    """Cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _num_workers(workers: int) -> int:
    """Processes for `workers`, a number or -1: by the number of cores.

    Decoding and resizing leave Python's lock, so that threads share few cores well, start at once
    and copy nothing. The rest of an example (reading, parsing, drawing) holds the lock for about a
    tenth of the time: beyond some eight threads it is what they all wait for, and the training
    loop with them. From 5 cores on, then, processes: for half of the cores, which often are only
    hyperthreads, and because the main process and the backend need some.
    """
    if workers >= 0:
        return workers
    available = cores()
    return 0 if available <= 4 else min(available // 2, _MAX_WORKERS)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def start_worker(index: int = 0, count: int = 1) -> None:
    """Runs in every process that decodes, before it does."""
    del index, count
    # Ctrl-C goes to the whole group, and so does the end of a terminal: the main process alone
    # decides what they mean.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    # A main process that is killed cannot close its workers, and they would wait for it for ever.
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _batches(
    make: Callable[[int], dict[str, Any]],
    start_step: int,
    stop_step: int,
    batch_size: int,
    workers: int,
    process_index: int,
    process_count: int,
) -> "grain.DatasetIterator[Batch]":
    if batch_size % process_count:
        raise UserError(
            f"batch_size={batch_size}: is not divisible by the {process_count} processes"
        )
    rows = batch_size // process_count
    to_example = _Rows(batch_size, rows, process_index * rows, make)
    # Batches are made here, before the threads and processes, each of which makes whole batches:
    # the order then does not depend on their number.
    dataset = grain.MapDataset.range(start_step * rows, stop_step * rows).map(to_example)
    batches = dataset.batch(rows, drop_remainder=True)
    workers = _num_workers(workers)
    if workers == 0:
        threads = min(cores(), _MAX_THREADS)
        return iter(batches.to_iter_dataset(grain.ReadOptions(threads, threads + 1)))
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # Grain reads its flags; a notebook or test parses none.
    # Every process works on one batch and has one ready, so that memory stays bounded.
    options = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=1)
    inline = batches.to_iter_dataset(grain.ReadOptions(0, 0))
    return iter(inline.mp_prefetch(options, worker_init_fn=start_worker))


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
    process_index: int = 0,
    process_count: int = 1,
    label_maps: bool = False,
) -> "grain.DatasetIterator[Batch]":
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
      workers: processes that decode; 0: threads of this one; -1: by the number of cores.
      process_index: this process, of `process_count`.
      process_count: processes that share every global batch.
      label_maps: crops the label map along with the image. Without, the maps of a dataset that
        has them stay encoded, and the labels are 0.

    Returns:
      An iterator with a method `close()` of {'image': uint8 (b, crop, crop, 3), 'label': int32
      (b,) or, with `label_maps`, uint8 (b, crop, crop), 'index': int32 (b,), the global position,
      to fold into random keys}.

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
    make = _TrainRow(records, order, crop, resize, train_crop, apply_exif, seed, label_maps)
    no_end = start_step + 2**40
    return _batches(make, start_step, no_end, batch_size, workers, process_index, process_count)


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
) -> "grain.DatasetIterator[Batch]":
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
        padded right and bottom to `crop` with the mean colour and the label 255.

    Returns:
      An iterator with a method `close()` of {'image': uint8 (b, height, width, 3), 'label': int32
      (b,) or, with `label_maps`, uint8 (b, height, width), 'index': int32 (b,), the position in
      `indices`, 'mask': float32 (b,), 1 for an image and 0 for padding}.

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
    make = _EvalRow(records, numbers, size, resize, apply_exif, label_maps, eval_crop)
    steps = -(-len(numbers) // batch_size)
    return _batches(make, 0, steps, batch_size, workers, process_index, process_count)

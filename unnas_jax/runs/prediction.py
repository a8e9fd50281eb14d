"""Predictions of a trained network for image files: in batches, with unreadable files named."""

import concurrent.futures
import dataclasses
import itertools
import logging
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import cv2
import jax
import jax.numpy as jnp
import numpy as np

from unnas_jax.core.errors import UserError
from unnas_jax.core.words import counted
from unnas_jax.data import crops, decoding, verify
from unnas_jax.data.workers import cores
from unnas_jax.runs.trained import Trained
from unnas_jax.tasks import dense

_LOG = logging.getLogger("unnas_jax")

_SIDES = 32  # Sides of whole images are padded to multiples of it: fewer shapes to compile for.
_EVERY_S = 10.0  # Between two lines of progress.


@dataclasses.dataclass(frozen=True)
class Answer:
    """The prediction for a file.

    Attributes:
      path: of the file.
      probabilities: float32 (classes,); for label maps the share of the pixels of each class.
      label_map: uint8 (H, W), the class of every pixel of the image; None for classes of images.
      image: uint8 (H, W, 3) where there is a label map.
      problem: why the file cannot be used; '' if it can.
    """

    path: str
    probabilities: np.ndarray | None = None
    label_map: np.ndarray | None = None
    image: np.ndarray | None = None
    problem: str = ""


@dataclasses.dataclass(frozen=True)
class _Prepared:
    """A file ready for the network.

    Attributes:
      crop: uint8 (h, w, 3), padded.
      content: the height and width of the crop that are the image's.
    """

    path: str
    crop: np.ndarray | None = None
    content: tuple[int, int] = (0, 0)
    image: np.ndarray | None = None
    problem: str = ""


def answers(trained: Trained, paths: Sequence[str], batch_size: int) -> Iterator[Answer]:
    """The predictions of a trained network for files, in their order; a generator.

    Images are turned upright as their EXIF orientation says. For classes of images it sees the crop
    that the evaluation saw; for label maps all of the image, at the evaluation's scale.

    Raises:
      UserError: the network was trained to answer neither with classes of images nor of pixels.
    """
    name = trained.config.task.name
    if name not in ("classification", "segmentation"):
        raise UserError(
            f"workdir {trained.name}: its network answers the task {name!r}, not with classes of "
            "images or pixels; train one with --config.task.name=classification"
        )
    progress = _Progress(len(paths))
    predict = jax.jit(_of_classes(trained) if name == "classification" else _of_pixels(trained))
    _, variables = trained.module()
    variables = jax.device_put(variables)
    with concurrent.futures.ThreadPoolExecutor(max(cores(), 1)) as pool:
        for batch in _batches(_prepared(trained, paths, pool, 4 * batch_size), batch_size):
            stacked = _stacked(batch, batch_size)
            found = None if stacked is None else jax.device_get(predict(variables, stacked))
            progress.add(len(batch))
            yield from _answers(batch, found)
    progress.end()


def _of_classes(trained: Trained) -> Any:
    module, _ = trained.module()
    preprocessing = trained.preprocessing

    def probabilities(variables: Any, images: jax.Array) -> jax.Array:
        outputs: Any = module.apply(variables, preprocessing.inputs(images))
        return jax.nn.softmax(outputs.astype(jnp.float32))

    return probabilities


def _of_pixels(trained: Trained) -> Any:
    module, _ = trained.module()
    preprocessing = trained.preprocessing

    def label_maps(variables: Any, images: jax.Array) -> jax.Array:
        outputs: Any = module.apply(variables, preprocessing.inputs(images))
        logits = dense.upsample(outputs, (images.shape[1], images.shape[2]))
        return jnp.argmax(logits, axis=-1).astype(jnp.uint8)

    return label_maps


def _prepared(
    trained: Trained,
    paths: Sequence[str],
    pool: concurrent.futures.Executor,
    ahead: int,
) -> Iterator[_Prepared]:
    """The files in their order, decoded by some threads, so many ahead of their use."""
    left = iter(paths)
    waiting = [pool.submit(_prepare, trained, path) for path in itertools.islice(left, ahead)]
    while waiting:
        yield waiting.pop(0).result()
        waiting += [pool.submit(_prepare, trained, path) for path in itertools.islice(left, 1)]


def _prepare(trained: Trained, path: str) -> _Prepared:
    try:
        with open(path, "rb") as file:
            data = file.read()
        with decoding.open_header(data) as header:
            verify.pixels(header, trained.config.dataset.max_pixels)
        problem = verify.examine(data).reason
        if problem:
            return _Prepared(path, problem=problem)
        image = decoding.decode(data, apply_exif=True)
    except OSError as error:
        return _Prepared(path, problem=f"cannot be read ({error.strerror})")
    except ValueError as error:
        return _Prepared(path, problem=str(error))
    except MemoryError:
        return _Prepared(path, problem="needs more memory than there is")
    if not trained.task.label_maps:
        return _Prepared(path, trained.preprocessing.crop(image))
    crop, content = _whole(trained, image)
    return _Prepared(path, crop, content, image)


def _whole(trained: Trained, image: np.ndarray) -> tuple[np.ndarray, tuple[int, int]]:
    """All of an image at the scale of the evaluation, padded; and the size before the padding."""
    section, evaluation = trained.config.input, trained.config.eval
    height, width = image.shape[:2]
    padded = (0, 0)
    if evaluation.crop == "whole":
        padded = evaluation.whole_size
    else:
        scale = section.resize / min(height, width)
        size = max(1, round(height * scale)), max(1, round(width * scale))
        image = crops.resized(image, size, section.resampling)
        height, width = size
    if height > padded[0] or width > padded[1]:
        padded = -(-height // _SIDES) * _SIDES, -(-width // _SIDES) * _SIDES
    return crops.pad(image, *padded, trained.preprocessing.padding), (height, width)


def _batches(prepared: Iterable[_Prepared], batch_size: int) -> Iterator[list[_Prepared]]:
    """Runs of files whose crops have one shape, with the broken files among them."""
    batch: list[_Prepared] = []
    shape: tuple[int, ...] | None = None
    for each in prepared:
        new = shape if each.crop is None else each.crop.shape
        if batch and (len(batch) == batch_size or (shape is not None and new != shape)):
            yield batch
            batch = []
        batch.append(each)
        shape = new
    if batch:
        yield batch


def _stacked(batch: Sequence[_Prepared], batch_size: int) -> np.ndarray | None:
    """The crops of the files that have one, and the last again: batches of one shape."""
    found = [each.crop for each in batch if each.crop is not None]
    return np.stack(found + found[-1:] * (batch_size - len(found))) if found else None


def _answers(batch: Sequence[_Prepared], found: np.ndarray | None) -> Iterator[Answer]:
    rows = iter(()) if found is None else iter(found)
    for each in batch:
        if each.crop is None:
            yield Answer(each.path, problem=each.problem)
        elif each.image is None:
            yield Answer(each.path, next(rows))
        else:
            height, width = each.image.shape[:2]
            classes = next(rows)[: each.content[0], : each.content[1]]
            nearest = cv2.INTER_NEAREST_EXACT
            classes = cv2.resize(classes, (width, height), interpolation=nearest)
            shares = np.bincount(classes.ravel(), minlength=256) / classes.size
            yield Answer(each.path, shares.astype(np.float32), classes, each.image)


class _Progress:
    """Lines on how many files are done, at what rate, and the time left."""

    def __init__(self, total: int) -> None:
        self._total, self._done, self._first = total, 0, 0
        self._start = self._said = time.monotonic()

    def add(self, count: int) -> None:
        """Counts files; the rate is that after the first batch, with which XLA compiles."""
        now = time.monotonic()
        if not self._done:
            self._first, self._start = count, now
        self._done += count
        if now - self._said < _EVERY_S or self._done == self._total:
            return
        self._said = now
        rate = self._rate(now)
        left = f", {(self._total - self._done) / rate:.0f} s left" if rate else ""
        _LOG.info("%s of %s images%s%s.", f"{self._done:,}", f"{self._total:,}", _words(rate), left)

    def end(self) -> None:
        """Says how many there were."""
        rate = self._rate(time.monotonic())
        _LOG.info("%s%s.", counted(self._done, "image"), _words(rate))

    def _rate(self, now: float) -> float:
        return (self._done - self._first) / max(now - self._start, 1e-9)


def _words(rate: float) -> str:
    return f", {rate:.1f} images/s" if rate else ""


def write_label_map(directory: str, answer: Answer, name: str, colors: np.ndarray) -> list[str]:
    """Writes an answer's label map, and the image with the classes' colours over it.

    Args:
      directory: where the files go; it is made.
      answer: with a label map.
      name: of the files, without an ending; may have directories.
      colors: uint8 (256, 3).

    Returns:
      The paths: NAME.png, of the class numbers, and NAME_overlay.jpg.
    """
    assert answer.label_map is not None and answer.image is not None
    overlay = cv2.addWeighted(answer.image, 0.5, colors[answer.label_map], 0.5, 0.0)
    paths = []
    for end, pixels in ((".png", answer.label_map), ("_overlay.jpg", overlay[..., ::-1])):
        path = os.path.join(directory, f"{name}{end}")
        try:
            os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
            _, data = cv2.imencode(end[end.index(".") :], pixels)
            with open(path, "wb") as file:
                file.write(data.tobytes())
        except OSError as error:
            raise UserError(f"--output: cannot write {path} ({error.strerror})") from error
        paths.append(path)
    return paths

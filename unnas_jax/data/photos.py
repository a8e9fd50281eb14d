"""The embedded dataset `photos`: crops of the colour photographs in packages that are installed.

Eleven photographs (people, an animal, things, a building, the sky, tissue) come with scikit-image,
scikit-learn and Matplotlib. Each is cut by a vertical line: training crops come from its left and
test crops from its right, so that they share no pixel. The label is the number of the photograph.
"""

import contextlib
import importlib.util
import io
import logging
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import tensorflow_datasets as tfds

from unnas_jax.config.sections import DatasetSection
from unnas_jax.core import extras, files
from unnas_jax.core.errors import UserError
from unnas_jax.data import crops, decoding, tfds_source
from unnas_jax.data.records import Dataset

_LOG = logging.getLogger("unnas_jax")

# Package and file. All are photographs with colour; drawings, gray images and the second picture
# of the stereo pair `motorcycle` are left out.
_SOURCES = (
    ("scikit-image", "skimage", "data/astronaut.png"),
    ("scikit-image", "skimage", "data/chelsea.png"),
    ("scikit-learn", "sklearn", "datasets/images/china.jpg"),
    ("scikit-image", "skimage", "data/coffee.png"),
    ("scikit-learn", "sklearn", "datasets/images/flower.jpg"),
    ("matplotlib", "matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
    ("scikit-image", "skimage", "data/hubble_deep_field.jpg"),
    ("scikit-image", "skimage", "data/ihc.png"),
    ("scikit-image", "skimage", "data/motorcycle_left.png"),
    ("scikit-image", "skimage", "data/retina.jpg"),
    ("scikit-image", "skimage", "data/rocket.jpg"),
)
NAMES = tuple(pathlib.PurePosixPath(file).stem for _, _, file in _SOURCES)
CROPS = {"train": 280, "test": 56}
"""Crops per photograph and split: 3,080 and 616 in all."""

SIDE = 96
"""Stored pixels a side: three times a crop of 32 pixels, twice one of 48."""

_QUALITY = 90
_SEED = 20200823
# Pixels between the two sides: a 16 x 16 block of a JPEG that is coded as one lies on one of them.
GAP = 16
_TEST_SHARE = 1 / 3


def find_photographs() -> tuple[pathlib.Path, ...]:
    """The files of the photographs, in the order of `NAMES`.

    Raises:
      UserError: a package is not installed or does not have its photograph.
    """
    extras.require("photos", "config.dataset.name='photos'")
    paths = []
    for distribution, module, file in _SOURCES:
        spec = importlib.util.find_spec(module)  # Not an import, which would take a second.
        assert spec is not None and spec.submodule_search_locations
        path = pathlib.Path(spec.submodule_search_locations[0], file)
        if not path.is_file():
            raise UserError(
                f"config.dataset.name='photos': {distribution} has no file {file} here; install it "
                f"anew with: pip install --force-reinstall {distribution}"
            )
        paths.append(path)
    return tuple(paths)


def region(split: str, width: int) -> tuple[int, int]:
    """The columns [first, last) of a photograph of `width` pixels that a split's crops lie in."""
    test = width - round(width * _TEST_SHARE)
    return (0, test - GAP) if split == "train" else (test, width)


def boxes(photograph: int, split: str, height: int, width: int) -> np.ndarray:
    """The crops of a photograph: int (count, 3), the rows (top, left, side) in pixels.

    Sides are log-uniform, from `SIDE` (so that nothing is enlarged) or a quarter of the short side
    of the photograph to all of its region.
    """
    first, last = region(split, width)
    rng = np.random.default_rng((_SEED, photograph, list(CROPS).index(split)))
    largest = min(height, last - first)
    smallest = min(largest, max(SIDE, min(height, width) // 4))
    count = CROPS[split]
    sides = np.exp(rng.uniform(np.log(smallest), np.log(largest), count)).round().astype(int)
    return np.stack(
        [rng.integers(height - sides + 1), rng.integers(first, last - sides + 1), sides], axis=1
    )


class Photos(tfds.core.GeneratorBasedBuilder):
    """Crops of photographs as JPEGs of `SIDE` pixels; prepares without TensorFlow."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            description="Crops of the colour photographs that Python packages ship.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(SIDE, SIDE, 3), encoding_format="jpeg"),
                    "label": tfds.features.ClassLabel(names=list(NAMES)),
                    # Top, left and side in the photograph.
                    "box": tfds.features.Tensor(shape=(3,), dtype=np.int32),
                }
            ),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[str, dict[str, Any]]]]:
        del dl_manager
        photographs = [
            decoding.decode(path.read_bytes(), apply_exif=False) for path in find_photographs()
        ]
        return {split: self._generate_examples(photographs, split) for split in CROPS}

    def _generate_examples(
        self, photographs: list[np.ndarray], split: str
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        for label, image in enumerate(photographs):
            for k, box in enumerate(boxes(label, split, *image.shape[:2])):
                top, left, side = box
                crop = crops.centre_crop(image[top : top + side, left : left + side], SIDE, SIDE)
                bgr = cv2.cvtColor(crop, cv2.COLOR_RGB2BGR)
                _, jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
                yield (
                    f"{NAMES[label]}_{k:04d}",
                    {"image": jpeg.tobytes(), "label": label, "box": box.astype(np.int32)},
                )


def _prepare(data_dir: str) -> tfds.core.DatasetBuilder:
    """The builder, prepared: by this process or by another one that came first."""

    def builder() -> tfds.core.DatasetBuilder:
        return Photos(data_dir=data_dir or None, file_format="array_record")

    def prepared(photos: tfds.core.DatasetBuilder) -> bool:
        return bool((photos.data_path / "dataset_info.json").exists())  # Written last.

    photos = builder()
    if prepared(photos):
        return photos
    find_photographs()
    _LOG.info("preparing the dataset photos in %s (seconds, once)", photos.data_path)
    try:
        # Written to a directory of this process's own, and renamed when complete. What TFDS says
        # meanwhile (a download of unknown size, five bars) is not true of these seconds.
        tfds.disable_progress_bar()
        # The processes of a run begin together: one prepares, the others wait for it.
        with (
            files.in_turn(photos.data_path.parent.parent / ".photos.lock"),
            contextlib.redirect_stdout(io.StringIO()),
        ):
            photos = builder()
            if not prepared(photos):
                photos.download_and_prepare()
    except OSError as error:
        raise UserError(
            f"config.dataset.data_dir={data_dir!r}: cannot prepare photos in "
            f"{os.fspath(photos.data_path)} ({error.strerror or error}); name a directory that can "
            "be written to"
        ) from error
    finally:
        tfds.enable_progress_bar()
    return photos


def open_dataset(section: DatasetSection) -> Dataset:
    """The photographs' crops, prepared on first use in seconds.

    Args:
      section: a config's `dataset`: of its fields `name` and `data_dir`, where TFDS keeps datasets.

    Raises:
      UserError: a package is missing, or `data_dir` cannot be written to.
    """
    name, data_dir = section.name, section.data_dir
    files.check_mounted("config.dataset.data_dir", data_dir)
    return tfds_source.from_builder(_prepare(os.path.expanduser(data_dir)), name)

"""The embedded photographs: disjoint splits, equal counts, the same bytes every time."""

import importlib.util
import io
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from unnas_jax.core.errors import UserError
from unnas_jax.data import open_dataset
from unnas_jax.data import photos as photos_lib
from unnas_jax.data.registry import DATASETS


@pytest.fixture(scope="module")
def examples(photos, photos_dir):
    """Split -> all stored examples, read by TFDS alone."""
    builder = tfds.builder_from_directory(photos_dir / "photos" / "1.0.0")
    decoders = {"image": tfds.decode.SkipDecoding()}
    return {
        split: list(builder.as_data_source(split, decoders=decoders))
        for split in builder.info.splits
    }


def test_counts_and_labels(photos, examples):
    assert photos.num_classes == len(photos.class_names) == 11
    assert {split: len(records) for split, records in photos.splits.items()} == {
        "train": 3080,
        "test": 616,
    }
    assert DATASETS["photos"].train_images == len(photos.splits["train"])
    for split, expected in (("train", 280), ("test", 56)):
        labels = np.array([example["label"] for example in examples[split]])
        np.testing.assert_array_equal(np.bincount(labels), [expected] * 11)
    assert not photos.apply_exif


def test_records_are_jpegs_of_96_pixels(photos, examples):
    for i in range(0, 616, 77):
        record = photos.splits["test"][i]
        assert record["label"] == examples["test"][i]["label"]
        with Image.open(io.BytesIO(record["image"])) as image:
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (96, 96))


def test_no_pixel_is_in_both_splits(examples):
    for label, path in enumerate(photos_lib.find_photographs()):
        with Image.open(path) as image:
            width, height = image.size
        used = {}
        for split in ("train", "test"):
            columns = np.zeros(width, bool)
            for example in examples[split]:
                if example["label"] == label:
                    top, left, side = example["box"].tolist()
                    assert top >= 0 and top + side <= height and side >= 96
                    assert left >= 0 and left + side <= width
                    columns[left : left + side] = True
            used[split] = np.flatnonzero(columns)
        assert used["test"].min() - used["train"].max() > 16


def test_a_crop_shows_its_box(examples):
    paths = photos_lib.find_photographs()
    for example in examples["train"][::300] + examples["test"][::100]:
        top, left, side = example["box"].tolist()
        whole = Image.open(paths[example["label"]]).convert("RGB")
        box = (left, top, left + side, top + side)
        expected = np.asarray(whole.crop(box).resize((96, 96), Image.Resampling.BOX)).astype(float)
        stored = np.asarray(Image.open(io.BytesIO(example["image"]))).astype(float)
        # JPEG costs the most where there are stars; the wrong place costs far more.
        assert np.abs(stored - expected).mean() < 8
        turned = np.abs(stored[::-1] - expected).mean()
        assert np.abs(stored - expected).mean() < turned / 2


def test_scales_vary(examples):
    for label, name in enumerate(photos_lib.NAMES):
        sides = [int(e["box"][2]) for e in examples["train"] if e["label"] == label]
        assert max(sides) > 1.9 * min(sides), name


def test_only_photographs_with_colour():
    for path in photos_lib.find_photographs():
        pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
        assert np.mean(pixels.max(axis=2) - pixels.min(axis=2)) > 5
        assert len(np.unique(pixels @ (65536, 256, 1))) > 20_000


def test_two_processes_prepare_at_once_and_the_same(photos, photos_dir, tmp_path):
    code = (
        "import sys; from unnas_jax.data import open_dataset; "
        "d = open_dataset({'name': 'photos', 'path': '', 'data_dir': sys.argv[1]}); "
        "print(len(d.splits['train'][0]['image']) > 0)"
    )
    environment = os.environ | {"PYTHONPATH": str(pathlib.Path(photos_lib.__file__).parents[2])}
    command = [sys.executable, "-c", code, str(tmp_path)]
    both = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        for _ in range(2)
    ]
    assert [process.communicate(timeout=300)[0] for process in both] == ["True\n"] * 2
    assert os.listdir(tmp_path / "photos") == ["1.0.0"]  # Nothing incomplete is left.
    other = open_dataset({"name": "photos", "path": "", "data_dir": str(tmp_path)})
    for split, records in photos.splits.items():
        assert list(map(records.__getitem__, range(len(records)))) == list(
            map(other.splits[split].__getitem__, range(len(records)))
        )


def test_prepares_only_once(photos, photos_dir, monkeypatch):
    def fail(*args, **kwargs):
        raise AssertionError("prepared again")

    monkeypatch.setattr(photos_lib.Photos, "download_and_prepare", fail)
    again = open_dataset({"name": "photos", "path": "", "data_dir": str(photos_dir)})
    assert again.splits["test"][5] == photos.splits["test"][5]


@pytest.mark.parametrize(
    "module, package", [("skimage", "scikit-image"), ("sklearn", "scikit-learn")]
)
def test_a_missing_package_is_named(monkeypatch, tmp_path, module, package):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == module else found(name)
    )
    words = rf"needs the package {package}; pip install 'unnas_jax\[photos\]'"
    with pytest.raises(UserError, match=words):
        open_dataset({"name": "photos", "path": "", "data_dir": str(tmp_path)})


def test_a_data_dir_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="config.dataset.data_dir=.*file.*name a directory"):
        open_dataset({"name": "photos", "path": "", "data_dir": str(tmp_path / "file")})

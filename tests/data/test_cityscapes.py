"""Cityscapes in every published layout, whole and damaged, and as TFDS prepares it."""

import io
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from tests.data import published
from tests.data.test_tfds_source import prepare as prepare_by_tfds
from unnas_jax.commands import prepare
from unnas_jax.core.errors import UserError
from unnas_jax.data import cityscapes, decoding, open_dataset, pipeline, shards

# From the table that Cityscapes publishes, by name.
PUBLISHED = {
    "road": 7,
    "sidewalk": 8,
    "building": 11,
    "wall": 12,
    "fence": 13,
    "pole": 17,
    "traffic light": 19,
    "traffic sign": 20,
    "vegetation": 21,
    "terrain": 22,
    "sky": 23,
    "person": 24,
    "rider": 25,
    "car": 26,
    "truck": 27,
    "bus": 28,
    "train": 31,
    "motorcycle": 32,
    "bicycle": 33,
}


def to_classes(ids):
    classes = np.full(ids.shape, 255, np.uint8)
    for number, name in enumerate(cityscapes.CLASSES):
        classes[ids == PUBLISHED[name]] = number
    return classes


def run(source, data_dir):
    return shards.prepare(prepare.recipe("cityscapes", str(source)), str(data_dir), 0)


def open_it(data_dir):
    return open_dataset({"name": "cityscapes", "data_dir": str(data_dir)})


@pytest.mark.parametrize("layout", ["zips", "unpacked", "mixed"])
def test_every_pixel_of_every_layout(tmp_path, layout):
    files = published.cityscapes()
    source = tmp_path / "source"
    if layout != "unpacked":
        published.write_zips(source, files)
    if layout != "zips":
        published.write_files(source, {k: v for k, v in files.items() if k.startswith("left")})
        if layout == "mixed":
            (source / "leftImg8bit_trainvaltest.zip").unlink()
        else:
            published.write_files(source, files)
    report = run(source, tmp_path)
    assert report["examples"] == {"train": 4, "validation": 2, "test": 2}
    assert report["rejected"] == report["duplicates"] == []
    dataset = open_it(tmp_path)
    assert dataset.label_maps and dataset.num_classes == 19 and not dataset.apply_exif
    assert dataset.class_names == tuple(PUBLISHED)
    number = 0
    for split in ("train", "validation", "test"):
        records = dataset.splits[split]
        assert list(records.names()) == sorted(records.names())
        for i in range(len(records)):
            record = records[i]
            image = decoding.decode(record["image"], apply_exif=False)
            np.testing.assert_array_equal(image, np.asarray(published.street(number)))
            expected = to_classes(published.ids(number))
            if split == "test":
                expected[:] = 255
            np.testing.assert_array_equal(record["label"].decode(), expected)
            number += 1
    assert "tensorflow" not in sys.modules


def test_any_reader_of_tfds_decodes_it(tmp_path):
    run(published.write_zips(tmp_path / "source", published.cityscapes()), tmp_path)
    builder = tfds.builder("cityscapes_fine", data_dir=tmp_path)
    example = builder.as_data_source("train")[1]
    np.testing.assert_array_equal(example["image"], np.asarray(published.street(1)))
    np.testing.assert_array_equal(example["train_ids"][..., 0], to_classes(published.ids(1)))
    assert example["image_id"] == b"aachen_000001_000019"


def test_converted_label_maps_are_accepted(tmp_path):
    files = {}
    for name, content in published.cityscapes().items():
        if name.endswith("labelIds.png"):
            ids = np.asarray(Image.open(io.BytesIO(content)))
            name = name.replace("labelIds", "labelTrainIds")
            content = published.encode(Image.fromarray(to_classes(ids)), "PNG")
        files[name] = content
    report = run(published.write_files(tmp_path / "source", files), tmp_path)
    assert report["rejected"] == []
    records = open_it(tmp_path).splits["train"]
    for i in range(4):
        np.testing.assert_array_equal(records[i]["label"].decode(), to_classes(published.ids(i)))


def test_damaged_files_are_reported_and_the_rest_is_kept(tmp_path):
    files = published.cityscapes(per_city=6)
    image = "leftImg8bit/train/aachen/aachen_00000{}_000019_leftImg8bit.png".format
    label = "gtFine/train/aachen/aachen_00000{}_000019_gtFine_labelIds.png".format
    del files[label(0)]
    files[label(1)] = published.encode(Image.fromarray(published.ids(1)[:, :90]), "PNG")
    files[label(2)] = published.encode(Image.fromarray(published.ids(2) + 100), "PNG")
    files[label(3)] = b""
    files[image(4)] = files[image(4)][:-300]
    files[label(5)] = published.encode(published.street(5), "PNG")
    del files["leftImg8bit/train/bochum/bochum_000000_000019_leftImg8bit.png"]
    files["leftImg8bit/train/bochum/aachen_000007_000019_leftImg8bit.png"] = files[image(3)]
    report = run(published.write_zips(tmp_path / "source", files), tmp_path)
    assert report["examples"] == {"train": 5, "validation": 6, "test": 6}
    reasons = {p["name"]: p["reason"] for p in report["rejected"]}
    expected = {
        "aachen_000000_000019": "has no label map gtFine/train/aachen/aachen_000000_000019_gtFine",
        "aachen_000001_000019": "is 96 x 48, but its label map 90 x 48",
        "aachen_000002_000019": "its label map has the unknown id ",
        "aachen_000003_000019": "its label map is empty",
        "aachen_000004_000019": "",  # Pillow's words for a cut.
        "aachen_000005_000019": "its label map is not a gray image of 8 bits",
        "aachen_000007_000019": "is in the folder of another city, bochum",
        "bochum_000000_000019": "is a label map without image",
    }
    assert set(reasons) == set(expected)
    for name, reason in expected.items():
        assert reasons[name].startswith(reason) and reasons[name]
    names = open_it(tmp_path).splits["train"].names()
    assert list(names) == [f"bochum_00000{k}_000019" for k in range(1, 6)]


def test_images_that_are_there_twice(tmp_path):
    files = published.cityscapes()
    published.write_zips(tmp_path / "source", files)
    name = "leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit.png"
    published.write_files(tmp_path / "source", {name: files[name]})
    report = run(tmp_path / "source", tmp_path)
    assert [p["name"] for p in report["duplicates"]] == ["aachen_000000_000019"]
    assert report["examples"]["train"] == 4


def test_missing_or_cut_archives_are_refused(tmp_path):
    source = published.write_zips(tmp_path / "source", published.cityscapes())
    path = source / "gtFine_trainvaltest.zip"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"gtFine_trainvaltest.zip is damaged or cut off .*again"):
        run(source, tmp_path)
    path.unlink()
    with pytest.raises(UserError, match=r"has neither gtFine/ nor gtFine_\*.zip; add one"):
        run(source, tmp_path)


def test_damage_within_a_zip_is_reported(tmp_path):
    files = published.cityscapes()
    source = published.write_zips(tmp_path / "source", files)
    path = source / "leftImg8bit_trainvaltest.zip"
    content = files["leftImg8bit/train/aachen/aachen_000001_000019_leftImg8bit.png"]
    data = path.read_bytes()
    at = data.index(content[:64]) + len(content) // 2
    path.write_bytes(data[:at] + bytes([data[at] ^ 255]) + data[at + 1 :])
    report = run(source, tmp_path)
    (problem,) = report["rejected"]
    assert (
        problem["name"] == "aachen_000001_000019" and "damaged in its archive" in problem["reason"]
    )


def test_as_tfds_prepares_it(tmp_path):
    """With the ids of gtFine_labelIds, in a directory of a config."""
    features = {
        "image_id": tfds.features.Text(),
        "image_left": tfds.features.Image(shape=(48, 96, 3), encoding_format="png"),
        "segmentation_label": tfds.features.Image(shape=(48, 96, 1), encoding_format="png"),
    }

    def example(k):
        return {
            "image_id": f"aachen_{k}",
            "image_left": published.encode(published.street(k), "PNG"),
            "segmentation_label": published.encode(Image.fromarray(published.ids(k)), "PNG"),
        }

    prepare_by_tfds(
        tmp_path,
        "cityscapes",
        features,
        example,
        splits=("train", "validation"),
        config=tfds.core.BuilderConfig(name="semantic_segmentation", version="1.0.0"),
    )
    dataset = open_it(tmp_path)
    assert dataset.num_classes == 19 and dataset.label_maps
    records = dataset.splits["train"]
    for i, name in enumerate(records.names()):
        k = int(name.removeprefix("aachen_"))
        image = decoding.decode(records[i]["image"], apply_exif=False)
        np.testing.assert_array_equal(image, np.asarray(published.street(k)))
        np.testing.assert_array_equal(records[i]["label"].decode(), to_classes(published.ids(k)))


def test_batches_for_the_task_and_for_pretexts(tmp_path):
    run(published.write_zips(tmp_path / "source", published.cityscapes()), tmp_path)
    records = open_it(tmp_path).splits["train"]
    for label_maps, shape, dtype in ((True, (4, 33, 33), np.uint8), (False, (4,), np.int32)):
        batches = pipeline.train_batches(
            records,
            np.arange(4),
            batch_size=4,
            crop=33,
            resize=40,
            train_crop="scale_random",
            apply_exif=False,
            seed=0,
            start_step=0,
            workers=0,
            label_maps=label_maps,
        )
        batch = next(batches)
        batches.close()
        assert batch["image"].shape == (4, 33, 33, 3)
        assert batch["label"].shape == shape and batch["label"].dtype == dtype
    (batch,) = pipeline.eval_batches(
        records,
        np.arange(4),
        batch_size=4,
        crop=(49, 97),
        resize=0,
        apply_exif=False,
        workers=0,
        label_maps=True,
        eval_crop="whole",
    )
    np.testing.assert_array_equal(batch["label"][2, :48, :96], to_classes(published.ids(2)))
    np.testing.assert_array_equal(batch["image"][2, :48, :96], np.asarray(published.street(2)))


def test_not_prepared(tmp_path):
    with pytest.raises(UserError, match="unnas-jax prepare cityscapes --source="):
        open_it(tmp_path)


def test_colour_coded_label_maps_are_told_from_ids(tmp_path):
    files = {k: v for k, v in published.cityscapes().items() if "labelIds" not in k}
    for layout, write in (("zips", published.write_zips), ("files", published.write_files)):
        with pytest.raises(
            UserError, match=r"\*_gtFine_labelIds.png are missing .*only \*_gtFine_co"
        ):
            run(write(tmp_path / layout, files), tmp_path)


def test_label_maps_with_the_ids_of_another_dataset_are_refused_at_once(tmp_path):
    files = published.cityscapes()
    foreign = np.tile(np.arange(12, dtype=np.uint8), (64, 8))  # 0 to 11, of which 7, 8, 11 count.
    for name in files:
        if "labelIds" in name:
            files[name] = published.encode(Image.fromarray(foreign), "PNG")
    source = published.write_files(tmp_path / "source", files)
    with pytest.raises(UserError, match="75% of the pixels .*and 3 of 19 classes occur"):
        prepare.recipe("cityscapes", str(source))

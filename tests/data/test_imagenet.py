"""ImageNet in every published layout, whole and damaged."""

import io
import json
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from tests.data import published
from unnas_jax.commands import prepare
from unnas_jax.core.errors import UserError
from unnas_jax.data import decoding, open_dataset, shards

SYNSETS = published.SYNSETS


def run(source, data_dir, name="imagenet2012", **options):
    """The report; and split -> name -> (label, content), read by TFDS alone."""
    if name == "imagenet2012":
        options.setdefault("partial", True)
    report = shards.prepare(prepare.recipe(name, str(source), **options), str(data_dir), 0)
    return report, stored(data_dir / name / "1.0.0")


def stored(directory):
    builder = tfds.builder_from_directory(directory)
    result = {}
    for split in builder.info.splits:
        source = builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
        names = builder.info.features["label"].names
        result[split] = {
            str(e["file_name"], "utf-8"): (names[e["label"]], bytes(e["image"])) for e in source
        }
        assert len(result[split]) == len(source)
    return result


def expected_train(images):
    return {
        name: (synset, content)
        for synset, members in images.items()
        for name, content in members.items()
    }


def expected_validation():
    return {
        name: (published.validation_synset(k), content)
        for k, (name, content) in enumerate(published.validation_images().items(), 1)
    }


def test_the_archives(tmp_path):
    source = published.write_imagenet(tmp_path / "source")
    report, examples = run(source, tmp_path)
    assert examples["train"] == expected_train(published.train_images())
    assert examples["validation"] == expected_validation()
    assert report["examples"] == {"train": 12, "validation": 6}
    assert report["rejected"] == report["duplicates"] == report["remarks"] == []
    assert "train: 12 examples; 1,281,167 are published" in report["notes"]
    assert "tensorflow" not in sys.modules


def test_classes_are_numbered_by_synset_whatever_the_order_of_files(tmp_path):
    images = dict(reversed(published.train_images().items()))
    source = published.write_imagenet(tmp_path / "source", images)
    run(source, tmp_path)
    dataset = open_dataset({"name": "imagenet2012", "data_dir": str(tmp_path)})
    assert dataset.class_names == SYNSETS and dataset.num_classes == 3
    assert not dataset.label_maps
    labels = [dataset.splits["train"][i]["label"] for i in range(12)]
    assert labels == [0] * 4 + [1] * 4 + [2] * 4
    names = dataset.splits["train"].names()
    assert list(names) == sorted(names) and names[0] == "n01440764_17.JPEG"


@pytest.mark.parametrize("labels", ["synset_labels", "solution", "folders"])
def test_folders(tmp_path, labels):
    source = tmp_path / "source"
    published.write_folders(source / "train", published.train_images())
    validation = published.validation_images()
    if labels == "folders":
        synsets = {name: published.validation_synset(k) for k, name in enumerate(validation, 1)}
        images = {s: {n: c for n, c in validation.items() if synsets[n] == s} for s in SYNSETS}
        published.write_folders(source / "val", images)
    else:
        published.write_folders(source, {"val": validation})
    if labels == "synset_labels":
        published.write_synset_labels(source)
    elif labels == "solution":
        lines = ["ImageId,PredictionString"]
        for k in (5, 2, 1, 3, 6, 4):
            synset = published.validation_synset(k)
            lines.append(f"ILSVRC2012_val_{k:08d},{synset} 1 2 3 4 {synset} 5 6 7 8 ")
        (source / "LOC_val_solution.csv").write_text("\n".join(lines))
    _, examples = run(source, tmp_path)
    assert examples["train"] == expected_train(published.train_images())
    # Names that do not begin with the synset get it, so that none is there twice.
    got = {name.split("/")[-1]: value for name, value in examples["validation"].items()}
    assert got == expected_validation()


def test_a_folder_of_class_archives(tmp_path):
    source = tmp_path / "source"
    (source / "train").mkdir(parents=True)
    for synset, members in published.train_images().items():
        (source / "train" / f"{synset}.tar").write_bytes(published.tar(members.items()))
    _, examples = run(source, tmp_path)
    assert examples == {"train": expected_train(published.train_images())}


def test_damaged_images_are_reported_and_the_rest_is_kept(tmp_path):
    images = published.train_images()
    good = expected_train(published.train_images())
    whole = published.encode(published.picture(5))
    cmyk = published.encode(published.picture(6).convert("CMYK"))
    png = published.encode(published.picture(7), "PNG")
    bad = {
        "n01440764_1.JPEG": b"",
        "n01440764_2.JPEG": whole[: len(whole) // 2],
        "n01440764_3.JPEG": b"a web page",
        "n01440764_4.txt": b"a note",
    }
    images["n01440764"] |= bad
    images["n01443537"] |= {"n01443537_1.JPEG": cmyk, "n01443537_2.JPEG": png}
    images["n01443537"]["n02102040_99.JPEG"] = whole  # Of another class, says its name.
    source = tmp_path / "source"
    published.write_folders(source / "train", images)
    report, examples = run(source, tmp_path)
    good |= {"n01443537_1.JPEG": ("n01443537", cmyk), "n01443537_2.JPEG": ("n01443537", png)}
    assert examples["train"] == good
    reasons = {p["name"]: p["reason"] for p in report["rejected"]}
    assert reasons.pop("n01440764_2.JPEG")
    assert reasons == {
        "n01440764_1.JPEG": "is empty",
        "n01440764_3.JPEG": "is not an image, or of a kind that cannot be read",
        "n01440764_4.txt": f"is no image by its name, in {source}/train/n01440764/n01440764_4.txt",
        "n01443537/n02102040_99.JPEG": "is in the class n01443537, but named after n02102040",
    }
    assert {p["name"]: p["reason"] for p in report["remarks"]} == {
        "n01443537_1.JPEG": "is CMYK",
        "n01443537_2.JPEG": "is PNG inside",
    }
    assert json.loads((tmp_path / "imagenet2012/1.0.0/report.json").read_text()) == report
    # And the pipeline decodes what is kept.
    records = open_dataset({"name": "imagenet2012", "data_dir": str(tmp_path)}).splits["train"]
    decoded = dict(zip(records.names(), (records[i]["image"] for i in range(14)), strict=True))
    pixels = decoding.decode(decoded["n01443537_2.JPEG"], apply_exif=False)
    np.testing.assert_array_equal(pixels, np.asarray(published.picture(7)))
    expected = np.asarray(Image.open(io.BytesIO(cmyk)).convert("RGB")).astype(int)
    assert (
        np.abs(decoding.decode(decoded["n01443537_1.JPEG"], apply_exif=False) - expected).max() < 3
    )


def test_duplicates_are_named_and_the_first_is_kept(tmp_path):
    images = published.train_images()
    first, other = list(images["n01440764"].items())[0], published.encode(published.picture(77))
    members = [*images["n01440764"].items(), (first[0], other)]
    archive = published.tar(
        [
            ("n01440764.tar", published.tar(members)),
            *((f"{s}.tar", published.tar(images[s].items())) for s in SYNSETS[1:]),
            ("n02102040.tar", published.tar(images["n02102040"].items())),
        ]
    )
    source = tmp_path / "source"
    source.mkdir()
    (source / "ILSVRC2012_img_train.tar").write_bytes(archive)
    report, examples = run(source, tmp_path)
    assert examples["train"] == expected_train(images)
    assert {p["name"] for p in report["duplicates"]} == {first[0], *images["n02102040"]}
    assert report["rejected"] == []


def refused(source, tmp_path, name="imagenet2012", **options):
    with pytest.raises(UserError) as caught:
        run(source, tmp_path, name, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("cut", ["in the data", "between two files", "in a header"])
@pytest.mark.parametrize("split", ["train", "val"])
def test_a_truncated_archive_is_refused(tmp_path, split, cut):
    source = published.write_imagenet(tmp_path / "source")
    path = source / f"ILSVRC2012_img_{split}.tar"
    data = path.read_bytes()
    # The last member's header begins where its content, in blocks of 512, ends before the zeros.
    end = len(data.rstrip(b"\0")) if split == "val" else data.rindex(b"n02102040.tar")
    end = -(-end // 512) * 512 if split == "val" else end
    length = {"in the data": end - 700, "between two files": end, "in a header": end + 100}[cut]
    path.write_bytes(data[:length])
    message = refused(source, tmp_path)
    assert f"ILSVRC2012_img_{split}.tar is" in message and "cut off" in message
    assert "download it again" in message


def test_missing_parts_are_refused(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    assert "has neither ILSVRC2012_img_train.tar nor train/" in refused(source, tmp_path)
    published.write_imagenet(source)
    message = refused(source, tmp_path, partial=False)
    assert "has 3 classes, not 1,000" in message and "--partial" in message
    (source / "ILSVRC2012_devkit_t12.tar.gz").unlink()
    message = refused(source, tmp_path)
    assert "the validation images have no labels: put ILSVRC2012_devkit_t12.tar.gz" in message
    (source / "ILSVRC2012_devkit_t12.tar.gz").write_bytes(b"\x1f\x8bnothing")
    assert "cannot read the validation labels in" in refused(source, tmp_path)
    assert "does not exist" in refused(tmp_path / "nowhere", tmp_path)


def test_validation_labels_and_images_that_do_not_match_are_reported(tmp_path):
    source = published.write_imagenet(tmp_path / "source")
    (source / "ILSVRC2012_devkit_t12.tar.gz").unlink()
    lines = [published.validation_synset(k) for k in range(1, 6)] + [SYNSETS[0]] * 3
    labels = source / "imagenet_2012_validation_synset_labels.txt"
    labels.write_text("\n".join(lines[:5]))
    report, examples = run(source, tmp_path / "fewer")
    assert [p["name"] for p in report["rejected"]] == ["ILSVRC2012_val_00000006.JPEG"]
    assert f"has no label in {labels}" in report["rejected"][0]["reason"]
    assert len(examples["validation"]) == 5
    labels.write_text("\n".join(lines))
    report, _ = run(source, tmp_path / "more")
    assert {p["name"] for p in report["rejected"]} == {
        "ILSVRC2012_val_00000007",
        "ILSVRC2012_val_00000008",
    }
    labels.write_text("n99999999\n" * 6)
    assert "names the class n99999999, which the training" in refused(source, tmp_path / "other")


@pytest.mark.parametrize("layout", ["archive", "folder of archives", "folders"])
def test_imagenet_22k(tmp_path, layout):
    images = published.train_images()
    images["n99999999"] = {"strange name.jpg": published.encode(published.picture(9, 900, 30))}
    source = tmp_path / "winter21"
    if layout == "archive":
        source.write_bytes(published.tar_of_tars(images))
    elif layout == "folders":
        published.write_folders(source, images)
    else:
        source.mkdir()
        for synset, members in images.items():
            (source / f"{synset}.tar").write_bytes(published.tar(members.items()))
    report, examples = run(source, tmp_path, "imagenet22k")
    expected = expected_train(images)
    expected["n99999999/strange name.jpg"] = expected.pop("strange name.jpg")
    assert examples == {"train": expected}
    assert "4 classes" in report["notes"]
    dataset = open_dataset({"name": "imagenet22k", "data_dir": str(tmp_path)})
    assert dataset.class_names == (*SYNSETS, "n99999999") and set(dataset.splits) == {"train"}


def test_a_list_of_files(tmp_path):
    published.write_folders(tmp_path / "source", published.train_images())
    listed = tmp_path / "list.txt"
    listed.write_text("n01440764_7.JPEG\nn02102040/n02102040_17.JPEG\n")
    _, examples = run(tmp_path / "source", tmp_path, "imagenet22k", files=str(listed))
    assert set(examples["train"]) == {"n01440764_7.JPEG", "n02102040_17.JPEG"}
    # Classes keep their numbers.
    dataset = open_dataset({"name": "imagenet22k", "data_dir": str(tmp_path)})
    assert [dataset.splits["train"][i]["label"] for i in range(2)] == [0, 2]
    message = refused(tmp_path / "source", tmp_path, "imagenet22k", files=str(tmp_path / "no"))
    assert message.startswith("--files=")


def test_an_archive_within_is_cut(tmp_path):
    images = published.train_images()
    members = [(f"{s}.tar", published.tar(m.items())) for s, m in images.items()]
    data = members[1][1]
    members[1] = (members[1][0], data[: data.rindex(b"n01443537_37") + 600])
    (tmp_path / "all.tar").write_bytes(published.tar(members))
    report, examples = run(tmp_path / "all.tar", tmp_path, "imagenet22k")
    expected = expected_train(images)
    del expected["n01443537_37.JPEG"]
    assert examples == {"train": expected}
    (problem,) = report["rejected"]
    assert "cut off" in problem["reason"] and "n01443537" in problem["name"]


def test_a_compressed_archive_of_archives_is_refused(tmp_path):
    (tmp_path / "winter21_whole.tar.gz").write_bytes(b"\x1f\x8b" + bytes(100))
    message = refused(tmp_path / "winter21_whole.tar.gz", tmp_path, "imagenet22k")
    assert "unpack it with `tar -xzf winter21_whole.tar.gz`" in message


def test_no_image_at_all(tmp_path):
    (tmp_path / "source" / "n01440764").mkdir(parents=True)
    assert "has no image for the split 'train'" in refused(
        tmp_path / "source", tmp_path, "imagenet22k"
    )
    (tmp_path / "other" / "n01440764").mkdir(parents=True)
    (tmp_path / "other" / "n01440764" / "a.JPEG").write_bytes(b"")
    message = refused(tmp_path / "other", tmp_path / "b", "imagenet22k")
    assert "none of the train images can be used" in message and "is empty" in message

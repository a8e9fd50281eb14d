"""Datasets of TFDS: read without TensorFlow; everything else is a clear message."""

import io
import pickle
import shutil
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from array_record.python import array_record_module
from PIL import Image

from unnas_jax.core.errors import UserError
from unnas_jax.data import decoding, open_dataset, tfds_source


def png(value):
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), (value, 10, 20)).save(buffer, "PNG")
    return buffer.getvalue()


IMAGE = tfds.features.Image(shape=(32, 32, 3), encoding_format="png")


def prepare(data_dir, name, features, example, count=4, splits=("train", "test"), **options):
    """Writes a dataset of this name; `example(k)` makes example k."""

    def info(self):
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    members = {
        "__module__": __name__,
        "name": name,
        "VERSION": tfds.core.Version("3.0.2"),
        "_info": info,
        "_split_generators": lambda self, dl: {s: self._generate_examples(s) for s in splits},
        "_generate_examples": lambda self, split: ((k, example(k)) for k in range(count)),
    }
    cls = type(name, (tfds.core.GeneratorBasedBuilder,), members, skip_registration=True)
    builder = cls(data_dir=data_dir, file_format="array_record", **options)
    builder.download_and_prepare()
    return builder


def labelled(k):
    return {"id": str(k), "image": png(60 * k), "label": k % 10}


CIFAR = {
    "id": tfds.features.Text(),
    "image": IMAGE,
    "label": tfds.features.ClassLabel(num_classes=10),
}


def open_tfds(name, data_dir):
    return open_dataset({"name": name, "path": "", "data_dir": str(data_dir)})


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tfds")
    prepare(directory, "cifar10", CIFAR, labelled)
    return directory


@pytest.mark.parametrize("name", ["tfds:cifar10", "tfds:cifar10:3.0.2"])
def test_a_stock_dataset_is_read_without_tensorflow(data_dir, name):
    dataset = open_tfds(name, data_dir)
    assert dataset.num_classes == 10 and len(dataset.class_names) == 10
    assert {k: len(v) for k, v in dataset.splits.items()} == {"train": 4, "test": 4}
    records = pickle.loads(pickle.dumps(dataset.splits["train"]))
    seen = {}
    for i in range(4):
        record = records[i]
        assert isinstance(record["image"], bytes) and isinstance(record["label"], int)
        seen[record["label"]] = int(decoding.decode(record["image"], apply_exif=False)[0, 0, 0])
    assert seen == {0: 0, 1: 60, 2: 120, 3: 180}
    assert "tensorflow" not in sys.modules
    # CIFAR's own statistics.
    np.testing.assert_allclose(dataset.mean, (0.4914, 0.4824, 0.4467), atol=1e-4)
    np.testing.assert_allclose(dataset.std, (0.2471, 0.2436, 0.2616), atol=1e-4)


def test_opened_records_are_still_picklable(data_dir):
    records = open_tfds("tfds:cifar10", data_dir).splits["train"]
    first = records[0]
    assert pickle.loads(pickle.dumps(records))[0] == first


def test_imagenet_is_read_under_its_name(tmp_path):
    prepare(tmp_path, "imagenet2012", CIFAR, labelled)
    dataset = open_tfds("imagenet2012", tmp_path)
    assert dataset.mean == (0.485, 0.456, 0.406) and not dataset.apply_exif
    assert len(dataset.splits["train"]) == 4


def test_features_are_found_by_type(tmp_path):
    features = {
        "picture": IMAGE,
        "size": tfds.features.Scalar(dtype=np.int64),
        "kind": tfds.features.ClassLabel(names=["x", "y"]),
    }
    prepare(
        tmp_path, "odd_names", features, lambda k: {"picture": png(k), "size": 9, "kind": k % 2}
    )
    dataset = open_tfds("tfds:odd_names", tmp_path)
    assert dataset.class_names == ("x", "y")
    assert {dataset.splits["train"][i]["label"] for i in range(4)} == {0, 1}


def test_plain_integers_are_labels_of_unknown_number(tmp_path):
    features = {"image": IMAGE, "label": tfds.features.Scalar(dtype=np.int64)}
    prepare(tmp_path, "integers", features, lambda k: {"image": png(k), "label": k + 5})
    dataset = open_tfds("tfds:integers", tmp_path)
    assert dataset.num_classes == 0
    assert {dataset.splits["train"][i]["label"] for i in range(4)} == {5, 6, 7, 8}


def test_no_label_is_label_0(tmp_path):
    prepare(tmp_path, "bare", {"image": IMAGE}, lambda k: {"image": png(k)})
    dataset = open_tfds("tfds:bare", tmp_path)
    assert dataset.num_classes == 0 and dataset.splits["train"][3]["label"] == 0


def refused(name, data_dir):
    with pytest.raises(UserError) as caught:
        open_tfds(name, data_dir)
    message = str(caught.value)
    assert "\n" not in message and message.startswith(f"config.dataset.name={name!r}: ")
    return message


def test_unknown_name(tmp_path):
    assert "did you mean cifar10" in refused("tfds:cifar11", tmp_path)
    assert "knows no dataset 'qqqqqqqq'" in refused("tfds:qqqqqqqq", tmp_path)


@pytest.mark.parametrize("name", ["tfds:", "tfds:/x", "tfds::1.0.0", "tfds:a b", "tfds:mnist:x.y"])
def test_names_of_no_form(tmp_path, name):
    assert "tfds:NAME[/CONFIG][:VERSION]" in refused(name, tmp_path)


def test_not_prepared(tmp_path):
    message = refused("tfds:mnist", tmp_path)
    command = f"tfds build mnist --file_format=array_record --data_dir={tmp_path}"
    assert "is not prepared" in message and command in message and "needs TensorFlow" in message
    own = f"unnas-jax prepare imagenet2012 --source=FOLDER --data_dir={tmp_path}"
    assert own in refused("imagenet2012", tmp_path)


def test_another_version_than_prepared(data_dir):
    assert "is not prepared" in refused("tfds:cifar10:1.0.2", data_dir)


def test_another_file_format(tmp_path):
    directory = prepare(tmp_path, "cifar10", CIFAR, labelled).data_path
    info = directory / "dataset_info.json"
    info.write_text(info.read_text().replace('"array_record"', '"tfrecord"'))
    message = refused("tfds:cifar10", tmp_path)
    assert "is in the format tfrecord" in message
    assert f"tfds convert_format --dataset_version_dir={directory}" in message


def test_no_image(tmp_path):
    prepare(tmp_path, "texts", {"text": tfds.features.Text()}, lambda k: {"text": "a"})
    assert "has no image; its features are text" in refused("tfds:texts", tmp_path)


def test_no_training_split(tmp_path):
    prepare(tmp_path, "half", {"image": IMAGE}, lambda k: {"image": png(k)}, splits=("test",))
    assert "has no split 'train', only test" in refused("tfds:half", tmp_path)


def test_where_a_record_is(data_dir):
    records = open_tfds("tfds:cifar10", data_dir).splits["test"]
    assert isinstance(records, tfds_source.TfdsRecords)
    assert "'test'" in records.describe(0) and str(data_dir) in records.describe(0)


@pytest.fixture
def copy(data_dir, tmp_path):
    """The directory of a copy of the stock dataset's version, and its training shard."""
    shutil.copytree(data_dir, tmp_path / "copy")
    version = tmp_path / "copy" / "cifar10" / "3.0.2"
    (shard,) = version.glob("cifar10-train*")
    return tmp_path / "copy", shard


def halve(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def shorten(path):
    writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1")
    for _ in range(2):
        writer.write(b"record")
    writer.close()


@pytest.mark.parametrize(
    "harm, words",
    [
        (lambda path: path.unlink(), "is missing; copy it again"),
        (halve, "is damaged (it ends too early); copy it again"),
        (lambda path: path.write_bytes(b""), "is damaged (ArrayRecord file should be"),
        (lambda path: path.write_bytes(bytes(2**17)), "is damaged (Corrupted"),
        (shorten, "is damaged (2 of 4 records); copy it again"),
    ],
)
def test_shards_that_are_missing_or_damaged_are_found_when_it_is_opened(copy, harm, words):
    data_dir, shard = copy
    harm(shard)
    assert f"the shard {shard} {words}" in refused("tfds:cifar10", data_dir)


def test_a_damaged_record_is_named_when_it_is_read(copy):
    data_dir, shard = copy
    data = bytearray(shard.read_bytes())
    place = data.index(b"IHDR")
    data[place] ^= 1
    shard.write_bytes(data)
    records = open_tfds("tfds:cifar10", data_dir).splits["train"]
    messages = []
    for i in range(4):
        try:
            records[i]
        except UserError as error:
            messages.append(str(error))
    assert messages and all("cannot read record" in m and "copy" in m for m in messages)
    assert all("\n" not in message and str(data_dir) in message for message in messages)


@pytest.mark.parametrize("name", ["dataset_info.json", "features.json"])
@pytest.mark.parametrize("content", ["", "{", "[1]", '{"splits": 3}', "[" * 100_000])
def test_damaged_metadata_is_named(copy, name, content):
    data_dir, shard = copy
    (shard.parent / name).write_text(content)
    refused("tfds:cifar10", data_dir)


@pytest.mark.parametrize("part", ["cifar10", "cifar10/3.0.2", "..", "cifar10/"])
def test_a_level_too_low_or_too_high_is_named(data_dir, part):
    message = refused("cifar10", f"{data_dir}/{part}")
    assert f"is prepared in {data_dir}" in message
    assert f"give --config.dataset.data_dir={data_dir}" in message

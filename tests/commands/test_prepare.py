"""The command line, and subsets of what it prepared."""

import os
import pickle
import resource
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

from tests.data import published
from tests.data.test_tfds_source import prepare as prepare_by_tfds
from unnas_jax.commands import prepare
from unnas_jax.core.errors import UserError
from unnas_jax.data import halves, open_dataset, subsets
from unnas_jax.data.records import Dataset


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    root = tmp_path_factory.mktemp("prepare")
    images = published.train_images(8)
    images["n01440764"]["n01440764_0.JPEG"] = b""
    source = published.write_imagenet(root / "source", images)
    arguments = ["imagenet2012", f"--source={source}", f"--data_dir={root}", "--partial"]
    assert prepare.main([*arguments, "--workers=0", "--subset=0.25", "--seed=3"]) == 0
    return root


def run(*arguments):
    return prepare.main(list(map(str, arguments)))


def open_imagenet(data_dir, subset=""):
    return open_dataset({"name": "imagenet2012", "data_dir": str(data_dir), "subset": subset})


def names(dataset):
    return list(dataset.splits["train"].names())


def test_the_summary_names_what_was_rejected(data_dir, capsys):
    source = data_dir / "source"
    assert run("imagenet2012", f"--source={source}", f"--data_dir={data_dir}", "--partial") == 0
    output, errors = capsys.readouterr()
    assert "is prepared already" in errors
    assert "imagenet2012:1.0.0: 24 train, 6 validation examples in" in output
    assert "rejected: train: n01440764_0.JPEG: is empty" in output
    assert f"The report is {data_dir}/imagenet2012/1.0.0/report.json" in output


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["imagenet2012"], "--source: is missing"),
        (["cifar10", "--source=/nowhere"], "--source='/nowhere': does not exist"),
        (["cifar10", "--source=/", "--files=a"], "--files='a': is for imagenet22k, not cifar10"),
        (["cityscapes", "--subset=0.5"], "is not prepared in"),
        (["imagenet2012", "--subset=2"], "--subset=2.0: must be between 0 and 1"),
        (["imagenet2012", "--subset=0.001"], "--subset=0.001: is no image of 24"),
    ],
)
def test_mistakes_are_one_line(data_dir, capsys, arguments, message):
    assert run(*arguments, f"--data_dir={data_dir}") == 2
    errors = capsys.readouterr().err
    assert message in errors and errors.count("\n") == 1


def test_a_subset_is_a_list_of_names(data_dir):
    path = data_dir / "imagenet2012" / "1.0.0" / "subsets" / "train-0.25-seed3.txt"
    listed = path.read_text().splitlines()
    whole = names(open_imagenet(data_dir))
    assert len(listed) == 6 and listed == sorted(set(listed)) and set(listed) <= set(whole)
    for subset in (str(path), path.name):
        dataset = open_imagenet(data_dir, subset)
        assert names(dataset) == listed
        assert len(dataset.splits["validation"]) == 6 and dataset.num_classes == 3
        records = pickle.loads(pickle.dumps(dataset.splits["train"]))
        everything = open_imagenet(data_dir).splits["train"]
        for i, name in enumerate(listed):
            assert records[i] == everything[whole.index(name)]
        assert len(records) == 6 and "'train'" in records.describe(2)


def test_subsets_depend_on_the_seed_alone(data_dir, capsys):
    def made(share, seed):
        arguments = f"--subset={share}", f"--seed={seed}", f"--data_dir={data_dir}"
        assert run("imagenet2012", *arguments) == 0
        with open(capsys.readouterr().out.strip(), encoding="utf-8") as file:
            return file.read().splitlines()

    assert made(0.25, 3) == made(0.25, 3) != made(0.25, 4)
    # A larger share of the same seed holds the smaller one.
    assert set(made(0.25, 3)) < set(made(0.5, 3))


def test_a_subset_never_changes():
    """Published lists stay what they are: do not update this."""

    class Records:
        def names(self):
            return [f"{k}" for k in reversed(range(10))]

    dataset = Dataset("x", {"train": Records()}, 0, ())
    assert subsets.draw(dataset, 0.4, 0) == ["1", "2", "3", "5"]


def test_unknown_names_and_lists_are_refused(data_dir, tmp_path):
    lists = {
        "n01440764_7.JPEG\nno_such\n": "1 of its 2 names are not in the train split of "
        "'imagenet2012', the first is 'no_such'",
        "\n": "names no example",
    }
    for content, message in lists.items():
        (tmp_path / "list.txt").write_text(content)
        with pytest.raises(UserError, match=message):
            open_imagenet(data_dir, str(tmp_path / "list.txt"))
    with pytest.raises(UserError, match="config.dataset.subset='none.txt': cannot read"):
        open_imagenet(data_dir, "none.txt")


def test_subsets_of_a_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    published.write_folders(tmp_path / "images", published.train_images())
    (tmp_path / "list").write_text("n01440764/n01440764_7.JPEG\nn02102040/n02102040_17.JPEG\n")
    section = {"name": "folder", "path": str(tmp_path / "images"), "subset": str(tmp_path / "list")}
    records = open_dataset(section).splits["train"]
    assert [records[i]["label"] for i in range(len(records))] == [0, 2]


def test_subsets_of_what_tfds_prepared(tmp_path):
    features = {"image": tfds.features.Image(encoding_format="jpeg"), "id": tfds.features.Text()}
    picture = published.encode(published.picture(1))
    prepare_by_tfds(tmp_path, "some", features, lambda k: {"image": picture, "id": f"name {k}"})
    section = {"name": "tfds:some", "data_dir": str(tmp_path)}
    records = open_dataset(section).splits["train"]
    assert sorted(records.names()) == [f"name {k}" for k in range(4)]
    assert list(records.names()) == list(records.names())  # Now from the list beside it.
    (tmp_path / "list").write_text("name 2\n")
    assert len(open_dataset(section | {"subset": str(tmp_path / "list")}).splits["train"]) == 1


def test_datasets_without_names_have_no_subsets(photos_dir, photos, tmp_path):
    (tmp_path / "list").write_text("a\n")
    section = {"name": "photos", "data_dir": str(photos_dir), "subset": str(tmp_path / "list")}
    with pytest.raises(UserError, match="have no names"):
        open_dataset(section)


def test_halves_hold_the_same_images_however_the_files_come(data_dir, tmp_path):
    """The published archives, and folders made in another order."""
    images = published.train_images(8)
    backwards = {s: dict(reversed(images[s].items())) for s in reversed(images)}
    published.write_folders(tmp_path / "source" / "train", backwards)
    arguments = f"--source={tmp_path / 'source'}", f"--data_dir={tmp_path}"
    assert run("imagenet2012", *arguments, "--partial", "--workers=2") == 0
    sets = []
    for directory in (data_dir, tmp_path):
        listed = np.array(names(open_imagenet(directory)))
        sets.append([listed[half].tolist() for half in halves(len(listed), 5)])
    assert sets[0] == sets[1] and not set(sets[0][0]) & set(sets[0][1])


def test_more_shards_than_open_files(tmp_path, monkeypatch):
    """TFDS cuts ImageNet in 1,024 shards, which is also the usual limit of open files."""
    code = (
        "import resource, sys; "
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 4096)); "
        "from tests.data import numbered; from unnas_jax.data import shards, tfds_source; "
        "shards.prepare(numbered.recipe(sys.argv[1], 1, 100), sys.argv[2], 0, shard_bytes=100); "
        "records = tfds_source.TfdsRecords(sys.argv[2] + '/numbered/1.0.0', 'train', 100, "
        "'file_name', 'value'); "
        "print(sum(records[i]['label'] for i in range(100)))"
    )
    (tmp_path / "source").write_text("")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= hard < 4096:
        pytest.skip("the hard limit is low")
    result = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "source"), str(tmp_path)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.getcwd()},
        check=False,
    )
    assert result.stdout == "4950\n", result.stderr


def test_the_names_of_own_datasets():
    assert set(prepare.names()) == {
        "imagenet2012",
        "imagenet22k",
        "cityscapes",
        "cifar10",
        "cifar100",
    }

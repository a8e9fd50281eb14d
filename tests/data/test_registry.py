"""Datasets by name."""

import inspect

import pytest

from tests import conftest
from unnas_jax.config.sections import DatasetSection
from unnas_jax.core.errors import UserError
from unnas_jax.data import open_dataset, registry
from unnas_jax.data.records import describe


def test_unknown_names_are_refused_with_the_closest():
    with pytest.raises(UserError, match="did you mean 'photos'.*folder.*tfds:NAME"):
        open_dataset({"name": "photo", "path": "", "data_dir": ""})


def test_a_dataset_opens_by_its_name_as_by_a_section():
    by_name, by_section = open_dataset("digits"), open_dataset(DatasetSection(name="digits"))
    assert by_name.name == by_section.name == "digits"
    assert len(by_name.splits["test"]) == len(by_section.splits["test"]) == 597


@pytest.mark.parametrize(
    ("arguments", "fields", "words"),
    [
        (("digit",), {}, "name='digit': did you mean 'digits'"),
        (("photos",), {"max_pixel": 9}, "did you mean 'max_pixels'.*no field 'max_pixel'"),
        ((), {"name": "photos", "max_pixels": "9"}, "max_pixels='9': must be of type int"),
        (("digits",), {"path": "images"}, "path='images': the dataset 'digits' has none"),
        (("folder",), {}, "path='': give the folder of images"),
        (("tests",), {}, r"'tests'.* is a folder; .*open_dataset\('folder', path='tests'\)"),
        (({"path": "images"},), {}, "dataset.name: is missing"),
        ((7,), {}, "open_dataset: give a name, .*, not int"),
    ],
)
def test_mistakes_in_arguments_are_named(arguments, fields, words, monkeypatch):
    monkeypatch.chdir(conftest.ROOT)
    with pytest.raises(UserError, match=words):
        open_dataset(*arguments, **fields)


@pytest.mark.parametrize("name", registry.DATASETS)
def test_every_entry_names_functions(name):
    entry = registry.DATASETS[name]
    assert callable(registry.function_of(entry.opens))
    if entry.recipe:
        assert set(entry.options) <= {
            *inspect.signature(registry.function_of(entry.recipe)).parameters
        }


def test_datasets_of_tfds_share_what_is_known_of_their_namesakes():
    ours, theirs = registry.entry_of("cifar10"), registry.entry_of("tfds:cifar10:3.0.2")
    assert (theirs.classes, theirs.mean, theirs.std) == (ours.classes, ours.mean, ours.std)
    assert registry.entry_of("tfds:oxford_flowers102").classes == 0


def test_buckets_are_refused_where_a_dataset_cannot_lie_in_one():
    with pytest.raises(UserError, match="'photos' is read from a directory of this machine only"):
        open_dataset({"name": "photos", "data_dir": "gs://bucket/data"})


def test_describe():
    assert describe([], 3) == "record 3"

"""Datasets by name."""

import inspect

import pytest

from unnas_jax.core.errors import UserError
from unnas_jax.data import open_dataset, registry
from unnas_jax.data.records import describe


def test_unknown_names_are_refused_with_the_closest():
    with pytest.raises(UserError, match="did you mean 'photos'.*folder.*tfds:NAME"):
        open_dataset({"name": "photo", "path": "", "data_dir": ""})


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

"""Datasets by name."""

import pytest

from unnas_jax.core.errors import UserError
from unnas_jax.data import open_dataset, registry


def test_unknown_names_are_refused_with_the_closest():
    with pytest.raises(UserError, match="did you mean 'photos'.*folder.*tfds:NAME"):
        open_dataset({"name": "photo", "path": "", "data_dir": ""})


def test_every_registered_module_opens_datasets():
    import importlib

    for module in registry.DATASETS.values():
        assert callable(importlib.import_module(module).open_dataset)


def test_describe():
    assert registry.describe([], 3) == "record 3"

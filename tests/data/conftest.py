import pytest
from absl import logging

from unnas_jax.data import open_dataset


@pytest.fixture(scope="session")
def photos_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("tfds")


@pytest.fixture(scope="session")
def photos(photos_dir):
    return open_dataset({"name": "photos", "path": "", "data_dir": str(photos_dir)})


@pytest.fixture
def messages(monkeypatch):
    """What is logged by absl, as lines 'LEVEL text'."""
    lines = []

    def record(level):
        return lambda text, *args: lines.append(f"{level} {text % args}")

    monkeypatch.setattr(logging, "warning", record("WARNING"))
    monkeypatch.setattr(logging, "info", record("INFO"))
    return lines

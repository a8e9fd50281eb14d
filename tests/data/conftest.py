import logging

import pytest

from unnas_jax.data import open_dataset


@pytest.fixture(scope="session")
def photos_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("tfds")


@pytest.fixture(scope="session")
def photos(photos_dir):
    return open_dataset({"name": "photos", "path": "", "data_dir": str(photos_dir)})


@pytest.fixture
def messages():
    """What is logged, as lines 'LEVEL text'."""
    lines = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(f"{record.levelname} {record.getMessage()}")
    logger, level = logging.getLogger("unnas_jax"), logging.getLogger("unnas_jax").level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield lines
    logger.removeHandler(handler)
    logger.setLevel(level)

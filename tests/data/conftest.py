import logging

import pytest


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

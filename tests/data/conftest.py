import pytest
from absl import logging


@pytest.fixture
def messages(monkeypatch):
    """What is logged by absl, as lines 'LEVEL text'."""
    lines = []

    def record(level):
        return lambda text, *args: lines.append(f"{level} {text % args}")

    monkeypatch.setattr(logging, "warning", record("WARNING"))
    monkeypatch.setattr(logging, "info", record("INFO"))
    return lines

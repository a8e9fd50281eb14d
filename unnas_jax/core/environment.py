"""The environment variables that new processes get."""

import contextlib
import os
from collections.abc import Iterator, Mapping


@contextlib.contextmanager
def changed(changes: Mapping[str, str]) -> Iterator[None]:
    """A block in which processes start with some environment variables changed."""
    before = {key: os.environ.get(key) for key in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value

"""Flags of XLA, given to processes before jax is imported."""

import importlib.util
import mmap
import pathlib
from collections.abc import Mapping


def known(name: str) -> bool:
    """Whether the installed XLA has a flag; one that it has not would end the process."""
    spec = importlib.util.find_spec("jaxlib")
    origin = spec.origin if spec else None
    library = pathlib.Path(origin or "").parent / "libjax_common.so"
    try:
        with (
            open(library, "rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
        ):
            return data.find(b"\0" + name.encode() + b"\0") >= 0  # A string of C; others remain.
    except OSError:  # Another version's library has another name.
        return False


def added(given: str, flags: Mapping[str, str]) -> str:
    """A value for `XLA_FLAGS`: what is given, and those flags that it leaves out and XLA knows."""
    words = given.split()
    names = {word.removeprefix("--").partition("=")[0] for word in words}
    words += [f"--{k}={value}" for k, value in flags.items() if k not in names and known(k)]
    return " ".join(words)

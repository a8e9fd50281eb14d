"""The directory of files that can be made again."""

import os


def path(*names: str) -> str:
    """A path below $XDG_CACHE_HOME/unnas_jax, by default ~/.cache/unnas_jax."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.join(home, "unnas_jax", *names)

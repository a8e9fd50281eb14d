"""Finds the recipes that come with the package: those of a checkout, or what a wheel installed."""

import importlib.util
import os
import pathlib

from unnas_jax.core.registry import nearest


def folder() -> pathlib.Path:
    """Where the recipes are.

    An installed package has them as `unnas_jax.configs`; beside a checkout's package they are the
    directory configs/.
    """
    package = pathlib.Path(__file__).parents[1]
    checkout = package.parent / "configs"
    found = importlib.util.find_spec("unnas_jax.configs")
    if found is not None and found.origin is not None:
        return pathlib.Path(found.origin).parent
    return checkout


def names() -> list[str]:
    """The names of the recipes, sorted."""
    return sorted(path.stem for path in folder().glob("*.py") if path.stem != "__init__")


def resolve(path: str) -> str:
    """The file that a `--config` means: itself, or that of a recipe by name.

    Args:
      path: a file, or a recipe's name; with an argument behind a colon, if it takes one.

    Returns:
      the file, with the argument; the path as it is if it is no recipe's name.
    """
    name, colon, argument = path.partition(":")
    if "/" in name or name.endswith((".py", ".yaml", ".yml")) or os.path.exists(name):
        return path
    file = folder() / f"{name}.py"
    return f"{file}{colon}{argument}" if file.is_file() else path


def hint(path: str) -> str:
    """What to write instead of a config that is not there."""
    stem = pathlib.PurePath(path.partition(":")[0]).stem
    return f"{nearest(stem, names())}give a file, or the name of a recipe, such as rot_photos"

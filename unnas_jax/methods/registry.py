"""The search methods by name, and the check of their options."""

from typing import Any

import ml_collections

from unnas_jax.config.options import Config
from unnas_jax.config.sections import MethodConfig
from unnas_jax.core.errors import UserError
from unnas_jax.core.registry import Registry, nearest
from unnas_jax.methods.base import SearchMethod
from unnas_jax.methods.darts import Darts
from unnas_jax.methods.gdas import Gdas
from unnas_jax.methods.p_darts import PDarts
from unnas_jax.methods.pc_darts import PCDarts
from unnas_jax.methods.single_path import SinglePath


def _check(method: type[SearchMethod]) -> None:
    """Raises `UserError` for a class that lacks functions which a search calls."""
    needed = ("candidates", "judge", "document") if method.chooses else ("mix",)
    lacking = sorted(getattr(method, "__abstractmethods__", ()))
    lacking += [name for name in needed if getattr(method, name) is getattr(SearchMethod, name)]
    if lacking:
        raise UserError(
            f"search method {method.name!r}: lacks {', '.join(lacking)}, which a method with "
            f"chooses={method.chooses} must define; see unnas_jax.methods.base.SearchMethod"
        )


METHODS: Registry[type[SearchMethod]] = Registry(
    "search method",
    {method.name: method for method in (Darts, PCDarts, PDarts, Gdas, SinglePath)},
    check=_check,
)


def of_config(config: Config) -> type[SearchMethod]:
    """The method that the config of a search names.

    Raises:
      UserError: there is no such method.
    """
    return METHODS.find(MethodConfig.of(config).search.method, "search.method")


def register_method(method: type[SearchMethod]) -> type[SearchMethod]:
    """Adds a method under its `name`, for this process; usable as a decorator.

    Raises:
      UserError: the class lacks functions that a search calls, or the name is that of something
        else, see `Registry.register`.
    """
    return METHODS.register(method.name, method)


def choose(config: ml_collections.ConfigDict, name: str, **options: Any) -> None:
    """Writes a method and all its options into a config, where flags change them.

    Args:
      config: of a search.
      name: of the method.
      options: those that are not to have their defaults.
    """
    config.search.method = name
    config.method = of_config(config.to_dict()).completed(options)


def validate(config: MethodConfig) -> None:
    """Checks the method of a search and its options.

    Raises:
      UserError: there is no such method or option, or a value is none for it.
    """
    method = of_config(config)
    space = config.network.space
    if space not in method.spaces():
        others = [name for name, other in METHODS.items() if space in other.spaces()]
        raise UserError(
            f"config.network.space={space!r}: the method {method.name!r} searches in "
            f"{', '.join(method.spaces())}"
            + (f"; in {space} search.method={others[0]!r} does" if others else "")
        )
    defaults = method.completed({})
    for key, value in config.method.items():
        if key not in defaults:
            raise UserError(
                f"config.method.{key}: {nearest(key, defaults)}the method {method.name!r} has "
                f"{'the options ' + ', '.join(sorted(defaults)) if defaults else 'no options'}"
            )
        expected = type(defaults[key])
        number = expected is float and type(value) is int
        if type(value) is not expected and not number:
            raise UserError(f"config.method.{key}={value!r}: must be of type {expected.__name__}")
    method.validate(config)

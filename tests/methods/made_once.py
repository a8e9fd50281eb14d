"""Methods made once for a setting: launches of a file's tests share what is traced and compiled."""

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from unnas_jax.methods.base import SearchMethod, Setting


@contextlib.contextmanager
def made_once(method: type[SearchMethod]) -> Iterator[None]:
    """Instances of a class never change, so that one can stand for all of the same setting."""
    made: dict[Any, dict[str, Any]] = {}
    init = method.__init__

    def shared_init(self: SearchMethod, setting: Setting) -> None:
        if setting.optimizers:  # Their words do not tell them apart.
            init(self, setting)
            return
        words = setting.config, setting.task, setting.mesh, setting.steps_per_epoch, setting.carried
        key = type(self), str(words), setting.stage, setting.first_step
        if key not in made:
            init(self, setting)
            made[key] = self.__dict__
        self.__dict__.update(made[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(method, "__init__", shared_init)
        yield

"""What the processes of the tests of `workers` make; apart, for they import little."""

import os

import numpy as np

from unnas_jax.core.errors import UserError


class Squares:
    """Step s is two examples of s squared, and the process that made them."""

    def __call__(self, step):
        example = {"value": np.full((3, 5), step**2, np.int32), "process": np.int64(os.getpid())}
        return [example, {**example, "value": example["value"] + 1}]


class Failing:
    """Step k ends in the exception k."""

    errors = (
        UserError("it is so"),
        MemoryError(),
        OSError(28, "No space left on device"),
        KeyError("unforeseen"),
    )

    def __call__(self, step):
        raise self.errors[step]

"""What random draws and schedules of a search depend on, besides the seed."""

from typing import NamedTuple

import jax

# What a random draw is for; folded into the seed's key together with the step.
INIT, ALPHAS, WEIGHT_STEP, ALPHA_STEP, EVALUATION, NOISE, DRAW = range(7)


class Moment(NamedTuple):
    """What draws and schedules of a pass depend on.

    Attributes:
      step: int32, the finished steps of the run.
      purpose: int32, `WEIGHT_STEP` or `ALPHA_STEP`.
    """

    step: jax.Array | int
    purpose: jax.Array | int

"""The two optimizers of a search: SGD for the weights, Adam for the alphas."""

from collections.abc import Mapping
from typing import Any

import optax


def epoch_cosine(
    peak: float, final: float, epochs: int, steps_per_epoch: int
) -> optax.Schedule:
    """Cosine from `peak` to `final`, constant within an epoch: the paper's schedule.

    At epoch e: final + (peak - final) * (1 + cos(pi * e / epochs)) / 2.
    """
    cosine = optax.cosine_decay_schedule(peak, epochs, alpha=final / peak)
    return lambda step: cosine(step // steps_per_epoch)


def weights(config: Mapping[str, Any], schedule: optax.Schedule) -> optax.GradientTransformation:
    """SGD with momentum for the weights; `config` is the section `weights`.

    Clip the gradient to a global norm, add weight decay times the weights, momentum, step.
    """
    return optax.chain(
        optax.clip_by_global_norm(config["clip_norm"]),
        optax.add_decayed_weights(config["weight_decay"]),
        optax.sgd(schedule, momentum=config["momentum"]),
    )


def alphas(config: Mapping[str, Any]) -> optax.GradientTransformation:
    """Adam for the alphas with L2 added to the gradient; `config` is the section `alphas`.

    The decay is coupled: it goes through Adam's moments, unlike AdamW's.
    """
    return optax.chain(
        optax.add_decayed_weights(config["weight_decay"]),
        optax.adam(config["learning_rate"], b1=config["b1"], b2=config["b2"]),
    )

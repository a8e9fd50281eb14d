"""The two optimizers of a search: SGD for the weights, Adam for the alphas."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import optax


def epoch_cosine(peak: float, final: float, epochs: int, steps_per_epoch: int) -> optax.Schedule:
    """Cosine from `peak` to `final`, constant within an epoch: the paper's schedule.

    At epoch e: final + (peak - final) * (1 + cos(pi * e / epochs)) / 2.
    """
    cosine = optax.cosine_decay_schedule(peak, epochs, alpha=final / peak)
    return lambda step: cosine(step // steps_per_epoch)


def weights_schedule(config: Mapping[str, Any], steps_per_epoch: int) -> optax.Schedule:
    """The learning rate of a config's weights (`config` is the whole config), by step."""
    section = config["weights"]
    return epoch_cosine(
        section["learning_rate"],
        section["final_learning_rate"],
        config["train"]["epochs"],
        steps_per_epoch,
    )


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


def training_schedule(config: Mapping[str, Any], steps_per_epoch: int) -> optax.Schedule:
    """Cosine per epoch, after a linear warm-up over whole epochs (paper, section 6.2).

    Epoch e of the warm-up's W has `warmup_factor + (1 - warmup_factor) * e / W` times the cosine's
    rate of that epoch.
    """
    section, epochs = config["weights"], config["train"]["epochs"]
    cosine = epoch_cosine(
        section["learning_rate"], section["final_learning_rate"], epochs, steps_per_epoch
    )
    warmup, factor = section["warmup_epochs"], section["warmup_factor"]
    if not warmup:
        return cosine

    def schedule(step: Any) -> Any:
        done = jnp.minimum((step // steps_per_epoch) / warmup, 1.0)
        return cosine(step) * (factor + (1.0 - factor) * done)

    return schedule


def training(config: Mapping[str, Any], steps_per_epoch: int) -> optax.GradientTransformation:
    """SGD with Nesterov momentum and weight decay, clipped only if `clip_norm` is not 0."""
    section = config["weights"]
    clip = [optax.clip_by_global_norm(section["clip_norm"])] if section["clip_norm"] else []
    return optax.chain(
        *clip,
        optax.add_decayed_weights(section["weight_decay"]),
        optax.sgd(
            training_schedule(config, steps_per_epoch),
            momentum=section["momentum"],
            nesterov=section["nesterov"],
        ),
    )

"""An optimizer of one's own; docs/walks/optimizer.md shows this file."""

import jax
import jax.numpy as jnp
import optax

import unnas_jax as un


def sign_momentum(learning_rate, decay=0.9):
    """Steps by the sign of the momentum: all of one size."""
    sign = optax.stateless(lambda updates, params: jax.tree.map(jnp.sign, updates))
    return optax.chain(optax.trace(decay), sign, optax.scale_by_learning_rate(learning_rate))


un.register_optimizer("sign_momentum", sign_momentum)

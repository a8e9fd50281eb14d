"""Scores of an untrained network that need labels, for comparison; higher is better.

`loss(outputs)` is that of a batch. Only kernels, of convolutions and linear layers, count.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from unnas_jax.sweep.scores.zero_cost import Apply, Variables, kernels

Loss = Callable[[jax.Array], jax.Array]


def cross_entropy(labels: jax.Array) -> Loss:
    """The mean cross entropy of logits (N, classes) with labels (N,)."""

    def loss(logits: jax.Array) -> jax.Array:
        chosen = jnp.take_along_axis(nn.log_softmax(logits), labels[:, None], axis=1)
        return -jnp.mean(chosen)

    return loss


def _gradient(apply: Apply, variables: Variables, x: jax.Array, loss: Loss) -> Any:
    def of(params: Any) -> jax.Array:
        return loss(apply({**variables, "params": params}, x, True)[0])

    return jax.grad(of)(variables["params"])


def grad_norm(apply: Apply, variables: Variables, x: jax.Array, loss: Loss) -> jax.Array:
    """The sum over layers of the norm of the loss' gradient (Abdelfattah et al., 2021)."""
    gradient = kernels(_gradient(apply, variables, x, loss))
    return jnp.sum(jnp.stack([jnp.sqrt(jnp.sum(one**2)) for one in gradient]))


def snip(apply: Apply, variables: Variables, x: jax.Array, loss: Loss) -> jax.Array:
    """The sum of |w dL/dw| (Lee et al., 2019)."""
    gradient = kernels(_gradient(apply, variables, x, loss))
    pairs = zip(kernels(variables["params"]), gradient, strict=True)
    return jnp.sum(jnp.stack([jnp.sum(jnp.abs(w * g)) for w, g in pairs]))


def grasp(apply: Apply, variables: Variables, x: jax.Array, loss: Loss) -> jax.Array:
    """-w' H g: how the norm of the gradient g changes if weights shrink (Wang et al., 2020).

    H is the Hessian of the loss; positive where a step against w makes gradients flow.
    """

    def flow(params: Any) -> jax.Array:
        gradient = kernels(_gradient(apply, {**variables, "params": params}, x, loss))
        return 0.5 * sum((jnp.sum(one**2) for one in gradient), jnp.zeros(()))

    products = kernels(jax.grad(flow)(variables["params"]))
    pairs = zip(kernels(variables["params"]), products, strict=True)
    return -jnp.sum(jnp.stack([jnp.sum(w * h) for w, h in pairs]))


@jax.custom_vjp
def _probed(x: jax.Array, probe: jax.Array) -> jax.Array:
    """Returns x; the gradient in `probe` is what x adds to the Fisher score."""
    del probe
    return x


def _probed_backward(x: jax.Array, gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    pixels = tuple(range(1, x.ndim - 1))
    by_image = jnp.sum(x * gradient, axis=pixels)
    return gradient, 0.5 * jnp.sum(jnp.mean(by_image**2, axis=0))


_probed.defvjp(lambda x, probe: (x, x), _probed_backward)


def fisher(apply: Apply, variables: Variables, x: jax.Array, loss: Loss) -> jax.Array:
    """Half the mean square over images of sum a dL/da, over layers' channels (Turner et al., 2020).

    a are the outputs of `nn.Conv` and `nn.Dense`, summed over pixels.

    Raises:
      ValueError: the network has no such layer outside branches: give a cell's own network.
    """
    layers = 0

    def of(probe: jax.Array) -> jax.Array:
        def intercept(
            method: Callable[..., Any],
            args: Any,
            kwargs: Any,
            context: nn.module.InterceptorContext,
        ) -> Any:
            nonlocal layers
            output = method(*args, **kwargs)
            if not isinstance(context.module, nn.Conv | nn.Dense):
                return output
            layers += 1
            return _probed(output, probe)

        with nn.intercept_methods(intercept):
            return loss(apply(variables, x, True)[0])

    score = jax.grad(of)(jnp.zeros(()))
    if not layers:
        raise ValueError("fisher: the network has no nn.Conv or nn.Dense")
    return score

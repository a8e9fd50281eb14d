"""The bilevel steps of a search: alphas learn on half B, weights on half A (DARTS, section 2.3)."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, Literal

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from unnas_jax.core import sharding
from unnas_jax.learning import optim
from unnas_jax.spaces.darts.supernet import build_supernet, init_alphas
from unnas_jax.tasks.base import Batch, Examples, Sums, Task, target_counts

# What a random draw is for; folded into the seed's key together with the step.
_INIT, _ALPHAS, _WEIGHT_STEP, _ALPHA_STEP, _EVALUATION, _NOISE = range(6)

Which = Literal["weights", "alphas", "both"]

Loss = Callable[[Any, Any], tuple[jax.Array, Any]]
"""(weights, alphas) -> (loss, auxiliary), on one batch."""


def second_order(
    loss_a: Loss,
    loss_b: Loss,
    weights: Any,
    alphas: Any,
    optimizer: optax.GradientTransformation,
    optimizer_state: optax.OptState,
) -> tuple[Any, Any]:
    """The gradient in the alphas of B's loss after one weight step on A (DARTS, equation 6).

        d/d alpha  L_B(w', alpha)  with  w' = step(w, d/dw L_A(w, alpha))

    It is exact: the step, with its clipping, decay and momentum, is differentiated too, where
    DARTS approximates the mixed second derivative by finite differences and its step by plain SGD.

    Args:
      loss_a, loss_b: the losses of the two halves.
      weights, alphas: pytrees, at which the gradient is taken.
      optimizer, optimizer_state: of the weights; the state is not changed.

    Returns:
      The gradient, of the structure of `alphas`, and the auxiliary value of `loss_b`.
    """

    def after_step(alphas: Any) -> tuple[jax.Array, Any]:
        gradient, _ = jax.grad(loss_a, has_aux=True)(weights, alphas)
        updates, _ = optimizer.update(gradient, optimizer_state, weights)
        return loss_b(optax.apply_updates(weights, updates), alphas)

    return jax.grad(after_step, has_aux=True)(alphas)


class SearchState(flax.struct.PyTreeNode):
    """Everything that a step reads and changes; all of it is replicated and checkpointed.

    Attributes:
      step: int32, the number of finished steps.
      params, batch_stats: of the supernet.
      alphas: `normal` and `reduce`, float32 (edges, operations).
      weights_opt, alphas_opt: the two optimizers' states.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    alphas: dict[str, jax.Array]
    weights_opt: optax.OptState
    alphas_opt: optax.OptState


@dataclasses.dataclass(frozen=True)
class Steps:
    """The jitted functions of a search.

    Attributes:
      init: () -> state.
      alphas: (state, batch of B, batch of A) -> (state, sums of B). The batch of A, on which
        the next weight step runs, is used by the second-order gradient only.
      weights: (state, batch of A) -> (state, sums of A), and the step counts up.
      evaluate: (state, batch, number of the batch) -> sums, with running statistics.
      gradients: the part of a step that costs: (state, batch, int32, of=...) -> gradients,
        statistics and sums; jitted, for benchmarks.
      shapes: () -> the state's shapes and shardings.
      lower: (the shapes and shardings of a batch) -> the programs that an alpha step and a weight
        step run, in order, not compiled.
    """

    init: Callable[[], SearchState]
    alphas: Callable[[SearchState, Batch, Batch], tuple[SearchState, Sums]]
    weights: Callable[[SearchState, Batch], tuple[SearchState, Sums]]
    evaluate: Callable[[SearchState, Batch, int], Sums]
    gradients: Any
    shapes: Callable[[], SearchState]
    lower: Callable[[Any], dict[str, list[jax.stages.Lowered]]]


def example_shapes(config: Mapping[str, Any], task: Task, images: int = 1) -> Examples:
    """The shapes and dtypes of the examples that a batch of images becomes."""
    crop = config["input"]["crop"]
    batch = {
        "image": jax.ShapeDtypeStruct((images, crop, crop, 3), jnp.uint8),
        "label": jax.ShapeDtypeStruct(
            (images, crop, crop) if task.label_maps else (images,), jnp.int32
        ),
    }
    return jax.eval_shape(lambda batch: task.examples(jax.random.key(0), batch, train=True), batch)


def build_steps(config: Mapping[str, Any], task: Task, mesh: Mesh, steps_per_epoch: int) -> Steps:
    """The jitted steps of a search (DARTS, algorithm 1).

    Args:
      config: a validated config as a dict.
      task: the task that the supernet learns.
      mesh: see `unnas_jax.core.sharding`; batches must be split over it.
      steps_per_epoch: the learning rate changes once an epoch.
    """
    supernet = build_supernet(config, task)
    weights_tx = optim.weights(config["weights"], optim.weights_schedule(config, steps_per_epoch))
    alphas_tx = optim.alphas(config["alphas"])
    everywhere = sharding.replicated(mesh)

    def key_for(purpose: jax.Array | int, step: jax.Array | int) -> jax.Array:
        return jax.random.fold_in(jax.random.fold_in(jax.random.key(config["seed"]), purpose), step)

    def noise_for(purpose: jax.Array | int, step: jax.Array | int) -> jax.Array:
        return jax.random.fold_in(key_for(_NOISE, step), purpose)

    def initial() -> SearchState:
        alphas = init_alphas(
            key_for(_ALPHAS, 0),
            config["network"]["nodes"],
            config["alphas"]["init_scale"],
            supernet.operations,
        )
        inputs = example_shapes(config, task).inputs
        variables = supernet.lazy_init(key_for(_INIT, 0), inputs, alphas, train=True)
        params = variables["params"]
        return SearchState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            batch_stats=variables["batch_stats"],
            alphas=alphas,
            weights_opt=weights_tx.init(params),
            alphas_opt=alphas_tx.init(alphas),
        )

    def loss(
        params: Any, alphas: Any, batch_stats: Any, noise: jax.Array, examples: Examples
    ) -> tuple[jax.Array, tuple[Any, Sums]]:
        outputs, updated = supernet.apply(
            {"params": params, "batch_stats": batch_stats},
            examples.inputs,
            alphas,
            train=True,
            mutable=["batch_stats"],
            rngs={"noise": noise},
        )
        sums = task.score(outputs, examples, train=True)
        count = jnp.maximum(sharding.total(sums["count"]), 1.0)
        return sums["loss"] / count, (updated["batch_stats"], sums)

    def gradients(
        state: SearchState, batch: Batch, purpose: jax.Array, of: Which
    ) -> tuple[Any, Any, Any, Sums]:
        """Gradients of weights and alphas (those not asked for are empty), statistics, sums."""
        examples = task.examples(key_for(purpose, state.step), batch, train=True)
        arguments = {"weights": (0,), "alphas": (1,), "both": (0, 1)}[of]

        def of_rows(variables: tuple[Any, Any, Any, jax.Array], examples: Examples) -> Any:
            grads, (batch_stats, sums) = jax.grad(loss, argnums=arguments, has_aux=True)(
                *variables, examples
            )
            # Here, so that what devices send each other are the gradients of the parameters: XLA
            # alone would sum those of the dense form's kernels, 12 times as many.
            grads, sums = sharding.total((grads, sums))
            by_argument = dict(zip(arguments, grads, strict=True))
            return by_argument.get(0, ()), by_argument.get(1, ()), batch_stats, sums

        noise = noise_for(purpose, state.step)
        variables = (state.params, state.alphas, state.batch_stats, noise)
        return sharding.by_device(of_rows, mesh)(variables, examples)

    def unrolled(
        state: SearchState, batch_b: Batch, batch_a: Batch
    ) -> tuple[dict[str, jax.Array], Sums]:
        """The second-order gradient of the alphas, and the sums of B."""

        def on(batch: Batch, purpose: int) -> Loss:
            examples = task.examples(key_for(purpose, state.step), batch, train=True)
            noise = noise_for(purpose, state.step)
            return lambda params, alphas: loss(params, alphas, state.batch_stats, noise, examples)

        grads, (_, sums) = second_order(
            on(batch_a, _WEIGHT_STEP),
            on(batch_b, _ALPHA_STEP),
            state.params,
            state.alphas,
            weights_tx,
            state.weights_opt,
        )
        return grads, sums

    def update_alphas(state: SearchState, grads: Any) -> SearchState:
        updates, alphas_opt = alphas_tx.update(grads, state.alphas_opt, state.alphas)
        return state.replace(
            alphas=optax.apply_updates(state.alphas, updates), alphas_opt=alphas_opt
        )

    def update_weights(state: SearchState, grads: Any, batch_stats: Any) -> SearchState:
        updates, weights_opt = weights_tx.update(grads, state.weights_opt, state.params)
        return state.replace(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            batch_stats=batch_stats,
            weights_opt=weights_opt,
        )

    def evaluate(state: SearchState, batch: Batch, number: jax.Array) -> Sums:
        examples = task.examples(key_for(_EVALUATION, number), batch, train=False)
        outputs: Any = supernet.apply(
            {"params": state.params, "batch_stats": state.batch_stats},
            examples.inputs,
            state.alphas,
            train=False,
            rngs={"noise": noise_for(_EVALUATION, number)},
        )
        sums = task.score(outputs, examples, train=False)
        return {**sums, "targets": target_counts(examples, task.num_classes)}

    def jit(function: Callable[..., Any], **options: Any) -> Any:
        return jax.jit(function, out_shardings=everywhere, **options)

    gradients = jit(gradients, static_argnames="of")
    unrolled, evaluate = jit(unrolled), jit(evaluate)
    update_alphas = jit(update_alphas, donate_argnums=0)
    update_weights = jit(update_weights, donate_argnums=0)
    # XLA needs as long to compile forward and backward a second time as the first. A CPU, where
    # that is most of a short run, computes both gradients in one function for both passes;
    # accelerators are spared the gradients that a pass does not use.
    shared = sharding.platform() == "cpu"
    of_alphas: Which = "both" if shared else "alphas"
    of_weights: Which = "both" if shared else "weights"

    @functools.cache
    def placed(purpose: int) -> jax.Array:
        placed_purpose: jax.Array = sharding.replicate(np.int32(purpose), mesh)
        return placed_purpose

    def alpha_step(state: SearchState, batch_b: Batch, batch_a: Batch) -> tuple[SearchState, Sums]:
        if config["search"]["order"] == 2:
            grads, sums = unrolled(state, batch_b, batch_a)
        else:
            # The statistics that this pass would update belong to the weights' half.
            _, grads, _, sums = gradients(state, batch_b, placed(_ALPHA_STEP), of=of_alphas)
        return update_alphas(state, grads), sums

    def weight_step(state: SearchState, batch_a: Batch) -> tuple[SearchState, Sums]:
        grads, _, batch_stats, sums = gradients(state, batch_a, placed(_WEIGHT_STEP), of=of_weights)
        return update_weights(state, grads, batch_stats), sums

    def evaluate_batch(state: SearchState, batch: Batch, number: int) -> Sums:
        return evaluate(state, batch, sharding.replicate(np.int32(number), mesh))

    def placed_everywhere(tree: Any) -> Any:
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=everywhere), tree
        )

    def shapes() -> SearchState:
        state: SearchState = placed_everywhere(jax.eval_shape(initial))
        return state

    def lower(batch: Any) -> dict[str, list[jax.stages.Lowered]]:
        def lowered(function: Any, *arguments: Any, **static: Any) -> tuple[Any, Any]:
            program = function.lower(*arguments, **static)
            return program, placed_everywhere(program.out_info)

        state = shapes()
        purpose = jax.ShapeDtypeStruct((), jnp.int32, sharding=everywhere)
        if config["search"]["order"] == 2:
            of_alpha, (alpha_grads, _) = lowered(unrolled, state, batch, batch)
        else:
            of_alpha, (_, alpha_grads, _, _) = lowered(
                gradients, state, batch, purpose, of=of_alphas
            )
        of_weight, (grads, _, batch_stats, _) = lowered(
            gradients, state, batch, purpose, of=of_weights
        )
        return {
            "alphas": [of_alpha, lowered(update_alphas, state, alpha_grads)[0]],
            "weights": [of_weight, lowered(update_weights, state, grads, batch_stats)[0]],
        }

    def init() -> SearchState:
        state: SearchState = sharding.replicate(initial(), mesh)
        return state

    return Steps(init, alpha_step, weight_step, evaluate_batch, gradients, shapes, lower)

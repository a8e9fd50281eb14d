"""The steps of training discrete networks: one, or several at once, of seeds and of cells."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from unnas_jax.config.sections import Training
from unnas_jax.core import dead_code, sharding
from unnas_jax.layers import forms
from unnas_jax.layers.blocks import BN_MOMENTUM
from unnas_jax.learning import optim
from unnas_jax.learning.feed import STEPS_AHEAD
from unnas_jax.spaces.programs import Program, placed_tree
from unnas_jax.tasks.base import Batch, Sums, Task
from unnas_jax.tasks.base import batch_shapes as shapes_of
from unnas_jax.tasks.base import evaluated as evaluated_sums

# Purposes of draws; folded into the seed's key together with the step.
_INIT, _STEP, _EVALUATION, _STATISTICS, _NOISE = range(5)


class TrainState(flax.struct.PyTreeNode):
    """Everything that a training step reads and changes.

    Every leaf has a leading axis of the seeds that are trained together.

    Attributes:
      seed: int32, from which every random draw of this network comes.
      step: int32, the number of finished steps.
      params, batch_stats: of the network.
      average: `params` and `batch_stats` averaged over the steps (see `_averaged`), which
        evaluations then use; empty if there is no average.
      optimizer: its state.
    """

    seed: jax.Array
    step: jax.Array
    params: Any
    batch_stats: Any
    average: Any
    optimizer: optax.OptState


class CellState(TrainState):
    """The state of networks in which the cell is data; see `unnas_jax.spaces.programs`.

    Attributes:
      cell: the variables that say which each one's cell is, by collection; never changed.
    """

    cell: Any


@dataclasses.dataclass(frozen=True)
class TrainSteps:
    """The jitted functions of a training; batches and sums have a leading axis of seeds.

    Batches may have fewer than the state: each is then that of as many networks in a row.

    Attributes:
      init: (seeds) -> state; of a network in which the cell is data (seeds, programs of that
        network, one for each seed) -> state: each begins with the weights that its cell's own
        network has with this seed.
      shapes: (number of seeds) -> the state's shapes and shardings.
      train: (state, batch (S, B, ...)) -> (state, sums); jitted.
      statistics: (state, batch (S, B, ...), number of the batch) -> the batch's BN statistics, of
        the parameters that are evaluated.
      evaluate: (state, batch (B, ...), number of the batch) -> sums.
    """

    init: Callable[..., TrainState]
    shapes: Callable[[int], TrainState]
    train: Any
    statistics: Callable[[TrainState, Batch, int], Any]
    evaluate: Callable[[TrainState, Batch, int], Sums]


def split_seeds(mesh: Mesh) -> NamedSharding:
    """The sharding of batches (S, B, ...): a device has all seeds and a part of each batch."""
    return NamedSharding(mesh, PartitionSpec(None, "data"))


def stack_seeds(batches: Sequence[Mapping[str, np.ndarray]], mesh: Mesh) -> dict[str, jax.Array]:
    """This process's rows of a batch of every seed as global arrays (S, B, ...)."""
    placed = split_seeds(mesh)
    return {
        name: jax.make_array_from_process_local_data(
            placed, np.stack([batch[name] for batch in batches])
        )
        for name in batches[0]
    }


def evaluated(state: TrainState) -> dict[str, Any]:
    """The parameters and statistics that evaluations use: the averages, if the state has them."""
    return state.average or {"params": state.params, "batch_stats": state.batch_stats}


def _cell(state: TrainState) -> dict[str, Any]:
    """The variables that are data: none of a network of one cell."""
    return state.cell if isinstance(state, CellState) else {}


def with_statistics(state: TrainState, statistics: Any) -> TrainState:
    """The state with other statistics for its evaluation."""
    if state.average:
        return state.replace(average={**state.average, "batch_stats": statistics})
    return state.replace(batch_stats=statistics)


def _averaged(values: Any, average: Any, decay: float, step: jax.Array) -> Any:
    """The exponential moving average after one more value, without the bias of its start.

    As `optax.ema(decay, debias=True)`: after step t the value of step k has the weight (1 - decay)
    decay^(t - k) / (1 - decay^t), so that early averages are of few values and not of the initial
    ones.
    """
    # In float32, 1 - decay^t loses its digits where t is small and decay near 1.
    share = (1.0 - decay) / -jnp.expm1(step * math.log(decay))
    return optax.incremental_update(values, average, share)


def schedule(config: Training, steps_per_epoch: int) -> optax.Schedule:
    """The learning rate of the weights by step."""
    return optim.schedule(config.weights, config.train.epochs, steps_per_epoch)


def build_steps(
    config: Training,
    network: nn.Module,
    task: Task,
    mesh: Mesh,
    steps_per_epoch: int,
    inputs: Any,
    optimizer: optim.Optimizer | None = None,
    form: str = "",
) -> TrainSteps:
    """The jitted steps of the evaluation phase (paper, section 3.2 and appendix).

    Networks trained together, of several seeds or cells, are one vectorised program; each one's
    draws depend on its seed alone, so that the result is that of training it alone, up to rounding.
    One network alone computes only the operations that its cell has.

    Args:
      config: of the training.
      network: called as network(inputs, train, drop_path) -> (outputs, auxiliary outputs); that
        of a cell, or one of a `unnas_jax.spaces.programs.Program`, in which the cell is data and
        which gets `drop_path` only if there is one.
      task: what is learned.
      mesh: see `unnas_jax.core.sharding`.
      steps_per_epoch: the learning rate and drop path change once an epoch.
      inputs: the shape and dtype of the network's inputs.
      optimizer: of the weights; None: that of the config. With cells as data its step of a
        parameter must not depend on others that are 0 (`optim.ignores_zeros`).
      form: of the convolutions of several networks, one of `unnas_jax.layers.forms.FORMS`; '':
        that for the platform.
    """
    if optimizer is None:
        optimizer = optim.optimizer(config.weights, schedule(config, steps_per_epoch))
    drop_path, epochs = config.network.drop_path, config.train.epochs
    auxiliary_weight, decay = config.network.auxiliary_weight, config.train.ema
    everywhere = sharding.replicated(mesh)

    def key_for(seed: jax.Array | int, purpose: int, step: jax.Array | int) -> jax.Array:
        return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), purpose), step)

    def fresh(seed: jax.Array | int, module: nn.Module) -> Any:
        return module.init(key_for(seed, _INIT, 0), jnp.zeros_like(inputs), train=False)

    @functools.cache
    def template() -> Any:
        return jax.eval_shape(lambda: fresh(0, network))

    def begun(seed: jax.Array | int, variables: Mapping[str, Any]) -> TrainState:
        learned = {kind: variables[kind] for kind in ("params", "batch_stats")}
        fields: dict[str, Any] = {
            **learned,
            "seed": jnp.asarray(seed, jnp.int32),
            "step": jnp.int32(0),
            "average": learned if decay else {},
            "optimizer": optimizer.init(learned["params"]),
        }
        cell = {kind: value for kind, value in variables.items() if kind not in learned}
        return CellState(**fields, cell=cell) if cell else TrainState(**fields)

    def begun_as(seed: int, program: Program) -> TrainState:
        """The state of a cell as data, with the weights that its own network begins with."""
        draw = dead_code.without(lambda seed: fresh(seed, program.own), np.int32(0))
        variables = placed_tree(program, jax.device_get(draw(np.int32(seed))), template())
        state: TrainState = jax.device_get(begun(seed, variables))
        return state

    def init(seeds: Sequence[int], programs: Sequence[Program] = ()) -> TrainState:
        if programs:
            states = [begun_as(seed, one) for seed, one in zip(seeds, programs, strict=True)]
        else:
            draw = dead_code.without(lambda seed: begun(seed, fresh(seed, network)), np.int32(0))
            states = [jax.device_get(draw(np.int32(seed))) for seed in seeds]
        stacked: TrainState = jax.tree.map(lambda *leaves: np.stack(leaves), *states)
        return sharding.replicate(stacked, mesh)

    @functools.cache
    def shapes(count: int) -> TrainState:
        seed = jax.ShapeDtypeStruct((), jnp.int32)
        one = jax.eval_shape(lambda seed: begun(seed, fresh(seed, network)), seed)
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(
                (count, *leaf.shape), leaf.dtype, sharding=everywhere
            ),
            one,
        )

    def loss(params: Any, state: TrainState, batch: Batch) -> tuple[jax.Array, tuple[Any, Sums]]:
        key = key_for(state.seed, _STEP, state.step)
        example_key, drop_key = jax.random.split(key)
        examples = task.examples(example_key, batch, train=True)
        dropping: dict[str, Any] = {}
        if drop_path:
            # The probability rises linearly over the epochs (DARTS, section A.2).
            dropping["drop_path"] = drop_path * (state.step // steps_per_epoch) / epochs
        (outputs, auxiliary), updated = network.apply(
            {**_cell(state), "params": params, "batch_stats": state.batch_stats},
            examples.inputs,
            train=True,
            **dropping,
            rngs={"drop_path": drop_key, "noise": jax.random.fold_in(drop_key, _NOISE)},
            mutable=["batch_stats"],
        )
        sums = task.score(outputs, examples, train=True)
        value = sums["loss"] / jnp.maximum(sums["count"], 1.0)
        if auxiliary is not None and auxiliary_weight:
            extra = task.score(auxiliary, examples, train=True)
            value += auxiliary_weight * extra["loss"] / jnp.maximum(extra["count"], 1.0)
        return value, (updated["batch_stats"], sums)

    def train(state: TrainState, batch: Batch) -> tuple[TrainState, Sums]:
        grads, (batch_stats, sums) = jax.grad(loss, has_aux=True)(state.params, state, batch)
        updates, optimizer_state = optimizer.update(grads, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
        average = state.average
        if decay:
            values = {"params": params, "batch_stats": batch_stats}
            average = _averaged(values, average, decay, state.step + 1)
        return (
            state.replace(
                step=state.step + 1,
                params=params,
                batch_stats=batch_stats,
                average=average,
                optimizer=optimizer_state,
            ),
            sums,
        )

    def statistics(state: TrainState, batch: Batch, number: jax.Array) -> Any:
        key = key_for(state.seed, _STATISTICS, number)
        examples = task.examples(key, batch, train=True)
        # One update from zero gives (1 - momentum) times the batch's own statistics.
        zeros = jax.tree.map(jnp.zeros_like, state.batch_stats)
        _, updated = network.apply(
            {**_cell(state), **evaluated(state), "batch_stats": zeros},
            examples.inputs,
            train=True,
            rngs={"noise": jax.random.fold_in(key, _NOISE)},
            mutable=["batch_stats"],
        )
        return jax.tree.map(lambda value: value / (1.0 - BN_MOMENTUM), updated["batch_stats"])

    def evaluate(state: TrainState, batch: Batch, number: jax.Array) -> Sums:
        key = key_for(0, _EVALUATION, number)  # All seeds are evaluated on the same examples.
        examples = task.examples(key, batch, train=False)
        outputs, _ = network.apply(
            {**_cell(state), **evaluated(state)},
            examples.inputs,
            train=False,
            rngs={"noise": jax.random.fold_in(key, _NOISE)},
        )
        return evaluated_sums(task, outputs, examples)

    def each_own(batch: Batch, count: int) -> Batch:
        """A batch for each network, of batches for as many in a row."""
        return jax.tree.map(lambda y: jnp.repeat(y, count // len(y), axis=0), batch)

    def over_seeds(function: Callable[..., Any], axes: Any, **options: Any) -> Any:
        def run(state: TrainState, *others: Any) -> Any:
            if len(state.seed) > 1:
                others = tuple(
                    other if axis is None else each_own(other, len(state.seed))
                    for other, axis in zip(others, axes[1:], strict=True)
                )
                with forms.form(form or forms.of_platform()):
                    return jax.vmap(function, in_axes=axes)(state, *others)
            # Without an axis of seeds, which would only be in XLA's way.
            given = zip((state, *others), axes, strict=True)
            alone = [x if axis is None else jax.tree.map(lambda y: y[0], x) for x, axis in given]
            return jax.tree.map(lambda y: y[None], function(*alone))

        run.__name__ = function.__name__
        return jax.jit(run, out_shardings=everywhere, **options)

    def numbered(function: Callable[..., Any], batch_axis: int | None) -> Callable[..., Any]:
        """The jitted function, called with the number of a batch as an int."""
        jitted = over_seeds(function, (0, batch_axis, None))
        return lambda state, batch, number: jitted(
            state, batch, sharding.replicate(np.int32(number), mesh)
        )

    return TrainSteps(
        init,
        shapes,
        over_seeds(train, (0, 0), donate_argnums=0),
        numbered(statistics, 0),
        numbered(evaluate, None),
    )


def grouped(state: TrainState, size: int, mesh: Mesh) -> list[TrainState]:
    """The state of all seeds as states of up to `size` seeds each."""
    count = len(state.seed)
    if size >= count:
        return [state]
    host = jax.device_get(state)
    return [
        sharding.replicate(jax.tree.map(lambda leaf, k=k: leaf[k : k + size], host), mesh)
        for k in range(0, count, size)
    ]


def joined(states: list[TrainState], mesh: Mesh) -> TrainState:
    """The inverse of `grouped`."""
    if len(states) == 1:
        return states[0]
    host = jax.device_get(states)
    return sharding.replicate(jax.tree.map(lambda *leaves: np.concatenate(leaves), *host), mesh)


def batch_shapes(
    config: Training, task: Task, seeds: int, mesh: Mesh
) -> dict[str, jax.ShapeDtypeStruct]:
    """The shapes of the global batches of images and labels of so many seeds, (S, B, ...)."""
    images = (seeds, config.train.batch_size)
    shapes = shapes_of(task, images, config.input.crop)
    return {
        name: jax.ShapeDtypeStruct(shape, dtype, sharding=split_seeds(mesh))
        for name, (shape, dtype) in shapes.items()
    }


def lower(
    config: Training, task: Task, steps: TrainSteps, seeds: int, mesh: Mesh
) -> jax.stages.Lowered:
    """The program of one step of so many seeds together, not compiled."""
    batch = batch_shapes(config, task, seeds, mesh)
    lowered: jax.stages.Lowered = steps.train.lower(steps.shapes(seeds), batch)
    return lowered


def memory(config: Training, task: Task, steps: TrainSteps, seeds: int, mesh: Mesh) -> int:
    """The bytes that a training of so many seeds together needs on each device.

    What XLA plans for a step, and the batches of the steps after it.
    """
    plan: Any = lower(config, task, steps, seeds, mesh).compile().memory_analysis()
    # The state is donated: it is among the arguments and again, as an alias, in the output.
    needed: int = plan.argument_size_in_bytes + plan.output_size_in_bytes
    needed += plan.temp_size_in_bytes - plan.alias_size_in_bytes
    batch = sharding.bytes_of(batch_shapes(config, task, seeds, mesh))
    return needed + STEPS_AHEAD * batch // mesh.size

"""Cells of NAS-Bench-201 trained together, each operation once for all cells that have it.

The kernels of one small network are too short to fill a GPU. Here networks of many cells go
forward and backward together on the same examples: at every edge the networks whose cell has a
convolution there compute it as one batched matrix product, and no other network does.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from unnas_jax.layers import forms
from unnas_jax.layers.blocks import ReluConvBN, batch_norm
from unnas_jax.layers.pooling import avg_pool
from unnas_jax.spaces.nasbench201.network import KERNELS, STAGES, Reduction, Stem
from unnas_jax.spaces.nasbench201.spec import EDGES, NODES, Spec
from unnas_jax.tasks.base import Sums, Task, evaluated

Tree = Mapping[str, Any]


class Lockstep:
    """Networks of several cells, one cell a stage; variables have a leading axis of networks."""

    def __init__(self, specs: Sequence[Spec], task: Task, width: int, dtype: Any) -> None:
        """Networks with the head of a task and `width` channels in the stem."""
        self.specs, self.task, self.width, self.dtype = specs, task, width, dtype

    def _members(self, edge: int, operation: str) -> np.ndarray:
        return np.array([k for k, s in enumerate(self.specs) if s.operations[edge] == operation])

    def layers(self) -> dict[str, tuple[nn.Module, np.ndarray]]:
        """Every layer with weights, with the numbers of the networks that have it."""
        everyone = np.arange(len(self.specs))
        layers: dict[str, tuple[nn.Module, np.ndarray]] = {
            "stem": (Stem(self.width, self.dtype), everyone)
        }
        for stage in range(STAGES):
            channels = self.width * 2**stage
            if stage:
                layers[f"reduction_{stage}"] = Reduction(channels, self.dtype), everyone
            for number in range(len(EDGES)):
                for operation, side in KERNELS.items():
                    members = self._members(number, operation)
                    if len(members):
                        layer = ReluConvBN(channels, (side, side), dtype=self.dtype)
                        layers[f"{stage}_{number}_{operation}"] = layer, members
        layers["bn"] = _Norm(self.dtype), everyone
        layers["head"] = self.task.head(self.dtype), everyone
        return layers

    def _walk(self, inputs: Any, call: Callable[[str, nn.Module, Any, bool], Any]) -> Any:
        """The outputs of the heads; `call` applies a layer to its networks' inputs."""
        layers = self.layers()

        def of(name: str, x: Any, *, same: bool = False) -> Any:
            return call(name, layers[name][0], x, same)

        x = of("stem", inputs, same=True)
        for stage in range(STAGES):
            if stage:
                x = of(f"reduction_{stage}", x)
            states = [x]
            for node in range(1, NODES):
                total: Any = 0.0
                for source in range(node):
                    number = EDGES.index((source, node))
                    total = total + self._edge(stage, number, states[source], of)
                states.append(total)
            x = states[-1]
        return of("head", of("bn", x))

    def _edge(self, stage: int, number: int, x: jax.Array, of: Callable[..., Any]) -> jax.Array:
        parts, order = [], []
        for operation in ("none", "skip_connect", *KERNELS, "avg_pool_3x3"):
            members = self._members(number, operation)
            if not len(members):
                continue
            own = x[members]
            if operation == "none":
                own = jnp.zeros_like(own)
            elif operation in KERNELS:
                own = of(f"{stage}_{number}_{operation}", own)
            elif operation == "avg_pool_3x3":
                own = avg_pool(own.reshape(-1, *own.shape[2:]), 3, 1, 1).reshape(own.shape)
            parts.append(own)
            order.append(members)
        return jnp.concatenate(parts)[np.argsort(np.concatenate(order))]

    def init(self, key: jax.Array, inputs: jax.ShapeDtypeStruct) -> tuple[Tree, Tree]:
        """Fresh `params` and `batch_stats` by layer, each network's own."""
        params: dict[str, Any] = {}
        statistics: dict[str, Any] = {}
        layers = self.layers()

        def call(name: str, layer: nn.Module, x: Any, same: bool) -> Any:
            keys = jax.random.split(
                jax.random.fold_in(key, list(layers).index(name)), len(layers[name][1])
            )

            def one(key: jax.Array, x: Any) -> Any:
                return layer.init(key, x, False)

            one_x = x if same else x[0]
            variables = jax.vmap(one, (0, None))(keys, one_x)
            params[name] = variables.get("params", {})
            statistics[name] = variables.get("batch_stats", {})
            count = len(keys)
            y = jax.eval_shape(lambda k: layer.apply(one(k, one_x), one_x, False), keys[0])
            return jnp.zeros((count, *y.shape), y.dtype)

        with forms.form("products"):
            self._walk(jnp.zeros(inputs.shape, self.dtype), call)
        return params, statistics

    def apply(self, params: Tree, statistics: Tree, inputs: Any, train: bool) -> tuple[Any, Tree]:
        """Outputs (networks, ...) and running statistics; all networks see the same inputs."""
        found: dict[str, Any] = {}

        def call(name: str, layer: nn.Module, x: Any, same: bool) -> Any:
            def one(params: Any, statistics: Any, x: Any) -> Any:
                own = {"params": params, "batch_stats": statistics}
                y, state = layer.apply(own, x, train, mutable=["batch_stats"])
                return y, state.get("batch_stats", {})

            y, found[name] = jax.vmap(one, (0, 0, None if same else 0))(
                params[name], statistics[name], x
            )
            return y

        with forms.form("products"):
            outputs = self._walk(inputs.astype(self.dtype), call)
        return outputs, found if train else statistics


class _Norm(nn.Module):
    """Batch norm and ReLU."""

    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        return nn.relu(batch_norm(train=train, affine=True, dtype=self.dtype, name="bn")(x))


def begin(nets: Lockstep, inputs: jax.ShapeDtypeStruct, seed: jax.Array) -> dict[str, Any]:
    """A state: parameters, statistics, momentum, the step and the seed."""
    params, statistics = nets.init(jax.random.fold_in(jax.random.key(seed), 0), inputs)
    momentum = jax.tree.map(jnp.zeros_like, params)
    return {
        "params": params,
        "statistics": statistics,
        "momentum": momentum,
        "seed": jnp.asarray(seed, jnp.int32),
        "step": jnp.int32(0),
    }


def steps(
    nets: Lockstep,
    state: dict[str, Any],
    images: jax.Array,
    labels: jax.Array,
    rows: jax.Array,
    rates: jax.Array,
    *,
    momentum: float = 0.9,
    decay: float = 5e-4,
) -> tuple[dict[str, Any], Sums]:
    """Some training steps: SGD with Nesterov momentum and weight decay, as the benchmark's.

    Args:
      nets: the networks.
      state: as of `begin`.
      images, labels: of the dataset, (images, S, S, 3) uint8 and (images,) int32.
      rows: (steps, B), the images of each batch.
      rates: (steps,), the learning rates.
      momentum, decay: of the optimizer.

    Returns:
      the state and every network's `loss`, `correct` and `count`, summed over the steps.
    """

    def step(state: dict[str, Any], given: Any) -> Any:
        chosen, rate = given
        key = jax.random.fold_in(jax.random.key(state["seed"]), 1)
        key = jax.random.fold_in(key, state["step"])
        batch = {"image": images[chosen], "label": labels[chosen]}
        examples = nets.task.examples(key, batch, train=True)

        def loss(params: Any) -> Any:
            outputs, statistics = nets.apply(params, state["statistics"], examples.inputs, True)
            sums = jax.vmap(lambda y: nets.task.score(y, examples, train=True))(outputs)
            return jnp.sum(sums["loss"] / sums["count"]), (statistics, sums)

        grads, (statistics, sums) = jax.grad(loss, has_aux=True)(state["params"])
        grads = jax.tree.map(lambda g, p: g + decay * p, grads, state["params"])
        moved = jax.tree.map(lambda m, g: momentum * m + g, state["momentum"], grads)
        params = jax.tree.map(
            lambda p, g, m: p - rate * (g + momentum * m), state["params"], grads, moved
        )
        new = {**state, "params": params, "statistics": statistics, "momentum": moved}
        keep = {name: sums[name] for name in ("loss", "correct", "count")}
        return {**new, "step": state["step"] + 1}, keep

    state, sums = jax.lax.scan(step, state, (rows, rates))
    return state, jax.tree.map(lambda x: x.sum(0), sums)


def evaluate(
    nets: Lockstep, state: dict[str, Any], images: jax.Array, labels: jax.Array, rows: jax.Array
) -> Sums:
    """Every network's sums over images that it has not seen; `rows` (batches, B)."""

    def batch_sums(_: Any, given: Any) -> Any:
        number, chosen = given
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), 2), number)
        batch = {"image": images[chosen], "label": labels[chosen]}
        examples = nets.task.examples(key, batch, train=False)
        outputs, _ = nets.apply(state["params"], state["statistics"], examples.inputs, False)
        sums = jax.vmap(lambda y: evaluated(nets.task, y, examples))(outputs)
        return None, {name: sums[name] for name in ("loss", "correct", "count")}

    _, sums = jax.lax.scan(batch_sums, None, (jnp.arange(len(rows)), rows))
    return jax.tree.map(lambda x: x.sum(0), sums)

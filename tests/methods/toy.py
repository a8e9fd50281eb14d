"""A search method of one's own, in one file: what docs/walks/search_method.md walks through."""

import jax
import jax.numpy as jnp
import numpy as np

from unnas_jax.methods.base import Stage
from unnas_jax.methods.darts import Darts
from unnas_jax.methods.registry import METHODS
from unnas_jax.spaces.darts.candidates import OPERATIONS, num_edges


class Shared(Darts):
    """One row of alphas for all edges of both cells, a weight of every edge, and two stages.

    The second stage has a new supernet, and only the operations that were best in the first.
    """

    name = "shared"

    @classmethod
    def defaults(cls):
        return {"kept": 3, "every": 2}

    @classmethod
    def stages(cls, config, steps_per_epoch):
        half = config.train.epochs // 2 * steps_per_epoch
        return [Stage("all operations", half), Stage("the best ones", half)]

    def initial_alphas(self, key):
        operations = self.setting.carried or OPERATIONS
        edges = num_edges(self.config.network.nodes)
        noise = 1e-3 * jax.random.normal(key, (len(operations),), jnp.float32)
        return {"operations": noise, "edges": jnp.ones((edges,), jnp.float32)}

    def mix(self, alphas):
        operations = self.setting.carried or OPERATIONS
        columns = jnp.array([OPERATIONS.index(name) for name in operations])
        softmax = jax.nn.softmax(alphas["operations"])
        row = jnp.zeros(len(OPERATIONS), softmax.dtype).at[columns].set(softmax)
        weights = jax.nn.sigmoid(alphas["edges"])[:, None] * row[None]
        return {"normal": weights, "reduce": weights}

    def needs_b(self, step):
        return step % self.options["every"] == 0

    def step(self, state, batch_a, batch_b):
        """The weights first; then the alphas, in some steps."""
        state, of_a = self.weight_step(state, batch_a)
        if batch_b is None:
            return state, {"weights": of_a, "alpha": None}
        state, of_b = self.alpha_step(state, batch_b, batch_a)
        return state, {"weights": of_a, "alpha": of_b}

    def finish(self, state):
        best = np.argsort(-state.alphas["operations"])[: self.options["kept"]]
        return [OPERATIONS[k] for k in sorted(best)]

    def record(self, state):
        return {"mean_edge": float(jnp.mean(state.alphas["edges"]))}


METHODS.register(Shared.name, Shared)

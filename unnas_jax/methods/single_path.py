"""Single-path search: one uniform path a step; then cells are judged with the shared weights.

With the held-out accuracy as the criterion it is random search with weight sharing (Li and
Talwalkar, 2019); with the angle, on random labels, the objective of RLNAS (Zhang et al., 2021).
There are no alphas, and half B is only judged on.
"""

import functools
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from unnas_jax.config.sections import MethodConfig
from unnas_jax.core import dead_code, sharding
from unnas_jax.core.errors import UserError
from unnas_jax.layers.blocks import BN_MOMENTUM
from unnas_jax.methods import draws
from unnas_jax.methods.base import Images, SearchMethod, SearchState, Setting
from unnas_jax.methods.compiled import Compiled
from unnas_jax.spaces import single_path, vectors
from unnas_jax.spaces.registry import Cells
from unnas_jax.tasks.base import Batch, Sums, evaluated, example_shapes

CRITERIA = ("accuracy", "loss", "angle")
"""By what cells are judged: the task's metric or the loss on held-out images, or the angle."""


class SinglePath(SearchMethod):
    """Weights of all operations, of which a step trains those of one random cell.

    Args:
      setting: see `unnas_jax.methods.base`.

    Attributes:
      paths: the supernet and its paths.
    """

    name = "single_path"
    chooses = True

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.paths = single_path.of_config(self.config).build(self.config, self.task)
        self.paths.check_inputs(example_shapes(self.config, self.task))
        own, jit = type(self), functools.partial(Compiled, self)
        self._train = jit(own.train, donate_argnums=0)
        self._statistics, self._scores = jit(own.statistics), jit(own.scores)
        self._sampled = jit(own.sampled)

    # Called before there is an instance.

    @classmethod
    def spaces(cls) -> Collection[str]:
        """All spaces that have a single-path supernet."""
        return tuple(single_path.SUPERNETS)

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """The number of cells to judge, the criterion, and the images for statistics."""
        return {"candidates": 1000, "criterion": "accuracy", "bn_images": 1024}

    @classmethod
    def validate(cls, config: MethodConfig) -> None:
        """Checks the options, and that the supernet can be built."""
        options = cls.completed(config.method)
        if options["criterion"] not in CRITERIA:
            raise UserError(
                f"config.method.criterion={options['criterion']!r}: use one of "
                f"{', '.join(CRITERIA)}"
            )
        for key in ("candidates", "bn_images"):
            if options[key] < 1:
                raise UserError(f"config.method.{key}={options[key]}: must be at least 1")
        single_path.of_config(config).validate(config)

    # Training.

    def needs_b(self, step: int) -> bool:
        """Never: nothing is learned from half B."""
        return False

    def initial(self) -> SearchState:
        """Draws the weights."""
        first = self.setting.first_step
        inputs: Any = example_shapes(self.config, self.task).inputs
        variables = self.paths.init(self.key(draws.INIT, 0), inputs)
        return SearchState(
            step=jnp.full((), first, jnp.int32),
            params=variables["params"],
            batch_stats=variables["batch_stats"],
            alphas={},
            weights_opt=self.weights_tx.init(variables["params"]),
            alphas_opt=optax.EmptyState(),
        )

    def train(self, state: SearchState, batch: Batch) -> tuple[SearchState, Sums]:
        """A step on a path that is drawn for it; a pure function, to be traced."""
        examples = self.examples(draws.WEIGHT_STEP, state.step, batch)
        path = self.paths.draw(self.key(draws.DRAW, state.step))

        def of_rows(variables: Any, examples: Any) -> Any:
            params, batch_stats, path = variables

            def loss(params: Any) -> Any:
                outputs, updated = self.paths.apply(
                    {"params": params, "batch_stats": batch_stats},
                    examples.inputs,
                    path,
                    train=True,
                )
                sums = self.task.score(outputs, examples, train=True)
                count = jnp.maximum(sharding.total(sums["count"]), 1.0)
                return sums["loss"] / count, (updated, sums)

            grads, (updated, sums) = jax.grad(loss, has_aux=True)(params)
            return *sharding.total((grads, sums)), updated

        variables = (state.params, state.batch_stats, path)
        grads, sums, batch_stats = sharding.by_device(of_rows, self.setting.mesh)(
            variables, examples
        )
        return self.update_weights(state, grads, batch_stats), sums

    def step(
        self, state: SearchState, batch_a: Batch, batch_b: Batch | None
    ) -> tuple[SearchState, dict[str, Sums | None]]:
        """Runs `train`."""
        state, sums = self._train(state, batch_a)
        return state, {"weights": sums, "alpha": None}

    def evaluate(self, state: SearchState, batch: Batch, number: int) -> Sums:
        """The sums of a random cell, another one for every batch; see `sampled`."""
        sums: Sums = self._sampled(state, batch, self.placed(np.int32(number)))
        return sums

    def sampled(self, state: SearchState, batch: Batch, number: jax.Array) -> Sums:
        """The sums of a random cell, with the batch's own statistics.

        Running statistics are a mixture of those of all cells and fit none. Padding, at the end of
        the batch, is replaced by its images, because it would change the statistics.
        """
        if "mask" in batch:
            images = jnp.maximum(jnp.sum(batch["mask"]).astype(jnp.int32), 1)
            rows = jnp.arange(len(batch["mask"])) % images
            batch = {k: v if k == "mask" else v[rows] for k, v in batch.items()}
        examples = self.task.examples(self.key(draws.EVALUATION, number), batch, train=False)
        path = self.paths.draw(jax.random.fold_in(self.key(draws.DRAW, number), draws.EVALUATION))
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        outputs, _ = self.paths.apply(variables, examples.inputs, path, train=True)
        return evaluated(self.task, outputs, examples)

    def lower(self, batch: Any) -> dict[str, list[jax.stages.Lowered]]:
        """The program of a step."""
        return {"weights": [self._train.lower(self.shapes(), batch)]}

    # Judging cells.

    def candidates(self) -> Sequence[Cells]:
        """Random ones, drawn from the seed."""
        return self.paths.cells(self.options["candidates"], self.config.seed)

    def judge(
        self, state: SearchState, cells: Sequence[Cells], images: Images
    ) -> list[dict[str, float]]:
        """The criterion's value of each cell, and what was found with it."""
        if self.options["criterion"] == "angle":
            return [{"merit": found, "angle": found} for found in self.angles(state, cells)]
        metrics = self.metrics(state, cells, images)
        if self.options["criterion"] == "loss":
            return [{"merit": -found["loss"], **found} for found in metrics]
        return [{"merit": found[self.task.metric], **found} for found in metrics]

    def metrics(
        self, state: SearchState, cells: Sequence[Cells], images: Images
    ) -> list[dict[str, float]]:
        """The metrics of each cell, with the statistics of training images; see `judge`."""
        paths = [self.placed(self.paths.of(cell)) for cell in cells]
        # All cells take a batch in turn, so that it is decoded once for all of them.
        statistics = [state.batch_stats] * len(cells)
        batches = -(-self.options["bn_images"] // self.config.train.batch_size)
        for number, batch in enumerate(images.first(batches)):
            place = self.placed(np.int32(number))
            statistics = [
                self._statistics(state, path, batch, place, so_far)
                for path, so_far in zip(paths, statistics, strict=True)
            ]
        sums: list[list[Sums]] = [[] for _ in cells]
        for number, batch in enumerate(images.evaluation()):
            place = self.placed(np.int32(number))
            for found, path, own in zip(sums, paths, statistics, strict=True):
                found.append(self._scores(state, path, own, batch, place))
        return [self.task.summarize(of_cell) for of_cell in jax.device_get(sums)]

    def statistics(
        self, state: SearchState, path: Any, batch: Batch, number: jax.Array, so_far: Any
    ) -> Any:
        """The statistics of a cell's batch norms on a batch and on the `number` before it.

        A mean is that of all batches; a variance is the mean of theirs and how far their means lie
        apart (Wu and Johnson, 2021).
        """
        examples = self.task.examples(self._statistics_key(number), batch, train=True)

        def of_rows(variables: Any, examples: Any) -> Any:
            params, zeros, path = variables
            return self.paths.apply(
                {"params": params, "batch_stats": zeros}, examples.inputs, path, train=True
            )[1]

        # From zero, one update leaves (1 - momentum) times the batch's own statistics.
        zeros = jax.tree.map(jnp.zeros_like, state.batch_stats)
        updated = sharding.by_device(of_rows, self.setting.mesh)(
            (state.params, zeros, path), examples
        )
        own = jax.tree.map(lambda value: value / (1.0 - BN_MOMENTUM), updated)
        return _joined(so_far, own, number.astype(jnp.float32))

    def _statistics_key(self, number: jax.Array) -> jax.Array:
        return jax.random.fold_in(self.key(draws.WEIGHT_STEP, number), draws.EVALUATION)

    def scores(
        self, state: SearchState, path: Any, statistics: Any, batch: Batch, number: jax.Array
    ) -> Sums:
        """The sums of a cell over the `number`-th batch of held-out examples."""
        examples = self.task.examples(self.key(draws.EVALUATION, number), batch, train=False)
        variables = {"params": state.params, "batch_stats": statistics}
        outputs, _ = self.paths.apply(variables, examples.inputs, path, train=False)
        return evaluated(self.task, outputs, examples)

    def document(self, cell: Any) -> dict[str, Any]:
        """As the space writes it."""
        return self.paths.document(cell)

    def angles(self, state: SearchState, cells: Sequence[Cells]) -> list[float]:
        """The angle, in radians, by which training turned the weights of each cell."""
        after = jax.device_get(state.params)
        parts = [self.paths.parts(cell) for cell in cells]
        return [vectors.angle(self._first_params, after, own) for own in parts]

    @functools.cached_property
    def _first_params(self) -> Any:
        """The weights before the first step, drawn again from the seed."""
        return jax.device_get(dead_code.without(self.initial)().params)


def _joined(before: Any, own: Any, count: jax.Array) -> Any:
    """The statistics of `count` batches and one more; `mean` and `var` of batch norms."""
    found = {
        name: _joined(before[name], value, count)
        for name, value in own.items()
        if isinstance(value, Mapping)
    }
    if "mean" in own:
        weight = 1.0 / (count + 1.0)
        apart = own["mean"] - before["mean"]
        spread = before["var"] + weight * (own["var"] - before["var"])
        spread = spread + weight * (1.0 - weight) * apart**2
        first = count == 0
        found["mean"] = jnp.where(first, own["mean"], before["mean"] + weight * apart)
        found["var"] = jnp.where(first, own["var"], spread)
    return found

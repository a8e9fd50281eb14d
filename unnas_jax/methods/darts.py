"""DARTS (Liu et al., 2019), first and second order: alphas learn on half B, weights on half A.

The operations on an edge are mixed by the softmax of its alphas, or as options say
(`unnas_jax.methods.remedies`). Every part of a step is a method of the class, so that a method
overrides the one that it changes.
"""

import functools
import itertools
from collections.abc import Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from unnas_jax.config.sections import MethodConfig
from unnas_jax.core import sharding
from unnas_jax.core.errors import UserError
from unnas_jax.learning import optim
from unnas_jax.methods import adaptive, curvature, draws, remedies, stop_rules
from unnas_jax.methods.adversarial import Adversary
from unnas_jax.methods.base import Alphas, SearchMethod, SearchState, Setting
from unnas_jax.methods.compiled import Compiled
from unnas_jax.methods.draws import Given, Moment
from unnas_jax.methods.programs import Programs, Which
from unnas_jax.methods.unrolled import Loss, second_order
from unnas_jax.spaces import mixed as mixed_lib
from unnas_jax.spaces import mixing
from unnas_jax.spaces.registry import Cells
from unnas_jax.tasks import transforms
from unnas_jax.tasks.base import Batch, Examples, Sums, evaluated, example_shapes


class Darts(SearchMethod):
    """DARTS, algorithm 1: an alpha step comes before each weight step once the alphas move.

    Args:
      setting: see `unnas_jax.methods.base`.

    Attributes:
      supernet: the network of all operations, which takes the alphas.
      mixed: the same network, which takes the weights of all operations instead, see `taken`.
      programs: the parts of a step, compiled.
      adversary: perturbs the mixing weights in weight steps; None unless an option asks for it.
    """

    name = "darts"
    mixture = True

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        mixed_lib.of_config(self.config).check_inputs(example_shapes(self.config, self.task))
        self.supernet = self.build()
        self.mixed = self.supernet.clone(mix=self.taken)
        own, jit = type(self), functools.partial(Compiled, self)
        # XLA needs as long to compile forward and backward a second time as the first. A CPU, where
        # that is most of a short run, computes both gradients in one function for both passes;
        # accelerators are spared the gradients that a pass does not use.
        shared = sharding.platform() == "cpu"

        def curved(method: Darts, *arguments: Any) -> Any:
            return curvature.product(method, method.loss, *arguments)

        self.programs = Programs(
            gradients=jit(own.gradients, static_argnames="of"),
            unrolled=jit(own.unrolled),
            update_alphas=jit(own.update_alphas, donate_argnums=0),
            update_weights=jit(own.update_weights, donate_argnums=0),
            scores=jit(own.scores),
            curved=jit(curved),
            of_alphas="both" if shared else "alphas",
            of_weights="both" if shared else "weights",
        )
        adversarial = self.options["perturbation"] == "adversarial"
        self.adversary = (
            Adversary(self, functools.partial(own.loss, train=False)) if adversarial else None
        )
        self._purposes: dict[int, jax.Array] = {}

    @classmethod
    def spaces(cls) -> Collection[str]:
        """All spaces that have a supernet of mixed operations."""
        return tuple(mixed_lib.SUPERNETS)

    @classmethod
    def shared_defaults(cls) -> Mapping[str, Any]:
        """The remedies, which change any method that mixes by `mix`."""
        return remedies.DEFAULTS

    @classmethod
    def validate(cls, config: MethodConfig) -> None:
        """Checks the options, the order and when the alphas begin to move."""
        remedies.validate(options := cls.completed(config.method))
        if options["cutout_rises"] and not config.input.cutout:
            raise UserError(
                "config.method.cutout_rises=True: no image loses anything; set "
                "config.input.cutout, such as 16"
            )
        stages = len(cls.stages(config, 1))
        stop_rules.validate(options, stages)
        adaptive.validate(config, options, stages)
        order, start = config.search.order, config.search.arch_start_epoch
        if order not in (1, 2):
            raise UserError(f"config.search.order={order!r}: use 1 or 2")
        weights = config.weights
        if order == 2 and weights.optimizer != optim.OBJECT and not optim.differentiable(weights):
            raise UserError(
                f"config.search.order=2: a step of {weights.optimizer!r} has no finite derivative "
                "where a gradient is 0; give it an eps_root above 0 in "
                "config.weights.optimizer_options, if it has one, or another optimizer"
            )
        epochs = config.train.epochs
        if start >= epochs:
            raise UserError(
                f"config.search.arch_start_epoch={start!r}: must be smaller than "
                f"train.epochs={epochs}, or no alpha ever moves"
            )

    # The supernet and its alphas.

    def build(self) -> Any:
        """The supernet, see `unnas_jax.spaces.mixed.Mixed`, which mixes by `mix`."""
        whole = mixed_lib.of_config(self.config).build(self.config, self.task)
        return whole.clone(mix=self.mix)

    def mix(self, alphas: Alphas) -> dict[str, jax.Array]:
        """The softmax over the operations of every edge (DARTS, equation 2), or sigmoids."""
        if self.options["mixing"] == "sigmoid":
            return mixing.sigmoid(alphas, self.operations())
        return mixing.softmax(alphas, self.operations())

    def taken(self, weights: Mapping[str, jax.Array]) -> Mapping[str, jax.Array]:
        """The weights of all operations, `mix`, as those of the supernet's own, `left`."""
        return weights

    def mix_in_training(self, alphas: Alphas, moment: Moment) -> dict[str, jax.Array]:
        """The mixing weights of a training pass: `mix`, as the remedies change it.

        There may also be the entries of `unnas_jax.spaces.darts.per_edge.Skips`.
        """
        weights = self.mix(alphas)
        if self.options["perturbation"] == "random":
            extent = remedies.extent(self.options, self.epoch(moment.step), self.epochs)
            # The alphas learn with weights that are not perturbed.
            extent = jnp.where(moment.purpose == draws.WEIGHT_STEP, extent, 0.0)
            weights = remedies.shaken(weights, self.key(draws.DRAW, moment.step), extent)
        if moment.given is not None:
            weights = moment.given.into(weights, moment.purpose)
        return {**weights, **self.skips(moment.step)}

    def mix_in_evaluation(self, alphas: Alphas, step: jax.Array) -> dict[str, jax.Array]:
        """The same for an evaluation after `step` finished steps."""
        return {**self.mix(alphas), **self.skips(step)}

    def skips(self, step: jax.Array | int) -> dict[str, jax.Array]:
        """The entries of `per_edge.Skips` that the supernet and the options ask for."""
        # An evaluation at the end is in no epoch; it belongs to the last one.
        epoch, found = jnp.minimum(self.epoch(step), self.epochs - 1), {}
        if self.config.network.auxiliary_skip:
            found["auxiliary"] = remedies.auxiliary(self.options, epoch, self.epochs)
        if self.options["drop_path"]:
            found["drop_path"] = self.options["drop_path"] * remedies.risen(epoch, self.epochs)
        return {name: jnp.asarray(value, jnp.float32) for name, value in found.items()}

    @classmethod
    def cells_of(cls, config: MethodConfig, mixing: Mapping[str, np.ndarray]) -> Cells:
        """The space's, without operations below the option `threshold`."""
        space, threshold = mixed_lib.of_config(config), cls.completed(config.method)["threshold"]
        return space.cells(mixing, space.operations(config.network), threshold)

    def initial_alphas(self, key: jax.Array) -> dict[str, jax.Array]:
        """The alphas in which the stage begins."""
        return mixing.drawn(key, self.config.alphas.init_scale, self.operations())

    def optimizers(self) -> tuple[optim.Optimizer, optim.Optimizer]:
        """With the alphas' gradient clipped, if the option says so."""
        weights, alphas = super().optimizers()
        norm = self.options["alphas_clip_norm"]
        return weights, optax.chain(optax.clip_by_global_norm(norm), alphas) if norm else alphas

    def noise_key(self, purpose: jax.Array | int, step: jax.Array | int) -> jax.Array:
        """The key of what operations draw, such as `noise`."""
        return jax.random.fold_in(self.key(draws.NOISE, step), purpose)

    def initial(self) -> SearchState:
        """Draws the weights and the alphas; the optimizers begin anew."""
        first = self.setting.first_step
        alphas = self.initial_alphas(self.key(draws.ALPHAS, first))
        inputs = jnp.zeros_like(example_shapes(self.config, self.task).inputs)
        weights = self.mix_in_training(alphas, Moment(first, draws.WEIGHT_STEP))
        variables = self.mixed.init(self.key(draws.INIT, first), inputs, weights, train=True)
        params = variables["params"]
        return SearchState(
            step=jnp.full((), first, jnp.int32),
            params=params,
            batch_stats=variables["batch_stats"],
            alphas=alphas,
            weights_opt=self.weights_tx.init(params),
            alphas_opt=self.alphas_tx.init(alphas),
        )

    # The parts of a step: pure functions, to be traced.

    def examples(self, purpose: jax.Array | int, step: jax.Array, batch: Batch) -> Examples:
        """The task's examples of a batch for a training pass."""
        task = self.task
        if self.options["cutout_rises"]:
            share = remedies.risen(self.epoch(step), self.epochs)
            task = transforms.cutting_out(task, share)
        return task.examples(self.key(purpose, step), batch, train=True)

    def loss(
        self,
        params: Any,
        alphas: Any,
        batch_stats: Any,
        moment: Moment,
        examples: Examples,
        *,
        train: bool = True,
    ) -> tuple[jax.Array, tuple[Any, Sums]]:
        """The mean loss of training examples; the new running statistics and the sums.

        Inside `sharding.by_device` the examples are those of this device, and the mean is over the
        examples of all devices. Unless `train`, batch norms use the running statistics.
        """
        outputs, updated = self.mixed.apply(
            {"params": params, "batch_stats": batch_stats},
            examples.inputs,
            self.mix_in_training(alphas, moment),
            train=train,
            mutable=["batch_stats"],
            rngs={"noise": self.noise_key(moment.purpose, moment.step)},
        )
        sums = self.task.score(outputs, examples, train=True)
        count = jnp.maximum(sharding.total(sums["count"]), 1.0)
        loss = sums["loss"] / count
        if self.options["zero_one"]:
            # Gradients are summed over the devices: each has its part of this loss.
            parts = self.setting.mesh.size if sharding.batch_axis() else 1
            loss += self.options["zero_one"] / parts * remedies.zero_one(self.mix(alphas))
        return loss, (updated["batch_stats"], sums)

    def gradients(
        self,
        state: SearchState,
        batch: Batch,
        purpose: jax.Array,
        of: Which,
        given: Given | None = None,
    ) -> tuple[Any, Any, Any, Sums]:
        """Gradients of weights and alphas (those not asked for are empty), statistics, sums.

        Args:
          state: at which they are taken.
          batch: split over the mesh.
          purpose: of the task's draws, `WEIGHT_STEP` or `ALPHA_STEP`: int32.
          of: which gradients.
          given: see `Moment`.
        """
        examples = self.examples(purpose, state.step, batch)
        arguments = {"weights": (0,), "alphas": (1,), "both": (0, 1)}[of]

        def of_rows(variables: tuple[Any, Any, Any, Moment], examples: Examples) -> Any:
            grads, (batch_stats, sums) = jax.grad(self.loss, argnums=arguments, has_aux=True)(
                *variables, examples
            )
            # Summed here, devices exchange gradients of the parameters. XLA by itself would sum
            # those of the dense form's kernels, which are 12 times as many.
            grads, sums = sharding.total((grads, sums))
            by_argument = dict(zip(arguments, grads, strict=True))
            return by_argument.get(0, ()), by_argument.get(1, ()), batch_stats, sums

        moment = Moment(state.step, purpose, given)
        variables = (state.params, state.alphas, state.batch_stats, moment)
        return sharding.by_device(of_rows, self.setting.mesh)(variables, examples)

    def unrolled(
        self, state: SearchState, batch_b: Batch, batch_a: Batch, given: Given | None = None
    ) -> tuple[dict[str, jax.Array], Sums]:
        """The second-order gradient of the alphas, and the sums of B."""

        def on(batch: Batch, purpose: int) -> Loss:
            examples = self.examples(purpose, state.step, batch)
            moment = Moment(state.step, purpose, given)
            return lambda params, alphas: self.loss(
                params, alphas, state.batch_stats, moment, examples
            )

        grads, (_, sums) = second_order(
            on(batch_a, draws.WEIGHT_STEP),
            on(batch_b, draws.ALPHA_STEP),
            state.params,
            state.alphas,
            self.weights_tx,
            state.weights_opt,
        )
        return grads, sums

    def update_alphas(self, state: SearchState, grads: Any) -> SearchState:
        """The state after a step of the alphas' optimizer."""
        updates, alphas_opt = self.alphas_tx.update(grads, state.alphas_opt, state.alphas)
        return state.replace(
            alphas=optax.apply_updates(state.alphas, updates), alphas_opt=alphas_opt
        )

    def scores(self, state: SearchState, batch: Batch, number: jax.Array) -> Sums:
        """The sums over the `number`-th batch of held-out examples."""
        examples = self.task.examples(self.key(draws.EVALUATION, number), batch, train=False)
        outputs: Any = self.mixed.apply(
            {"params": state.params, "batch_stats": state.batch_stats},
            examples.inputs,
            self.mix_in_evaluation(state.alphas, state.step),
            train=False,
            rngs={"noise": self.noise_key(draws.EVALUATION, number)},
        )
        return evaluated(self.task, outputs, examples)

    # The step, of compiled parts.

    @functools.cached_property
    def first_alpha_step(self) -> int:
        """The first step at or after config.search.arch_start_epoch, counted in the stage."""
        start, per_epoch = self.config.search.arch_start_epoch, self.setting.steps_per_epoch
        return next(k for k in itertools.count(int(start * per_epoch)) if k / per_epoch >= start)

    def needs_b(self, step: int) -> bool:
        """Whether the alphas move."""
        return step - self.setting.first_step >= self.first_alpha_step

    def step(
        self, state: SearchState, batch_a: Batch, batch_b: Batch | None
    ) -> tuple[SearchState, dict[str, Sums | None]]:
        """Takes an alpha step, once the alphas move, and a weight step."""
        alpha_sums = None
        if batch_b is not None:
            state, alpha_sums = self.alpha_step(state, batch_b, batch_a)
        state, weight_sums = self.weight_step(state, batch_a)
        return state, {"weights": weight_sums, "alpha": alpha_sums}

    def alpha_step(
        self, state: SearchState, batch_b: Batch, batch_a: Batch, given: Given | None = None
    ) -> tuple[SearchState, Sums]:
        """The state with moved alphas and the sums of B.

        The batch of A, that of the next weight step, is for the second order only.
        """
        if self.config.search.order == 2:
            grads, sums = self.programs.unrolled(state, batch_b, batch_a, given)
        else:
            if self.adversary is not None and given is None:
                given = self.adversary.nothing(state)
            # Running statistics are those of half A: the ones of this pass are dropped.
            _, grads, _, sums = self.programs.gradients(
                state,
                batch_b,
                self._purpose(draws.ALPHA_STEP),
                of=self.programs.of_alphas,
                given=given,
            )
        return self.programs.update_alphas(state, grads), sums

    def weight_step(
        self, state: SearchState, batch_a: Batch, given: Given | None = None
    ) -> tuple[SearchState, Sums]:
        """The state with moved weights, one step further, and the sums of A."""
        if self.adversary and given is None:
            given = self.adversary(state, batch_a)
        grads, _, batch_stats, sums = self.programs.gradients(
            state,
            batch_a,
            self._purpose(draws.WEIGHT_STEP),
            of=self.programs.of_weights,
            given=given,
        )
        return self.programs.update_weights(state, grads, batch_stats), sums

    def evaluate(self, state: SearchState, batch: Batch, number: int) -> Sums:
        """Runs `scores`."""
        sums: Sums = self.programs.scores(state, batch, self.placed(np.int32(number)))
        return sums

    def curvature(self, state: SearchState, batch_b: Batch) -> float:
        """At fixed weights, with batch norm as in training; the alphas' decay is added."""
        decay = self.config.alphas.weight_decay
        return curvature.largest(self.programs.curved, state, batch_b, self.setting.mesh) + decay

    def _purpose(self, purpose: int) -> jax.Array:
        if purpose not in self._purposes:
            self._purposes[purpose] = self.placed(np.int32(purpose))
        return self._purposes[purpose]

    def lower(self, batch: Any) -> dict[str, list[jax.stages.Lowered]]:
        """The programs of an alpha step and of a weight step."""
        return self.programs.lower(self, self.adversary, batch)

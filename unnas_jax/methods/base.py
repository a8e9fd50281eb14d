"""The door for search methods: what a run asks of one, and the state that it trains.

A method is a class. A run makes one instance for each stage; an instance never changes and holds
the compiled functions of its stage, so that everything that changes is in `SearchState`.
"""

import abc
import copy
import dataclasses
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Protocol, Self

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from unnas_jax.config.sections import MethodConfig
from unnas_jax.core import dead_code, sharding
from unnas_jax.learning import optim
from unnas_jax.spaces import mixed
from unnas_jax.spaces.darts.candidates import Candidates
from unnas_jax.spaces.registry import Cells
from unnas_jax.tasks.base import Batch, Examples, Sums, Task, of_seed

Alphas = Mapping[str, Any]
"""The architecture parameters by name: float32 arrays of any shapes."""


class SearchState(flax.struct.PyTreeNode):
    """Everything that a step reads and changes; all of it is replicated and checkpointed.

    Attributes:
      step: int32, the number of finished steps of the run.
      params, batch_stats: of the supernet.
      alphas: the architecture parameters, float32 by name. Those of DARTS are `normal` and
        `reduce`, (edges, operations).
      weights_opt, alphas_opt: the two optimizers' states.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    alphas: dict[str, jax.Array]
    weights_opt: optax.OptState
    alphas_opt: optax.OptState


@dataclasses.dataclass(frozen=True)
class Stage:
    """A part of a search, with a supernet of its own.

    Attributes:
      name: shown in the log.
      steps: the number of its steps.
    """

    name: str
    steps: int


@dataclasses.dataclass(frozen=True)
class Setting:
    """What an instance of a method is made from.

    Attributes:
      config: the part of a valid config that methods need.
      task: what the supernet learns.
      mesh: see `unnas_jax.core.sharding`; batches are split over it.
      steps_per_epoch: batches in half A.
      stage: which of `SearchMethod.stages`.
      first_step: finished steps of the run when the stage begins.
      carried: what `SearchMethod.finish` returned for the stage before; None in the first stage.
      optimizers: for `weights` and `alphas`; they replace those that the config names.
    """

    config: MethodConfig
    task: Task
    mesh: Mesh
    steps_per_epoch: int
    stage: int = 0
    first_step: int = 0
    carried: Any = None
    optimizers: Mapping[str, optim.Optimizer] = dataclasses.field(default_factory=dict)


class Images(Protocol):
    """The images on which candidates are judged."""

    def first(self, count: int) -> Iterator[Batch]:
        """The first `count` batches of half A, the same at every call."""

    def evaluation(self) -> Iterator[Batch]:
        """All batches of held-out examples, the same at every call."""


class SearchMethod(abc.ABC):
    """A search method in one of its stages.

    Own ones derive from this class or from `unnas_jax.methods.darts.Darts`, and are registered with
    `unnas_jax.methods.registry.METHODS`. Steps are counted over the whole run. Random draws may
    depend on the config's seed, `state.step` and constants only (`key`): then a run that was
    stopped ends in the same bits as one that was not.

    Attributes:
      name: the value of config.search.method.
      mixture: whether passes mix all operations of every edge by `mix`, so that one can be left out
        (`unnas_jax.runs.selection`).
      chooses: whether the result is the best of `candidates`, judged after the last step, and not
        what alphas say. Such a method has `candidates`, `judge` and `document`; another has `mix`.
      setting: what it was made from; it has `config`.
      seed: the config's; inside of a `unnas_jax.methods.programs.Program` a number being traced.
      task: that of the setting, with this seed.
      options: config.method, `completed`.
      weights_tx, alphas_tx: the two optimizers.
    """

    name: ClassVar[str]
    mixture: ClassVar[bool] = False
    chooses: ClassVar[bool] = False

    def __init__(self, setting: Setting) -> None:
        self.setting, self.config, self.task = setting, setting.config, setting.task
        self.seed: jax.Array | int = setting.config.seed
        self.options: Mapping[str, Any] = self.completed(setting.config.method)
        self.weights_tx, self.alphas_tx = self.optimizers()

    # Called before there is an instance.

    @classmethod
    def spaces(cls) -> Collection[str]:
        """The spaces in which it searches, values of config.network.space."""
        return ("darts",)

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """The method's own options, config.method: their defaults, which also say their types."""
        return {}

    @classmethod
    def shared_defaults(cls) -> Mapping[str, Any]:
        """The options of all methods of a family, such as those derived from `Darts`."""
        return {}

    @classmethod
    def completed(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        """All options: config.method with the defaults of what it does not name."""
        return {**cls.shared_defaults(), **cls.defaults(), **options}

    @classmethod  # noqa: B027 (Most methods run with any config.)
    def validate(cls, config: MethodConfig) -> None:
        """Raises `UserError` for values that the method cannot run with.

        Args:
          config: what all searches have in common is valid.
        """

    @classmethod
    def stages(cls, config: MethodConfig, steps_per_epoch: int) -> Sequence[Stage]:
        """The stages in order. config.train.max_steps may end a run before the last one's end."""
        return [Stage("search", steps_per_epoch * config.train.epochs)]

    # Training.

    @abc.abstractmethod
    def initial(self) -> SearchState:
        """The state in which the stage begins, with `step` equal to `setting.first_step`.

        A pure function, which is also traced for its shapes.
        """

    @abc.abstractmethod
    def step(
        self, state: SearchState, batch_a: Batch, batch_b: Batch | None
    ) -> tuple[SearchState, dict[str, Sums | None]]:
        """Takes a step, without waiting for the devices; it may give the state's memory away.

        Args:
          state: on the devices of the mesh.
          batch_a: of half A, for the weights; split over the mesh.
          batch_b: of half B, for the alphas; None if `needs_b` says so.

        Returns:
          The state with one step more, and the sums over the batches by what learned from them:
          `weights` first, then `alpha`; None for what did not learn.
        """

    @abc.abstractmethod
    def evaluate(self, state: SearchState, batch: Batch, number: int) -> Sums:
        """The sums over a batch of held-out examples, the `number`-th, with running statistics."""

    def needs_b(self, step: int) -> bool:
        """Whether the step after `step` finished ones uses half B; it is not decoded otherwise.

        The answer depends on the setting alone, and does not change which examples a step gets.
        """
        return True

    def finish(self, state: SearchState) -> Any:
        """What the next stage has to know, such as the operations that are left: plain JSON.

        Args:
          state: at the end of this stage, which is not the last one.
        """
        return None

    def learning_rate(self, step: int) -> Any:
        """The weights' rate in the step after `step` finished ones; None if it is not known."""
        if "weights" in self.setting.optimizers:
            return None
        return self.schedule()(step - self.setting.first_step)

    def schedule(self) -> optax.Schedule:
        """The weights' learning rate by the steps of the stage, as the config has it."""
        return optim.schedule(self.config.weights, self.epochs, self.setting.steps_per_epoch)

    def optimizers(self) -> tuple[optim.Optimizer, optim.Optimizer]:
        """The optimizers of the weights and of the alphas."""
        config, given = self.config, self.setting.optimizers
        return (
            given.get("weights") or optim.optimizer(config.weights, self.schedule()),
            given.get("alphas") or optim.optimizer(config.alphas, config.alphas.learning_rate),
        )

    @property
    def epochs(self) -> int:
        """The number of epochs of the stage."""
        return self.config.train.epochs

    def epoch(self, step: Any) -> Any:
        """The epoch, counted from 0 in the stage, of the step after `step` finished ones."""
        return (step - self.setting.first_step) // self.setting.steps_per_epoch

    def key(self, purpose: jax.Array | int, step: jax.Array | int) -> jax.Array:
        """The random key for a purpose, see `unnas_jax.methods.draws`, in a step."""
        seed = jax.random.key(self.seed)
        return jax.random.fold_in(jax.random.fold_in(seed, purpose), step)

    def with_seed(self, seed: jax.Array | int) -> Self:
        """The same method, whose draws are those of another seed."""
        own = copy.copy(self)
        own.seed, own.task = seed, of_seed(self.task, seed)
        return own

    def examples(self, purpose: jax.Array | int, step: jax.Array, batch: Batch) -> Examples:
        """The task's examples of a batch for a training pass."""
        return self.task.examples(self.key(purpose, step), batch, train=True)

    def update_weights(self, state: SearchState, grads: Any, batch_stats: Any) -> SearchState:
        """The state after a step of the weights' optimizer, with new running statistics."""
        updates, weights_opt = self.weights_tx.update(grads, state.weights_opt, state.params)
        return state.replace(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            batch_stats=batch_stats,
            weights_opt=weights_opt,
        )

    # What alphas mean.

    def mix(self, alphas: Alphas) -> dict[str, jax.Array]:
        """The weights by which the supernet multiplies the operations of every edge.

        Args:
          alphas: the architecture parameters, as in the state.

        Returns:
          By kind of cell, in DARTS `normal` and `reduce`, (edges, operations), of the alphas' type:
          edges and operations as in `operations`. A pure function of JAX arrays.
        """
        raise NotImplementedError

    def mixing(self, alphas: Alphas) -> dict[str, np.ndarray]:
        """`mix` of arrays on the host, in float64, for files, pictures and `cells`."""
        with jax.enable_x64(True):
            exact = {name: jnp.asarray(value, jnp.float64) for name, value in alphas.items()}
            return {kind: np.asarray(weights) for kind, weights in self.mix(exact).items()}

    def cells(self, alphas: Alphas) -> Cells:
        """The discrete cells that alphas, on the host, stand for."""
        return self.cells_of(self.config, self.mixing(alphas))

    @classmethod
    def cells_of(cls, config: MethodConfig, mixing: Mapping[str, np.ndarray]) -> Cells:
        """The discrete cells of the operations' weights: by default as the space has it.

        Args:
          config: of the search.
          mixing: see `mixing`.
        """
        space = mixed.of_config(config)
        return space.cells(mixing, space.operations(config.network))

    def operations(self) -> Candidates:
        """The names of the operations on every edge, by which `mix` orders their weights."""
        return mixed.of_config(self.config).operations(self.config.network)

    @property
    def left(self) -> Candidates:
        """The operations of every edge that its supernet has: all, or those of a stage."""
        return self.operations()

    # For methods that choose among candidates.

    def candidates(self) -> Sequence[Cells]:
        """The cells to judge after the last step; a pure function of the setting."""
        raise NotImplementedError

    def judge(
        self, state: SearchState, cells: Sequence[Cells], images: Images
    ) -> list[dict[str, float]]:
        """Judges some of the candidates, each as if it were the only one.

        Args:
          state: after the last step; it stays as it is.
          cells: at least one.
          images: on which they are judged.

        Returns:
          Numbers by name for every cell. The cell of the largest `merit` is the result.
        """
        raise NotImplementedError

    def document(self, cell: Any) -> dict[str, Any]:
        """What genotype.json says about a cell; the run adds where it comes from."""
        raise NotImplementedError

    def curvature(self, state: SearchState, batch_b: Batch) -> float | None:
        """The largest eigenvalue of the Hessian of a batch's loss in the alphas; None: not told."""
        return None

    def record(self, state: SearchState) -> Mapping[str, float]:
        """Numbers about the state, by name, for the row `method` of an epoch in metrics.jsonl."""
        return {}

    # The same for all methods.

    def init(self) -> SearchState:
        """`initial` on the devices of the mesh."""
        state: SearchState = self.placed(dead_code.without(self.initial)())
        return state

    def shapes(self) -> SearchState:
        """The shapes and shardings of the stage's state."""
        state: SearchState = self.replicated(jax.eval_shape(self.initial))
        return state

    def lower(self, batch: Any) -> dict[str, list[jax.stages.Lowered]]:
        """The programs that the parts of a step run, in order, for compilation ahead of time.

        Args:
          batch: its shapes and shardings.

        Returns:
          The programs, not compiled, by part; empty if the method does not tell.
        """
        return {}

    def placed(self, tree: Any) -> Any:
        """Arrays of the host on every device of the mesh."""
        return sharding.replicate(tree, self.setting.mesh)

    def replicated(self, tree: Any) -> Any:
        """Shapes with the sharding of arrays that every device holds whole."""
        placed = sharding.replicated(self.setting.mesh)
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=placed), tree
        )

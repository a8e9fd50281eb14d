"""The scores by name, to which others can add theirs: what each needs, and its call."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from unnas_jax.core.errors import UserError
from unnas_jax.core.registry import Registry, nearest
from unnas_jax.layers.counting import Counts, answer, count
from unnas_jax.runs.shared import Shared
from unnas_jax.spaces import sharing
from unnas_jax.spaces.darts.operations import BUILDERS
from unnas_jax.spaces.programs import Program
from unnas_jax.sweep.scores import labelled, programs, regression, weights, zero_cost

WORST = -1e30
"""Replaces a value that is not finite: of a network that diverged, or passes nothing on."""

NO_SUPERNET = (
    "needs the weights of a supernet; give the workdir of a search with the method single_path "
    "(--supernet of commands, scores.supernet of a sample)"
)

_FLOW = float(np.finfo(np.float64).tiny)
_NOISE = 16  # Images of the Zen score, as published.
_REPEATS = 4  # Its draws; 32 in the published code.


@dataclasses.dataclass(frozen=True)
class Batch:
    """The images by which architectures are judged, the same for all.

    Attributes:
      images: float32 (N, side, side, 3), normalised.
      labels: int32 (N,), None if the images have none.
      classes: the number of classes; for images without labels, of the classifiers.
    """

    images: np.ndarray
    labels: np.ndarray | None
    classes: int


@dataclasses.dataclass(frozen=True)
class Subject:
    """An architecture to be scored.

    Attributes:
      build: (head, dtype) -> its network, called as network(inputs, train).
      batch: the images.
      seed: of the weights, and of all other draws.
      space: the name of its search space.
      cell: its text, a value of config.network.genotype.
      supernet: whose weights it may share; None: there is none.
    """

    build: Callable[[nn.Module, Any], nn.Module]
    batch: Batch
    seed: int
    space: str
    cell: str = ""
    supernet: Shared | None = None

    @property
    def side(self) -> int:
        """The side of the images, in pixels."""
        return self.batch.images.shape[1]

    def classifier(self, dtype: Any = jnp.float32) -> Program:
        """The program of its network with a linear classifier."""
        head = programs.Classifier(self.batch.classes, dtype)
        return sharing.program(self.space, self.build(head, dtype))

    def features(self) -> Program:
        """The program of its network without a head."""
        return sharing.program(self.space, self.build(programs.Features(), jnp.float32))

    def variables(
        self, program: Program, kernels: weights.Kernels = weights.uniform_fan_in
    ) -> dict[str, Any]:
        """Fresh variables for a program."""
        return programs.variables(program, self.side, np.random.default_rng(self.seed), kernels)


@dataclasses.dataclass(frozen=True)
class Score:
    """A number for an architecture before training, or after very little of it.

    Attributes:
      value: Subject -> the score; higher is better.
      about: what it is, in a line, with its source.
      needs_labels: whether the images must have labels.
      draws: whether it depends on the seed.
      needs_supernet: whether it is one of the weights of a trained supernet; needs no image.
    """

    value: Callable[[Subject], float]
    about: str
    needs_labels: bool = False
    draws: bool = True
    needs_supernet: bool = False


@functools.lru_cache(maxsize=4096)
def _counts(network: nn.Module, side: int) -> Counts:
    return count(network, answer(network, (side, side, 3)), train=False)


BUILDERS.when_replaced(_counts.cache_clear)


def _parameters(subject: Subject) -> float:
    return float(_counts(subject.classifier().own, subject.side).parameters)


def _multiply_adds(subject: Subject) -> float:
    return float(_counts(subject.classifier().own, subject.side).multiply_adds)


@functools.partial(jax.jit, static_argnames=("score", "network"))
def _scored(score: Callable[..., jax.Array], network: nn.Module, *arrays: Any) -> jax.Array:
    return score(zero_cost.applied(network), *arrays)


def _synflow(subject: Subject) -> float:
    with jax.enable_x64(True):
        program = subject.classifier(jnp.float64)
        variables = jax.tree.map(
            lambda leaf: leaf.astype(np.float64) if leaf.dtype == np.float32 else leaf,
            subject.variables(program),
        )
        flow = _scored(
            zero_cost.synflow,
            program.network,
            variables,
            np.ones((1, *subject.batch.images.shape[1:])),
        )
        return float(np.log(max(float(flow), _FLOW)))


def _of_images(score: Callable[..., jax.Array]) -> Callable[[Subject], float]:
    def value(subject: Subject) -> float:
        program = subject.classifier()
        images = subject.batch.images
        return float(_scored(score, program.network, subject.variables(program), images))

    return value


def _zen(subject: Subject) -> float:
    program = subject.features()
    variables = subject.variables(program, weights.normal)
    rng = np.random.default_rng((subject.seed, 1))
    shape = (2, _NOISE, subject.side, subject.side, 3)
    draws = [rng.normal(size=shape).astype(np.float32) for _ in range(_REPEATS)]
    found = [_scored(zero_cost.zen, program.network, variables, *draw) for draw in draws]
    return float(np.mean(found))


@functools.partial(jax.jit, static_argnames=("score", "network"))
def _scored_by_loss(
    score: Callable[..., jax.Array],
    network: nn.Module,
    variables: Any,
    images: jax.Array,
    labels: jax.Array,
) -> jax.Array:
    loss = labelled.cross_entropy(labels)
    return score(zero_cost.applied(network), variables, images, loss)


def _of_labels(score: Callable[..., jax.Array], own: bool = False) -> Callable[[Subject], float]:
    def value(subject: Subject) -> float:
        program = subject.classifier()
        if own:  # Layers within branches cannot be told apart.
            program = Program(program.own, program.own, {}, lambda path: path)
        images, labels = subject.batch.images, subject.batch.labels
        variables = subject.variables(program)
        return float(_scored_by_loss(score, program.network, variables, images, labels))

    return value


def recipe_of(space: str) -> regression.Recipe:
    """The published combination of targets for a space; that of NAS-Bench-101 for all but DARTS."""
    return regression.RECIPES["darts" if space == "darts" else "nasbench"]


@functools.lru_cache(maxsize=4)
def _targets(recipe: regression.Recipe, images: bytes, side: int, seed: int) -> regression.Batch:
    array = np.frombuffer(images, np.float32).reshape(recipe.images, side, side, 3)
    return regression.batch(array, recipe, seed)


def _gennas(subject: Subject) -> float:
    recipe = recipe_of(subject.space)
    images = subject.batch.images[: recipe.images]
    if len(images) < recipe.images:
        raise UserError(f"score gennas: needs {recipe.images} images, there are {len(images)}")
    program = subject.features()
    variables = subject.variables(program, weights.normal_fan_out)
    data = _targets(recipe, images.tobytes(), subject.side, subject.seed)
    return -regression.loss_left(program.network, variables, data, recipe, subject.seed)[-1]


def _shared_weights(subject: Subject) -> float:
    assert subject.supernet is not None
    return subject.supernet.metric(subject.cell)


def _angle(subject: Subject) -> float:
    assert subject.supernet is not None
    return subject.supernet.angle(subject.cell)


SCORES: Registry[Score] = Registry(
    "score",
    {
        "parameters": Score(_parameters, "the network's parameters", draws=False),
        "multiply_adds": Score(_multiply_adds, "multiply-adds for an image", draws=False),
        "synflow": Score(
            _synflow, "log of the synaptic flow, in float64 (Tanaka et al., 2020); needs no image"
        ),
        "naswot": Score(
            _of_images(zero_cost.naswot),
            "log determinant of how alike the rectifiers' codes are (Mellor et al., 2021)",
        ),
        "jacob_cov": Score(
            _of_images(zero_cost.jacob_cov),
            "how little the images' gradients correlate (Mellor et al., 2020)",
        ),
        "zen": Score(_zen, "answer of the features to noise (Lin et al., 2021); needs no image"),
        "gennas": Score(
            _gennas, "minus the loss of the regression of synthetic targets (Li et al., 2021)"
        ),
        "grad_norm": Score(
            _of_labels(labelled.grad_norm), "norms of the loss' gradients", needs_labels=True
        ),
        "snip": Score(
            _of_labels(labelled.snip), "sum of |w dL/dw| (Lee et al., 2019)", needs_labels=True
        ),
        "grasp": Score(
            _of_labels(labelled.grasp), "-w' H g (Wang et al., 2020)", needs_labels=True
        ),
        "fisher": Score(
            _of_labels(labelled.fisher, own=True),
            "half the square of sum a dL/da (Turner et al., 2020); compiles for every cell",
            needs_labels=True,
        ),
        "shared_weights": Score(
            _shared_weights,
            "the task's metric with a supernet's weights (Li and Talwalkar, 2019)",
            draws=False,
            needs_supernet=True,
        ),
        "angle": Score(
            _angle,
            "how far a supernet's training turned the weights (Zhang et al., 2021)",
            draws=False,
            needs_supernet=True,
        ),
    },
    made_by=lambda score: score.value,
)
"""The scores; for all of them higher is better."""


def register_score(name: str, score: Score) -> Score:
    """Adds a score, for this process.

    Raises:
      UserError: the name is that of something else, see `Registry.register`.
    """
    return SCORES.register(name, score)


def value(name: str, subject: Subject) -> float:
    """The score of an architecture; higher is better, `WORST` for what is not finite.

    Raises:
      UserError: there is no such score, it needs labels that the images lack, or cannot judge
        networks of this kind.
    """
    score = SCORES[name]
    if score.needs_labels and subject.batch.labels is None:
        raise UserError(
            f"score {name}: needs labels, which these images have not; put them in one folder a "
            "class, or choose a score without labels"
        )
    if score.needs_supernet and subject.supernet is None:
        raise UserError(f"score {name}: {NO_SUPERNET}")
    found = float(score.value(subject))
    return found if np.isfinite(found) else WORST


def check(names: Sequence[str], where: str) -> None:
    """Raises `UserError` for a name that is no score, or is there twice.

    Args:
      names: of scores.
      where: the flag or field that has them, such as `--scores`, for the message.
    """
    for name in names:
        if name not in SCORES:
            raise UserError(
                f"{where}: {nearest(name, SCORES)}there is no score {name!r}; use some of "
                f"{', '.join(SCORES)}"
            )
    if not names or len(set(names)) < len(names):
        raise UserError(f"{where}: name each score once, at least one")

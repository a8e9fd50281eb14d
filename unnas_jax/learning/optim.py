"""The optimizers of weights and alphas, by the names of optax, and the schedules of their rates."""

import inspect
import math
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from unnas_jax.config.sections import Alphas, Weights
from unnas_jax.core.errors import UserError
from unnas_jax.core.registry import Registry, nearest

Optimizer: TypeAlias = optax.GradientTransformation
"""An optimizer as optax has it: the functions `init` and `update`."""

OBJECT = "object"
"""The value of config.weights.optimizer of a run whose optimizer was passed from Python."""

_RATE = "learning_rate"

_FIELDS = (("weight_decay",), ("momentum", "nesterov"), ("b1", "b2"))
"""Fields that an optimizer gets as arguments: those of a group only if it takes all of it."""


def _of_optax() -> dict[str, Callable[..., Optimizer]]:
    """The functions of optax that make an optimizer of a learning rate, by name."""
    return {
        name: make
        for name, make in vars(optax).items()
        if inspect.isfunction(make)
        and not name.startswith(("_", "scale_by_"))
        and _RATE in inspect.signature(make).parameters
    }


OPTIMIZERS: Registry[Callable[..., Optimizer]] = Registry("optimizer", _of_optax())


def register_optimizer(name: str, make: Callable[..., Optimizer]) -> Callable[..., Optimizer]:
    """Adds an optimizer under a name that configs can hold, for this process.

    Args:
      name: the value of config.weights.optimizer or config.alphas.optimizer.
      make: called as make(learning_rate=..., **options) with a rate or an optax schedule.

    Raises:
      UserError: the name is that of something else, or `make` takes no learning rate.
    """
    if name == OBJECT or _RATE not in inspect.signature(make).parameters:
        raise UserError(f"optimizer {name!r}: give a function with the argument {_RATE}")
    return OPTIMIZERS.register(name, make)


def epoch_cosine(peak: float, final: float, epochs: int, steps_per_epoch: int) -> optax.Schedule:
    """Cosine from `peak` to `final`, constant within an epoch: the paper's schedule.

    At epoch e: final + (peak - final) * (1 + cos(pi * e / epochs)) / 2.
    """
    cosine = optax.cosine_decay_schedule(peak, epochs, alpha=final / peak)
    return lambda step: cosine(step // steps_per_epoch)


def schedule(section: Weights, epochs: int, steps_per_epoch: int) -> optax.Schedule:
    """The weights' learning rate by step: a cosine per epoch, after a linear warm-up if any.

    In epoch e of a warm-up of W epochs the cosine's rate of that epoch is multiplied by
    `warmup_factor + (1 - warmup_factor) * e / W` (paper, section 6.2).
    """
    cosine = epoch_cosine(
        section.learning_rate, section.final_learning_rate, epochs, steps_per_epoch
    )
    warmup, factor = section.warmup_epochs, section.warmup_factor
    if not warmup:
        return cosine

    def warmed_up(step: Any) -> Any:
        done = jnp.minimum((step // steps_per_epoch) / warmup, 1.0)
        return cosine(step) * (factor + (1.0 - factor) * done)

    return warmed_up


def _given(section: Weights | Alphas) -> dict[str, Any]:
    """The fields of a section that its optimizer takes as arguments."""
    known = inspect.signature(OPTIMIZERS[section.optimizer]).parameters
    given: dict[str, Any] = {}
    for group in _FIELDS:
        if all(name in known and hasattr(section, name) for name in group):
            given |= {name: getattr(section, name) for name in group}
    return given


def optimizer(section: Weights | Alphas, learning_rate: float | optax.Schedule) -> Optimizer:
    """The optimizer that a valid section names.

    The gradient is clipped to a global norm, unless `clip_norm` is 0. The decay is added to it as
    `weight_decay` times the parameters, so that it goes through momentum and moments; optimizers
    that have an argument `weight_decay`, such as AdamW, decouple it themselves.
    """
    make, given, before = OPTIMIZERS[section.optimizer], _given(section), []
    if isinstance(section, Weights) and section.clip_norm:
        before.append(optax.clip_by_global_norm(section.clip_norm))
    if "weight_decay" not in given:
        before.append(optax.add_decayed_weights(section.weight_decay))
    options = {_RATE: learning_rate, **given, **section.optimizer_options}
    return optax.chain(*before, make(**options))


def _check_option(where: str, value: Any, default: Any) -> None:
    """Raises `UserError` for a value of another type than the default, NaN or an infinite one."""
    expected = type(default)
    whole = expected is float and type(value) is int
    if expected in (int, float, bool, str) and type(value) is not expected and not whole:
        raise UserError(f"{where}={value!r}: must be of type {expected.__name__}")
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{where}={value!r}: must be finite")


def validate(name: str, section: Weights | Alphas, *, given: bool = False) -> None:
    """Checks the optimizer of a section and its options, and that it can take a step.

    Args:
      name: of the section, `weights` or `alphas`.
      section: whose other fields are valid.
      given: whether the run gets this optimizer as an object.

    Raises:
      UserError: there is no such optimizer or option, or optax refuses a value.
    """
    where = f"config.{name}.optimizer"
    if section.optimizer == OBJECT:
        if not given:
            raise UserError(
                f"{where}={OBJECT!r}: it was passed to un.search or un.train, and only the same "
                "call continues the run"
            )
        return
    make = OPTIMIZERS.find(section.optimizer, f"{name}.optimizer")
    known = inspect.signature(make).parameters
    any_name = any(known[key].kind is inspect.Parameter.VAR_KEYWORD for key in known)
    taken = {_RATE: _RATE, **{key: key for key in _given(section)}}
    for option, value in section.optimizer_options.items():
        key = f"{where}_options.{option}"
        if option in taken:
            raise UserError(f"{key}: set config.{name}.{option}")
        if option not in known and not any_name:
            free = [each for each in known if each not in taken]
            raise UserError(
                f"{key}: {nearest(option, free)}{section.optimizer!r} has the options "
                f"{', '.join(free)}"
            )
        _check_option(key, value, known[option].default if option in known else None)

    def step(params: Any) -> Any:
        rate = section.learning_rate
        chosen = optimizer(section, (lambda step: rate) if isinstance(section, Weights) else rate)
        return chosen.update(params, chosen.init(params), params)

    try:
        jax.eval_shape(step, {"w": jax.ShapeDtypeStruct((2, 2), jnp.float32)})
    except Exception as error:  # Optax raises many types for values that it cannot take.
        raise UserError(
            f"{where}={section.optimizer!r} cannot train {name} with these options: "
            f"{' '.join(str(error).split())[:300]}"
        ) from error


def differentiable(section: Weights) -> bool:
    """Whether a step has finite derivatives in the gradient, also where the gradient is 0.

    The second order of DARTS needs them; the square root in Adam has none, unless its `eps_root` is
    greater than 0.
    """

    def moved(gradient: jax.Array) -> jax.Array:
        chosen, params = optimizer(section, section.learning_rate), jnp.ones(2)
        return chosen.update(gradient, chosen.init(params), params)[0].sum()

    return bool(jnp.isfinite(jax.grad(moved)(jnp.array([0.0, 1.0]))).all())


def ignores_zeros(section: Weights) -> bool:
    """Whether parameters that are 0, with gradients of 0, stay so and change no other's step.

    True of steps by element, such as SGD's and Adam's, and of clipping and trust ratios by norms;
    not of a mean over a parameter, nor of noise. Networks in which the cell is data need it.
    """
    key = repr(section)  # Options cannot be hashed.
    if key not in _IGNORING:
        _IGNORING[key] = _ignores_zeros(section)
    return _IGNORING[key]


_IGNORING: dict[str, bool] = {}


def _ignores_zeros(section: Weights) -> bool:
    chosen = optimizer(section, lambda step: section.learning_rate)
    rng = np.random.default_rng(0)
    alone = {"w": rng.normal(size=(2, 3)), "b": rng.normal(size=2)}
    wide = {"w": np.pad(alone["w"], ((0, 2), (0, 1))), "b": alone["b"], "other": np.zeros((2, 2))}

    def moved(params: Any) -> Any:
        state = chosen.init(params)
        for _ in range(2):
            updates, state = chosen.update(params, state, params)
            params = optax.apply_updates(params, updates)
        return params

    own, among = (
        jax.device_get(moved(jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), params)))
        for params in (alone, wide)
    )
    expected = {**wide, "w": np.pad(own["w"], ((0, 2), (0, 1))), "b": own["b"]}
    return all(np.allclose(among[name], expected[name], 1e-4, 1e-6) for name in expected)


def check_objects(optimizers: Mapping[str, Any], names: Collection[str]) -> None:
    """Checks optimizers that are passed as objects, by the section that they replace.

    Raises:
      UserError: one is no optimizer of optax, or the run trains nothing by that name.
    """
    for name, value in optimizers.items():
        if name not in names:
            raise UserError(f"{name}_optimizer: this run trains {' and '.join(sorted(names))} only")
        if not isinstance(value, optax.GradientTransformation):
            raise UserError(
                f"{name}_optimizer: give an optimizer of optax, such as optax.adam(1e-3), not "
                f"{type(value).__name__}"
            )


def with_objects(
    config: ml_collections.ConfigDict, names: Iterable[str]
) -> ml_collections.ConfigDict:
    """The config of a run whose optimizers of these sections are passed as objects."""
    config = config.copy_and_resolve_references()
    for name in names:
        config[name].update(optimizer=OBJECT)
        config[name].optimizer_options = {}
    return config

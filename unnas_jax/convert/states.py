"""Whole checkpoints: weights, both optimizers and the position, to and from the release's form.

A checkpoint of the release is a dict of `epoch` (the number of the last finished one, from 0),
`model_state`, `cfg` (YAML) and `optimizer_state` or, in a search, `optimizer_w_state` and
`optimizer_a_state`. An optimizer's state numbers the parameters in the order of the `state_dict`.
"""

import contextlib
import os
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp

from unnas_jax.config import schema
from unnas_jax.config.options import Config
from unnas_jax.config.schema import Common, SearchConfig, TrainConfig
from unnas_jax.config.sections import Alphas, Weights
from unnas_jax.convert import config_to_release, weights
from unnas_jax.core.errors import UserError
from unnas_jax.learning import optim
from unnas_jax.learning.trainer import TrainState
from unnas_jax.methods.base import SearchState
from unnas_jax.runs import snapshot

_ALPHAS = {"normal": "net_.alphas_normal", "reduce": "net_.alphas_reduce"}


def epochs_of(document: Mapping[str, Any]) -> int:
    """The finished epochs of a checkpoint of the release."""
    epoch = document.get("epoch")
    if isinstance(epoch, bool) or not isinstance(epoch, int) or epoch < -1:
        raise UserError(f"checkpoint: epoch is {epoch!r}; expected a number from 0 on")
    return epoch + 1


def _section(document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = document.get(key)
    if not isinstance(value, Mapping):
        raise UserError(f"checkpoint: {key} is missing; is it one of this kind of experiment?")
    return value


def _of_parameters(
    optimizer: Mapping[str, Any], names: list[str], tensors: Mapping[str, np.ndarray], what: str
) -> dict[str, dict[str, Any]]:
    """The entries of an optimizer's state by parameter; empty where it has none.

    Args:
      optimizer: its `state_dict`.
      names: of the parameters that it steps, in order. Where it has two groups, the first is that
        of the names with `bn` in them, for which the release can set another weight decay.
      tensors: of these names.
      what: the state's name, for messages.

    Raises:
      UserError: it is of other parameters.
    """
    try:
        groups = [list(group["params"]) for group in optimizer["param_groups"]]
        entries = optimizer["state"]
    except (KeyError, TypeError) as error:
        raise UserError(f"{what}: it is not the state of an optimizer ({error})") from error
    orders = [names]
    if len(groups) == 2:
        orders = [[n for n in names if "bn" in n], [n for n in names if "bn" not in n]]
    if [len(group) for group in groups] != [len(order) for order in orders]:
        raise UserError(
            f"{what}: it steps {sum(map(len, groups))} parameters, in {len(groups)} groups, and "
            f"the network has {len(names)}; is the config that of this network?"
        )
    result: dict[str, dict[str, Any]] = {}
    for group, order in zip(groups, orders, strict=True):
        for number, name in zip(group, order, strict=True):
            result[name] = {k: v for k, v in entries.get(number, {}).items() if v is not None}
            for key, value in result[name].items():
                if np.ndim(value) and np.shape(value) != np.shape(tensors[name]):
                    raise UserError(
                        f"{what}: {key} of {name} has the shape {np.shape(value)}, and the "
                        f"parameter {np.shape(tensors[name])}"
                    )
    return result


def _moments(
    entries: Mapping[str, Mapping[str, Any]], key: str, tensors: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """One kind of moment of every parameter; zeros where there is none yet."""
    return {
        name: np.asarray(entry.get(key, np.zeros_like(tensors[name])))
        for name, entry in entries.items()
    }


def _sgd(
    document: Mapping[str, Any], key: str, of: weights.Layout, initial: Any, step: int
) -> tuple[Any, list[str]]:
    """The state of SGD with the momentum of a checkpoint, and notes."""
    tensors, notes = document["model_state"], []
    initial = optax.tree.set(initial, count=jnp.int32(step))
    if key not in document:
        return initial, [f"{key} is missing: momentum starts from zero"]
    names = [slot.name for slot in of.parameters]
    optimizer = _section(document, key)
    alphas = [name for name in _ALPHAS.values() if name in tensors]
    sizes = [len(group["params"]) for group in optimizer.get("param_groups", [])]
    if alphas and sum(sizes) == len(names) + len(alphas):
        # In the order of the state_dict, in which alphas come first.
        entries = _of_parameters(optimizer, alphas + names, tensors, key)
        if any(entries[name] for name in alphas):
            notes.append(f"{key}: left out its moments of the alphas, which Adam alone steps here")
        entries = {name: entries[name] for name in names}
    else:
        entries = _of_parameters(optimizer, names, tensors, key)
    buffers = _moments(entries, "momentum_buffer", tensors)
    trace = weights.read(buffers, of.parameters, of.flat, key)["params"]
    return optax.tree.set(initial, trace=trace), notes


def _adam(document: Mapping[str, Any], initial: Any) -> tuple[Any, list[str]]:
    """The state of Adam with the moments of a checkpoint, and notes."""
    key, tensors = "optimizer_a_state", document["model_state"]
    if key not in document:
        return initial, [f"{key} is missing: the alphas' moments start from zero"]
    entries = _of_parameters(_section(document, key), list(_ALPHAS.values()), tensors, key)
    moments = {
        ours: {kind: np.asarray(values[name], np.float32) for kind, name in _ALPHAS.items()}
        for ours, values in (
            ("mu", _moments(entries, "exp_avg", tensors)),
            ("nu", _moments(entries, "exp_avg_sq", tensors)),
        )
    }
    counts = {int(entry.get("step", 0)) for entry in entries.values()}
    if len(counts) > 1:
        raise UserError(f"{key}: the alphas took different numbers of steps: {sorted(counts)}")
    return optax.tree.set(initial, count=jnp.int32(counts.pop()), **moments), []


def _optimizer(config: Common) -> optim.Optimizer:
    """The optimizer of the weights; a scheduled rate gives its state the count that runs have."""
    return optim.optimizer(config.weights, lambda step: 1.0)


def _check_optimizers(config: SearchConfig | TrainConfig) -> None:
    """Raises `UserError` unless the config's optimizers are those that the release has."""
    sections: list[tuple[str, Weights | Alphas, str]] = [("weights", config.weights, "sgd")]
    if isinstance(config, SearchConfig):
        sections.append(("alphas", config.alphas, "adam"))
    for key, section, name in sections:
        if section.optimizer != name or section.optimizer_options:
            raise UserError(
                f"config.{key}.optimizer={section.optimizer!r}: the PyTorch release has only "
                f"{name!r}, without options"
            )


def from_release(
    document: Mapping[str, Any], config: Config, steps_per_epoch: int
) -> tuple[SearchState | TrainState, int | None, list[str]]:
    """The state of a search, or of a training of one seed, from a checkpoint of the release.

    Args:
      document: its content, arrays for tensors; see `unnas_jax.convert.pyth`.
      config: a valid one.
      steps_per_epoch: of the config on its dataset.

    Returns:
      The state, in NumPy arrays; the release's count of training batches, if it has one; and
      notes on entries without counterpart, and on missing states of optimizers.

    Raises:
      UserError: names what is missing, extra or misshapen.
    """
    c = schema.record(config)
    _check_optimizers(c)
    of = weights.layout(c, _section(document, "model_state"))
    variables = weights.variables(document["model_state"], of)
    params, step = variables["params"], epochs_of(document) * steps_per_epoch
    counted = variables.get("counters", {}).get(weights.COUNTER)
    tracked = None if counted is None else int(counted)
    state: SearchState | TrainState
    if isinstance(c, SearchConfig):
        initial = _optimizer(c).init(params)
        momentum, notes = _sgd(document, "optimizer_w_state", of, initial, step)
        alphas = variables["alphas"]
        adam_of = optim.optimizer(c.alphas, 1.0)
        adam, more = _adam(document, adam_of.init(alphas))
        state = SearchState(
            step=jnp.int32(step),
            params=params,
            batch_stats=variables["batch_stats"],
            alphas=alphas,
            weights_opt=momentum,
            alphas_opt=adam,
        )
        return jax.device_get(state), tracked, notes + more
    initial = _optimizer(c).init(params)
    momentum, notes = _sgd(document, "optimizer_state", of, initial, step)
    state = TrainState(
        seed=jnp.int32(c.seed),
        step=jnp.int32(step),
        params=params,
        batch_stats=variables["batch_stats"],
        # The release has none: it goes on from the weights as they are.
        average=(
            {"params": params, "batch_stats": variables["batch_stats"]} if c.train.ema else {}
        ),
        optimizer=momentum,
    )
    stacked = jax.tree.map(lambda leaf: np.asarray(leaf)[None], jax.device_get(state))
    return stacked, tracked, notes


def _numbered(entries: list[dict[str, Any]], settings: Mapping[str, Any]) -> dict[str, Any]:
    """An optimizer's `state_dict` with one group."""
    numbers = list(range(len(entries)))
    return {
        "state": {k: entry for k, entry in zip(numbers, entries, strict=True) if entry},
        "param_groups": [{**settings, "params": numbers}],
    }


def to_release(
    state: SearchState | TrainState,
    config: Mapping[str, Any],
    steps_per_epoch: int,
    tracked: int | None = None,
) -> tuple[dict[str, Any], list[str]]:
    """The checkpoint of the release for a state: the inverse of `from_release`.

    Args:
      state: of a search or of a training of one seed, with arrays.
      config: its config, as a dict.
      steps_per_epoch: of the config on its dataset.
      tracked: its count of training batches; None: the steps.

    Returns:
      The content of the checkpoint, arrays for tensors, and notes on what the release would do
      otherwise.

    Raises:
      UserError: the state does not stand at the end of an epoch.
    """
    c = schema.record(config)
    _check_optimizers(c)
    if isinstance(state, TrainState):
        state = jax.tree.map(lambda leaf: np.asarray(leaf)[0], state)
    step = int(state.step)
    epochs, rest = divmod(step, steps_per_epoch)
    if rest:
        raise UserError(
            f"checkpoint: step {step} is within epoch {epochs}, and the PyTorch release goes on "
            f"from whole epochs of {steps_per_epoch} steps; take a checkpoint of a multiple of it"
        )
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    if isinstance(state, SearchState):
        variables["alphas"] = state.alphas
    count = step if tracked is None else tracked
    model = weights.params_to_torch({**variables, "counters": {weights.COUNTER: count}}, c)
    tree, notes = config_to_release.to_release(config, len(next(reversed(model.values()))))
    document = {
        "epoch": epochs - 1,
        "model_state": model,
        "cfg": config_to_release.as_yaml(tree),
    }
    section, of = c.weights, weights.layout_of(variables, c)
    sgd = {
        "lr": section.learning_rate,
        "momentum": section.momentum,
        "dampening": 0,
        "weight_decay": section.weight_decay,
        "nesterov": section.nesterov,
    }

    def momentum(optimizer: Any) -> dict[str, Any]:
        trace = weights.write({"params": optax.tree.get(optimizer, "trace")}, of.parameters)
        return _numbered([{"momentum_buffer": buffer} for buffer in trace.values()], sgd)

    if isinstance(state, TrainState):
        return {**document, "optimizer_state": momentum(state.optimizer)}, notes
    steps = int(optax.tree.get(state.alphas_opt, "count"))
    mu, nu = (optax.tree.get(state.alphas_opt, name) for name in ("mu", "nu"))
    moments = [
        {"step": steps, "exp_avg": np.asarray(mu[kind]), "exp_avg_sq": np.asarray(nu[kind])}
        for kind in _ALPHAS
    ]
    assert isinstance(c, SearchConfig)
    alphas = c.alphas
    adam = {
        "lr": alphas.learning_rate,
        "betas": (alphas.b1, alphas.b2),
        "eps": 1e-8,
        "weight_decay": alphas.weight_decay,
        "amsgrad": False,
    }
    return {
        **document,
        "optimizer_w_state": momentum(state.weights_opt),
        "optimizer_a_state": _numbered(moments if steps else [{}, {}], adam),
    }, notes


def read(workdir: str, step: int | None) -> tuple[SearchState | TrainState, dict[str, Any]]:
    """The state of a checkpoint of a workdir and its progress.

    Args:
      workdir: of a search or of a training.
      step: of the checkpoint; None: the newest.

    Raises:
      UserError: there is no such checkpoint, or it is damaged.
    """
    directory = os.path.join(os.path.abspath(workdir), "checkpoints")
    if not os.path.isdir(directory):
        raise UserError(f"{workdir}: has no checkpoints; give the workdir of a run")
    with contextlib.closing(ocp.CheckpointManager(directory)) as manager:
        steps = sorted(manager.all_steps())
        step = steps[-1] if step is None and steps else step
        if step not in steps:
            raise UserError(
                f"--step={step}: {workdir} has checkpoints of the steps "
                f"{', '.join(map(str, steps)) or '(none)'}"
            )
        items = ocp.args.Composite(
            state=ocp.args.StandardRestore(), progress=ocp.args.JsonRestore()
        )
        restored = manager.restore(step, args=items)
    state = restored["state"]
    try:
        position = snapshot.verified(snapshot.on_host(state), restored["progress"])
    except ValueError as error:
        raise UserError(
            f"{workdir}: the checkpoint of step {step} is damaged ({error}); choose another one "
            "with --step"
        ) from error
    return (SearchState if "alphas" in state else TrainState)(**state), position


def of_seed(state: TrainState, seed: int | None) -> TrainState:
    """The part of a training's state that one of its seeds has; None: its only one.

    Raises:
      UserError: there is no such seed, or there are several.
    """
    seeds = np.asarray(state.seed).tolist()
    if seed is None and len(seeds) > 1:
        raise UserError(f"--seed: is missing; choose one of {', '.join(map(str, seeds))}")
    if seed is not None and seed not in seeds:
        raise UserError(f"--seed={seed}: use one of {', '.join(map(str, seeds))}")
    place = 0 if seed is None else seeds.index(seed)
    return jax.tree.map(lambda leaf: np.asarray(leaf)[place : place + 1], state)

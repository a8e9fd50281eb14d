"""The search phase: a supernet's weights and alphas trained in turn on the two halves of a dataset.

`search(config, workdir)` is the experiment; the functions above it are the step, which can be
used alone.
"""

import collections
import dataclasses
import importlib.metadata
import os
import time
from collections.abc import Callable, Mapping
from typing import Any, Literal

import flax
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
from absl import logging
from jax.sharding import Mesh

from unnas_jax import checkpoint, files, metrics, optim, precision, report, sharding, stopping
from unnas_jax import config as config_lib
from unnas_jax import workdir as workdir_lib
from unnas_jax.data import Dataset, halves, open_dataset, pipeline
from unnas_jax.data.sizes import check_sizes
from unnas_jax.errors import UserError
from unnas_jax.spaces.darts import genotype as genotype_lib
from unnas_jax.spaces.darts.supernet import Supernet, init_alphas
from unnas_jax.tasks import registry
from unnas_jax.tasks.base import Batch, Examples, Sums, Task

# What a random draw is for; folded into the seed's key together with the step.
_INIT, _ALPHAS, _WEIGHT_STEP, _ALPHA_STEP, _EVALUATION = range(5)

Which = Literal["weights", "alphas", "both"]


@flax.struct.dataclass
class SearchState:
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
    """

    init: Callable[[], SearchState]
    alphas: Callable[[SearchState, Batch, Batch], tuple[SearchState, Sums]]
    weights: Callable[[SearchState, Batch], tuple[SearchState, Sums]]
    evaluate: Callable[[SearchState, Batch, int], Sums]


def build_supernet(config: Mapping[str, Any], task: Task) -> Supernet:
    """The supernet of a config (as a dict) with the head of a task."""
    network, form = config["network"], config["search"]["formulation"]
    dtype = precision.compute_dtype(config["precision"])
    return Supernet(
        width=network["width"],
        cells=network["cells"],
        nodes=network["nodes"],
        stem=network["stem"],
        head=task.head(dtype),
        dense_task=task.name == "segmentation",
        dense=jax.default_backend() != "cpu" if form == "auto" else form == "dense",
        dtype=dtype,
    )


def example_shapes(config: Mapping[str, Any], task: Task, images: int = 1) -> Examples:
    """The shapes and dtypes of the examples that a batch of images becomes."""
    crop = config["input"]["crop"]
    batch = {
        "image": jax.ShapeDtypeStruct((images, crop, crop, 3), jnp.uint8),
        "label": jax.ShapeDtypeStruct((images,), jnp.int32),
    }
    return jax.eval_shape(
        lambda batch: task.examples(jax.random.key(0), batch, train=True), batch
    )


def build_steps(
    config: Mapping[str, Any], task: Task, mesh: Mesh, steps_per_epoch: int
) -> Steps:
    """The jitted steps of a search (DARTS, algorithm 1).

    Args:
      config: a validated config as a dict.
      task: the task that the supernet learns.
      mesh: see `unnas_jax.sharding`; batches must be split over it.
      steps_per_epoch: the learning rate changes once an epoch.
    """
    network = build_supernet(config, task)
    schedule = optim.epoch_cosine(
        config["weights"]["learning_rate"],
        config["weights"]["final_learning_rate"],
        config["train"]["epochs"],
        steps_per_epoch,
    )
    weights_tx = optim.weights(config["weights"], schedule)
    alphas_tx = optim.alphas(config["alphas"])
    everywhere = sharding.replicated(mesh)

    def key_for(purpose: jax.Array | int, step: jax.Array | int) -> jax.Array:
        return jax.random.fold_in(jax.random.fold_in(jax.random.key(config["seed"]), purpose), step)

    def init() -> SearchState:
        alphas = init_alphas(
            key_for(_ALPHAS, 0), config["network"]["nodes"], config["alphas"]["init_scale"]
        )
        inputs = example_shapes(config, task).inputs
        variables = network.lazy_init(key_for(_INIT, 0), inputs, alphas, train=True)
        params = variables["params"]
        state = SearchState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            batch_stats=variables["batch_stats"],
            alphas=alphas,
            weights_opt=weights_tx.init(params),
            alphas_opt=alphas_tx.init(alphas),
        )
        return jax.device_put(state, everywhere)

    def loss(
        params: Any, alphas: Any, batch_stats: Any, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, tuple[Any, Sums]]:
        examples = task.examples(key, batch, train=True)
        outputs, updated = network.apply(
            {"params": params, "batch_stats": batch_stats},
            examples.inputs,
            alphas,
            train=True,
            mutable=["batch_stats"],
        )
        sums = task.score(outputs, examples)
        return sums["loss"] / jnp.maximum(sums["count"], 1.0), (updated["batch_stats"], sums)

    def gradients(
        state: SearchState, batch: Batch, purpose: jax.Array, of: Which
    ) -> tuple[Any, Any, Any, Sums]:
        """Gradients of weights and alphas (those not asked for are empty), statistics, sums."""
        key = key_for(purpose, state.step)
        arguments = {"weights": (0,), "alphas": (1,), "both": (0, 1)}[of]
        grads, (batch_stats, sums) = jax.grad(loss, argnums=arguments, has_aux=True)(
            state.params, state.alphas, state.batch_stats, batch, key
        )
        by_argument = dict(zip(arguments, grads, strict=True))
        return by_argument.get(0, ()), by_argument.get(1, ()), batch_stats, sums

    def unrolled(
        state: SearchState, batch_b: Batch, batch_a: Batch
    ) -> tuple[dict[str, jax.Array], Sums]:
        """The exact gradient of B's loss after one weight step on A (DARTS, equation 5)."""
        key_a = key_for(_WEIGHT_STEP, state.step)
        key_b = key_for(_ALPHA_STEP, state.step)

        def after_step(alphas: Any) -> tuple[jax.Array, Sums]:
            grads, _ = jax.grad(loss, has_aux=True)(
                state.params, alphas, state.batch_stats, batch_a, key_a
            )
            updates, _ = weights_tx.update(grads, state.weights_opt, state.params)
            params = optax.apply_updates(state.params, updates)
            value, (_, sums) = loss(params, alphas, state.batch_stats, batch_b, key_b)
            return value, sums

        return jax.grad(after_step, has_aux=True)(state.alphas)

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
        outputs = network.apply(
            {"params": state.params, "batch_stats": state.batch_stats},
            examples.inputs,
            state.alphas,
            train=False,
        )
        return task.score(outputs, examples)

    def jit(function: Callable[..., Any], **options: Any) -> Any:
        return jax.jit(function, out_shardings=everywhere, **options)

    gradients = jit(gradients, static_argnames="of")
    unrolled, evaluate = jit(unrolled), jit(evaluate)
    update_alphas = jit(update_alphas, donate_argnums=0)
    update_weights = jit(update_weights, donate_argnums=0)
    # XLA needs as long to compile forward and backward a second time as the first. A CPU, where
    # that is most of a short run, computes both gradients in one function for both passes;
    # accelerators are spared the gradients that a pass does not use.
    shared = jax.default_backend() == "cpu"
    of_alphas: Which = "both" if shared else "alphas"
    of_weights: Which = "both" if shared else "weights"
    alpha_purpose = jax.device_put(np.int32(_ALPHA_STEP), everywhere)
    weight_purpose = jax.device_put(np.int32(_WEIGHT_STEP), everywhere)

    def alpha_step(state: SearchState, batch_b: Batch, batch_a: Batch) -> tuple[SearchState, Sums]:
        if config["search"]["order"] == 2:
            grads, sums = unrolled(state, batch_b, batch_a)
        else:
            # The statistics that this pass would update belong to the weights' half.
            _, grads, _, sums = gradients(state, batch_b, alpha_purpose, of=of_alphas)
        return update_alphas(state, grads), sums

    def weight_step(state: SearchState, batch_a: Batch) -> tuple[SearchState, Sums]:
        grads, _, batch_stats, sums = gradients(state, batch_a, weight_purpose, of=of_weights)
        return update_weights(state, grads, batch_stats), sums

    def evaluate_batch(state: SearchState, batch: Batch, number: int) -> Sums:
        return evaluate(state, batch, jax.device_put(np.int32(number), everywhere))

    return Steps(init, alpha_step, weight_step, evaluate_batch)


@dataclasses.dataclass(frozen=True)
class _Plan:
    """How many steps a search has and when the alphas begin to move."""

    steps_per_epoch: int
    total: int
    arch_start: int

    def epoch(self, step: int) -> float:
        return step / self.steps_per_epoch


def _plan(config: Mapping[str, Any], dataset: Dataset, images: int) -> _Plan:
    batch_size = config["train"]["batch_size"]
    per_epoch = images // batch_size
    if per_epoch == 0:
        raise UserError(
            f"config.train.batch_size={batch_size}: half of the dataset {dataset.name!r} has only "
            f"{images} images; use a smaller batch"
        )
    total = per_epoch * config["train"]["epochs"]
    if config["train"]["max_steps"] > 0:
        total = min(total, config["train"]["max_steps"])
    return _Plan(per_epoch, total, round(config["search"]["arch_start_epoch"] * per_epoch))


class _Outputs:
    """The files of a search that grow with it: metrics, alphas, genotype, pictures.

    Made on the process that writes; elsewhere every method does nothing.
    """

    def __init__(
        self, workdir: str, config: Mapping[str, Any], plan: _Plan, step: int, primary: bool
    ) -> None:
        self.workdir, self.config, self.plan, self.primary = workdir, config, plan, primary
        self.history: list[dict[str, Any]] = []
        self.log = metrics.MetricsLog(workdir, step) if primary else None
        path = os.path.join(workdir, "alphas.npz")
        if primary and step and os.path.exists(path):
            with np.load(path) as old:
                rows = [dict(zip(old, values, strict=True)) for values in zip(*old.values(), strict=True)]
            self.history = [row for row in rows if row["step"] <= step]

    def metrics(self, kind: str, step: int, **values: Any) -> None:
        """Writes a row of metrics."""
        if self.log:
            self.log.write(kind, step, epoch=self.plan.epoch(step), **values)

    def alphas(self, state: SearchState, step: int, *, finished: bool) -> None:
        """Writes the alphas' history and the genotype they stand for now."""
        if not self.primary:
            return
        alphas = {kind: np.asarray(value) for kind, value in state.alphas.items()}
        if not self.history or self.history[-1]["step"] < step:
            self.history.append({"step": step, "epoch": self.plan.epoch(step), **alphas})
        columns = {
            name: np.stack([np.asarray(row[name]) for row in self.history])
            for name in ("step", "epoch", "normal", "reduce")
        }
        with files.replacing(os.path.join(self.workdir, "alphas.npz"), "wb") as file:
            np.savez_compressed(file, **columns)
        document = genotype_lib.document(
            alphas["normal"],
            alphas["reduce"],
            {
                "dataset": self.config["dataset"]["name"],
                "task": self.config["task"]["name"],
                "seed": self.config["seed"],
                "step": step,
                "epoch": self.plan.epoch(step),
                "finished": finished,
                "versions": versions(),
            },
        )
        files.write_json(os.path.join(self.workdir, "genotype.json"), document)

    def pictures(self) -> None:
        """Redraws the pictures and the report."""
        if self.primary:
            report.write(self.workdir)

    def close(self) -> None:
        """Closes the metrics' files."""
        if self.log:
            self.log.close()


def versions() -> dict[str, str]:
    """The versions of the packages that a result depends on."""
    names = ("unnas_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            from unnas_jax import __version__

            found[name] = __version__ if name == "unnas_jax" else "not installed"
    return found


def search(config: ml_collections.ConfigDict, workdir: str) -> SearchState:
    """Runs a search to its end, or continues it, and leaves its files in `workdir`.

    Args:
      config: see `unnas_jax.config.search`.
      workdir: a directory; files as listed in the README.

    Returns:
      The final state.

    Raises:
      UserError: bad input, or the loss became NaN.
    """
    # Check everything that can be wrong before anything long begins.
    config_lib.validate(config)
    c = config.to_dict()
    for key in ("train.batch_size", "eval.batch_size"):
        section, field = key.split(".")
        sharding.check_batch_size(key, c[section][field])
    primary = jax.process_index() == 0
    workdir_lib.claim(workdir, c, write=primary)

    # Data.
    dataset = open_dataset(c["dataset"])
    task = registry.create(c, dataset)
    records = dataset.splits["train"]
    check_sizes(dataset, c["input"]["crop"])
    half_a, half_b = halves(len(records), c["seed"])
    plan = _plan(c, dataset, len(half_a))
    held_out = half_b[: c["eval"]["max_images"]] if c["eval"]["max_images"] > 0 else half_b

    # Model, steps and state.
    mesh = sharding.data_mesh()
    steps = build_steps(c, task, mesh, plan.steps_per_epoch)
    state = steps.init()
    checkpoints = checkpoint.Checkpoints(workdir)
    restored = checkpoints.restore(state)
    if restored is not None:
        state, progress = restored
    step = 0 if restored is None else int(progress["step"])
    accuracy = None if restored is None else progress["validation_accuracy"]

    outputs = _Outputs(workdir, c, plan, step, primary)
    logging.info(
        "Searching on %s with %s: %d + %d images, %d steps an epoch, %d steps, %d devices (%s)%s.",
        dataset.name,
        task.name,
        len(half_a),
        len(half_b),
        plan.steps_per_epoch,
        plan.total,
        jax.device_count(),
        jax.default_backend(),
        f", resuming at step {step}" if step else "",
    )
    outputs.metrics(
        "start",
        step,
        num_classes=task.num_classes,
        train_images=len(half_a),
        validation_images=len(held_out),
        devices=jax.device_count(),
        backend=jax.default_backend(),
        total_steps=plan.total,
    )
    if step == 0:
        outputs.alphas(state, 0, finished=False)

    def stream(indices: np.ndarray, offset: int) -> Any:
        return pipeline.train_batches(
            records,
            indices,
            batch_size=c["train"]["batch_size"],
            crop=c["input"]["crop"],
            resize=c["input"]["resize"],
            train_crop=c["input"]["train_crop"],
            apply_exif=dataset.apply_exif,
            seed=c["seed"] + offset,
            start_step=step,
            workers=c["workers"],
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )

    def validate(state: SearchState) -> dict[str, float]:
        batches = pipeline.eval_batches(
            records,
            held_out,
            batch_size=c["eval"]["batch_size"],
            crop=c["input"]["crop"],
            resize=c["input"]["resize"],
            apply_exif=dataset.apply_exif,
            workers=c["workers"],
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        sums = [
            steps.evaluate(state, sharding.to_devices(_device_part(batch), mesh), number)
            for number, batch in enumerate(batches)
        ]
        return metrics.means(jax.device_get(sums))

    def save(step: int, state: SearchState, ranked: bool) -> None:
        progress = {
            "step": step,
            "epoch": plan.epoch(step),
            "data_position": step * c["train"]["batch_size"],
            "validation_accuracy": accuracy,
        }
        checkpoints.save(step, state, progress, accuracy if ranked else None)

    # The loop.
    interval = _Interval(plan, c, outputs, checkpoints, step)
    running: collections.deque[Sums] = collections.deque()
    with stopping.on_sigterm() as stop:
        stream_a, stream_b = stream(half_a, 0), stream(half_b, 1)
        while step < plan.total:
            batch_a = sharding.to_devices(_device_part(next(stream_a)), mesh)
            batch_b = sharding.to_devices(_device_part(next(stream_b)), mesh)
            with jax.transfer_guard("disallow"):
                alpha_sums = None
                if step >= plan.arch_start:
                    state, alpha_sums = steps.alphas(state, batch_b, batch_a)
                state, weight_sums = steps.weights(state, batch_a)
            step += 1
            interval.add(step, weight_sums, alpha_sums)
            # The host may run ahead of the devices, but only a few batches.
            running.append(weight_sums)
            if len(running) > 4:
                jax.block_until_ready(running.popleft())

            epoch_ends = step % plan.steps_per_epoch == 0 or step == plan.total
            if step % c["log_every_steps"] == 0 or epoch_ends or stop.requested:
                interval.flush(step)
            if epoch_ends:
                held = validate(state)
                accuracy = held["accuracy"]
                outputs.metrics("validation", step, **held)
                logging.info(
                    "Epoch %.3g: half B, running statistics: loss %.4f, accuracy %.2f%%.",
                    plan.epoch(step),
                    held["loss"],
                    100 * accuracy,
                )
                outputs.alphas(state, step, finished=step == plan.total)
                save(step, state, ranked=True)
                outputs.pictures()
                interval.restart()
            elif step % c["checkpoint_every_steps"] == 0 or stop.requested:
                interval.flush(step)
                save(step, state, ranked=False)
            if stop.requested:
                break
        for batches in (stream_a, stream_b):
            batches.close()

    # The end.
    checkpoints.close()
    if step < plan.total:
        logging.info("Stopped at step %d by a signal; the same command continues.", step)
    else:
        outputs.pictures()
        logging.info("Finished. See %s", os.path.join(workdir, "report.html"))
    outputs.close()
    return state


def _device_part(batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The columns that the device needs."""
    return {name: batch[name] for name in ("image", "label", "mask") if name in batch}


class _Interval:
    """What happened since the last line of progress."""

    def __init__(
        self,
        plan: _Plan,
        config: Mapping[str, Any],
        outputs: _Outputs,
        checkpoints: checkpoint.Checkpoints,
        step: int,
    ) -> None:
        self.plan, self.outputs, self.checkpoints = plan, outputs, checkpoints
        self.batch_size = config["train"]["batch_size"]
        self.first_step = step
        self.schedule = optim.epoch_cosine(
            config["weights"]["learning_rate"],
            config["weights"]["final_learning_rate"],
            config["train"]["epochs"],
            plan.steps_per_epoch,
        )
        self.weight_sums: list[Sums] = []
        self.alpha_sums: list[Sums] = []
        self.start = time.monotonic()

    def add(self, step: int, weights: Sums, alphas: Sums | None) -> None:
        """Notes a step's sums, which stay on the device."""
        self.weight_sums.append(weights)
        if alphas is not None:
            self.alpha_sums.append(alphas)

    def restart(self) -> None:
        """Starts the clock again after a pause that is not training."""
        self.start = time.monotonic()

    def flush(self, step: int) -> None:
        """Fetches the sums, stops at a NaN, writes the line and the row."""
        if not self.weight_sums:
            return
        weights = jax.device_get(self.weight_sums)
        alphas = jax.device_get(self.alpha_sums)
        steps = len(weights)
        for half, sums in (("A", weights), ("B", alphas)):
            position = metrics.first_not_finite(sums)
            if position is not None:
                saved = self.checkpoints.steps()
                raise UserError(
                    f"the loss on half {half} became NaN or infinite at step "
                    f"{step - len(sums) + position + 1}; the last good checkpoint, of step "
                    f"{saved[-1] if saved else 'none'}, is kept; lower the learning rate "
                    "and start in a new workdir"
                )
        seconds = max(time.monotonic() - self.start, 1e-9)
        images = self.batch_size * (len(weights) + len(alphas))
        rate = images / seconds
        left = (self.plan.total - step) * seconds / steps
        row = {
            **metrics.means(weights),
            "learning_rate": float(self.schedule(step - 1)),
            "images_per_second": rate,
            "seconds_left": left,
        }
        line = (
            f"step {step}/{self.plan.total}  epoch {self.plan.epoch(step):.2f}  "
            f"loss {row['loss']:.4f}  accuracy {100 * row['accuracy']:.2f}%"
        )
        if alphas:
            of_alphas = metrics.means(alphas)
            row["alpha_loss"], row["alpha_accuracy"] = of_alphas["loss"], of_alphas["accuracy"]
            line += (
                f"  (alphas: {of_alphas['loss']:.4f}, {100 * of_alphas['accuracy']:.2f}%)"
            )
        logging.info(
            "%s  lr %.4g  %.1f images/s (%.1f a device)  %s left",
            line,
            row["learning_rate"],
            rate,
            rate / jax.device_count(),
            metrics.duration(left),
        )
        self.outputs.metrics("train", step, **row)
        self.weight_sums, self.alpha_sums = [], []
        self.restart()

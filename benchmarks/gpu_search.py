"""The rows of `gpu.py` about the supernet: steps, agreement with the CPU, profile."""

import copy
import functools
import importlib
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from benchmarks import profile_summary
from benchmarks.gpu_schedule import NOT_TUNED, Program, Row, timed
from unnas_jax.commands import compile as aot
from unnas_jax.config.sections import MethodConfig
from unnas_jax.core import sharding
from unnas_jax.methods import darts, programs
from unnas_jax.methods.base import Setting
from unnas_jax.spaces import complexity
from unnas_jax.tasks.base import example_shapes

FORMS = ("dense", "depthwise", "per_edge")
TASKS = ("rot", "cls", "col", "jig")

_IMAGES = 1_281_167  # Of ImageNet-1K's training split; a search halves them.
_STEPS_PER_EPOCH = 20018


def recipe(name: str, tiny: bool) -> dict[str, Any]:
    """A search on ImageNet-1K in bfloat16, or the same at toy size."""
    c: dict[str, Any] = importlib.import_module(f"configs.{name}_in1k").get_config().to_dict()
    c["precision"] = "bfloat16"
    if tiny:
        c["network"] |= {"width": 4, "cells": 1, "nodes": 1}
        c["input"] |= {"crop": 32 if name == "jig" else 16, "resize": 40}
        c["task"] |= {"grid": 2, "permutations": 24}
        c["train"]["batch_size"] = 2
    return c


def filled(shapes: Any, device: jax.Device, seed: int = 0) -> Any:
    """A state of these shapes with random parameters, made by NumPy: nothing is compiled for it.

    Kernels are normal with a deviation of 1 / sqrt(inputs), statistics are those of no batch yet,
    optimizers' states are zero.
    """
    rng = np.random.default_rng(seed)

    def fill(path: Any, leaf: Any) -> np.ndarray:
        names = [str(getattr(key, "name", getattr(key, "key", ""))) for key in path]
        if not np.issubdtype(leaf.dtype, np.floating) or any("opt" in name for name in names):
            return np.zeros(leaf.shape, leaf.dtype)
        if names[-1] in ("mean", "bias"):
            return np.zeros(leaf.shape, leaf.dtype)
        if names[-1] in ("var", "scale"):
            return np.ones(leaf.shape, leaf.dtype)
        scale = 1e-3 if "alphas" in names else 0.1 if leaf.ndim < 2 else leaf.shape[-2] ** -0.5
        return (scale * rng.standard_normal(leaf.shape)).astype(leaf.dtype)

    return jax.device_put(jax.tree_util.tree_map_with_path(fill, shapes), device)


def random_batch(shapes: Any, classes: int, device: jax.Device) -> Any:
    """Random images and labels of these shapes."""
    rng = np.random.default_rng(1)
    arrays = {
        "image": rng.integers(0, 256, shapes["image"].shape, np.uint8),
        "label": rng.integers(0, classes, shapes["label"].shape).astype(shapes["label"].dtype),
    }
    return jax.device_put(arrays, device)


class Search:
    """A search's programs on one device, at one batch size and in one form.

    Attributes:
      config: in its form.
      task: that it learns.
      batch: images of a step.
    """

    def __init__(
        self,
        name: str,
        c: dict[str, Any],
        form: str,
        device: jax.Device,
        options: dict[str, Any] | None = None,
    ) -> None:
        """A search of a recipe; options: XLA's."""
        self.config = {**c, "search": {**c["search"], "formulation": form}}
        self.task = complexity.task_of(self.config)
        self.batch, self._device, self._form = c["train"]["batch_size"], device, form
        self._name, self._options = f"{name}/{self.batch}/{form}", options
        self._made: dict[str, Any] = {}
        self._programs: dict[str, Program] = {}

    def with_options(self, options: dict[str, Any]) -> "Search":
        """The same programs, traced but once for both, compiled with XLA's other options."""
        other = copy.copy(self)
        other._options, other._programs = options, {}
        return other

    def _once(self, name: str, make: Callable[[], Any]) -> Any:
        """What is made at the first call, here or in a `with_options`."""
        if name not in self._made:
            self._made[name] = make()
        return self._made[name]

    @property
    def _mesh(self) -> Any:
        return sharding.data_mesh([self._device])

    @property
    def _steps(self) -> darts.Darts:
        def make() -> darts.Darts:
            setting = Setting(MethodConfig.of(self.config), self.task, self._mesh, _STEPS_PER_EPOCH)
            return darts.Darts(setting)

        steps: darts.Darts = self._once("steps", make)
        return steps

    @property
    def _shapes(self) -> Any:
        return self._once("shapes", lambda: self._steps.shapes())

    def _updates(self) -> dict[str, jax.stages.Lowered]:
        lowered = self._steps.lower(aot.batch_shapes(self.config, self.task, self._mesh))
        return {name: programs[1] for name, programs in lowered.items()}

    def gradients(self, of: programs.Which, precision: str | None = None) -> Program:
        """The gradient of `weights`, `alphas` or `both`; precision: of float32 products."""

        def lower() -> jax.stages.Lowered:
            purpose = jax.ShapeDtypeStruct((), np.int32, sharding=sharding.replicated(self._mesh))
            batch = aot.batch_shapes(self.config, self.task, self._mesh)
            with jax.default_matmul_precision(precision or "default"):
                lowered: jax.stages.Lowered = self._steps.programs.gradients.lower(
                    self._shapes, batch, purpose, of=of
                )
            return lowered

        return self._program(of, lower)

    def update(self, of: str) -> Program:
        """The optimizer's step of `weights` or `alphas`."""
        return self._program(f"update_{of}", lambda: self._once("updates", self._updates)[of])

    def _program(self, name: str, lower: Callable[[], jax.stages.Lowered]) -> Program:
        def once() -> jax.stages.Lowered:
            lowered: jax.stages.Lowered = self._once(name, lower)
            return lowered

        program = Program(f"{self._name}/{name}", once, self._options)
        return self._programs.setdefault(name, program)

    def arguments(self) -> tuple[Any, Any, Any]:
        """A new state, a batch and the purpose, on the device."""
        batch = aot.batch_shapes(self.config, self.task, self._mesh)
        return (
            filled(self._shapes, self._device),
            random_batch(batch, self.task.num_classes, self._device),
            jax.device_put(np.int32(2), self._device),
        )

    def ready(self, program: Program) -> Callable[..., Any]:
        """A compiled program with the seed, which it takes besides its arguments."""
        return functools.partial(program.compiled, seed=jax.device_put(np.int32(0), self._device))

    def multiply_adds(self) -> int:
        """Of a forward pass of a batch, as the method defines it: edge by edge."""
        inputs = example_shapes(self.config, self.task, self.batch).inputs
        counts = complexity.of_config(self.config)
        return int(counts["multiply_adds"] * inputs.shape[0] // counts["inputs"])


def rate(ms: float, flops: float | None, peak: float | None) -> float | None:
    """The share of a peak that is reached."""
    return round(flops / (1e-3 * ms) / peak, 5) if flops and peak else None


def _pass_row(search: Search, keys: tuple[str, ...], of: Any, peak: float | None) -> Row:
    """The gradients of one pass, the part of a step that costs."""
    program = search.gradients(of)

    def measure() -> dict[str, Any]:
        arguments, run = search.arguments(), search.ready(program)
        found = timed(lambda: run(*arguments), jax.block_until_ready, 2.0)
        # Backward, the weights' gradient is as much again as the activations'.
        model = (6 if of == "weights" else 4) * search.multiply_adds()
        return {
            **found,
            "images": search.batch,
            "images_per_s": round(search.batch / found["ms"] * 1e3, 1),
            "model_flops": model,
            "mfu": rate(found["ms"], model, peak),
            "hardware_mfu": rate(found["ms"], program.facts["flops"], peak),
            "gb_per_s_accessed": _gb_per_s(program.facts["bytes_accessed"], found["ms"]),
            **program.facts,
        }

    return Row((*keys, of), [program], measure)


def _gb_per_s(accessed: float | None, ms: float) -> float | None:
    return round(accessed / ms / 1e6, 1) if accessed else None


class WholeStep:
    """Both passes with their updates, from compiled programs, as a search runs them."""

    def __init__(self, search: Search) -> None:
        self._search = search
        self.programs = [
            search.gradients("alphas"),
            search.update("alphas"),
            search.gradients("weights"),
            search.update("weights"),
        ]

    def step(self) -> Any:
        """A function that begins a step and returns what to wait for."""
        alphas, update_alphas, weights, update_weights = map(self._search.ready, self.programs)
        state, batch, purpose = self._search.arguments()
        held = {"state": state}

        def step() -> Any:
            _, grads, _, _ = alphas(held["state"], batch, purpose)
            state = update_alphas(held["state"], grads)
            grads, _, batch_stats, sums = weights(state, batch, purpose)
            held["state"] = update_weights(state, grads, batch_stats)
            return held["state"], sums

        return step


def _step_row(search: Search, keys: tuple[str, ...]) -> Row:
    whole = WholeStep(search)

    def measure() -> dict[str, Any]:
        found = timed(whole.step(), jax.block_until_ready, 2.0)
        facts = {p.name.split("/")[-1]: p.facts for p in whole.programs if "update" in p.name}
        return {
            **found,
            "images": 2 * search.batch,
            "images_per_s": round(2 * search.batch / found["ms"] * 1e3, 1),
            "updates": facts,
        }

    return Row((*keys, "step"), whole.programs, measure)


class Searches:
    """The searches of all recipes on a device, each made once."""

    def __init__(self, tiny: bool, device: jax.Device) -> None:
        """The searches at full or toy size."""
        self._tiny, self._device = tiny, device
        self.of = functools.cache(self._of)

    def _of(self, name: str, times: int, form: str, tuned: bool) -> Search:
        """A recipe's search at a multiple of its batch; tuned: XLA tries out algorithms."""
        if not tuned:
            return self.of(name, times, form, True).with_options(NOT_TUNED)
        c = recipe(name, self._tiny)
        c["train"]["batch_size"] *= times
        return Search(name, c, form, self._device)


def _label(form: str, tuned: bool) -> str:
    return form if tuned else f"{form}, not tuned"


def rounds(
    searches: Searches, peak: float | None, is_quick: Callable[[], bool]
) -> Iterator[list[Row]]:
    """The rows of the supernet's steps, the most important first.

    Args:
      searches: whose.
      peak: of the card, FLOP/s.
      is_quick: after the first round, whether XLA's tuning takes so little time that the further
        programs are tuned, too.
    """

    def row(name: str, times: int, form: str, of: str, tuned: bool) -> Row:
        keys = ("supernet", name, f"batch x{times}", _label(form, tuned))
        if of == "step":
            return _step_row(searches.of(name, times, form, tuned), keys)
        return _pass_row(searches.of(name, times, form, tuned), keys, of, peak)

    yield [
        row("rot", 1, "dense", "weights", False),
        row("rot", 1, "dense", "weights", True),
        row("rot", 1, "depthwise", "weights", False),
        row("rot", 1, "depthwise", "weights", True),
        row("rot", 1, "dense", "alphas", False),
        row("rot", 1, "per_edge", "weights", False),
        row("rot", 1, "dense", "step", False),
    ]
    tuned, others = is_quick(), TASKS[1:]
    yield [
        row("rot", 1, "dense", "alphas", tuned),
        row("rot", 4, "dense", "weights", tuned),
        row("rot", 1, "depthwise", "alphas", tuned),
        row("rot", 4, "depthwise", "weights", tuned),
        row("cls", 1, "dense", "weights", tuned),
        row("rot", 1, "per_edge", "weights", tuned),
        row("rot", 1, "dense", "step", tuned),
    ]
    yield [
        row("rot", 4, "dense", "alphas", tuned),
        row("col", 1, "dense", "weights", tuned),
        row("jig", 1, "dense", "weights", tuned),
        *(row(name, 1, "depthwise", "weights", tuned) for name in others),
    ]
    yield [
        row("rot", 4, "depthwise", "alphas", tuned),
        *(row(name, 1, "dense", "alphas", tuned) for name in others),
        *(row(name, 4, "dense", "weights", tuned) for name in others),
    ]
    yield [
        row("rot", 1, "per_edge", "alphas", tuned),
        row("rot", 4, "per_edge", "weights", tuned),
        *(row(name, 4, "depthwise", "weights", tuned) for name in others),
        *(row(name, 1, "per_edge", "weights", tuned) for name in others),
    ]
    yield [
        *(row(name, 4, "dense", "alphas", tuned) for name in others),
        *(row(name, 4, "per_edge", "weights", tuned) for name in others),
    ]


def is_tuning_quick(content: dict[str, Any], seconds: float) -> bool:
    """Whether the dense form's tuned program took at most so long, or is the only one to work."""
    at_paper: dict[str, Any] = content.get("supernet", {}).get("rot", {}).get("batch x1", {})
    if "error" in at_paper.get(_label("dense", False), {}).get("weights", {}):
        return True
    taken = at_paper.get("dense", {}).get("weights", {}).get("compile_s")
    return taken is not None and taken < seconds


def profile(searches: Searches, form: str, tuned: bool, updates: bool, out: pathlib.Path) -> Row:
    """A profile of the rotation search in a form; the trace is kept below `out`.

    With `updates`, of the whole step; else of the gradients of both passes.
    """
    search = searches.of("rot", 1, form, tuned)
    whole = WholeStep(search)
    passes = [search.gradients("alphas"), search.gradients("weights")]

    def measure() -> dict[str, Any]:
        if updates:
            step = whole.step()
        else:
            arguments, ready = search.arguments(), [search.ready(program) for program in passes]

            def step() -> Any:
                return [run(*arguments) for run in ready]

        jax.block_until_ready(step())
        name = f"rot_{form}{'' if tuned else '_not_tuned'}.xplane.pb.gz"
        return profile_summary.record(lambda: jax.block_until_ready(step()), 2, out / name)

    return Row(
        ("profile", _label(form, tuned)), whole.programs if updates else passes, measure, 15.0
    )


def projection(content: dict[str, Any]) -> dict[str, Any]:
    """Hours of the whole rotation search on ImageNet-1K, for every form whose passes are measured.

    One alpha step to every two weight steps: alphas move in the second epoch of two alone. The
    optimizers' updates are those of the whole step that was measured; both are counted with every
    weight step.
    """
    c = recipe("rot", tiny=False)
    result: dict[str, Any] = {}
    at_paper: dict[str, Any] = content.get("supernet", {}).get("rot", {})
    updates = 0.0
    for rows in at_paper.get("batch x1", {}).values():
        whole, *passes = (rows.get(of, {}).get("ms") for of in ("step", "weights", "alphas"))
        if whole and all(passes):
            updates = max(0.0, whole - sum(passes))
    for times, forms in at_paper.items():
        batch = c["train"]["batch_size"] * int(times.rpartition("x")[2])
        per_epoch = _IMAGES // 2 // batch
        for form, rows in forms.items():
            weights, alphas = (rows.get(of, {}).get("ms") for of in ("weights", "alphas"))
            if not weights or not alphas:
                continue
            epochs, moving = c["train"]["epochs"], c["train"]["epochs"] - 1
            ms = per_epoch * (epochs * (weights + updates) + moving * alphas)
            result.setdefault(times, {})[form] = round(ms / 3.6e6, 3)
    return result


def agreement(tiny: bool, device: jax.Device) -> Row:
    """Loss and gradients of one small network: this device and the CPU, float32 and bfloat16.

    Relative errors |a - b| / |b|, against the depthwise form in float32 on the CPU.
    """
    cpu = jax.devices("cpu")[0]
    searches: dict[tuple[str, str, str], tuple[Search, Program]] = {}
    for place, where in {"cpu": cpu, device.platform: device}.items():
        for form in FORMS[:2]:
            for precision in ("float32", "bfloat16"):
                c = recipe("rot", tiny=True)
                c["precision"] = precision
                if not tiny:
                    c["network"] |= {"width": 8, "cells": 3, "nodes": 2}
                    c["input"]["crop"] = 32
                    c["train"]["batch_size"] = 8
                search = Search(f"agreement/{place}/{precision}", c, form, where)
                program = search.gradients("both", precision="highest")
                searches[place, form, precision] = search, program
    reference = "cpu", "depthwise", "float32"

    def measure() -> dict[str, Any]:
        results = {}
        for key, (search, program) in searches.items():
            weights, alphas, _, sums = jax.device_get(search.ready(program)(*search.arguments()))
            loss = np.float64(sums["loss"]) / sums["count"]
            results[key] = loss, _flat(weights), _flat(alphas)
        loss, weights, alphas = results[reference]
        rows = {
            "/".join(key): {
                "loss": float(found[0]),
                "loss_error": float(abs(found[0] - loss) / abs(loss)),
                "weights_gradient_error": _error(found[1], weights),
                "alphas_gradient_error": _error(found[2], alphas),
                "compile_s": searches[key][1].facts["compile_s"],
            }
            for key, found in results.items()
        }
        exact = [row for key, row in rows.items() if key.endswith("float32")]
        errors = ("weights_gradient_error", "alphas_gradient_error")
        return {
            "reference": "/".join(reference),
            "float32_agrees": all(row["loss_error"] < 1e-5 for row in exact)
            and all(row[name] < 1e-3 for row in exact for name in errors),
            "rows": rows,
        }

    return Row(("agreement",), [program for _, program in searches.values()], measure, 5.0)


def _flat(tree: Any) -> np.ndarray:
    return np.concatenate([np.ravel(leaf).astype(np.float64) for leaf in jax.tree.leaves(tree)])


def _error(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))

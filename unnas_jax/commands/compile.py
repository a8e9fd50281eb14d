"""Compiles a config's steps for a TPU slice, without having it, and reports their needs.

    unnas-jax compile --config=configs/rot_in1k.py --topology=v5e:4x4

XLA's TPU compiler comes with libtpu (`pip install 'unnas_jax[tpu-aot]'`) and needs no TPU. Memory,
FLOPs, bytes and cycles are its own figures for one chip; what reaches HBM and the network is
counted in the compiled program.
"""

import contextlib
import dataclasses
import hashlib
import json
import logging
import math
import os
import time
import types
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from typing import Any

import jax
import numpy as np
from absl import flags
from jax.sharding import Mesh

from unnas_jax.commands import command_line, fitting, hlo, slices
from unnas_jax.config import schema
from unnas_jax.config.options import Config
from unnas_jax.config.schema import SearchConfig, TrainConfig
from unnas_jax.config.sections import MethodConfig, Training
from unnas_jax.core import logs, sharding, stopping
from unnas_jax.core.errors import UserError
from unnas_jax.data.registry import entry_of
from unnas_jax.learning import trainer
from unnas_jax.learning.feed import STEPS_AHEAD
from unnas_jax.methods import registry as methods
from unnas_jax.methods.base import Setting
from unnas_jax.spaces import complexity, networks
from unnas_jax.sweep import validation
from unnas_jax.tasks.base import Task, example_shapes
from unnas_jax.tasks.base import batch_shapes as shapes_of

_LOG = logging.getLogger("unnas_jax")

_SILENCE_S = 10.0  # A compilation that takes longer is told.

# XLA's effort, from -1: less time to compile, more of it to run.
_QUICK: Any = {"exec_time_optimization_effort": -1.0, "memory_fitting_effort": -1.0}


def needs_of(program: jax.stages.Lowered, quick: bool) -> dict[str, Any]:
    """The needs of a program on each chip.

    Args:
      program: of `SearchMethod.lower` or `trainer.lower`.
      quick: see `report`.

    Returns:
      Its FLOPs, `cycles` (see `hlo.estimated_cycles`), `conditionals`, `collectives`,
      `compile_seconds`, and in bytes what its operations access, what of that is in HBM (see
      `hlo.hbm_bytes`), its arguments, outputs, temporaries and code; or only `refused`: why XLA
      would not fit it into memory.
    """
    start = time.monotonic()
    try:
        compiled: Any = program.compile(compiler_options=_QUICK if quick else None)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return {"refused": " ".join(str(error).split())[:300]}
    plan, cost, text = compiled.memory_analysis(), compiled.cost_analysis(), compiled.as_text()
    return {
        "flops": cost.get("flops", 0.0),
        "cycles": hlo.estimated_cycles(text),
        "conditionals": hlo.conditionals(text),
        "bytes_accessed": cost.get("bytes accessed", 0.0),
        "hbm_bytes": hlo.hbm_bytes(text),
        "arguments": plan.argument_size_in_bytes,
        "outputs": plan.output_size_in_bytes - plan.alias_size_in_bytes,
        "temporaries": plan.temp_size_in_bytes,
        "code": plan.generated_code_size_in_bytes,
        "collectives": hlo.collectives(text),
        "compile_seconds": round(time.monotonic() - start, 1),
    }


def batch_shapes(config: Config, task: Task, mesh: Mesh) -> dict[str, jax.ShapeDtypeStruct]:
    """The shapes of a search's global batch of images and labels, split over a mesh."""
    c = SearchConfig.of(config)
    shapes = shapes_of(task, (c.train.batch_size,), c.input.crop)
    placed = sharding.split(mesh)
    return {name: jax.ShapeDtypeStruct(*shape, sharding=placed) for name, shape in shapes.items()}


@dataclasses.dataclass(frozen=True)
class Resident:
    """The bytes that stay on each chip while programs run.

    Attributes:
      own: the state and the batch that a step's programs work on; one of them may take only a part.
      waiting: the states of seeds that train in turn with these, and the batches of this step and
        of those that the host is ahead, but for the one at work.
    """

    own: int
    waiting: int


def resident(state: Any, states: int, batch: Any, batches: int, mesh: Mesh) -> Resident:
    """The arrays that stay on each chip of a mesh.

    Args:
      state, batch: shapes of what one program works on.
      states: how many such states there are.
      batches: how many such batches a step takes.
    """
    one, images = sharding.bytes_of(state), sharding.bytes_of(batch) // mesh.size
    return Resident(
        own=one + images,
        waiting=(states - 1) * one + ((1 + STEPS_AHEAD) * batches - 1) * images,
    )


def needed(needs: Sequence[Mapping[str, Any]], stays: Resident) -> int:
    """The bytes that programs, by what each needs (see `needs_of`), take on a chip."""
    return (
        stays.waiting
        + sum(need["code"] for need in needs)
        + max(
            max(need["arguments"], stays.own) + need["outputs"] + need["temporaries"]
            for need in needs
        )
    )


def setting_of(config: SearchConfig, task: Task, mesh: Mesh, stage: int) -> Setting:
    """What a search's method is made from in a stage, counted from 1.

    The stages before it are taken to end with equal alphas.

    Raises:
      UserError: it has no such stage.
    """
    found, part = methods.of_config(config), MethodConfig.of(config)
    stages = found.stages(part, 1)
    if stage not in range(1, len(stages) + 1):
        counted = "one stage" if len(stages) == 1 else f"{len(stages)} stages"
        raise UserError(f"--stage={stage}: the method {found.name!r} has {counted}")
    setting, first, here = Setting(part, task, mesh, 1), 0, sharding.data_mesh(jax.devices()[:1])
    for number, earlier in enumerate(stages[: stage - 1]):
        method = found(dataclasses.replace(setting, mesh=here))
        state = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), method.shapes())
        first += earlier.steps
        carried = method.finish(state)
        setting = Setting(part, task, mesh, 1, number + 1, first, carried)
    return setting


def programs_of(
    c: SearchConfig | TrainConfig, mesh: Mesh, stage: int
) -> tuple[dict[str, list[jax.stages.Lowered]], Resident]:
    """The programs of the steps of a config, and what stays on a chip while they run."""
    task = complexity.task_of(c)
    if isinstance(c, SearchConfig):
        setting = setting_of(c, task, mesh, stage)
    elif stage != 1:
        raise UserError(f"--stage={stage}: only searches have stages")
    # Within this block programs are built for the slice's platform, not for this machine's.
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        if isinstance(c, SearchConfig):
            steps = methods.of_config(c)(setting)
            batch = batch_shapes(c, task, mesh)
            programs = steps.lower(batch)
            if not programs:
                raise UserError(
                    f"config.search.method={steps.name!r}: it does not tell the programs of its "
                    "steps; write its `lower`"
                )
            # The alphas and the weights have each their half.
            return programs, resident(steps.shapes(), 1, batch, 2, mesh)
        inputs = example_shapes(c, task).inputs
        network = networks.build_network(c, task)
        training = trainer.build_steps(Training.of(c), network, task, mesh, 1, inputs)
        size = c.train.seeds_together
        seeds = c.seeds if size < 0 else min(size, c.seeds)
        groups = -(-c.seeds // seeds)
        shapes = trainer.batch_shapes(Training.of(c), task, seeds, mesh)
        stays = resident(training.shapes(seeds), groups, shapes, groups, mesh)
        return {"train": [trainer.lower(Training.of(c), task, training, seeds, mesh)]}, stays


def report(
    config: Mapping[str, Any],
    topology: str,
    *,
    quick: bool = False,
    stage: int = 1,
    known: MutableMapping[str, dict[str, Any]] | None = None,
    taken: Mapping[str, list[dict[str, Any]]] = types.MappingProxyType({}),
) -> dict[str, Any]:
    """The needs of the steps of a config on each chip of a slice.

    Args:
      config: a validated one, as a dict.
      topology: see `slices.mesh_of`.
      quick: lets XLA try less hard, which compiles in a fraction of the time. It then leaves all
        arrays in HBM, where a run keeps most in VMEM, and may need less memory than a run.
      stage: of a search, see `setting_of`.
      known: the needs of programs that were compiled before, to which those of this config come.
      taken: the needs of steps that are not to be compiled, as the result's `steps` has them.

    Returns:
      {'topology', 'chips', 'stage', 'batch_size', 'steps': {name: [what each of its programs
      needs]}, 'needed': bytes, 'available': bytes, 'fits': bool}. A search has the steps `alphas`
      and `weights`, a training `train`. `needed` is the largest program with what stays on the chip
      while it runs: the states of all seeds, the batches of the steps that the host is ahead, the
      code of all programs. Where XLA refuses a program `needed` is None and `steps` ends with it.

    Raises:
      UserError: there is no such slice, or the batch cannot be split over it.
    """
    mesh, c = slices.mesh_of(topology), schema.record(config)
    sharding.check_batch_size("train.batch_size", c.train.batch_size, mesh)
    programs, stays = programs_of(c, mesh, stage)
    known = {} if known is None else known
    needs: dict[str, list[dict[str, Any]]] = dict(taken)
    left = [(name, program) for name in programs if name not in taken for program in programs[name]]
    for name, program in left:
        parts = needs.setdefault(name, [])
        text = hashlib.sha256(program.as_text().encode()).hexdigest()
        if text not in known:
            what = f"compiling {name} {len(parts) + 1}/{len(programs[name])}"
            with logs.telling(what, after=_SILENCE_S):
                known[text] = needs_of(program, quick)
        parts.append(known[text])
        if "refused" in known[text]:
            break
    all_needs = [need for parts in needs.values() for need in parts]
    refused = any("refused" in need for need in all_needs)
    bytes_needed = None if refused else needed(all_needs, stays)
    available = slices.available_bytes(topology)
    return {
        "topology": topology,
        "chips": mesh.size,
        "stage": stage,
        "batch_size": c.train.batch_size,
        "steps": needs,
        "available": available,
        "needed": bytes_needed,
        "fits": bytes_needed is not None and bytes_needed <= available,
    }


def fit(
    config: Mapping[str, Any], topology: str, *, quick: bool = False, stage: int = 1
) -> dict[str, Any]:
    """The needs at the largest `train.batch_size` that fits; logs what it tries.

    Batches are tried with the one step that needs the most, others being taken as they were at the
    first batch that fitted; at the largest batch all are compiled.

    Args:
      config, topology, quick, stage: see `report`; the search begins at the config's batch.

    Returns:
      As `report`, and 'tried': [{'batch_size', 'needed'}], as they were compiled.

    Raises:
      UserError: see `report`; or one image a chip does not fit.
    """
    c, mesh = schema.record(config), slices.mesh_of(topology)
    available, chips = slices.available_bytes(topology), mesh.size
    images = entry_of(c.dataset.name).train_images or math.inf
    most = images / (2 if isinstance(c, SearchConfig) else 1)
    first = max(fitting.rounded(min(c.train.batch_size, most), chips), chips)
    known: dict[str, dict[str, Any]] = {}
    lighter: dict[str, list[dict[str, Any]]] = {}

    def at(batch: int, taken: Mapping[str, list[dict[str, Any]]]) -> dict[str, Any]:
        changed = {**config, "train": {**config["train"], "batch_size": batch}}
        return report(changed, topology, quick=quick, stage=stage, known=known, taken=taken)

    def need_of(batch: int) -> int | None:
        result = at(batch, lighter)
        bytes_needed: int | None = result["needed"]
        if result["fits"] and not lighter:
            heaviest = max(result["steps"], key=lambda name: _working(result["steps"][name]))
            lighter.update({n: parts for n, parts in result["steps"].items() if n != heaviest})
        return bytes_needed

    tried: dict[int, int | None] = {}
    while largest := fitting.search(need_of, tried, first, available, chips, most):
        _LOG.info("compiling what is left of train.batch_size=%d ...", largest)
        result = at(largest, {})
        tried[largest] = result["needed"]
        if result["fits"]:
            listed = [{"batch_size": batch, "needed": need} for batch, need in tried.items()]
            return {**result, "tried": listed}
    raise UserError(
        f"--fit: one image a chip does not fit into the {available / 2**30:.2f} GiB of {topology}; "
        "use a chip with more memory, or lower config.network.width or config.network.cells"
    )


def _working(parts: Sequence[Mapping[str, Any]]) -> int:
    """The bytes of the largest of a step's programs while it runs."""
    return max(need["arguments"] + need["outputs"] + need["temporaries"] for need in parts)


def _lines(name: str, parts: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for number, need in enumerate(parts):
        label = f"{name} {number + 1}/{len(parts)}" if len(parts) > 1 else name
        if "refused" in need:
            yield f"{label:12s} does not compile: {need['refused']}"
            continue
        yield (
            f"{label:12s} {need['flops'] / 1e9:10.1f} GFLOP {need['bytes_accessed'] / 1e9:8.2f} GB "
            f"accessed {need['hbm_bytes'] / 1e9:8.2f} GB of HBM {need['cycles'] / 1e6:8.1f} "
            f"Mcycles {need['temporaries'] / 2**30:6.2f} GiB temporary "
            f"({need['compile_seconds']:.0f} s to compile)"
        )
        if need["conditionals"]:
            yield (
                f"{'':12s} {need['conditionals']} operations choose a branch, as in gdas: HBM and "
                "cycles are without the branches"
            )
        for kind, found in need["collectives"].items():
            yield f"{'':12s} {found['count']} {kind}, {found['bytes'] / 1e6:.2f} MB"


def table(name: str, result: Mapping[str, Any]) -> str:
    """A report as lines of text."""
    stage = f", stage {result['stage']}" if result["stage"] > 1 else ""
    lines = [
        f"{name}{stage} on {result['topology']} ({result['chips']} chips), "
        f"train.batch_size={result['batch_size']}, for one chip:"
    ]
    for step, parts in result["steps"].items():
        lines += _lines(step, parts)
    available = f"{result['available'] / 2**30:.2f} GiB"
    if result["needed"] is None:
        lines.append(f"does not fit into {available}")
    else:
        words = "fits into" if result["fits"] else "does not fit into"
        lines.append(f"{result['needed'] / 2**30:.2f} GiB: {words} {available}")
    if tried := result.get("tried"):
        others = ", ".join(
            f"{one['batch_size']}: "
            + ("refused" if one["needed"] is None else f"{one['needed'] / 2**30:.2f} GiB")
            for one in tried
        )
        lines.append(f"the largest batch that fits is {result['batch_size']} (compiled: {others})")
    return "\n".join(lines)


def _define(values: flags.FlagValues) -> None:
    flags.DEFINE_string(
        "topology", "v5e:2x2", "The slice: v5e:1x1, v5e:2x2, v5e:2x4, ...", flag_values=values
    )
    flags.DEFINE_boolean("json", False, "Print one JSON object.", flag_values=values)
    flags.DEFINE_boolean(
        "quick", False, "Compile with XLA's least effort, sooner.", flag_values=values
    )
    flags.DEFINE_boolean(
        "fit", False, "Find the largest train.batch_size that fits.", flag_values=values
    )
    flags.DEFINE_integer(
        "stage", 1, "Of a search with several, such as P-DARTS.", flag_values=values
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status, 2 for a mistake of the user."""
    with command_line.user_errors() as outcome:
        values = command_line.parse_config(arguments, _define, __doc__)
        config = values.config
        # This machine computes with its CPU; libtpu alone would make JAX look for TPUs.
        with contextlib.suppress(RuntimeError):
            jax.config.update("jax_platforms", "cpu")
            validation.validate(config)
        need = fit if values.fit else report
        stopping.nothing_to_save(os.EX_TEMPFAIL)  # XLA's compiler cannot be asked to stop.
        result = need(config.to_dict(), values.topology, quick=values.quick, stage=values.stage)
        print(json.dumps(result) if values.json else table(config.experiment, result))
    return outcome.status

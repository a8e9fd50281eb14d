"""Selects cells of a finished search by perturbation (DARTS-PT): see `methods.projection`.

The supernet of the search's last checkpoint is trained on between decisions, weights and alphas,
at a constant rate. It is a run of its own with its own checkpoints: stopped, it goes on exactly.
"""

import contextlib
import copy
import dataclasses
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from unnas_jax.config.schema import SearchConfig
from unnas_jax.config.sections import MethodConfig
from unnas_jax.core import distributed, files, sharding, stopping
from unnas_jax.core.errors import UserError
from unnas_jax.core.words import counted
from unnas_jax.data import open_dataset
from unnas_jax.data.records import check_same, fingerprint
from unnas_jax.learning import metrics, optim
from unnas_jax.methods import registry as methods
from unnas_jax.methods.base import SearchState
from unnas_jax.methods.darts import Darts
from unnas_jax.methods.projection import Projection
from unnas_jax.runs import checkpoint, selected
from unnas_jax.runs import workdir as workdir_lib
from unnas_jax.runs.images import Images
from unnas_jax.runs.loop import Plan
from unnas_jax.runs.search import loop_of
from unnas_jax.runs.selected import GENOTYPE, Selected
from unnas_jax.runs.selecting import COLUMNS, Scores, Selecting
from unnas_jax.runs.stages import Stages
from unnas_jax.runs.workdir import Workdir
from unnas_jax.spaces import mixed, registry

_LOG = logging.getLogger("unnas_jax")

_OPTIONS, _SCORES = "selection.json", "scores.json"
_TENTH = 0.1  # The share of the search's rate: as published, 0.0025 after 0.025.


@dataclasses.dataclass(frozen=True)
class Options:
    """How cells are selected.

    Attributes:
      seed: of the order of the decisions.
      epochs: of training between two decisions.
      learning_rate: of the weights, constant; 0: a tenth of the search's.
      max_images: of the held-out half, on which scores are measured; -1: as the search evaluates.
    """

    seed: int = 0
    epochs: int = 5
    learning_rate: float = 0.0
    max_images: int = -1

    def check(self) -> None:
        """Raises `UserError` for values that are none."""
        for name, least in (("seed", 0), ("epochs", 1), ("learning_rate", 0)):
            value = getattr(self, name)
            if not value >= least or value == float("inf"):
                raise UserError(f"--{name.replace('_', '-')}={value}: must be at least {least}")
        if self.max_images != -1 and self.max_images < 1:
            raise UserError(f"--max-images={self.max_images}: use -1 (as the search) or at least 1")


def config_for(search: Mapping[str, Any], rate: float) -> dict[str, Any]:
    """The config of the training between decisions: the search's, at a constant rate.

    Alphas move in every step, nothing is perturbed, dropped, measured or stopped, and the decay is
    that with which the search began.
    """
    config = copy.deepcopy(dict(search))
    rate = rate or _TENTH * config["weights"]["learning_rate"]
    config["weights"].update(learning_rate=rate, final_learning_rate=rate)
    config["search"]["arch_start_epoch"] = 0.0
    off = {"perturbation": "none", "drop_path": 0.0, "stop": "none", "curvature_every": 0}
    config["method"].update(off)
    for name, value in (("warmup_epochs", 0), ("adapt", "none")):
        if name in config["method"]:
            config["method"][name] = value
    dropout = methods.of_config(config).completed(config["method"]).get("skip_dropout", ())
    if any(dropout):
        config["method"]["skip_dropout"] = (0.0,) * len(dropout)
        if dropout[0]:  # With it the first stage, too, has the parameters of the definition.
            config["search"]["formulation"] = "per_edge"
    return config


def _check_search(name: str, place: Workdir, config: SearchConfig) -> None:
    """Raises `UserError` for a search whose cells cannot be selected by perturbation."""
    method = methods.of_config(config)
    if not method.mixture or not issubclass(method, Darts):
        remedy = "take the cells of its genotype.json" if method.chooses else "use --by=magnitude"
        raise UserError(
            f"{name}: is of the method {method.name!r}, which does not mix all operations of an "
            f"edge, so that none can be left out of its mixture; {remedy}"
        )
    for key, section in (("weights", config.weights), ("alphas", config.alphas)):
        if section.optimizer == optim.OBJECT:
            raise UserError(
                f"{name}: its optimizer of the {key} was passed from Python, which a selection "
                "cannot do; use --by=magnitude"
            )
    path = os.path.join(place.path, GENOTYPE)
    space = registry.SPACES.find(config.network.space, "network.space")
    document = space.load(path)[1] if os.path.exists(path) else {}
    if not document.get("finished"):
        done = f", at epoch {document['epoch']:g}" if "epoch" in document else ""
        raise UserError(
            f"{name}: the search is not finished{done}; the command that began it continues it, or "
            "use --by=magnitude"
        )


def _check_options(place: Workdir, options: Mapping[str, Any], write: bool) -> None:
    """Raises `UserError` if a folder belongs to another selection; else makes it this one's."""
    path = os.path.join(place.path, _OPTIONS)
    if os.path.exists(path):
        try:
            known = dict(files.read_json(path))
        except (OSError, ValueError, TypeError) as error:
            raise UserError(f"{path} is damaged; give another --out") from error
        changed = [
            f"{key}: {known.get(key)} -> {value}"
            for key, value in options.items()
            if known.get(key) != value
        ]
        if changed:
            raise UserError(
                f"{place.name} belongs to a selection with other options ({'; '.join(changed)}); "
                "give another --out"
            )
    elif os.path.isdir(place.path) and set(os.listdir(place.path)) & {"config.json", GENOTYPE}:
        raise UserError(f"{place.name}: is the folder of something else; give another --out")
    if write:
        files.write_json(path, dict(options))


def by_perturbation(workdir: str, out: str = "", options: Options = Options()) -> Selected | None:
    """Selects cells by perturbation, or goes on with that.

    Args:
      workdir: of a finished search.
      out: where it has its files; empty: the folder `perturbation` in the workdir.
      options: how.

    Returns:
      The cells; None if a signal stopped it, and the same call goes on.

    Raises:
      UserError: the search is not finished, its method is no mixture, or `out` is of something
        else.
      Interruption: what it needs failed; the same call continues.
    """
    options.check()
    out = out or os.path.join(workdir, "perturbation")
    primary = distributed.is_primary()
    with (
        workdir_lib.opened(workdir, write=False) as source,
        workdir_lib.opened(out, write=primary) as place,
    ):
        config = selected.config_of(source.path, workdir)
        _check_search(workdir, source, SearchConfig.of(config))
        return _by_perturbation(source, place, config, options)


def _by_perturbation(
    source: Workdir, place: Workdir, search: Mapping[str, Any], options: Options
) -> Selected | None:
    given, primary = config_for(search, options.learning_rate), distributed.is_primary()
    c = SearchConfig.of(given)
    mesh, size = sharding.data_mesh(), c.train.batch_size
    sharding.check_batch_size("train.batch_size", size, mesh)
    with contextlib.ExitStack() as stack:
        if primary:
            stack.enter_context(workdir_lib.alone(place))
        _check_options(place, dataclasses.asdict(options), primary)
        workdir_lib.claim(place, given, write=primary)

        # Data.
        dataset = open_dataset(c.dataset)
        data = fingerprint(dataset)
        most = options.max_images if options.max_images > 0 else c.eval.max_images
        # Scores use the statistics of a batch: batches are whole, and as large as in training.
        scored = dataclasses.replace(c.eval, batch_size=size, max_images=most)
        images = Images.of(dataclasses.replace(c, eval=scored), dataset, mesh)
        judged = images.held_out[: len(images.held_out) // size * size]
        if not len(judged):
            raise UserError(f"--max-images={most}: give at least a batch, {size} images")
        images = dataclasses.replace(images, held_out=judged)
        per_epoch = len(images.half_a) // size

        # The supernet, and where it goes on.
        space = mixed.of_config(c)
        projection = Projection(space, space.operations(c.network), options.seed)
        every = per_epoch * options.epochs
        total = every * (projection.decisions - 1)
        plan = Plan(
            total=total,
            per_epoch=per_epoch,
            batch_size=size,
            log_every=c.log_every_steps,
            save_every=c.checkpoint_every_steps,
            evaluate_every=every,
        )
        stages = Stages(MethodConfig.of(c), images.task, mesh, plan, {})

        def method_at(position: Mapping[str, Any]) -> Darts:
            """In the stage of a position, and with the decay with which the search began."""
            stage = {key: position[key] for key in ("stage", "carried") if key in position}
            method = stages.at(stage)
            assert isinstance(method, Darts)
            return method

        checkpoints = stack.enter_context(checkpoint.Checkpoints(place.checkpoints))
        restored = checkpoints.restore_by(lambda position: method_at(position).shapes())
        rows: Sequence[Any] = ()
        if restored is None:
            state, method = _of_search(source, method_at, data)
            step = 0
        else:
            state, position = restored
            check_same(place.name, position.get("data"), data, ("train",))
            step, rows = int(position["step"]), position["rows"]
            method = method_at(position)
            projection = projection.resumed(position["projection"])
        projection = dataclasses.replace(projection, left=method.left)
        _LOG.info(
            "Selecting cells of %s: %d decisions, %d passes of %d images, %d steps, %s%s.",
            source.name,
            projection.decisions,
            projection.passes(),
            len(judged),
            total,
            counted(mesh.size, "device"),
            f", continuing at step {step}" if step else "",
        )
        log = metrics.MetricsLog(place.path, step) if primary else None
        if log:
            stack.enter_context(contextlib.closing(log))

        def write(kind: str, step: int, **values: Any) -> None:
            if log:
                log.write(kind, step, epoch=plan.epoch(step), **values)

        # In the order of the search's own streams, behind its end.
        first = int(np.asarray(state.step))
        both = [stack.enter_context(images.train(half, first)) for half in (0, 1)]
        learner = Selecting(
            method,
            state,
            projection,
            rows,
            every,
            Scores(os.path.join(place.path, _SCORES), jax.process_count() == 1),
            zip(*both, strict=True),
            images.evaluation,
            write,
        )
        del state  # A step gives its memory to the next one's.
        if loop_of(plan, learner, checkpoints, data, write, place.publish).run(step) < total:
            return None
        if projection.decided < projection.decisions:
            stopping.nothing_to_save(os.EX_TEMPFAIL)  # The scores are on the disk.
            learner.decide()
        return _finished(place, c, options, learner, primary)


def _of_search(
    source: Workdir, method_at: Callable[[Mapping[str, Any]], Darts], data: Mapping[str, Any]
) -> tuple[SearchState, Darts]:
    """The state in which a search ended, with new optimizers, and the method of its stage."""
    wanted = ("params", "batch_stats", "alphas")

    def shapes(position: Mapping[str, Any]) -> SearchState:
        return method_at(position).shapes()

    found, position = checkpoint.read(source, shapes, wanted, "search first")
    check_same(source.name, position.get("data"), data, ("train",))
    method = method_at(position)
    step = method.placed(np.int32(position["step"]))
    return method.init().replace(**found, step=step), method


def _finished(
    place: Workdir, config: SearchConfig, options: Options, learner: Selecting, write: bool
) -> Selected:
    projection = learner.projection
    cells, operations = projection.cells(), projection.operations
    found = Selected(place.path, cells, COLUMNS, [tuple(row) for row in learner.rows])
    how = {"by": "perturbation", **dataclasses.asdict(options)}
    document = projection.space.document(
        cells, projection.given().shares, selected.provenance(config, **how), operations
    )
    document.pop("alphas_softmax", None)  # They did not choose.
    if write:
        selected.write(found, document, operations)
        place.publish()
    _LOG.info("Finished. See %s", os.path.join(place.name, GENOTYPE))
    return found

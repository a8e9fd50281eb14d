"""Checkpoints of the whole state through one asynchronous, atomic Orbax manager.

A user needs nothing of this package to read one:

    import orbax.checkpoint as ocp
    manager = ocp.CheckpointManager("WORKDIR/checkpoints")  # An absolute path.
    state = manager.restore(manager.latest_step()).state
    state["alphas"]["normal"], state["params"]  # Arrays.

Each checkpoint has two items: `state`, the arrays, and `progress`, JSON with the step and the
position of the data, which the step determines.
"""

from collections.abc import Mapping
from typing import Any, TypeVar

import jax
import orbax.checkpoint as ocp
from absl import logging
from etils import epath
from orbax.checkpoint import checkpoint_managers as policies

from unnas_jax.core import distributed
from unnas_jax.core.errors import UserError
from unnas_jax.runs.workdir import DAMAGED

State = TypeVar("State")

METRIC = "validation"


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    """The shapes of a tree's arrays by their path, whatever types of containers it has."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): tuple(leaf.shape)
        for path, leaf in leaves
        if hasattr(leaf, "shape")
    }


class Checkpoints:
    """The last two checkpoints of a run and the one with the best validation metric.

    Args:
      directory: an absolute path, or the address gs://BUCKET/NAME, of a `workdir.CHECKPOINTS`.
    """

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self._manager = self._open()
        self._saves = False

    def _open(self) -> ocp.CheckpointManager:
        return ocp.CheckpointManager(
            self.directory,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=policies.AnyPreservationPolicy(
                    [
                        policies.LatestN(2),
                        policies.BestN(
                            n=1,
                            get_metric_fn=lambda metrics: metrics[METRIC],
                            keep_checkpoints_without_metrics=False,
                        ),
                    ]
                ),
                save_decision_policy=None,
                enable_async_checkpointing=True,
            ),
        )

    def save(
        self,
        step: int,
        state: Any,
        progress: Mapping[str, Any],
        ranking: float | None = None,
    ) -> None:
        """Starts saving; `ranking` (more is better) can make it the best checkpoint."""
        if not self._saves:
            self._saves = True
            self._remove_unfinished()
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state), progress=ocp.args.JsonSave(dict(progress))
            ),
            metrics=None if ranking is None else {METRIC: ranking},
            force=True,
        )

    def _remove_unfinished(self) -> None:
        """Removes what a killed run left half written.

        Not at the start: an evaluation reads beside a training that writes. The manager's own
        option would, and in a thread that nothing waits for.
        """
        if distributed.is_primary():
            for unfinished in ocp.utils.tmp_checkpoints(self.directory):
                unfinished.get().rmtree()

    def steps(self) -> list[int]:
        """The steps with a complete checkpoint, in order."""
        self._manager.reload()
        return sorted(self._manager.all_steps())

    def latest(self) -> int | None:
        """The step of the newest complete checkpoint."""
        steps = self.steps()
        return steps[-1] if steps else None

    def restore(self, like: State) -> tuple[State, dict[str, Any]] | None:
        """The newest readable state and its progress, or None if there is no checkpoint.

        A checkpoint that cannot be read is moved aside to `checkpoints_damaged`, with a warning,
        and the one before it is taken.

        Args:
          like: a state whose structure, shapes, dtypes and shardings the result takes.

        Raises:
          UserError: there are checkpoints and none can be read, or one is of another network.
        """
        steps = self.steps()
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        for step in reversed(steps):
            self._check_shapes(step, like)
            try:
                restored = self._manager.restore(
                    step,
                    args=ocp.args.Composite(
                        state=ocp.args.StandardRestore(abstract), progress=ocp.args.JsonRestore()
                    ),
                )
            except Exception as error:  # Orbax and TensorStore raise many types for a bad file.
                reason = (str(error).strip() or type(error).__name__).splitlines()[0]
                logging.warning(
                    "The checkpoint of step %d is damaged (%s); falling back to the one before it.",
                    step,
                    reason[:200],
                )
                self._set_aside(step)
            else:
                return restored["state"], restored["progress"]
        if steps:
            raise UserError(
                f"{self.directory}: none of the checkpoints (steps {', '.join(map(str, steps))}) "
                "can be read; they are kept in checkpoints_damaged; run again to start over"
            )
        return None

    def _check_shapes(self, step: int, like: Any) -> None:
        """Raises `UserError` if a checkpoint is whole, but its arrays are not those of `like`."""
        try:
            path = self._manager.directory / str(step) / "state"
            there = _shapes(ocp.StandardCheckpointHandler().metadata(path))
        except Exception:  # Not even the list of arrays can be read: it is damaged.
            return
        here = _shapes(like)
        for name in sorted(there.keys() | here.keys()):
            a, b = there.get(name, "absent"), here.get(name, "absent")
            if a != b:
                raise UserError(
                    f"{self.directory}: the checkpoint of step {step} is of another network "
                    f"({name} is {a} there and {b} here); give another --workdir"
                )

    def _set_aside(self, step: int) -> None:
        source = epath.Path(self.directory) / str(step)
        target = epath.Path(self.directory).parent / DAMAGED
        self._manager.close()
        if jax.process_index() == 0:
            target.mkdir(parents=True, exist_ok=True)
            # A bucket has no empty folder to move something into.
            (target / "README").write_text("Checkpoints that could not be read.\n")
            source.rename(target / f"{step}.{len(list(target.iterdir())) - 1}")
        distributed.barrier(f"checkpoint {step} set aside")
        self._manager = self._open()

    def wait(self) -> None:
        """Returns when the last save is on disk; raises what went wrong with it."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits for the last save and releases the manager's threads."""
        self._manager.close()

"""Checkpoints of the whole state through one asynchronous, atomic Orbax manager.

A user needs nothing of this package to read one, nor the devices that it was written on:

    import orbax.checkpoint as ocp
    manager = ocp.CheckpointManager("WORKDIR/checkpoints")  # An absolute path.
    state = manager.restore(manager.latest_step()).state
    state["alphas"]["normal"], state["params"]  # NumPy arrays.

Each checkpoint has two items: `state`, the arrays, and `progress`, JSON with the step, the position
of the data, which the step determines, the metric that it is ranked by, and a digest of all.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from etils import epath

from unnas_jax.core import distributed, failures
from unnas_jax.core.errors import Interruption, UserError
from unnas_jax.runs import quiet, snapshot
from unnas_jax.runs.retention import RANKING, LastTwoAndBest
from unnas_jax.runs.snapshot import State
from unnas_jax.runs.workdir import DAMAGED, Workdir


class _Damage(Exception):
    """A checkpoint that does not hold what was saved."""


class Checkpoints:
    """The last two checkpoints of a run, the one with the best validation metric, and some more.

    As a context manager it waits at the end of the block for the last save.

    Args:
      directory: an absolute path, or the address gs://BUCKET/NAME, of a `workdir.CHECKPOINTS`.
      read_only: only reads, also beside a run that writes: nothing is made, moved or removed.
    """

    def __init__(self, directory: str, *, read_only: bool = False) -> None:
        quiet.quieten()
        self.directory, self._read_only = directory, read_only
        self._policy = LastTwoAndBest(directory)
        self._manager = self._open()
        self._saves = False

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.close()
        except Exception:
            if error is None:  # Otherwise the first error is raised.
                raise

    def _open(self) -> ocp.CheckpointManager:
        if self._read_only:
            # Not `read_only=True`, which warns about itself at every start.
            return ocp.CheckpointManager(
                self.directory, options=ocp.CheckpointManagerOptions(create=False)
            )
        return ocp.CheckpointManager(
            self.directory,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=self._policy,
                save_decision_policy=None,
                enable_async_checkpointing=True,
            ),
        )

    def save(
        self,
        step: int,
        state: Any,
        position: Mapping[str, Any],
        ranking: float | None = None,
    ) -> None:
        """Starts saving; `ranking` (more is better) can make it the best checkpoint.

        The state is saved as NumPy arrays, which can be restored on any number of devices.

        Raises:
          ValueError: a value of the state is NaN or infinite.
        """
        state = snapshot.on_host(state)
        name = snapshot.first_not_finite(state)
        if name is not None:
            raise ValueError(f"the state of step {step} is not finite ({name})")
        if not self._saves:
            self._saves = True
            self._remove_unfinished()
        self._policy.rank(step, ranking)
        if ranking is not None:
            position = {**position, RANKING: float(ranking)}
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state),
                progress=ocp.args.JsonSave(snapshot.signed(state, position)),
            ),
            force=True,
        )

    def _remove_unfinished(self) -> None:
        """Removes what a killed run left half written.

        Not at the start, because an evaluation may read beside a training that writes. The manager
        has an option for it, but removes at the start, in a thread that nothing waits for.
        """
        if distributed.is_primary():
            for unfinished in ocp.utils.tmp_checkpoints(self.directory):
                unfinished.get().rmtree()

    def tidy(self) -> None:
        """Removes leftovers of a killed run, and old checkpoints, for a run that saves no more.

        All processes of a run call it.
        """
        self._remove_unfinished()
        for step in self._policy.obsolete(self.steps()):
            self._manager.delete(step)

    def steps(self) -> list[int]:
        """The steps with a complete checkpoint, in order."""
        self._manager.reload()
        return sorted(self._manager.all_steps())

    def latest(self) -> int | None:
        """The step of the newest complete checkpoint."""
        steps = self.steps()
        return steps[-1] if steps else None

    def last_good(self) -> int | None:
        """`latest`, after waiting for a save in progress."""
        self.wait()
        return self.latest()

    def best(self) -> int | None:
        """The step of the complete checkpoint with the best validation metric, if one has any."""
        return self._policy.best(self.steps())

    def restore_step(
        self, step: int, like: Callable[[Mapping[str, Any]], State]
    ) -> tuple[State, dict[str, Any]]:
        """A part of the state, whose form depends on the position, and that, at a step."""
        try:
            return self._restore(step, like, part=True)
        except _Damage as error:
            raise UserError(
                f"{self.directory}: the checkpoint of step {step} is damaged ({error})"
            ) from error

    def keep(self, steps: Iterable[int]) -> None:
        """Keeps the checkpoints of these steps, too, until it is called again."""
        self._policy.wanted = frozenset(steps)

    def restore_whole(self, step: int, like: State) -> State:
        """The state of an earlier step of the run, which is going on.

        Raises:
          UserError: its checkpoint is gone or damaged.
          Interruption: it cannot be read now.
        """
        self.wait()
        problem = "gone"
        if step in self._listed():
            try:
                return self._restore(step, lambda position: like, part=False)[0]
            except _Damage as error:
                problem = f"damaged ({error})"
        raise UserError(
            f"{self.directory}: the search goes back to step {step}, but its checkpoint is "
            f"{problem}; start anew in an empty workdir"
        )

    def restore(self, like: State) -> tuple[State, dict[str, Any]] | None:
        """The newest sound state and its position, or None if there is no checkpoint.

        A damaged checkpoint is skipped with a warning, for the one before it; a run that writes
        also moves it to `checkpoints_damaged`. Any other error changes nothing.

        Args:
          like: a state whose structure, shapes, dtypes and shardings the result takes.

        Raises:
          UserError: there are checkpoints and all are damaged, or one is of another network.
          Interruption: one cannot be read now.
        """
        return self.restore_by(lambda position: like)

    def restore_by(
        self, like: Callable[[Mapping[str, Any]], State], *, part: bool = False
    ) -> tuple[State, dict[str, Any]] | None:
        """`restore` of a state, or a part of it, whose form depends on the position."""
        failures.require_addresses(f"{self.directory}: too little memory to read a checkpoint")
        damaged: list[int] = []
        # Listed every time: a run beside this reader may remove old ones.
        while left := [step for step in self._listed() if step not in damaged]:
            step = left[-1]
            try:
                return self._restore(step, like, part)
            except _Damage as error:
                if step not in self._listed():
                    continue
                damaged.append(step)
                logging.warning(
                    "The checkpoint of step %d is damaged (%s); falling back to the one before it.",
                    step,
                    error,
                )
                if not self._read_only:
                    self._set_aside(step)
        if damaged:
            numbers = ", ".join(str(step) for step in sorted(damaged))
            raise UserError(
                f"{self.directory}: none of the checkpoints (steps {numbers}) can be read; "
                + (
                    "they are as they were"
                    if self._read_only
                    else f"they are kept in {DAMAGED}; run again to start over"
                )
            )
        return None

    def _listed(self) -> list[int]:
        try:
            return self.steps()
        except Exception as error:
            raise Interruption(
                f"{self.directory}: the checkpoints cannot be listed now "
                f"({failures.first_line(error)}); nothing was changed, the same command tries again"
            ) from error

    def _restore(
        self, step: int, like: Callable[[Mapping[str, Any]], State], part: bool
    ) -> tuple[State, dict[str, Any]]:
        """Raises `_Damage` or `Interruption` in all processes of a run if one of them has to."""
        self._check_shapes(step, like, part)
        problem: Exception | None = None
        try:
            found = self._read(step, like, part)
        except Exception as error:  # Orbax and TensorStore raise many types.
            reason = failures.first_line(error)
            if failures.is_damage(error):
                problem = _Damage(reason)
            else:
                problem = Interruption(
                    f"{self.directory}: the checkpoint of step {step} cannot be read now "
                    f"({reason}); nothing was changed, the same command tries again"
                )
            problem.__cause__ = error
        worst = distributed.largest(
            0 if problem is None else 1 if isinstance(problem, _Damage) else 2
        )
        if worst == 2 and not isinstance(problem, Interruption):
            problem = Interruption(
                f"{self.directory}: another process cannot read the checkpoint of step {step} now"
            )
        elif worst == 1 and problem is None:
            problem = _Damage("another process found it so")
        if problem is not None:
            raise problem
        return found

    def _read(
        self, step: int, like: Callable[[Mapping[str, Any]], Any], part: bool
    ) -> tuple[Any, dict[str, Any]]:
        items = ocp.args.Composite(progress=ocp.args.JsonRestore())
        blueprint = like(self._manager.restore(step, args=items)["progress"])

        def blank(leaf: Any) -> np.ndarray:
            return np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape)

        restored = self._manager.restore(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(None if part else jax.tree.map(blank, blueprint)),
                progress=ocp.args.JsonRestore(),
            ),
        )
        state = snapshot.on_host(restored["state"]) if part else restored["state"]
        position = snapshot.verified(state, restored["progress"])
        name = snapshot.first_not_finite(state)
        if name is not None:
            raise ValueError(f"{name} is not finite")
        if part:
            state = {name: state.get(name) or {} for name in blueprint}
        return jax.tree.map(snapshot.placed, blueprint, state), position

    def _check_shapes(
        self, step: int, like: Callable[[Mapping[str, Any]], Any], part: bool
    ) -> None:
        """Raises `UserError` if a checkpoint is whole, but its arrays are not those of `like`."""
        path = epath.Path(self.directory) / str(step)
        try:
            there = snapshot.shapes(ocp.StandardCheckpointHandler().metadata(path / "state"))
            progress = json.loads((path / "progress" / "metadata").read_text())
            layout = progress.get(snapshot.LAYOUT)
            blueprint = like(progress)
        except Exception:  # `_read` finds out why.
            return
        here = snapshot.shapes(blueprint)
        if part:
            entries = tuple(f"{name}/" for name in blueprint)
            there = {name: shape for name, shape in there.items() if name.startswith(entries)}
        if there == here or layout == snapshot.layout(blueprint):
            return
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


def read(
    place: Workdir,
    shapes: Callable[[Mapping[str, Any]], Any],
    wanted: Sequence[str],
    remedy: str,
    *,
    best: bool = False,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Some entries of the state of another run, and its position; nothing there is changed.

    Args:
      place: the other run.
      shapes: of a position: a state with the shapes and shardings that the entries have.
      wanted: the names of the entries.
      remedy: what to do if there is no checkpoint.
      best: of the best checkpoint, not of the newest one.

    Raises:
      UserError: there is no checkpoint, no best one, or it is damaged or of another network.
    """

    def like(position: Mapping[str, Any]) -> dict[str, Any]:
        whole = shapes(position)
        return {name: getattr(whole, name) for name in wanted}

    restored = None
    if epath.Path(place.checkpoints).is_dir():
        with Checkpoints(place.checkpoints, read_only=True) as checkpoints:
            step = checkpoints.best() if best else None
            if best and step is None:
                raise UserError(
                    f"workdir {place.name}: none of its checkpoints was evaluated, so none is the "
                    "best; use the last"
                )
            if step is None:
                restored = checkpoints.restore_by(like, part=True)
            else:
                restored = checkpoints.restore_step(step, like)
    if restored is None:
        raise UserError(f"workdir {place.name} has no checkpoint; {remedy}")
    return restored

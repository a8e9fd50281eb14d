"""The directory of a run: where it is, who it belongs to, whether it can be written."""

import contextlib
import dataclasses
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from unnas_jax.config import run_config
from unnas_jax.config import schema as config_lib
from unnas_jax.config.options import Config
from unnas_jax.config.sections import DatasetSection
from unnas_jax.core import buckets, failures, files
from unnas_jax.core.errors import Interruption, UserError
from unnas_jax.runs import hold

# A run may be continued with other values of these fields: they do not change its results.
_HOW = (
    "workers",
    "trackers",
    "log_every_steps",
    "checkpoint_every_steps",
    "mode",
    "dataset.data_dir",
)
MAY_CHANGE = (
    *_HOW,
    "dataset.path",  # The place of the images may change, not the images, see `records.check_same`.
    "train.max_steps",
    # In a sweep: where units run, not what they are.
    *(f"training.{key}" for key in _HOW),
    "tasks",
    "sweep",
)


CHECKPOINTS, DAMAGED = "checkpoints", "checkpoints_damaged"


@dataclasses.dataclass(frozen=True)
class Workdir:
    """A run's directory.

    Attributes:
      name: as the user gave it.
      path: a directory of this machine with everything but the checkpoints.
      checkpoints: where those are, an absolute path or an address.
      publish: makes the files of `path` as they are now those of `name`; to be called before a
        checkpoint is saved, so that no row of a log is missing when a run continues from it.
        Raises `UserError` if somebody removed the directory meanwhile.
    """

    name: str
    path: str
    checkpoints: str
    publish: Callable[[], None]


def local(path: str) -> Workdir:
    """A run's directory on a file system of this machine.

    Raises:
      UserError: the path is an address.
    """
    files.check_mounted("workdir", path)
    path = os.path.expanduser(path)

    def publish() -> None:
        if not os.path.exists(os.path.join(path, "config.json")):
            raise UserError(
                f"workdir {path} was removed while the run wrote to it; leave it where it is and "
                "start again"
            )

    return Workdir(path, path, os.path.join(os.path.abspath(path), CHECKPOINTS), publish)


def _kept(place: Workdir) -> str:
    """What is kept of a run that ends too early, as the end of a sentence."""
    if buckets.is_address(place.name):
        return "the last complete checkpoint is kept"
    try:
        steps = [int(name) for name in os.listdir(place.checkpoints) if name.isdecimal()]
    except OSError:
        steps = []
    if not steps:
        return "no checkpoint was saved yet"
    return f"the checkpoint of step {max(steps)} is kept"


@contextlib.contextmanager
def _explained(place: Workdir) -> Iterator[None]:
    """A block in which errors of the system become one line."""
    try:
        yield
    except (UserError, Interruption):
        raise
    except Exception as error:
        if failures.is_absence(error) and not buckets.is_address(place.name):
            place.publish()  # It knows whether the whole directory is gone.
        known = failures.explanation(error, _kept(place))
        if known is None:
            raise
        raise known from error


@contextlib.contextmanager
def opened(workdir: str, *, write: bool = True) -> Iterator[Workdir]:
    """The directory of a run while it goes on.

    The small files of an address gs://BUCKET/NAME are copied to this machine at the start, and back
    whenever they are published, the last time at the end of the block.

    Args:
      workdir: a path or an address.
      write: whether this process publishes (one of a run does).

    Raises:
      UserError: the address cannot be reached.
      Interruption: it no longer can.
    """
    if not buckets.is_address(workdir):
        place = local(workdir)
        with _explained(place):
            yield place
        return
    remote = buckets.open_path("workdir", workdir)
    with tempfile.TemporaryDirectory() as here:
        mirror = buckets.Mirror(remote, here, (CHECKPOINTS, DAMAGED, hold.FILE))
        reached = False

        def publish() -> None:
            nonlocal reached
            if not write:
                return
            try:
                with buckets.reaching("workdir", workdir):
                    mirror.publish()
            except UserError as error:
                if not reached:
                    raise
                raise Interruption(
                    f"{error}; the same command continues from the last checkpoint"
                ) from error
            reached = True

        with buckets.reaching("workdir", workdir):
            mirror.fetch()
        place = Workdir(workdir, here, os.fspath(remote / CHECKPOINTS), publish)
        try:
            with _explained(place):
                yield place
        except BaseException:
            with contextlib.suppress(UserError, Interruption):  # The first one is told.
                publish()
            raise
        publish()


def check_apart(workdir: Workdir, section: Config) -> None:
    """Raises `UserError` if a run's pictures would be among the images of its own folder.

    Args:
      workdir: which need not exist yet.
      section: `dataset` of the config.
    """
    dataset = DatasetSection.of(section)
    images = dataset.path
    if dataset.name != "folder" or not images or buckets.is_address(workdir.name + images):
        return
    inside = os.path.realpath(workdir.path)
    around = os.path.realpath(os.path.expanduser(images))
    if os.path.commonpath([inside, around]) == around:
        raise UserError(
            f"workdir {workdir.name} lies in the folder of images {images}, where the pictures of "
            "the run would become images; give a --workdir outside of it"
        )


def claim(workdir: Workdir, config: Mapping[str, Any], *, write: bool = True) -> None:
    """Makes the workdir and writes its config.json, or checks that it belongs to this config.

    A directory with a config.json and nothing else belongs to nobody: that start was refused.

    Args:
      workdir: its directory may exist.
      config: the run's config as a dict.
      write: whether this process writes (one of a run does).

    Raises:
      UserError: the directory cannot be written, or belongs to a run with another config.
    """
    path = os.path.join(workdir.path, run_config.FILE)
    if os.path.exists(path) and set(os.listdir(workdir.path)) - {run_config.FILE, hold.FILE}:
        old = run_config.read(workdir.path, f"workdir {workdir.name}")
        run_config.check_same(workdir.name, old, config)
        lines = config_lib.difference(_essential(old), _essential(config))
        if lines:
            raise run_config.refusal(workdir.name, lines)
    if not write:
        return
    with _writing(workdir):
        os.makedirs(workdir.path, exist_ok=True)
        with tempfile.TemporaryFile(dir=workdir.path) as file:
            file.write(b"0")
        files.write_json(path, config)
    workdir.publish()


def make(workdir: Workdir) -> None:
    """Makes a directory for files that belong to no run.

    Raises:
      UserError: it is that of a run, whose files these would replace, or cannot be written.
    """
    if os.path.exists(os.path.join(workdir.path, run_config.FILE)):
        raise UserError(f"{workdir.name}: is the workdir of a run; give another --out")
    with _writing(workdir):
        os.makedirs(workdir.path, exist_ok=True)


@contextlib.contextmanager
def _writing(workdir: Workdir) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"workdir {workdir.name} cannot be written: {error.strerror}; give another --workdir"
        ) from error


@contextlib.contextmanager
def alone(workdir: Workdir) -> Iterator[None]:
    """A block in which no other run uses the workdir, which it makes; see `unnas_jax.runs.hold`.

    Raises:
      UserError: another run uses it, or it cannot be written.
    """
    with contextlib.ExitStack() as stack:
        if buckets.is_address(workdir.name):
            with buckets.reaching("workdir", workdir.name):
                stack.enter_context(hold.held(workdir.name, workdir.name))
        else:
            with _writing(workdir):
                os.makedirs(workdir.path, exist_ok=True)
                stack.enter_context(hold.held(workdir.name, workdir.path))
        yield


def check_shared(workdir: Workdir) -> None:
    """Raises `UserError` in a process that does not see the directory that process 0 claimed."""
    if buckets.is_address(workdir.name):
        return  # The same for everybody.
    if not os.path.exists(os.path.join(workdir.path, "config.json")):
        raise UserError(
            f"workdir {workdir.name} is not the same directory on all hosts; give one on a file "
            "system that they share"
        )


def _essential(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    essential = {
        key: _essential(value, f"{prefix}{key}.") if isinstance(value, Mapping) else value
        for key, value in config.items()
        if prefix + key not in MAY_CHANGE
    }
    if prefix.endswith("dataset.") and "path" in essential:  # Or training.dataset.
        essential["path"] = os.path.abspath(os.path.expanduser(str(essential["path"])))
    return essential

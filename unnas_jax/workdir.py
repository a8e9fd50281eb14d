"""The directory of a run: who it belongs to, whether it can be written, where it resumes."""

import errno
import os
import tempfile
from collections.abc import Mapping
from typing import Any

from unnas_jax import config as config_lib
from unnas_jax import files
from unnas_jax.errors import UserError

# A run may be continued with other values of these: they do not change what it computes.
_HOW = ("workers", "log_every_steps", "checkpoint_every_steps", "mode", "dataset.data_dir")
MAY_CHANGE = (
    *_HOW,
    "train.max_steps",
    # Of a sweep: which units are done where, not what they are.
    *(f"training.{key}" for key in _HOW),
    "tasks",
    "sweep",
)


def claim(workdir: str, config: Mapping[str, Any], *, write: bool = True) -> None:
    """Makes the workdir and writes its config.json, or checks that it belongs to this config.

    Args:
      workdir: the directory, which may exist.
      config: the run's config as a dict.
      write: whether this process writes (one of a run does).

    Raises:
      UserError: the directory cannot be written, or belongs to a run with another config.
    """
    files.check_mounted("workdir", workdir)
    path = os.path.join(workdir, "config.json")
    if os.path.exists(path):
        try:
            old = files.read_json(path)
        except (OSError, ValueError) as error:
            raise UserError(f"workdir {workdir}: config.json cannot be read ({error})") from error
        # Fields that have come since then: the run had what is their default now.
        defaults = config_lib.SCHEMAS[config["experiment"]]().to_dict()
        old = config_lib.completed(old, defaults)
        lines = config_lib.difference(_essential(old), _essential(config))
        if lines:
            raise UserError(
                f"workdir {workdir} belongs to another config ({'; '.join(lines)}); "
                "give another --workdir or the same config"
            )
    if not write:
        return
    try:
        os.makedirs(workdir, exist_ok=True)
        with tempfile.TemporaryFile(dir=workdir) as file:
            file.write(b"0")
        files.write_json(path, config)
    except OSError as error:
        raise UserError(
            f"workdir {workdir} cannot be written: {error.strerror}; give another --workdir"
        ) from error


def check_shared(workdir: str) -> None:
    """Raises `UserError` in a process that does not see the directory that process 0 claimed."""
    if not os.path.exists(os.path.join(workdir, "config.json")):
        raise UserError(
            f"workdir {workdir} is not the same directory on all hosts; give one on a file system "
            "that they share"
        )


def _essential(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    return {
        key: _essential(value, f"{prefix}{key}.") if isinstance(value, Mapping) else value
        for key, value in config.items()
        if prefix + key not in MAY_CHANGE
    }


def is_full_disk(error: BaseException) -> bool:
    """Whether an error, or one that caused it, says that there is no space left."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        # TensorStore reports the system's message in errors of its own.
        if "No space left on device" in str(cause) or "Disk quota exceeded" in str(cause):
            return True
        cause = cause.__cause__ or cause.__context__
    return False

"""Runs the experiment of a config: `unnas-jax --config=NAME --workdir=DIR`."""

import os
from collections.abc import Callable, Sequence
from typing import Any

from absl import flags
from ml_collections import config_flags

from unnas_jax.commands import command_line


def _define(values: flags.FlagValues) -> None:
    flags.DEFINE_string(
        "workdir", None, "Where results go; default: runs/CONFIG_NAME.", flag_values=values
    )
    flags.DEFINE_boolean(
        "distributed",
        True,
        "Join the other processes that the cluster started, or those of the flags.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "coordinator", None, "HOST:PORT on which process 0 listens.", flag_values=values
    )
    flags.DEFINE_integer("num_processes", None, "Processes of this run.", flag_values=values)
    flags.DEFINE_integer("process_id", None, "Which of them this is, from 0.", flag_values=values)


def _start_jax() -> None:
    """Finds the devices; raises `UserError` or `Interruption` if JAX cannot use them."""
    import jax

    from unnas_jax.core import errors, failures

    try:
        jax.devices()
    except RuntimeError as error:
        if known := failures.explanation(error):
            raise known from None
        kind = errors.Interruption if failures.is_passing(error) else errors.UserError
        raise kind(
            f"JAX cannot start on this machine: {failures.first_line(error)}; free the device if "
            "another program has it, or set JAX_PLATFORMS=cpu; then the same command will do"
        ) from None


def main(arguments: Sequence[str] | None = None) -> int:
    """Dispatches on config.experiment; returns the exit status."""
    with command_line.user_errors() as outcome:
        values = command_line.parse_config(arguments, _define, __doc__, samples=True)
    if outcome.status:
        return outcome.status
    # Imported here: mistakes in flags are then told before jax is imported.
    import jax

    from unnas_jax.config import schema, shipped
    from unnas_jax.core import distributed, logs, memory, starting, stopping
    from unnas_jax.runs.search import search
    from unnas_jax.runs.train import train
    from unnas_jax.sweep import validation
    from unnas_jax.sweep.sample import sample

    starting.imported()
    memory.dispatch_at_once()
    config = values.config
    experiments: dict[str, Callable[[Any, str], object]] = {
        "search": search,
        "train": train,
        "sample": sample,
    }
    path = config_flags.get_config_filename(values["config"])
    with command_line.user_errors() as outcome, distributed.bounded():
        validation.validate(config)
        # Whoever starts a sweep again goes by the status alone, see launch/finished.sh.
        is_sweep = config.experiment == "sample"
        stopping.nothing_to_save(os.EX_TEMPFAIL if is_sweep else os.EX_OK)
        # The units of a sweep know nothing of each other.
        if values.distributed and not is_sweep:
            distributed.start(values.coordinator, values.num_processes, values.process_id)
        if jax.distributed.is_initialized() and not distributed.is_primary():
            logs.only_errors()
        if not is_sweep:  # A sweep leaves devices to workers.
            _start_jax()
        experiments[config.experiment](
            config, values.workdir or schema.workdir(shipped.resolve(path))
        )
    if outcome.status and jax.distributed.is_initialized():
        distributed.leave(outcome.status)
    return outcome.status

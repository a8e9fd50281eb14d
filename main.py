"""Runs the experiment of a config: `python main.py --config=configs/X.py --workdir=DIR`."""

import os

# Before jax is imported, so that a run does not compile again what an earlier one compiled.
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR",
    os.path.join(
        os.environ.get("XDG_CACHE_HOME", os.path.expanduser("~/.cache")), "unnas_jax", "xla"
    ),
)

from absl import app, flags  # noqa: E402
from ml_collections import config_flags  # noqa: E402

from unnas_jax.commands import command_line  # noqa: E402

_CONFIG = command_line.define_config()
_WORKDIR = flags.DEFINE_string("workdir", None, "Where results go; default: runs/CONFIG_NAME.")
_DISTRIBUTED = flags.DEFINE_boolean(
    "distributed", True, "Join the other processes that the cluster started, or those of the flags."
)
_COORDINATOR = flags.DEFINE_string("coordinator", None, "HOST:PORT on which process 0 listens.")
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "Processes of this run.")
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "Which of them this is, from 0.")


def main(argv: list[str]) -> int:
    """Dispatches on config.experiment; returns the exit status."""
    if len(argv) > 1:
        return command_line.fail(f"unexpected argument {argv[1]!r}; write --flag=value")
    if _CONFIG.value is None:
        return command_line.fail("--config is missing; name a file of configs/")
    command_line.start_logging()  # First, so that libraries do not tell what they do when imported.
    # Here, because processes that decode images import this file too.
    import jax

    from unnas_jax.config import schema as config_lib
    from unnas_jax.core import distributed
    from unnas_jax.runs.search import search
    from unnas_jax.runs.train import train
    from unnas_jax.sweep.sample import sample

    experiments = {"search": search, "train": train, "sample": sample}
    path = config_flags.get_config_filename(flags.FLAGS["config"])
    with command_line.user_errors() as outcome, distributed.bounded():
        config_lib.validate(_CONFIG.value)
        # The units of a sweep know nothing of each other.
        if _DISTRIBUTED.value and _CONFIG.value.experiment != "sample":
            distributed.start(_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
        if jax.distributed.is_initialized() and not distributed.is_primary():
            command_line.only_warnings()
        run = experiments[_CONFIG.value.experiment]
        run(_CONFIG.value, _WORKDIR.value or config_lib.workdir(path))
    if outcome.status and jax.distributed.is_initialized():
        distributed.leave(outcome.status)
    return outcome.status


if __name__ == "__main__":
    app.run(main, flags_parser=command_line.parse_flags)

"""The commands: `unnas-jax`, or `python main.py` in a checkout.

Nothing heavy is imported here: processes that decode images import the program's file, too.
"""

import importlib
import os
import sys
from collections.abc import Sequence

from unnas_jax.core import cache, extras, memory, starting

COMMANDS = {
    "run": "run the experiment of a config: a search, a training or a sample (the default)",
    "prepare": "prepare a dataset from its published files, once",
    "show": "draw what a config feeds its network",
    "predict": "what the network of a training says of images: classes or label maps",
    "export": "the network of a training for use elsewhere: StableHLO, ONNX, PyTorch, safetensors",
    "select": "the cells of a search anew: by perturbation (DARTS-PT), or of another epoch",
    "report": "redraw the pictures and the report of a search",
    "story": "on embedded photographs: search, then the found cell against random ones",
    "status": "where a sample stands: units done, running, failed, and the time left",
    "rank": "some architectures on one's own images, without labels: which is the best",
    "correlate": "scores of the cells of a table, against its published accuracies",
    "figures": "the paper's figures 2 to 5 from samples and CSV files",
    "tables": "the paper's tables 1 and 2 from evaluations",
    "complexity": "parameters and multiply-adds of a config's network",
    "compile": "compile a config's steps for a TPU slice that need not be here",
    "enumerate": "all unique cells of NAS-Bench-101, in a file",
    "convert": "configs and checkpoints of the PyTorch release, to and from the forms used here",
}
"""Every command and what it is for; each is the module of its name, with `main(arguments)`."""

EXTRAS = {
    "prepare": "tfds",
    "show": "plots",
    "report": "plots",
    "story": "photos",
    "rank": "plots",
    "figures": "plots",
}
"""The extra that a command needs, of those that need one."""


def _cache_compiled_programs() -> None:
    """Called before jax is imported, so that runs share their compiled programs."""
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", cache.path("xla"))
    # Also programs that compile within JAX's one second: a run has a dozen of them.
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")


def usage() -> str:
    """The text of `--help`: all commands."""
    width = max(map(len, COMMANDS)) + 2
    return "\n".join(
        [
            "usage: unnas-jax [run] --config=NAME [--workdir=DIR] [--config.KEY=VALUE ...]",
            "       unnas-jax COMMAND [--help] ...",
            "",
            *(f"  {name:{width}}{purpose}" for name, purpose in COMMANDS.items()),
        ]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns the exit status: 0, 2 for a mistake of the user, 75 to try again."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help", "help"):
        print(usage())
        return 0 if words else 2
    name = "run" if words[0].startswith("-") else words.pop(0)
    if name not in COMMANDS:
        from unnas_jax.commands import command_line

        return command_line.unknown_command(name, COMMANDS)
    if line := name in EXTRAS and extras.needed(EXTRAS[name], f"the command {name}"):
        from unnas_jax.commands import command_line

        return command_line.fail(line)
    from unnas_jax.core import logs  # Its imports take a while: `program` receives signals before.

    logs.start()
    if name != "compile":  # Without a TPU XLA cannot read the programs for TPUs that it has kept.
        _cache_compiled_programs()
    command = importlib.import_module(f"unnas_jax.commands.{name}")
    if name != "run":  # Its own imports come later.
        starting.imported()
    memory.not_inherited()
    status: int = command.main(words)
    return status


def program() -> int:
    """The program of `unnas-jax` and `main.py`: `main`, with signals and a check of the memory."""
    starting.begin()
    return main()

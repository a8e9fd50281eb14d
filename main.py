"""Runs the experiment of a config: `python main.py --config=configs/X.py --workdir=DIR`."""

import sys

from unnas_jax.commands import program

if __name__ == "__main__":  # Processes that decode images import this file, too.
    sys.exit(program())

"""Runs the experiment of a config: `python main.py --config=configs/X.py --workdir=DIR`."""

import sys

from unnas_jax.commands import main

if __name__ == "__main__":
    sys.exit(main())

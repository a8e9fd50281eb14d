"""One process of a run of several: main.py, which also leaves the alphas that it ended with.

With HELD=STEP in its environment it stands still as `tests.held` does.
"""

import os
import sys

import jax
import numpy as np

from tests import held
from unnas_jax.commands import program
from unnas_jax.runs import search as search_lib


def search(config, workdir, run=search_lib.search):
    state = run(config, workdir)
    alphas = {kind: np.asarray(value) for kind, value in state.alphas.items()}
    name = f"alphas.{jax.process_index()}of{jax.process_count()}.npz"
    np.savez(os.path.join(workdir, name), step=np.asarray(state.step), **alphas)
    return state


if __name__ == "__main__":
    search_lib.search = search
    if "HELD" in os.environ:
        held.hold_at(int(os.environ["HELD"]))
    sys.exit(program())

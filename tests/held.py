"""main.py, whose run stands still where a test will kill or stop it, however late the test comes.

    python -m tests.held STEP ARGUMENTS...
    python -m tests.held saving ARGUMENTS...

It stands still behind the row of the first step from STEP on that has one, until a signal asks it
to leave; or, in the thread that saves, before a checkpoint gets its final name, for ever.
"""

import os
import sys
import time
from typing import Any

from unnas_jax.commands import program
from unnas_jax.core import stopping
from unnas_jax.learning.progress import Progress


def hold_at(first: int) -> None:
    """Lets a run rest once it has written a row of the step `first` or a later one."""
    flush = Progress.flush

    def held(self: Progress, step: int) -> None:
        flush(self, step)
        while step >= first and not (stopping._of_program and stopping._of_program.asked):
            time.sleep(0.01)

    Progress.flush = held  # type: ignore[method-assign]


def hold_saves() -> None:
    """Lets no checkpoint get its final name."""
    rename = os.rename

    def held(source: Any, *others: Any, **options: Any) -> None:
        while "orbax-checkpoint-tmp" in os.path.basename(source):
            time.sleep(0.01)
        rename(source, *others, **options)

    os.rename = held


if __name__ == "__main__":
    where = sys.argv.pop(1)
    if where == "saving":
        hold_saves()
    else:
        hold_at(int(where))
    sys.exit(program())

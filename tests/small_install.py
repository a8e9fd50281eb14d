"""What the plain installation does: a program in which no package of any extra can be imported.

    python -m tests.small_install IMAGES WORKDIR

Searches on a folder of images, makes the mistakes of somebody who lacks an extra, and prints what
was said, as JSON.
"""

import contextlib
import importlib
import importlib.machinery
import io
import json
import logging
import pathlib
import sys
from collections.abc import Callable

from unnas_jax.core import extras

HIDDEN = {module for packages in extras.PACKAGES.values() for module in packages}


class Finder(importlib.machinery.PathFinder):
    """Finds what is installed, but for the extras."""

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name in HIDDEN else super().find_spec(name, path, target)


sys.meta_path[sys.meta_path.index(importlib.machinery.PathFinder)] = Finder

import unnas_jax as un  # noqa: E402
from tests import tiny  # noqa: E402
from unnas_jax import commands  # noqa: E402
from unnas_jax.core import onednn  # noqa: E402


def said(call: Callable[[], object]) -> tuple[object, list[str]]:
    """The result of a call, and the lines that it writes to standard error."""
    text = io.StringIO()
    with contextlib.redirect_stderr(text):
        try:
            result = call()
        except un.UserError as error:
            result = str(error)
    logging.getLogger("unnas_jax").handlers.clear()  # A command starts logging once a process.
    return result, text.getvalue().splitlines()


def main(images: str, workdir: str) -> None:
    """See the module."""
    onednn.path = lambda: ""  # The extra `cpu` has no module.
    for name in un.__all__:
        getattr(un, name)
    for name in commands.COMMANDS.keys() - commands.EXTRAS.keys():
        importlib.import_module(f"unnas_jax.commands.{name}")
    config = tiny.quick(max_steps=1)
    config.dataset.update(name="folder", path=images)
    config.workers = 0
    found: list[un.search] = []
    _, lines = said(lambda: found.append(un.search(config, workdir)))
    elsewhere = str(pathlib.Path(workdir).parent / "photos")
    words = {
        "photos": ["--config=rot_photos", "--nodistributed", f"--workdir={elsewhere}"],
        "report": ["report", workdir],
        "prepare": ["prepare", "cifar10", "--source=x", "--data_dir=y"],
        "select": ["select", workdir, "--by=magnitude"],
    }
    print(
        json.dumps(
            {
                "finished": found[0].finished,
                "search": lines,
                "commands": {key: said(lambda w=w: commands.main(w)) for key, w in words.items()},
                "draw": said(lambda: un.draw(found[0].genotype))[0],
                "digits": said(lambda: un.open_dataset("digits"))[0],
                "tfds": said(lambda: un.open_dataset("tfds:mnist"))[0],
            }
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])

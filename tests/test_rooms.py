"""The house: imports run down from room to room, and no import hides inside a function."""

import ast
import pathlib
from collections.abc import Iterator

import pytest

from tests import conftest

PACKAGE = conftest.ROOT / "unnas_jax"

ROOMS = (
    "core",
    "config",
    "layers",
    "data",
    "tasks",
    "spaces",
    "learning",
    "methods",
    "analysis",
    "runs",
    "sweep",
    "convert",
    "commands",
)
"""From the ground up: a room may use itself and those below it."""

LAZY = {
    "analysis/pictures.py": "the extra plots",
    "commands/__init__.py": "processes that decode images import it, too",
    "commands/command_line.py": "only the release's YAML files need the converter",
    "commands/run.py": "mistakes in flags are told before jax is imported",
    "sweep/sample.py": "the extra ray",
}
"""Files that may import parts of the package inside a function, and why."""


MODULES = [path for path in sorted(PACKAGE.rglob("*.py")) if path.parent != PACKAGE]


def imports(path: pathlib.Path) -> Iterator[tuple[str, bool]]:
    """What a module imports of the package, and whether inside a function."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "unnas_jax":
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.startswith("unnas_jax.")]
        for name in names:
            yield name, node not in tree.body


def test_the_package_has_these_rooms_and_no_others() -> None:
    entries = {path.name for path in PACKAGE.iterdir() if path.name != "__pycache__"}
    assert entries - {"__init__.py", "py.typed"} == set(ROOMS)
    assert len(entries) <= 15


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_down(path: pathlib.Path) -> None:
    room = ROOMS.index(path.relative_to(PACKAGE).parts[0])
    up = [
        name
        for name, _ in imports(path)
        if name.split(".")[1] in ROOMS and ROOMS.index(name.split(".")[1]) > room
    ]
    assert not up, f"imports from rooms above: {', '.join(up)}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_import_hides_in_a_function(path: pathlib.Path) -> None:
    if str(path.relative_to(PACKAGE)) in LAZY:
        return
    hidden = [name for name, inside in imports(path) if inside]
    assert not hidden, f"imports inside functions: {', '.join(hidden)}"

"""Every command in README.md and docs/ is one: its name, its options, its recipe and fields."""

import importlib
import os
import pathlib
import re
import shlex

import pytest

from tests import conftest
from unnas_jax import commands
from unnas_jax.commands import command_line
from unnas_jax.config import schema

PAGES = sorted(
    [conftest.ROOT / "README.md", conftest.ROOT / "CONTRIBUTING.md"]
    + [path for path in (conftest.ROOT / "docs").rglob("*.md") if "results" not in path.parts]
)

pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")


def lines(path: pathlib.Path) -> list[str]:
    """The lines of code blocks, continued ones as one, and commands within the text."""
    text = path.read_text()
    found: list[str] = []
    for block in re.findall(r"^ *```\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE):
        found += block.replace("\\\n", " ").splitlines()
    found += [line[4:] for line in text.splitlines() if re.match(r"    (unnas-jax|python) ", line)]
    return found + re.findall(r"`((?:unnas-jax|python main\.py) [^`]+)`", text)


def words_of(line: str) -> list[str] | None:
    """The words behind the program's name; None for another program, and for part of a command."""
    line = re.sub(r"\s#.*", "", line).strip()
    line = re.sub(r"\[[^\]]*\]|\.\.\.(?=\s|$)", "", line)  # What may be there, what else there is.
    if not re.search(r"(^| )(unnas-jax|(python )?main\.py|launch/\w+\.\w+)( |$)", line):
        return None
    words = shlex.split(line.partition(" < ")[0])
    words = [word for word in words if not re.fullmatch(r"\w+=.*", word)]  # Of the environment.
    for start in (["unnas-jax"], ["python", "main.py"], ["main.py"], ["launch/local.sh"]):
        if words[: len(start)] == start:
            return words[len(start) :] or None
    if words and "launch/slurm.sbatch" in words:
        return words[words.index("launch/slurm.sbatch") + 1 :]
    if words and words[0] in ("launch/tpu_pod.sh", "launch/gke.sh") and "--" in words:
        return words[words.index("--") + 1 :]
    return None


COMMANDS = [
    pytest.param(words, id=f"{path.relative_to(conftest.ROOT)}-{number}")
    for path in PAGES
    for number, line in enumerate(lines(path))
    if (words := words_of(line))
]


STAND_INS = ("", "CONFIG", "X", "configs/NAME.py", "eval_", "mine.py", "runs/rot/config.py")
"""Of recipes in sentences, and what another command writes."""


def test_commands_are_found() -> None:
    assert len(COMMANDS) > 100


class _Read(Exception):
    """The options were taken."""


@pytest.mark.parametrize("words", COMMANDS)
def test_a_command_of_the_documentation_is_one(words, monkeypatch) -> None:
    name = "run" if words[0].startswith("-") else words[0]
    rest = words if words[0].startswith("-") else words[1:]
    assert name in commands.COMMANDS, words
    if name == "run" and not rest[0].startswith(("--config", "--coordinator")):
        return
    path = next((word[9:] for word in rest if word.startswith("--config=")), "eval")
    if not rest or rest == ["--help"] or path in STAND_INS or schema.is_yaml(path):
        return
    monkeypatch.setenv("HOME", os.devnull)

    def read(parser, work, arguments):
        parser.parse_args(arguments)
        raise _Read

    parse = command_line.parse_config

    def read_config(*arguments, **options):
        parse(*arguments, **options)
        raise _Read

    monkeypatch.setattr(command_line, "run", read)
    monkeypatch.setattr(command_line, "parse_config", read_config)
    with pytest.raises(_Read):
        importlib.import_module(f"unnas_jax.commands.{name}").main(rest)

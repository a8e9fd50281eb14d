"""Writes the pages of the reference that follow from the code, when the site is built."""

import contextlib
import importlib
import io
from typing import Any

import ml_collections
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

import unnas_jax
from unnas_jax import commands
from unnas_jax.config import options, schema


def fields(config: ml_collections.ConfigDict, prefix: str = "config") -> list[tuple[str, Any]]:
    """Every field with its default."""
    rows: list[tuple[str, Any]] = []
    for name, value in config.items():
        path = f"{prefix}.{name}"
        if isinstance(value, ml_collections.ConfigDict) and len(value):
            rows += fields(value, path)
        else:
            rows.append((path, dict(value) if hasattr(value, "items") else value))
    return rows


def config_page() -> str:
    """A table of the fields for every experiment."""
    lines = [
        "# Every field of a config",
        "",
        "A recipe in `configs/` starts from these defaults and changes what differs; every field",
        "can be set on the command line: `--config.train.batch_size=64`. The default stands below",
        "the field.",
    ]
    for name, make in schema.SCHEMAS.items():
        lines += [
            "",
            f"## config.experiment = {name}",
            "",
            "| field | what |",
            "|---|---|",
        ]
        defaults = dict(fields(make()))
        for path, words in options.meanings(schema.RECORDS[name], "config.").items():
            if path in defaults:
                cell = words.replace("|", "\\|")
                lines.append(f"| `{path}`<br>`{defaults[path]!r}` | {cell} |")
    return "\n".join(lines) + "\n"


def commands_page() -> str:
    """The help of every command."""
    lines = ["# Commands", "", "`python main.py COMMAND` does the same in a checkout.", ""]
    lines += ["```", commands.usage(), "```"]
    for name, purpose in commands.COMMANDS.items():
        text = io.StringIO()
        module = importlib.import_module(f"unnas_jax.commands.{name}")
        with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
            module.main(["--help"])
        lines += ["", f"## {name}", "", f"{purpose[0].upper()}{purpose[1:]}.", ""]
        lines += ["```", text.getvalue().strip(), "```"]
    return "\n".join(lines) + "\n"


def api_page() -> str:
    """The names of the library, with their docstrings."""
    lines = ["# The library", "", "`import unnas_jax as un` gives these names.", ""]
    for name, where in unnas_jax._WHERE.items():
        module, _, path = where.partition(":")
        if path:
            lines += [f"### `un.{name}` {{ #{name} }}", "", f"`{module}.{path}`", ""]
        else:
            heading = [f"::: {module}.{name}", "    options:", f"      heading: un.{name}", ""]
            lines += heading
    return "\n".join(lines)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages."""
    pages = {"config": config_page, "commands": commands_page, "api": api_page}
    for name, page in pages.items():
        files.append(File.generated(config, f"reference/{name}.md", content=page()))
    return files

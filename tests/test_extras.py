"""The small installation: what the library does without any extra, and what it says."""

import configparser
import json
import os
import pathlib
import platform
import re
import subprocess
import sys
from typing import Any

import pytest

from tests import conftest
from unnas_jax import commands
from unnas_jax.core import extras, onednn
from unnas_jax.core.errors import UserError


def asked_for(lines: str) -> set[str]:
    """The names, as pip compares them, in a list of requirements; our own extras as [name]."""
    found = set()
    for line in lines.splitlines():
        name, own = re.match(r"([\w.-]*)(?:\[([\w,-]+)\])?", line.strip()).groups()
        name = re.sub(r"[-_.]+", "-", name).lower()
        found |= {f"[{extra}]" for extra in own.split(",")} if name == "unnas-jax" else {name}
    return found - {""}


@pytest.fixture(scope="module")
def setup() -> dict[str, set[str]]:
    """What every extra asks for, those that it contains resolved; of '' the library itself."""
    package = configparser.ConfigParser()
    package.read(conftest.ROOT / "setup.cfg")
    given = {extra: asked_for(lines) for extra, lines in package["options.extras_require"].items()}

    def resolved(extra: str) -> set[str]:
        inner = {name.strip("[]") for name in given[extra] if name.startswith("[")}
        outer = {name for name in given[extra] if not name.startswith("[")}
        return outer.union(*map(resolved, inner))

    return {
        "": asked_for(package["options"]["install_requires"]),
        **{e: resolved(e) for e in given},
    }


def test_an_extra_brings_what_is_said_to_be_missing(setup: dict[str, set[str]]) -> None:
    for extra, packages in extras.PACKAGES.items():
        if extra != "tpu-aot":  # jax's own extra names libtpu.
            names = asked_for("\n".join(packages.values()))
            assert names <= setup[extra], extra
            assert not names & setup[""], extra
    assert asked_for(onednn.PACKAGE) == setup["cpu"] <= setup["test"]
    assert not setup["cpu"] & setup["all"]
    for extra in {*commands.EXTRAS.values(), "digits"}:
        assert setup[extra] <= setup["all"] <= setup["test"]


@pytest.fixture(scope="module")
def small(
    images: pathlib.Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[pathlib.Path, dict[str, Any]]:
    """The workdir of a search, and what was said, in a process without any extra."""
    workdir = tmp_path_factory.mktemp("small") / "w"
    done = subprocess.run(
        [sys.executable, "-m", "tests.small_install", str(images), str(workdir)],
        cwd=conftest.ROOT,
        env={**os.environ, "XLA_FLAGS": conftest.QUICK, "PYTHONPATH": str(conftest.ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return workdir, json.loads(done.stdout.splitlines()[-1])


def test_a_search_runs_to_its_end_and_says_once_that_it_draws_nothing(small: Any) -> None:
    workdir, said = small
    assert said["finished"]
    [line] = [line for line in said["search"] if "left out" in line]
    assert line.endswith(
        "Pictures and reports are left out: a picture needs the package matplotlib; pip install "
        f"'unnas_jax[plots]', then unnas-jax report {workdir} draws them."
    )
    if sys.platform == "linux" and platform.machine() == "x86_64":
        [line] = [line for line in said["search"] if "Convolutions" in line]
        assert "pip install 'unnas_jax[cpu]'" in line
    assert any(line.endswith(f"Finished. See {workdir}/genotype.json") for line in said["search"])
    names = {path.name for path in workdir.iterdir()}
    assert {"genotype.json", "metrics.jsonl", "alphas.npz", "checkpoints", "tensorboard"} <= names
    assert not [name for name in names if name.endswith((".png", ".svg", ".html"))]


def test_the_report_is_drawn_later(small: Any) -> None:
    for module in extras.PACKAGES["plots"]:
        pytest.importorskip(module)
    workdir, _ = small
    assert commands.main(["report", str(workdir), "--open=no"]) == 0
    assert (workdir / "report.html").exists() and (workdir / "cells.png").exists()


def needs(what: str, package: str, extra: str) -> str:
    return f"{what} needs the package {package}; pip install 'unnas_jax[{extra}]'"


def test_what_is_missing_is_one_line_with_the_remedy(small: Any) -> None:
    workdir, said = small
    for command, line in {
        "photos": needs("config.dataset.name='photos'", "scikit-image", "photos"),
        "report": needs("the command report", "matplotlib", "plots"),
        "prepare": needs("the command prepare", "tensorflow-datasets", "tfds"),
    }.items():
        status, lines = said["commands"][command]
        assert status == 2 and lines[-1] == f"unnas_jax: {line}"
        assert len(lines) == 1, lines
    assert said["draw"] == needs("draw", "matplotlib", "plots")
    assert said["digits"] == needs("config.dataset.name='digits'", "scikit-learn", "digits")
    assert said["tfds"] == needs("config.dataset.name='tfds:mnist'", "tensorflow-datasets", "tfds")
    status, lines = said["commands"]["select"]
    assert status == 0 and "then the same command draws them" in lines[0]


def test_an_extra_that_is_there_is_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "PACKAGES", {"own": {"json": "json", "no_such": "no-such"}})
    with pytest.raises(UserError, match=r"^x needs the package no-such; .*'unnas_jax\[own\]'$"):
        extras.require("own", "x")
    del extras.PACKAGES["own"]["no_such"]
    extras.require("own", "x")

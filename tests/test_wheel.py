"""What is distributed: sources with all that the tests need, and a wheel that works anywhere."""

import os
import pathlib
import subprocess
import sys
import tarfile
import zipfile

import pytest

from tests import conftest

RECIPES = {path.stem for path in (conftest.ROOT / "configs").glob("*.py")} - {"__init__"}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A directory with the source distribution of this checkout, and the wheel made of that."""
    root = tmp_path_factory.mktemp("built")
    command = [sys.executable, "-m", "build", "--no-isolation", f"--outdir={root}"]
    done = subprocess.run([*command, str(conftest.ROOT)], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return root


@pytest.fixture(scope="module")
def wheel(built: pathlib.Path) -> pathlib.Path:
    """A directory with what the wheel installs."""
    [file] = built.glob("unnas_jax-*.whl")
    with zipfile.ZipFile(file) as archive:
        archive.extractall(built / "site")
    return built / "site"


def test_the_sources_have_what_the_tests_read(built: pathlib.Path, tmp_path: pathlib.Path) -> None:
    [file] = built.glob("unnas_jax-*.tar.gz")
    with tarfile.open(file) as archive:
        archive.extractall(tmp_path, filter="data")
    [root] = tmp_path.iterdir()
    found = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
    folders = (".ci", ".github", "benchmarks", "configs", "docs", "launch", "tests", "unnas_jax")
    expected = {
        str(path.relative_to(conftest.ROOT))
        for folder in folders
        for path in (conftest.ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    expected |= {"README.md", "CITATION.cff", "LICENSE", "main.py", "mkdocs.yml", "pyproject.toml"}
    assert expected <= found, sorted(expected - found)
    about = (root / "PKG-INFO").read_text()
    assert "License-Expression: MIT" in about and "Keywords: neural architecture search" in about
    tests = [root / "tests" / name for name in ("test_rooms.py", "spaces/test_genotype.py")]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *map(str, tests)]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def run(wheel: pathlib.Path, here: pathlib.Path, *arguments: str) -> subprocess.CompletedProcess:
    code = "import sys; from unnas_jax.commands import program; sys.exit(program())"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=here,
        env={**os.environ, "XLA_FLAGS": conftest.QUICK, "PYTHONPATH": str(wheel)},
        capture_output=True,
        text=True,
    )


def test_the_wheel_has_the_recipes_and_the_program(wheel: pathlib.Path) -> None:
    assert {path.stem for path in (wheel / "unnas_jax" / "configs").glob("*.py")} >= RECIPES
    [points] = wheel.glob("*.dist-info/entry_points.txt")
    assert "unnas-jax = unnas_jax.commands:program" in points.read_text()
    for page in ("report.html", "ranking.html", "macros.html"):
        assert (wheel / "unnas_jax" / "analysis" / page).exists()
    assert not (wheel / "tests").exists() and not (wheel / "configs").exists()


def test_a_recipe_is_found_by_name(wheel: pathlib.Path, tmp_path: pathlib.Path) -> None:
    done = run(wheel, tmp_path, "complexity", "--config=eval_in1k:unnas_in1k_rot", "--json")
    assert done.returncode == 0, done.stderr
    assert '"width": 42' in done.stdout


def test_a_search_runs_from_the_wheel(wheel: pathlib.Path, tmp_path: pathlib.Path) -> None:
    small = ["network.cells=3", "network.nodes=1", "network.width=4", "train.max_steps=2"]
    small += ["network.operations=('skip_connect','avg_pool_3x3')"]
    small += ["train.batch_size=8", "eval.max_images=8", "eval.batch_size=8"]
    small += ["input.crop=16", "input.resize=16", f"dataset.data_dir={tmp_path / 'data'}"]
    flags = [f"--config.{change}" for change in small]
    done = run(wheel, tmp_path, "--config=rot_photos", "--workdir=found", *flags)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "found" / "genotype.json").exists()
    assert "Traceback" not in done.stderr


def test_an_unknown_recipe_is_one_line(wheel: pathlib.Path, tmp_path: pathlib.Path) -> None:
    done = run(wheel, tmp_path, "--config=rot_photo")
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "unnas_jax: --config=rot_photo: there is no such file; did you mean 'rot_photos'? give a "
        "file, or the name of a recipe, such as rot_photos"
    ]

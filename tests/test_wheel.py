"""What a wheel installs, in an empty directory, far from the checkout."""

import os
import pathlib
import subprocess
import sys
import zipfile

import pytest

from tests import conftest

RECIPES = {path.stem for path in (conftest.ROOT / "configs").glob("*.py")} - {"__init__"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A directory with what the wheel of this checkout installs."""
    root = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--quiet", f"--wheel-dir={root}"]
    subprocess.run([*command, str(conftest.ROOT)], check=True, cwd=root)
    [file] = root.glob("unnas_jax-*.whl")
    with zipfile.ZipFile(file) as archive:
        archive.extractall(root / "site")
    return root / "site"


def run(wheel: pathlib.Path, here: pathlib.Path, *arguments: str) -> subprocess.CompletedProcess:
    code = "import sys; from unnas_jax.commands import program; sys.exit(program())"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=here,
        env={**os.environ, "PYTHONPATH": str(wheel)},
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
    small = ["network.cells=3", "network.nodes=2", "network.width=4", "train.max_steps=2"]
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

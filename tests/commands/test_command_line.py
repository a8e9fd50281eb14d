"""What people type: keys of other sections, ~, cells from elsewhere; and what they see first."""

import os
import pathlib
import subprocess
import sys

import pytest
from absl import flags

from tests.conftest import ROOT
from unnas_jax import commands
from unnas_jax.commands import command_line, report
from unnas_jax.config import schema as config_lib
from unnas_jax.core.errors import UserError
from unnas_jax.data import registry
from unnas_jax.runs import workdir
from unnas_jax.sweep import validation
from unnas_jax.tasks import permutations


def parsed(path: str, *overrides: str):
    argv, known = ["", f"--config={path}", *overrides], flags.FlagValues()
    holder = command_line.define_config(known, argv)
    known(argv)
    return holder.value


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")  # Of ml_collections.
@pytest.mark.parametrize(
    ("name", "key", "words"),
    [
        (
            "rot_photos",
            "train.learning_rate=0.1",
            "config.train has batch_size, epochs, max_images, max_steps; did you mean "
            "config.weights.learning_rate or config.alphas.learning_rate?",
        ),
        ("rot_photos", "weights.lr=0.1", "did you mean config.weights.learning_rate"),
        ("rot_photos", "network.witdh=8", "did you mean config.network.width?"),
        ("rot_photos", "trian.epochs=8", "did you mean config.train.epochs?"),
        ("rot_photos", "epochs=8", "did you mean config.train.epochs?"),
        ("rot_photos", "mode=eval", "configs of the experiment 'train' have config.mode"),
        ("rot_photos", "genotype=x", "the experiment 'train' have config.network.genotype"),
        ("rot_photos", "seed.more=1", "config.seed is a value and has no keys"),
        ("rot_photos", "items=1", "config.items: no such key"),
        ("sample_darts_photos", "train.epochs=1", "did you mean config.training.train.epochs"),
    ],
)
def test_an_unknown_key_says_which_are_there_and_what_is_meant(name, key, words):
    with pytest.raises(UserError) as error:
        parsed(str(ROOT / "configs" / f"{name}.py"), f"--config.{key}")
    assert words in str(error.value)
    assert str(error.value).startswith(f"config.{key.partition('=')[0]}: ")


@pytest.mark.parametrize(
    ("word", "words"),
    [
        ("rot_digits", "unknown command 'rot_digits'; write --config=rot_digits"),
        ("mine.py", "write --config=mine.py"),
        ("predicct", "did you mean 'predict'? use one of run, prepare"),
    ],
)
def test_what_is_no_command_says_what_to_write(word, words, capsys):
    assert commands.main([word]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")  # Of ml_collections.
@pytest.mark.parametrize(
    ("flag", "words"),
    [("seed=1.5", "is no whole number"), ("weights.learning_rate=high", "is no number")],
)
def test_a_value_of_another_type_is_told_in_plain_words(flag, words):
    with pytest.raises(UserError, match=f"--config.{flag}: {words}$"):
        command_line.override(config_lib.search(), [f"--config.{flag}"])


def test_overrides_of_other_commands_are_checked_alike():
    with pytest.raises(UserError, match="did you mean config.weights.learning_rate"):
        command_line.override(config_lib.search(), ["--config.train.learning_rate=1"])
    config = config_lib.search()
    with config.unlocked():
        config.train.learning_rate = 1.0
    with pytest.raises(UserError, match=r"config\.train\.learning_rate: .*weights\.learning_rate"):
        validation.validate(config)
    config = config_lib.sample()
    config.training.train.unlock()
    config.training.train.learning_rate = 1.0
    with pytest.raises(UserError, match=r"mean config\.training\.weights\.learning_rate"):
        validation.validate(config)


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
def test_home_in_every_path(tmp_path: pathlib.Path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.py").write_text(
        "from unnas_jax import config\n"
        "def get_config(cell='darts_v2'):\n"
        "    c = config.training()\n"
        "    c.network.genotype = cell\n"
        "    return c\n"
    )
    assert parsed("~/mine.py:~/g.json").network.genotype == f"{tmp_path}/g.json"
    assert workdir.local("~/runs").path == f"{tmp_path}/runs"
    with pytest.raises(UserError, match=f"{tmp_path}/none"):
        registry.open_dataset({"name": "folder", "path": "~/none"})
    with pytest.raises(UserError, match=f"{tmp_path}/none"):
        registry.open_dataset({"name": "cifar10", "data_dir": "~/none"})
    with pytest.raises(UserError, match="No such file"):
        permutations.read("~/none.npy", 2, 24)


def test_commands_take_home_too(tmp_path: pathlib.Path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert report.main(["~/none"]) == 2
    assert f"{tmp_path}/none: no such workdir" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["Genotype(normal=[('none', 0)])", "none:0,none:1+none:0,none:1"])
def test_the_default_workdir_of_a_pasted_cell_is_short(text: str) -> None:
    name = config_lib.workdir(f"configs/eval_in1k.py:{text}")
    assert name.startswith("runs/eval_in1k_") and len(name) < 40 and name.isprintable()
    assert name != config_lib.workdir(f"configs/eval_in1k.py:{text}x")


def test_the_first_line_is_the_programs_own(tmp_path: pathlib.Path) -> None:
    """With a new font cache of matplotlib, and of a command without a config.

    Matplotlib warns that it makes the cache if that takes five seconds, as here by its clock.
    """
    (tmp_path / "sitecustomize.py").write_text(
        "import threading\n"
        "class Timer(threading.Timer):\n"
        "    def __init__(self, seconds, action):\n"
        "        super().__init__(0, action)\n"
        "        self.start, start = lambda: (start(), self.join()), self.start\n"
        "threading.Timer = Timer\n"
    )
    paths = {"MPLCONFIGDIR": str(tmp_path), "PYTHONPATH": str(tmp_path)}
    environment = {**os.environ, **paths}
    command = [sys.executable, "main.py"]
    odd = ["--config=configs/rot_photos.py", "--config.network.width=7"]
    done = subprocess.run(
        [*command, *odd], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 2 and "fontManager" not in done.stderr
    assert done.stderr.startswith("unnas_jax: config.network.width=7")
    done = subprocess.run(
        [*command, "--config.seed=1"], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert (
        done.stderr
        == "unnas_jax: --config is missing; give a file, or the name of a recipe, such as "
        "rot_photos\n"
    )


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")  # Of ml_collections.
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["configs/rot_photos.py"], "write --config=configs/rot_photos.py"),
        (
            ["--config=rot_photos", "--config.task=rotation"],
            "is a section; give one of its fields",
        ),
        (["--config=some/config.json"], "is no recipe; a run goes on with the command"),
        (["--config=configs"], "is no recipe"),
        (["report", "README.md"], "README.md: is a file; give the directory of the run"),
        (["show", "--config=sample_nasbench201_digits"], "--config is that of a sample"),
        (["compile", "--config=sample_nasbench201_digits"], "--config is that of a sample"),
    ],
)
def test_what_stands_in_the_place_of_a_config_or_a_run(words, said, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "some").mkdir()
    (tmp_path / "configs").mkdir()
    for name in ("some/config.json", "README.md"):
        (tmp_path / name).write_text("{}")
    assert commands.main(words) == 2
    printed = capsys.readouterr().err
    assert said in printed and printed.count("\n") == 1


@pytest.mark.parametrize("command", [name for name in commands.COMMANDS if name != "run"])
def test_mistakes_in_options_are_one_line_of_every_command(command, capsys):
    assert commands.main([command, "--no-such-option=3"]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("unnas_jax: ") and printed.count("\n") == 1, printed
    assert "usage:" not in printed


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["correlate", "--table=t.csv", "--workdir=w"],
            "--space (what the cells are cells of) is missing; unnas-jax correlate --help",
        ),
        (["predict", "w"], "images (files, folders, or - for a list of files on standard input)"),
        (["predict", "w", "x.jpg", "--tpo=3"], "unknown argument '--tpo': did you mean '--top'?"),
        (["rank", "--side=x"], "--side: invalid int value: 'x'; unnas-jax rank --help shows all"),
        (["export", "w", "--format=tf", "--output=o"], "--format: invalid choice: 'tf' (choose"),
        (["convert"], "{config,checkpoint} is missing"),
        (["convert", "checkpoint", "x.pyth"], "with --to-torch, a file) is missing"),
        (["predict", "none", "x.jpg"], "workdir none: no such workdir; give the --workdir of a"),
        (["export", "none", "--format=torch", "--output=o"], "workdir none: no such workdir"),
        (["predict", ".", "x.jpg"], "workdir .: not a workdir, it has no config.json; give the"),
        (["status", "none"], "none: no such workdir; give the --workdir of a sweep"),
    ],
)
def test_what_is_missing_is_named_with_what_it_is(words, said, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert commands.main(words) == 2
    printed = capsys.readouterr().err
    assert said in printed and printed.count("\n") == 1, printed


def test_a_workdir_among_its_images_is_refused(tmp_path):
    section = {"name": "folder", "path": str(tmp_path / "images")}
    workdir.check_apart(workdir.local(str(tmp_path / "run")), section)
    workdir.check_apart(workdir.local(str(tmp_path)), section)
    for name in ("images", "images/run"):
        with pytest.raises(UserError, match="would become images; give a --workdir outside"):
            workdir.check_apart(workdir.local(str(tmp_path / name)), section)

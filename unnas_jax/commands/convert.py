"""Brings configs and checkpoints of the PyTorch release over: `unnas-jax convert`.

unnas-jax convert config FILE.yaml [--out=configs/mine.py]
unnas-jax convert checkpoint FILE.pyth --out=WORKDIR
unnas-jax convert checkpoint WORKDIR --to-torch --out=FILE.pyth
"""

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence

import jax
import ml_collections

from unnas_jax.commands import command_line
from unnas_jax.config import run_config, schema
from unnas_jax.config.options import Config
from unnas_jax.config.schema import SearchConfig
from unnas_jax.convert import config as release
from unnas_jax.convert import pyth, states
from unnas_jax.core import files
from unnas_jax.core.errors import UserError
from unnas_jax.data import open_dataset
from unnas_jax.data.registry import entry_of
from unnas_jax.learning.trainer import TrainState
from unnas_jax.runs import checkpoint, validation
from unnas_jax.runs import workdir as workdir_lib

"""Training images of datasets that need not be at hand to know their number."""


def _note(text: str) -> None:
    print(f"unnas_jax: {text}", file=sys.stderr)


def _config_command(options: argparse.Namespace) -> None:
    config, notes = release.load(options.file)
    for note in notes:
        _note(f"{options.file}: {note}")
    text = release.as_python(config, os.path.basename(options.file))
    if not options.out:
        print(text, end="")
        return
    _write(options.out, text)
    print(f"python main.py --config={options.out}")


def _write(path: str, text: str) -> None:
    try:
        with files.replacing(path) as file:
            file.write(text)
    except OSError as error:
        raise UserError(f"--out={path!r}: cannot be written: {error.strerror}") from error


def _steps_per_epoch(config: Config, images: int | None) -> int:
    """The steps of an epoch of a config, as searches and trainings count them."""
    c = schema.record(config)
    halved = isinstance(c, SearchConfig)
    if images is None and not c.dataset.subset:
        images = entry_of(c.dataset.name).train_images or None
    if images is None:
        try:
            splits = open_dataset(c.dataset).splits
        except UserError as error:
            raise UserError(f"{error}; or give --images, the number of training images") from error
        images = len(splits["train"])
        # Where nothing is held out, trainings hold out half.
        halved = halved or not splits.keys() & {"validation", "test"}
    steps = images // (2 if halved else 1) // c.train.batch_size
    if steps < 1:
        raise UserError(f"--images={images}: that is less than one batch")
    return steps


def _import(options: argparse.Namespace, config: ml_collections.ConfigDict | None) -> None:
    """A checkpoint of the release becomes one of a workdir."""
    document = pyth.load(options.source)
    if config is None:
        name = f"{options.source}: cfg"
        if not isinstance(document.get("cfg"), str):
            raise UserError(f"{name}: is missing; give the release's config with --config")
        config, notes = release.convert(release.read(document["cfg"], name), name)
        for note in notes:
            _note(f"{name}: {note}")
    command_line.override(config, options.overrides)
    validation.validate(config)
    values = config.to_dict()
    if values.get("seeds", 1) != 1:
        raise UserError(
            f"config.seeds={values['seeds']}: a checkpoint of the release has one; use 1"
        )
    workdir = workdir_lib.local(options.out)
    if os.path.exists(workdir.checkpoints):
        raise UserError(f"--out={options.out!r}: has checkpoints already; give another directory")
    steps = _steps_per_epoch(values, options.images)
    state, tracked, notes = states.from_release(document, values, steps)
    for note in notes:
        _note(f"{options.source}: {note}")
    habits = release.habits(values["task"]["name"], values["dataset"]["name"])
    if unlike := {k: v for k, v in habits.items() if values["input"][k] != v}:
        flags = " ".join(f"--config.input.{k}={v}" for k, v in unlike.items())
        _note(f"the release prepares images otherwise, to which the network is used: {flags}")
    if values["task"]["name"] == "jigsaw" and not values["task"]["permutation_list"]:
        _note(
            "the jigsaw's classes are other permutations here, and its last layer has to learn "
            "anew; to go on with the release's: --config.task.permutation_list=FILE.npy"
        )
    epoch = states.epochs_of(document)
    workdir_lib.claim(workdir, values)
    path = os.path.join(options.out, "config.py")
    _write(path, release.as_python(config, f"checkpoint {os.path.basename(options.source)}"))
    position = {
        "step": epoch * steps,
        "epoch": epoch,
        "data_position": epoch * steps * values["train"]["batch_size"],
        "validation": None,
        "num_batches_tracked": tracked,
    }
    with contextlib.closing(checkpoint.Checkpoints(workdir.checkpoints)) as checkpoints:
        checkpoints.save(epoch * steps, jax.device_put(state), position)
        checkpoints.wait()
    _note(f"epochs done: {epoch}, of {steps} steps each; this continues:")
    print(f"python main.py --config={path} --workdir={options.out}")


def _export(options: argparse.Namespace, config: ml_collections.ConfigDict | None) -> None:
    """A checkpoint of a workdir becomes one of the release."""
    path = os.path.join(options.source, "config.json")
    if config is None:
        if not os.path.exists(path):
            raise UserError(f"{path}: cannot be read (there is none); give --config")
        config = ml_collections.ConfigDict(run_config.read(options.source))
    command_line.override(config, options.overrides)
    values = config.to_dict()
    state, position = states.read(options.source, options.step)
    if isinstance(state, TrainState):
        state = states.of_seed(state, options.seed)
        if values["train"]["ema"]:
            _note("left out: the moving average of the weights, which the release has not")
    steps = _steps_per_epoch(values, options.images)
    tracked = position.get("num_batches_tracked")
    document, notes = states.to_release(state, values, steps, tracked)
    for note in notes:
        _note(f"the release's config differs: {note}")
    pyth.save(options.out, document)
    print(options.out)


def _parser() -> command_line.Parser:
    parser = command_line.Parser(
        prog="unnas-jax convert",
        description="Brings configs and checkpoints of the PyTorch release over, and back.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="{config,checkpoint}")
    config = commands.add_parser("config", help="a YAML config becomes a file for configs/")
    config.add_argument("file", type=os.path.expanduser, help="the release's YAML file")
    config.add_argument(
        "--out",
        type=os.path.expanduser,
        default="",
        help="the file to write; default: to the screen",
    )
    state = commands.add_parser("checkpoint", help="a checkpoint becomes a workdir, or back")
    state.add_argument(
        "source", type=os.path.expanduser, help="a .pyth file or, with --to-torch, a workdir"
    )
    state.add_argument(
        "--out",
        type=os.path.expanduser,
        required=True,
        help="a new workdir or, with --to-torch, a file",
    )
    state.add_argument("--to-torch", action="store_true", help="from a workdir to a .pyth file")
    state.add_argument(
        "--images", type=int, help="training images; default: as the dataset has them"
    )
    state.add_argument("--step", type=int, help="with --to-torch: of the checkpoint; the newest")
    state.add_argument("--seed", type=int, help="with --to-torch: of a training of several seeds")
    state.add_argument(
        "--config",
        metavar="FILE",
        help="the config, if not the checkpoint's own; --config.KEY=VALUE changes either",
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status, 2 for a mistake of the user."""
    argv = list(sys.argv[1:] if arguments is None else arguments)
    # Overrides --config.KEY=VALUE are absl's; the rest is argparse's.
    overrides = [word for word in argv if word.startswith("--config.")]

    def work(options: argparse.Namespace) -> None:
        options.overrides = overrides
        if options.command == "config":
            _config_command(options)
            return
        config = command_line.read_config(options.config) if options.config else None
        (_export if options.to_torch else _import)(options, config)

    return command_line.run(_parser(), work, [word for word in argv if word not in overrides])

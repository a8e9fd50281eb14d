"""A trained network for use elsewhere: `unnas-jax export WORKDIR --format=FORMAT --output=DIR`."""

import argparse
import os
from collections.abc import Sequence

from unnas_jax.commands import command_line
from unnas_jax.commands.predict import add_choice, files_of, seed_of
from unnas_jax.convert import exports
from unnas_jax.core.errors import UserError
from unnas_jax.data import decoding
from unnas_jax.runs import trained

_MOST = 64  # Images that an export is checked on.


def _parser() -> command_line.Parser:
    parser = command_line.Parser(
        prog="unnas-jax export",
        description="Writes the network of a training as files that need nothing of this program, "
        "with its preprocessing, class names and architecture, and checks them against it.",
    )
    parser.add_argument("workdir", type=os.path.expanduser, help="the --workdir of a training")
    parser.add_argument(
        "--format",
        choices=sorted(exports.FORMATS),
        required=True,
        help="stablehlo: for jax.export, on CPU, CUDA and TPU; torch: a Python file and its "
        "weights; onnx: a graph; safetensors: flat names",
    )
    parser.add_argument(
        "--output", type=os.path.expanduser, required=True, help="the folder for the files"
    )
    parser.add_argument(
        "--images",
        nargs="+",
        default=[],
        help=f"files or folders to check it on, of which the first {_MOST} are taken; default: "
        "patterns of random colours",
    )
    add_choice(parser, several=False)
    return parser


def _run(options: argparse.Namespace) -> None:
    if options.seed == "all":
        raise UserError("--seed=all: an export is of one network; give its seed")
    images = []
    for path in files_of(options.images)[:_MOST] if options.images else ():
        try:
            with open(path, "rb") as file:
                images.append(decoding.decode(file.read(), apply_exif=True))
        except (OSError, ValueError) as error:
            words = getattr(error, "strerror", "") or error
            raise UserError(f"--images: {path!r}: {words}") from error
    found = trained.read(
        options.workdir,
        seed=seed_of(options.seed),
        checkpoint=options.checkpoint,
        precision="float32",
    )
    difference = exports.write(found, options.format, options.output, images)
    print(
        "\n".join(os.path.join(options.output, name) for name in sorted(os.listdir(options.output)))
    )
    count = len(images) or len(exports.patterns())
    print(f"largest difference to the network here on {count} images: {difference:.2g}")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status, 2 for a mistake of the user."""
    return command_line.run(_parser(), _run, arguments)

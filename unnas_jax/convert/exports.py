"""A trained network as files that can be used alone, each checked against the network here."""

import dataclasses
import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import cv2
import flax
import jax
import jax.numpy as jnp
import numpy as np

import unnas_jax
from unnas_jax.convert import flat, preprocessing, pyth, to_onnx, to_torch
from unnas_jax.core import extras, files, sharding
from unnas_jax.core.errors import UserError
from unnas_jax.runs.trained import Trained
from unnas_jax.spaces import registry as spaces
from unnas_jax.tasks import dense

SCHEMA = "unnas_jax.export/1"

PLATFORMS = ("cpu", "cuda", "tpu")
"""The platforms for which StableHLO is written."""

_SHAPES = 1e-3  # Relative to the largest output; beyond it an export is not the same network.


@dataclasses.dataclass(frozen=True)
class Written:
    """An export.

    Attributes:
      files: their names in the folder.
      versions: of the libraries that wrote it.
      run: inputs (N, H, W, channels) -> outputs (N, ..., classes), by the files alone.
    """

    files: tuple[str, ...]
    versions: Mapping[str, str]
    run: Callable[[np.ndarray], np.ndarray]


def outputs(trained: Trained, variables: Any, inputs: jax.Array) -> jax.Array:
    """What exports compute: logits (N, classes), of label maps (N, H, W, classes), in float32."""
    module, _ = trained.module()
    found: Any = module.apply(variables, inputs)
    if trained.task.dense:
        found = dense.upsample(found, (inputs.shape[1], inputs.shape[2]))
    return found.astype(jnp.float32)


def _stablehlo(trained: Trained, folder: str, shape: Sequence[int]) -> Written:
    _, variables = trained.module()

    def network(inputs: jax.Array) -> jax.Array:
        with sharding.nowhere():  # Plain convolutions: the fast ones suit this machine alone.
            return outputs(trained, variables, inputs)

    group = _group(trained)
    (images,) = jax.export.symbolic_shape("n")
    spec = jax.ShapeDtypeStruct((group * images, *shape), jnp.float32)
    exported = jax.export.export(jax.jit(network), platforms=PLATFORMS)(spec)
    data = exported.serialize()
    _write(folder, "network.stablehlo", data)

    def run(inputs: np.ndarray) -> np.ndarray:
        with open(os.path.join(folder, "network.stablehlo"), "rb") as file:
            loaded = jax.export.deserialize(bytearray(file.read()))
        return np.asarray(loaded.call(inputs))

    return Written(("network.stablehlo",), {"jax": jax.__version__}, run)


def _torch(trained: Trained, folder: str, shape: Sequence[int]) -> Written:
    torch = pyth.library("--format=torch")
    source = to_torch.source_of(trained.network, shape[-1], _says(trained))
    weights = flat.as_in_torch(trained.module()[1])
    _write(folder, "network.py", source.encode())
    path = os.path.join(folder, "weights.pt")
    state = {name: torch.tensor(array) for name, array in weights.items()}
    means = [name for name in weights if name.endswith(".running_mean")]
    # Batches that a batch norm has seen; nothing reads it, and loading asks for it.
    state |= {
        f"{name.removesuffix('running_mean')}num_batches_tracked": torch.tensor(0) for name in means
    }
    torch.save(state, path)

    def run(inputs: np.ndarray) -> np.ndarray:
        names: dict[str, Any] = {"__name__": "network"}
        with open(os.path.join(folder, "network.py")) as file:
            exec(compile(file.read(), "network.py", "exec"), names)
        network = names["Network"]()
        network.load_state_dict(torch.load(path, weights_only=True))
        with torch.no_grad():
            found = network.eval()(torch.tensor(_channels_first(inputs)))
        return _channels_last(found.numpy())

    return Written(("network.py", "weights.pt"), {"torch": str(torch.__version__)}, run)


def _onnx(trained: Trained, folder: str, shape: Sequence[int]) -> Written:
    onnx = to_onnx.library()
    import onnxruntime

    facts = {"class_names": json.dumps(trained.dataset.class_names), "task": _task(trained)}
    model = to_onnx.model(
        trained.network,
        flat.as_in_torch(trained.module()[1]),
        (shape[-1], *shape[:-1]),
        facts,
    )
    path = os.path.join(folder, "network.onnx")
    onnx.save(model, path)

    def run(inputs: np.ndarray) -> np.ndarray:
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        return _channels_last(session.run(None, {"images": _channels_first(inputs)})[0])

    versions = {"onnx": onnx.__version__, "opset": str(to_onnx.OPSET)}
    return Written(("network.onnx",), versions, run)


def _safetensors(trained: Trained, folder: str, shape: Sequence[int]) -> Written:
    extras.require("safetensors", "--format=safetensors")
    import safetensors
    from safetensors import numpy as arrays

    path = os.path.join(folder, "network.safetensors")
    arrays.save_file(flat.as_here(trained.module()[1]), path, {"format": "flax"})

    def run(inputs: np.ndarray) -> np.ndarray:
        variables = flat.nested(arrays.load_file(path))
        return np.asarray(jax.jit(lambda v, x: outputs(trained, v, x))(variables, inputs))

    versions = {"safetensors": safetensors.__version__}
    return Written(("network.safetensors",), versions, run)


FORMATS = {
    "stablehlo": _stablehlo,
    "torch": _torch,
    "onnx": _onnx,
    "safetensors": _safetensors,
}
"""The forms of an export, by the value of `--format`."""


def write(trained: Trained, form: str, folder: str, images: Sequence[np.ndarray] = ()) -> float:
    """Writes an export into a folder, with all that its use needs, and checks it.

    Args:
      trained: of one seed.
      form: one of `FORMATS`.
      folder: is made.
      images: uint8 (H, W, 3), of any sizes, on which it is checked; none: `patterns`.

    Returns:
      The largest difference between the outputs of the files and of the network here.

    Raises:
      UserError: a library is missing, the network has no such form, the folder cannot be written,
        or the outputs differ.
    """
    if len(trained.seeds) > 1:
        raise UserError("an export is of one network: give one seed")
    images = images or patterns()
    inputs = np.asarray(trained.preprocessing(images), np.float32)
    try:
        os.makedirs(folder, exist_ok=True)
        written = FORMATS[form](trained, folder, inputs.shape[1:])
        if preprocessing.is_known(trained):
            _write(
                folder, "preprocessing.py", preprocessing.source_of(trained, _first(form)).encode()
            )
        with jax.default_matmul_precision("float32"):
            _, variables = trained.module()
            expected = np.asarray(jax.jit(lambda v, x: outputs(trained, v, x))(variables, inputs))
            found = written.run(inputs)
        if found.shape != expected.shape:
            raise UserError(f"{folder}: gives outputs {found.shape}, not {expected.shape}")
        difference = float(np.max(np.abs(found - expected)))
        largest = float(np.max(np.abs(expected)))
        facts = _facts(trained, form, written, inputs.shape[1:], expected.shape[-1])
        facts["check"] = {
            "images": len(images),
            "largest_output": largest,
            "largest_difference": difference,
            "device": jax.devices()[0].device_kind,
        }
        files.write_json(os.path.join(folder, "network.json"), facts)
    except OSError as error:
        raise UserError(f"--output={folder!r}: cannot be written ({error.strerror})") from error
    if not difference <= _SHAPES * max(largest, 1.0):
        raise UserError(
            f"{folder}: the outputs differ by up to {difference:.3g} from those of the network "
            f"here, which reach {largest:.3g}; the files are no good"
        )
    return difference


def patterns() -> list[np.ndarray]:
    """Images to check a network on, always the same: soft colours to noise, uint8 (H, W, 3)."""
    rng, images = np.random.default_rng(0), []
    for k in range(1, 9):
        grid = rng.integers(0, 256, (2**k, 2**k, 3), np.uint8)
        images.append(cv2.resize(grid, (256, 192 + 16 * k), interpolation=cv2.INTER_LINEAR))
    return images


def _write(folder: str, name: str, data: bytes | bytearray) -> None:
    with files.replacing(os.path.join(folder, name), "wb") as file:
        file.write(data)


def _channels_first(inputs: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.moveaxis(inputs, -1, 1))


def _channels_last(outputs: np.ndarray) -> np.ndarray:
    return np.moveaxis(outputs, 1, -1)


def _first(form: str) -> bool:
    """Whether the channels come before the rows in a form's inputs."""
    return form in ("torch", "onnx")


def _group(trained: Trained) -> int:
    """How many inputs an answer takes."""
    return int(getattr(trained.network.head, "group", 1))


def _task(trained: Trained) -> str:
    return trained.config.task.name


def _says(trained: Trained) -> str:
    result = trained.config.network.space
    return (
        f"A network of the space {result}, trained with unnas_jax {unnas_jax.__version__}.\n\n"
        "    network = Network()\n"
        '    network.load_state_dict(torch.load("weights.pt"))\n'
        "    logits = network.eval()(images)  # See network.json and preprocessing.py.\n"
    )


def _facts(
    trained: Trained, form: str, written: Written, shape: Sequence[int], classes: int
) -> dict[str, Any]:
    """The content of `network.json`: everything that the use of the other files needs."""
    config, section = trained.config, trained.config.network
    height, width, channels = shape
    first, group = _first(form), _group(trained)
    answer = ["N"] if group == 1 else [f"N / {group}"]
    sides: list[Any] = [height, width]
    if trained.task.dense:
        if first:
            sides = ["height", "width"]
        answer += [] if first else sides
    around = [classes, *sides] if first and trained.task.dense else [*answer[1:], classes]
    cells = spaces.of_section(section).resolve(section.genotype)
    network = {
        key: value for key, value in dataclasses.asdict(section).items() if key != "genotype"
    }
    return {
        "schema": SCHEMA,
        "format": form,
        "files": list(written.files),
        "task": dataclasses.asdict(config.task),
        "class_names": list(trained.dataset.class_names) if _named(trained) else [],
        "input": {
            "dtype": "float32",
            "axes": "NCHW" if first else "NHWC",
            "shape": ["N", channels, *sides] if first else ["N", *sides, channels],
        },
        "output": {"what": "logits", "shape": [answer[0], *around]},
        "preprocessing": preprocessing.facts(trained),
        "architecture": {
            **network,
            "width": int(trained.network.width),
            "genotype": str(cells),
            "cells_used": cells.as_dict(),
        },
        "training": {
            "dataset": trained.dataset.name,
            "seed": trained.seeds[0],
            "step": trained.step,
        },
        "versions": {
            "unnas_jax": unnas_jax.__version__,
            "jax": jax.__version__,
            "flax": flax.__version__,
            **written.versions,
        },
    }


def _named(trained: Trained) -> bool:
    """Whether the answers are the dataset's classes."""
    return len(trained.dataset.class_names) == trained.task.num_classes

"""Files of the PyTorch release (`.pyth`): tensors in, tensors out, and never any code."""

import importlib
import pickle
import re
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from unnas_jax.core import extras, files
from unnas_jax.core.errors import UserError


def library(what: str = "a checkpoint of the PyTorch release") -> Any:
    """The package torch; `UserError`, which names the purpose, if it is not installed."""
    extras.require("torch", what)
    return importlib.import_module("torch")


def _number(dtype: np.dtype, data: bytes) -> float:
    """Rebuilds a NumPy scalar, as which the release pickles its learning rates."""
    if dtype.kind not in "fiu":
        raise pickle.UnpicklingError(f"a scalar of {dtype}")
    return float(np.frombuffer(data, dtype)[0])


_NUMBERS = (
    np.dtype,
    np.dtypes.Float64DType,
    (_number, "numpy.core.multiarray.scalar"),
    (_number, "numpy._core.multiarray.scalar"),
)


def load(path: str) -> dict[str, Any]:
    """The content of a checkpoint file, its tensors as NumPy arrays.

    Only tensors, numbers, texts and containers of them are unpickled: a file that would call
    anything else is refused before the call.

    Raises:
      UserError: torch is missing, or the file cannot be read or holds more than that.
    """
    torch = library()
    _check_stored(path)
    try:
        with torch.serialization.safe_globals(list(_NUMBERS)):
            document = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except pickle.UnpicklingError as error:
        # The rest of torch's message advises to load the file unsafely.
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        reason = f"it calls {found[1]}" if found else "it is damaged, or no checkpoint"
        raise UserError(
            f"{path}: refused: {reason}; only tensors, numbers and texts are loaded"
        ) from error
    except Exception as error:  # torch raises many types for a bad file.
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path}: is damaged, or no checkpoint ({reason[:200]})") from error
    if not isinstance(document, dict) or not isinstance(document.get("model_state"), Mapping):
        raise UserError(f"{path}: no checkpoint of the PyTorch release: it has no model_state")
    result: dict[str, Any] = mapped(document, torch.Tensor, _as_array)
    return result


def _check_stored(path: str) -> None:
    """Raises `UserError` if members are packed: they might unpack to more than there is memory."""
    try:
        with zipfile.ZipFile(path) as archive:
            packed = any(member.compress_type != zipfile.ZIP_STORED for member in archive.filelist)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except Exception:  # The older form is no archive; torch refuses anything else.
        return
    if packed:
        raise UserError(f"{path}: refused: its members are compressed, as no checkpoint's are")


def save(path: str, document: Mapping[str, Any]) -> None:
    """Writes a checkpoint file, atomically; arrays become tensors.

    Raises:
      UserError: torch is missing, or the file cannot be written.
    """
    torch = library()
    try:
        with files.replacing(path, "wb") as file:
            torch.save(mapped(document, np.ndarray, torch.tensor), file)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from error


def _as_array(tensor: Any) -> np.ndarray:
    tensor = tensor.detach()
    if tensor.is_floating_point() and tensor.element_size() < 4:
        tensor = tensor.float()  # NumPy has no bfloat16.
    array: np.ndarray = tensor.cpu().numpy()
    return array


def mapped(value: Any, kind: type, change: Any) -> Any:
    """A copy of nested containers in which `change` is applied to every value of a type."""
    if isinstance(value, kind):
        return change(value)
    if isinstance(value, Mapping):
        return {key: mapped(item, kind, change) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(mapped(item, kind, change) for item in value)
    return value

"""Packages that the plain installation leaves out, and the extra of setup.cfg that brings them."""

import importlib.util

from unnas_jax.core.errors import UserError

_PLOTS = {"matplotlib": "matplotlib", "jinja2": "jinja2", "sklearn": "scikit-learn"}
_TFDS = {"tensorflow_datasets": "tensorflow-datasets"}

PACKAGES: dict[str, dict[str, str]] = {
    "plots": _PLOTS,
    "tfds": _TFDS,
    "photos": {"skimage": "scikit-image", **_TFDS, **_PLOTS},
    "digits": {"sklearn": "scikit-learn"},
    "torch": {"torch": "torch"},
    "onnx": {"onnx": "onnx", "onnxruntime": "onnxruntime"},
    "safetensors": {"safetensors": "safetensors"},
    "ray": {"ray": "ray"},
    "gcs": {"gcsfs": "gcsfs"},
    "wandb": {"wandb": "wandb"},
    "mlflow": {"mlflow": "mlflow-skinny"},
    "tpu-aot": {"libtpu": "libtpu"},
}
"""By extra: the modules that are not there without it, and what pip calls them."""


def missing(extra: str) -> str:
    """The first package of an extra that is not installed, as pip calls it; '' if all are."""
    for module, package in PACKAGES[extra].items():
        if importlib.util.find_spec(module) is None:
            return package
    return ""


def needed(extra: str, what: str) -> str:
    """A line on what needs a package that is not installed; '' if it needs none."""
    package = missing(extra)
    return package and f"{what} needs the package {package}; pip install 'unnas_jax[{extra}]'"


def require(extra: str, what: str) -> None:
    """Raises `UserError` if a package of an extra is not installed.

    Args:
      extra: a key of `PACKAGES`.
      what: needs it; the message begins with that.
    """
    if line := needed(extra, what):
        raise UserError(line)

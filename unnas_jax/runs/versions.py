"""The versions on which a result depends."""

import importlib.metadata

from unnas_jax import __version__


def versions() -> dict[str, str]:
    """The versions of the packages that a result depends on."""
    libraries = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")
    return {
        "unnas_jax": __version__,
        **{name: importlib.metadata.version(name) for name in libraries},
    }

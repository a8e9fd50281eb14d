"""The configs of the experiments: fields, defaults, and what values are possible."""

from unnas_jax.config.schema import sample, search, training

__all__ = ["sample", "search", "training"]

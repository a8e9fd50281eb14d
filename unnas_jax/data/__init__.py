"""Where images come from and how they reach the device: datasets, host crops, batches."""

from unnas_jax.data.order import halves
from unnas_jax.data.records import Dataset
from unnas_jax.data.registry import open_dataset

__all__ = ["Dataset", "halves", "open_dataset"]

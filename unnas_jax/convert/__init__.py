"""Configs and checkpoints of the method's PyTorch release, to and from the forms used here."""

from unnas_jax.convert.weights import params_from_torch, params_to_torch

__all__ = ["params_from_torch", "params_to_torch"]

"""Random cells for tests, without the cache that sampling keeps in the user's directory."""

import numpy as np

from unnas_jax.spaces.nasbench101 import enumeration
from unnas_jax.spaces.nasbench101.spec import Spec


def drawn(count: int, seed: int) -> list[Spec]:
    numbers = np.random.default_rng(seed).permutation(enumeration.enumerate_cells())
    return [enumeration.decode(number) for number in numbers[:count]]

"""Which examples a step takes: halves, samples and orders, drawn from the seed alone."""

import collections
import threading
from typing import Any

import numpy as np

# The purpose of a draw. Its entropy is the seed, the purpose and, where there are several, a
# number; always in this order, or an epoch's shuffle (seed, 2, epoch 3) and a crop (seed, position
# 2, 3) would draw the same bits. `unnas_jax.data.subsets` has 4.
_HALVES, _SHUFFLE, CROP, _EVALUATION = 1, 2, 3, 5


def permutation(count: int, *entropy: int) -> np.ndarray:
    """A permutation of range(count), int32: the order of `count` random 64-bit numbers.

    From the raw output of PCG64, which NumPy never changes, unlike the methods of its generators:
    the same on every machine and in every version. (Grain's constant-memory `index_shuffle` is
    neither uniform for small counts nor sure to return: 0.2.18 loops for ever in
    `index_shuffle(1, max_index=3, seed=645445395, rounds=4)`.)
    """
    bits = np.random.PCG64(np.random.SeedSequence(entropy)).random_raw(count)
    return np.argsort(bits, kind="stable").astype(np.int32)


def halves(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Cuts `count` examples in two equal halves, A for the weights and B for the alphas.

    One permutation that depends on nothing but the arguments; of an odd count one example is left
    out. The halves are in random order: any prefix is a fair sample.

    Returns:
      Two int32 arrays of count // 2 example numbers.
    """
    order = permutation(count, seed, _HALVES)
    half = count // 2
    return order[:half], order[half : 2 * half]


def evaluation_sample(indices: np.ndarray, max_images: int, seed: int) -> np.ndarray:
    """At most `max_images` of the examples, drawn at random, in their old order.

    Records are in the order of their names, and so of their classes: a prefix would have few
    classes. The draw depends on nothing but the arguments; a smaller sample is a part of a larger
    one.

    Args:
      indices: of all examples.
      max_images: how many; -1: all.
      seed: of the draw.
    """
    if max_images < 0:
        return indices
    drawn = permutation(len(indices), seed, _EVALUATION)[:max_images]
    return indices[np.sort(drawn)]


def steps_per_epoch(count: int, batch_size: int) -> int:
    """Whole batches in `count` examples; the rest is left to the next epoch's permutation."""
    return count // batch_size


class Order:
    """Global position -> example, by a permutation of `indices` that is new in every epoch."""

    def __init__(self, indices: np.ndarray, batch_size: int, seed: int) -> None:
        self._indices, self._seed = indices, seed
        self._epoch_length = steps_per_epoch(len(indices), batch_size) * batch_size
        # Two epochs, because threads that prefetch stand on both sides of the border.
        self._cache: collections.OrderedDict[int, np.ndarray] = collections.OrderedDict()
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_cache", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _cache=collections.OrderedDict(), _lock=threading.Lock())

    def __call__(self, position: int) -> int:
        """The example's number."""
        epoch, offset = divmod(position, self._epoch_length)
        with self._lock:
            order = self._cache.get(epoch)
            if order is None:
                order = permutation(len(self._indices), self._seed, _SHUFFLE, epoch)
                self._cache[epoch] = order
                while len(self._cache) > 2:
                    self._cache.popitem(last=False)
        return int(self._indices[order[offset]])

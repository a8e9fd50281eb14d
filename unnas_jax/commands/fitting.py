"""The largest batch whose steps fit into the memory of a chip, found by few compilations."""

import logging
import math
import time
from collections.abc import Callable, Mapping

from unnas_jax.core import logs

_LOG = logging.getLogger("unnas_jax")

_DIGITS = 6

# Of two nearly equal needs the line says nothing: the next batch is at most so many times as large.
_FARTHEST = 16

# Only where this part of the memory is needed is the line believed that no larger batch fits.
_NEARLY = 0.9

# One at the config's own batch, one where its need per image leads, one to confirm the line.
_USUAL = 3


def rounded(size: float, chips: int) -> int:
    """The largest batch, at most `size`, of those that are tried.

    On every chip it has a number of images that fills at most six binary digits: from 64 on an even
    one, from 256 on a multiple of 8. What is left out is at most 3%.
    """
    each = int(size) // chips
    step = _step(each)
    return each // step * step * chips


def _step(each: int) -> int:
    return 1 << max(0, each.bit_length() - _DIGITS)


def largest_that_fits(tried: Mapping[int, int | None], available: int) -> int:
    """The largest batch that fits of those tried; 0 if none does.

    Args:
      tried: by batch, the bytes that a chip needs; None: XLA refused to fit it.
      available: the bytes that a chip has.
    """
    return max(
        (b for b, need in tried.items() if need is not None and need <= available), default=0
    )


def next_batch(
    tried: Mapping[int, int | None], available: int, chips: int, most: float = math.inf
) -> int | None:
    """The batch to try next: where the need, a line through what is known, reaches the memory.

    Args:
      tried, available: see `largest_that_fits`; at least one batch was tried.
      chips: they share a batch evenly.
      most: images that a batch may have.

    Returns:
      A batch that was not tried; None if the largest that fits is known or none does.
    """
    low = largest_that_fits(tried, available)
    high = min((batch for batch in tried if batch > low), default=math.inf)
    room = min(high - 1, most)
    following = low + chips * _step(low // chips) if low else chips
    if following > room:
        return None
    guess = _on_the_line(tried, low, high, available)
    need = tried.get(low) or 0
    if high < math.inf and (guess > room or (len(tried) > 2 and high == list(tried)[-1])):
        guess = (low + high) / 2  # The line was wrong, and may be so again and again.
    elif len(tried) > 1 and guess < following and need > _NEARLY * available:
        return None
    farthest = _FARTHEST * low if low else math.inf
    return max(rounded(min(guess, room, farthest), chips), following)


def _on_the_line(tried: Mapping[int, int | None], low: int, high: float, available: int) -> float:
    """The batch at which the need, a line through two known ones, reaches the memory."""
    known = [(batch, need) for batch, need in tried.items() if need is not None]
    known.sort(key=lambda pair: (pair[0] not in (low, high), abs(pair[1] - available)))
    # With one batch alone the line begins at nothing, so that the guess is low if that batch fits.
    (batch, need), (other, others) = [*known, (0, 0), (0, 0)][:2]
    slope = (need - others) / (batch - other) if batch != other else 0.0
    return batch + (available - need) / slope if slope > 0 else math.inf


def search(
    need_of: Callable[[int], int | None],
    tried: dict[int, int | None],
    first: int,
    available: int,
    chips: int,
    most: float = math.inf,
) -> int:
    """Compiles for batch after batch until the largest that fits is known, and says how far it is.

    Args:
      need_of: (batch) -> the bytes that a chip needs, see `largest_that_fits`; takes long.
      tried: see `largest_that_fits`; what is tried is added.
      first: the batch to begin with, if none was tried.
      available, chips, most: see `next_batch`.

    Returns:
      The largest batch that fits; 0 if none does.
    """
    begun, before = time.monotonic(), len(tried)
    batch: int | None = first
    if tried:
        batch = next_batch(tried, available, chips, most)
    while batch is not None:
        done = len(tried) - before
        pace = (time.monotonic() - begun) / done if done else math.nan
        left = logs.duration(max(1, _USUAL - len(tried)) * pace)
        ahead = f", about {left} left" if done else ""
        _LOG.info("compiling for train.batch_size=%d%s ...", batch, ahead)
        tried[batch] = need = need_of(batch)
        found = "does not fit into" if need is None else f"needs {need / 2**30:.2f} of"
        _LOG.info("train.batch_size=%d %s %.2f GiB", batch, found, available / 2**30)
        batch = next_batch(tried, available, chips, most)
    return largest_that_fits(tried, available)

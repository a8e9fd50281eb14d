"""Scores of per-pixel answers: upsample the logits to the targets, then softmax cross entropy."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from unnas_jax.tasks.base import Sums

# Pixels of a row block times classes stay below this many logits an image.
_BLOCK_LOGITS = 2_000_000


def interpolation(source: int, target: int) -> np.ndarray:
    """The matrix (target, source) of linear interpolation with aligned corners, float32."""
    if source == 1 or target == 1:
        # Aligned corners are not defined for one sample: it is repeated; one target is the first.
        matrix = np.zeros((target, source), np.float32)
        matrix[:, 0] = 1.0
        return matrix
    positions = np.arange(target) * (source - 1) / (target - 1)
    lower = np.minimum(positions.astype(int), source - 2)
    fraction = positions - lower
    matrix = np.zeros((target, source), np.float64)
    matrix[np.arange(target), lower] = 1.0 - fraction
    matrix[np.arange(target), lower + 1] += fraction
    return matrix.astype(np.float32)


def interpolated(logits: jax.Array, rows: Any, width: int) -> jax.Array:
    """(N, h, w, K) to (N, R, width, K), rows by the matrix `rows` (R, h).

    In float32 on every backend: in a matrix product in bfloat16 the shares of two pixels, and so
    the logits, would be off by up to 0.4%, however exact the softmax is.
    """
    columns = interpolation(logits.shape[2], width)
    exact = jax.lax.Precision.HIGHEST
    logits = jnp.einsum("rh,nhwk->nrwk", rows, logits.astype(jnp.float32), precision=exact)
    return jnp.einsum("cw,nrwk->nrck", columns, logits, precision=exact)


def upsample(logits: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Bilinear interpolation of (N, h, w, K) to (N, *size, K), float32, aligned corners."""
    return interpolated(logits, interpolation(logits.shape[1], size[0]), size[1])


def confusion_of(
    targets: jax.Array, answers: jax.Array, valid: jax.Array, classes: int
) -> jax.Array:
    """How many valid pixels (or images) of class i were answered j: int32 (classes, classes).

    A product of one-hot matrices, which an accelerator counts faster than it scatters; in float32
    it is exact up to 2^24 pixels, of which a row block of one image has fewer.
    """
    pixels = (len(targets), -1, classes)
    rows = (jax.nn.one_hot(targets, classes) * valid[..., None]).reshape(pixels)
    columns = jax.nn.one_hot(answers, classes).reshape(pixels)
    counts = jnp.einsum("npi,npj->nij", rows, columns).astype(jnp.int32)
    return jnp.sum(counts, axis=0)


def _score_rows(
    logits: jax.Array, rows: Any, targets: jax.Array, weights: jax.Array, confusion: bool
) -> Sums:
    """The sums of a block of rows; `rows` (R, h) interpolates the logits' rows."""
    block = interpolated(logits, rows, targets.shape[2])
    valid = (targets >= 0) & (targets < block.shape[-1])
    classes = jnp.where(valid, targets, 0)
    pixel_weights = jnp.where(valid, weights[:, None, None], 0.0)
    chosen = jnp.take_along_axis(block, classes[..., None], axis=-1)[..., 0]
    nll = jax.nn.logsumexp(block, axis=-1) - chosen
    answers = jnp.argmax(block, axis=-1)
    hits = (answers == classes).astype(jnp.float32)
    sums = {
        "loss": jnp.sum(nll * pixel_weights),
        "correct": jnp.sum(hits * pixel_weights),
        "count": jnp.sum(pixel_weights),
    }
    if confusion:
        sums["confusion"] = confusion_of(classes, answers, pixel_weights > 0, block.shape[-1])
    return sums


def pixel_score(
    logits: jax.Array, targets: jax.Array, weights: jax.Array, *, confusion: bool = False
) -> Sums:
    """Cross entropy and hits of upsampled logits, summed over all pixels with a valid class.

    Full-resolution logits of 313 classes would need gigabytes (64 images of 224 pixels: 4 GB in
    float32), so large images are scored in blocks of rows that the backward pass recomputes.

    Args:
      logits: (N, h, w, K), at the features' resolution.
      targets: int32 (N, H, W); a class outside 0..K-1 (the ignore label 255) does not count.
      weights: float32 (N,).
      confusion: also sum `confusion`, int32 (K, K): pixels of class i (row) answered as j.
    """
    height, width = targets.shape[1:]
    rows = interpolation(logits.shape[1], height)
    block = max(1, _BLOCK_LOGITS // (width * logits.shape[-1]))
    if block >= height:
        return _score_rows(logits, rows, targets, weights, confusion)
    blocks = -(-height // block)
    extra = blocks * block - height
    rows = np.pad(rows, ((0, extra), (0, 0))).reshape(blocks, block, -1)
    targets = jnp.pad(targets, ((0, 0), (0, extra), (0, 0)), constant_values=-1)
    targets = jnp.moveaxis(targets.reshape(len(targets), blocks, block, width), 1, 0)

    @jax.checkpoint
    def add(sums: Sums, piece: tuple[jax.Array, jax.Array]) -> tuple[Sums, None]:
        of_block = _score_rows(logits, *piece, weights, confusion)
        return jax.tree.map(jnp.add, sums, of_block), None

    zeros: Sums = {name: jnp.zeros((), jnp.float32) for name in ("loss", "correct", "count")}
    if confusion:
        zeros["confusion"] = jnp.zeros((logits.shape[-1],) * 2, jnp.int32)
    return jax.lax.scan(add, zeros, (rows, targets))[0]

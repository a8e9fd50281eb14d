"""A dataset of one's own, in one file: what docs/walks/dataset.md walks through."""

import numpy as np

import unnas_jax as un


def open_stripes(section):
    """Images with stripes across (class 0) or along (class 1)."""
    rng = np.random.default_rng(0)
    labels = np.arange(64) % 2
    stripes = np.where(np.arange(20) // 2 % 2, 200, 50)[None, :, None]
    images = np.stack(
        [(stripes.swapaxes(0, 1) if k else stripes) + np.zeros((20, 20, 3)) for k in labels]
    )
    images = np.clip(images + rng.normal(0, 20, images.shape), 0, 255).astype(np.uint8)
    return un.arrays(
        images[16:], labels[16:], validation=(images[:16], labels[:16]), name="stripes"
    )


un.register_dataset("stripes", open_stripes)

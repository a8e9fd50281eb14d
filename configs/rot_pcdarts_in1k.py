"""PC-DARTS on ImageNet-1K without labels: its recipe with rotation for the labels.

    python main.py --config=configs/rot_pcdarts_in1k.py --workdir=runs/rot_pcdarts_in1k

Cost: 1,251 weight and as many alpha steps an epoch of 512 images in four turns, of all images; the
authors take 10% of every class (--config.dataset.subset=FILE) with labels.
Expected: no published number to compare with; pcdarts_in1k is the search with labels.
"""

import ml_collections

from unnas_jax.config import recipes
from unnas_jax.methods import registry


def get_config() -> ml_collections.ConfigDict:
    """The recipe."""
    config = recipes.partial_imagenet("rot")
    registry.choose(config, "pc_darts", warmup_epochs=5, alphas_clip_norm=5.0)
    return config

"""PC-DARTS on ImageNet-1K with labels (Xu et al., 2020).

    python main.py --config=configs/pcdarts_in1k.py --workdir=runs/pcdarts_in1k

Cost: 625 weight and as many alpha steps an epoch of 1024 images, of all images; the authors take
10% of every class for the weights (--config.dataset.subset=FILE) and 11.5 hours on eight V100.
Expected: a cell like the published pcdarts_in1k, which reaches 75.8% top-1 at width 48.
"""

import ml_collections

from unnas_jax.config import recipes
from unnas_jax.methods import registry


def get_config() -> ml_collections.ConfigDict:
    """The recipe."""
    config = recipes.partial_imagenet("cls")
    registry.choose(config, "pc_darts", warmup_epochs=5, alphas_clip_norm=5.0)
    return config

"""Train a genotype on ImageNet-1K from scratch: the paper's table 1.

    python main.py --config=configs/eval_in1k.py:unnas_in1k_rot
    python main.py --config=configs/eval_in1k.py:runs/rot_in1k/genotype.json

250 epochs at batch 1024, three seeds. The published rows lie between 74.9% (darts_v2) and 76.3%.
"""

import ml_collections

from unnas_jax.config import recipes


def get_config(genotype: str = "darts_v2") -> ml_collections.ConfigDict:
    """The recipe for a published genotype, by name, or for a genotype.json."""
    return recipes.evaluation(genotype)

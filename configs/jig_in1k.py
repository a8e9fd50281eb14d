"""Search on ImageNet-1K with jigsaw puzzles, the paper's recipe (table 1, row "IN1K").

    python main.py --config=configs/jig_in1k.py --workdir=runs/jig_in1k
"""

import ml_collections

from configs import common


def get_config() -> ml_collections.ConfigDict:
    """The recipe."""
    return common.imagenet_1k("jig")

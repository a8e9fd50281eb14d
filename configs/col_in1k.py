"""Search on ImageNet-1K with colorization, the paper's recipe (table 1, row "IN1K").

    python main.py --config=configs/col_in1k.py --workdir=runs/col_in1k
"""

import ml_collections

from configs import common


def get_config() -> ml_collections.ConfigDict:
    """The recipe."""
    return common.imagenet_1k("col")

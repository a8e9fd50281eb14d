"""500 random cells of NAS-Bench-201 on CIFAR-10, four tasks, three seeds.

    python main.py --config=configs/sample_nasbench201_cifar10.py
    unnas-jax status runs/sample_nasbench201_cifar10
    unnas-jax figures runs/sample_nasbench201_cifar10 --out=runs/figures

No two of the cells compute the same. Networks are the benchmark's (a stem of 16 channels, three
stages of five cells) and so is the recipe of every task but for the batches of those that make
several examples of an image (Dong and Yang, 2020, table 1): SGD with Nesterov momentum 0.9, batches
of 256, rate 0.1 falling as a cosine to 0 in 200 epochs, weight decay 5e-4, flips and crops of
images padded by 4. Cost: 2,000 units of three trainings of 39,000 steps and, for rotation and
jigsaw, 312,400 of 32 images; a forward pass takes 8 to 220 million multiply-adds.

Published for the same cells with labels: accuracies from 10% to 94% (the benchmark's tables).
"""

import ml_collections

from unnas_jax.config import sweep_recipes


def get_config() -> ml_collections.ConfigDict:
    """The recipe."""
    config = sweep_recipes.cifar10("nasbench201")
    sweep_recipes.nasbench201_cifar10(config)
    return config

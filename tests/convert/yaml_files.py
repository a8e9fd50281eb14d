"""What the release's YAML files say of every experiment, as trees; read off its files."""

from typing import Any

SEARCHES = {
    # Classes, cells, weights' and alphas' rates, weight decay, epochs, batch, crop, resize.
    "imagenet/cls": (1000, 8, 0.1, 3e-4, 3e-5, 2, 64, 224, 256),
    "imagenet/rot": (4, 8, 0.05, 1.5e-4, 3e-5, 2, 32, 224, 256),
    "imagenet/col": (313, 8, 0.1, 3e-4, 3e-5, 2, 64, 224, 256),
    "imagenet/jig": (1000, 8, 0.05, 1.5e-4, 3e-5, 2, 32, 255, 256),
    "imagenet22k/cls": (21841, 8, 0.4, 1.2e-3, 3e-5, 1, 256, 224, 256),
    "imagenet22k/rot": (4, 8, 0.2, 6e-4, 3e-5, 1, 128, 224, 256),
    "imagenet22k/col": (313, 8, 0.4, 1.2e-3, 3e-5, 1, 256, 224, 256),
    "imagenet22k/jig": (1000, 8, 0.2, 6e-4, 3e-5, 1, 128, 255, 256),
    "cityscapes/seg": (19, 12, 0.1, 3e-4, 3e-4, 400, 32, 321, 512),
    "cityscapes/rot": (4, 12, 0.05, 1.5e-4, 3e-4, 400, 16, 321, 512),
    "cityscapes/col": (313, 12, 0.05, 1.5e-4, 3e-4, 400, 16, 321, 512),
    "cityscapes/jig": (1000, 12, 0.1, 3e-4, 3e-4, 400, 32, 321, 512),
    # Not among its files: DARTS' search (Liu et al., 2019), which its code can run.
    "cifar10/cls": (10, 8, 0.025, 3e-4, 3e-4, 50, 64, 32, 32),
    "cifar10/rot": (4, 8, 0.0125, 1.5e-4, 3e-4, 50, 32, 32, 32),
    "cifar10/col": (313, 8, 0.025, 3e-4, 3e-4, 50, 64, 32, 32),
    "cifar10/jig": (24, 8, 0.0125, 1.5e-4, 3e-4, 50, 32, 32, 32),
}
"""By dataset and task."""

SAMPLES = {
    # Depth or modules, width, epochs, weight decay, images of precise statistics, resize.
    "darts/cifar10": (20, 16, 100, 5e-4, 1024, 32),
    "darts/imagenet": (22, 32, 5, 5e-5, 1024, 256),
    "nas_bench/cifar10": (3, 128, 100, 5e-4, 1024, 32),
    "nas_bench/imagenet": (4, 128, 10, 5e-5, 0, 256),
}
"""By space and dataset."""

CELLS = {
    "CUSTOM_GENOTYPE": [
        [["avg_pool_3x3", 1], ["sep_conv_3x3", 1], ["sep_conv_5x5", 1], ["dil_conv_5x5", 1],
         ["none", 0], ["dil_conv_3x3", 2], ["dil_conv_3x3", 2], ["sep_conv_3x3", 1]],
        [2, 3, 4, 5],
        [["sep_conv_3x3", 0], ["dil_conv_3x3", 0], ["skip_connect", 0], ["dil_conv_3x3", 0],
         ["none", 1], ["dil_conv_5x5", 1], ["dil_conv_3x3", 4], ["skip_connect", 4]],
        [2, 3, 4, 5],
    ],
    "GENOTYPE": "custom",
}  # fmt: skip
BENCHMARK_CELL = {
    "MATRIX": [
        [0, 1, 0, 1, 0, 0, 0], [0, 0, 1, 0, 1, 0, 0], [0, 0, 0, 1, 0, 0, 0], [0, 0, 0, 0, 1, 0, 0],
        [0, 0, 0, 0, 0, 1, 1], [0, 0, 0, 0, 0, 0, 1], [0, 0, 0, 0, 0, 0, 0],
    ],
    "OPS": ["input", "conv3x3-bn-relu", "conv1x1-bn-relu", "conv1x1-bn-relu", "maxpool3x3",
            "conv1x1-bn-relu", "output"],
}  # fmt: skip


def _of_task(tree: dict[str, Any], task: str) -> dict[str, Any]:
    """Adds what files say for a task alone."""
    if task != "cls":
        tree["TASK"] = task
    if task == "col":
        tree["MODEL"]["INPUT_CHANNELS"] = 1
    if task == "jig":
        tree["TRAIN"]["GRAY_PERCENTAGE"] = 0.3
        if tree["TRAIN"]["DATASET"] == "cifar10":
            tree["JIGSAW_GRID"] = 2
    return tree


def search(name: str) -> dict[str, Any]:
    """The file of a search."""
    dataset, task = name.split("/")
    classes, cells, rate, alphas, decay, epochs, batch, crop, resize = SEARCHES[name]
    tree: dict[str, Any] = {
        "MODEL": {"TYPE": "nas_search", "NUM_CLASSES": classes},
        "NAS": {"WIDTH": 16, "DEPTH": cells},
        "OPTIM": {
            "BASE_LR": rate, "LR_POLICY": "cos", "MAX_EPOCH": epochs, "MOMENTUM": 0.9,
            "NESTEROV": False, "WEIGHT_DECAY": decay, "ITER_LR": False, "ARCH_BASE_LR": alphas,
            "ARCH_WEIGHT_DECAY": 1e-3,
        },
        "TRAIN": {
            "DATASET": dataset, "SPLIT": "train", "BATCH_SIZE": batch, "IM_SIZE": crop,
            "EVAL_PERIOD": 1, "PORTION": 0.5,
        },
        "TEST": {"BATCH_SIZE": batch, "IM_SIZE": resize},
    }  # fmt: skip
    if dataset == "imagenet":
        tree["OPTIM"]["ARCH_EPOCH"] = 1.0
    if task == "seg":
        tree["MODEL"].update(ASPP_CHANNELS=64, ASPP_RATES=[6])
    return _of_task(tree, task)


def sample(group: str, task: str) -> dict[str, Any]:
    """The file of an architecture of a sample."""
    space, dataset = group.split("/")
    depth, width, epochs, decay, precise, resize = SAMPLES[group]
    cifar, several = dataset == "cifar10", task in ("rot", "jig")
    classes = {"cls": 10 if cifar else 1000, "rot": 4, "col": 313, "jig": 24 if cifar else 1000}
    rate, batch = (0.025 if several else 0.1, 32 if several else 128) if cifar else (0.0125, 32)
    size = 32 if cifar else 255 if task == "jig" else 224
    of_space = (
        {**CELLS, "DEPTH": depth}
        if space == "darts"
        else {**BENCHMARK_CELL, "NUM_STACKS": 3, "NUM_MODULES_PER_STACK": depth}
    )
    tree: dict[str, Any] = {
        "MODEL": {"TYPE": "nas" if space == "darts" else "nas_bench", "NUM_CLASSES": classes[task]},
        "NAS": {**of_space, "WIDTH": width},
        "OPTIM": {
            "BASE_LR": rate, "LR_POLICY": "cos", "MAX_EPOCH": epochs, "MOMENTUM": 0.9,
            "NESTEROV": True, "WEIGHT_DECAY": decay,
        },
        "TRAIN": {
            "DATASET": dataset, "SPLIT": "train", "BATCH_SIZE": batch, "IM_SIZE": size,
            "EVAL_PERIOD": 1,
        },
        "TEST": {
            "DATASET": dataset, "SPLIT": "test" if cifar else "val",
            "BATCH_SIZE": (50 if several else 200) if cifar else 25, "IM_SIZE": resize,
        },
    }  # fmt: skip
    if precise:
        tree["BN"] = {"USE_PRECISE_STATS": True, "NUM_SAMPLES_PRECISE": precise}
    return _of_task(tree, task)

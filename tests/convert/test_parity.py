"""Networks here against the release's, written anew in float64, with the same weights."""

import jax
import numpy as np
import pytest

from tests.convert import release
from tests.spaces import quick
from unnas_jax.config import schema as config_lib
from unnas_jax.convert import params_from_torch, params_to_torch
from unnas_jax.spaces import complexity, networks
from unnas_jax.spaces.darts import genotype as genotype_lib
from unnas_jax.spaces.darts.supernet import build_supernet
from unnas_jax.tasks.dense import upsample

TASKS = {
    "cls": "classification",
    "rot": "rotation",
    "col": "colorization",
    "jig": "jigsaw",
    "seg": "segmentation",
}
CLASSES = {"cls": 5, "rot": 4, "col": 313, "jig": 24, "seg": 19}


def images(count, channels, side, seed=0):
    return np.random.default_rng(seed).standard_normal((count, channels, side, side))


def here(x):
    """(N, C, H, W) as the networks here take it."""
    return np.moveaxis(x, 1, -1).astype(np.float32)


def close(found, expected):
    """Equal to 1e-4 of the largest value."""
    expected = np.asarray(expected)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def training(task, cifar, side, **network):
    config = config_lib.training()
    config.task.update(name=TASKS[task], grid=2, permutations=24, label_smoothing=0.0)
    config.task.update(aspp_channels=6, aspp_rates=(1, 2, 3))
    config.dataset.name = "cityscapes" if task == "seg" else "tfds:something"
    config.input.update(crop=side, resize=side)
    config.network.update(stem="cifar" if cifar else "imagenet", width="4", cells=3)
    config.network.update({"auxiliary_weight": 0.0, **network})
    return config


# Every operation that a genotype can name is in one of these cells; a cell of three nodes.
CELLS = "+".join(
    [
        "sep_conv_3x3:0,dil_conv_5x5:1,conv_3x1_1x3:2,skip_connect:0,avg_pool_3x3:1,none:3@2.4",
        "skip_connect:0,max_pool_3x3:1,dil_conv_3x3:0,sep_conv_5x5:2,conv_1x1:1,dil_sep_conv_3x3:3",
    ]
)
OTHERS = "sep_conv_7x7:1,conv_7x1_1x7:0+conv_3x3:0,max_pool_5x5:1"


@pytest.mark.parametrize(
    "task, cifar, cells, side, train, auxiliary",
    [
        ("cls", True, CELLS, 32, True, True),
        ("cls", False, OTHERS, 224, True, True),
        ("jig", False, OTHERS, 48, False, False),
        ("col", True, OTHERS, 16, True, False),
        ("seg", False, OTHERS, 40, False, False),
    ],
)
def test_darts_networks(task, cifar, cells, side, train, auxiliary):
    channels, count = (1 if task == "col" else 3), (8 if task == "jig" else 2)
    config = training(task, cifar, side, genotype=cells, auxiliary_weight=0.4 if auxiliary else 0.0)
    x, w = images(count, channels, side), release.Tensors(1, train)
    head = {"classes": CLASSES[task]}
    if task == "jig":
        head["tiles"] = 4
    if task == "seg":
        head.update(channels=6, rates=(1, 2, 3))
    genotype = genotype_lib.parse(cells).as_dict()
    shape = {"genotype": genotype, "width": 4, "depth": 3, "cifar": cifar, "task": task}
    expected, extra = release.darts(w, x, **shape, auxiliary=auxiliary, **head)

    variables = params_from_torch(w.values, config)
    c = config.to_dict() | {"precision": "float32"}
    network = networks.build_network(c, complexity.task_of(c, CLASSES[task]))

    @quick.jit
    def apply(variables, x):
        outputs, updated = network.apply(variables, x, train=train, mutable=["batch_stats"])
        return outputs

    kept = {name: variables[name] for name in ("params", "batch_stats")}
    found, auxiliary_found = apply(kept, here(x))
    if task in ("col", "seg"):
        found = np.moveaxis(upsample(found, (side, side)), -1, 1)
    close(found, expected)
    if auxiliary:
        close(auxiliary_found, extra)
    back = params_to_torch(variables, config)
    assert back.keys() == w.values.keys()
    for name, tensor in back.items():
        assert tensor.dtype == w.values[name].dtype, name
        np.testing.assert_array_equal(tensor, w.values[name], name)


def test_supernet_and_the_gradient_of_its_alphas():
    config = config_lib.search()
    config.network.update(width=4, cells=3, nodes=2)
    config.search.formulation = "depthwise"
    config.precision = "float32"
    x, w = images(4, 3, 64), release.Tensors(2)
    shape = {"width": 4, "depth": 3, "nodes": 2, "cifar": False, "classes": 4}
    expected = release.supernet(w, x, **shape)
    mixture = np.random.default_rng(3).standard_normal(expected.shape)
    tensors = dict(w.values)
    share_pools(tensors)

    variables = params_from_torch(tensors, config)
    c = config.to_dict()
    network = build_supernet(c, complexity.task_of(c))

    def value(alphas, variables, x):
        logits, _ = network.apply(variables, x, alphas, train=True, mutable=["batch_stats"])
        return (logits * mixture.astype(np.float32)).sum(), logits

    kept = {name: variables[name] for name in ("params", "batch_stats")}
    gradient = quick.jit(jax.grad(value, has_aux=True))
    found, logits = gradient(variables["alphas"], kept, here(x))
    close(logits, expected)

    alphas = {kind: w.values[f"net_.alphas_{kind}"].astype(float) for kind in found}
    rng, step = np.random.default_rng(4), 1e-5
    for _ in range(4):
        direction = {kind: rng.standard_normal(value.shape) for kind, value in alphas.items()}

        def along(distance, direction=direction):
            moved = {kind: alphas[kind] + distance * direction[kind] for kind in alphas}
            return (release.supernet(w, x, **shape, alphas=moved) * mixture).sum()

        slope = (along(step) - along(-step)) / (2 * step)
        size = np.sqrt(sum((np.asarray(value) ** 2).sum() for value in found.values()))
        product = sum((np.asarray(found[kind]) * direction[kind]).sum() for kind in found)
        assert abs(product - slope) < 1e-3 * size


def share_pools(tensors):
    """Gives the poolings of all edges of a source the statistics that they have in a training."""
    sources = [0, 1, 0, 1, 2]  # Of the edges of two nodes.
    for name in list(tensors):
        parts = name.split(".")
        if parts[1] == "cells" and parts[3] == "_ops" and parts[5] == "_ops":
            first = sources.index(sources[int(parts[4])])
            if parts[6] in ("1", "2"):
                tensors[name] = tensors[".".join([*parts[:4], str(first), *parts[5:]])]


# The output takes 7 channels of vertices 1 and 3: 4 and 3; vertex 2 feeds 3 alone; an edge leads
# from the input to the output. Vertex 4 is on no path.
MATRIX = [
    [0, 1, 1, 0, 0, 1],
    [0, 0, 0, 1, 0, 1],
    [0, 0, 0, 1, 0, 0],
    [0, 0, 0, 0, 0, 1],
    [0, 0, 0, 0, 0, 0],
    [0, 0, 0, 0, 0, 0],
]
OPS = ["input", "conv3x3", "conv1x1", "maxpool3x3", "conv1x1", "output"]


@pytest.mark.parametrize("task, cifar, width", [("col", True, 7), ("jig", False, 10)])
def test_nasbench101_networks(task, cifar, width):
    text = "-".join("".join(map(str, row)) for row in MATRIX) + ":" + ",".join(OPS[1:-1])
    side, channels = 32 if task == "jig" else 9, 1 if task == "col" else 3
    config = training(task, cifar, side, genotype=text, space="nasbench101", width=str(width))
    config.network.update(stacks=2, modules=2)
    x, w = images(4, channels, side), release.Tensors(5)
    kept = [0, 1, 2, 3, 5]
    expected = release.nasbench101(
        w,
        x,
        matrix=[[MATRIX[a][b] for b in kept] for a in kept],
        operations=[OPS[k] for k in kept],
        channels=[[-(-c // 2), c // 2, c // 2] for c in (width, 2 * width)],
        width=width,
        stacks=2,
        modules=2,
        cifar=cifar,
        classes=CLASSES[task],
        task=task,
        tiles=4 if task == "jig" else 1,
    )
    variables = params_from_torch(w.values, config)
    c = config.to_dict() | {"precision": "float32"}
    network = networks.build_network(c, complexity.task_of(c, CLASSES[task]))
    kept = {name: variables[name] for name in ("params", "batch_stats")}
    apply = quick.jit(lambda v, x: network.apply(v, x, train=True, mutable=["batch_stats"])[0][0])
    found = apply(kept, here(x))
    if task == "col":
        found = np.moveaxis(upsample(found, (side, side)), -1, 1)
    close(found, expected)
    back = params_to_torch(variables, config)
    assert back.keys() == w.values.keys()
    for name, tensor in back.items():
        np.testing.assert_array_equal(tensor, w.values[name], name)

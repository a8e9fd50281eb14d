"""Paths through supernets: drawn uniformly; the vectors of their weights and the angle of RLNAS."""

import itertools
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pytest

from unnas_jax.core.errors import UserError
from unnas_jax.layers import counting
from unnas_jax.layers.heads import ImageHead
from unnas_jax.spaces import vectors
from unnas_jax.spaces.darts import candidates, genotype, paths, published
from unnas_jax.spaces.darts.network import Network
from unnas_jax.spaces.darts.supernet import Supernet
from unnas_jax.spaces.nasbench201 import paths as paths201
from unnas_jax.spaces.nasbench201 import spec
from unnas_jax.spaces.nasbench201.supernet import Supernet as Supernet201
from unnas_jax.spaces.vectors import Part

RNG = np.random.default_rng(0)
DRAWS = 3000


def darts(width: int = 2, cells: int = 3, nodes: int = 2, **own: Any) -> paths.Paths:
    own = {"stem": "cifar", "formulation": "per_edge", "one": True, "affine": True, **own}
    return paths.Paths(Supernet(width, cells, nodes, head=ImageHead(10), **own))


def drawn(of: Any) -> Any:
    keys = jax.random.split(jax.random.key(1), DRAWS)
    return jax.device_get(jax.vmap(of.draw)(keys))


def near(share: float, expected: float) -> bool:
    """Within five standard deviations of a share of the draws."""
    return abs(share - expected) < 5 * np.sqrt(expected * (1 - expected) / DRAWS)


def test_darts_paths_are_uniform_cells_of_two_edges_a_node() -> None:
    names = (("none", "skip_connect", "conv_3x3"), ("conv_3x3", "skip_connect"))
    edges = (*(names[:1] * 4), names[1])
    of = darts(operations=dict.fromkeys(candidates.KINDS, edges))
    found = drawn(of)
    for kind in candidates.KINDS:
        path = found[kind]
        assert path.shape == (DRAWS, 5, 3) and set(np.unique(path)) == {0, 1}
        assert not path[:, :4, 0].any() and not path[:, 4, 2].any()
        used = path.sum(-1)
        assert (used[:, :2] == 1).all() and (used[:, 2:].sum(1) == 2).all()
        assert all(near(share, 2 / 3) for share in used[:, 2:].mean(0))
        for edge, operation in itertools.product(range(5), range(2)):
            column = operation if edge == 4 else operation + 1
            assert near(path[:, edge, column].mean(), (1 if edge < 2 else 2 / 3) / 2)
    # Both kinds of cell draw apart; a candidate's path is one of these.
    assert near((found["normal"][:, 2].sum(-1) == found["reduce"][:, 2].sum(-1)).mean(), 5 / 9)
    for cell in of.cells(5, 3):
        path = of.of(cell)
        assert path["normal"].sum() == 4 and of.cells(2, 3) == of.cells(5, 3)[:2]


def test_nasbench201_paths_are_uniform() -> None:
    found = drawn(paths201.Paths(Supernet201(ImageHead(10), 2, 1)))["operations"]
    for edge, operation in itertools.product(range(6), range(5)):
        assert near((found[:, edge] == operation).mean(), 0.2)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("conv_1x1:0,conv_3x3:1+conv_3x3:0,conv_3x3:1", "'conv_1x1' is no operation of the normal"),
        ("conv_3x3:0,skip_connect:0+conv_3x3:0,conv_3x3:1", "takes state 0 twice"),
        (",".join(["conv_3x3:0,conv_3x3:1"] * 2) + "+conv_3x3:0,conv_3x3:1", "cells have 1 nodes"),
    ],
)
def test_cells_that_are_no_paths(text: str, words: str) -> None:
    of = darts(nodes=1, operations=candidates.everywhere(1, ("conv_3x3", "skip_connect")))
    with pytest.raises(UserError, match=words):
        of.of(genotype.parse(text))


def test_angles_of_known_vectors() -> None:
    before, after = {"a": np.array([1.0, 0.0, 1.0])}, {"a": np.array([0.0, 1.0, 1.0])}
    assert vectors.angle(before, after, [Part(("a",))]) == pytest.approx(np.pi / 3)
    assert vectors.angle(before, before, [Part(("a",))]) == 0
    opposite = {"a": -before["a"]}
    assert vectors.angle(before, opposite, [Part(("a",))]) == pytest.approx(np.pi)
    # One entry of 1 that never changes.
    assert vectors.angle(
        {"a": np.array([1.0, 0.0])}, {"a": np.array([0.0, 1.0])}, [Part(("a",), 1, 1, 1.0)]
    ) == pytest.approx(np.pi / 3)
    assert vectors.angle({"a": np.zeros(2)}, {"a": np.ones(2)}, [Part(("a",))]) == 0


# RLNAS' own vectors: CIFAR-10 (16 channels, 8 cells), ImageNet (48, 14).
@pytest.mark.parametrize(
    ("name", "width", "cells", "stem", "classes", "length"),
    [
        ("rlnas_c10", 16, 8, "cifar", 10, 869_680),
        ("rlnas_600m", 48, 14, "imagenet", 1000, 11_270_176),
    ],
)
def test_published_lengths(
    name: str, width: int, cells: int, stem: str, classes: int, length: int
) -> None:
    """Of a cell's own network, whose layers stand where the supernet has them."""
    cell = published.resolve(name)
    network = Network(cell, width, cells, stem, ImageHead(classes))
    side = 32 if stem == "cifar" else 224
    params: dict[str, Any] = {}
    counts = counting.count(network, counting.answer(network, (side, side, 3)), train=False)
    for layer in counts.layers:
        place = layer.name.split("/")
        if place[1].startswith("op_"):
            number = int(place[1].removeprefix("op_"))
            kind = "reduce" if place[0] in reductions(cells) else "normal"
            operation, source = getattr(cell, kind)[number]
            place[1:2] = [f"edge_{source}_{number // 2}", "chosen", operation]
        tree = params
        for part in place:
            tree = tree.setdefault(part, {})
        values = layer.parameters
        if place[0] == "head":
            tree["bias"] = np.zeros(classes)
            values -= classes
        tree["kernel"] = np.broadcast_to(np.float64(0), values)
    of = darts(width, cells, 4, stem=stem)
    parts = of.parts(cell)
    for part in parts:  # Behind its pooling a supernet has a batch norm, with scale and bias.
        if part.place[-1].endswith("_pool_3x3"):
            channels = part.length // 9
            params[part.place[0]].setdefault(part.place[1], {})["chosen"] = {
                part.place[3]: {"bn": np.zeros(2 * channels)}
            }
    assert vectors.length(params, parts) == length


def reductions(cells: int) -> list[str]:
    return [f"cell_{cells // 3}", f"cell_{2 * cells // 3}"]


def routes(edges: dict[tuple[int, int], Any], here: int, ends: set[int]) -> Iterator[list[Any]]:
    """The edges along every way from a state to an end."""
    if here in ends:
        yield []
    for (source, target), edge in edges.items():
        if source == here:
            yield from ([edge, *rest] for rest in routes(edges, target, ends))


def test_a_vector_of_darts_entry_by_entry() -> None:
    """All paths written out: from either input, ending at any node."""
    cell = genotype.parse(
        "sep_conv_3x3:0,skip_connect:1,avg_pool_3x3:2,none:0+none:0,none:1,sep_conv_3x3:2,skip_connect:1"
    )
    width, of = 2, darts(width=2)

    def values() -> dict[str, Any]:
        tree: dict[str, Any] = {"stem": {"k": RNG.normal(size=5)}}
        tree["head"] = {"linear": {"kernel": RNG.normal(size=(4, 3)), "bias": RNG.normal(size=3)}}
        for k in range(3):
            tree[f"cell_{k}"] = {f"preprocess{i}": {"k": RNG.normal(size=4)} for i in range(2)}
        first = tree["cell_0"]
        first["edge_0_0"] = {"chosen": {"sep_conv_3x3": {"k": RNG.normal(size=7)}}}
        first["edge_2_1"] = {"chosen": {"avg_pool_3x3": {"bn": RNG.normal(size=2)}}}
        for k in (1, 2):
            tree[f"cell_{k}"]["edge_2_1"] = {"chosen": {"sep_conv_3x3": {"k": RNG.normal(size=3)}}}
            tree[f"cell_{k}"]["edge_1_1"] = {"chosen": {"skip_connect": {"k": RNG.normal(size=6)}}}
        return tree

    def vector(tree: dict[str, Any]) -> np.ndarray:
        parts = [tree["stem"]["k"], tree["head"]["linear"]["kernel"].ravel()]
        parts += [tree[f"cell_{k}"][f"preprocess{i}"]["k"] for k in range(3) for i in range(2)]
        first = tree["cell_0"]
        edges: dict[tuple[int, int], Any] = {
            (0, 2): first["edge_0_0"]["chosen"]["sep_conv_3x3"]["k"],
            (1, 2): np.eye(width).ravel(),
            (2, 3): np.r_[
                np.full(9 * width, 1 / 9), first["edge_2_1"]["chosen"]["avg_pool_3x3"]["bn"]
            ],
        }
        of_cells = [edges]
        for k in (
            1,
            2,
        ):  # No path begins at node 0, which nothing enters; at stride 2 a skip has weights.
            of_cells.append({(1, 3): tree[f"cell_{k}"]["edge_1_1"]["chosen"]["skip_connect"]["k"]})
        for edges in of_cells:
            for start in (0, 1):
                for route in routes(edges, start, {2, 3}):
                    parts += route
        return np.concatenate(parts)

    before, after = values(), values()
    a, b = vector(before), vector(after)
    expected = np.arccos(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    assert vectors.length(before, of.parts(cell)) == a.size
    assert vectors.angle(before, after, of.parts(cell)) == pytest.approx(expected, rel=1e-12)


def test_a_vector_of_nasbench201_entry_by_entry() -> None:
    """Paths from the input to the output, in every cell; reductions once."""
    cell = spec.parse(
        "|nor_conv_3x3~0|+|skip_connect~0|avg_pool_3x3~1|+|none~0|nor_conv_1x1~1|nor_conv_3x3~2|"
    )
    of = paths201.Paths(Supernet201(ImageHead(10), 2, 1))
    convolutions = {(0, 1): "nor_conv_3x3", (1, 3): "nor_conv_1x1", (2, 3): "nor_conv_3x3"}

    def values() -> dict[str, Any]:
        tree: dict[str, Any] = {name: {"k": RNG.normal(size=3)} for name in ("stem", "bn")}
        tree["head"] = {"linear": {"kernel": RNG.normal(size=(4, 3)), "bias": RNG.normal(size=3)}}
        for stage in range(3):
            tree[f"reduction_{stage}"] = {"k": RNG.normal(size=5)}
            tree[f"stage_{stage}_cell_0"] = {
                f"edge_{a}_{b}": {name: {"k": RNG.normal(size=4)}}
                for (a, b), name in convolutions.items()
            }
        del tree["reduction_0"]
        return tree

    def vector(tree: dict[str, Any]) -> np.ndarray:
        parts = [tree["stem"]["k"], tree["bn"]["k"], tree["head"]["linear"]["kernel"].ravel()]
        for stage in range(3):
            channels = 2 * 2**stage
            parts += [tree[f"reduction_{stage}"]["k"]] if stage else []
            edges = {
                (a, b): tree[f"stage_{stage}_cell_0"][f"edge_{a}_{b}"][name]["k"]
                for (a, b), name in convolutions.items()
            }
            edges |= {(0, 2): np.eye(channels).ravel(), (1, 2): np.full(9 * channels, 1 / 9)}
            for route in routes(edges, 0, {3}):
                parts += route
        return np.concatenate(parts)

    before, after = values(), values()
    a, b = vector(before), vector(after)
    expected = np.arccos(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    assert vectors.length(before, of.parts(cell)) == a.size
    assert vectors.angle(before, after, of.parts(cell)) == pytest.approx(expected, rel=1e-12)

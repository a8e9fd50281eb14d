"""Tests of P-DARTS: closed forms of its rules, its stages, mistakes."""

import ast
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import tiny
from unnas_jax.config.sections import MethodConfig
from unnas_jax.core import sharding
from unnas_jax.core.errors import UserError
from unnas_jax.methods import p_darts, registry
from unnas_jax.methods.base import Setting
from unnas_jax.methods.p_darts import PDarts
from unnas_jax.runs import validation
from unnas_jax.spaces import complexity
from unnas_jax.spaces.darts.candidates import KINDS, OPERATIONS
from unnas_jax.tasks import registry as tasks


def test_the_least_operations_go_and_of_equals_the_first() -> None:
    weights = [0.05, 0.1, 0.02, 0.3, 0.2, 0.13, 0.1, 0.1]
    kept = p_darts.kept_operations(weights, OPERATIONS, 5)
    assert kept == [OPERATIONS[k] for k in (3, 4, 5, 6, 7)]
    assert p_darts.kept_operations([0.4, 0.6], ["none", "skip_connect"], 3) == [
        "none", "skip_connect"
    ]  # fmt: skip


def test_dropout_falls_and_comes_back_when_the_alphas_move() -> None:
    rates = {e: float(p_darts.skip_dropout(0.7, e, 25, 10.0)) for e in (0, 9, 10, 11, 24)}
    assert rates == pytest.approx({0: 0.672, 9: 0.42, 10: 0.7, 11: 0.5731, 24: 0.0426}, abs=5e-5)


def test_a_limit_of_skips() -> None:
    """Without the skip of edge 0 another edge of its node is stronger, and replaces it."""
    names = (("skip_connect", "sep_conv_3x3", "dil_conv_3x3"),) * 5
    weights = np.full((5, 3), 0.01)
    weights[0, 1] = weights[1, 1] = 0.9  # The first node's edges.
    weights[2], weights[3, 1], weights[4, 2] = [0.4, 0.35, 0.1], 0.5, 0.38
    free = p_darts.limited(weights, names, 2, 8)
    assert free[2:] == (("skip_connect", 0), ("sep_conv_3x3", 1))
    assert p_darts.limited(weights, names, 2, 1) == free
    limited = p_darts.limited(weights, names, 2, 0)
    assert limited[2:] == (("sep_conv_3x3", 1), ("dil_conv_3x3", 2))
    only = (("none", "skip_connect"),) * 2
    assert p_darts.limited(np.full((2, 2), 0.5), only, 1, 0) == (
        ("skip_connect", 0),
        ("skip_connect", 1),
    )


def test_of_equal_edges_the_later_ones_stay_and_are_listed_by_edge() -> None:
    cell = p_darts.final_cell(np.full((5, 2), 0.5), (("none", "max_pool_3x3"),) * 5, 2)
    assert [source for _, source in cell] == [0, 1, 1, 2]


def config_of(**options: object):
    config = tiny.config(epochs=6)
    config.network.nodes = 1
    registry.choose(config, "p_darts", **{"cells_added": (0, 1, 2), **options})
    return config


def method(stage: int, carried: object) -> PDarts:
    c = config_of().to_dict()
    mesh = sharding.data_mesh(jax.devices()[:1])
    task = tasks.create(c, tiny.dataset())
    return PDarts(Setting(MethodConfig.of(c), task, mesh, 4, stage, 8 * stage, carried))


def test_a_stage_has_what_the_one_before_left() -> None:
    first = method(0, None)
    assert [stage.steps for stage in PDarts.stages(MethodConfig.of(config_of().to_dict()), 4)] == [
        8,
        8,
        8,
    ]
    state = jax.eval_shape(first.initial)
    alphas = {kind: np.tile(np.arange(8.0), (2, 1)) for kind in KINDS}
    carried = first.finish(state.replace(alphas=alphas))
    assert carried == {kind: [list(OPERATIONS[3:])] * 2 for kind in KINDS}
    second = method(1, carried)
    assert (first.supernet.cells, second.supernet.cells) == (3, 4)
    assert second.supernet.formulation == "per_edge"
    alphas = second.initial_alphas(jax.random.key(0))
    assert alphas["normal"].shape == (2, 5)
    weights = {kind: np.asarray(value) for kind, value in second.mix(alphas).items()}
    np.testing.assert_array_equal(weights["normal"][:, :3], 0)
    shares = jax.nn.softmax(alphas["normal"])
    np.testing.assert_allclose(weights["normal"][:, 3:], shares, rtol=1e-6)
    own = second.taken(second.mix_in_evaluation(alphas, jnp.int32(8)))
    np.testing.assert_allclose(own["normal"], weights["normal"][:, 3:], rtol=1e-6)
    # The rates and the dropout begin anew.
    assert float(second.learning_rate(8)) == pytest.approx(0.05)
    assert float(second.skips(8)["dropout"]) == pytest.approx(0.4 * np.exp(0))
    third = method(
        2, second.finish(state.replace(alphas={kind: np.zeros((2, 5)) for kind in KINDS}))
    )
    assert third.left["normal"][0] == OPERATIONS[5:]


def test_the_first_supernet_has_the_published_size() -> None:
    config = importlib.import_module("configs.pdarts_cifar10").get_config()
    assert complexity.of_config(config.to_dict())["parameters"] == 1_275_834


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kept": (5, 0)}, r"config.method.kept=\(5, 0\): must fall .* and leave an operation"),
        ({"kept": (3, 5)}, r"config.method.kept=\(3, 5\): must fall"),
        ({"kept": (3, 1)}, r"config.method.kept=\(3, 1\): may leave an edge 'none' alone"),
        ({"kept": (5, 3, 1)}, "give 2 integers"),
        ({"cells_added": (0, 6.0, 12)}, "give 3 integers"),
        ({"skip_dropout": (0.0, 0.4, 1.0)}, r"must be in \[0, 1\)"),
        ({"skip_limit": -1}, "must be at least 0"),
        ({"threshold": 0.5}, "P-DARTS chooses cells by its own rule"),
    ],
)
def test_mistakes_in_options(options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        validation.validate(config_of(**options))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("operations", "remedy"),
    [
        (OPERATIONS[3:5], "no edge has more than 2 operations; use another method"),  # S2.
        (("none", "skip_connect", "sep_conv_3x3"), "than 3 operations; use another method"),  # S3.
        (OPERATIONS[3:6], r"than 3 operations; set config.method.kept=\(2, 1\)"),
        (OPERATIONS[:4], r"than 4 operations; set config.method.kept=\(3, 2\)"),
    ],
)
def test_stages_that_would_drop_nothing(operations: tuple[str, ...], remedy: str) -> None:
    """With the published numbers; what the line proposes is accepted."""
    config = config_of()
    config.network.operations = operations
    with pytest.raises(UserError, match=f"would drop nothing, .* {remedy}") as caught:
        validation.validate(config)
    if "kept=" in remedy:
        config.method.kept = ast.literal_eval(str(caught.value).rpartition("=")[2])
        validation.validate(config)


def test_what_is_kept_scales_as_published() -> None:
    assert p_darts.scaled(8, 2) == PDarts.defaults()["kept"]
    for count in range(4, 9):
        found = p_darts.scaled(count, 2)
        assert found is not None and count > found[0] > found[1] >= 2


@pytest.mark.parametrize(
    ("section", "change", "message"),
    [
        ("train", {"epochs": 7}, "config.train.epochs=7: is shared by 3 stages"),
        ("search", {"arch_start_epoch": 2.0}, "must be smaller than train.epochs=2"),
        ("search", {"formulation": "dense"}, "which later stages do not have"),
    ],
)
def test_other_mistakes(section: str, change: dict, message: str) -> None:
    config = config_of()
    config[section].update(change)
    with pytest.raises(UserError, match=message):
        validation.validate(config)

"""Tests of the options of all methods: closed forms of SmoothDARTS, DARTS- and FairDARTS."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import tiny
from tests.methods import test_every_method as every
from unnas_jax.config.sections import MethodConfig
from unnas_jax.core import sharding
from unnas_jax.core.errors import UserError
from unnas_jax.methods import adversarial, gdas, registry, remedies
from unnas_jax.methods.base import Setting
from unnas_jax.methods.draws import ALPHA_STEP, WEIGHT_STEP, Moment
from unnas_jax.runs import validation
from unnas_jax.spaces import complexity
from unnas_jax.spaces.darts import genotype
from unnas_jax.spaces.darts.candidates import KINDS
from unnas_jax.tasks import registry as tasks

OPTIONS = dict(remedies.DEFAULTS)


def method(name: str = "darts", nodes: int = 1, **options: object):
    config = tiny.config(epochs=50)
    config.input.cutout = options.pop("cutout", 0)
    config.network.update(nodes=nodes, auxiliary_skip=options.pop("auxiliary_skip", False))
    registry.choose(config, name, **options)
    validation.validate(config)
    c = config.to_dict()
    mesh = sharding.data_mesh(jax.devices()[:1])
    return registry.METHODS[name](
        Setting(MethodConfig.of(c), tasks.create(c, tiny.dataset()), mesh, 4)
    )


def test_perturbed_weights() -> None:
    row, shift = jnp.array([[0.5, 0.3, 0.2]]), jnp.array([[0.1, -0.4, 0.0]])
    np.testing.assert_allclose(remedies.moved(row, shift), [[0.75, 0, 0.25]], rtol=1e-6)
    # An edge of weight 1/4 keeps it.
    np.testing.assert_allclose(remedies.moved(row / 4, shift), [[0.1875, 0, 0.0625]], rtol=1e-6)
    none = remedies.on_simplex(jnp.array([[-0.2, -0.1, -0.3]]))
    np.testing.assert_array_equal(none, [[0, 1, 0]])
    extents = [remedies.extent(OPTIONS, e, 50) for e in (0, 25, 49)]
    np.testing.assert_allclose(extents, [0.03, 0.165, 0.2946], atol=1e-6)


def test_only_weight_steps_are_perturbed_each_by_its_own_draw() -> None:
    made = method(perturbation="random")
    alphas = made.initial_alphas(jax.random.key(0))
    plain = np.asarray(made.mix(alphas)["normal"])

    def of(step: int, purpose: int) -> np.ndarray:
        mixed = made.mix_in_training(alphas, Moment(jnp.int32(step), jnp.int32(purpose)))
        return np.asarray(mixed["normal"])

    np.testing.assert_allclose(of(0, ALPHA_STEP), plain, rtol=1e-6)
    first, late = of(0, WEIGHT_STEP), of(49 * 4, WEIGHT_STEP)
    np.testing.assert_allclose(first.sum(1), 1, rtol=1e-6)
    assert 1e-3 < np.abs(first - plain).max() < 0.05 < np.abs(late - plain).max()
    assert np.any(first != of(1, WEIGHT_STEP))
    np.testing.assert_array_equal(first, of(0, WEIGHT_STEP))


def test_a_step_of_the_ascent() -> None:
    """Two sevenths of the extent along the signs, and never beyond it; then shares."""
    plain = jnp.array([[0.5, 0.3, 0.2]])
    slope = jnp.array([[4.0, -0.1, 0.0]])
    once = adversarial.ascended(plain, plain, slope, 0.07)
    np.testing.assert_allclose(once, [[0.52, 0.28, 0.2]], rtol=1e-6)
    shares = plain
    for _ in range(adversarial.STEPS):
        shares = adversarial.ascended(plain, shares, slope, 0.07)
    np.testing.assert_allclose(shares, [[0.57, 0.23, 0.2]], rtol=1e-6)
    # 0.2 - 0.3 is cut to 0, 0.5 + 0.3 is divided by 1.1.
    far = adversarial.ascended(plain, plain, jnp.array([[1.0, 0.0, -1.0]]), 7 * 0.3 / 2)
    np.testing.assert_allclose(far, [[0.8 / 1.1, 0.3 / 1.1, 0]], rtol=1e-6)


def test_the_adversary_raises_the_loss() -> None:
    """Within the extent, on the batch that it was made for; what lowers the loss is undone."""
    made = every.made("adversarial in S4", 1)
    assert made.adversary is not None
    state, half_a = made.init(), every.batch(made, 0)
    state = state.replace(step=state.step + 20)  # In the last epoch: an extent of 0.255.
    plain, start = made.adversary.begin(state)
    given = made.adversary(state, half_a)
    losses = [float(made.adversary.ascend(state, half_a, s)[0]) for s in (plain, given.shares)]
    assert losses[1] > losses[0]
    for kind in KINDS:
        assert np.any(given.shares[kind] != start[kind])
        np.testing.assert_allclose(given.shares[kind].sum(1), 1, rtol=1e-6)
    undone = made.adversary.end(plain, start, np.float32(1), np.float32(0.5))
    jax.tree.map(np.testing.assert_array_equal, undone.shares, plain)
    assert [len(made.lower(half_a)[part]) for part in ("alphas", "weights")] == [2, 5]
    # Alpha steps mix by the alphas.
    mixed = given.into(plain, ALPHA_STEP)
    jax.tree.map(np.testing.assert_array_equal, mixed, dict(plain))


def test_the_schedule_of_drop_path() -> None:
    made = method(drop_path=0.6)
    rates = [float(made.skips(4 * epoch)["drop_path"]) for epoch in (0, 7, 49)]
    np.testing.assert_allclose(rates, [0, 0.6 / 7, 0.6], rtol=1e-6)


def test_the_probability_of_cutout_rises() -> None:
    """R-DARTS: from 0 to 1 by e / (E - 1); with 0 and 1 as without and with cutout."""
    made, never, always = (method(cutout_rises=rises, cutout=cutout) for rises, cutout in
                           ((True, 9), (False, 0), (False, 9)))  # fmt: skip
    batch = {"image": jnp.asarray(np.stack(tiny.upright(64, 16))), "label": jnp.zeros(64, int)}

    def inputs(made, step: int) -> np.ndarray:
        return np.asarray(made.examples(WEIGHT_STEP, jnp.int32(step), batch).inputs)

    np.testing.assert_array_equal(inputs(made, 0), inputs(never, 0))
    np.testing.assert_array_equal(inputs(made, 49 * 4), inputs(always, 49 * 4))
    changed = (inputs(made, 24 * 4) != inputs(never, 24 * 4)).any((1, 2, 3)).reshape(64, 4)
    assert np.all(changed.any(1) == changed.all(1))  # All turns of an image alike.
    # 64 draws of probability 24/49: a deviation of 0.062.
    assert 0.24 < changed[:, 0].mean() < 0.74


def test_the_auxiliary_skip_decays() -> None:
    made = method(auxiliary_skip=True)
    rates = [float(made.skips(4 * epoch)["auxiliary"]) for epoch in (0, 25, 49, 50)]
    np.testing.assert_allclose(rates, [1, 0.5, 0.02, 0.02], rtol=1e-5)
    cosine = {**OPTIONS, "auxiliary_decay": "cosine"}
    assert float(remedies.auxiliary(cosine, 25, 50)) == pytest.approx(0.5)
    assert method().skips(0) == {}
    config = importlib.import_module("configs.dartsminus_cifar10").get_config()
    assert complexity.of_config(config.to_dict())["parameters"] == 1_971_578


def test_the_zero_one_loss() -> None:
    alphas = np.zeros(196, np.float32)
    alphas[3] = np.log(9.0)  # A sigmoid of 0.9.

    def loss(alphas: jax.Array) -> jax.Array:
        both = jax.nn.sigmoid(alphas).reshape(2, 98)
        return remedies.zero_one(dict(zip(KINDS, both, strict=True)))

    value, slope = jax.value_and_grad(loss)(alphas)
    assert float(value) == pytest.approx(-0.000816, abs=1e-6)
    assert float(slope[3]) == pytest.approx(-0.000367, abs=1e-6)
    assert np.count_nonzero(slope) == 1


def test_cells_above_a_threshold() -> None:
    names = {kind: (("skip_connect", "sep_conv_3x3"),) * 5 for kind in KINDS}
    strong = float(jax.nn.sigmoid(1.7347))
    normal = np.array([[0.1, strong], [0.2, 0.3], [0.5, 0.6], [0.7, 0.1], [0.1, 0.2]])
    reduce = np.full((5, 2), 0.3)
    cells = genotype.strongest_above({"normal": normal, "reduce": reduce}, 0.85, names)
    assert cells.normal[:2] == (("sep_conv_3x3", 0), ("none", 1))
    assert cells.normal[2:] == (("none", 1), ("none", 0)) and cells.normal_concat == (2,)
    # No operation is strong enough: the strongest ones stay.
    assert {name for name, _ in cells.reduce} == {"skip_connect"}
    assert cells.reduce_concat == (2, 3)


def test_sigmoids_do_not_compete() -> None:
    made = method(mixing="sigmoid")
    alphas = {kind: np.zeros((2, 8)) for kind in KINDS}
    alphas["normal"][0, 3] = np.log(3)
    weights = made.mixing(alphas)["normal"]
    assert weights[0, 3] == pytest.approx(0.75) and weights.sum() == pytest.approx(15 * 0.5 + 0.75)


def test_draws_of_operations() -> None:
    made = method("gdas", first_temperature=1.0)
    alphas = {kind: jnp.log(jnp.array([[0.6, *[0.4 / 7] * 7]] * 2)) for kind in KINDS}
    draw = jax.jit(lambda step: made.mix_in_training(alphas, Moment(step, ALPHA_STEP))["normal"])
    draws = np.stack([np.asarray(draw(jnp.int32(step))) for step in range(200)])
    assert set(np.unique(draws)) == {0.0, 1.0}
    np.testing.assert_array_equal(draws.sum(-1), 1)
    # 400 draws of probability 0.6: a deviation of 0.025.
    assert 0.5 < draws[..., 0].mean() < 0.7
    np.testing.assert_allclose([made.temperature(4 * e) for e in (0, 49)], [1.0, 0.1], rtol=1e-6)
    weights, factor = jnp.array([[0.2, 0.5, 0.3]]), jnp.array([[1.0, 2.0, 4.0]])
    value, slope = jax.value_and_grad(lambda w: jnp.sum(factor * gdas.straight_through(w)))(weights)
    assert float(value) == 2
    np.testing.assert_array_equal(slope, factor)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("darts", {"mixing": "softmin"}, "config.method.mixing='softmin': use one of softmax, sig"),
        ("darts", {"zero_one": 10.0}, "config.method.zero_one=10.0: is about sigmoids"),
        (
            "darts",
            {"threshold": 1.0},
            "config.method.threshold=1.0: no operation has",
        ),
        ("darts", {"perturbation_last": -1.0}, "perturbation_last=-1.0: must be at least 0"),
        ("darts", {"mixing": "sigmoid", "perturbation": "random"}, "is about a softmax"),
        ("darts", {"mixing": "sigmoid", "perturbation": "adversarial"}, "is about a softmax"),
        ("gdas", {"perturbation": "adversarial"}, "the method draws operations itself"),
        ("darts", {"cutout_rises": True}, "no image loses anything; set config.input.cutout"),
        ("darts", {"drop_path": 1.0}, "config.method.drop_path=1.0: must be less than 1"),
        ("gdas", {"last_temperature": 0.0}, "last_temperature=0.0: must be greater than 0"),
        ("gdas", {"perturbation": "random"}, "the method draws operations itself; use 'none'"),
    ],
)
def test_mistakes(name: str, options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        method(name, **options)
    assert "\n" not in str(caught.value)

"""The steps of a training against closed forms; seeds together and apart; masked batches."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests import tiny, tiny_training
from unnas_jax.config.sections import Training
from unnas_jax.core import sharding
from unnas_jax.data.records import IMAGENET_MEAN, IMAGENET_STD
from unnas_jax.learning import statistics, trainer
from unnas_jax.spaces.darts.network import Network
from unnas_jax.tasks import base, registry

STEPS_PER_EPOCH = 2


class _Linear(nn.Module):
    """Logits x W, auxiliary logits 2 x W, of each image's mean colour; notes its drop path."""

    @nn.compact
    def __call__(self, x, train, drop_path=None):
        weights = self.param("weights", nn.initializers.normal(0.5), (3, 3))
        seen = self.variable("batch_stats", "drop_path", jnp.zeros, ())
        if drop_path is not None:
            seen.value = jnp.asarray(drop_path, jnp.float32)
        logits = x.mean(axis=(1, 2)) @ weights
        return logits, 2.0 * logits


def _linear(config, devices=1, task=None):
    mesh = sharding.data_mesh(jax.devices()[:devices])
    inputs = jax.ShapeDtypeStruct((1, 16, 16, 3), jnp.float32)
    steps = trainer.build_steps(
        Training.of(config.to_dict()),
        _Linear(),
        task or tiny_training.Plain(),
        mesh,
        STEPS_PER_EPOCH,
        inputs,
    )
    return steps, mesh


def _gradient(weights, batch, smoothing=0.0, auxiliary_weight=0.0):
    """Of mean cross entropy of x W plus `auxiliary_weight` times that of 2 x W, in W."""
    x = (batch["image"] / 255.0).mean(axis=(1, 2))
    targets = np.full((len(x), 3), smoothing / 2)
    targets[np.arange(len(x)), batch["label"]] = 1.0 - smoothing

    def part(scale):
        logits = scale * x @ weights
        p = np.exp(logits - logits.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        return scale * x.T @ (p - targets) / len(x)

    return part(1.0) + auxiliary_weight * part(2.0)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("auxiliary_weight", [0.0, 0.4])
def test_the_loss_is_the_main_one_and_a_share_of_the_auxiliary_one(smoothing, auxiliary_weight):
    config = tiny_training.config()
    config.network.auxiliary_weight = auxiliary_weight
    steps, mesh = _linear(config, task=tiny_training.Plain(smoothing=smoothing))
    state = steps.init([0])
    before = np.asarray(state.params["weights"][0], np.float64)
    batch = tiny_training.images()
    state, sums = steps.train(state, trainer.stack_seeds([batch], mesh))
    step = -0.1 * _gradient(before, batch, smoothing, auxiliary_weight)
    np.testing.assert_allclose(state.params["weights"][0] - before, step, atol=1e-6)
    assert float(sums["count"][0]) == 8


def test_smoothing_gives_the_other_classes_equal_shares():
    rng = np.random.default_rng(0)
    logits, targets = rng.normal(size=(6, 5)).astype(np.float32), np.arange(6) % 5
    weights = np.float32([1, 1, 0, 1, 1, 1])
    target = np.full((6, 5), 0.1 / 4)
    target[np.arange(6), targets] = 0.9
    log_p = logits - np.log(np.exp(logits.astype(np.float64)).sum(axis=1, keepdims=True))
    expected = -(target * log_p).sum(axis=1) @ weights
    sums = base.classification_score(logits, targets, weights, smoothing=0.1)
    assert float(sums["loss"]) == pytest.approx(expected, rel=1e-6)
    # It is least, the targets' entropy, where the answer is the targets themselves.
    best = base.classification_score(
        jnp.log(target), targets, np.ones(6, np.float32), smoothing=0.1
    )
    entropy = -(0.9 * np.log(0.9) + 0.1 * np.log(0.1 / 4))
    assert float(best["loss"]) == pytest.approx(6 * entropy, rel=1e-5)


def test_drop_path_rises_linearly_from_epoch_to_epoch():
    config = tiny_training.config(epochs=4)
    config.network.drop_path = 0.4
    steps, mesh = _linear(config)
    state, batch = steps.init([0]), trainer.stack_seeds([tiny_training.images()], mesh)
    seen = []
    for _ in range(8):
        state, _ = steps.train(state, batch)
        seen.append(float(state.batch_stats["drop_path"][0]))
    np.testing.assert_allclose(seen, np.repeat([0.0, 0.1, 0.2, 0.3], 2), atol=1e-7)


def test_warm_up_rises_linearly_to_the_cosine():
    config = tiny_training.config(epochs=250)
    config.weights.update(learning_rate=0.5, warmup_epochs=5, warmup_factor=0.1)
    schedule = trainer.schedule(Training.of(config.to_dict()), 3)
    epochs = np.arange(3 * 250) // 3
    cosine = 0.25 * (1.0 + np.cos(np.pi * epochs / 250))
    warm = np.minimum(0.1 + 0.9 * epochs / 5, 1.0)
    rates = [float(schedule(step)) for step in range(3 * 250)]
    np.testing.assert_allclose(rates, cosine * warm, atol=1e-6)
    assert rates[0] == pytest.approx(0.05)


@pytest.mark.parametrize("nesterov", [False, True])
def test_training_decays_and_carries_on(nesterov):
    config = tiny_training.config()
    config.weights.update(momentum=0.9, weight_decay=0.01)
    config.weights.nesterov = nesterov
    steps, mesh = _linear(config)
    state, batch = steps.init([0]), tiny_training.images()
    weights, trace = np.asarray(state.params["weights"][0], np.float64), 0.0
    for _ in range(3):
        state, _ = steps.train(state, trainer.stack_seeds([batch], mesh))
        gradient = _gradient(weights, batch) + 0.01 * weights
        trace = 0.9 * trace + gradient
        weights = weights - 0.1 * (gradient + 0.9 * trace if nesterov else trace)
    np.testing.assert_allclose(state.params["weights"][0], weights, atol=1e-5)


def test_the_moving_average_is_what_is_evaluated():
    """After three steps a_3 = (d^2 w_1 + d w_2 + w_3) / (1 + d + d^2): w_0 is no part of it."""
    decay = 0.75
    steps, mesh = _linear(tiny_training.config(ema=decay))
    state, batch = steps.init([0]), tiny_training.images()
    weights = []
    library = optax.ema(decay, debias=True)
    debiased, kept = None, library.init(jax.tree.map(np.asarray, state.params))
    for _ in range(3):
        state, _ = steps.train(state, trainer.stack_seeds([batch], mesh))
        weights.append(np.asarray(state.params["weights"][0], np.float64))
        debiased, kept = library.update(jax.tree.map(np.asarray, state.params), kept)
    shares = np.array([decay**2, decay, 1.0])
    average = np.tensordot(shares / shares.sum(), weights, 1)
    found = state.average["params"]["weights"][0]
    np.testing.assert_allclose(found, average, atol=1e-6)
    np.testing.assert_allclose(found, debiased["weights"][0], atol=1e-6)
    assert np.abs(average - weights[-1]).max() > 1e-4

    sums = steps.evaluate(state, sharding.to_devices(batch, mesh), 0)
    logits = (batch["image"] / 255.0).mean(axis=(1, 2)) @ average
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    expected = -log_p[np.arange(8), batch["label"]].sum()
    assert float(sums["loss"][0]) == pytest.approx(expected, rel=1e-5)


def test_evaluation_counts_every_image_once_whatever_the_batch():
    steps, mesh = _linear(tiny_training.config())
    state, images = steps.init([0, 1]), tiny_training.images(13)
    means = []
    for size in (1, 4, 5, 13, 16):
        total = np.zeros((3, 2))
        for first in range(0, 13, size):
            batch = {k: v[first : first + size] for k, v in images.items()}
            padding = size - len(batch["label"])
            batch = {
                k: np.pad(v, [(0, padding)] + [(0, 0)] * (v.ndim - 1)) for k, v in batch.items()
            }
            batch["mask"] = np.float32([1] * (size - padding) + [0] * padding)
            sums = steps.evaluate(state, sharding.to_devices(batch, mesh), 0)
            total += [sums["loss"], sums["correct"], sums["count"]]
        assert total[2].tolist() == [13, 13]
        means.append(total[:2] / 13)
    x = (images["image"] / 255.0).mean(axis=(1, 2))
    for k in (0, 1):
        answers = (x @ np.asarray(state.params["weights"][k])).argmax(axis=1)
        assert means[0][1, k] == pytest.approx((answers == images["label"]).mean())
    for mean in means[1:]:
        np.testing.assert_allclose(mean, means[0], rtol=1e-6)


def test_the_global_batch_counts_not_the_devices():
    states = []
    for devices in (1, 8):
        steps, mesh = _linear(tiny_training.config(), devices)
        state = steps.init([0, 1])
        for number in range(3):
            batches = [tiny_training.images(seed=10 * number + k) for k in (0, 1)]
            state, _ = steps.train(state, trainer.stack_seeds(batches, mesh))
        states.append(np.asarray(state.params["weights"]))
    np.testing.assert_allclose(states[1], states[0], atol=1e-6)


def test_parting_and_joining_states_changes_nothing():
    steps, mesh = _linear(tiny_training.config(ema=0.5))
    state = steps.init([3, 4, 5])
    for together in (1, 2, 3):
        parts = trainer.grouped(state, together, mesh)
        assert [len(part.seed) for part in parts] == {1: [1, 1, 1], 2: [2, 1], 3: [3]}[together]
        again = trainer.joined(parts, mesh)
        jax.tree.map(np.testing.assert_array_equal, again, state)


def test_memory_grows_with_the_seeds():
    config = tiny_training.config()
    steps, mesh = _linear(config)
    few, many = (
        trainer.memory(Training.of(config.to_dict()), tiny_training.Plain(), steps, n, mesh)
        for n in (1, 8)
    )
    # Those of the step and of the four after it.
    images = 5 * 8 * 16 * 16 * 3
    assert few >= images
    assert many - few >= 7 * images


# A whole network from here on.


@functools.cache
def _network(drop_path=0.0, lighting=0.0, ema=0.0, devices=1):
    config = tiny_training.config(ema=ema)
    config.network.drop_path, config.input.lighting = drop_path, lighting
    config.weights.update(learning_rate=0.05, momentum=0.9, weight_decay=1e-3)
    task = registry.create(config.to_dict(), tiny.dataset())
    network = Network(tiny_training.CELLS, 4, 3, "cifar", head=task.head(jnp.float32))
    mesh = sharding.data_mesh(jax.devices()[:devices])
    inputs = jax.ShapeDtypeStruct((1, 16, 16, 3), jnp.float32)
    steps = trainer.build_steps(
        Training.of(config.to_dict()), network, task, mesh, STEPS_PER_EPOCH, inputs
    )
    return steps, mesh


def _trained(seeds, batch_seeds, count=5):
    steps, mesh = _network(drop_path=0.3, lighting=0.1)
    state = steps.init(seeds)
    for number in range(count):
        batches = [
            tiny_training.images(seed=100 * seed + number, classes=2) for seed in batch_seeds
        ]
        state, _ = steps.train(state, trainer.stack_seeds(batches, mesh))
    return jax.device_get(state)


def _host(tree):
    return jax.tree.map(np.asarray, tree)


def _of_seed(state, k):
    return jax.tree.map(lambda leaf: leaf[k], (state.params, state.batch_stats, state.optimizer))


def test_seeds_trained_together_equal_seeds_trained_apart():
    together = _trained([7, 8, 9], [7, 8, 9])
    for k, seed in enumerate((7, 8, 9)):
        apart = _of_seed(_trained([seed], [seed]), 0)
        jax.tree.map(
            functools.partial(np.testing.assert_allclose, atol=1e-5, rtol=1e-5),
            _of_seed(together, k),
            apart,
        )
    first, second = (jax.tree.leaves(_of_seed(together, k)[0]) for k in (0, 1))
    assert all(np.abs(a - b).max() > 1e-3 for a, b in zip(first, second, strict=True) if a.ndim > 1)


def test_a_seed_does_not_see_what_it_is_trained_with():
    mine, other = _trained([7, 8, 9], [7, 8, 9]), _trained([7, 11, 12], [7, 11, 12])
    jax.tree.map(np.testing.assert_array_equal, _of_seed(mine, 0), _of_seed(other, 0))


def test_an_early_average_is_of_the_trained_values_and_their_statistics():
    """With a decay near 1 it is the plain mean over the steps, of weights and statistics alike."""
    steps, mesh = _network(ema=0.9999)
    state, batch = steps.init([0]), tiny_training.images(classes=2)
    seen, losses = [], []
    for number in range(3):
        state, _ = steps.train(state, trainer.stack_seeds([batch], mesh))
        seen.append(_host({"params": state.params, "batch_stats": state.batch_stats}))
        assert trainer.evaluated(state) is state.average
        sums = steps.evaluate(state, sharding.to_devices(batch, mesh), 0)
        losses.append(float(sums["loss"][0]))
        mean = jax.tree.map(lambda *values: np.mean(values, axis=0), *seen)
        jax.tree.map(
            functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5),
            _host(state.average),
            mean,
        )
        if number == 0:
            raw = steps.evaluate(
                state.replace(average={"params": state.params, "batch_stats": state.batch_stats}),
                sharding.to_devices(batch, mesh),
                0,
            )
            assert losses[0] == pytest.approx(float(raw["loss"][0]), rel=1e-4)


def test_precise_statistics_belong_to_what_is_evaluated():
    for ema in (0.0, 0.9999):
        state = _network(ema=ema)[0].init([0])
        other = jax.tree.map(lambda value: value + 1.0, state.batch_stats)
        changed = trainer.evaluated(trainer.with_statistics(state, other))
        jax.tree.map(np.testing.assert_array_equal, changed["batch_stats"], other)
        jax.tree.map(
            np.testing.assert_array_equal, changed["params"], trainer.evaluated(state)["params"]
        )


def test_variances_of_batches_count_how_far_they_lie_apart():
    def batch(mean, variance):
        values = {"mean": np.float32([[mean]]), "var": np.float32([[variance]])}
        return {"cell": {"bn": values}, "seen": np.float32([mean])}

    # Of the values -1, 1 and 1, 3: all four have the mean 1 and the variance 2.
    found = statistics.pooled([batch(0, 1), batch(2, 1)], [4, 4])
    assert found == {"cell": {"bn": {"mean": [[1]], "var": [[2]]}}, "seen": [1]}
    assert found["cell"]["bn"]["var"].dtype == np.float32
    # Three times as many examples: -1, 1, -1, 1, -1, 1 and 3, 5.
    unequal = statistics.pooled([batch(0, 1), batch(4, 1)], [6, 2])["cell"]["bn"]
    values = np.array([-1, 1] * 3 + [3, 5])
    assert float(unequal["mean"][0, 0]) == values.mean()
    assert float(unequal["var"][0, 0]) == values.var()


@pytest.mark.parametrize("devices", [1, 4])
def test_statistics_of_batches_together_are_those_of_all_their_images(devices):
    """Those of the first batch norm, whose input is a 3x3 convolution of the normalised image."""
    steps, mesh = _network(devices=devices)
    state = steps.init([0, 1])
    kernel = state.params["stem"]["conv_0"]["conv"]["kernel"]
    # Symmetric, so that it does not matter which images are flipped.
    kernel = (kernel + kernel[:, :, ::-1]) / 2
    state.params["stem"]["conv_0"]["conv"]["kernel"] = kernel
    # The first seed sees batches of very different brightness.
    dark, bright, noise = (tiny_training.images(seed=seed) for seed in (0, 1, 2))
    dark["image"] //= 8
    batches = [[dark, noise], [bright, noise]]
    found = statistics.pooled(
        [
            jax.device_get(steps.statistics(state, trainer.stack_seeds(pair, mesh), number))
            for number, pair in enumerate(batches)
        ],
        [8, 8],
    )["stem"]["bn_0"]
    for seed in (0, 1):
        images = np.concatenate([pair[seed]["image"] for pair in batches])
        x = (images / 255.0 - IMAGENET_MEAN) / IMAGENET_STD
        x = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))
        outputs = np.einsum("nhwcij,ijcd->nhwd", windows, np.asarray(kernel[seed], np.float64))
        np.testing.assert_allclose(found["mean"][seed], outputs.mean(axis=(0, 1, 2)), atol=1e-5)
        np.testing.assert_allclose(found["var"][seed], outputs.var(axis=(0, 1, 2)), rtol=1e-4)

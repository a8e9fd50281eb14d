"""The search's steps: bilevel updates, devices, seeds; that only real targets can be learned."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests import tiny
from unnas_jax.config.sections import MethodConfig
from unnas_jax.core import sharding
from unnas_jax.data import halves, order, pipeline
from unnas_jax.learning.feed import Feed
from unnas_jax.methods import draws
from unnas_jax.methods.base import Setting
from unnas_jax.methods.darts import Darts
from unnas_jax.runs import search
from unnas_jax.tasks import registry

STEPS_PER_EPOCH = 4


@functools.cache
def _built(devices=1, order=1, seed=0, task="rotation", alpha_rate=1e-2, weight_rate=0.05):
    config = tiny.config(task)
    config.weights.learning_rate = weight_rate
    config.network.nodes = 1
    config.alphas.learning_rate = alpha_rate
    config.seed = seed
    mesh = sharding.data_mesh(jax.devices()[:devices])
    built = registry.create(config.to_dict(), tiny.dataset())
    return Darts(Setting(MethodConfig.of(config.to_dict()), built, mesh, STEPS_PER_EPOCH)), mesh


def _batches(mesh, steps, seed=0, batch_size=8, images=None):
    images = tiny.dataset() if images is None else images
    parts = halves(len(images.splits["train"]), seed)
    streams = [
        pipeline.train_batches(
            images.splits["train"],
            part,
            batch_size=batch_size,
            crop=16,
            resize=18,
            train_crop="resize_random",
            apply_exif=False,
            seed=seed + offset,
            start_step=0,
            workers=0,
        )
        for offset, part in enumerate(parts)
    ]
    for _ in range(steps):
        pair = [{k: v for k, v in next(s).items() if k in ("image", "label")} for s in streams]
        yield [sharding.to_devices(batch, mesh) for batch in pair]
    for stream in streams:
        stream.close()


def _run(steps, mesh, count=5, warm_up=0, seed=0):
    state = steps.init()
    for number, (batch_a, batch_b) in enumerate(_batches(mesh, count, seed)):
        if number >= warm_up:
            state, _ = steps.alpha_step(state, batch_b, batch_a)
        state, _ = steps.weight_step(state, batch_a)
    return state


def _host(tree):
    return jax.tree.map(np.asarray, tree)


@pytest.fixture(scope="module")
def one_device():
    steps, mesh = _built()
    return _host(_run(steps, mesh))


@pytest.mark.parametrize("devices", [8])
def test_alphas_do_not_depend_on_the_number_of_devices(devices):
    """At the paper's rate: Adam makes whole steps of what rounding does to a ReLU at zero."""
    (one, mesh_of_one), (steps, mesh) = (_built(n, alpha_rate=1.5e-4) for n in (1, devices))
    first = [
        _host(_run(s, m, count=1).alphas_opt[1][0].mu)
        for s, m in ((one, mesh_of_one), (steps, mesh))
    ]
    state, expected = _run(steps, mesh), _run(one, mesh_of_one)
    for kind in ("normal", "reduce"):
        scale = np.abs(first[0][kind]).max()
        np.testing.assert_allclose(first[1][kind], first[0][kind], rtol=0, atol=1e-4 * scale)
        alphas = state.alphas[kind]
        np.testing.assert_allclose(alphas, expected.alphas[kind], atol=1e-4, rtol=0)
        copies = [np.asarray(shard.data) for shard in alphas.addressable_shards]
        assert len(copies) == devices
        assert all((copy == copies[0]).all() for copy in copies)


def test_same_seed_repeats_and_another_differs(one_device):
    steps, mesh = _built()
    again = _host(_run(steps, mesh))
    jax.tree.map(np.testing.assert_array_equal, again, one_device)
    other_steps, _ = _built(seed=1)
    other = _host(_run(other_steps, mesh, count=1, seed=1))
    assert np.abs(other.alphas["normal"] - one_device.alphas["normal"]).max() > 1e-3


def test_weight_steps_move_weights_but_not_alphas(one_device):
    steps, mesh = _built()
    start = _host(steps.init())
    state = _host(_run(steps, mesh, count=2, warm_up=2))
    np.testing.assert_array_equal(state.alphas["normal"], start.alphas["normal"])
    assert int(state.step) == 2
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), state.params, start.params)
    assert all(change > 0 for change in jax.tree.leaves(moved["cell_0"]))


@pytest.fixture(scope="module")
def warmed_up(images, tmp_path_factory):
    """A search of three epochs whose alphas stand still during the first."""
    config = tiny.quick(epochs=3)
    config.dataset.update(name="folder", path=str(images))
    config.search.arch_start_epoch = 1.0
    config.workers = 0
    workdir = tmp_path_factory.mktemp("runs") / "warmed_up"
    return search.search(config, str(workdir)), workdir


@pytest.mark.usefixtures("no_reports")
def test_a_search_warms_up_before_its_alphas_move(warmed_up):
    """No alpha step is taken in the first epoch, and one with every weight step after it."""
    state, workdir = warmed_up
    history = np.load(workdir / "alphas.npz")
    assert history["step"].tolist() == [0, 4, 8, 12]
    for kind in ("normal", "reduce"):
        at = history[kind]
        np.testing.assert_array_equal(at[1], at[0])
        assert np.abs(at[2] - at[1]).max() > 1e-3
        assert np.abs(at[3] - at[2]).max() > 1e-3
    assert int(state.step) == 12
    assert int(optax.tree.get(state.alphas_opt, "count")) == 8


def test_an_alpha_step_is_adam_on_the_gradient_of_half_b_alone():
    """Adam's first step has the size of its rate, against the gradient's sign."""
    steps, mesh = _built()
    start = steps.init()
    before = _host(start)
    (batch_a, batch_b), *_ = _batches(mesh, 1)
    after = _host(steps.alpha_step(start, batch_b, batch_a)[0])
    change = after.alphas["normal"] - before.alphas["normal"]
    np.testing.assert_allclose(np.abs(change), 1e-2, rtol=2e-2)
    jax.tree.map(np.testing.assert_array_equal, after.params, before.params)
    jax.tree.map(np.testing.assert_array_equal, after.batch_stats, before.batch_stats)
    assert int(after.step) == 0
    # Another batch of A changes nothing: the first-order gradient does not see it.
    again = _host(steps.alpha_step(steps.init(), batch_b, batch_b)[0])
    np.testing.assert_array_equal(again.alphas["normal"], after.alphas["normal"])


class _Smooth:
    """A network of some of a supernet's parameters and alphas without corners, as tanh has none.

    Of a supernet the gradient jumps where a ReLU or a maximum switches, and a difference of losses
    after a step is no estimate of its slope.
    """

    def __init__(self, supernet):
        self.init = supernet.init

    def clone(self, **changes):
        """Alphas, or the operations' weights made of them: both will do."""
        return self

    def apply(self, variables, x, alphas, *, train, mutable=None, rngs=None):
        params = variables["params"]
        kernel, head = params["stem"]["conv_0"]["conv"]["kernel"], params["head"]["linear"]
        blocks = x[:, :15, :15].reshape(-1, 3, 5, 3, 5, 3).mean(axis=(2, 4))
        hidden = jnp.tanh(4.0 * jnp.einsum("nijc,ijcd->nd", blocks, kernel))
        mixed = hidden * 4.0 * jax.nn.softmax(5.0 * alphas["normal"].ravel()[:12])[None]
        logits = mixed @ head["kernel"][:12] * 10.0 + head["bias"][None]
        return (logits, {"batch_stats": variables["batch_stats"]}) if mutable else logits


class _SmoothDarts(Darts):
    def build(self):
        return _Smooth(super().build())


def test_second_order_is_the_slope_of_the_loss_after_a_weight_step():
    """Against central differences of L_B(step(w, dL_A/dw), alpha), the step taken in NumPy."""
    rate = 0.5  # At which the second-order part is a good share.
    config = tiny.config()
    config.network.update(nodes=1, stem="cifar")
    config.weights.learning_rate = rate
    mesh = sharding.data_mesh(jax.devices()[:1])
    task = registry.create(config.to_dict(), tiny.dataset())

    def build(order):
        config.search.order = order
        return _SmoothDarts(Setting(MethodConfig.of(config.to_dict()), task, mesh, STEPS_PER_EPOCH))

    plain, steps = build(1), build(2)
    (batch_a, batch_b), *_ = _batches(mesh, 1)
    start = _host(plain.init())
    clip, decay = config.weights.clip_norm, config.weights.weight_decay

    def gradients(state, batch, purpose):
        number = sharding.replicate(np.int32(purpose), mesh)
        return _host(
            plain.programs.gradients(sharding.replicate(state, mesh), batch, number, of="both")
        )

    def loss_after_a_step(alphas):
        state = start.replace(alphas=alphas)
        grads = gradients(state, batch_a, draws.WEIGHT_STEP)[0]
        norm = np.sqrt(sum(float(np.sum(np.square(g))) for g in jax.tree.leaves(grads)))
        scale = min(1.0, clip / norm)
        # The momentum is zero before the first step.
        stepped = jax.tree.map(
            lambda w, g: np.float32(w - rate * (scale * g + decay * w)), start.params, grads
        )
        sums = gradients(state.replace(params=stepped), batch_b, draws.ALPHA_STEP)[3]
        return float(sums["loss"]) / float(sums["count"])

    def alpha_gradient(built):
        """From Adam's first moment: (1 - b1) times the gradient with its decay."""
        after = built.alpha_step(built.init(), batch_b, batch_a)[0].alphas_opt
        share, decayed = 1.0 - config.alphas.b1, config.alphas.weight_decay
        return jax.tree.map(
            lambda m, a: m / share - decayed * a, _host(optax.tree.get(after, "mu")), start.alphas
        )["normal"]

    second, first = alpha_gradient(steps), alpha_gradient(plain)
    rng, step, slopes = np.random.default_rng(0), 2e-3, []
    for _ in range(4):
        along = rng.choice([-1.0, 1.0], second.shape)

        def moved(size, along=along):
            return {**start.alphas, "normal": np.float32(start.alphas["normal"] + size * along)}

        slope = (loss_after_a_step(moved(step)) - loss_after_a_step(moved(-step))) / (2 * step)
        slopes.append([slope, np.sum(second * along), np.sum(first * along)])
    expected, of_second, of_first = np.transpose(slopes)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(of_second, expected, rtol=0, atol=5e-3 * scale)
    assert np.abs(of_first - expected).max() > 0.1 * scale


@pytest.mark.parametrize(
    "epoch, per_epoch, first",
    [(0.0, 4, 0), (1.0, 4, 4), (0.3, 4, 2), (0.25, 4, 1), (0.1, 30, 3), (0.7, 10, 7), (1.05, 7, 8)],
)
def test_alphas_start_at_the_first_step_at_or_after_that_part_of_an_epoch(epoch, per_epoch, first):
    c = tiny.quick().to_dict()
    c["search"]["arch_start_epoch"] = epoch
    task = registry.create(c, tiny.dataset())
    needs_b = Darts(
        Setting(MethodConfig.of(c), task, sharding.data_mesh(jax.devices()[:1]), per_epoch)
    ).needs_b
    assert [needs_b(step) for step in range(first + 2)] == [False] * first + [True] * 2
    assert first / per_epoch >= epoch and (first == 0 or (first - 1) / per_epoch < epoch)


@pytest.mark.usefixtures("no_reports")
def test_a_search_reports_on_the_same_drawn_images_when_it_continues(images, tmp_path, monkeypatch):
    seen, evaluation = [], Feed.evaluation

    def record(self, records, indices, **options):
        seen.append(indices)
        return evaluation(self, records, indices, **options)

    monkeypatch.setattr(Feed, "evaluation", record)
    c = tiny.quick(epochs=12)
    c.dataset.update(name="folder", path=str(images))
    c.eval.max_images = 16
    for steps in (4, 8):
        c.train.max_steps = steps
        search.search(c, str(tmp_path / "w"))
    _, half_b = halves(64, c.seed)
    assert len(seen) == 2
    for indices in seen:
        np.testing.assert_array_equal(indices, order.evaluation_sample(half_b, 16, c.seed))


@dataclasses.dataclass(frozen=True)
class _Shuffled:
    """A task whose targets have lost their images."""

    task: object

    def __getattr__(self, name):
        return getattr(self.task, name)

    def examples(self, key, batch, *, train):
        examples = self.task.examples(key, batch, train=train)
        targets = jax.random.permutation(jax.random.fold_in(key, 7), examples.targets)
        return examples.replace(targets=targets)


@pytest.mark.parametrize("shuffled", [False, True])
def test_rotation_is_learned_unless_targets_are_shuffled(shuffled):
    config = tiny.quick()
    config.weights.learning_rate = 0.1
    config.train.epochs = 12
    data = tiny.dataset(256)
    task = registry.create(config.to_dict(), data)
    mesh = sharding.data_mesh(jax.devices()[:1])
    learned = _Shuffled(task) if shuffled else task
    steps = Darts(Setting(MethodConfig.of(config.to_dict()), learned, mesh, STEPS_PER_EPOCH))
    state, hits, count = steps.init(), 0.0, 0.0
    for number, (batch_a, batch_b) in enumerate(_batches(mesh, 48, images=data)):
        state, sums_b = steps.alpha_step(state, batch_b, batch_a)
        state, _ = steps.weight_step(state, batch_a)
        if number >= 36:
            hits, count = hits + float(sums_b["correct"]), count + float(sums_b["count"])
    # 384 answers on half B, whose images the weights never see: 3 deviations of chance are 6.6%.
    accuracy = hits / count
    if shuffled:
        assert abs(accuracy - 0.25) < 0.07
    else:
        assert accuracy > 0.6

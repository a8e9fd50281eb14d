"""Cells trained in lockstep against each cell's own network, and against optax."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from benchmarks import lockstep, pretext_curve
from unnas_jax.spaces.nasbench201 import spec
from unnas_jax.spaces.nasbench201.network import Network

CELLS = spec.sample(3, 3)


@pytest.fixture(scope="module")
def nets():
    _, task = pretext_curve.task_of("rotation", str(CELLS[0]), 8)
    return lockstep.Lockstep(CELLS, task, 4, jnp.float32)


def _own(nets, tree, number):
    """The part of one network's variables, as `Network` names them."""
    found = {}
    for name, (_, members) in nets.layers().items():
        place = np.flatnonzero(members == number)
        if not len(place):
            continue
        part = jax.tree.map(lambda leaf, k=place[0]: leaf[k], tree[name])
        if name[0].isdigit():
            stage, edge, _ = name.split("_", 2)
            source, target = spec.EDGES[int(edge)]
            found.setdefault(f"stage_{stage}_cell_0", {})[f"edge_{source}_{target}"] = part
        elif name == "bn":
            found["bn"] = part["bn"]
        elif part:
            found[name] = part
    return found


def test_a_step_is_that_of_each_cells_own_network(nets):
    images = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 3), np.uint8)
    labels = np.zeros(8, np.int32)
    shape = jax.ShapeDtypeStruct((2, 8, 8, 3), jnp.float32)
    state = jax.jit(lambda seed: lockstep.begin(nets, shape, seed))(jnp.int32(0))
    rows, rates = (
        np.array([[0, 1, 2, 3], [4, 5, 6, 7]], np.int32),
        np.array([0.1, 0.05], np.float32),
    )
    given = [jnp.asarray(x) for x in (images, labels, rows, rates)]
    after, sums = jax.jit(lambda *x: lockstep.steps(nets, *x))(state, *given)
    assert np.asarray(sums["count"]).tolist() == [32.0] * len(CELLS)

    examples_of = jax.jit(lambda *given: nets.task.examples(*given, train=True))
    for number in (0, 2):
        network = Network(CELLS[number], nets.task.head(jnp.float32), 4, 1)
        params, statistics = (_own(nets, state[k], number) for k in ("params", "statistics"))

        def loss(params, statistics, examples, network=network):
            (outputs, _), new = network.apply(
                {"params": params, "batch_stats": statistics},
                examples.inputs,
                train=True,
                mutable=["batch_stats"],
            )
            sums = nets.task.score(outputs, examples, train=True)
            return sums["loss"] / sums["count"], new["batch_stats"]

        gradient = jax.jit(jax.grad(loss, has_aux=True))
        trace = optax.chain(optax.add_decayed_weights(5e-4), optax.trace(0.9, nesterov=True))

        @jax.jit
        def updated(grads, kept, params, rate, trace=trace):
            updates, kept = trace.update(grads, kept, params)
            return jax.tree.map(lambda p, u: p - rate * u, params, updates), kept

        kept = jax.jit(trace.init)(params)
        for step in range(2):
            key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), 1), step)
            batch = {"image": images[rows[step]], "label": labels[rows[step]]}
            examples = examples_of(key, batch)
            grads, statistics = gradient(params, statistics, examples)
            params, kept = updated(grads, kept, params, rates[step])
        for name, own in (("params", params), ("statistics", statistics)):
            found = _own(nets, after[name], number)
            assert jax.tree.structure(found) == jax.tree.structure(own)
            for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(own), strict=True):
                np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-5)


def test_correlations_by_accuracy_and_by_loss():
    published = [10.0, 20.0, 30.0, 40.0, 50.0]

    def rows(task, seed, accuracy, loss):
        return [
            {"task": task, "seed": seed, "steps": 8, "cell": k, "published": p} | {
                "accuracy": accuracy[k], "loss": loss[k]}
            for k, p in enumerate(published)
        ]  # fmt: skip

    falling = [5, 4, 3, 2, 1]
    rotation, jigsaw = pretext_curve.rank_correlations(
        rows("rotation", 0, [1, 2, 3, 4, 6], falling)
        + rows("rotation", 1, [1, 2, 3, 6, 4], falling)
        + rows("jigsaw", 0, falling, [1, 1, 1, 1, 2])
    )
    # The means over seeds of the last two cells are equal: rho of ranks 1, 2, 3, 4.5, 4.5.
    assert rotation["accuracy"][0] == pytest.approx(0.975, abs=1e-3)
    assert rotation["loss"][0] == 1.0
    assert rotation["seeds"] == 2
    assert jigsaw["accuracy"][0] == -1.0


def test_the_page_says_what_its_rows_say():
    folder = pathlib.Path("docs/results/curve")
    page = (folder / "README.md").read_text(encoding="utf-8").replace("*", "")
    rows = pretext_curve.read(str(folder / "nasbench201.csv"))
    found = pretext_curve.rank_correlations(rows)
    assert len(found) == 9
    for row in found:
        texts = ["{:.3f} [{:.3f}, {:.3f}]".format(*row[kind]) for kind in ("accuracy", "loss")]
        assert f"| {row['task']} | {row['steps']} | {' | '.join(texts)} |" in page

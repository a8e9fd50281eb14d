"""What is said of results that say nothing, and what is not said of others."""

import jax.numpy as jnp
import numpy as np
import pytest

from unnas_jax.analysis import verdict
from unnas_jax.spaces.darts import candidates
from unnas_jax.spaces.darts import genotype as genotypes
from unnas_jax.tasks import base

EDGES = candidates.num_edges(4)
START = 1e-3 * np.random.default_rng(0).normal(size=(EDGES, 8))


def words(last: np.ndarray, rows: int = 2) -> str:
    history = np.stack([START, last])[-rows:] if rows > 1 else last[None]
    mixing = dict.fromkeys(("normal", "reduce"), genotypes.softmax(history))
    return "; ".join(verdict.of_alphas(mixing, genotypes.discretise(last, last), 1.0))


def test_alphas_that_never_moved() -> None:
    for rows in (1, 2):
        assert words(START, rows).startswith("no alpha has moved: they learn from epoch 1 on")


def test_alphas_within_noise_of_an_equal_choice() -> None:
    assert words(START + 1e-3 * np.random.default_rng(1).normal(size=START.shape)).startswith(
        "the alphas are undecided: every operation weighs 0.125 within 0.005"
    )


def test_cells_of_skips_and_cells_that_are_chosen() -> None:
    skips = START.copy()
    skips[:, candidates.OPERATIONS.index("skip_connect")] += 1.0
    assert words(skips).count("are skip connections") == 2  # Of both cells.
    some = skips.copy()
    some[2:5, candidates.OPERATIONS.index("sep_conv_3x3")] += (
        2.0  # Two of a node's three edges win.
    )
    assert "6 of the 8 edges of the normal cell are skip connections, more than half" in words(some)
    chosen = START.copy()
    chosen[:, candidates.OPERATIONS.index("sep_conv_3x3")] += 1.0
    assert words(chosen) == ""
    # A search whose history was lost has moved all the same.
    assert words(chosen, rows=1) == ""


@pytest.mark.parametrize(
    ("accuracy", "guess", "images", "said"),
    [
        (0.042, 1 / 24, 512, True),
        (0.121, 1 / 24, 512, False),  # README: jigsaw on `photos`.
        (0.055, 1 / 24, 512, True),  # Within two standard errors, 0.018.
        (0.25, 0.25, 10**6, True),
        (0.26, 0.25, 10**6, False),
        (0.9, 0.9, 100, True),  # Nine of ten images are of one class.
        (1.0, 1.0, 100, True),
    ],
)
def test_accuracies_of_guessing(accuracy: float, guess: float, images: int, said: bool) -> None:
    assert bool(verdict.of_accuracy(accuracy, guess, images)) == said


@pytest.mark.parametrize("shape", [(), (5, 3)])
def test_the_most_frequent_answer_is_counted_over_all_batches(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    expected, sums = np.zeros(4, np.int64), []
    for _ in range(3):
        targets = rng.choice([0, 0, 0, 1, 2, 3, 255, -1], size=(6, *shape)).astype(np.int32)
        weights = (rng.random(6) < 0.7).astype(np.float32)
        for target, weight in zip(targets, weights, strict=True):
            if weight:
                seen = target.ravel()
                expected += np.bincount(seen[(seen >= 0) & (seen < 4)], minlength=4)
        examples = base.Examples(jnp.zeros((6, 1)), jnp.asarray(targets), jnp.asarray(weights))
        counts = base.target_counts(examples, 4)
        sums.append({"loss": 0.0, "correct": 0.0, "count": 1.0, "targets": np.asarray(counts)})
    np.testing.assert_array_equal(base.total(sums)["targets"], expected)
    majority = base.means(base.total(sums))["majority"]
    assert majority == pytest.approx(expected.max() / expected.sum())
    assert verdict.chance({"majority": majority}, 4) == majority
    assert verdict.chance({}, 4) == 0.25


def test_alphas_of_other_operations() -> None:
    """An equal choice of two operations weighs 1/2 each, and a single one has no choice."""
    two = ("skip_connect", "sep_conv_3x3")
    operations = candidates.parse({"normal": two, "reduce": (("noise",), two)}, 1)
    start = 1e-3 * np.random.default_rng(0).normal(size=(2, 2, 2))
    start[:, 0, 1] = 0.0

    def said(moved: float) -> str:
        last = start.copy()
        last[:, 1, 1] += moved
        mixing = {
            kind: genotypes.softmax(np.stack([start[k], last[k]]), operations[kind])
            for k, kind in enumerate(("normal", "reduce"))
        }
        cells = genotypes.strongest(mixing["normal"][-1], mixing["reduce"][-1], operations)
        return "; ".join(verdict.of_alphas(mixing, cells, 1.0, operations))

    assert "every operation weighs 0.5 to 1, as one of its edge's, within 0.005" in said(1e-3)
    assert said(1.0) == ""

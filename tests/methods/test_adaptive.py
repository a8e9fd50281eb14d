"""A search that goes back when the eigenvalue jumps, against a schedule computed by hand."""

import json
import math
import pathlib
import types
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from tests import conftest, tiny
from unnas_jax.analysis import collapse, results
from unnas_jax.config.sections import MethodConfig
from unnas_jax.core.errors import UserError
from unnas_jax.methods import adaptive, registry, stop_rules
from unnas_jax.methods.darts import Darts
from unnas_jax.runs import checkpoint, outputs, snapshot, validation
from unnas_jax.runs import search as search_lib
from unnas_jax.runs import stages as stages_lib

EPOCHS = 20  # Of one step.

# An eigenvalue is 1 before this epoch of the schedule, and 2 from there on; by weight decay.
JUMPS = {3e-4: 14, 9e-4: 16, 2e-3: 13}

# After epoch 16 the last five are 1 1 2 2 2, of the mean 1.6, and those four before 1: the epoch
# in the middle of these is 10. Then 1 1 1 2 2, 1.4, after epoch 17, which is the 24th of the run;
# the middle is 11, its 18th. The decay is three times as large, and once more, but for the limit.
SCHEDULE = [*range(17), *range(11, 18), *range(12, 20)]
DECAY = [3e-4] * 17 + [9e-4] * 7 + [2e-3] * 8


def config_of(**options: Any) -> ml_collections.ConfigDict:
    config = tiny.config(epochs=EPOCHS, max_images=8)
    config.network.update(nodes=1, operations=("skip_connect", "avg_pool_3x3"))
    config.input.update(crop=8, resize=8)
    config.eval.update(max_images=8, batch_size=8)
    config.weights.update(learning_rate=0.05, final_learning_rate=0.01, weight_decay=3e-4)
    config.workers = 0
    given = {"adapt": "weight_decay", "adapt_limit": 2e-3, "curvature_every": 1, **options}
    registry.choose(config, "darts", **given)
    return config


def curvature(method: Darts, state: Any, batch_b: Any) -> float:
    epoch = int(state.step) - method.setting.first_step - 1
    return 2.0 if epoch >= JUMPS[method.config.weights.weight_decay] else 1.0


class Makes:
    """Makes each method once, so that runs share what is compiled."""

    made: dict[Any, Darts] = {}
    stages = staticmethod(Darts.stages)

    def __call__(self, setting: Any) -> Darts:
        key = setting.config.weights.weight_decay, setting.first_step
        return self.made.setdefault(key, Darts(setting))


def searched(workdir: pathlib.Path, images: pathlib.Path, kills: list[int]) -> tuple[Any, dict]:
    """The last state of a search that dies before these steps, and the states before all steps."""
    config, before, step = config_of(), {}, Darts.step
    config.dataset.update(name="folder", path=str(images))

    def watched(self: Darts, state: Any, *batches: Any) -> Any:
        number = int(state.step)
        if kills and number == kills[0]:
            kills.pop(0)
            raise RuntimeError("killed")
        before[number] = snapshot.on_host(state)
        return step(self, state, *batches)

    with conftest.few_devices(1), pytest.MonkeyPatch.context() as patch:
        patch.setattr(Darts, "curvature", curvature)
        patch.setattr(Darts, "step", watched)
        patch.setattr(outputs.pictures, "write_report", lambda _: None)
        methods = types.SimpleNamespace(of_config=lambda config: Makes())
        patch.setattr(stages_lib, "methods", methods)
        while kills:
            with pytest.raises(RuntimeError, match="killed"):
                search_lib.search(config, str(workdir))
        return search_lib.search(config, str(workdir)), before


@pytest.fixture(scope="module")
def whole(images: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """An undisturbed search: its workdir, last state, and the states before all steps."""
    workdir = tmp_path_factory.mktemp("whole") / "w"
    yield workdir, *searched(workdir, images, [])
    Makes.made.clear()


def rows(workdir: pathlib.Path, kind: str) -> list[dict]:
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    clock = ("images_per_second", "seconds_left")
    return [
        {name: value for name, value in line.items() if name not in clock}
        for line in lines
        if line["kind"] == kind
    ]


def test_it_goes_back_as_computed_by_hand(whole: Any) -> None:
    workdir, last, _ = whole
    measured, trained = rows(workdir, "method"), rows(workdir, "train")
    assert int(last.step) == len(measured) == len(trained) == 32
    assert [row["regularisation"] for row in measured] == pytest.approx(DECAY)
    returns = {row["epoch"]: row["returns_to"] for row in measured if "returns_to" in row}
    assert returns == {17: 11, 24: 18}
    rates = [0.01 + 0.04 * (1 + math.cos(math.pi * epoch / EPOCHS)) / 2 for epoch in SCHEDULE]
    assert [row["learning_rate"] for row in trained] == pytest.approx(rates, rel=1e-5)
    document = json.loads((workdir / "genotype.json").read_text())
    assert document["finished"] and document["step"] == 32 and "stopped" not in document


def test_it_goes_on_from_the_state_that_there_was(whole: Any) -> None:
    before = whole[2]
    for after, earlier in ((17, 11), (24, 18)):
        again, first = (before[step].replace(step=0) for step in (after, earlier))
        jax.tree.map(np.testing.assert_array_equal, again, first)
        moved = jax.tree.leaves(before[after + 1].params), jax.tree.leaves(again.params)
        assert any(np.any(a != b) for a, b in zip(*moved, strict=True))


def test_the_decay_is_what_the_optimizer_adds(whole: Any) -> None:
    """Of a gradient of 0 a first step takes so much of the weights, times the rate."""
    weights, taken = {"w": jnp.ones(3)}, []
    for key in ((3e-4, 0), (9e-4, 6), (2e-3, 12)):
        optimizer = Makes.made[key].weights_tx
        updates, _ = optimizer.update({"w": jnp.zeros(3)}, optimizer.init(weights), weights)
        taken.append(float(updates["w"][0]))
    assert taken == pytest.approx([-0.05 * 3e-4, -0.05 * 9e-4, -0.05 * 2e-3], rel=1e-4)


def test_a_killed_search_ends_in_the_same_bits(
    whole: Any, images: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """Killed while it goes back, and some steps later."""
    workdir, last, _ = whole
    parted = tmp_path / "w"
    searched(parted, images, [17, 20])
    state, steps_more = searched(parted, images, [])
    assert not steps_more
    jax.tree.map(np.testing.assert_array_equal, *map(jax.device_get, (state, last)))
    for file in ("alphas.npz", "genotype.json"):
        assert (parted / file).read_bytes() == (workdir / file).read_bytes()
    for kind in ("train", "method", "validation"):
        assert rows(parted, kind) == rows(workdir, kind)
    steps = []
    for place in (workdir, parted):
        with checkpoint.Checkpoints(str(place / "checkpoints"), read_only=True) as kept:
            steps.append(kept.steps())
    assert steps[0] == steps[1]


def test_its_report_says_so(whole: Any) -> None:
    run = results.read(whole[0])
    told = " ".join(collapse.words(run))
    assert "went back 2 times" in told and "0.0003 to 0.002" in told
    # It jumps once more, by the same rule after epoch 16 of the schedule; the decay has its limit.
    assert collapse.jump(run.records["method"], EPOCHS) == (29, 11)


def test_a_checkpoint_that_is_gone(whole: Any) -> None:
    place = str(whole[0] / "checkpoints")
    with (
        checkpoint.Checkpoints(place) as kept,
        pytest.raises(UserError, match="goes back to step 5, but its checkpoint is gone; start"),
    ):
        kept.restore_whole(5, whole[1])


def test_drop_path_grows_to_the_limit() -> None:
    config = config_of(adapt="drop_path", drop_path=0.1, adapt_limit=0.5)
    validation.validate(config)
    part, found = MethodConfig.of(config.to_dict()), []
    while adaptive.can_grow(part):
        part = adaptive.grown(part)
        found.append(part.method["drop_path"])
    assert found == pytest.approx([0.3, 0.5])


def test_what_the_rule_may_yet_name_is_kept() -> None:
    """Whatever happens next, the epoch that the rule names has been kept since it was measured."""
    rng = np.random.default_rng(0)
    for every in (1, 2):
        values = np.exp(np.cumsum(rng.normal(0, 0.3, 50)))
        seen: list[dict] = []
        kept, named = set(range(50)), 0
        for epoch, value in enumerate(values):
            seen.append({"epoch": epoch, "eigenvalue": None if epoch % every else float(value)})
            held = {row["epoch"] for row in stop_rules.may_be_named(seen)}
            kept = (kept & held) | {epoch}
            found = stop_rules.eigenvalue(seen, 50)
            named += found is not None
            assert found is None or found in kept
            assert len(held) <= 7
        assert named


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"adapt": "decay"}, "config.method.adapt='decay': use one of none, weight_decay"),
        ({"curvature_every": 0}, "needs eigenvalues; set config.method.curvature_every"),
        ({"stop": "eigenvalue"}, "where config.method.stop='eigenvalue' would end the search"),
        ({"adapt_factor": 1.0}, "config.method.adapt_factor=1.0: must be greater than 1"),
        ({"adapt_limit": 3e-4}, "from config.weights.weight_decay=0.0003 to .*adapt_limit=0.0003"),
        ({"adapt": "drop_path"}, "grows from config.method.drop_path=0.0"),
        ({"adapt": "drop_path", "drop_path": 0.1, "adapt_limit": 1.0}, "must stay less than 1"),
    ],
)
def test_mistakes(options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        validation.validate(config_of(**options))
    assert "\n" not in str(caught.value)

"""The largest batch that fits: the search, and the compilations that it takes."""

import dataclasses
import itertools
import math

import jax
import pytest

from tests import tiny
from unnas_jax.commands import compile as compile_lib
from unnas_jax.commands import fitting, slices
from unnas_jax.core import sharding
from unnas_jax.core.errors import UserError

GIB = 2**30


def largest(need_of, available: int, chips: int, most: int) -> int:
    """The largest batch of those that may be tried, by trying them all."""
    grid = {fitting.rounded(size, chips) for size in range(chips, most + 1, chips)}
    return max((size for size in grid if need_of(size) <= available), default=0)


def found(need_of, available: int, first: int, chips: int = 1, most: float = math.inf):
    """What the search finds, and what it tried."""
    tried: dict[int, int | None] = {}
    first = fitting.rounded(first, chips)
    return fitting.search(need_of, tried, first, available, chips, most), tried


@pytest.mark.parametrize("chips", [1, 8])
@pytest.mark.parametrize("first", [8, 64, 4096])
@pytest.mark.parametrize(("fixed", "an_image"), [(0, 40e6), (2 * GIB, 40e6), (GIB, 0.7e6)])
def test_a_need_that_is_linear_is_found_in_few_compilations(chips, first, fixed, an_image):
    def need_of(batch: int) -> int:
        return int(fixed + an_image * batch / chips)

    size, tried = found(need_of, 16 * GIB, first, chips)
    assert size == largest(need_of, 16 * GIB, chips, 30_000 * chips)
    assert size in tried  # It was compiled, not only computed.
    assert len(tried) <= 5


@pytest.mark.parametrize("refuses", [False, True])
def test_a_need_that_bends_is_found_too(refuses):
    """From 128 on a batch is padded to lanes, and an image needs less; the planner adds noise.

    XLA may tell no need where it is too large.
    """

    def need_of(batch: int) -> int:
        padded = batch if batch < 128 else -(-batch // 128) * 128
        return int(GIB + 30e6 * padded * (1.0 if batch < 128 else 0.6)) + (batch * 7919) % 100_000

    def told(batch: int) -> int | None:
        return None if refuses and need_of(batch) > 16 * GIB else need_of(batch)

    size, tried = found(told, 16 * GIB, 64)
    assert size == largest(need_of, 16 * GIB, 1, 2000)
    assert len(tried) <= 12


def test_a_batch_that_is_refused_is_halved():
    size, tried = found(lambda batch: None if batch > 5 else batch * GIB, 5 * GIB, 64)
    assert size == 5
    assert list(tried)[:4] == [64, 32, 16, 8]


def test_needs_that_do_not_grow_do_not_lead_far_away():
    size, tried = found(lambda batch: GIB if batch < 10_000 else None, 16 * GIB, 8)
    assert 9_600 <= size < 10_000
    assert all(later <= 16 * before for before, later in itertools.pairwise(tried))


def test_there_are_only_so_many_images():
    size, tried = found(lambda batch: batch, 16 * GIB, 64, chips=4, most=25_000)
    assert size == fitting.rounded(25_000, 4) == 24_576
    assert max(tried) <= 25_000


def test_nothing_fits():
    assert found(lambda batch: 17 * GIB + batch, 16 * GIB, 64)[0] == 0
    assert found(lambda batch: None, 16 * GIB, 8, chips=8)[0] == 0


@dataclasses.dataclass
class Program:
    """In place of a lowered program, whose text tells it from others."""

    text: str

    def as_text(self) -> str:
        return self.text


@pytest.fixture
def compiled(monkeypatch) -> list[str]:
    """The programs that a compiler compiled which knows their memory by their text."""
    names: list[str] = []

    def programs_of(c, mesh, stage):
        size = c.train.batch_size
        programs = {
            "alphas": [Program(f"alphas of {size}"), Program("update of 0")],
            "weights": [Program(f"weights of {size}"), Program("update of 1")],
        }
        return programs, compile_lib.Resident(own=1000, waiting=100)

    def needs_of(program, quick):
        names.append(program.text)
        name, _, size = program.text.split()
        # Alphas need the most, but the code of the weights' programs grows.
        an_image = {"alphas": GIB / 10, "weights": GIB / 20, "update": 1}[name]
        code = GIB // 100 * int(size) if name == "weights" else 0
        need = {"temporaries": int(an_image * int(size)), "code": code}
        return {"arguments": 1000, "outputs": 0, **need}

    monkeypatch.setattr(compile_lib, "programs_of", programs_of)
    monkeypatch.setattr(compile_lib, "needs_of", needs_of)
    mesh = sharding.data_mesh(jax.devices()[:1])
    monkeypatch.setattr(slices, "mesh_of", lambda topology: mesh)
    return names


@pytest.mark.parametrize(("dataset", "first"), [("photos", 8), ("folder", 8), ("folder", 4096)])
def test_the_step_that_needs_most_finds_the_batch_and_all_confirm_it(compiled, dataset, first):
    config = tiny.config(batch_size=first)
    config.dataset.name = dataset
    result = compile_lib.fit(config.to_dict(), "v5e:1x1")
    # 143 images need 14.3 + 1.43 GiB, 144 would need more than 15.75.
    assert result["batch_size"] == fitting.rounded(143, 1) == 140
    tried = {one["batch_size"]: one["needed"] for one in result["tried"]}
    assert result["fits"] and result["needed"] == tried[140]
    assert len(compiled) == len(set(compiled))  # Nothing is compiled twice.
    alphas, weights = (sum(name.startswith(step) for name in compiled) for step in ("al", "we"))
    assert weights < alphas or first > 140  # Weights only where all are compiled.
    text = compile_lib.table("search", {**result, "steps": {}})
    assert "the largest batch that fits is 140" in text


def test_one_image_a_chip_that_does_not_fit_is_one_line(compiled, monkeypatch):
    monkeypatch.setattr(compile_lib, "needs_of", lambda program, quick: {"refused": "no"})
    with pytest.raises(UserError, match="one image a chip does not fit into the 15.75 GiB"):
        compile_lib.fit(tiny.config().to_dict(), "v5e:1x1")

"""The story of a found cell and random ones: draws, ranks, files, a story that is continued."""

import collections
import csv
import json
import shutil

import cv2
import numpy as np
import pytest

from tests import conftest, tiny, tiny_training
from unnas_jax.analysis import story_plot, style
from unnas_jax.commands import story
from unnas_jax.core.errors import UserError
from unnas_jax.spaces.darts import sampling
from unnas_jax.spaces.darts.candidates import OPERATIONS
from unnas_jax.spaces.darts.genotype import load


def test_random_cells_are_those_that_a_search_can_end_in():
    rng = np.random.default_rng(0)
    operations, sources = collections.Counter(), collections.Counter()
    for _ in range(500):
        for pairs in (cells := sampling.draw_found(rng)).normal, cells.reduce:
            for node in range(4):
                (first, a), (second, b) = pairs[2 * node : 2 * node + 2]
                assert a < b < node + 2
                operations.update((first, second))
                if node == 3:
                    sources.update((a, b))
    assert set(operations) == set(OPERATIONS) - {"none"}
    # 8000 operations and 2000 states: four deviations of a uniform draw.
    assert max(abs(n - 8000 / 7) for n in operations.values()) < 4 * np.sqrt(8000 * 6 / 49)
    assert max(abs(n - 2000 / 5) for n in sources.values()) < 4 * np.sqrt(2000 * 4 / 25)


def _results(**means):
    results = {}
    for name, mean in means.items():
        values = [mean - 0.01, mean, mean + 0.01]
        results[name] = {
            "dataset": "photos",
            "metric": "accuracy",
            "genotype_source": {"dataset": "photos", "task": "rotation"},
            "parameters": 100,
            "multiply_adds": 1000,
            "seeds": [0, 1, 2],
            "values": values,
            "mean": mean,
            "std": 0.01,
        }
    return results


def test_summary_ranks_the_found_cell():
    result = story.summary(_results(found=0.7, a=0.6, b=0.8, c=0.65))
    assert (result["rank"], result["of"], result["chance_of_rank"]) == (2, 4, 0.5)
    assert [cell["name"] for cell in result["cells"]] == ["b", "found", "c", "a"]
    assert result["random_mean"] == pytest.approx((0.6 + 0.8 + 0.65) / 3)
    assert result["random_std"] == pytest.approx(np.std([0.6, 0.8, 0.65], ddof=1))
    assert result["seed_std"] == pytest.approx(0.01)


def test_the_picture_shows_every_training():
    result = story.summary(_results(found=0.7, a=0.6, b=0.8, c=0.65))
    figure = story_plot.draw(result, "found")
    (axes,) = figure.axes
    dots = [line for line in axes.lines if line.get_marker() in ("o", "D")]
    shown = [sorted(line.get_xdata()) for line in dots]
    np.testing.assert_allclose(shown, [[100 * v for v in c["values"]] for c in result["cells"]])
    assert [line.get_marker() for line in dots] == ["o", "D", "o", "o"]
    assert "rank 2 of 4" in figure.texts[0].get_text()
    low, high = axes.get_ylim()[::-1]
    assert low < 0 and high > 3 and axes.get_xlim()[0] < 59 and axes.get_xlim()[1] > 81


@pytest.fixture(scope="module")
def configs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for name, order in (("above", 1), ("below", -1)):
        (folder / name).mkdir()
        for number, image in enumerate(tiny.upright(32, 20)):
            cv2.imwrite(str(folder / name / f"{number:03d}.png"), image[::order])
    search_config = tiny.config(epochs=1)
    search_config.network.nodes = 1
    training_config = tiny_training.config(epochs=2)
    training_config.seeds = 1
    for config in (search_config, training_config):
        config.dataset.update(name="folder", path=str(folder))
    return search_config, training_config


@pytest.fixture(scope="module")
def told(configs, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "story"
    with conftest.few_devices(1):
        return workdir, story.run(*configs, str(workdir), random=2)


def test_a_story_compares_cells_of_one_size(told):
    workdir, result = told
    assert result == json.loads((workdir / "story.json").read_text())
    assert {cell["name"] for cell in result["cells"]} == {"found", "random 1", "random 2"}
    sizes = {cell["name"]: cell["parameters"] for cell in result["cells"]}
    assert max(abs(size / sizes["found"] - 1) for size in sizes.values()) <= 0.1
    assert result["searched_on"] == {"dataset": "folder", "task": "rotation"}
    with open(workdir / "story.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["cell"], float(row["accuracy"])) for row in rows] == [
        (cell["name"], cell["values"][0]) for cell in result["cells"]
    ]
    assert cv2.imread(str(workdir / "story.png")).shape[1] > 800
    cells = [load(workdir / "random" / f"{k}.json")[0] for k in (1, 2)]
    assert cells[0] != cells[1]


def test_a_story_goes_on_where_it_stopped(told, on_one_device, configs, monkeypatch):
    """One training is lost; the others, and the search, are not run again."""
    workdir, result = told
    shutil.rmtree(workdir / "cells" / "random_1")
    (workdir / "story.json").unlink()
    trained = []

    def train(config, place):
        trained.append(place)
        return original(config, place)

    original = story.train
    monkeypatch.setattr(story, "train", train)
    monkeypatch.setattr(story, "search", None)
    assert story.run(*configs, str(workdir), random=2) == result
    assert trained == [str(workdir / "cells" / "random_1")]
    # Other trainings need another workdir.
    other = configs[1].copy_and_resolve_references()
    other.seeds = 2
    with pytest.raises(UserError, match="seeds: 1 -> 2"):
        story.run(configs[0], other, str(workdir), random=2)


def test_too_few_cells_of_a_size_are_a_mistake(told, configs, monkeypatch):
    workdir, _ = told
    genotype, _ = load(workdir / "search" / "genotype.json")
    monkeypatch.setattr(story, "_MAX_DRAWS", 3)
    with pytest.raises(UserError, match="--random"):
        story.random_cells(configs[1].to_dict(), genotype, 50, seed=0)


def test_one_training_a_cell_has_no_deviation():
    results = _results(found=0.7, a=0.6)
    for result in results.values():
        result.update(values=result["values"][:1], seeds=[0], std=0.0)
    figure = story_plot.draw(story.summary(results), "found")
    assert style.render(figure, "png").startswith(b"\x89PNG")
    assert not any("±" in text.get_text() for text in figure.axes[0].texts)

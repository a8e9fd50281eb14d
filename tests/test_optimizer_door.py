"""Optimizers by name, of one's own and as objects: the page docs/walks/optimizer.md."""

import json
import pathlib
import re

import jax
import numpy as np
import optax
import pytest

import unnas_jax as un
from tests import conftest, tiny, tiny_training, toy_optimizer
from unnas_jax.analysis import report
from unnas_jax.commands import command_line
from unnas_jax.config import schema
from unnas_jax.config.sections import Alphas, Weights
from unnas_jax.learning import optim
from unnas_jax.runs import validation

pytestmark = [
    pytest.mark.usefixtures("on_one_device"),
    # Of ml_collections, when it reads a recipe.
    pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning"),
]
PAGE = (conftest.ROOT / "docs" / "walks" / "optimizer.md").read_text()
SIZES = {
    "network": {"cells": 3, "nodes": 1, "width": 4, "operations": tiny.FEW},
    "train": {"batch_size": 8, "max_steps": 1},
    "search": {"arch_start_epoch": 0.0},
    "eval": {"batch_size": 16, "max_images": 16},
}


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.stack(tiny.upright(32, 16))


def test_the_page_shows_the_optimizer_and_its_recipe_is_valid(monkeypatch):
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    code = pathlib.Path(toy_optimizer.__file__).read_text().split('"""', 2)[2].strip()
    assert blocks[1].strip() == code
    names: dict = {}
    exec(blocks[0], names)
    config = names["get_config"]()
    config.lock()
    validation.validate(config)
    assert config.weights.optimizer_options.b2 == 0.95


def steps_of(optimizer, gradients):
    """The parameters after each step."""
    params, visited = {"w": np.float32([0.5, -2.0])}, []
    state = optimizer.init(params)
    for gradient in gradients:
        updates, state = optimizer.update({"w": gradient}, state, params)
        params = optax.apply_updates(params, updates)
        visited.append(np.asarray(params["w"], np.float64))
    return visited


def test_adamw_by_name_is_that_of_its_paper():
    """Loshchilov and Hutter, algorithm 2, in float64, with the schedule's rate and clipping."""
    rates, b1, b2, decay = (0.1, 0.05, 0.02), 0.9, 0.95, 0.3
    gradients = [np.float32(g) for g in ([0.3, -0.1], [4.0, 3.0], [-0.2, 0.5])]
    section = Weights(
        1.0, 0.9, decay, clip_norm=1.0, optimizer="adamw", optimizer_options={"b2": b2}
    )
    schedule = optax.piecewise_constant_schedule(0.1, {1: 0.5, 2: 0.4})
    w, m, v = np.array([0.5, -2.0]), np.zeros(2), np.zeros(2)
    visited = steps_of(optim.optimizer(section, schedule), gradients)
    for t, (g, rate, after) in enumerate(zip(gradients, rates, visited, strict=True), start=1):
        g = np.float64(g) / max(1.0, np.linalg.norm(np.float64(g)))
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        hat = (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + 1e-8)
        w = w - rate * (hat + decay * w)
        np.testing.assert_allclose(after, w, rtol=1e-5)


def test_fields_of_the_section_reach_what_has_them():
    for name, expected in [
        ("rmsprop", {"momentum": 0.7, "nesterov": True}),
        ("adam", {}),  # Its own `nesterov` has nothing to do with a momentum.
        ("lion", {"weight_decay": 0.1}),
    ]:
        section = Weights(0.1, 0.7, 0.1, clip_norm=0.0, nesterov=True, optimizer=name)
        same = getattr(optax, name)(0.1, **expected)
        if "weight_decay" not in expected:
            same = optax.chain(optax.add_decayed_weights(0.1), same)
        gradients = [np.float32([1.0, -3.0])] * 3
        found = steps_of(optim.optimizer(section, lambda step: 0.1), gradients)
        np.testing.assert_allclose(found, steps_of(same, gradients), rtol=1e-6)
    section = Alphas(0.1, b1=0.3, b2=0.6, weight_decay=0.0, optimizer="lion")
    same = optax.lion(0.1, b1=0.3, b2=0.6, weight_decay=0.0)
    found = steps_of(optim.optimizer(section, 0.1), gradients)
    np.testing.assert_allclose(found, steps_of(same, gradients))


@pytest.mark.parametrize(
    ("section", "change", "message"),
    [
        ("weights", {"optimizer": "adamww"}, "weights.optimizer='adamww': did you mean 'adamw'"),
        ("alphas", {"optimizer": "SGD"}, "alphas.optimizer='SGD': .*use one of .*sgd"),
        ("weights", {"optimizer": "lbfgs"}, "weights.optimizer='lbfgs' cannot train weights"),
        ("weights", {"optimizer": "object"}, "was passed to un.search or un.train"),
        (
            "weights",
            {"optimizer": "adamw", "optimizer_options": {"bb1": 0.5}},
            "weights.optimizer_options.bb1: did you mean 'b1'.*'adamw' has the options b1, b2",
        ),
        (
            "weights",
            {"optimizer_options": {"momentum": 0.5}},
            "weights.optimizer_options.momentum: set config.weights.momentum",
        ),
        (
            "alphas",
            {"optimizer_options": {"learning_rate": 0.5}},
            "alphas.optimizer_options.learning_rate: set config.alphas.learning_rate",
        ),
        (
            "alphas",
            {"optimizer_options": {"eps": "small"}},
            "alphas.optimizer_options.eps='small': must be of type float",
        ),
        (
            "alphas",
            {"optimizer_options": {"nesterov": 1}},
            "alphas.optimizer_options.nesterov=1: must be of type bool",
        ),
        (
            "alphas",
            {"optimizer_options": {"eps": float("inf")}},
            "alphas.optimizer_options.eps=inf: must be finite",
        ),
        (
            "weights",
            {"optimizer": "adam", "optimizer_options": {"mu_dtype": "flot"}},
            "weights.optimizer='adam' cannot train weights with these options: .*flot",
        ),
        ("weights", {"optimizer_options": 3}, "optimizer_options=3: give the keys of a section"),
    ],
)
def test_mistakes_are_one_line(section, change, message):
    config = schema.search()
    with config.unlocked(), config.ignore_type():
        for key, value in change.items():
            config[section][key] = value
    with pytest.raises(un.UserError, match=message) as error:
        validation.validate(config)
    assert "\n" not in str(error.value)


def test_the_second_order_refuses_steps_without_derivatives():
    config = schema.search()
    config.search.order, config.weights.optimizer = 2, "adamw"
    with pytest.raises(un.UserError, match="config.search.order=2: .*'adamw'.*eps_root"):
        validation.validate(config)
    config.weights.optimizer_options = {"eps_root": 1e-8}
    validation.validate(config)


def test_flags_choose_an_optimizer_and_its_options():
    config = schema.search()
    config.lock()
    flags = ["--config.weights.optimizer=adamw", "--config.weights.optimizer_options.b2=0.95"]
    command_line.override(config, [*flags, "--config.weights.optimizer_options.mu_dtype=bfloat16"])
    validation.validate(config)
    assert config.weights.optimizer_options.to_dict() == {"b2": 0.95, "mu_dtype": "bfloat16"}
    command_line.override(config, ["--config.weights.optimizer_options.bb2=0.9"])
    with pytest.raises(un.UserError, match="weights.optimizer_options.bb2: did you mean 'b2'"):
        validation.validate(config)


def test_names_that_are_taken_and_functions_without_a_rate_are_refused():
    with pytest.raises(un.UserError, match="optimizer 'lion': the name is taken"):
        un.register_optimizer("lion", optax.lion)
    with pytest.raises(un.UserError, match="with the argument learning_rate"):
        un.register_optimizer("centralize", optax.centralize)


def alphas_of(workdir: pathlib.Path) -> dict[str, np.ndarray]:
    with np.load(workdir / "alphas.npz") as columns:
        return dict(columns)


def rows(workdir: pathlib.Path, kind: str) -> list[dict]:
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return [line for line in lines if line["kind"] == kind]


SIGN = {"optimizer": "sign_momentum", "optimizer_options": {"decay": 0.8}}
RATE = {"learning_rate": 3e-3, "final_learning_rate": 3e-3, "weight_decay": 0.0}


def test_a_search_has_weights_by_name_and_alphas_by_an_object(pixels, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "write", lambda workdir: [])  # Pictures.
    weights = {**SIGN, **RATE, "clip_norm": 1e9}
    # Without weight decay, Adam's first step is the rate, whatever the gradients.
    adamw = optax.adamw(1e-2, weight_decay=0.0)
    found = un.search(pixels, tmp_path / "w", **SIZES, weights=weights, alphas_optimizer=adamw)
    moves = np.abs(np.diff(alphas_of(tmp_path / "w")["normal"], axis=0))
    np.testing.assert_allclose(moves[0], 1e-2, rtol=1e-2)
    assert found.records["train"][-1]["learning_rate"] == pytest.approx(3e-3)
    config = json.loads((tmp_path / "w" / "config.json").read_text())
    assert config["weights"]["optimizer_options"] == {"decay": 0.8}
    with pytest.raises(un.UserError, match="another config .*alphas.optimizer: object -> adam"):
        un.search(pixels, tmp_path / "w", **SIZES, weights=weights)
    with pytest.raises(un.UserError, match="weights_optimizer: give an optimizer of optax"):
        un.search(pixels, tmp_path / "third", **SIZES, weights_optimizer="lion")


def test_a_training_takes_the_steps_of_the_object_that_it_gets(pixels, tmp_path):
    config = tiny_training.config(batch_size=8, epochs=2, max_steps=1)
    un.register_dataset("two_skies", un.arrays(pixels, np.arange(32) % 2))
    config.dataset.name, config.seeds, config.workers = "two_skies", 1, 0
    config.network.genotype = str(tiny_training.CELLS)
    own = toy_optimizer.sign_momentum(3e-3)
    un.train(config, tmp_path / "w", weights_optimizer=own)
    _, before, _ = un.load_network(tmp_path / "w")
    config.train.max_steps = 2
    assert un.train(config, tmp_path / "w", weights_optimizer=own)["finished"]
    assert "learning_rate" not in rows(tmp_path / "w", "train")[-1]
    module, after, preprocessing = un.load_network(tmp_path / "w")
    moves = jax.tree.map(lambda a, b: np.abs(b - a).ravel(), before["params"], after["params"])
    moved = np.concatenate(jax.tree.leaves(moves))
    np.testing.assert_allclose(moved[moved > 0], 3e-3, rtol=1e-3)
    assert np.mean(moved > 0) > 0.5
    assert jax.jit(module.apply)(after, preprocessing(pixels[:2])).shape == (2, 2)
    with pytest.raises(un.UserError, match="config.weights.optimizer: object -> sgd|another"):
        un.train(config, tmp_path / "w")

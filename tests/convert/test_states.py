"""Checkpoints: optimizers' moments, position, files; without torch where no file is needed."""

import os

import jax
import numpy as np
import optax
import pytest

from tests.convert import release
from tests.spaces import quick
from unnas_jax.config import schema as config_lib
from unnas_jax.config.sections import Alphas, Weights
from unnas_jax.convert import pyth, states
from unnas_jax.core.errors import UserError
from unnas_jax.learning import optim

ALPHAS = ["net_.alphas_normal", "net_.alphas_reduce"]
CELLS = "sep_conv_3x3:0,skip_connect:1+skip_connect:0,max_pool_3x3:1"


def search_config():
    c = config_lib.search()
    c.network.update(width=4, cells=3, nodes=1)
    return c.to_dict()


def training_config():
    c = config_lib.training()
    c.dataset.name = "cifar10"
    c.seed = 5
    c.input.update(crop=32, resize=32)
    c.network.update(genotype=CELLS, width="4", cells=3, stem="cifar", auxiliary_weight=0.0)
    return c.to_dict()


def parameters(tensors):
    """The names of what optimizers step, in the order of the `state_dict`."""
    buffers = ("running_mean", "running_var", "num_batches_tracked")
    return [name for name in tensors if not name.endswith(buffers)]


def network(kind):
    w = release.Tensors(1)
    x = np.random.default_rng(0).standard_normal((1, 3, 64, 64))
    if kind == "search":
        release.supernet(w, x, width=4, depth=3, nodes=1, cifar=False, classes=4)
        return w.values
    cells = {
        "normal": [("sep_conv_3x3", 0), ("skip_connect", 1)],
        "normal_concat": [2],
        "reduce": [("skip_connect", 0), ("max_pool_3x3", 1)],
        "reduce_concat": [2],
    }
    release.darts(w, x, genotype=cells, width=4, depth=3, cifar=True, classes=10)
    return w.values


def filled(shape, rng):
    return rng.standard_normal(shape).astype(np.float32)


def sgd(tensors, names, groups=None):
    rng = np.random.default_rng(2)
    groups = [names] if groups is None else groups
    order = [name for group in groups for name in group]
    numbers = {name: k for k, name in enumerate(order)}
    return {
        "state": {
            numbers[name]: {"momentum_buffer": filled(tensors[name].shape, rng)} for name in names
        },
        "param_groups": [
            {"lr": 0.1, "params": [numbers[name] for name in group]} for group in groups
        ],
    }


def document(kind):
    """A checkpoint of the release after 3 epochs, its tensors NumPy arrays."""
    tensors = network(kind)
    names = [name for name in parameters(tensors) if name not in ALPHAS]
    result = {"epoch": 2, "model_state": tensors, "cfg": "TASK: rot"}
    if kind == "training":
        return {**result, "optimizer_state": sgd(tensors, names)}
    rng = np.random.default_rng(3)
    adam = {
        k: {"step": 11, "exp_avg": filled((2, 8), rng), "exp_avg_sq": filled((2, 8), rng) ** 2}
        for k in range(2)
    }
    return {
        **result,
        "optimizer_w_state": sgd(tensors, names),
        "optimizer_a_state": {"state": adam, "param_groups": [{"lr": 0.1, "params": [0, 1]}]},
    }


KINDS = {"search": search_config, "training": training_config}


def same(found, expected):
    """Equal trees of arrays, numbers and texts, with the same keys in any order."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key in expected:
            same(found[key], expected[key])
    elif isinstance(expected, np.ndarray):
        np.testing.assert_array_equal(found, expected)
    else:
        assert found == expected


@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_comes_back_bit_by_bit(kind):
    there, config = document(kind), KINDS[kind]()
    state, tracked, notes = states.from_release(there, config, steps_per_epoch=10)
    assert (tracked, notes) == (7, [])
    assert np.ravel(state.step).tolist() == [30]
    back, _ = states.to_release(state, config, 10, tracked)
    for key in there.keys() - {"cfg"}:
        found = dict(back[key]) if isinstance(back[key], dict) else back[key]
        if "optimizer" in key:
            same(found["state"], there[key]["state"])
            assert found["param_groups"][0]["params"] == there[key]["param_groups"][0]["params"]
        else:
            same(found, there[key])
    again, _, _ = states.from_release(back, config, 10)
    assert jax.tree.structure(again) == jax.tree.structure(state)
    jax.tree.map(np.testing.assert_array_equal, again, state)


def test_batch_norms_in_a_group_of_their_own():
    there, config = document("training"), training_config()
    tensors = there["model_state"]
    names = parameters(tensors)
    plain, _, _ = states.from_release(there, config, 10)
    groups = [[n for n in names if "bn" in n], [n for n in names if "bn" not in n]]
    assert all(groups)
    there["optimizer_state"] = sgd(tensors, names, groups)
    grouped, _, _ = states.from_release(there, config, 10)
    jax.tree.map(np.testing.assert_array_equal, grouped, plain)


def test_alphas_among_the_weights_parameters():
    there, config = document("search"), search_config()
    plain, _, _ = states.from_release(there, config, 10)
    tensors = there["model_state"]
    names = [name for name in parameters(tensors) if name not in ALPHAS]
    there["optimizer_w_state"] = sgd(tensors, names, [ALPHAS + names])
    found, _, notes = states.from_release(there, config, 10)
    assert notes == []
    jax.tree.map(np.testing.assert_array_equal, found, plain)
    there["optimizer_w_state"]["state"][0] = {"momentum_buffer": np.ones((2, 8), np.float32)}
    _, _, notes = states.from_release(there, config, 10)
    assert len(notes) == 1 and "moments of the alphas" in notes[0]


def test_alphas_that_have_not_moved_yet():
    there, config = document("search"), search_config()
    there["optimizer_a_state"]["state"] = {}
    state, _, _ = states.from_release(there, config, 10)
    for name in ("count", "mu", "nu"):
        for leaf in jax.tree.leaves(optax.tree.get(state.alphas_opt, name)):
            assert not np.any(leaf)


def test_weights_alone_start_with_moments_of_zero():
    there, config = document("search"), search_config()
    plain, _, _ = states.from_release(there, config, 10)
    state, _, notes = states.from_release(
        {key: value for key, value in there.items() if "optimizer" not in key}, config, 10
    )
    assert [note.split(" is missing")[0] for note in notes] == [
        "optimizer_w_state", "optimizer_a_state",
    ]  # fmt: skip
    for optimizer, moment in ((state.weights_opt, "trace"), (state.alphas_opt, "mu")):
        assert not any(np.any(leaf) for leaf in jax.tree.leaves(optax.tree.get(optimizer, moment)))
    assert optax.tree.get(state.weights_opt, "count") == 30
    assert jax.tree.structure(state) == jax.tree.structure(plain)


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda d: d.pop("model_state"), "model_state is missing"),
        (lambda d: d.update(epoch="two"), "epoch is 'two'"),
        (lambda d: d["optimizer_state"]["param_groups"][0]["params"].pop(), "optimizer_state: it"),
        (
            lambda d: d["optimizer_state"]["state"][3].update(momentum_buffer=np.zeros((2, 2))),
            "momentum_buffer of net_.cells.0.preprocess0.op.1.weight has the shape (2, 2)",
        ),
    ],
)
def test_what_is_wrong_with_a_checkpoint_is_named(change, words):
    there = document("training")
    change(there)
    with pytest.raises(UserError) as error:
        states.from_release(there, training_config(), 10)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_only_whole_epochs_go_over():
    state, _, _ = states.from_release(document("training"), training_config(), 10)
    with pytest.raises(UserError, match="step 30 is within epoch 4"):
        states.to_release(state, training_config(), 7)


def test_one_of_several_seeds():
    state, _, _ = states.from_release(document("training"), training_config(), 10)
    two = jax.tree.map(lambda leaf: np.concatenate([leaf, leaf + 1]), state)
    jax.tree.map(np.testing.assert_array_equal, states.of_seed(two, 5), state)
    assert states.of_seed(two, 6).seed.tolist() == [6]
    for seed, words in ((None, "choose one of 5, 6"), (7, "--seed=7: use one of 5, 6")):
        with pytest.raises(UserError, match=words):
            states.of_seed(two, seed)


def gradients(tensors, names, seed):
    rng = np.random.default_rng(seed)
    return {name: filled(tensors[name].shape, rng) for name in names}


def test_torch_s_optimizers_go_on_alike():
    """After the same gradients, torch from the checkpoint and optax from the state agree."""
    torch = pytest.importorskip("torch")
    there, config = document("search"), search_config()
    config["weights"]["clip_norm"] = 1e9
    tensors = there["model_state"]
    weights = [name for name in parameters(tensors) if name not in ALPHAS]
    section, alphas = config["weights"], config["alphas"]
    theirs = {n: torch.nn.Parameter(torch.tensor(tensors[n])) for n in [*ALPHAS, *weights]}
    optimizers = {
        "optimizer_w_state": torch.optim.SGD(
            [theirs[n] for n in weights],
            lr=section["learning_rate"],
            momentum=section["momentum"],
            weight_decay=section["weight_decay"],
        ),
        "optimizer_a_state": torch.optim.Adam(
            [theirs[n] for n in ALPHAS],
            lr=alphas["learning_rate"],
            betas=(alphas["b1"], alphas["b2"]),
            weight_decay=alphas["weight_decay"],
        ),
    }
    state, _, _ = states.from_release({**there, "epoch": -1}, config, 10)
    back, _ = states.to_release(state, config, 10)
    for key, optimizer in optimizers.items():
        optimizer.load_state_dict(pyth.mapped(back[key], np.ndarray, torch.tensor))

    @quick.jit
    def step(state, weights_move, alphas_move):
        sgd = optim.optimizer(Weights.of(section), lambda _: section["learning_rate"])
        updates, weights_opt = sgd.update(weights_move, state.weights_opt, state.params)
        params = optax.apply_updates(state.params, updates)
        adam = optim.optimizer(Alphas.of(alphas), alphas["learning_rate"])
        updates, alphas_opt = adam.update(alphas_move, state.alphas_opt, state.alphas)
        return state.replace(
            params=params,
            weights_opt=weights_opt,
            alphas=optax.apply_updates(state.alphas, updates),
            alphas_opt=alphas_opt,
        )

    for seed in (1, 2):
        moves = gradients(tensors, theirs, seed)
        for name, parameter in theirs.items():
            parameter.grad = torch.tensor(moves[name])
        for optimizer in optimizers.values():
            optimizer.step()
        # The same gradients as the trees of the state.
        moved, _, _ = states.from_release(
            {**there, "model_state": {**tensors, **moves}}, config, 10
        )
        state = step(state, moved.params, moved.alphas)
    final, _ = states.to_release(state, config, 10)
    for name, parameter in theirs.items():
        np.testing.assert_allclose(
            final["model_state"][name], parameter.detach().numpy(), atol=1e-6, err_msg=name
        )


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_of_torch(zipped, tmp_path):
    """As torch saves it, learning rates as NumPy floats included; the old format too."""
    torch = pytest.importorskip("torch")
    path = str(tmp_path / "model_epoch_0003.pyth")
    there = document("search")
    there["optimizer_w_state"]["param_groups"][0]["lr"] = np.float64(0.05)
    torch.save(
        pyth.mapped(there, np.ndarray, torch.tensor), path, _use_new_zipfile_serialization=zipped
    )
    same(pyth.load(path), there)
    if not zipped:  # Of NumPy 1, which called a module by another name.
        with open(path, "rb") as file:
            data = file.read()
        assert b"numpy._core" in data
        with open(path, "wb") as file:
            file.write(data.replace(b"numpy._core", b"numpy.core"))
        same(pyth.load(path), there)
    pyth.save(path, there)
    same(pyth.load(path), there)


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_file_does_not_run(zipped, tmp_path):
    torch = pytest.importorskip("torch")
    trace, path = str(tmp_path / "ran"), str(tmp_path / "x.pyth")
    there = {"epoch": 0, "model_state": {"a": Malicious(trace)}}
    torch.save(there, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError, match="refused: it calls posix.mkdir") as error:
        pyth.load(path)
    assert not os.path.exists(trace) and "\n" not in str(error.value)
    torch.load(path, weights_only=False)
    assert os.path.exists(trace)  # The file really was dangerous.


@pytest.mark.parametrize("content", [b"", b"TASK: rot\n", b"PK\x03\x04 no archive", b"\x80\x02."])
def test_what_is_no_checkpoint(content, tmp_path):
    pytest.importorskip("torch")
    path = tmp_path / "x.pyth"
    path.write_bytes(content)
    with pytest.raises(UserError, match="x.pyth") as error:
        pyth.load(str(path))
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="none.pyth: cannot be read"):
        pyth.load(str(tmp_path / "none.pyth"))


def test_without_torch(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    for use in (lambda: pyth.load("x.pyth"), lambda: pyth.save(str(tmp_path / "x"), {})):
        with pytest.raises(UserError, match=r"pip install 'unnas_jax\[torch\]'"):
            use()

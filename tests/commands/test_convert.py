"""The commands on whole workdirs: from the release's form a run goes on as if it had stayed."""

import json

import ml_collections
import numpy as np
import pytest

from tests import tiny
from tests.convert import test_states
from unnas_jax.commands import convert as command
from unnas_jax.convert import config as release
from unnas_jax.convert import config_to_release, pyth, states
from unnas_jax.runs import search

torch = pytest.importorskip("torch")

EPOCH = 4  # Steps.


def config(images, max_steps):
    # With the programs of other tests' searches, which are compiled once.
    c = tiny.config(epochs=12)
    c.dataset.update(name="folder", path=str(images))
    c.train.max_steps = max_steps
    return c


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
def test_a_search_goes_on_from_the_release_s_form(images, tmp_path, capsys):
    straight, there, back = tmp_path / "straight", tmp_path / "x.pyth", tmp_path / "back"
    expected = search.search(config(images, 2 * EPOCH), str(straight)).alphas
    arguments = ["checkpoint", str(straight), "--to-torch", f"--out={there}"]
    assert command.main([*arguments, f"--step={EPOCH}"]) == 0
    content = torch.load(there, weights_only=True)
    assert content["epoch"] == 0 and content["cfg"].startswith("MODEL:")
    assert set(content) == {"epoch", "model_state", "cfg", "optimizer_w_state", "optimizer_a_state"}

    # The file's own config is that of a supernet with four nodes, on ImageNet: it cannot fit.
    arguments = ["checkpoint", str(there), f"--out={back}"]
    assert command.main(arguments) == 2
    assert "is missing; is the config that of this network?" in capsys.readouterr().err
    assert not back.exists()

    mine = tmp_path / "mine.py"
    mine.write_text(release.as_python(config(images, EPOCH), "search"))
    assert command.main([*arguments, f"--config={mine}"]) == 0
    assert f"--workdir={back}" in capsys.readouterr().out
    first, position = states.read(str(back), None)
    assert position["step"] == first.step == EPOCH
    assert command.main([*arguments, f"--config={mine}"]) == 2
    assert "has checkpoints already" in capsys.readouterr().err

    found = search.search(config(images, 2 * EPOCH), str(back)).alphas
    for kind, value in first.alphas.items():
        assert np.any(np.asarray(found[kind]) != value)
        np.testing.assert_array_equal(found[kind], expected[kind])
    one, other = (
        json.loads((workdir / "genotype.json").read_text()) for workdir in (straight, back)
    )
    assert one == other


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
def test_a_config_of_one_s_own_is_told_how_the_release_prepares_images(tmp_path, capsys):
    path, mine = tmp_path / "x.pyth", tmp_path / "mine.py"
    pyth.save(str(path), {"epoch": 1, "model_state": test_states.network("search")})
    c = ml_collections.ConfigDict(test_states.search_config())
    mine.write_text(release.as_python(c, "search"))
    arguments = ["checkpoint", str(path), f"--config={mine}"]
    assert command.main([*arguments, f"--out={tmp_path / 'plain'}"]) == 0
    flags = ["resampling=bilinear", "swapped_statistics=True", "mirrored=True"]
    flags = [f"--config.input.{flag}" for flag in flags]
    assert f"to which the network is used: {' '.join(flags)}\n" in capsys.readouterr().err
    assert command.main([*arguments, *flags, f"--out={tmp_path / 'same'}"]) == 0
    assert "prepares images otherwise" not in capsys.readouterr().err


def test_mistakes_end_in_one_line(tmp_path, capsys):
    for arguments, words in (
        (["nowhere.pyth", "--out=w"], "nowhere.pyth: cannot be read"),
        (["nowhere", "--to-torch", "--out=x"], "config.json: cannot be read"),
    ):
        assert command.main(["checkpoint", *arguments]) == 2
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1
    path = str(tmp_path / "x.pyth")
    pyth.save(path, {"epoch": 0, "model_state": {"a": np.zeros(1, np.float32)}})
    assert command.main(["checkpoint", path, f"--out={tmp_path / 'w'}"]) == 2
    assert "cfg: is missing; give the release's config" in capsys.readouterr().err
    tree, _ = config_to_release.to_release(tiny.config().to_dict(), 4)
    document = {"epoch": 0, "model_state": {}, "cfg": config_to_release.as_yaml(tree)}
    pyth.save(path, document)
    arguments = ["checkpoint", path, f"--out={tmp_path / 'w'}"]
    assert command.main([*arguments, "--config.network.width=7"]) == 2
    assert "config.network.width=7: must be even" in capsys.readouterr().err

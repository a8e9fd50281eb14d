"""`unnas-jax predict` on files: their classes or label maps, whatever their order and number."""

import csv
import io
import json
import sys

import cv2
import jax
import numpy as np
import pytest

from tests import tiny
from tests.handmade import NAMES, SMALL
from tests.handmade import trained as handmade
from unnas_jax.commands import predict
from unnas_jax.data import decoding
from unnas_jax.runs import prediction, trained
from unnas_jax.tasks import dense


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    (root / "more").mkdir()
    for k, image in enumerate(tiny.upright(5, 24)):
        cv2.imwrite(str(root / ("more" if k > 2 else "") / f"{k}.png"), image[:, : 20 + k])
    return root


@pytest.fixture(scope="module")
def pets():
    return handmade(seeds=(0, 1), network=SMALL)


@pytest.fixture
def run(monkeypatch, capsys):
    def program(network: trained.Trained, *arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(trained, "read", lambda *_, **__: network)
        status = predict.main(["runs/pets", *map(str, arguments)])
        return status, *capsys.readouterr()

    return program


def test_classes_of_images_in_all_formats(files, pets, run, monkeypatch):
    paths = [*sorted(files.glob("*.png")), *sorted(files.glob("more/*.png"))]
    images = [decoding.decode(path.read_bytes(), apply_exif=True) for path in paths]
    module, variables = pets.module()
    expected = np.exp(jax.jit(module.apply)(variables, pets.preprocessing(images)))
    # Two and then one more of a batch; then a broken one, and one that is not there.
    (files / "more" / "broken.jpg").write_bytes(b"\xff\xd8nothing")
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{files / '0.png'}\n{files / 'none.png'}\n"))
    status, out, err = run(pets, files, "-", "--format=jsonl", "--batch=2", "--top=9")
    assert status == predict.SOME_BROKEN
    lines = [json.loads(line) for line in out.splitlines()]
    names = [line["image"].rpartition("/")[2] for line in lines]
    assert names == [f"{k}.png" for k in (0, 1, 2, 3, 4, 0)]
    for line, row in zip(lines, [*expected, expected[0]], strict=True):
        assert [each["name"] for each in line["classes"]] == [NAMES[k] for k in np.argsort(-row)]
        found = {each["number"]: each["probability"] for each in line["classes"]}
        np.testing.assert_allclose([found[k] for k in range(3)], row, atol=1e-5)
    assert "broken.jpg' is not an image" in err or "broken.jpg' cannot be decoded" in err
    assert "none.png' cannot be read (No such file" in err and "2 of 8 images" in err
    (files / "more" / "broken.jpg").unlink()

    status, out, _ = run(pets, files / "1.png", "--format=csv", "--batch=2", "--top=1")
    (row,) = csv.DictReader(io.StringIO(out))
    best = int(np.argmax(expected[1]))
    assert status == 0 and row["class_1"] == NAMES[best]
    assert float(row["p_1"]) == pytest.approx(expected[1][best], abs=1e-5)
    status, out, _ = run(pets, files / "1.png", "--batch=2", "--top=1")
    assert out == f"{files / '1.png'}  {NAMES[best]} {100 * expected[1][best]:.1f}%\n"


def test_label_maps_of_whole_images(files, run, tmp_path):
    network = handmade(
        task={"name": "segmentation", "aspp_channels": 4, "aspp_rates": (2,)},
        network=SMALL,
        eval={"crop": "whole", "whole_size": (28, 28)},
    )
    out_dir = tmp_path / "maps"
    status, out, _ = run(network, files, "--output", out_dir, "--batch=3", "--top=1")
    module, variables = network.module()
    answers = jax.jit(lambda x: dense.upsample(module.apply(variables, x), (28, 28)))
    assert status == 0 and len(out.splitlines()) == 5
    for k in range(5):
        path = files / ("more" if k > 2 else "") / f"{k}.png"
        image = decoding.decode(path.read_bytes(), apply_exif=True)
        logits = answers(network.preprocessing([image]))
        expected = np.argmax(logits[0], axis=-1)[:24, : 20 + k]
        found = cv2.imread(str(out_dir / f"{k}.png"), cv2.IMREAD_UNCHANGED)
        assert found.shape == expected.shape and np.mean(found == expected) > 0.99
        overlay = cv2.imread(str(out_dir / f"{k}_overlay.jpg"))
        assert overlay.shape == (*expected.shape, 3)
    shares = np.bincount(expected.ravel(), minlength=3) / expected.size
    assert out.splitlines()[-1].endswith(f"{NAMES[np.argmax(shares)]} {100 * shares.max():.1f}%")


def test_sides_of_any_size_come_back(monkeypatch):
    """Images scaled to the evaluation's short side, with the network's answer replaced."""
    network = handmade(
        task={"name": "segmentation", "aspp_channels": 4, "aspp_rates": (2,)}, network=SMALL
    )
    image = np.zeros((50, 75, 3), np.uint8)
    crop, content = prediction._whole(network, image)
    assert content == (18, 27) and crop.shape == (32, 32, 3)
    made = prediction._Prepared("x", crop, content, image)
    answer = np.zeros((32, 32), np.uint8)
    answer[:9, :27], answer[18:], answer[:, 27:] = 1, 7, 7  # Seven: in the padding.
    (found,) = prediction._answers([made], answer[None])
    expected = np.zeros((50, 75), np.uint8)
    expected[:25] = 1
    np.testing.assert_array_equal(found.label_map, expected)
    np.testing.assert_allclose(found.probabilities[:2], [0.5, 0.5])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{}/empty"], "no file below this folder is an image"),
        (["-"], "there is no image"),
        (["{}/0.png", "--top=0"], "--top=0: must be at least 1"),
        (["{}/0.png", "--seed=x"], "--seed='x': give a number"),
    ],
)
def test_mistakes_are_one_line(files, pets, run, monkeypatch, arguments, words):
    (files / "empty").mkdir(exist_ok=True)
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    status, out, err = run(pets, *(word.format(files) for word in arguments))
    assert status == 2 and words in err and not out and err.count("\n") == 1


def test_networks_of_pretext_tasks_are_refused(files, run):
    network = handmade(task={"name": "rotation"}, network=SMALL)
    status, _, err = run(network, files / "0.png")
    assert status == 2 and "answers the task 'rotation'" in err
    assert jax.tree.leaves(network.variables)

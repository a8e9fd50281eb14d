"""Whether a search has collapsed: what its report says and draws."""

import html
import json
import pathlib
import re

import numpy as np

from tests.analysis import synthetic
from unnas_jax.analysis import collapse, report, results


def written(path: pathlib.Path, values: list[float], skips: int, every: int = 2) -> results.Run:
    """A search of 50 epochs with an eigenvalue of every second epoch."""
    synthetic.write(path)
    config = json.loads((path / "config.json").read_text())
    config["train"]["epochs"] = 50
    (path / "config.json").write_text(json.dumps(config))
    document = json.loads((path / "genotype.json").read_text())
    conv = [["sep_conv_3x3", 0], ["sep_conv_3x3", 1]] * 2
    normal = [["skip_connect", source] for _, source in conv[:skips]] + conv[skips:]
    document["genotype"] = {**document["genotype"], "normal": normal, "normal_concat": [2, 3]}
    (path / "genotype.json").write_text(json.dumps(document))
    with open(path / "metrics.jsonl", "a", encoding="utf-8") as file:
        for epoch, value in enumerate(values):
            row = {"kind": "method", "step": 20 * (epoch + 1), "epoch": float(epoch + 1),
                   "skips_normal": float(skips), "entropy_normal": 2.0, "entropy_reduce": 1.5,
                   **({"eigenvalue": value} if every and epoch % every == 0 else {})}  # fmt: skip
            file.write(json.dumps(row) + "\n")
    return results.read(path)


def test_a_collapse_is_said_with_what_to_do(tmp_path: pathlib.Path) -> None:
    run = written(tmp_path, [1.0] * 4, skips=3)
    first, *others = collapse.words(run)
    assert first == "Yes: 3 of the 4 edges of the normal cell are skip connections."
    assert f"unnas-jax select {tmp_path}" in " ".join(others)
    report.write(tmp_path)
    page = (tmp_path / "report.html").read_text()
    text = html.unescape(re.sub(r"<[^>]*>", " ", page))
    for expected in ("Has it collapsed?", first, "entropy of the weights 2.00 and 1.50 nats",
                     "in the alphas, epoch 3"):  # fmt: skip
        assert expected in text
    assert (tmp_path / "collapse.png").read_bytes()[:4] == b"\x89PNG"


def test_a_jump_of_the_eigenvalue_is_said(tmp_path: pathlib.Path) -> None:
    run = written(tmp_path, [1.0] * 20 + [2.0] * 10, skips=1)
    # As `methods.stop_rules` names them, counted from 1.
    assert collapse.jump(run.records["method"], 50) == (23, 11)
    first, why = collapse.words(run)
    assert first.startswith("Perhaps: 1 of the 4 edges") and "--by=magnitude --epoch=11" in why
    skips, entropy, eigenvalue = collapse.draw(run).axes
    np.testing.assert_array_equal(skips.lines[0].get_ydata(), [1] * 30)
    assert len(entropy.lines) == 2 and len(eigenvalue.lines[0].get_xdata()) == 15


def test_no_sign_of_a_collapse(tmp_path: pathlib.Path) -> None:
    run = written(tmp_path, [1.0] * 30, skips=1, every=0)
    assert collapse.words(run) == [
        "It does not look so: 1 of the 4 edges of the normal cell are skip connections."
    ]
    assert len(collapse.draw(run).axes) == 2

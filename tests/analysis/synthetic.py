"""Workdirs as a search writes them, made up, for the tests of pictures and report."""

import json
import pathlib
from typing import Any

import numpy as np

from unnas_jax.config import schema as configs
from unnas_jax.spaces.darts import candidates
from unnas_jax.spaces.darts import genotype as genotypes
from unnas_jax.spaces.darts.candidates import KINDS

STEPS_AN_EPOCH = 20


def alphas(rows: int, nodes: int = 4, seed: int = 0) -> dict[str, np.ndarray]:
    """The content of an `alphas.npz`: `rows` epochs of alphas that drift apart."""
    rng = np.random.default_rng(seed)
    shape = (candidates.num_edges(nodes), len(candidates.OPERATIONS))
    progress = np.arange(rows)[:, None, None] / max(rows - 1, 1)
    history: dict[str, np.ndarray] = {
        "step": np.arange(rows) * STEPS_AN_EPOCH,
        "epoch": np.arange(rows, dtype=np.float64),
    }
    for kind in ("normal", "reduce"):
        drift = progress * rng.normal(size=shape)
        history[kind] = (1e-3 * rng.normal(size=shape) + drift).astype(np.float32)
    return history


def records(rows: int, num_classes: int = 4) -> list[dict[str, Any]]:
    """The lines of a `metrics.jsonl`: two training records and a validation an epoch."""
    lines: list[dict[str, Any]] = [
        {"kind": "start", "step": 0, "num_classes": num_classes, "train_images": 640,
         "validation_images": 640, "devices": 1, "backend": "cpu"}
    ]  # fmt: skip
    for half in range(1, 2 * (rows - 1) + 1):
        step, epoch = half * STEPS_AN_EPOCH // 2, half / 2
        line = {"kind": "train", "step": step, "epoch": epoch, "loss": 1.4 - 0.1 * epoch,
                "accuracy": 0.25 + 0.05 * epoch, "learning_rate": 0.05 / half,
                "images_per_second": 64.0, "seconds_left": 30.0}  # fmt: skip
        if epoch >= 1:
            line |= {"alpha_loss": 1.41 - 0.1 * epoch, "alpha_accuracy": 0.24 + 0.05 * epoch}
        lines.append(line)
        if half % 2 == 0:
            loss, accuracy = 1.42 - 0.1 * epoch, 0.2371 + 0.05 * epoch
            lines.append({"kind": "validation", "step": step, "epoch": epoch,
                          "loss": loss, "accuracy": accuracy})  # fmt: skip
    return lines


def document(
    normal: np.ndarray,
    reduce: np.ndarray,
    provenance: dict[str, Any],
    operations: Any = None,
) -> dict[str, Any]:
    """The content of the genotype.json of a search with DARTS that ended in these alphas."""
    names = operations or dict.fromkeys(KINDS)
    alphas = {"normal": normal, "reduce": reduce}
    weights = {kind: genotypes.softmax(alphas[kind], names[kind]) for kind in KINDS}
    cells = genotypes.discretise(normal, reduce, operations)
    return genotypes.document_of(cells, weights, provenance, operations)


def write(path: pathlib.Path, rows: int = 4, nodes: int = 2, finished: bool = True) -> None:
    """A workdir after `rows - 1` epochs."""
    path.mkdir(parents=True, exist_ok=True)
    config = configs.search()
    config.dataset.name = "photos"
    config.network.nodes = nodes
    config.train.epochs = 3
    (path / "config.json").write_text(json.dumps(config.to_dict()))
    history = alphas(rows, nodes)
    np.savez_compressed(path / "alphas.npz", **history)  # type: ignore[arg-type]
    provenance = {"dataset": "photos", "task": "rotation", "seed": 0,
                  "step": int(history["step"][-1]), "epoch": float(history["epoch"][-1]),
                  "versions": {"jax": "1.2.3"}, "finished": finished}  # fmt: skip
    found = document(history["normal"][-1], history["reduce"][-1], provenance)
    (path / "genotype.json").write_text(json.dumps(found))
    lines = "".join(json.dumps(record) + "\n" for record in records(rows))
    (path / "metrics.jsonl").write_text(lines)

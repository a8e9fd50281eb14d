"""Files that somebody damaged or made up, for all loaders, and what becomes of many of them.

python -m tests.fuzzing --inputs=10000 --seed=0
"""

import argparse
import collections
import contextlib
import dataclasses
import io
import json
import logging
import pathlib
import random
import sys
import tempfile
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tests.analysis import synthetic
from unnas_jax.analysis import accuracies, curves, page, results, tables
from unnas_jax.config import schema as config_lib
from unnas_jax.convert import config as release
from unnas_jax.core.errors import UserError
from unnas_jax.learning import metrics
from unnas_jax.runs import workdir
from unnas_jax.spaces import graph
from unnas_jax.spaces.darts import candidates, published
from unnas_jax.spaces.nasbench101 import enumeration
from unnas_jax.spaces.nasbench101 import space as nasbench101
from unnas_jax.spaces.nasbench101 import spec as spec_lib
from unnas_jax.sweep import architectures, sample
from unnas_jax.sweep import units as sweep
from unnas_jax.tasks import permutations

LONGEST = 1000  # Characters of a message.
SECONDS = 10.0  # Of processor time, for an input: a busy machine's is several times an idle one's.

CELL = "sep_conv_3x3:0,skip_connect:1+max_pool_3x3:0,none:1"
PASTED = (
    "Genotype(normal=[('sep_conv_3x3', 0), ('skip_connect', 1)], normal_concat=range(2, 3), "
    "reduce=[('max_pool_3x3', 0), ('none', 1)], reduce_concat=[2])"
)
YAML = """MODEL: {TYPE: nas_search, NUM_CLASSES: 4}
NAS: {WIDTH: 16, DEPTH: 8}
OPTIM: {BASE_LR: 0.05, MAX_EPOCH: 2, WEIGHT_DECAY: 3e-5, ARCH_EPOCH: 1, ARCH_BASE_LR: 1.5e-4,
  ARCH_WEIGHT_DECAY: 1e-3, NESTEROV: False}
TRAIN: {DATASET: imagenet, BATCH_SIZE: 32, IM_SIZE: 224, PORTION: 0.5}
TEST: {BATCH_SIZE: 64, IM_SIZE: 256}
TASK: rot
"""


@dataclasses.dataclass(frozen=True)
class Loader:
    """What reads a file.

    Attributes:
      file: its path in a workdir.
      content: a sound one.
      load: reads the file of a workdir.
      setup: what the workdir holds besides.
    """

    file: str
    content: bytes
    load: Callable[[pathlib.Path], object]
    setup: Callable[[pathlib.Path], object] = lambda workdir: None


def _report(folder: pathlib.Path) -> str:
    """What a report makes of a workdir, but for drawing pixels, which takes a second."""
    run = results.read(folder)
    pictures = {"curves.png": b"", "cells.svg": b"<svg>", "alphas.png": b""}
    if len(run.records["train"]) % 8 == 0:
        curves.draw(run)

    assert run.genotype is None or isinstance(run.genotype, graph.Drawable)
    drawn = run.genotype.graphs(run.softmax, run.operations) if run.genotype else []
    text = page.render(run, pictures, [], drawn)
    text.encode()
    return text


def _claim(config: dict[str, Any]) -> Callable[[pathlib.Path], None]:
    return lambda folder: workdir.claim(workdir.local(str(folder)), config)


def _permutations(folder: pathlib.Path) -> np.ndarray:
    permutations.read.cache_clear()
    return permutations.read(str(folder / "p.npy"), 2, 24)


def _resume(folder: pathlib.Path) -> None:
    with contextlib.closing(metrics.MetricsLog(str(folder), 40)):
        pass


def _sweep() -> config_lib.ml_collections.ConfigDict:
    config = config_lib.sample()
    config.tasks = ("rotation",)
    config.recipes = {"rotation": {"weights": {"learning_rate": 0.05}}}
    return config


def _unit() -> dict[str, Any]:
    return {
        "schema": "unnas_jax.unit/1", "architecture": "darts-000000000000", "space": "darts",
        "cell": CELL, "dataset": "photos", "task": "rotation", "seeds": [0, 1],
        "values": [0.5, 0.6], "accuracy": 0.55, "chance": 0.25, "warnings": [],
        "curve": [{"epoch": 1.0, "values": [0.5, 0.6]}], "seconds": 9.0,
        "compile": {"seconds": 1.0, "programs": 3},
    }  # fmt: skip


def _result() -> dict[str, Any]:
    return {
        "schema": "unnas_jax.result/1", "experiment": "train", "dataset": "photos",
        "task": "classification", "genotype": "darts_v2", "genotype_source": None, "width": 16,
        "cells": 5, "parameters": 1000, "multiply_adds": 10_000, "seeds": [0, 1, 2],
        "metric": "accuracy", "values": [0.5, 0.6, 0.7], "mean": 0.6, "std": 0.1,
        "loss": [1.0, 1.0, 1.0], "step": 20, "epoch": 1.0, "finished": True, "chance": 0.1,
    }  # fmt: skip


def _write_sweep(folder: pathlib.Path) -> None:
    (folder / "config.json").write_text(json.dumps(_sweep().to_dict()))
    [found] = architectures.read(str(_list(folder)), "darts")
    architectures.write(str(folder / "architectures.json"), [found], {"space": "darts"})
    for kind, value in (
        ("units", _unit()),
        ("failures", {"reason": "none", "details": "", "at": 1.0}),
    ):
        path = folder / kind / found.name
        path.mkdir(parents=True)
        (path / "rotation.json").write_text(json.dumps(value))
    (folder / "claims" / found.name).mkdir(parents=True)
    (folder / "claims" / found.name / "rotation").write_text(
        json.dumps({"host": "h", "process": 1, "since": 1.0})
    )


def _list(folder: pathlib.Path) -> pathlib.Path:
    (folder / "cells.txt").write_text(CELL + "\n")
    return folder / "cells.txt"


def _name(folder: pathlib.Path) -> str:
    return architectures.read(str(_list(folder)), "darts")[0].name


def _write_training(folder: pathlib.Path) -> None:
    config = config_lib.training()
    config.dataset.name = "photos"
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    (folder / "result.json").write_text(json.dumps(_result()))
    rows = [
        {"kind": "start", "step": 0, "epoch": 0.0, "num_classes": 10, "seeds": [0, 1, 2]},
        {"kind": "train", "step": 20, "epoch": 1.0, "loss": 1.0, "accuracy": 0.4},
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def _npy(values: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, values)
    return stream.getvalue()


def loaders(scratch: pathlib.Path) -> dict[str, Loader]:
    """All that read files, by name; `scratch` is an empty directory."""
    search, training, swept = (scratch / name for name in ("search", "training", "sweep"))
    synthetic.write(search)
    for folder, write in ((training, _write_training), (swept, _write_sweep)):
        folder.mkdir()
        write(folder)

    def of(folder: pathlib.Path, file: str, load: Callable, setup: Callable) -> Loader:
        return Loader(file, (folder / file).read_bytes(), load, setup)

    config = json.loads((search / "config.json").read_text())
    unit = f"{_name(swept)}/rotation"
    cell = spec_lib.parse("0110-0001-0001-0000:conv3x3,maxpool3x3")
    other = spec_lib.parse("011-001-000:conv3x3")
    document = (search / "genotype.json").read_bytes()
    csv = accuracies.write_csv([(("darts", "photos", "rotation"), "a", 0, 0.5)]).encode()

    def status(folder: pathlib.Path) -> list[str]:
        return sample.status_of(str(folder)).lines()

    def figures(folder: pathlib.Path) -> list:
        return accuracies.read([folder])

    return {
        "report of a search: config.json": of(search, "config.json", _report, synthetic.write),
        "report of a search: genotype.json": of(search, "genotype.json", _report, synthetic.write),
        "report of a search: alphas.npz": of(search, "alphas.npz", _report, _only_alphas),
        "report of a search: metrics.jsonl": of(search, "metrics.jsonl", _report, synthetic.write),
        "report of a training: config.json": of(training, "config.json", _report, _write_training),
        "report of a training: result.json": of(training, "result.json", _report, _write_training),
        "report of a training: metrics": of(training, "metrics.jsonl", _report, _write_training),
        "resume: config.json": of(search, "config.json", _claim(config), synthetic.write),
        "resume: metrics.jsonl": of(search, "metrics.jsonl", _resume, synthetic.write),
        "status: config.json": of(swept, "config.json", status, _write_sweep),
        "status: architectures.json": of(swept, "architectures.json", status, _write_sweep),
        "status: a unit": of(swept, f"units/{unit}.json", status, _write_sweep),
        "status: a failure": of(swept, f"failures/{unit}.json", _reason, _write_sweep),
        "status: a claim": of(swept, f"claims/{unit}", _claimed, _write_sweep),
        "figures: a unit": of(swept, f"units/{unit}.json", figures, _write_sweep),
        "figures: CSV": Loader("a.csv", csv, lambda f: accuracies.read([f / "a.csv"])),
        "tables: result.json": of(
            training, "result.json", lambda f: tables.markdown(tables.collect([str(f)])),
            _write_training,
        ),
        "genotype.json": Loader(
            "g.json", document, lambda f: published.resolve(str(f / "g.json"))
        ),
        "Genotype(...)": Loader(
            "g.txt", PASTED.encode(), lambda f: published.resolve(str(f / "g.txt"))
        ),
        "cell of NAS-Bench-101": Loader(
            "c.json",
            json.dumps(cell.as_dict()).encode(),
            lambda f: nasbench101.load(str(f / "c.json"))[0].pruned(),
        ),
        "list of DARTS cells": Loader(
            "cells", f"# two\n{CELL}\n{PASTED.replace('none', 'dil_conv_3x3')}\n".encode(),
            lambda f: architectures.read(str(f / "cells"), "darts"),
        ),
        "list of cells of NAS-Bench-101": Loader(
            "cells",
            json.dumps([str(cell), {"cell": "011-001-000:conv1x1"}, other.as_dict()]).encode(),
            lambda f: architectures.read(str(f / "cells"), "nasbench101"),
        ),
        "permutations": Loader("p.npy", _npy(permutations.permutations(2, 24)), _permutations),
        "enumerated cells": Loader(
            "n.npy", _npy(np.arange(9, dtype=np.uint32)), lambda f: enumeration._read(f / "n.npy")
        ),
        "YAML of the release": Loader(
            "r.yaml", YAML.encode(), lambda f: release.load(str(f / "r.yaml"))
        ),
    }  # fmt: skip


def _only_alphas(folder: pathlib.Path) -> None:
    synthetic.write(folder)
    (folder / "genotype.json").unlink()


def _store(folder: pathlib.Path) -> tuple[sweep.Store, sweep.Unit]:
    return sweep.Store(str(folder)), sweep.Unit(f"{_name(folder)}/rotation", None)


def _reason(folder: pathlib.Path) -> str:
    store, unit = _store(folder)
    return store.reason(unit)


def _claimed(folder: pathlib.Path) -> object:
    store, unit = _store(folder)
    return store.running(unit), store.claimed(unit)


VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 2**31, 2**63, 10**30, 0.5, -0.0, 1e38, 1e300, "", "x", "darts",
    "../../x", "a" * 5000, "\x00", "\ud800", "é" * 300, "<b>", [], [[]], [1, 2], ["x"], {},
    {"a": 1}, [[["sep_conv_3x3", 0]]], {"normal": []},
]  # fmt: skip
TOKENS = [
    b"NaN", b"Infinity", b"-Infinity", b"1e999", b"1" * 5000, b"{", b"}", b"[", b"]", b'"', b"\\",
    b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"\n", b"\r", b"\\ud800", b"null", b"{}\n", b"5\n", b",",
    b":", b"*a", b"&a ", b"<<: *a", b"!!python/object/apply:os.system [id]", b"? ", b"(", b")",
    b"range(10**9)", b"__import__('os')", b"lambda: 0", b"-" * 300, b"(" * 300, b"[" * 300,
]  # fmt: skip


def _places(value: Any, place: tuple = ()) -> Iterator[tuple]:
    """The paths to everything in a value of JSON."""
    yield place
    items = value.items() if isinstance(value, dict) else ()
    items = enumerate(value) if isinstance(value, list) else items
    for key, item in items:
        yield from _places(item, (*place, key))


def _changed(value: Any, place: tuple, new: Any) -> Any:
    """A copy of a value of JSON with something else at a place; `...` removes what is there."""
    if not place:
        return None if new is ... else new
    key, *rest = place
    copy = dict(value) if isinstance(value, dict) else list(value)
    if not rest and new is ...:
        del copy[key]
    else:
        copy[key] = _changed(value[key], tuple(rest), new)
    return copy


def _structure(rng: random.Random, content: bytes) -> bytes | None:
    """Other values in the places of a JSON document, or of its lines; None if it is none."""
    lines = content.splitlines()
    try:
        parsed = [json.loads(content)] if len(lines) == 1 else [json.loads(line) for line in lines]
    except ValueError:
        try:
            parsed = [json.loads(content)]
        except ValueError:
            return None
    number = rng.randrange(len(parsed))
    for _ in range(rng.choice((1, 1, 1, 3))):
        place = rng.choice(list(_places(parsed[number])))
        parsed[number] = _changed(parsed[number], place, rng.choice([*VALUES, ...]))
    return "\n".join(json.dumps(value) for value in parsed).encode() + b"\n"


def _bytes(rng: random.Random, content: bytes) -> bytes:
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 5, 20))):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(5):
            case 0:
                data[at:at] = rng.choice(TOKENS)
            case 1:
                data[at : at + 1] = bytes([rng.randrange(256)])
            case 2:
                del data[at : at + rng.choice((1, 3, 50, len(data)))]
            case 3:
                end = at + rng.randrange(1, 60)
                data[at:at] = data[at:end]
            case 4:
                data[at : at + 4] = rng.randbytes(4)
    return bytes(data)


def _archive(content: bytes, name: str = "normal.npy", **options: Any) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for key in ("step", "epoch", "normal", "reduce"):
            archive.writestr(f"{key}.npy", content if f"{key}.npy" == name else _npy(np.zeros(1)))
    return stream.getvalue()


def _header(shape: str, dtype: str = "<f4", extra: bytes = b"") -> bytes:
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + extra


def _wide_alphas() -> bytes:
    edges = candidates.num_edges(63)
    stream = io.BytesIO()
    values = np.zeros((2, edges, 8), np.float32)
    np.savez_compressed(
        stream, step=np.arange(2), epoch=np.arange(2.0), normal=values, reduce=values
    )
    return stream.getvalue()


def bombs() -> dict[str, bytes]:
    """Small files that cost much, or try to."""
    laughs = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{chr(98 + k)}: &{chr(98 + k)} [{', '.join([f'*{chr(97 + k)}'] * 9)}]\n" for k in range(12)
    )
    merges = "a: &a {x: 1}\n" + "".join(
        f"{chr(98 + k)}: &{chr(98 + k)} {{<<: [{', '.join([f'*{chr(97 + k)}'] * 9)}]}}\n"
        for k in range(9)
    )
    return {
        "brackets": b"[" * 200_000,
        "nested lists": b"[" * 500 + b"]" * 500,
        "nested objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        "many lists": b"[" + b"[]," * 200_000 + b"[]]",
        "digits": b"[" + b"9" * 200_000 + b"]",
        "a line of ten megabytes": b"x" * 10_000_000,
        "lines": b"5\n" * 50_000,
        "a field of a megabyte": b"architecture,task,dataset,seed,accuracy\n" + b"a" * 1_000_000,
        "a sparse seed": b"architecture,task,dataset,seed,accuracy\na,b,c," + b"9" * 5000 + b",1\n",
        "aliases": (laughs + "MODEL: {TYPE: *m}\n").encode(),
        "merges": (merges + "MODEL: {TYPE: *j}\n").encode(),
        "recursion": b"MODEL: &a [*a]\n",
        "recursive keys": b"&a MODEL: *a\n? *a\n: 1\n",
        "sexagesimal": b"MODEL: {TYPE: 1" + b":59" * 5000 + b"}",
        "dashes": b"- " * 8000,
        "parentheses": b"Genotype(normal=" + b"(" * 10_000,
        "attributes": b"Genotype(normal=" + b"a." * 8000 + b"a)",
        "a long range": b"Genotype(range(0, 1000), range(1000), range(999), range(9, 0, 0))",
        "a call": b"Genotype(exit(9), normal_concat=range(2, 6), reduce=[], reduce_concat=[])",
        "a huge array": _header("(1000000, 1000000)"),
        "a negative array": _header("(-4, 9)"),
        "no rows, long ones": _header("(0, 1000000000000000)"),
        "objects": _header("(1,)", "|O", b"\x80\x04."),
        "a huge item": _header("(1,)", "<U1000000000"),
        "a deep header": _header("(" * 900 + ")" * 900),
        "a huge member": _archive(_header("(1000000, 1000000, 8)")),
        "a member of 256 MB": _archive(bytes(2**28)),
        "63 nodes": _wide_alphas(),
    }  # fmt: skip


class Run:
    """Feeds loaders and notes what became of it."""

    def __init__(self, scratch: pathlib.Path, seed: int) -> None:
        self.rng = random.Random(seed)
        (scratch / "originals").mkdir()
        self.loaders = loaders(scratch / "originals")
        self.scratch, self.number = scratch, 0
        self.outcomes: dict[str, collections.Counter[str]] = {}
        self.slowest: dict[str, float] = {}
        self.longest = 0
        self.folders: dict[str, pathlib.Path] = {}

    def one(self, name: str, content: bytes) -> None:
        """Feeds a loader; `AssertionError` if it does anything but take or refuse it properly."""
        loader = self.loaders[name]
        if name not in self.folders:
            self.number += 1
            self.folders[name] = self.scratch / str(self.number)
            self.folders[name].mkdir()
            loader.setup(self.folders[name])
        folder = self.folders[name]
        (folder / loader.file).write_bytes(content)
        start = time.process_time()
        try:
            loader.load(folder)
            outcome = "taken"
        except UserError as error:
            outcome, message = "refused", str(error)
            assert message.isprintable() and len(message) <= LONGEST, (name, message)
            self.longest = max(self.longest, len(message))
        except Exception as error:
            raise AssertionError(f"{name}: {error!r} for {content[:2000]!r}") from error
        seconds = time.process_time() - start
        self.slowest[name] = max(self.slowest.get(name, 0.0), seconds)
        assert seconds < SECONDS, f"{name}: {seconds:.1f} s for {content[:60]!r}"
        self.outcomes.setdefault(name, collections.Counter())[outcome] += 1

    def random(self, inputs: int) -> None:
        """So many damaged files, the loaders in turn."""
        names = list(self.loaders)
        for number in range(inputs):
            name = names[number % len(names)]
            content = self.loaders[name].content
            changed = _structure(self.rng, content) if self.rng.random() < 0.6 else None
            if changed is None or self.rng.random() < 0.1:
                changed = _bytes(self.rng, changed or content)
            self.one(name, changed)


def main() -> None:
    """Prints a table of a longer run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    logging.disable()
    warnings.simplefilter("error")
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        scratch = pathlib.Path(folder) / "scratch"
        scratch.mkdir()
        run = Run(scratch, options.seed)
        run.random(options.inputs)
    print("| loader | inputs | taken | refused | slowest |\n|---|---|---|---|---|")
    for name, outcome in run.outcomes.items():
        counts = f"{outcome.total()} | {outcome['taken']} | {outcome['refused']}"
        print(f"| {name} | {counts} | {1000 * run.slowest[name]:.0f} ms |")
    total = sum(run.outcomes.values(), collections.Counter[str]())
    print(
        f"{total.total():,} inputs: {total['taken']:,} taken, {total['refused']:,} refused, no "
        f"other exception, messages of at most {run.longest} characters, "
        f"{time.monotonic() - start:.0f} s"
    )


if __name__ == "__main__":
    sys.exit(main())

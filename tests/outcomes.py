"""What a run left, and how that of another one differs from it."""

import hashlib
import json
import pathlib
import re
from typing import Any

# What a clock or a machine says, which differs from run to run.
CLOCK = {"images_per_second", "seconds_left", "seconds", "compile", "finished_at", "host", "drawn"}
# What grows with every start, or has random names.
GROWING = re.compile(r"(tensorboard|logs|checkpoints/\d+)/.*")


def rows(workdir: pathlib.Path) -> list[dict[str, Any]]:
    """The whole lines of a metrics.jsonl."""
    try:
        lines = (workdir / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in lines if line.endswith(b"\n")]


def _without_clock(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_clock(v) for key, v in value.items() if key not in CLOCK}
    return [_without_clock(item) for item in value] if isinstance(value, list) else value


def _digests(tree: Any) -> dict[str, str]:
    import jax
    import numpy as np

    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {
        jax.tree_util.keystr(path): f"{leaf.dtype}{leaf.shape} "
        + hashlib.sha256(np.ascontiguousarray(leaf).tobytes()).hexdigest()
        for path, leaf in leaves
    }


def outcome(workdir: pathlib.Path) -> dict[str, Any]:
    """What a run left, without what may differ between two runs of one config."""
    # Here: who imports this module says in the environment how jax is to start.
    import numpy as np
    import orbax.checkpoint as ocp

    files = [str(path.relative_to(workdir)) for path in workdir.rglob("*") if not path.is_dir()]
    found: dict[str, Any] = {
        "files": sorted({GROWING.sub(r"\1", name) for name in files}),
        "rows": [_without_clock(row) for row in rows(workdir) if row["kind"] != "start"],
    }
    empty = [
        str(p.relative_to(workdir))
        for p in workdir.rglob("*")
        if p.is_dir() and not any(p.iterdir())
    ]
    found["empty folders"] = sorted(empty)
    for name in files:
        if name.endswith(".json") and not name.startswith(("claims", "logs")):
            found[name] = _without_clock(json.loads((workdir / name).read_text()))
    if (workdir / "alphas.npz").exists():
        with np.load(workdir / "alphas.npz") as alphas:
            found["alphas.npz"] = _digests(dict(alphas))
    if (workdir / "checkpoints").exists():
        with ocp.CheckpointManager(workdir / "checkpoints") as manager:
            for step in manager.all_steps():
                items = ocp.args.Composite(
                    state=ocp.args.StandardRestore(), progress=ocp.args.JsonRestore()
                )
                restored = manager.restore(step, args=items)
                found[f"checkpoint {step}"] = {
                    **_digests(restored["state"]), "progress": restored["progress"]
                }  # fmt: skip
    return found


def difference(a: Any, b: Any) -> str:
    """In which parts two outcomes differ."""
    if isinstance(a, list) and isinstance(b, list):
        missing, more = [x for x in a if x not in b], [x for x in b if x not in a]
        return f"missing {missing[:5]}, too much {more[:5]}, {len(a)} and {len(b)} of them"
    if isinstance(a, dict) and isinstance(b, dict):
        names = [k for k in a.keys() | b.keys() if a.get(k) != b.get(k)]
        return "; ".join(f"{k}: {a.get(k)} and {b.get(k)}"[:300] for k in names[:5])
    return f"{str(a)[:300]} and {str(b)[:300]}"

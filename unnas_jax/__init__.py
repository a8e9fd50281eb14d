"""Neural architecture search without labels, in JAX.

    import unnas_jax as un

    found = un.search(images, "runs/mine")  # uint8 (N, H, W, 3), no labels
    un.draw(found.genotype)

Names are imported when they are first used: importing the package imports nothing, parses no flags
and leaves logging as it is. docs/library.md shows what there is.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_WHERE = {
    # Whole runs.
    "search": "unnas_jax.commands.library",
    "train": "unnas_jax.commands.library",
    "load_network": "unnas_jax.runs.trained",
    # Images.
    "arrays": "unnas_jax.data.arrays",
    "open_dataset": "unnas_jax.data.registry",
    "Dataset": "unnas_jax.data.records",
    # Pieces.
    "task": "unnas_jax.tasks.registry",
    "Supernet": "unnas_jax.runs.pieces",
    "Network": "unnas_jax.runs.pieces",
    "init_alphas": "unnas_jax.spaces.darts.supernet",
    "SearchStep": "unnas_jax.runs.own_loop",
    "Genotype": "unnas_jax.spaces.darts.genotype",
    "discretise": "unnas_jax.spaces.darts.genotype",
    "draw": "unnas_jax.analysis.pictures",
    "UserError": "unnas_jax.core.errors",
    # One's own.
    "register_task": "unnas_jax.tasks.registry",
    "register_dataset": "unnas_jax.data.registry",
    "register_space": "unnas_jax.spaces.registry:SPACES.register",
    "register_method": "unnas_jax.methods.registry",
    "register_operation": "unnas_jax.spaces.darts.operations:BUILDERS.register",
    "register_score": "unnas_jax.sweep.scores.registry",
    "Score": "unnas_jax.sweep.scores.registry",
    "register_optimizer": "unnas_jax.learning.optim",
    "register_tracker": "unnas_jax.learning.trackers",
    "Tracker": "unnas_jax.learning.trackers",
}
"""Every name of the library and its module; behind a colon what it is called there."""

__all__ = ["__version__", *_WHERE]

if TYPE_CHECKING:
    from unnas_jax.analysis.pictures import draw as draw
    from unnas_jax.commands.library import search as search
    from unnas_jax.commands.library import train as train
    from unnas_jax.core.errors import UserError as UserError
    from unnas_jax.data.arrays import arrays as arrays
    from unnas_jax.data.records import Dataset as Dataset
    from unnas_jax.data.registry import open_dataset as open_dataset
    from unnas_jax.data.registry import register_dataset as register_dataset
    from unnas_jax.learning.optim import register_optimizer as register_optimizer
    from unnas_jax.learning.trackers import Tracker as Tracker
    from unnas_jax.learning.trackers import register_tracker as register_tracker
    from unnas_jax.methods.registry import register_method as register_method
    from unnas_jax.runs.own_loop import SearchStep as SearchStep
    from unnas_jax.runs.pieces import Network as Network
    from unnas_jax.runs.pieces import Supernet as Supernet
    from unnas_jax.runs.trained import load_network as load_network
    from unnas_jax.spaces.darts.genotype import Genotype as Genotype
    from unnas_jax.spaces.darts.genotype import discretise as discretise
    from unnas_jax.spaces.darts.supernet import init_alphas as init_alphas
    from unnas_jax.sweep.scores.registry import Score as Score
    from unnas_jax.sweep.scores.registry import register_score as register_score
    from unnas_jax.tasks.registry import register_task as register_task
    from unnas_jax.tasks.registry import task as task


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'unnas_jax' has no attribute {name!r}")
    module, _, path = _WHERE[name].partition(":")
    value: Any = importlib.import_module(module)
    for part in (path or name).split("."):
        value = getattr(value, part)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)

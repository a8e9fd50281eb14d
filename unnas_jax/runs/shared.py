"""The supernet of a search that chose among candidates, to judge any cells with its weights."""

import dataclasses
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import optax

from unnas_jax.config import run_config
from unnas_jax.config.schema import SearchConfig
from unnas_jax.config.sections import MethodConfig
from unnas_jax.core import sharding
from unnas_jax.core.errors import UserError
from unnas_jax.data import open_dataset
from unnas_jax.data.records import check_same, fingerprint
from unnas_jax.methods import registry as methods
from unnas_jax.methods.base import SearchState, Setting
from unnas_jax.methods.single_path import SinglePath
from unnas_jax.runs import checkpoint
from unnas_jax.runs import workdir as workdir_lib
from unnas_jax.runs.images import Images

_MOST_BYTES = 2**30
"""The most bytes of batches to keep; if there are more, every cell decodes them again."""


@dataclasses.dataclass
class Shared:
    """A supernet whose weights many cells share.

    Attributes:
      name: of its workdir.
      space: of its cells, a value of config.network.space.
      step: after so many steps of the search.
      method, state, images: of the search.
    """

    name: str
    space: str
    step: int
    method: SinglePath
    state: SearchState
    images: Images

    def __post_init__(self) -> None:
        self._kept: dict[int, list[Any]] = {}

    def metric(self, cell: str) -> float:
        """The task's metric on held-out images, as the search's candidates are judged."""
        found = self.method.metrics(self.state, [self.method.paths.resolve(cell)], self)
        return found[0][self.method.task.metric]

    def angle(self, cell: str) -> float:
        """See `unnas_jax.spaces.vectors`."""
        return self.method.angles(self.state, [self.method.paths.resolve(cell)])[0]

    def first(self, count: int) -> Iterator[Any]:
        """The first batches of half A."""
        return self._all(count, self.images.first(count))

    def evaluation(self) -> Iterator[Any]:
        """All batches of held-out images."""
        return self._all(0, self.images.evaluation())

    def _all(self, key: int, batches: Iterator[Any]) -> Iterator[Any]:
        if key not in self._kept:
            found, size = [], 0
            for batch in batches:
                size += sharding.bytes_of(batch)
                if size <= _MOST_BYTES:
                    found.append(batch)
                yield batch
            if size <= _MOST_BYTES:
                self._kept[key] = found
            return
        yield from self._kept[key]


def read(workdir: str | os.PathLike[str]) -> Shared:
    """The supernet in the workdir of a single-path search, as its last checkpoint has it.

    Raises:
      UserError: it is none, has no checkpoint, or its images are not there.
    """
    name = os.fspath(workdir)
    with workdir_lib.opened(name, write=False) as place:
        config = run_config.read(place.path, f"workdir {name}")
        run_config.check_same(name, config, {"experiment": "search"})
        kind = methods.of_config(config)
        if not issubclass(kind, SinglePath):
            raise UserError(
                f"workdir {name}: its search's method is {kind.name!r}; cells are judged with the "
                "weights of a search with search.method='single_path'"
            )
        c, mesh = SearchConfig.of(config), sharding.data_mesh()
        dataset = open_dataset(c.dataset)
        images = Images.of(c, dataset, mesh)
        # The optimizer's state is not needed, nor is the optimizer known if it was an object.
        per_epoch = max(len(images.half_a) // c.train.batch_size, 1)
        nothing = {"weights": optax.identity()}
        setting = Setting(MethodConfig.of(c), images.task, mesh, per_epoch, optimizers=nothing)
        method = kind(setting)
        shapes = method.shapes()
        wanted = ("params", "batch_stats")
        found, position = checkpoint.read(place, lambda position: shapes, wanted, "search first")
        check_same(name, position.get("data"), fingerprint(dataset), ("train",))
        step = sharding.replicate(np.int32(position["step"]), mesh)
        state = shapes.replace(**found, step=step, weights_opt=(), alphas_opt=())
    return Shared(name, c.network.space, int(position["step"]), method, state, images)

"""Jigsaw puzzles (Noroozi and Favaro, 2016): which permutation shuffled the image's tiles?"""

import dataclasses
from typing import Any, ClassVar, Self

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from unnas_jax.config.sections import TaskConfig
from unnas_jax.core.errors import UserError
from unnas_jax.core.precision import compute_dtype
from unnas_jax.layers import heads
from unnas_jax.tasks import base
from unnas_jax.tasks.permutations import limit, permutations, read
from unnas_jax.tasks.transforms import Augmentation, crops_at, displayable

_TILE_SHARE = 0.76  # A tile's side over its patch's: gaps keep edges from giving neighbours away.
_MIN_DEVIATION = 1e-5  # A tile of one colour has none; its rounding noise must stay small.


@dataclasses.dataclass(frozen=True)
class Jigsaw(base.Task):
    """grid x grid shuffled tiles per image; the network sees each tile alone."""

    name: ClassVar[str] = "jigsaw"

    augmentation: Augmentation
    grid: int
    num_classes: int
    permutation_list: str = ""
    input_channels: int = 3
    precision: str = "float32"

    @classmethod
    def validate(cls, config: TaskConfig) -> None:
        """Raises `UserError` for a grid or a number of permutations that does not exist."""
        grid, count = config.task.grid, config.task.permutations
        if grid not in (2, 3):
            raise UserError(f"config.task.grid={grid}: use 2 or 3")
        if config.task.permutation_list:
            read(config.task.permutation_list, grid, count)
        elif not 2 <= count <= limit(grid):
            raise UserError(
                f"config.task.permutations={count}: a grid of {grid} has 2 to {limit(grid)}"
            )
        if int(_TILE_SHARE * (config.input.crop // grid)) < 8:
            raise UserError(
                f"config.input.crop={config.input.crop}: too small for {grid}x{grid} tiles "
                "of at least 8 pixels"
            )
        if config.input.pad:
            raise UserError(
                f"config.input.pad={config.input.pad}: padding shows which of a jigsaw's "
                "tiles lie outside; use 0"
            )

    @classmethod
    def create(cls, config: TaskConfig, dataset: Any) -> Self:
        """The task of a config on a dataset."""
        task = config.task
        return cls(
            Augmentation.create(config.input, dataset),
            task.grid,
            task.permutations,
            task.permutation_list,
            precision=config.precision,
        )

    @property
    def permutations(self) -> np.ndarray:
        """The place to which each class moves the tile of each patch, (classes, tiles)."""
        if self.permutation_list:
            return read(self.permutation_list, self.grid, self.num_classes)
        return permutations(self.grid, self.num_classes)

    @property
    def tiles(self) -> int:
        """Tiles per image."""
        return self.grid**2

    def input_side(self, crop: int) -> int:
        """The side of a tile."""
        return int(_TILE_SHARE * (crop // self.grid))

    def examples(self, key: jax.Array, batch: base.Batch, *, train: bool) -> base.Examples:
        """Examples tiles * i to tiles * (i + 1) - 1 are the tiles of image i by their new place.

        Each patch gives a random tile, normalised to mean 0 and deviation 1 over its own pixels
        and channels; the tile of patch p goes to place permutation[p].
        """
        augment_key, tile_key, class_key = jax.random.split(key, 3)
        x = self.augmentation(augment_key, batch["image"], train=train)
        tiles = self._tiles(tile_key, self.augmentation.normalise(x))
        # In the network's format before they are shuffled: half as much to move in bfloat16.
        tiles = tiles.astype(compute_dtype(self.precision))
        targets = jax.random.randint(class_key, x.shape[:1], 0, self.num_classes)
        # Place q takes the tile of the patch that the permutation sends there.
        sources = np.argsort(self.permutations, axis=1).astype(np.int32)
        order = jnp.asarray(sources)[targets]
        shuffled = jnp.take_along_axis(tiles, order[:, :, None, None, None], axis=1)
        return base.Examples(
            inputs=shuffled.reshape(-1, *tiles.shape[2:]),
            targets=targets,
            weights=base.image_weights(batch),
        )

    def _tiles(self, key: jax.Array, x: jax.Array) -> jax.Array:
        """(B, S, S, 3) to (B, tiles, t, t, 3), patches row by row."""
        count, grid = len(x), self.grid
        patch = x.shape[1] // grid
        tile = self.input_side(x.shape[1])
        x = x[:, : grid * patch, : grid * patch].reshape(count, grid, patch, grid, patch, 3)
        patches = jnp.swapaxes(x, 2, 3).reshape(count * grid * grid, patch, patch, 3)
        corners = jax.random.randint(key, (len(patches), 2), 0, patch - tile + 1)
        tiles = crops_at(patches, corners, tile)
        tiles = tiles - jnp.mean(tiles, axis=(1, 2, 3), keepdims=True)
        deviation = jnp.sqrt(jnp.mean(tiles**2, axis=(1, 2, 3), keepdims=True))
        tiles = tiles / jnp.maximum(deviation, _MIN_DEVIATION)
        return tiles.reshape(count, self.tiles, tile, tile, 3)

    def panels(self, examples: base.Examples, dataset: Any) -> list[list[base.Panel]]:
        """The tiles by their places, with the patch of each; and the tiles put back."""
        size = examples.inputs.shape[1]
        tiles = np.asarray(examples.inputs).reshape(-1, self.tiles, size, size, 3)
        tiles = displayable(self.augmentation, tiles)
        rows = []
        for target, shuffled in zip(np.asarray(examples.targets), tiles, strict=True):
            places = self.permutations[target]
            patches = " ".join(map(str, np.argsort(places)))
            rows.append(
                [
                    base.Panel(f"{int(target)}: patches {patches}", self._in_place(shuffled)),
                    base.Panel("put back", self._in_place(shuffled[places])),
                ]
            )
        return rows

    def _in_place(self, tiles: np.ndarray) -> np.ndarray:
        """uint8 (tiles, t, t, 3) as one picture with white lines between them."""
        line = max(1, tiles.shape[1] // 16)
        framed = np.pad(tiles, ((0, 0), (line, line), (line, line), (0, 0)), constant_values=255)
        side = self.grid * framed.shape[1]
        framed = framed.reshape(self.grid, self.grid, *framed.shape[1:])
        return framed.swapaxes(1, 2).reshape(side, side, 3)

    def head(self, dtype: Any) -> nn.Module:
        """Tiles are pooled one by one, concatenated in order of place, then a linear layer."""
        return heads.ImageHead(self.num_classes, group=self.tiles, dtype=dtype)

    def score(self, outputs: jax.Array, examples: base.Examples, *, train: bool) -> base.Sums:
        """Cross entropy and hits over the permutations."""
        return base.classification_score(outputs, examples.targets, examples.weights)

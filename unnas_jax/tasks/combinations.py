"""The published combinations of regression targets (GenNAS: Li et al., NeurIPS 2021)."""

import dataclasses
from collections.abc import Mapping

import jax

from unnas_jax.tasks.targets import Basis, Dots, Resized, Waves, target


@dataclasses.dataclass(frozen=True)
class Combination:
    """The targets that networks fit at the end of each of their stages.

    Attributes:
      bases: the bases that are summed in the target of each stage.
      channels: of the targets of each stage.
      noise: of the images, which have zero mean and unit deviation.
      gaussian: whether the noise is Gaussian of this deviation, else uniform up to it.
      weights: of the stages' mean squared errors.
      side: of the targets, in pixels.
    """

    bases: tuple[tuple[Basis, ...], ...]
    channels: tuple[int, ...]
    noise: float
    gaussian: bool
    weights: tuple[float, ...] = (0.25, 0.5, 1.0)
    side: int = 8

    def noisy(self, key: jax.Array, images: jax.Array) -> jax.Array:
        """The images with noise."""
        if self.gaussian:
            return images + self.noise * jax.random.normal(key, images.shape, images.dtype)
        low, high = -self.noise, self.noise
        return images + jax.random.uniform(key, images.shape, images.dtype, low, high)

    def targets(
        self,
        key: jax.Array,
        images: jax.Array,
        records: jax.Array,
        bounds: tuple[float, float] | None = None,
    ) -> tuple[jax.Array, ...]:
        """The targets of every stage for images (N, H, W, C); see `targets.target`."""
        return tuple(
            target(
                jax.random.fold_in(key, stage), bases, images, records, channels, self.side, bounds
            )
            for stage, (bases, channels) in enumerate(zip(self.bases, self.channels, strict=True))
        )


# Found by the authors' evolutionary search with 20 labelled networks of NAS-Bench-101.
_NASBENCH = Combination(
    bases=(
        (
            Waves(
                1.1,
                (0.014257, 0.016867, 0.014930, 0.020401, 0.022936, 0.017223, 0.015645, 0.019184,
                 0.015500, 0.014574),
                plane=True,
            ),
        ),
        (
            Waves(
                1.8,
                (0.299108, 0.306036, 0.303757, 0.288022, 0.293448, 0.296083, 0.305855, 0.292883,
                 0.305620, 0.295861),
            ),
            Waves(
                2.9,
                (0.379844, 0.381836, 0.358341, 0.327626, 0.264875, 0.280770, 0.420505, 0.341421,
                 0.303624, 0.420302),
                plane=True,
            ),
            Resized(2.4),
            Dots(1.1, 0.578125, blurred=True),
        ),
        (
            Waves(
                1.5,
                (0.153934, 0.105726, 0.106632, 0.157566, 0.133736, 0.105100, 0.131915, 0.131757,
                 0.102817, 0.109369),
                local=False,
            ),
            Waves(
                0.9,
                (0.197937, 0.203089, 0.103390, 0.204843, 0.135664, 0.209057, 0.245402, 0.086357,
                 0.135183, 0.145260),
                plane=True,
                local=False,
            ),
            Resized(2.2),
            Dots(2.1, 0.4375, blurred=True, local=False),
        ),
    ),
    channels=(64, 48, 16),
    noise=0.1,
    gaussian=False,
)  # fmt: skip

COMBINATIONS: Mapping[str, Combination] = {
    "nasbench": _NASBENCH,
    "darts": Combination(
        bases=(
            (Resized(1.3), Dots(1.6, 0.5, blurred=True)),
            (Resized(2.1), Dots(2.2, 0.71875), Dots(1.0, 0.609375, blurred=True, local=False)),
            (Resized(0.5), Dots(1.7, 0.5625, blurred=True)),
        ),
        channels=(80, 32, 80),
        noise=0.2,
        gaussian=True,
    ),
}
"""The combinations of the paper's searches on NAS-Bench-101 (used on NAS-Bench-201, too), DARTS."""

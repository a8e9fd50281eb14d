"""Whether a dataset's images can fill the crops that a config asks for."""

import numpy as np

from unnas_jax.core.errors import UserError
from unnas_jax.data import crops
from unnas_jax.data.registry import Dataset

_SAMPLE = 16


def check_sizes(dataset: Dataset, crop: int) -> None:
    """Refuses a crop that is larger than all of some images spread over the train split.

    Single small images are enlarged; a dataset of nothing but small ones is a mistake.

    Raises:
      UserError: the short side of each of the images looked at is below `crop` pixels.
    """
    records = dataset.splits["train"]
    numbers = np.unique(np.linspace(0, len(records) - 1, _SAMPLE).astype(int))
    largest = 0
    for number in numbers:
        try:
            image = crops.decode(records[int(number)]["image"], apply_exif=dataset.apply_exif)
        except ValueError:
            continue  # Named when the pipeline meets it.
        largest = max(largest, min(image.shape[:2]))
    if largest < crop:
        raise UserError(
            f"config.input.crop={crop}: the images of the dataset {dataset.name!r} are too small "
            f"(short side at most {largest} of {len(numbers)} looked at); "
            f"use input.crop={largest} or less"
        )

"""A dataset of numbers for the tests of `shards`: quick, slow, and with bad ones."""

import functools
import json
import os
import time

import numpy as np
import tensorflow_datasets as tfds

from unnas_jax.data import listing, shards


def features():
    return tfds.features.FeaturesDict(
        {"file_name": tfds.features.Text(), "value": tfds.features.Scalar(dtype=np.int64)}
    )


def list_group(first, count):
    # Backwards, and one of them twice: the order of files must not matter.
    items = [(f"{k:04d}", k) for k in reversed(range(first, first + count))]
    return listing.Listing([*items, items[0]], 100 * count, [{"name": "x", "reason": "is odd"}])


def make(bad, held, said, name, value):
    while value >= held:  # Until the process is killed.
        time.sleep(0.1)
    if said and value in (3, 11, 25, 34):  # Sums of 3 or 11 and 5 or 14 are never 20 or 40.
        before = os.path.getsize(said)
        while os.path.getsize(said) < before + 2:  # The second tells of what is done now.
            time.sleep(0.01)
    if value in bad:
        raise shards.Rejected("is bad")
    example = {"file_name": name, "value": value}
    return shards.Example(example, "is a dozen" if value == 12 else "")


def recipe(source, groups=4, count=10, bad=(), held=1000, said=None):
    listed = [
        listing.Group(f"{k}", functools.partial(list_group, k * count, count), (str(source),))
        for k in range(groups)
    ]
    return shards.Recipe(
        name="numbered",
        version="1.0.0",
        description="Numbers.",
        source=str(source),
        features=features,
        groups={"train": tuple(reversed(listed))},
        make=functools.partial(make, tuple(bad), held, said),
        expected={"train": 41},
        notes=("a note",),
    )


def prepare(source, data_dir, workers=0, **options):
    """In shards of 5 examples."""
    return shards.prepare(recipe(source, **options), str(data_dir), workers, shard_bytes=500)


def main():
    """Run with JSON arguments by the test that kills it."""
    options = json.loads(os.environ["NUMBERED"])
    prepare(**options)


if __name__ == "__main__":
    # By its own name, under which processes can import what they are to run.
    from tests.data import numbered

    numbered.main()

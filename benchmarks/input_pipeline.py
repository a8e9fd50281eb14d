"""What the host spends on an image: reading, decoding, cropping, batching, per recipe.

    python benchmarks/input_pipeline.py [--images=1024] [--workers=0] [--cityscapes]
    python benchmarks/input_pipeline.py --images=128 --width=4000 --height=3000

The images are JPEGs, of 500 x 375 pixels if not said otherwise, made of the photographs that
packages ship and prepared as ImageNet is. CPU time is that of all threads; with --workers, of all
processes too, and then it includes some seconds of their start. The last line is JSON: recipe ->
cpu_ms_per_image, images_per_second.
"""

import argparse
import importlib
import json
import os
import pathlib
import sys
import tempfile
import time

import cv2
import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))  # For configs.

from unnas_jax.commands import prepare  # noqa: E402
from unnas_jax.data import Dataset, decoding, open_dataset, photos, pipeline, shards  # noqa: E402

TASKS = ("cls", "rot", "col", "jig")
_FILES = 88
_QUALITY = 90
_BATCH = 32


def views(width: int, height: int, count: int) -> list[np.ndarray]:
    """Regions of the photographs of this shape, uint8 RGB, as sharp as they are."""
    rng = np.random.default_rng(0)
    images = [decoding.decode(p.read_bytes(), apply_exif=False) for p in photos.find_photographs()]
    result = []
    for k in range(count):
        image = images[k % len(images)]
        scale = min(1.0, image.shape[0] / height, image.shape[1] / width)
        h, w = int(height * scale), int(width * scale)
        top, left = rng.integers(image.shape[0] - h + 1), rng.integers(image.shape[1] - w + 1)
        region = image[top : top + h, left : left + w]
        result.append(cv2.resize(region, (width, height), interpolation=cv2.INTER_CUBIC))
    return result


def write(path: pathlib.Path, image: np.ndarray, options: list[int]) -> int:
    """Writes an image in the format of its name; returns the bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    bgr = image[..., ::-1] if image.ndim == 3 else image
    data = cv2.imencode(path.suffix, np.ascontiguousarray(bgr), options)[1]
    path.write_bytes(data.tobytes())
    return len(data)


def imagenet(root: pathlib.Path, width: int, height: int) -> Dataset:
    """JPEGs as ImageNet's, prepared."""
    sizes = [
        write(
            root / "source" / "train" / f"n{k % 8:08d}" / f"n{k % 8:08d}_{k}.jpeg",
            image,
            [cv2.IMWRITE_JPEG_QUALITY, _QUALITY],
        )
        for k, image in enumerate(views(width, height, _FILES))
    ]
    print(f"{_FILES} JPEGs of {width} x {height}, {np.mean(sizes) / 1e3:.0f} kB each")
    recipe = prepare.recipe("imagenet2012", str(root / "source"), partial=True)
    shards.prepare(recipe, str(root), workers=0)
    return open_dataset({"name": "imagenet2012", "data_dir": str(root)})


def cityscapes(root: pathlib.Path) -> Dataset:
    """PNGs as those of Cityscapes, prepared."""
    rng = np.random.default_rng(0)
    for k, image in enumerate(views(2048, 1024, 12)):
        noisy = np.clip(image + rng.normal(0, 1.1, image.shape), 0, 255).round().astype(np.uint8)
        blocks = np.kron(rng.integers(0, 34, (16, 32)), np.ones((64, 64))).astype(np.uint8)
        name = f"train/aachen/aachen_{k:06d}_000019"
        write(root / "city" / "leftImg8bit" / f"{name}_leftImg8bit.png", noisy, [])
        write(root / "city" / "gtFine" / f"{name}_gtFine_labelIds.png", blocks, [])
    shards.prepare(prepare.recipe("cityscapes", str(root / "city")), str(root), workers=0)
    return open_dataset({"name": "cityscapes", "data_dir": str(root)})


def _cpu() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def measure(dataset: Dataset, name: str, images: int, workers: int) -> dict[str, float]:
    """A recipe's cost of an image, after a warm-up."""
    section = importlib.import_module(f"configs.{name}").get_config().input
    batches = pipeline.train_batches(
        dataset.splits["train"],
        # Each image often, so that an epoch is as long as one of ImageNet seems.
        np.tile(np.arange(len(dataset.splits["train"])), 1000),
        batch_size=_BATCH,
        crop=section.crop,
        resize=section.resize,
        train_crop=section.train_crop,
        apply_exif=dataset.apply_exif,
        seed=0,
        start_step=0,
        workers=workers,
        label_maps=name.startswith("seg"),
    )
    for _ in range(2):
        next(batches)
    cpu, wall = _cpu(), time.perf_counter()
    steps = max(1, images // _BATCH)
    for _ in range(steps):
        next(batches)
    seconds = time.perf_counter() - wall
    batches.close()  # The CPU time of processes counts when they have ended.
    return {
        "cpu_ms_per_image": round((_cpu() - cpu) / (steps * _BATCH) * 1e3, 3),
        "images_per_second": round(steps * _BATCH / seconds, 1),
    }


def main() -> None:
    """Measures, prints a line a recipe, and all as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1024, help="images measured per recipe")
    parser.add_argument("--workers", type=int, default=0, help="as config.workers")
    parser.add_argument("--cityscapes", action="store_true", help="also the recipes of Cityscapes")
    parser.add_argument("--width", type=int, default=500, help="of the JPEGs, in pixels")
    parser.add_argument("--height", type=int, default=375, help="of the JPEGs, in pixels")
    options = parser.parse_args()
    results = {}
    with tempfile.TemporaryDirectory() as directory:
        dataset = imagenet(pathlib.Path(directory), options.width, options.height)
        for task in TASKS:
            results[task] = measure(dataset, f"{task}_in1k", options.images, options.workers)
            print(f"{task}_in1k: {results[task]}", flush=True)
        if options.cityscapes:
            dataset = cityscapes(pathlib.Path(directory))
            for name in ("seg_cityscapes", "rot_cityscapes"):
                results[name] = measure(dataset, name, options.images // 4, options.workers)
                print(f"{name}: {results[name]}", flush=True)
    print(json.dumps(results))


if __name__ == "__main__":
    main()

"""What a report says to do with the cells of a search: the training from scratch, as a command."""

from collections.abc import Mapping
from typing import Any

from unnas_jax.analysis import markup
from unnas_jax.config import recipes
from unnas_jax.data import folder_maps, registry

EVALUATIONS: Mapping[str, tuple[str, str]] = {
    "photos": ("eval_photos", "the photographs"),
    "folder": ("eval_folder", "the folder, with a directory for each class"),
    "folder_maps": ("eval_seg_folder", "the folder with its label maps"),
    "cifar10": ("eval_cifar10", "CIFAR-10"),
    "cityscapes": ("eval_cityscapes", "Cityscapes"),
    "imagenet2012": ("eval_in1k", "ImageNet-1K"),
    "imagenet22k": ("eval_in1k", "ImageNet-1K"),
}
"""The recipe with which the cells found on a dataset are evaluated, and on what, in words."""

_SMALL = 64
"""Pixels of a search's crop up to which networks begin at full resolution, as for CIFAR."""


def of_search(config: Mapping[str, Any], workdir: str) -> tuple[str, str]:
    """The next step with the cells of a search: a title, and a command or a line of Python.

    Args:
      config: the search's, as a dict.
      workdir: its workdir.
    """
    dataset, cells = config["dataset"], f"{workdir}/genotype.json"
    name = dataset["name"].removeprefix("tfds:")
    if name == dataset["name"] and registry.DATASETS.is_from_outside(name):
        return (
            "Evaluate the discovered network from Python, on a dataset with labels, such as "
            "un.arrays(images, labels)",
            f"un.train(dataset, {workdir + '/train'!r}, {cells!r})",
        )
    if name == "folder" and folder_maps.has_label_maps(dataset["path"]):
        name = "folder_maps"  # A pretext task searched on it without them.
    recipe, words, fields = _evaluation(name, config)
    for key in ("path", "data_dir"):
        if dataset.get(key):
            fields[f"dataset.{key}"] = dataset[key]
    if name == "folder_maps" and (ignored := dataset.get("ignore_label", 255)) != 255:
        fields["dataset.ignore_label"] = ignored
    network = recipes.NETWORKS.get(config.get("network", {}).get("space", "darts"), {})
    fields |= {f"network.{key}": value for key, value in network.items()}
    flags = [
        f"--config=configs/{recipe}.py:{cells}",
        *(f"--config.{key}={value}" for key, value in fields.items()),
        f"--workdir={workdir}/{recipe}",
    ]
    title = f"Evaluate the discovered network on {words}"
    return title, " ".join(map(markup.quoted, ["python", "main.py", *flags]))


def _evaluation(name: str, config: Mapping[str, Any]) -> tuple[str, str, dict[str, Any]]:
    """The recipe, on what it evaluates, and the fields of it that change."""
    if name in EVALUATIONS:
        return *EVALUATIONS[name], {}
    fields, words = {"dataset.name": config["dataset"]["name"]}, f"{name}, whose images need labels"
    section = config["input"]
    if section["crop"] > _SMALL:
        return "eval_folder", words, fields
    fields |= {f"input.{key}": section[key] for key in ("crop", "resize")}
    # An auxiliary head needs larger maps than some of these images give.
    return "eval_cifar10", words, {**fields, "network.auxiliary_weight": 0.0}

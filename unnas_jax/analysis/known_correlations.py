"""Spearman's rho between scores and accuracies as others published it, to compare with.

Over all cells of NAS-Bench-201 in networks of five cells a stage, and over cells of NAS-Bench-101
for CIFAR-10; batches, draws of weights and samples of cells differ from source to source.
"""

_ZERO_COST = "Abdelfattah et al., 2021"
_ZERO_COST_MAGNITUDE = "Abdelfattah et al., 2021, without sign"
_PROXIES = "Kang et al., on proxies by language models"
_ZICO = "Li et al., 2023 (ZiCo)"
_GENNAS = "Li et al., 2021 (GenNAS), abstract"

Known = tuple[float, str]
"""Spearman's rho and its source."""

_KNOWN: dict[tuple[str, str], dict[str, Known]] = {
    ("nasbench201", "cifar10"): {
        "synflow": (0.737, _ZERO_COST),
        "jacob_cov": (0.731, _ZERO_COST),
        "naswot": (0.743, _PROXIES),
        "zen": (0.365, _PROXIES),
    },
    ("nasbench201", "cifar100"): {
        "synflow": (0.763, _ZERO_COST),
        "jacob_cov": (0.704, _ZERO_COST),
        "naswot": (0.769, _PROXIES),
        "zen": (0.338, _PROXIES),
    },
    ("nasbench201", "imagenet16"): {
        "synflow": (0.751, _ZERO_COST),
        "jacob_cov": (0.701, _ZERO_COST),
        "naswot": (0.760, _PROXIES),
        "zen": (0.372, _PROXIES),
    },
    ("nasbench101", "cifar10"): {
        "synflow": (0.35, _ZICO),
        "jacob_cov": (0.378, _ZERO_COST_MAGNITUDE),
        "naswot": (0.32, _PROXIES),
        "zen": (0.63, _ZICO),
        "parameters": (0.43, _ZICO),
        "gennas": (0.85, _GENNAS),
        "grad_norm": (-0.25, _ZICO),
        "snip": (-0.17, _ZICO),
        "fisher": (-0.28, _ZICO),
    },
}


def published(space: str, column: str, score: str) -> Known | None:
    """The published correlation of a score with the accuracies in a column; None if there is none.

    Args:
      space: of the cells.
      column: of a table; its name begins with the dataset's: cifar10, cifar100, imagenet16.
      score: its name.
    """
    name = column.lower().replace("-", "").replace("_", "")
    # CIFAR-100's name begins with CIFAR-10's.
    datasets = sorted({dataset for _, dataset in _KNOWN}, key=len, reverse=True)
    dataset = next((dataset for dataset in datasets if name.startswith(dataset)), "")
    return _KNOWN.get((space, dataset), {}).get(score)

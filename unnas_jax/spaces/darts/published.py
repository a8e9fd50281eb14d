"""The published genotypes by name, and `resolve`, which also reads the ones that searches wrote.

Sources: nasnet, Zoph et al., CVPR 2018; pnasnet, Liu et al., ECCV 2018; amoebanet, Real et al.,
AAAI 2019 (these three as transcribed by DARTS); darts_v1 and darts_v2 (first and second order),
Liu et al., ICLR 2019; pdarts, Chen et al., ICCV 2019; pcdarts_c10 and pcdarts_in1k, Xu et al.,
ICLR 2020; unnas_DATASET_TASK, Liu et al., ECCV 2020, the paper that this package implements.
"""

import difflib
import os

from unnas_jax.core import files
from unnas_jax.core.errors import UserError
from unnas_jax.spaces.darts import genotype as genotype_lib
from unnas_jax.spaces.darts.genotype import Genotype, Pairs

_SHORT = {
    "skip": "skip_connect",
    "max3": "max_pool_3x3",
    "avg3": "avg_pool_3x3",
    "sep3": "sep_conv_3x3",
    "sep5": "sep_conv_5x5",
    "sep7": "sep_conv_7x7",
    "dil3": "dil_conv_3x3",
    "dil5": "dil_conv_5x5",
    "conv71": "conv_7x1_1x7",
}


def _genotype(
    normal: str,
    reduce: str,
    normal_concat: tuple[int, ...] | None = None,
    reduce_concat: tuple[int, ...] | None = None,
) -> Genotype:
    """Cells written as `operation:input`, two per node; by default all nodes are concatenated."""

    def pairs(cell: str) -> Pairs:
        words = (word.split(":") for word in cell.split())
        return tuple((_SHORT[operation], int(source)) for operation, source in words)

    normal_pairs, reduce_pairs = pairs(normal), pairs(reduce)
    return Genotype(
        normal=normal_pairs,
        normal_concat=normal_concat or tuple(range(2, len(normal_pairs) // 2 + 2)),
        reduce=reduce_pairs,
        reduce_concat=reduce_concat or tuple(range(2, len(reduce_pairs) // 2 + 2)),
    )


GENOTYPES: dict[str, Genotype] = {
    "nasnet": _genotype(
        "sep5:1 sep3:0 sep5:0 sep3:0 avg3:1 skip:0 avg3:0 avg3:0 sep3:1 skip:1",
        "sep5:1 sep7:0 max3:1 sep7:0 avg3:1 sep5:0 skip:3 avg3:2 sep3:2 max3:1",
        (2, 3, 4, 5, 6),
        (4, 5, 6),
    ),
    "pnasnet": _genotype(
        "sep5:0 max3:0 sep7:1 max3:1 sep5:1 sep3:1 sep3:4 max3:1 sep3:0 skip:1",
        "sep5:0 max3:0 sep7:1 max3:1 sep5:1 sep3:1 sep3:4 max3:1 sep3:0 skip:1",
    ),
    "amoebanet": _genotype(
        "avg3:0 max3:1 sep3:0 sep5:2 sep3:0 avg3:3 sep3:1 skip:1 skip:0 avg3:1",
        "avg3:0 sep3:1 max3:0 sep7:2 sep7:0 avg3:1 max3:0 max3:1 conv71:0 sep3:5",
        (4, 5, 6),
        (3, 4, 6),
    ),
    "darts_v1": _genotype(
        "sep3:1 sep3:0 skip:0 sep3:1 skip:0 sep3:1 sep3:0 skip:2",
        "max3:0 max3:1 skip:2 max3:0 max3:0 skip:2 skip:2 avg3:0",
    ),
    "darts_v2": _genotype(
        "sep3:0 sep3:1 sep3:0 sep3:1 sep3:1 skip:0 skip:0 dil3:2",
        "max3:0 max3:1 skip:2 max3:1 max3:0 skip:2 skip:2 max3:1",
    ),
    "pdarts": _genotype(
        "skip:0 dil3:1 skip:0 sep3:1 sep3:1 sep3:3 sep3:0 dil5:4",
        "avg3:0 sep5:1 sep3:0 dil5:2 max3:0 dil3:1 dil3:1 dil5:3",
    ),
    "pcdarts_c10": _genotype(
        "sep3:1 skip:0 sep3:0 dil3:1 sep5:0 sep3:1 avg3:0 dil3:1",
        "sep5:1 max3:0 sep5:1 sep5:2 sep3:0 sep3:3 sep3:1 sep3:2",
    ),
    "pcdarts_in1k": _genotype(
        "skip:1 sep3:0 sep3:0 skip:1 sep3:1 sep3:3 sep3:1 dil5:4",
        "sep3:0 skip:1 dil5:2 max3:1 sep3:2 sep3:1 sep5:0 sep3:3",
    ),
    "unnas_in1k_cls": _genotype(
        "sep3:1 sep3:0 sep3:1 sep3:0 sep3:0 sep3:2 sep5:1 sep3:0",
        "max3:0 skip:1 max3:0 dil5:2 max3:0 sep3:2 sep3:4 dil5:3",
    ),
    "unnas_in1k_rot": _genotype(
        "sep3:0 sep3:1 sep3:0 sep3:1 sep3:1 sep3:0 sep3:0 sep3:1",
        "sep3:1 sep3:0 sep3:2 sep3:1 sep3:1 sep3:2 sep3:4 sep5:2",
    ),
    "unnas_in1k_col": _genotype(
        "skip:0 sep3:1 sep3:1 skip:0 sep3:0 sep3:3 sep3:0 sep3:2",
        "max3:0 sep3:1 max3:0 sep3:1 max3:0 sep5:3 max3:0 sep3:4",
    ),
    "unnas_in1k_jig": _genotype(
        "sep3:0 sep3:1 sep3:0 sep3:1 sep3:0 sep3:3 sep3:1 sep5:0",
        "sep5:0 sep3:1 sep3:0 sep3:1 sep3:0 sep3:1 sep5:0 sep3:1",
    ),
    "unnas_in22k_cls": _genotype(
        "sep3:1 skip:0 sep3:1 sep3:2 sep3:1 sep3:2 sep3:1 sep3:0",
        "max3:0 max3:1 dil5:2 max3:0 dil5:3 dil5:2 dil5:4 dil5:3",
    ),
    "unnas_in22k_rot": _genotype(
        "sep3:0 sep3:1 sep3:0 sep3:1 sep3:0 sep3:1 sep3:0 sep3:1",
        "max3:0 sep5:1 dil5:2 sep5:0 dil5:3 sep3:2 sep3:4 sep3:3",
    ),
    "unnas_in22k_col": _genotype(
        "sep3:0 sep3:1 sep3:0 sep3:1 sep3:2 sep3:1 sep3:3 sep3:0",
        "max3:0 skip:1 dil5:2 sep3:0 sep3:3 sep3:0 sep3:4 sep5:1",
    ),
    "unnas_in22k_jig": _genotype(
        "sep3:0 sep3:1 sep3:0 sep3:1 sep3:1 sep3:0 sep3:0 sep3:4",
        "sep5:0 skip:1 sep5:0 sep3:2 sep5:0 sep5:3 sep5:0 sep5:4",
    ),
    "unnas_cityscapes_seg": _genotype(
        "skip:0 sep5:1 sep3:1 sep3:0 sep3:0 sep3:1 sep3:0 sep3:1",
        "sep3:0 avg3:1 avg3:1 sep5:0 sep3:2 sep5:0 sep3:4 sep5:2",
    ),
    "unnas_cityscapes_rot": _genotype(
        "sep3:1 sep3:0 sep3:2 sep3:1 sep3:0 sep3:3 sep3:1 sep3:0",
        "max3:0 sep5:1 sep5:2 sep5:1 sep5:3 dil5:2 sep5:2 sep5:0",
    ),
    "unnas_cityscapes_col": _genotype(
        "dil3:1 sep3:0 skip:0 sep5:2 dil3:3 skip:0 skip:0 sep3:1",
        "avg3:1 avg3:0 avg3:1 avg3:0 avg3:1 avg3:0 avg3:1 skip:4",
    ),
    "unnas_cityscapes_jig": _genotype(
        "dil5:1 sep5:0 sep3:0 sep3:1 sep3:0 sep3:2 sep3:0 dil5:1",
        "avg3:0 skip:1 dil5:1 dil5:2 dil5:2 dil5:0 dil5:3 dil5:2",
    ),
}
"""Every published genotype by name."""


def resolve(name_or_path: str) -> Genotype:
    """The genotype of a published name, a text, a `genotype.json`, or a search's workdir.

    Raises:
      UserError: there is no such name or file (with the names that come close), or the file holds
        no genotype.
    """
    if name_or_path in GENOTYPES:
        return GENOTYPES[name_or_path]
    if genotype_lib.is_text(name_or_path):
        return genotype_lib.parse(name_or_path)
    path = files.or_in(name_or_path, "genotype.json")
    if os.path.isfile(path) or path.endswith(".json"):
        return genotype_lib.load(path)[0]
    close = difflib.get_close_matches(name_or_path, GENOTYPES, n=3)
    hint = f"did you mean {' or '.join(close)}?" if close else f"names: {', '.join(GENOTYPES)}"
    raise UserError(
        f"genotype {name_or_path!r}: neither a published name nor a genotype.json; {hint}"
    )

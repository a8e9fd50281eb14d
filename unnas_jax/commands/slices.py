"""TPU slices that this machine need not have, as XLA's compiler for them describes them."""

import importlib.util
import math
import os
import re

from jax.experimental import topologies
from jax.sharding import Mesh

from unnas_jax.core import extras, sharding
from unnas_jax.core.errors import UserError

HBM_GIB = {"v4": 15.25, "v5e": 15.75, "v5p": 95.74, "v6e": 31.25}
"""What XLA lets programs take of a device's memory, by the name with which a topology begins.

A v4 chip counts as two devices, its cores.
"""


def mesh_of(topology: str) -> Mesh:
    """The mesh of a slice, which this machine need not have.

    Args:
      topology: such as v5e:4x4, as `jax.experimental.topologies` takes it.

    Raises:
      UserError: libtpu is not installed or knows no such topology.
    """
    name, _, layout = topology.partition(":")
    if name not in HBM_GIB or not re.fullmatch(r"\d+(x\d+){1,2}", layout):
        known = ", ".join(sorted(HBM_GIB))
        raise UserError(f"--topology={topology}: write CHIP:AxB or CHIP:AxBxC, CHIP of {known}")
    extras.require("tpu-aot", "compile")
    libtpu = importlib.util.find_spec("libtpu")
    assert libtpu is not None and libtpu.submodule_search_locations
    # Without these libtpu looks for a TPU on this machine and asks a metadata server about it.
    os.environ.setdefault(
        "TPU_LIBRARY_PATH", os.path.join(libtpu.submodule_search_locations[0], "libtpu.so")
    )
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-8")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # Several compilations at once.
    sides = [int(side) for side in layout.split("x")]
    # A host has 2x2 chips; the only smaller slice is one chip.
    hosts = {"chips_per_host_bounds": [1] * 3} if math.prod(sides) == 1 else {}
    try:
        described = topologies.get_topology_desc(topology, platform="tpu", **hosts)
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"--topology={topology}: no such slice ({reason})") from error
    return sharding.data_mesh(described.devices)


def available_bytes(topology: str) -> int:
    """What XLA lets programs take of the memory of each chip of a slice; see `HBM_GIB`."""
    return int(HBM_GIB[topology.partition(":")[0]] * 2**30)

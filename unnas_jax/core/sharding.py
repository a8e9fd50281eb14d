"""Where arrays live: batches split over a 1-D `data` mesh, everything else on every device.

Steps are jitted over the global batch, so XLA inserts the reductions that make gradients and
batch-norm statistics global. Where it would sum more than needed, `by_device` runs a function on
every device's part of the batch, and `total` and batch norm reduce by themselves.
"""

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from unnas_jax.core.errors import UserError


def process_by_process(devices: Sequence[jax.Device]) -> list[jax.Device]:
    """Devices in the order of their processes; their numbers follow the wiring, not the hosts."""
    return sorted(devices, key=lambda device: (device.process_index, device.id))


def data_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh with the one axis `data` of these devices, by default all of all processes.

    Process by process: the k-th of n processes then holds the k-th n-th of every batch, which is
    how the pipeline cuts it, and a run's examples do not depend on how many processes share them.
    (The axis spans all devices, so the order costs a reduction nothing.)
    """
    devices = jax.devices() if devices is None else devices
    return Mesh(np.asarray(process_by_process(devices)), ("data",), axis_types=(AxisType.Auto,))


def platform() -> str:
    """The platform for which a program is being traced: cpu, gpu or tpu; or none, see `nowhere`.

    Within `jax.sharding.use_abstract_mesh`, which is for devices that this machine does not have,
    it is that of the mesh; otherwise that of the default devices.
    """
    device = jax.sharding.get_abstract_mesh().abstract_device
    return jax.default_backend() if device is None else device.platform


def nowhere() -> contextlib.AbstractContextManager[Any]:
    """A block in which programs are traced for no platform: every operation in its plain form."""
    device = jax.sharding.AbstractDevice("none", 1, "none")
    around = jax.sharding.get_abstract_mesh()
    # As large as an enclosing mesh: JAX does not allow another size.
    sizes, names = ((1,), ("data",)) if around.empty else (around.axis_sizes, around.axis_names)
    mesh = jax.sharding.AbstractMesh(sizes, names, abstract_device=device)
    return jax.sharding.use_abstract_mesh(mesh)


def batch_axis() -> str | None:
    """The mesh axis whose devices each have a part of the batch in what is being traced, if any."""
    return "data" if "data" in jax.sharding.get_abstract_mesh().manual_axes else None


def by_device(function: Callable[..., Any], mesh: Mesh) -> Callable[..., Any]:
    """Runs function(same, batch) on every device, each with its rows of the batch.

    Its results must be the same on all devices: made of `total`s. Batch norm inside uses the global
    statistics. On one device it is the function itself.
    """
    if mesh.size == 1:
        return function
    rows = (PartitionSpec(), PartitionSpec("data"))
    # JAX's check that results are equal does not see through a differentiated batch norm.
    return jax.shard_map(
        function, mesh=mesh, in_specs=rows, out_specs=PartitionSpec(), check_vma=False
    )


def total(tree: Any) -> Any:
    """The sum of all devices' float32 arrays inside of `by_device`, in one reduction."""
    axis = batch_axis()
    if axis is None:
        return tree
    flat, restore = ravel_pytree(tree)
    return restore(jax.lax.psum(flat, axis))


def gathered(x: jax.Array) -> jax.Array:
    """The rows of all devices, in order, inside of `by_device`; elsewhere x has them all."""
    axis = batch_axis()
    return x if axis is None else jax.lax.all_gather(x, axis, tiled=True)


def first_row(rows: int) -> Any:
    """The number of this device's first row in `gathered`, if every device has so many."""
    axis = batch_axis()
    return 0 if axis is None else jax.lax.axis_index(axis) * rows


def bytes_of(tree: Any) -> int:
    """The bytes of all arrays or shapes of a tree, unpadded, each counted once."""
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def split(mesh: Mesh) -> NamedSharding:
    """The first axis split over the devices."""
    return NamedSharding(mesh, PartitionSpec("data"))


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Arrays that every process has alike, as global arrays on every device.

    Nothing is sent between processes, while `jax.device_put` would compare their values.
    """
    everywhere = replicated(mesh)

    def place(leaf: Any) -> jax.Array:
        value = np.asarray(jax.device_get(leaf))
        return jax.make_array_from_process_local_data(everywhere, value, value.shape)

    with jax.transfer_guard("allow"):  # The transfer is intended.
        return jax.tree.map(place, tree)


def check_batch_size(key: str, batch_size: int, mesh: Mesh) -> None:
    """Raises `UserError` if a global batch cannot be split evenly over the devices."""
    devices = mesh.size
    if batch_size % devices:
        raise UserError(
            f"config.{key}={batch_size}: not divisible by the {devices} devices; use a multiple"
        )


def to_devices(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """This process's rows of a batch as global arrays split over the mesh."""
    sharding = split(mesh)
    return {
        name: jax.make_array_from_process_local_data(sharding, value)
        for name, value in batch.items()
    }

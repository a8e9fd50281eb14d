"""What the data sheets promise of the chips that the benchmarks run on."""

PEAK_FLOPS = {
    "H100": 989e12, "H200": 989e12, "A100": 312e12, "TPU v4": 275e12, "TPU v5 lite": 197e12,
    "TPU v5p": 459e12, "TPU v6": 918e12,
}  # fmt: skip
"""Dense bfloat16 peak of a chip in FLOP/s, by a part of its name; from the vendors' data sheets."""


def peak_flops(device_kind: str) -> float | None:
    """The peak of a device that JAX names so; None for one that is not in the table."""
    return next((value for part, value in PEAK_FLOPS.items() if part in device_kind), None)

"""Settings of every test: eight fake CPU devices, strict numerics, one compilation cache."""

import contextlib
import ctypes
import gc
import logging
import mmap
import os
import pathlib
import sys
from collections.abc import Iterator

from unnas_jax.core import xla_flags  # Without jax.

# Tests compile more than they compute: the quickest code generation more than halves their time.
QUICK = "--xla_backend_optimization_level=0"
if xla_flags.known("xla_cpu_use_fusion_emitters"):
    QUICK += " --xla_cpu_use_fusion_emitters=false"
if xla_flags.known("xla_cpu_parallel_codegen_split_count"):
    # In 32 parts, one for each core that it might have, a program takes a sixth longer.
    QUICK += " --xla_cpu_parallel_codegen_split_count=1"
# Where few cores are busy otherwise, one of eight devices can come late to a sum; XLA waits 40
# seconds and then ends the process.
PATIENT = "--xla_cpu_collective_call_terminate_timeout_seconds"
EIGHT = "--xla_force_host_platform_device_count=8"
EIGHT += f" {PATIENT}=3600" if xla_flags.known(PATIENT.removeprefix("--")) else ""
# Before jax is imported. Subprocesses that tests start inherit these.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {EIGHT} {QUICK}"
ROOT = pathlib.Path(__file__).resolve().parent.parent
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".jax_cache"))
# Small programs are most of them, and the same in every test: all are kept.
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
sys.path.insert(0, str(ROOT))  # For configs/ and benchmarks/, which are not installed.

import cv2  # noqa: E402
import jax  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402

from tests import tiny  # noqa: E402
from unnas_jax.core import sharding  # noqa: E402
from unnas_jax.data import open_dataset  # noqa: E402
from unnas_jax.runs import outputs  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_nans", False)

# Tracing makes millions of objects that stay: looking through them all took a tenth of its time.
gc.freeze()
gc.set_threshold(20_000, 50, 100)


@pytest.fixture(scope="module", autouse=True)
def little_memory() -> Iterator[None]:
    """Gives back what a file's programs took, which would add up to many GB in a process."""
    yield
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    if pages * mmap.PAGESIZE > 2 << 30:
        jax.clear_caches()
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)  # Else glibc keeps it, in pieces.


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """What a test starts logging to, a stream that is closed, is left to no other."""
    log = logging.getLogger("unnas_jax")
    handlers, level, propagate = list(log.handlers), log.level, log.propagate
    yield
    log.handlers[:] = handlers
    log.setLevel(level)
    log.propagate = propagate


@pytest.fixture(autouse=True)
def same_draws(request: pytest.FixtureRequest) -> None:
    """A file's generator draws the same for a test whichever others ran before, or did not."""
    if hasattr(request.module, "RNG"):
        request.module.RNG = np.random.default_rng(0)


@contextlib.contextmanager
def few_devices(count: int) -> Iterator[None]:
    """Runs take so many of the eight, which would only take longer to compile for."""
    mesh = sharding.data_mesh
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            sharding, "data_mesh", lambda devices=None: mesh(devices or jax.devices()[:count])
        )
        yield


@pytest.fixture(scope="module")
def on_one_device() -> Iterator[None]:
    with few_devices(1):
        yield


@pytest.fixture(scope="module")
def on_two_devices() -> Iterator[None]:
    with few_devices(2):
        yield


@pytest.fixture
def no_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs in this process draw nothing: a report takes as long as many a search."""
    monkeypatch.setattr(outputs.pictures, "write_report", lambda _: None)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A folder of 64 images, what tests/configs/tiny.py searches on."""
    folder = tmp_path_factory.mktemp("images")
    for number, image in enumerate(tiny.upright(64, 20)):
        cv2.imwrite(str(folder / f"{number:03d}.png"), image)
    return folder


@pytest.fixture(scope="session")
def photos_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("tfds")


@pytest.fixture(scope="session")
def photos(photos_dir):
    return open_dataset({"name": "photos", "path": "", "data_dir": str(photos_dir)})

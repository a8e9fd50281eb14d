"""The rows of `gpu.py` in eager PyTorch: channels last, bfloat16 by autocast, on the same GPU.

Rotation makes its examples of uint8 images as the search does, without lighting; the other tasks
are given ready-made random examples, so that PyTorch has less to do than the search.
"""

import gc
import time
from collections.abc import Callable
from typing import Any

from benchmarks.gpu_schedule import Row, one_line, timed
from benchmarks.gpu_search import TASKS, Searches


def rounds(searches: Searches) -> list[list[Row]]:
    """The rows of PyTorch, the most important first."""

    def row(name: str, times: int, tuned: bool) -> Row:
        label = "torch, cudnn.benchmark" if tuned else "torch"
        keys = ("supernet", name, f"batch x{times}", label)
        seconds = 25.0 if tuned else 9.0
        return Row(keys, [], lambda: _measure(searches, name, times, tuned), seconds)

    return [
        [row("rot", 1, False)],
        [row("rot", 4, False), row("rot", 1, True)],
        [row(name, 1, False) for name in TASKS[1:]],
        [row(name, 4, False) for name in TASKS[1:]],
        [row("rot", 4, True)],
    ]


def _measure(searches: Searches, name: str, times: int, tuned: bool) -> dict[str, Any]:
    import torch

    try:
        result = _timed(searches, name, times, tuned)
    except torch.OutOfMemoryError as error:
        result = {"error": one_line(error)}
    # Outside of the handler, whose traceback holds the arrays: JAX needs the memory again.
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return result


def _timed(searches: Searches, name: str, times: int, tuned: bool) -> dict[str, Any]:
    import torch

    from benchmarks import torch_supernet

    search = searches.of(name, times, "dense", True)
    c, task, batch = search.config, search.task, search.batch
    device = "cuda" if torch.cuda.is_available() else "cpu"
    on_gpu = device == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    torch.backends.cudnn.benchmark = tuned
    start = time.perf_counter()
    group = c["task"]["grid"] ** 2 if name == "jig" else 1
    model = torch_supernet.Supernet(
        task.num_classes,
        c["network"]["width"],
        c["network"]["cells"],
        c["network"]["nodes"],
        task.input_channels,
        group,
        task.dense,
    )
    model.to(device=device, memory_format=torch.channels_last)
    crop = c["input"]["crop"]
    if name == "rot":
        plain: Callable[[Any], torch.Tensor] = torch_supernet.rotation_loss(model, device)
        given: Any = torch.randint(0, 256, (batch, 3, crop, crop), device=device).to(torch.uint8)
    else:
        side = task.input_side(crop)
        shape = (batch * group, task.input_channels, side, side)
        inputs = torch.randn(shape, device=device).contiguous(memory_format=torch.channels_last)
        answers = (batch, side, side) if task.dense else (batch,)
        given = inputs, torch.randint(0, task.num_classes, answers, device=device)

        def answered(given: Any) -> torch.Tensor:
            inputs, targets = given
            return torch.nn.functional.cross_entropy(model(inputs), targets)

        plain = answered

    def loss(given: Any) -> torch.Tensor:
        with torch.autocast(device, torch.bfloat16):
            return plain(given)

    def wait(_: Any) -> None:
        if on_gpu:
            torch.cuda.synchronize()

    of_alphas, of_weights = torch_supernet.search_steps(model, c, loss)

    def passes(step: Callable[[Any], Any]) -> dict[str, Any]:
        wait(step(given))
        return timed(lambda: step(given), wait, 1.5)

    result: dict[str, Any] = {"weights": passes(of_weights), "alphas": passes(of_alphas)}
    both = result["weights"]["ms"] + result["alphas"]["ms"]
    result["images_per_s"] = round(2 * batch / both * 1e3, 1)
    result["all_s"] = round(time.perf_counter() - start, 1)
    if on_gpu:
        result["peak_bytes"] = torch.cuda.max_memory_allocated()
    return result

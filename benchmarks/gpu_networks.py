"""The rows of `gpu.py` about discrete networks: evaluation on ImageNet-1K and a sweep's units.

A sweep trains many small networks: they are timed alone, with their seeds in one program, and in
several processes that share the device, each with a network of its own.
"""

import functools
import multiprocessing
import os
import time
from multiprocessing import connection
from typing import Any

import jax

from benchmarks.gpu_schedule import Program, Row, one_line, timed
from benchmarks.gpu_search import filled, random_batch, rate
from configs import eval_in1k, sample_nasbench101_cifar10
from unnas_jax.config import schema as config_lib
from unnas_jax.config import sections
from unnas_jax.core import sharding
from unnas_jax.learning import trainer
from unnas_jax.learning.trainer import TrainSteps
from unnas_jax.spaces import complexity, networks
from unnas_jax.tasks.base import example_shapes

# Five operations, three of them 3x3 convolutions, one 1x1 and one pooling.
CELL = (
    "0110000-0001010-0001000-0000110-0000001-0000001-0000000:"
    "conv3x3,conv1x1,conv3x3,maxpool3x3,conv3x3"
)
_TRAIN_IMAGES = 50_000  # Of CIFAR-10.
_STEPS_PER_EPOCH = 100

# Seconds that processes on a shared device may take until they have compiled, and to measure.
_READY_S, _ANSWER_S = 60.0, 30.0


def evaluation(batch: int, tiny: bool) -> dict[str, Any]:
    """The paper's evaluation of darts_v2 on ImageNet-1K in bfloat16, with one seed."""
    c: dict[str, Any] = eval_in1k.get_config("darts_v2").to_dict()
    c |= {"precision": "bfloat16", "seeds": 1}
    c["train"]["batch_size"] = batch
    if tiny:
        c["network"] |= {"width": "4", "cells": 2, "auxiliary_weight": 0.0}
        c["input"] |= {"crop": 32, "resize": 40}
    return c


def unit(tiny: bool) -> dict[str, Any]:
    """A unit of `sample_nasbench101_cifar10` on classification in bfloat16."""
    config = sample_nasbench101_cifar10.get_config()
    c: dict[str, Any] = config_lib.of_unit(config, "classification", CELL).to_dict()
    c["precision"] = "bfloat16"
    if tiny:
        c["network"] |= {"width": "4", "stacks": 2, "modules": 1}
        c["input"] |= {"crop": 8, "resize": 8, "pad": 1}
        c["train"]["batch_size"] = 4
    return c


class Training:
    """The program of a training step of some seeds together, and what it is given."""

    def __init__(self, name: str, c: dict[str, Any], seeds: int, device: jax.Device) -> None:
        self.config, self._seeds, self._device = c, seeds, device
        self.task = complexity.task_of(c)
        self.images = seeds * c["train"]["batch_size"]
        self.program = Program(name, self._lower)

    @functools.cached_property
    def _mesh(self) -> Any:
        return sharding.data_mesh([self._device])

    @functools.cached_property
    def _steps(self) -> TrainSteps:
        network = networks.build_network(self.config, self.task)
        inputs = example_shapes(self.config, self.task).inputs
        return trainer.build_steps(
            sections.Training.of(self.config),
            network,
            self.task,
            self._mesh,
            _STEPS_PER_EPOCH,
            inputs,
        )

    def _lower(self) -> jax.stages.Lowered:
        return trainer.lower(
            sections.Training.of(self.config), self.task, self._steps, self._seeds, self._mesh
        )

    def step(self) -> Any:
        """A function that begins a step and returns what to wait for."""
        crop, size = self.config["input"]["crop"], self.config["train"]["batch_size"]
        shapes = {
            "image": jax.ShapeDtypeStruct((self._seeds, size, crop, crop, 3), "uint8"),
            "label": jax.ShapeDtypeStruct((self._seeds, size), "int32"),
        }
        batch = random_batch(shapes, self.task.num_classes, self._device)
        held = {"state": filled(self._steps.shapes(self._seeds), self._device)}

        def step() -> Any:
            held["state"], sums = self.program.compiled(held["state"], batch)
            return held["state"], sums

        return step

    def multiply_adds(self) -> int:
        """Of a forward pass of a batch of every seed; auxiliary heads not counted."""
        inputs = example_shapes(self.config, self.task, self.images).inputs
        counts = complexity.of_config(self.config)
        return int(counts["multiply_adds"] * inputs.shape[0] // counts["inputs"])


def row(training: Training, keys: tuple[str, ...], peak: float | None) -> Row:
    """The time of a training step."""

    def measure() -> dict[str, Any]:
        found = timed(training.step(), jax.block_until_ready, 2.0)
        model = 6 * training.multiply_adds()
        return {
            **found,
            "images": training.images,
            "images_per_s": round(training.images / found["ms"] * 1e3, 1),
            "model_flops": model,
            "mfu": rate(found["ms"], model, peak),
            **training.program.facts,
        }

    return Row(keys, [training.program], measure, 4.0)


def units(tiny: bool, device: jax.Device, peak: float | None) -> list[list[Row]]:
    """The rows of a sweep's unit: one seed, and all three in one program."""

    def of(seeds: int) -> Row:
        training = Training(f"nasbench101/{seeds}", unit(tiny), seeds, device)
        return row(training, ("nasbench101", f"{seeds} seeds in one program"), peak)

    return [[of(1)], [of(3)]]


def evaluations(tiny: bool, device: jax.Device, peak: float | None) -> list[list[Row]]:
    """The rows of the evaluation at several batches."""

    def of(batch: int) -> Row:
        training = Training(f"eval/{batch}", evaluation(batch, tiny), 1, device)
        return row(training, ("eval_in1k", f"batch {batch}"), peak)

    small, middle, large = (2, 4, 8) if tiny else (256, 512, 1024)
    return [[], [of(small)], [of(large)], [of(middle)]]


def sweep_hours(content: dict[str, Any]) -> dict[str, Any]:
    """Hours of training steps of one unit, three seeds of 100 epochs, as each way measured it."""
    c = unit(tiny=False)
    images = 3 * c["train"]["epochs"] * (_TRAIN_IMAGES // c["train"]["batch_size"])
    images *= c["train"]["batch_size"]
    measured: dict[str, Any] = content.get("nasbench101", {})
    rates = {name: found.get("images_per_s") for name, found in measured.items()}
    return {name: round(images / value / 3600, 4) for name, value in rates.items() if value}


def shared_device(tiny: bool, counts: tuple[int, ...]) -> Row:
    """Several processes, each training a network, on one device: images/s of all together."""

    def measure() -> dict[str, Any]:
        context = multiprocessing.get_context("spawn")
        ends, children = [], []
        begun = time.monotonic()
        try:
            for _ in range(max(counts)):
                ours, theirs = context.Pipe()
                child = context.Process(target=_worker, args=(tiny, theirs), daemon=True)
                child.start()
                theirs.close()
                ends.append(ours)
                children.append(child)
            ready = [_answer(end, _READY_S) for end in ends]
            result: dict[str, Any] = {
                "ready_after_s": round(time.monotonic() - begun, 1),
                "compile_s": [facts["compile_s"] for facts in ready],
            }
            for count in counts:
                for end in ends[:count]:
                    end.send(1.0 if tiny else 3.0)
                found = [_answer(end, _ANSWER_S) for end in ends[:count]]
                each = [images / seconds for images, seconds in found]
                result[f"{count} processes"] = {
                    "images_per_s": round(sum(each), 1),
                    "each": [round(value, 1) for value in each],
                }
            return result
        finally:
            for child in children:
                child.kill()

    return Row(("shared_device",), [], measure, 5.0 if tiny else 50.0)


def _answer(end: connection.Connection, seconds: float) -> Any:
    if not end.poll(seconds):
        raise TimeoutError(f"a worker process said nothing for {seconds:.0f} s")
    answer = end.recv()
    if isinstance(answer, str):
        raise RuntimeError(answer)
    return answer


def _worker(tiny: bool, end: connection.Connection) -> None:
    """A process that compiles its network, says so, and trains as long as it is told to."""
    import threading

    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    try:
        training = Training("nasbench101", unit(tiny), 1, jax.devices()[0])
        training.program.compile(threading.Lock())
        if "error" in training.program.facts:
            raise RuntimeError(training.program.facts["error"])
        step = training.step()
        for _ in range(3):
            jax.block_until_ready(step())
        end.send(training.program.facts)
        while True:
            end_at = end.recv()
            start, steps = time.perf_counter(), 0
            while time.perf_counter() - start < end_at:
                # A few at once, as a training dispatches ahead.
                results = [step() for _ in range(4)]
                jax.block_until_ready(results[-1])
                steps += 4
            end.send((steps * training.images, time.perf_counter() - start))
    except EOFError:  # The parent is done.
        return
    except Exception as error:
        end.send(one_line(error))

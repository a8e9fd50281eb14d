"""Work for the tests of sweeps: a line for every start and end of a unit, and no JAX."""

import os
import signal
import time
from collections.abc import Callable
from typing import Any


def log(directory: str, word: str, name: str) -> None:
    """Appends a line, in one write, which processes do not tear apart."""
    descriptor = os.open(os.path.join(directory, "log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(descriptor, f"{word} {name}\n".encode())
    os.close(descriptor)


def words(directory) -> list[list[str]]:
    """The lines of the log as words."""
    path = os.path.join(directory, "log")
    if not os.path.exists(path):
        return []
    with open(path) as file:
        return [line.split() for line in file]


def wait_for(condition: Callable[[], Any], seconds: float = 600) -> None:
    """Returns when a condition holds; fails if it does not after a long time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.01)


def allow(directory) -> None:
    """Lets the units of `plain` that wait for it go on."""
    open(os.path.join(directory, "allowed"), "w").close()


def plain(task: dict, scratch: str) -> dict:
    """Tells when it began and when it was done; in the middle, if `held`, it waits for `allow`."""
    log(task["directory"], "began", task["name"])
    if task.get("held"):
        wait_for(lambda: os.path.exists(os.path.join(task["directory"], "allowed")))
    log(task["directory"], "done", task["name"])
    return {"name": task["name"], "process": os.getpid()}


def moody(task: dict, scratch: str) -> dict:
    """Fails, kills its worker, or fills the disk, as the task says."""
    if task["mood"] == "raises":
        raise ValueError("no such\nluck")
    if task["mood"] == "dies":
        log(task["directory"], "died", task["name"])
        os.kill(os.getpid(), signal.SIGKILL)
    if task["mood"] == "full":
        raise OSError(28, "No space left on device")
    if task["mood"] == "continues":
        path = os.path.join(scratch, "half")
        if not os.path.exists(path):
            open(path, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        return {"continued": True}
    return plain(task, scratch)

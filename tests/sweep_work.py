"""Work for the tests of sweeps: a line for every start and end of a unit, and no JAX."""

import os
import signal
import time


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


def slow(task: dict, scratch: str) -> dict:
    """Takes a while; tells when it began and when it was done."""
    log(task["directory"], "began", task["name"])
    end = time.monotonic() + task.get("seconds", 0.05)
    while time.monotonic() < end:
        time.sleep(0.01)
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
    return slow(task, scratch)

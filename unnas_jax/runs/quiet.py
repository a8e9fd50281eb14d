"""Keeps libraries from printing errors that they also raise."""

import asyncio.log
import sys
import threading
from typing import Any

from absl import logging

from unnas_jax.core import failures


def quieten() -> None:
    """Silences the threads and tasks of saves and restores; one call is enough.

    Their errors are raised where the save or restore is awaited. Orbax also ends its event loop at
    the first array that fails: TensorStore's answers about the others find it closed, and asyncio
    prints every task that failed.
    """
    of_thread, of_callback = threading.excepthook, sys.unraisablehook
    if getattr(of_thread, "quiet", False):
        return

    def thread_hook(failed: threading.ExceptHookArgs) -> None:
        if failed.exc_value is None or not failures.is_passing(failed.exc_value):
            of_thread(failed)

    def callback_hook(failed: "sys.UnraisableHookArgs") -> None:
        if str(failed.exc_value) != "Event loop is closed":
            of_callback(failed)

    thread_hook.quiet = True  # type: ignore[attr-defined]

    def log_filter(record: Any) -> bool:
        return not (record.exc_info and "orbax" in record.pathname)

    def task_filter(record: Any) -> bool:
        failed = record.exc_info[1] if record.exc_info else None
        known = failed and (failures.is_damage(failed) or failures.is_passing(failed))
        return not (known and "never retrieved" in record.getMessage())

    threading.excepthook, sys.unraisablehook = thread_hook, callback_hook
    logging.get_absl_logger().addFilter(log_filter)
    asyncio.log.logger.addFilter(task_filter)

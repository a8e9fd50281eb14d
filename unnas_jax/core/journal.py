"""A file of rows, each kept as soon as it is known: what long work leaves for its continuation."""

import json
import os
from collections.abc import Mapping
from typing import Any

from unnas_jax.core import reading
from unnas_jax.core.errors import UserError

Row = Mapping[str, Any]


class Journal:
    """Rows of JSON, a line each, in a file that is only appended to.

    Lines that are no rows, as a process leaves that is killed while it writes, are passed over.

    Args:
      path: of the file, which need not exist.
      shape: of a row, see `reading.check`.

    Attributes:
      rows: all of them, in order.

    Raises:
      UserError: the file cannot be read.
    """

    def __init__(self, path: str, shape: Any) -> None:
        self.path, self.rows = path, list[Row]()
        if not os.path.exists(path):
            return
        try:
            with reading.opened(path, reading.LARGE) as file:
                for line in reading.lines(file):
                    try:
                        row = reading.parse_json(line)
                        reading.check(row, shape)
                    except ValueError:
                        continue
                    self.rows.append(row)
        except (OSError, ValueError) as error:
            raise UserError(
                f"{path}: cannot be read ({reading.reason(error)}); move it away"
            ) from error

    def add(self, row: Row) -> None:
        """Keeps a row."""
        with open(self.path, "ab") as file:
            # Half a line of a killed process must not take this one with it.
            file.write((("\n" if self._is_torn() else "") + json.dumps(row) + "\n").encode())
        self.rows.append(row)

    def _is_torn(self) -> bool:
        with open(self.path, "rb") as file:
            if file.seek(0, os.SEEK_END) == 0:
                return False
            file.seek(-1, os.SEEK_END)
            return file.read(1) != b"\n"

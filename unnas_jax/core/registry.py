"""A table of names to which users can add their own tasks, spaces, datasets, methods."""

import difflib
from collections.abc import Callable, Iterator, Mapping
from typing import Generic, TypeVar

from unnas_jax.core.errors import UserError

T = TypeVar("T")


def nearest(name: str, names: Mapping[str, object] | list[str]) -> str:
    """'did you mean X? ' for a name close to one that exists, else ''."""
    close = difflib.get_close_matches(name, list(names), n=1)
    return f"did you mean {close[0]!r}? " if close else ""


class Registry(Mapping[str, T], Generic[T]):
    """A mapping from names that only grows.

    Args:
      kind: what is registered, a noun for messages.
      items: what is there from the start.
      check: raises `UserError` for an item that cannot be registered.
    """

    def __init__(
        self, kind: str, items: Mapping[str, T], check: Callable[[T], None] = lambda item: None
    ) -> None:
        self.kind, self._check = kind, check
        self._items = dict(items)

    def __getitem__(self, name: str) -> T:
        return self._items[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def register(self, name: str, item: T) -> T:
        """Adds an item, for this process, and returns it.

        Raises:
          UserError: the name is taken or cannot stand in a config, or the item lacks something.
        """
        if not name or name != name.strip() or ":" in name:
            raise UserError(f"{self.kind} {name!r}: give a name of letters, digits and _")
        if name in self._items:
            raise UserError(f"{self.kind} {name!r}: the name is taken; choose another one")
        self._check(item)
        self._items[name] = item
        return item

    def find(self, name: str, key: str) -> T:
        """The item of a name that stands in a config.

        Args:
          name: the value in the config.
          key: the config's key, as in `task.name`, for the message.

        Raises:
          UserError: there is no such item.
        """
        if name not in self._items:
            raise UserError(
                f"config.{key}={name!r}: {nearest(name, self._items)}use one of "
                f"{', '.join(sorted(self._items))}"
            )
        return self._items[name]

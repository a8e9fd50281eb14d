"""A table of names to which users can add their own tasks, spaces, datasets, methods."""

import difflib
import functools
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, TypeVar

from unnas_jax.core.errors import UserError

T = TypeVar("T")


def nearest(name: str, names: Mapping[str, object] | list[str]) -> str:
    """'did you mean X? ' for a name close to one that exists, else ''."""
    close = difflib.get_close_matches(name, list(names), n=1)
    return f"did you mean {close[0]!r}? " if close else ""


def origin(value: Any) -> str:
    """Where a class, function or module is defined; of another object, where its class is.

    An edited cell of a notebook that is run again, or a module that is loaded anew, defines another
    object of the same origin.
    """
    while isinstance(value, functools.partial):
        value = value.func
    if isinstance(value, str):  # 'module:function'
        return value.replace(":", ".")
    if isinstance(value, types.ModuleType):
        return value.__name__
    if not hasattr(value, "__qualname__"):
        value = type(value)
    return f"{value.__module__}.{value.__qualname__}"


class Registry(Mapping[str, T], Generic[T]):
    """A mapping from names that only grows.

    Args:
      kind: what is registered, a noun for messages.
      items: what is there from the start, and stays.
      made_by: of an item, the class or function that is the user's; None: the item itself.
      check: raises `UserError` for an item that cannot be registered.
    """

    def __init__(
        self,
        kind: str,
        items: Mapping[str, T],
        made_by: Callable[[T], Any] | None = None,
        check: Callable[[T], None] = lambda item: None,
    ) -> None:
        self.kind, self._made_by, self._check = kind, made_by, check
        self._items = dict(items)
        self._origins: dict[str, str] = {}  # Of what was registered.
        self._when_replaced: list[Callable[[], object]] = []

    def __getitem__(self, name: str) -> T:
        return self._items[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def is_from_outside(self, name: str) -> bool:
        """Whether a name is none of those that are there from the start."""
        return name not in self._items or name in self._origins

    def when_replaced(self, forget: Callable[[], object]) -> None:
        """Has a function called after every replacement, as of a cache of what items gave."""
        self._when_replaced.append(forget)

    def register(self, name: str, item: T) -> T:
        """Adds an item, for this process, and returns it.

        It replaces what was registered under its name before, if that is of the same origin.

        Raises:
          UserError: the name is that of something else or cannot stand in a config, or the item
            lacks something.
        """
        if not name or name != name.strip() or ":" in name:
            raise UserError(f"{self.kind} {name!r}: give a name of letters, digits and _")
        found = origin(self._made_by(item) if self._made_by else item)
        replaced = name in self._items
        if replaced and self._origins.get(name) != found:
            by = f" by {self._origins[name]}" if name in self._origins else ""
            raise UserError(f"{self.kind} {name!r}: the name is taken{by}; choose another one")
        self._check(item)
        self._items[name], self._origins[name] = item, found
        if replaced:
            for forget in self._when_replaced:
                forget()
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

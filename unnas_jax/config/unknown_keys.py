"""Messages about unknown keys of a config: the keys that exist, and those that may be meant."""

import difflib
from collections.abc import Callable, Mapping
from typing import Any

from unnas_jax.core.errors import UserError


def _leaves(config: Mapping[str, Any], prefix: str = "") -> list[str]:
    """The keys of all fields, as `section.key`, in the order of the schema."""
    found = []
    for key, value in config.items():
        inner = _leaves(value, f"{prefix}{key}.") if isinstance(value, Mapping) else []
        found += inner or [f"{prefix}{key}"]
    return found


def _nearest(key: str, config: Mapping[str, Any]) -> list[str]:
    """The keys of a config that an unknown one may stand for, the likeliest first."""
    parts = key.split(".")
    # Sections that repeat the fields of others, and are meant less often, come last.
    leaves = sorted(_leaves(config), key=lambda leaf: leaf.startswith(("alphas.", "recipes.")))
    # Mostly the section is wrong and the end of the key is right.
    for start in range(len(parts)):
        end = ".".join(parts[start:])
        same = [leaf for leaf in leaves if leaf == end or leaf.endswith(f".{end}")]
        if same:
            return same[:3]
    close = difflib.get_close_matches(key[:80], leaves, n=2, cutoff=0.75)
    names = {leaf: leaf.rpartition(".")[2] for leaf in leaves}
    near = difflib.get_close_matches(parts[-1][:80], names.values(), n=2, cutoff=0.7)
    for leaf, name in names.items():
        initials = "".join(word[:1] for word in name.split("_"))  # lr, wd
        if name in near or initials == parts[-1]:
            close.append(leaf)
    return list(dict.fromkeys(close))[:3]


def error_of(
    key: str, config: Mapping[str, Any], schemas: Mapping[str, Callable[[], Any]]
) -> UserError | None:
    """What is wrong with a key, `section.key`, that a config lacks; None if it has it.

    Args:
      key: without `config.`.
      config: as a dict, with all its keys.
      schemas: makes the whole config of every experiment, by name.

    Returns:
      an error that names the keys that are there, and those that may be meant.
    """
    section: Any = config
    parts = key.split(".")
    for number, part in enumerate(parts):
        where = ".".join(["config", *parts[:number]])
        if not isinstance(section, Mapping):
            return UserError(f"config.{key}: {where} is a value and has no keys")
        if part not in section:
            break
        section = section[part]
    else:
        return None
    near = _nearest(key, config)
    hint = f"; did you mean {' or '.join(f'config.{leaf}' for leaf in near)}?" if near else ""
    if not near:
        for name, schema in schemas.items():
            end = f".{parts[-1]}"
            found = [leaf for leaf in _leaves(schema().to_dict()) if f".{leaf}".endswith(end)]
            if found:
                hint = f"; configs of the experiment {name!r} have config.{found[0]}"
                break
    keys = ", ".join(sorted(map(str, section)))
    return UserError(f"config.{key}: no such key; {where} has {keys}{hint}")

"""Sections of configs as typed, frozen records whose fields have defaults and meanings."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Self

_NONE: Any = dataclasses.MISSING


def option(
    means: str,
    default: Any = _NONE,
    *,
    search: Any = _NONE,
    train: Any = _NONE,
    absent: Any = _NONE,
) -> Any:
    """A field of a section.

    Args:
      means: what it is, in a sentence, with its unit.
      default: of the configs of all experiments.
      search, train: of the configs of searches and of trainings, where these differ. Configs of an
        experiment that is not named lack the field.
      absent: the record's value where the config lacks the field; by default that of `default`.
    """
    defaults = {"search": search, "train": train}
    if default is not _NONE:
        defaults = dict.fromkeys((*defaults, "sample"), default)
    given = {name: value for name, value in defaults.items() if value is not _NONE}
    metadata = {"means": means, "defaults": given}
    value = default if absent is _NONE else absent
    if isinstance(value, dict):
        return dataclasses.field(default_factory=dict, metadata=metadata)
    return dataclasses.field(default=value, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class Section:
    """A section of a config, or several of them."""

    @classmethod
    def of(cls, config: "Config") -> Self:
        """The record of a valid config or section; fields that it does not have are left out."""
        if isinstance(config, cls):
            return config
        given = as_dict(config)
        values = {}
        for field in dataclasses.fields(cls):
            if field.name in given:
                value, kind = given[field.name], field.type
                if isinstance(kind, type) and issubclass(kind, Section):
                    value = kind.of(value)
                values[field.name] = value
        return cls(**values)


Config = Mapping[str, Any] | Section
"""A valid config, or a section of one: as a dict, or as a record that has all that is needed."""


def as_dict(config: Config) -> Mapping[str, Any]:
    """The fields of a config or a section; their sections are as they were."""
    return vars(config) if isinstance(config, Section) else config


def defaults(kind: type[Section], experiment: str) -> dict[str, Any]:
    """The section that a record describes, in the configs of an experiment, with its defaults."""
    result: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        if isinstance(field.type, type) and issubclass(field.type, Section):
            result[field.name] = defaults(field.type, experiment)
        elif experiment in field.metadata["defaults"]:
            value = field.metadata["defaults"][experiment]
            result[field.name] = dict(value) if isinstance(value, dict) else value
    return result


def meanings(kind: type[Section], prefix: str = "") -> dict[str, str]:
    """What the fields of a section mean, by their keys such as `train.epochs`."""
    result: dict[str, str] = {}
    for field in dataclasses.fields(kind):
        if isinstance(field.type, type) and issubclass(field.type, Section):
            result |= meanings(field.type, f"{prefix}{field.name}.")
        else:
            result[prefix + field.name] = field.metadata["means"]
    return result

"""Shared by all commands: mistakes of the user end in one line, not in a traceback."""

import argparse
import ast
import contextlib
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

import ml_collections
from absl import flags
from ml_collections.config_flags import config_flags

from unnas_jax.config import schema as config_lib
from unnas_jax.config import shipped, unknown_keys
from unnas_jax.core import failures
from unnas_jax.core.errors import Interruption, UserError
from unnas_jax.core.registry import nearest


class Outcome:
    """The exit status of a block of `user_errors`."""

    status = 0


def fail(message: str, status: int = 2) -> int:
    """Prints one line to standard error and returns the status, by default a user's mistake's."""
    print(f"unnas_jax: {message}", file=sys.stderr)
    return status


def unknown_command(name: str, commands: Mapping[str, str]) -> int:
    """Says what to write in the place of a word that is no command; returns the exit status."""
    config = name.partition(":")[0]
    if config.endswith((".py", ".yaml", ".yml")) or config in shipped.names():
        return fail(f"unknown command {name!r}; write --config={name}")
    return fail(
        f"unknown command {name!r}; {nearest(name, commands)}use one of {', '.join(commands)}, or "
        "write --flag=value"
    )


@contextlib.contextmanager
def user_errors() -> Iterator[Outcome]:
    """Turns mistakes of the user and errors of the system in the block into a line and a status."""
    outcome = Outcome()
    try:
        yield outcome
    except UserError as error:
        outcome.status = fail(str(error))
    except Interruption as error:
        outcome.status = fail(str(error), os.EX_TEMPFAIL)
    except KeyboardInterrupt:
        outcome.status = fail("interrupted", 128 + signal.SIGINT)
    except Exception as error:
        known = failures.explanation(error)
        if known is None:
            raise
        status = os.EX_TEMPFAIL if isinstance(known, Interruption) else 2
        outcome.status = fail(str(known), status)


class Parser(argparse.ArgumentParser):
    """A command's options, whose mistakes are one line as all others, without the usage."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._about: dict[str, str] = {}  # By name, what an argument is.
        super().__init__(*arguments, **options)

    def add_argument(self, *names: Any, **options: Any) -> argparse.Action:  # noqa: D102
        self._about[names[0]] = str(options.get("help", ""))
        return super().add_argument(*names, **options)

    def error(self, message: str) -> NoReturn:
        """Raises `UserError` with what argparse says is wrong, and what it does not say."""
        kind, _, rest = message.partition(": ")
        if kind == "the following arguments are required":
            about = {name: f" ({words})" for name, words in self._about.items()}
            missing = [f"{name}{about.get(name, '')}" for name in rest.split(", ")]
            message = f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing"
        elif kind == "unrecognized arguments":
            word = rest.partition(" ")[0].partition("=")[0]
            message = f"unknown argument {word!r}"
            message += f": {found.strip()}" if (found := nearest(word, self._about)) else ""
        raise UserError(f"{message.removeprefix('argument ')}; {self.prog} --help shows all")


def run(
    parser: Parser,
    work: Callable[[argparse.Namespace], int | None],
    arguments: Sequence[str] | None,
) -> int:
    """Does the work of a command with its options.

    Args:
      parser: of the options.
      work: returns the exit status, or None for 0.
      arguments: the words after the command; None: the process's.

    Returns:
      The exit status, 2 for a mistake of the user.

    Raises:
      SystemExit: after `--help`.
    """
    with user_errors() as outcome:
        outcome.status = work(parser.parse_args(arguments)) or 0
    return outcome.status


_NO_CONFIG = "--config is missing; give a file, or the name of a recipe, such as rot_photos"

# --config.KEY=VALUE, or --noconfig.KEY for a KEY that is true or false.
_OVERRIDE = re.compile(r"--?(?:no)?config\.([^=]*)(?:=(.*))?")


_OPTION = re.compile(r"--?config\.(" + "|".join(map(re.escape, config_lib.FREE)) + r")\.(\w+)=(.*)")


def _check_overrides(config: Any, argv: Sequence[str]) -> None:
    """Raises `UserError` for the first flag `--config.KEY` whose key a config lacks.

    Sections with any keys get those that flags name, with their values.
    """
    for path, option, text in (found.groups() for word in argv if (found := _OPTION.match(word))):
        section = config
        for part in path.split("."):
            section = section.get(part, {})
        if isinstance(section, ml_collections.ConfigDict) and option not in section:
            try:
                value = ast.literal_eval(text)
            except (ValueError, SyntaxError):
                value = text
            with section.unlocked():
                section[option] = value
    for key, given in (found.groups() for word in argv if (found := _OVERRIDE.match(word))):
        error = unknown_keys.error_of(key, config.to_dict(), config_lib.SCHEMAS)
        if error is not None:
            raise error
        there: Any = config.to_dict()
        for part in key.split("."):
            there = there[part]
        if isinstance(there, dict) and given is not None and not given.lstrip().startswith("{"):
            fields = ", ".join(f"config.{key}.{name}" for name in there)
            raise UserError(f"--config.{key}: is a section; give one of its fields {fields}")


class _ConfigParser(config_flags.ConfigFileFlagParser):
    """Loads `get_config()` of a Python file, or a YAML file of the PyTorch release.

    Args:
      argv: the command line with the overrides, if not the process's.
    """

    def __init__(self, argv: Sequence[str] | None) -> None:
        super().__init__("config")
        self._argv = argv

    def parse(self, path: str) -> Any:
        """The config, locked; keys of a YAML file without equivalent here are named on stderr."""
        # A shell leaves ~ alone behind --config= and behind a colon.
        file, colon, argument = path.partition(".py:")
        path = f"{os.path.expanduser(file)}{colon}{os.path.expanduser(argument)}"
        config = self._parse(shipped.resolve(path))
        argv = flags.FLAGS.read_flags_from_files(self._argv or sys.argv, force_gnu=False)
        _check_overrides(config, argv)
        return config

    def _parse(self, path: str) -> Any:
        if not config_lib.is_yaml(path):
            return self._parse_python(path)
        from unnas_jax.convert import config as release  # Only these files need it.

        config, notes = release.load(path)
        for note in notes:
            print(f"unnas_jax: {path}: {note}", file=sys.stderr)
        config.lock()
        return config

    def _parse_python(self, path: str) -> Any:
        if not os.path.exists(path.partition(":")[0]):
            raise UserError(f"--config={path}: there is no such file; {shipped.hint(path)}")
        file = path.partition(":")[0]
        if os.path.isdir(file) or file.endswith(".json"):
            raise UserError(
                f"--config={path}: is no recipe; a run goes on with the command that began it, "
                "whose --config is a .py file or a name such as rot_photos"
            )
        try:
            config = super().parse(path)
            config.lock()  # A file that could not be loaded says so only when it is used.
        except (ImportError, NameError, OSError, SyntaxError) as error:
            raise UserError(f"--config={path}: cannot be loaded: {error}") from error
        return config


def define_config(
    flag_values: flags.FlagValues = flags.FLAGS, argv: list[str] | None = None
) -> flags.FlagHolder:
    """Defines the flag `--config` and its overrides `--config.KEY=VALUE`.

    It takes a file, with an argument behind a colon, the name of a recipe that comes with the
    package, or a YAML config of the PyTorch release.

    Args:
      flag_values: where the flag is defined, if not among absl's own.
      argv: the command line in which overrides are looked for, if not the process's.
    """
    holder = config_flags.DEFINE_config_file(
        "config",
        None,
        "A file, a recipe's name, or a YAML config of the PyTorch release.",
        flag_values=flag_values,
        lock_config=True,
        sys_argv=argv,
    )
    flag_values["config"].parser = _ConfigParser(argv)
    return holder


FLAG_ERRORS = (
    flags.Error,
    AttributeError,
    KeyError,
    TypeError,
    ValueError,
    OSError,
    UserError,
    RecursionError,
    MemoryError,  # Python's parser raises it for a value that is nested too deeply.
)
"""Errors that mistakes in flags, in a config file and in its overrides raise."""


# How Python and absl say that a value is of another type than the config's.
_NO_NUMBER = re.compile(r"invalid literal for int\(\) with base 10: .*$")
_NO_FLOAT = re.compile(r"could not convert string to float: .*$")


def _in_words(error: BaseException) -> str:
    """The message of one of `FLAG_ERRORS` in a line."""
    line = _NO_NUMBER.sub("is no whole number", " ".join(str(error).split()))
    return _NO_FLOAT.sub("is no number", line)


def read_config(path: str) -> Any:
    """The config of a file, as a flag `--config` reads it.

    Raises:
      UserError: there is no such file, or it has a mistake.
    """
    argv, known = ["", f"--config={path}"], flags.FlagValues()
    holder = define_config(known, argv)
    try:
        known(argv)
    except FLAG_ERRORS as error:
        raise UserError(_in_words(error)) from error
    return holder.value


def override(config: Any, overrides: Sequence[str]) -> None:
    """Changes a config as some flags `--config.KEY=VALUE` say.

    Raises:
      UserError: there is no such key, or the value is not of its type.
    """
    argv, known = ["", *overrides], flags.FlagValues()
    try:
        _check_overrides(config, argv)
        config_flags.DEFINE_config_dict("config", config, flag_values=known, sys_argv=argv)
        known(argv)
    except FLAG_ERRORS as error:
        raise UserError(_in_words(error)) from error


def parse_config(
    arguments: Sequence[str] | None,
    define: Callable[[flags.FlagValues], None],
    description: str | None,
    *,
    samples: bool = False,
) -> flags.FlagValues:
    """The flags of a command that takes a config, among them `config`, locked.

    Args:
      arguments: the words after the command; None: the process's.
      define: defines the command's other flags.
      description: what `--help` says first.
      samples: whether it may be that of a sample.

    Raises:
      UserError: a mistake in the flags or in the config.
      SystemExit: after `--help`.
    """
    argv = [sys.argv[0], *(sys.argv[1:] if arguments is None else arguments)]
    known = flags.FlagValues()  # Not absl's own, which belong to the program that imports this.
    holder = define_config(known, argv)
    define(known)
    if {"-h", "--help"} & set(argv):
        print(f"{description}\n{known.main_module_help() or known.get_help()}")
        raise SystemExit(0)
    try:
        rest = known(argv)
        if holder.value is not None:
            holder.value.lock()  # A file that could not be loaded says so only when it is used.
    except flags.UnrecognizedFlagError as error:
        if _OVERRIDE.match(f"--{error.flagname}"):
            raise UserError(_NO_CONFIG) from None
        raise UserError(str(error)) from None
    except FLAG_ERRORS as error:
        raise UserError(_in_words(error)) from error
    if len(rest) > 1:
        raise UserError(f"unexpected argument {rest[1]!r}; write --flag=value")
    if holder.value is None:
        raise UserError(_NO_CONFIG)
    if not samples and known.config.to_dict().get("experiment") == "sample":
        raise UserError(
            "--config is that of a sample; this command takes that of a search or a training"
        )
    return known

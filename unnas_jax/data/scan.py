"""The files below a folder: images by their endings, and files that are passed over."""

import collections
import dataclasses
import os

from unnas_jax.core.errors import UserError
from unnas_jax.data import decoding

# Left behind by systems, archivers and file servers, in lower case; so are names with a dot first.
_SYSTEM = {"__macosx", "thumbs.db", "desktop.ini", "@eadir", "$recycle.bin"}

# Endings of photographs and drawings that no decoder here reads.
_FOREIGN = (
    *(".heic", ".heif", ".hif", ".jxl", ".psd", ".svg", ".exr", ".hdr", ".dcm"),
    *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2", ".raw"),
)


@dataclasses.dataclass(frozen=True)
class Scan:
    """The files below a folder.

    Attributes:
      images: regular files with the ending of an image, relative to the folder and sorted.
      unreadable: others with such an ending (pipes, devices, broken links) -> why they are none.
      skipped: how many files have another ending, by it in lower case; '' for none.
      empty: directories in which nothing is.
      again: links to directories that were found before, whose images count once.
    """

    images: list[str]
    unreadable: dict[str, str]
    skipped: collections.Counter[str]
    empty: list[str]
    again: list[str]

    def skipped_in_words(self) -> str:
        """What is passed over, with its remedy if there is one; '' for nothing."""
        if not self.skipped:
            return ""
        words = ", ".join(
            f"{count:,} {end or 'without an ending'}" for end, count in self.skipped.most_common()
        )
        foreign = [end for end in self.skipped if end in _FOREIGN]
        if foreign:
            words += f"; convert {', '.join(foreign)} to .jpg or .png to use them"
        return words


def is_system_file(name: str) -> bool:
    """Whether a file or directory of this name belongs to a system, not to a dataset."""
    return name.startswith(".") or name.lower() in _SYSTEM


def _kind(entry: os.DirEntry[str]) -> str:
    """'directory', 'file', or why it is neither. Nothing is opened: a pipe would wait for ever."""
    try:
        if entry.is_dir():
            return "directory"
        if entry.is_file():
            return "file"
        entry.stat()
    except OSError as error:  # A link that leads nowhere or to itself.
        return f"is a link that cannot be followed ({error.strerror})"
    return "is no regular file"


def scan(root: str) -> Scan:
    """Finds the images below a folder.

    Links to directories are followed, but every directory is entered once: links in a circle end.

    Raises:
      UserError: a directory cannot be listed.
    """
    images: list[str] = []
    unreadable: dict[str, str] = {}
    skipped: collections.Counter[str] = collections.Counter()
    empty, again, entered = list[str](), list[str](), set()
    directories, links = [root], list[str]()
    while directories or links:
        # Links come last, so that what is reachable without them keeps its plain path.
        directory = directories.pop() if directories else links.pop(0)
        try:
            status = os.stat(directory)
            if (status.st_dev, status.st_ino) in entered:
                again.append(_relative(root, directory))
                continue
            entered.add((status.st_dev, status.st_ino))
            with os.scandir(directory) as entries:
                listed = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            raise UserError(
                f"config.dataset.path: cannot list {directory!r} ({error.strerror}); change its "
                "permissions or move it away"
            ) from error
        if not any(not is_system_file(entry.name) for entry in listed) and directory != root:
            empty.append(_relative(root, directory))
        for entry in listed:
            if is_system_file(entry.name):
                continue
            kind = _kind(entry)
            if kind == "directory":
                (links if entry.is_symlink() else directories).append(entry.path)
                continue
            end = os.path.splitext(entry.name)[1].lower()
            path = _relative(root, entry.path)
            if end not in decoding.EXTENSIONS:
                skipped[end] += kind == "file"
            elif kind == "file":
                images.append(path)
            else:
                unreadable[path] = kind
    return Scan(sorted(images), unreadable, +skipped, sorted(empty), sorted(again))


def _relative(root: str, path: str) -> str:
    return path[len(root.rstrip(os.sep)) + 1 :]

"""The dataset `folder`: a user's own images, of every kind that the installed decoders read."""

import collections
import dataclasses
import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

from unnas_jax.config.sections import DatasetSection
from unnas_jax.core.errors import UserError
from unnas_jax.core.words import counted
from unnas_jax.data import check, decoding, layout, scan
from unnas_jax.data.records import Dataset
from unnas_jax.data.verify import Finding

_LOG = logging.getLogger("unnas_jax")

_NAMED = 20  # Rejected files that are named in the warning.


@dataclasses.dataclass(frozen=True)
class FolderRecords:
    """Image files.

    Attributes:
      root: the folder.
      paths: of the files, relative to it.
      labels: one number a file.
    """

    root: str
    paths: tuple[str, ...]
    labels: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int, /) -> Mapping[str, Any]:
        try:
            with open(os.path.join(self.root, self.paths[i]), "rb") as file:
                return {"image": file.read(), "label": self.labels[i]}
        except OSError as error:
            raise UserError(
                f"dataset: cannot read {self.describe(i)} ({error.strerror}); it was there when "
                "the run began"
            ) from error

    def names(self) -> Sequence[str]:
        """The paths, by which subset lists name examples."""
        return self.paths

    def describe(self, i: int) -> str:
        """The path of record `i`."""
        return repr(os.path.join(self.root, self.paths[i]))


def open_dataset(section: DatasetSection) -> Dataset:
    """The images of a folder; warnings tell which files are left out, and why.

    `layout.arrange` says which directories are splits and classes.

    Args:
      section: a config's `dataset`: of its fields `name`, `path` (the folder; `~` is expanded) and
        `max_pixels` (of an image at most).

    Raises:
      UserError: there is no such folder, no image in it that can be read, or its directories can
        be understood in more than one way.
    """
    path, max_pixels = section.path, section.max_pixels
    key = f"config.dataset.path={path!r}"
    root = root_of(path)
    found = scan.scan(root)
    skipped = found.skipped_in_words()
    if not found.images:
        if not found.skipped and not found.unreadable:
            raise UserError(f"{key}: the folder is empty; give one with images")
        some = [f"{name!r} {why}" for name, why in sorted(found.unreadable.items())[:1]]
        raise UserError(
            f"{key}: no file below this folder is an image by its ending "
            f"({', '.join([*some, *([skipped] if skipped else [])])}); give one with images such "
            "as .jpg or .png"
        )
    if skipped:
        _LOG.warning("Passed over files that are no images by their endings: %s.", skipped)
    for directories, words in (
        (found.empty, "Empty directories"),
        (found.again, "Links to directories whose images count already"),
    ):
        if directories:
            _LOG.warning("%s: %s.", words, layout.names(directories))
    arranged = layout.arrange(root, found.images)
    for remark in arranged.remarks:
        _LOG.warning("In %s: %s.", root, remark)
    findings = check.check(
        root, [path for members in arranged.splits.values() for path, _ in members], max_pixels
    )
    _warn_rejected_images(found.unreadable, findings, max_pixels)
    records = {}
    for split, members in arranged.splits.items():
        good = [(path, label) for path, label in members if not findings[path].reason]
        if not good:
            first = members[0][0]
            raise UserError(
                f"{key}: none of the {len(members):,} images of the split {split!r} can be read "
                f"(the first, {first!r}, {findings[first].reason}); give whole images"
            )
        paths, labels = zip(*good, strict=True)
        records[split] = FolderRecords(root, paths, labels)
    classes = arranged.classes
    _say_counts(records, classes, arranged.why_unlabelled)
    _warn_deep([findings[path] for part in records.values() for path in part.paths])
    return Dataset(
        section.name,
        records,
        len(classes),
        classes,
        apply_exif=True,
        colourless=sum(findings[path].colourless for path in records["train"].paths),
        why_unlabelled=arranged.why_unlabelled,
    )


def root_of(path: str) -> str:
    """The folder as an absolute path."""
    key = f"config.dataset.path={path!r}"
    if not path:
        raise UserError(f"{key}: give the folder of images")
    root = os.path.abspath(os.path.expanduser(path))
    if not os.path.exists(root):
        meant = os.path.expanduser(os.path.expandvars(path.strip(" \t\n'\"")))
        meant = os.path.dirname(meant) if "*" in os.path.basename(meant) else meant
        hint = f"give {meant!r}" if os.path.isdir(meant) else "check the spelling"
        raise UserError(f"{key}: there is no folder {root!r}; {hint}")
    if not os.path.isdir(root):
        raise UserError(f"{key}: is a file; give the folder that it lies in")
    return root


def _warn_rejected_images(
    unreadable: Mapping[str, str], findings: Mapping[str, Finding], max_pixels: int
) -> None:
    """Names the files that are left out."""
    rejected = {**unreadable, **{path: f.reason for path, f in findings.items() if f.reason}}
    warn_rejected(rejected, len(findings) + len(unreadable))
    large = sum(" pixels, more than " in why for why in rejected.values())
    if large:
        _LOG.warning(
            "Of these, %s for more pixels than config.dataset.max_pixels=%d; raise it to use them "
            "(a decoded image takes 3 bytes a pixel).",
            f"{large:,}",
            max_pixels,
        )


def warn_rejected(rejected: Mapping[str, str], total: int) -> None:
    """Names the files, of so many, that cannot be used, with the reasons."""
    if not rejected:
        return
    named = "; ".join(f"{path!r} ({why})" for path, why in sorted(rejected.items())[:_NAMED])
    more = len(rejected) - _NAMED
    _LOG.warning(
        "Skipped %s of %s images that cannot be read: %s%s.",
        f"{len(rejected):,}",
        f"{total:,}",
        named,
        f"; and {more:,} more" if more > 0 else "",
    )


def _warn_deep(findings: Sequence[Finding]) -> None:
    """Says which images of 16 bits are scaled by the bits that they fill."""
    bits = collections.Counter(
        finding.bits for finding in findings if 0 < finding.bits <= decoding.PARTLY_FILLED
    )
    if bits:
        _LOG.warning(
            "Images of 16 bits that do not fill them are scaled by the bits that they fill: %s.",
            ", ".join(f"{counted(n, 'image')} by {bit}" for bit, n in sorted(bits.items())),
        )


def _say_counts(
    records: Mapping[str, FolderRecords], classes: Sequence[str], why_unlabelled: str
) -> None:
    """Says how many images the classes have, and which have hardly any."""
    if not classes:
        _LOG.info("No classes: %s.", why_unlabelled)
        return
    counts = collections.Counter(records["train"].labels)
    per_class = [counts[k] for k in range(len(classes))]
    _LOG.info(
        "Classes: %d, with %s to %s training images: %s.",
        len(classes),
        f"{min(per_class):,}",
        f"{max(per_class):,}",
        layout.names(classes),
    )
    for number, words in (
        (0, "no training image that can be read"),
        (1, "one training image only"),
    ):
        few = [name for name, count in zip(classes, per_class, strict=True) if count == number]
        if few:
            _LOG.warning("Classes with %s: %s.", words, layout.names(few))

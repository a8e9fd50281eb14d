"""What the directories of a folder of images mean: splits, classes, or neither."""

import collections
import dataclasses
import os
import re
from collections.abc import Iterable, Mapping, Sequence

from unnas_jax.core.errors import UserError
from unnas_jax.core.words import counted

_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
# Other words in the name of a split's directory: train2017, val_images, Test-Set.
_FILLERS = {"image", "images", "img", "imgs", "set", "data", "split", "jpg", "jpeg", "png"}
# Names of directories for images, and of directories for label maps beside them.
_CONTAINERS = {"images", "image", "imgs", "img", "jpegimages"}
_COMPANIONS = {"labels", "label", "masks", "mask", "annotations", "annotation", "annot", "gt"}

_ANNOTATIONS = {"validation": "val_annotations.txt", "test": "test_annotations.txt"}
_ANNOTATIONS_BYTES = 64 * 2**20
_NAMED = 5  # Names in a message.

Parts = tuple[str, ...]
_Directories = Mapping[Parts, Sequence[str]]
"""The names of a directory below another -> the paths of the images right in it."""


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a folder is used.

    Attributes:
      splits: split -> path and label of its images; the label is 0 where there are no classes.
      classes: the names, sorted; none if the directories are no classes.
      why_unlabelled: why directories are not classes; '' where they are.
      remarks: lines on what is left out or unusual.
    """

    splits: dict[str, list[tuple[str, int]]]
    classes: Parts
    why_unlabelled: str
    remarks: list[str]


def names(values: Iterable[str]) -> str:
    """The first of some names, quoted, and how many more there are."""
    quoted = [repr(value) for value in values]
    more = f" and {len(quoted) - _NAMED:,} more" if len(quoted) > _NAMED else ""
    return ", ".join(quoted[:_NAMED]) + more


def _count(directories: _Directories) -> int:
    return sum(len(paths) for paths in directories.values())


def _split_of(name: str) -> str:
    """The split that a directory is named after, with fillers and numbers, or ''."""
    words = re.findall("[a-z]+", name.lower())
    words = [word.removesuffix("set") or word for word in words]
    found = [_SPLITS[word] for word in words if word in _SPLITS]
    others = [word for word in words if word not in _SPLITS and word not in _FILLERS]
    return found[0] if len(found) == 1 and not others else ""


def _tops(directories: Iterable[Parts]) -> list[str]:
    return sorted({parts[0] for parts in directories if parts})


def _below(directories: _Directories, top: str) -> dict[Parts, Sequence[str]]:
    return {parts[1:]: paths for parts, paths in directories.items() if parts[:1] == (top,)}


def arrange(root: str, paths: Sequence[str]) -> Layout:
    """Finds splits and classes.

    - The first directories are splits if one is named after the training split: train, training;
      val, valid, validation, dev; test, testing; in any case, and all together also with numbers
      and fillers (train2017, val_images). What lies beside them is left out. Otherwise everything
      is the split 'train'.
    - The first directories (of 'train') are classes if there are two or more and no image of
      'train' lies outside of them. A lone `images` around them is passed over.
    - Directories of label maps beside `images` are left out.

    Args:
      root: the folder.
      paths: its images, relative to it.

    Raises:
      UserError: it can be understood in more than one way, or splits do not fit together.
    """
    found: dict[Parts, list[str]] = collections.defaultdict(list)
    for path in paths:
        found[tuple(path.split(os.sep)[:-1])].append(path)
    remarks: list[str] = []
    directories = _without_companions(found, remarks)
    tops = _splits(root, directories, remarks)
    inner = {split: _unwrapped(_below(directories, top)) for split, top in tops.items()}
    if not tops:
        _refuse_deeper_splits(root, directories)
        _note_split_above(root, remarks)
        inner = {"train": _unwrapped(directories)}
    classes, why = _classes(root, inner["train"])
    _note_repeated(classes, inner["train"], remarks)
    splits = {}
    for split, members in inner.items():
        labelled = _labels(root, split, tops.get(split, ""), members, classes, remarks)
        if labelled:
            splits[split] = labelled
    return Layout(splits, classes, why, remarks)


# Splits.


def _splits(root: str, directories: _Directories, remarks: list[str]) -> dict[str, str]:
    """Split -> its directory; empty if there are none."""
    tops = _tops(directories)
    exact = {top: _SPLITS[top.lower()] for top in tops if top.lower() in _SPLITS}
    alike = {top: _split_of(top) for top in tops if _split_of(top)}
    if "train" in exact.values():
        by_name = {**{top: split for top, split in alike.items() if split != "train"}, **exact}
    elif "train" in alike.values() and len(set(alike.values())) > 1:
        by_name = alike
    elif exact:
        raise _refused(
            root,
            f"{names(exact)} is named after a split, but there is no train/",
            "put the training images into train/, or rename it",
        )
    else:
        return {}
    splits: dict[str, str] = {}
    for top, split in by_name.items():
        if split in splits:
            raise _refused(
                root,
                f"{splits[split]!r} and {top!r} are both named after the split {split!r}",
                "move or rename one",
            )
        splits[split] = top
    others = [top for top in tops if top not in by_name]
    flat = not _tops(_below(directories, splits["train"]))
    if len(splits) == 1 and others and flat:
        raise _refused(
            root,
            f"{splits['train']!r} beside {names(others)} may be a split or a class",
            "for a split move the others away; for a class put all of them into train/",
        )
    left_out = {top: _count(_below(directories, top)) for top in others}
    if left_out:
        some = ", ".join(f"{top!r} ({count:,} images)" for top, count in left_out.items())
        remarks.append(f"left out {some}, beside the splits {names(splits.values())}")
    loose = directories.get((), ())
    if loose:
        remarks.append(f"left out {len(loose):,} images beside the splits: {names(loose)}")
    return splits


def _refused(root: str, what: str, remedy: str) -> UserError:
    return UserError(f"config.dataset.path={root!r}: {what}; {remedy}")


def _refuse_deeper_splits(root: str, directories: _Directories) -> None:
    """Refuses a folder in whose directories the splits are: one level too high."""
    children: dict[Parts, set[str]] = collections.defaultdict(set)
    for parts in directories:
        for depth in range(1, len(parts)):
            children[parts[:depth]].add(parts[depth])
    alone = len(_tops(directories)) == 1 and () not in directories
    deeper = []
    for parts, inside in sorted(children.items()):
        found = {_split_of(name) for name in inside}
        if "train" in found and (len(found - {""}) > 1 or (alone and found == {"train"})):
            deeper.append(os.path.join(root, *parts))
    if deeper:
        raise _refused(
            root,
            f"the splits lie deeper, in {names(deeper)}",
            "give that folder" if len(deeper) == 1 else "give one of them, or make it train/CLASS",
        )


def _note_split_above(root: str, remarks: list[str]) -> None:
    """Says that a folder is a part of a split, and others lie beside it: one level too low."""
    for part in (root, os.path.dirname(root)):
        above, name = os.path.split(part)
        split = _SPLITS.get(name.lower())
        if not split:
            continue
        try:
            beside = [other for other in sorted(os.listdir(above)) if _split_of(other)]
        except OSError:
            continue
        others = [
            other
            for other in beside
            if _split_of(other) != split and os.path.isdir(os.path.join(above, other))
        ]
        if others:
            remarks.append(
                f"{root!r} is {'' if part == root else 'only a part of '}a split; {names(others)} "
                f"beside it is not used: give {above!r} to use all splits"
            )
            return


# Classes.


def _without_companions(directories: _Directories, remarks: list[str]) -> _Directories:
    """Without the label maps that lie beside images."""
    parents = {
        parts[:depth]
        for parts in directories
        for depth, name in enumerate(parts)
        if name.lower() in _CONTAINERS
    }

    def companion(parts: Parts) -> str:
        """The directory of label maps that this is in, or ''."""
        for depth, name in enumerate(parts):
            if name.lower() in _COMPANIONS and parts[:depth] in parents:
                return os.path.join(*parts[: depth + 1])
        return ""

    left_out: collections.Counter[str] = collections.Counter()
    kept = {}
    for parts, paths in directories.items():
        if companion(parts):
            left_out[companion(parts)] += len(paths)
        else:
            kept[parts] = paths
    remarks += [
        f"left out the {count:,} images of {path!r}, beside images: they are label maps by its name"
        for path, count in sorted(left_out.items())
    ]
    return kept


def _unwrapped(directories: _Directories) -> _Directories:
    """The content of a lone directory `images`, or else everything."""
    tops = _tops(directories)
    lone = len(tops) == 1 and tops[0].lower() in _CONTAINERS and () not in directories
    return _below(directories, tops[0]) if lone else directories


def _classes(root: str, directories: _Directories) -> tuple[Parts, str]:
    """The classes, or why there are none."""
    tops, loose = _tops(directories), directories.get((), ())
    if loose:
        where = f"{counted(len(loose), 'image')} in no class directory ({names(loose[:1])}, ...)"
        return (), f"{where}; move them away or into one" if tops else where
    if len(tops) == 1:
        return (), f"all images lie in the one directory {tops[0]!r}"
    containers = [top for top in tops if top.lower() in _CONTAINERS]
    if containers:
        others = [top for top in tops if top not in containers]
        return (), f"{names(containers)} beside {names(others)} is no name of a class; rename it"
    return tuple(tops), ""


def _note_repeated(classes: Parts, directories: _Directories, remarks: list[str]) -> None:
    """Says that the same directories lie below all classes, which may be folds of those."""
    below = [set(_tops(_below(directories, name))) for name in classes]
    same = set.intersection(*below) if below else set()
    if len(same) > 1:
        remarks.append(
            f"the directories {names(sorted(same))} lie below each of {names(classes)}, which are "
            "taken for the classes; if they are not, give one of them, or make it CLASS/IMAGE"
        )


def _labels(
    root: str,
    split: str,
    top: str,
    directories: _Directories,
    classes: Parts,
    remarks: list[str],
) -> list[tuple[str, int]]:
    """Path and label of a split's images, in the order of their paths; none if it is left out."""
    if not classes:
        return sorted((path, 0) for paths in directories.values() for path in paths)
    number = {name: k for k, name in enumerate(classes)}
    tops, loose = _tops(directories), directories.get((), ())
    if split != "train" and (not tops or (split == "test" and not set(tops) & set(classes))):
        if loose and not tops:
            listed = _annotated(root, split, top, loose, number, remarks)
            if listed:
                return listed
        if split == "test":
            remarks.append(f"left out {top!r}: its images have no labels")
            return []
        raise _refused(
            root,
            f"the images of {top!r} lie in no class directories, but those of 'train' do",
            f"sort them into directories, add {top}/{_ANNOTATIONS[split]} with lines of file and "
            "class, or move it away",
        )
    unknown = [name for name in tops if name not in number]
    if unknown:
        raise _refused(
            root,
            f"{top!r} has classes that the training images have not: {names(unknown)}",
            "both need the same names; rename them or move them away",
        )
    missing = [name for name in classes if name not in tops]
    if missing:
        remarks.append(f"{top!r} has no image of {len(missing):,} classes: {names(missing)}")
    if loose:
        remarks.append(f"left out {len(loose):,} images of {top!r} in no class: {names(loose)}")
    return sorted(
        (path, number[parts[0]]) for parts, paths in directories.items() if parts for path in paths
    )


def _annotated(
    root: str,
    split: str,
    top: str,
    paths: Sequence[str],
    number: Mapping[str, int],
    remarks: list[str],
) -> list[tuple[str, int]]:
    """Images whose classes a list tells, as that of Tiny ImageNet: lines of file and class."""
    path = os.path.join(root, top, _ANNOTATIONS[split])
    if not os.path.isfile(path):
        return []
    try:
        if os.path.getsize(path) > _ANNOTATIONS_BYTES:
            raise ValueError(f"it has more than {_ANNOTATIONS_BYTES:,} bytes")
        with open(path, encoding="utf-8") as file:
            rows = [line.split("\t" if "\t" in line else None)[:2] for line in file if line.strip()]
        class_of = {name: label.strip() for name, label in rows}
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"config.dataset.path: cannot read {path!r} ({reason}); its lines are file and class"
        ) from error
    unknown = sorted(set(class_of.values()) - set(number))
    if unknown:
        raise UserError(
            f"config.dataset.path: {path!r} names classes that the training images have not: "
            f"{names(unknown)}; both need the same names"
        )
    unlisted = [path for path in paths if os.path.basename(path) not in class_of]
    if unlisted:
        some = names(unlisted)
        remarks.append(f"left out {len(unlisted):,} images of {top!r} that its list lacks: {some}")
    return sorted(
        (path, number[class_of[os.path.basename(path)]])
        for path in paths
        if os.path.basename(path) in class_of
    )

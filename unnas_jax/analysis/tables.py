"""The paper's tables 1 and 2 with one's own results: `unnas-jax tables RUNS...`.

Reads the `result.json` of every run in the given directories and prints, as Markdown, CSV or LaTeX,
measured numbers beside the published ones. Evaluations on other datasets get a table of their own.
"""

import csv
import dataclasses
import io
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from unnas_jax.analysis import result_files
from unnas_jax.core.errors import UserError

_TASKS = {
    "classification": "Supv. Cls",
    "segmentation": "Supv. Seg",
    "rotation": "Rot",
    "colorization": "Color",
    "jigsaw": "Jigsaw",
}
_DATASETS = {
    "imagenet2012": "IN1K",
    "imagenet22k": "IN22K",
    "cityscapes": "Cityscapes",
    "cifar10": "CIFAR-10",
}


@dataclasses.dataclass(frozen=True)
class Published:
    """A row of the paper.

    Attributes:
      method, searched_on: the first two columns.
      genotype: its name in `unnas_jax.spaces.darts.published`, '' if it is printed only as a
        number of other authors.
      mean, std: of the metric in percent; without a deviation, one number of other authors.
      flops: as printed, in millions (table 1) or billions (table 2): multiply-adds that ignore
        dilation in output sizes.
      parameters: in millions.
    """

    method: str
    searched_on: str
    genotype: str
    mean: float
    std: float | None
    flops: float
    parameters: float


@dataclasses.dataclass(frozen=True)
class Table:
    """One of the paper's tables: which results belong to it, and its rows."""

    title: str
    dataset: str
    task: str
    metric: str
    unit: str
    multiply_adds_unit: float
    rows: tuple[Published, ...]


def _own(values: Sequence[tuple[float, float, float, float]]) -> tuple[Published, ...]:
    """The paper's own 13 rows, which both tables have in the same order."""
    rows = [("NAS-DARTS (released cell)", "CIFAR-10 Supv. Cls", "darts_v2")]
    for dataset, prefix in (("IN1K", "in1k"), ("IN22K", "in22k"), ("Cityscapes", "cityscapes")):
        supervised = "seg" if dataset == "Cityscapes" else "cls"
        for task, short in (
            (f"Supv. {supervised.capitalize()}", supervised),
            ("Rot", "rot"),
            ("Color", "col"),
            ("Jigsaw", "jig"),
        ):
            method = "NAS-DARTS" if short == supervised else "UnNAS-DARTS"
            rows.append((method, f"{dataset} {task}", f"unnas_{prefix}_{short}"))
    return tuple(Published(*row, *value) for row, value in zip(rows, values, strict=True))


TABLE_1 = Table(
    title="Table 1: ImageNet-1K classification",
    dataset="imagenet2012",
    task="classification",
    metric="top-1 acc. (%)",
    unit="M",
    multiply_adds_unit=1e6,
    rows=(
        Published("NAS-DARTS [19]", "CIFAR-10 Supv. Cls", "", 73.3, None, 574, 4.7),
        Published("NAS-P-DARTS [5]", "CIFAR-10 Supv. Cls", "pdarts", 75.6, None, 557, 4.9),
        Published("NAS-PC-DARTS [32]", "CIFAR-10 Supv. Cls", "pcdarts_c10", 74.9, None, 586, 5.3),
        Published("NAS-PC-DARTS [32]", "IN1K Supv. Cls", "pcdarts_in1k", 75.8, None, 597, 5.3),
        *_own(
            [
                (74.9, 0.08, 538, 4.7),
                (76.3, 0.06, 590, 5.3),
                (75.8, 0.18, 558, 5.1),
                (75.7, 0.12, 547, 4.9),
                (75.9, 0.15, 567, 5.2),
                (75.9, 0.09, 585, 5.2),
                (75.7, 0.23, 549, 5.0),
                (75.9, 0.21, 547, 5.0),
                (75.9, 0.31, 559, 5.1),
                (75.8, 0.13, 566, 5.1),
                (75.9, 0.19, 554, 5.1),
                (75.2, 0.15, 594, 5.1),
                (75.5, 0.06, 566, 5.0),
            ]
        ),
    ),
)
TABLE_2 = Table(
    title="Table 2: Cityscapes semantic segmentation",
    dataset="cityscapes",
    task="segmentation",
    metric="mIoU (%)",
    unit="B",
    multiply_adds_unit=1e9,
    rows=_own(
        [
            (72.6, 0.55, 121, 9.6),
            (73.6, 0.31, 127, 10.2),
            (73.6, 0.29, 129, 10.4),
            (72.2, 0.56, 122, 9.7),
            (73.1, 0.17, 129, 10.4),
            (72.4, 0.29, 126, 10.1),
            (72.9, 0.23, 128, 10.3),
            (73.6, 0.41, 128, 10.3),
            (73.1, 0.59, 129, 10.4),
            (72.4, 0.15, 128, 10.3),
            (73.0, 0.25, 128, 10.3),
            (72.5, 0.31, 122, 9.5),
            (74.1, 0.39, 128, 10.2),
        ]
    ),
)
NOTE = (
    "Published: Liu et al., ECCV 2020. Its FLOPs are multiply-adds that ignore dilation in output "
    "sizes; multiply-adds here are true ones. Parameters leave out the auxiliary head."
)


@dataclasses.dataclass(frozen=True)
class Result:
    """The content of a `result.json`.

    Attributes:
      path: of the file.
      dataset, task, genotype: of the evaluation.
      source: the dataset and the task of the search that found the genotype, if known.
      width, cells, parameters, multiply_adds: of the network, without the auxiliary head.
      metric: 'accuracy' or 'miou'.
      values: of the metric, one a seed, from 0 to 1.
      mean, std: of the values.
      finished: whether the training came to its end.
    """

    path: str
    dataset: str
    task: str
    genotype: str
    source: tuple[str, str] | None
    width: int
    cells: int
    parameters: int
    multiply_adds: int
    metric: str
    values: tuple[float, ...]
    mean: float
    std: float
    finished: bool


def read(path: pathlib.Path) -> Result | None:
    """Reads a `result.json`; None if it is of another experiment.

    Raises:
      UserError: it cannot be read, is not JSON, or lacks a key.
    """
    value = result_files.read_result(path)
    if value is None:
        return None
    source = value["genotype_source"]
    fields = {field.name for field in dataclasses.fields(Result)} - {"path", "source", "values"}
    return Result(
        path=str(path),
        source=None if source is None else (source["dataset"], source["task"]),
        values=tuple(value["values"]),
        **{name: value[name] for name in fields},
    )


def collect(runs: Sequence[str]) -> list[Result]:
    """The results of all runs in some directories, however deep; other directories are passed over.

    Raises:
      UserError: a path does not exist, a result is damaged, or there is none at all.
    """
    paths: dict[pathlib.Path, None] = {}
    for run in runs:
        root = pathlib.Path(run).expanduser()
        if not root.exists():
            raise UserError(f"{run}: no such directory; give workdirs, or a directory of them")
        found = [root] if root.is_file() else sorted(root.rglob("result.json"))
        paths.update((path.resolve(), None) for path in found)
    results = [result for result in map(read, paths) if result is not None]
    if not results:
        raise UserError(
            f"{', '.join(runs)}: no result.json of an evaluation; a training writes it at its end"
        )
    return results


_COLUMNS = (
    "method",
    "search dataset & task",
    "measured",
    "published",
    "multiply-adds",
    "FLOPs (published)",
    "params (M)",
    "params (published)",
)
Row = tuple[str, ...]


def _measured(result: Result) -> str:
    """Mean and deviation in percent; says how many seeds if not three, and if it still runs."""
    text = f"{100 * result.mean:.1f}"
    if len(result.values) > 1:
        text += f" ± {100 * result.std:.2f}"
    if len(result.values) != 3:
        text += f" (n={len(result.values)})"
    return text if result.finished else f"{text}, running"


def _cells(published: Published | None, result: Result | None, unit: float) -> Row:
    """The columns behind the first two; empty where there is nothing."""
    ours, theirs = ("", "", ""), ("", "", "")
    if result is not None:
        digits = 1 if unit == 1e6 else 2
        ours = (
            _measured(result),
            f"{result.multiply_adds / unit:.{digits}f}",
            f"{result.parameters / 1e6:.1f}",
        )
    if published is not None:
        deviation = "" if published.std is None else f" ± {published.std:.2f}"
        theirs = (
            f"{published.mean:.1f}{deviation}",
            f"{published.flops:g}",
            f"{published.parameters:.1f}",
        )
    return tuple(cell for pair in zip(ours, theirs, strict=True) for cell in pair)


def _described(result: Result) -> tuple[str, str]:
    """The first two columns of a result that is not in the paper."""
    if result.source is None:
        return result.genotype, ""
    dataset, task = result.source
    supervised = task in ("classification", "segmentation")
    searched_on = f"{_DATASETS.get(dataset, dataset)} {_TASKS.get(task, task)}"
    return f"{'NAS' if supervised else 'UnNAS'}-DARTS ({result.genotype})", searched_on


def rows(table: Table, results: Sequence[Result]) -> list[Row]:
    """The paper's rows of a table with the results of their cells, then those of other cells."""
    mine = [r for r in results if (r.dataset, r.task) == (table.dataset, table.task)]
    lines: list[Row] = []
    for published in table.rows:
        same: list[Result | None] = [r for r in mine if r.genotype == published.genotype]
        for result in same or [None]:
            first = (published.method, published.searched_on)
            lines.append(first + _cells(published, result, table.multiply_adds_unit))
    known = {published.genotype for published in table.rows}
    for result in mine:
        if result.genotype not in known:
            lines.append(_described(result) + _cells(None, result, table.multiply_adds_unit))
    return lines


def _other_rows(results: Sequence[Result]) -> list[Row]:
    tables = {(table.dataset, table.task) for table in (TABLE_1, TABLE_2)}
    lines: list[Row] = []
    for r in results:
        if (r.dataset, r.task) not in tables:
            size = (f"{r.multiply_adds / 1e6:.1f}", f"{r.parameters / 1e6:.2f}")
            lines.append((r.dataset, r.task, *_described(r), r.metric, _measured(r), *size))
    return lines


def _sections(results: Sequence[Result]) -> Iterator[tuple[str, Row, list[Row]]]:
    """Title, header and rows of each table that has something to show."""
    for table in (TABLE_1, TABLE_2):
        if any((r.dataset, r.task) == (table.dataset, table.task) for r in results):
            units = {
                "measured": f"measured {table.metric}",
                "published": f"published {table.metric}",
                "multiply-adds": f"multiply-adds ({table.unit})",
                "FLOPs (published)": f"published FLOPs ({table.unit})",
                "params (published)": "published params (M)",
            }
            yield table.title, tuple(units.get(c, c) for c in _COLUMNS), rows(table, results)
    others = _other_rows(results)
    if others:
        header = ("dataset", "task", "cell", "search dataset & task", "metric", "measured (%)")
        yield "Other evaluations", (*header, "multiply-adds (M)", "params (M)"), others


def markdown(results: Sequence[Result]) -> str:
    """The tables as Markdown."""
    parts = []
    for title, header, lines in _sections(results):
        body = [header, ("---",) * len(header), *lines]
        parts.append(f"### {title}\n\n" + "\n".join(f"| {' | '.join(row)} |" for row in body))
    return "\n\n".join([*parts, NOTE]) + "\n"


def comma_separated(results: Sequence[Result]) -> str:
    """The tables as CSV, one below the other, the title as the first column."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    for title, header, lines in _sections(results):
        writer.writerow(("table", *header))
        writer.writerows((title, *row) for row in lines)
    return out.getvalue()


_LATEX: Mapping[int, Any] = str.maketrans(
    {"&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "$": r"\$", "±": r"$\pm$"}
)


def latex(results: Sequence[Result]) -> str:
    """The tables as LaTeX, for the package booktabs."""
    parts = []
    for title, header, lines in _sections(results):
        body = [" & ".join(cell.translate(_LATEX) for cell in row) + r" \\" for row in lines]
        parts.append(
            "\n".join(
                [
                    r"\begin{table}",
                    rf"\caption{{{title.translate(_LATEX)}. {NOTE.translate(_LATEX)}}}",
                    rf"\begin{{tabular}}{{{'l' * 2}{'c' * (len(header) - 2)}}}",
                    r"\toprule",
                    " & ".join(cell.translate(_LATEX) for cell in header) + r" \\",
                    r"\midrule",
                    *body,
                    r"\bottomrule",
                    r"\end{tabular}",
                    r"\end{table}",
                ]
            )
        )
    return "\n\n".join(parts) + "\n"


FORMATS = {"markdown": markdown, "csv": comma_separated, "latex": latex}

"""Published results as input of the figures: tables, the release's summaries, and joins of both."""

import json
import pathlib
import re

import pytest

from unnas_jax.analysis import (
    accuracies,
    comparisons,
    known_correlations,
    published,
    sources,
    statistics,
)
from unnas_jax.core.errors import UserError
from unnas_jax.spaces import names
from unnas_jax.spaces.nasbench101 import spec
from unnas_jax.spaces.nasbench201 import spec as spec201

# The same graph with its two middle vertices in either order.
TWINS = ("0110-0001-0001-0000:conv3x3,maxpool3x3", "0110-0001-0001-0000:maxpool3x3,conv3x3")
CHAINS = ("010-001-000:conv3x3", "010-001-000:conv1x1", "010-001-000:maxpool3x3")


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "_RESAMPLES", 50)


def genotype(operation: str) -> dict:
    pairs = [[operation, 0], ["skip_connect", 1]]
    return {"normal": pairs, "normal_concat": [2], "reduce": pairs, "reduce_concat": [2]}


def summary(folder: pathlib.Path, where: str, jobs: list[dict]) -> pathlib.Path:
    path = folder / where / "sweep_summary.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"sweep": "x", "job_summaries": jobs}))
    return path


def test_a_table_s_isomorphic_cells_are_one(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "mine.csv"
    lines = [f'{k},"{text}",{90 + k},' for k, text in enumerate((*TWINS, *CHAINS))]
    path.write_text("index,cell,cifar10_accuracy,synflow\n" + "\n".join(lines) + "7.5\n")
    rows = accuracies.read([path])
    table = accuracies.table(rows)
    accuracy = table["nasbench101", "cifar10", "classification"]
    assert len(accuracy) == 4
    twin = names.of_cell("nasbench101", spec.parse(TWINS[1]))
    assert accuracy[twin] == pytest.approx(0.905)
    assert list(table["nasbench101", "scores", "synflow"].values()) == [7.5]


def test_tasks_whose_answers_are_no_classes_are_rates(tmp_path: pathlib.Path) -> None:
    """Of what is explained, or found again, more is better, in percent like an accuracy."""
    path, judges = tmp_path / "rows.csv", ("masked", "contrastive", "regression")
    lines = ["architecture,task,dataset,seed,accuracy,space"]
    for k in range(4):
        lines.append(f"a{k},classification,x,0,{0.5 + k / 10},s")
        lines += [f"a{k},{judge},x,0,{0.2 + k / 10},s" for judge in judges]
    path.write_text("\n".join(lines) + "\n")
    found = {c.task: c for c in comparisons.compare(accuracies.table(accuracies.read([path])))}
    assert {found[judge].correlation.rho for judge in judges} == {1}
    assert {found[judge].factor for judge in judges} == {100}
    assert found["masked"].measure == "Masked, explained share, %"
    assert found["contrastive"].measure == "Contrastive accuracy, %"
    path.write_text("\n".join([lines[0], "a,masked,x,0,37.5,s"]) + "\n")
    with pytest.raises(UserError, match="give it from 0 to 1"):
        accuracies.read([path])


def test_a_table_s_numbers_of_nasbench201(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text('cell,cifar10valid,cifar100\n"[[3],[0,1],[0,0,3]]",91.5,70\n')
    text = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|none~0|none~1|nor_conv_3x3~2|"
    name = names.of_cell("nasbench201", spec201.parse(text))
    table = accuracies.table(accuracies.read([path]))
    assert table["nasbench201", "cifar100", "classification"] == {name: pytest.approx(0.7)}


def test_cells_of_no_space_keep_their_texts(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "transnas.csv"
    head = "architecture,class_object,class_scene,jigsaw,normal,segmentsemantic\n"
    body = "".join(f"64-{k}1-basic,{40 + k},{50 - k},{90 + k},0.5{k},2{k}\n" for k in range(4))
    path.write_text(head + body)
    found = comparisons.compare(accuracies.table(accuracies.read([path])))
    rho = {(c.task, c.target, c.labels): c.correlation.rho for c in found if c.task in ("jigsaw",)}
    assert rho == {
        ("jigsaw", "objects", "classification"): pytest.approx(1),
        ("jigsaw", "scenes", "classification"): pytest.approx(-1),
        ("jigsaw", "taskonomy", "segmentation"): pytest.approx(1),
    }
    assert {c.space for c in found} == {"transnas"}


def test_summaries_of_the_release(tmp_path: pathlib.Path) -> None:
    """The least error of a curve, a seed a folder; a job that never ran is left out."""
    jobs = [
        {"job_id": 1, "net": {"genotype": genotype("sep_conv_3x3")}, "min_test_top1": 25.0},
        {"job_id": 2, "net": {"genotype": genotype("dil_conv_3x3")}, "test_top1": [60, 30.0, 31]},
        {"job_id": 3, "net": {"genotype": genotype("max_pool_3x3")}},
    ]
    summary(tmp_path, "darts/cifar10/rot/1", jobs)
    summary(tmp_path, "darts/cifar10/rot/2", [{**jobs[0], "min_test_top1": [35.0]}])
    rows = accuracies.read([tmp_path])
    assert sorted(seed for _, _, seed, _ in rows) == [1, 1, 2]
    values = accuracies.table(rows)["darts", "cifar10", "rotation"].values()
    assert sorted(values) == pytest.approx([0.7, 0.7])


def test_pretext_from_one_source_labels_from_another(tmp_path: pathlib.Path) -> None:
    """Joined by identity; what only one source has is counted."""
    cells = (TWINS[0], *CHAINS)
    jobs = [
        {
            "job_id": k,
            "net": {
                "matrix": [list(row) for row in spec.parse(text).matrix],
                "operations": list(spec.parse(text).operations),
            },
            "min_test_top1": 10.0 + k,
        }
        for k, text in enumerate(cells)
    ]
    jobs.append({"job_id": "000907", "net": {}, "min_test_top1": 5.0})
    folder = tmp_path / "summaries"
    summary(folder, "nas_bench/imagenet/rot/1", jobs)
    table = tmp_path / "labels.csv"
    others = (TWINS[1], *CHAINS, "0100-0010-0001-0000:conv1x1,conv3x3", "01-00:")
    lines = [f'"{text}",{60 - k}' for k, text in enumerate(others)]
    table.write_text("cell,imagenet_top1_percent\n" + "\n".join(lines) + "\n")
    (found,) = (
        c
        for c in comparisons.compare(accuracies.table(accuracies.read([folder, table])))
        if not c.same
    )
    assert found.correlation.count == 4 and found.unmatched == (1, 2)
    assert found.correlation.rho == pytest.approx(1)
    assert "left out: 1 without labels' result, 2 without the task's" in str(found)


@pytest.mark.parametrize(
    "where, jobs, words",
    [
        ("darts/cifar10/rot", [], "SPACE/DATASET/TASK/SEED"),
        ("darts/cifar10/rot/one", [], "is no seed"),
        ("darts/cifar10/rot/1", [{"net": {}, "min_test_top1": 3}], "job 1: has neither"),
        ("darts/cifar10/rot/1", [{"job_id": 1, "min_test_top1": 130}], "job 1: the error 130"),
        ("darts/c/rot/1", [{"net": {"genotype": {}}, "min_test_top1": 3}], "job 1: genotype"),
    ],
)
def test_mistakes_in_summaries(where: str, jobs: list, words: str, tmp_path: pathlib.Path) -> None:
    summary(tmp_path, where, jobs)
    with pytest.raises(UserError, match=words):
        accuracies.read([tmp_path])


@pytest.mark.parametrize(
    "content, words",
    [
        ("a,b\n1,2\n", "needs one column cell or architecture"),
        ("cell,a\n", "has no rows"),
        ("cell,a\nx\n", "row 2: has 1 fields"),
        ("cell,a\nx,much\n", "no column of numbers"),
        ("cell,a\nx,inf\n", "infinite"),
        ("cell,cifar10\n010-001-000:conv3x3,300\n", "no accuracies"),
        ("cell,cifar10\n010-001-000:conv3x3,90\nwrong,91\n", "cell 2: cell 'wrong'"),
    ],
)
def test_mistakes_in_tables(content: str, words: str, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text(content)
    with pytest.raises(UserError) as error:
        sources.rows_of_table(path)
    assert re.search(words, str(error.value)), str(error.value)


def test_columns_that_are_not_there(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("cell,a\nx,1\n")
    with pytest.raises(UserError, match="no column b; it has cell, a"):
        published.read(path, ["b"])


def test_published_correlations_by_column() -> None:
    """The longest name of a dataset that a column begins with."""
    known = known_correlations.published
    assert known("nasbench201", "cifar100", "synflow")[0] == 0.763
    assert known("nasbench201", "CIFAR-10_valid", "synflow")[0] == 0.737
    assert known("nasbench101", "cifar10_accuracy", "gennas")[0] == 0.85
    assert known("nasbench101", "imagenet_top1", "gennas") is None


def test_outliers_of_scores_do_not_hide_the_rest() -> None:
    """A dead network's score is beyond all others: ranks keep it, pictures and lines do not."""
    names_ = [f"net{k}" for k in range(20)]
    labels = {name: 0.5 + 0.02 * k for k, name in enumerate(names_)}
    score = {name: float(k) for k, name in enumerate(names_)} | {"net0": -1e30}
    table = {("s", "d", "classification"): labels, ("s", "scores", "zen"): score}
    found = next(c for c in comparisons.compare(table) if c.task == "zen")
    assert found.correlation.rho == pytest.approx(1)
    assert found.shown.min() > -40 and found.pretext.min() == -1e30
    assert found.line is not None and found.line.slope == pytest.approx(50, rel=0.1)

"""What the directories of a folder mean: understood or refused, never guessed in silence."""

import os

import pytest

from unnas_jax.core.errors import UserError
from unnas_jax.data import layout


def arrange(tmp_path, text):
    """Arranges empty files: words 'DIRECTORY/NAME', or 'DIRECTORY*N' for N of them."""
    paths = []
    for word in text.split():
        directory, _, count = word.partition("*")
        paths += [f"{directory}/{k}.jpg" for k in range(int(count))] if count else [directory]
    for path in paths:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    return layout.arrange(str(tmp_path), sorted(path.replace("/", os.sep) for path in paths))


def counts(arranged):
    """Split -> class (or '') -> images."""
    found = {}
    for split, members in arranged.splits.items():
        found[split] = {}
        for _, label in members:
            name = arranged.classes[label] if arranged.classes else ""
            found[split][name] = found[split].get(name, 0) + 1
    return found


@pytest.mark.parametrize(
    "names",
    [
        ("train", "val", "test"),
        ("train", "valid", "testing"),
        ("training", "validation", "test"),
        ("Train", "Dev", "TEST"),
        ("train2017", "val2017", "test2017"),
        ("train_images", "valid-set", "test_data"),
        ("TrainSet", "val", "Test-Set"),
    ],
)
def test_splits_by_their_usual_names(tmp_path, names):
    train, validation, test = names
    found = arrange(
        tmp_path, f"{train}/ant*3 {train}/bee*2 {validation}/ant*1 {validation}/bee*1 {test}/bee*2"
    )
    assert counts(found) == {
        "train": {"ant": 3, "bee": 2},
        "validation": {"ant": 1, "bee": 1},
        "test": {"bee": 2},
    }
    assert found.classes == ("ant", "bee")


def test_splits_without_classes(tmp_path):
    found = arrange(tmp_path, "train*5 val*2")
    assert counts(found) == {"train": {"": 5}, "validation": {"": 2}} and found.classes == ()
    assert "5 images in no class directory" in found.why_unlabelled


def test_strange_files_and_siblings_do_not_void_the_splits(tmp_path):
    found = arrange(tmp_path, "train/a*3 train/b*3 val/a*1 val/b*1 old*4 cover.jpg")
    assert counts(found) == {"train": {"a": 3, "b": 3}, "validation": {"a": 1, "b": 1}}
    assert any("'old' (4 images)" in remark for remark in found.remarks)
    assert any("1 images beside the splits: 'cover.jpg'" in remark for remark in found.remarks)
    # With one split alone, too.
    found = arrange(tmp_path / "2", "train/a*3 train/b*3 other*2")
    assert counts(found) == {"train": {"a": 3, "b": 3}}


def test_images_below_a_class_or_around_the_classes(tmp_path):
    below = arrange(tmp_path / "1", "train/n01/images*2 train/n02/images*3 val/n01/images*1")
    assert counts(below) == {"train": {"n01": 2, "n02": 3}, "validation": {"n01": 1}}
    around = arrange(tmp_path / "2", "images/a*2 images/b*1")
    assert counts(around) == {"train": {"a": 2, "b": 1}}
    inside = arrange(tmp_path / "3", "train/images*4 val/images*2")
    assert counts(inside) == {"train": {"": 4}, "validation": {"": 2}}


def test_label_maps_beside_images_are_left_out(tmp_path):
    found = arrange(tmp_path, "train/images*4 train/labels*4 val/images*2 val/labels*2")
    assert counts(found) == {"train": {"": 4}, "validation": {"": 2}}
    assert sum("label maps by its name" in remark for remark in found.remarks) == 2
    pets = arrange(tmp_path / "2", "images*7 annotations/trimaps*7")
    assert counts(pets) == {"train": {"": 7}}


def test_tiny_imagenet(tmp_path):
    """train/CLASS/images, a list of the validation images' classes, a test split without."""
    (tmp_path / "val").mkdir()
    listed = "0.jpg\tn02\t0\t0\t62\t62\n1.jpg\tn01\t1\t2\t3\t4\n2.jpg\tn02\t0\t0\t1\t1\n"
    (tmp_path / "val" / "val_annotations.txt").write_text(listed)
    text = "train/n01/images*5 train/n02/images*5 val/images*4 test/images*3"
    found = arrange(tmp_path, text)
    assert counts(found) == {"train": {"n01": 5, "n02": 5}, "validation": {"n01": 1, "n02": 2}}
    labels = {os.path.basename(path): label for path, label in found.splits["validation"]}
    assert labels == {"0.jpg": 1, "1.jpg": 0, "2.jpg": 1}
    assert any("3.jpg" in remark and "list lacks" in remark for remark in found.remarks)
    assert any("left out 'test': its images have no labels" in r for r in found.remarks)


@pytest.mark.parametrize(
    "content, words",
    [
        (b"0.jpg\tn99\n", "names classes that the training images have not: 'n99'"),
        (b"0.jpg\n", "cannot read .*its lines are file and class"),
        (b"\xff\xfe0.jpg\tn01\n", "cannot read .*its lines are file and class"),
    ],
)
def test_a_bad_list_of_classes_is_refused(tmp_path, content, words):
    (tmp_path / "val").mkdir()
    (tmp_path / "val" / "val_annotations.txt").write_bytes(content)
    with pytest.raises(UserError, match=words):
        arrange(tmp_path, "train/n01*2 train/n02*2 val/images*2")


@pytest.mark.parametrize(
    "text, words",
    [
        # Splits that contradict.
        ("train/a*1 train/b*1 val/a*1 valid/a*1", "'val' and 'valid' are both named"),
        ("train/a*1 train/b*1 Train/a*1 val/a*1", "both named after the split 'train'"),
        ("valid/a*2 valid/b*2 test/a*1 test/b*1", "there is no train/; put the training images"),
        ("cat*2 dog*2 test*2", "'test' is named after a split, but there is no train/"),
        ("train*3 car*3 plane*3", "'train' beside 'car', 'plane' may be a split or a class"),
        # Classes that contradict.
        ("train/a*2 train/b*2 val/a*1 val/c*1", "'val' has classes .* have not: 'c'"),
        ("train/a*2 train/b*2 test/a*1 test/c*1", "'test' has classes .* have not: 'c'"),
        ("train/a*2 train/b*2 val*4", "the images of 'val' lie in no class directories"),
        ("train/a*2 train/b*2 val/images*4", "add val/val_annotations.txt"),
        # One level too high.
        ("tiny/train/a*2 tiny/train/b*1 tiny/val/a*1", "the splits lie deeper, in '.*tiny'; give"),
        ("x/y/train*2 x/y/test*1", r"the splits lie deeper, in '.*x.y'; give that folder"),
        ("mnist/train/0*2 mnist/train/1*2", "the splits lie deeper, in '.*mnist'"),
        ("images/train*2 images/val*2", "the splits lie deeper, in '.*images'"),
        ("cat/train*2 cat/test*1 dog/train*2 dog/test*1", "'.*cat', '.*dog'; give one of them"),
    ],
)
def test_what_can_be_understood_in_two_ways_is_refused(tmp_path, text, words):
    with pytest.raises(UserError, match=words) as caught:
        arrange(tmp_path, text)
    assert str(caught.value).startswith("config.dataset.path=")


@pytest.mark.parametrize("part", ["train", "val", "train/a"])
def test_one_level_too_low_is_named(tmp_path, part):
    for name in ("train/a", "train/b", "val/a", "val/b"):
        (tmp_path / name).mkdir(parents=True)
    found = arrange(tmp_path / part, "x*3")
    (remark,) = found.remarks
    assert f"give {str(tmp_path)!r} to use all splits" in remark


def test_directories_that_repeat_below_classes_are_said(tmp_path):
    [remark] = arrange(tmp_path / "folds", "one/a*2 one/b*2 two/a*2 two/b*2").remarks
    assert "'a', 'b' lie below each of 'one', 'two'" in remark
    assert not arrange(tmp_path / "years", "2019/may*2 2020/june*2 2020/may").remarks


def test_classes_that_validation_lacks_are_said(tmp_path):
    found = arrange(tmp_path, "train/a*2 train/b*2 train/c*2 val/b*1 val/loose.jpg")
    assert counts(found)["validation"] == {"b": 1}
    assert any("'val' has no image of 2 classes: 'a', 'c'" in r for r in found.remarks)
    assert any("1 images of 'val' in no class" in r for r in found.remarks)


@pytest.mark.parametrize(
    "text, why",
    [
        ("a*1 b*1 loose.jpg", "1 image in no class directory ('loose.jpg', ...); move"),
        ("holidays*3", "all images lie in the one directory 'holidays'"),
        ("images*3 screenshots*2", "'images' beside 'screenshots' is no name of a class"),
    ],
)
def test_folders_without_classes_are_whole_and_say_why(tmp_path, text, why):
    found = arrange(tmp_path, text)
    assert found.classes == () and why in found.why_unlabelled
    assert list(found.splits) == ["train"] and found.remarks == []


def test_nested_folders_of_photographs_are_one_split(tmp_path):
    found = arrange(tmp_path, "2019/summer*2 2019/trains*2 2020/a/b*3 2020*1")
    assert counts(found) == {"train": {"2019": 4, "2020": 4}}


def test_names_with_line_breaks_stay_on_the_line(tmp_path):
    with pytest.raises(UserError) as caught:
        layout.arrange("/x", ["train/a/1.jpg", "train/b\nc/1.jpg", "val/d\ne/1.jpg"])
    assert "\n" not in str(caught.value)

"""Folders as users have them: every kind of image, damaged ones, strange layouts."""

import io
import os
import pathlib
import pickle

import numpy as np
import pytest
from PIL import Image

from unnas_jax.data import decoding, folder, open_dataset, photos
from unnas_jax.errors import UserError


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    directory = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(directory))
    return directory


@pytest.fixture(scope="module")
def image():
    path = photos.find_photographs()[photos.NAMES.index("coffee")]
    return Image.fromarray(np.asarray(Image.open(path).convert("RGB"))[40:160, 300:460])


def open_folder(path):
    return open_dataset({"name": "folder", "path": str(path), "data_dir": ""})


def save(image, *parts, **options):
    path = pathlib.Path(*map(str, parts))
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return path


def encode(image, form, **options):
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def test_every_kind_of_image(tmp_path, image, messages):
    exif = Image.Exif()
    exif[0x0112] = 6
    save(image, tmp_path, "b", "deep", "er", "photo.JPG", quality=95)
    save(image.convert("L"), tmp_path, "gray.jpeg")
    save(image.convert("LA"), tmp_path, "gray_alpha.png")
    save(image.convert("CMYK"), tmp_path, "cmyk.jpg")
    save(image.convert("RGBA"), tmp_path, "rgba.PNG")
    save(image.quantize(32), tmp_path, "palette.png")
    save(image.resize((41, 300)), tmp_path, "tall.webp")
    save(image, tmp_path, "png_inside.jpg", format="PNG")
    save(image, tmp_path, "turned.jpg", exif=exif.tobytes())
    save(Image.fromarray(np.asarray(image)[..., 0].astype(np.uint16) * 257), tmp_path, "16.png")
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / "._photo.jpg").write_bytes(b"Mac OS X")
    dataset = open_folder(tmp_path)
    assert list(dataset.splits) == ["train"]
    records = dataset.splits["train"]
    assert list(records.paths) == sorted(records.paths)
    assert len(records) == 10 and dataset.num_classes == 0 and dataset.class_names == ()
    assert dataset.apply_exif
    decoded = {
        path: decoding.decode(records[i]["image"], apply_exif=dataset.apply_exif)
        for i, path in enumerate(records.paths)
    }
    assert {records[i]["label"] for i in range(len(records))} == {0}
    assert decoded["turned.jpg"].shape == (160, 120, 3)
    assert decoded["tall.webp"].shape == (300, 41, 3)
    assert decoded[os.path.join("b", "deep", "er", "photo.JPG")].shape == (120, 160, 3)
    np.testing.assert_array_equal(decoded["rgba.PNG"], np.asarray(image))
    np.testing.assert_array_equal(decoded["16.png"][..., 1], np.asarray(image)[..., 0])
    assert not [line for line in messages if line.startswith("WARNING")]


@pytest.fixture
def damaged(tmp_path, image):
    """A folder with two whole images and one of every damage; and the damaged names."""
    whole = encode(image, "JPEG", quality=90)
    exif = Image.Exif()
    thumbnail = encode(image.resize((40, 30)), "JPEG")
    damage = {
        "empty.jpg": b"",
        "text.jpg": b"this is a text, not a picture",
        "half.png": encode(image, "PNG")[:-2000],
        "half.webp": encode(image, "WEBP")[:-100],
        "progressive.jpg": encode(image, "JPEG", progressive=True)[:-200],
        # A preview in the metadata that ends as a whole image does.
        "preview.jpg": encode(image, "JPEG", comment=thumbnail, exif=exif.tobytes())[:-500],
    }
    for cut in (1, 2, 3, 50, len(whole) // 2, len(whole) - 30, len(whole) - 2):
        damage[f"cut_{cut}.jpg"] = whole[:-cut]
    for name, data in damage.items():
        (tmp_path / name).write_bytes(data)
    save(image, tmp_path, "good.jpg")
    save(image, tmp_path, "sub", "good.png")
    return tmp_path, set(damage)


def test_damaged_files_are_named_and_skipped(damaged, messages):
    path, names = damaged
    records = open_folder(path).splits["train"]
    assert records.paths == ("good.jpg", os.path.join("sub", "good.png"))
    (warning,) = [line for line in messages if line.startswith("WARNING")]
    assert f"skipped {len(names)} of {len(names) + 2} images" in warning
    assert all(f"'{name}'" in warning for name in names)
    assert "'empty.jpg' (is empty)" in warning and "'text.jpg' (is not an image)" in warning


def test_the_warning_names_only_the_first(tmp_path, image, messages):
    save(image, tmp_path, "good.jpg")
    for k in range(30):
        (tmp_path / f"bad_{k:02d}.jpg").write_bytes(b"")
    open_folder(tmp_path)
    (warning,) = [line for line in messages if line.startswith("WARNING")]
    assert "skipped 30 of 31" in warning and warning.count("is empty") == 20
    assert "bad_19" in warning and "bad_20" not in warning and "and 10 more" in warning


def test_a_file_that_changes_is_checked_again_and_others_not(tmp_path, image, monkeypatch):
    save(image, tmp_path, "a.jpg")
    save(image, tmp_path, "b.jpg")
    checked = []
    check = folder.why_unreadable
    monkeypatch.setattr(
        folder, "why_unreadable", lambda path: checked.append(os.path.basename(path)) or check(path)
    )
    assert len(open_folder(tmp_path).splits["train"]) == 2
    assert sorted(checked) == ["a.jpg", "b.jpg"]
    checked.clear()
    assert len(open_folder(tmp_path).splits["train"]) == 2
    assert checked == []
    (tmp_path / "b.jpg").write_bytes(b"damaged since")
    assert open_folder(tmp_path).splits["train"].paths == ("a.jpg",)
    assert checked == ["b.jpg"]
    checked.clear()
    assert open_folder(tmp_path).splits["train"].paths == ("a.jpg",)
    assert checked == []


def test_a_damaged_cache_is_made_anew(tmp_path, image, cache):
    save(image, tmp_path, "a.jpg")
    open_folder(tmp_path)
    (file,) = cache.rglob("*.json")
    for content in ("", "[]", '{"versions": 3}'):
        file.write_text(content)
        assert len(open_folder(tmp_path).splits["train"]) == 1


def test_a_cache_that_cannot_be_written_is_a_warning(tmp_path, image, cache, monkeypatch, messages):
    (cache / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache / "file"))
    save(image, tmp_path, "a.jpg")
    assert len(open_folder(tmp_path).splits["train"]) == 1
    (warning,) = [line for line in messages if line.startswith("WARNING")]
    assert "cannot write" in warning


def refused(path):
    with pytest.raises(UserError) as caught:
        open_folder(path)
    message = str(caught.value)
    assert "\n" not in message and message.startswith("config.dataset.path=")
    return message


def test_each_mistake_has_its_own_message(tmp_path, image):
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("text")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "a.jpg").write_bytes(b"")
    save(image, tmp_path, "one.jpg")
    messages = {
        "no folder": refused(tmp_path / "missing"),
        "is a file": refused(tmp_path / "one.jpg"),
        "is empty; give": refused(tmp_path / "empty"),
        "no file below this folder ends in .jpg": refused(tmp_path / "texts"),
        "none of its 1 images can be read (the first, 'a.jpg': is empty)": refused(
            tmp_path / "damaged"
        ),
        "give the folder of images": refused(""),
    }
    for part, message in messages.items():
        assert part in message
        assert [other for other in messages if other in message] == [part]


def test_home_is_expanded(tmp_path, image, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    save(image, tmp_path, "pictures", "a.jpg")
    assert len(open_folder("~/pictures").splits["train"]) == 1


def test_links_in_a_circle_end(tmp_path, image):
    save(image, tmp_path, "a", "1.jpg")
    save(image, tmp_path, "elsewhere", "2.jpg")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "a" / "self").symlink_to(tmp_path / "a")
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(tmp_path / "elsewhere")
    (root / "again").symlink_to(root)
    (root / "nowhere.jpg").symlink_to(tmp_path / "missing.jpg")
    assert folder.find_images(str(tmp_path / "a")) == [
        "1.jpg", os.path.join("up", "elsewhere", "2.jpg"), os.path.join("up", "root", "nowhere.jpg")
    ]  # fmt: skip
    assert open_folder(root).splits["train"].paths == (os.path.join("link", "2.jpg"),)


def test_class_directories_are_labels(tmp_path, image):
    for name in ("cat/1.jpg", "ant/2.jpg", "ant/deep/3.jpg", "bee/4.jpg"):
        save(image, tmp_path, *name.split("/"))
    dataset = open_folder(tmp_path)
    records = dataset.splits["train"]
    assert dataset.num_classes == 3 and dataset.class_names == ("ant", "bee", "cat")
    labels = {path.split(os.sep)[0]: records[i]["label"] for i, path in enumerate(records.paths)}
    assert labels == {"ant": 0, "bee": 1, "cat": 2}
    save(image, tmp_path, "loose.jpg")
    dataset = open_folder(tmp_path)
    assert (dataset.num_classes, len(dataset.splits["train"])) == (0, 5)


def test_one_directory_is_no_class(tmp_path, image):
    save(image, tmp_path, "holidays", "1.jpg")
    assert open_folder(tmp_path).num_classes == 0


def test_split_directories_are_splits(tmp_path, image):
    for name in ("train/b/1.jpg", "train/a/2.jpg", "train/a/3.jpg", "val/b/4.jpg", "test/a/5.jpg"):
        save(image, tmp_path, *name.split("/"))
    dataset = open_folder(tmp_path)
    assert {k: v.labels for k, v in dataset.splits.items()} == {
        "train": (0, 0, 1),
        "validation": (1,),
        "test": (0,),
    }
    assert dataset.class_names == ("a", "b")
    save(image, tmp_path, "other", "6.jpg")
    dataset = open_folder(tmp_path)
    assert list(dataset.splits) == ["train"] and len(dataset.splits["train"]) == 6


def test_records_are_pickled_without_pixels_and_name_what_is_gone(tmp_path, image):
    path = save(image, tmp_path, "a.jpg")
    records = pickle.loads(pickle.dumps(open_folder(tmp_path).splits["train"]))
    assert records[0]["image"] == path.read_bytes()
    path.unlink()
    with pytest.raises(UserError, match=r"cannot read '.*a\.jpg' \(No such file"):
        records[0]

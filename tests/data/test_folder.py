"""Folders as users have them: every kind of image, damaged ones, strange layouts."""

import concurrent.futures
import contextlib
import io
import os
import pathlib
import pickle
import re
import socket
import struct
import threading
import time
import tracemalloc

import numpy as np
import pytest
from PIL import Image, ImageOps

from unnas_jax.core.errors import UserError
from unnas_jax.data import check, decoding, open_dataset, photos, scan


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
    (warning,) = warned(messages)
    assert "no images by their endings: 1 .txt" in warning


def warned(messages):
    return [line for line in messages if line.startswith("WARNING")]


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
    (warning,) = warned(messages)
    assert f"Skipped {len(names)} of {len(names) + 2} images" in warning
    assert all(f"'{name}'" in warning for name in names)
    assert "'empty.jpg' (is empty)" in warning and "'text.jpg' (is not an image, or" in warning


def test_the_warning_names_only_the_first(tmp_path, image, messages):
    save(image, tmp_path, "good.jpg")
    for k in range(30):
        (tmp_path / f"bad_{k:02d}.jpg").write_bytes(b"")
    open_folder(tmp_path)
    (warning,) = warned(messages)
    assert "Skipped 30 of 31" in warning and warning.count("is empty") == 20
    assert "bad_19" in warning and "bad_20" not in warning and "and 10 more" in warning


def test_a_file_that_changes_is_checked_again_and_others_not(tmp_path, image, monkeypatch):
    save(image, tmp_path, "a.jpg")
    save(image, tmp_path, "b.jpg")
    checked = []
    examine = check.examine_file

    def counted(path, *arguments):
        checked.append(os.path.basename(path))
        return examine(path, *arguments)

    monkeypatch.setattr(check, "examine_file", counted)
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
    whole = file.read_text()
    damage = ("", "[]", '{"versions": 3}', "[" * 10**5, whole.replace('["a', '{"a'))
    for content in (*damage, re.sub(r'"a.jpg": \[.*?\]', '"a.jpg": 5', whole)):
        file.write_text(content)
        assert len(open_folder(tmp_path).splits["train"]) == 1


def test_a_cache_that_cannot_be_written_is_a_warning(tmp_path, image, cache, monkeypatch, messages):
    (cache / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache / "file"))
    save(image, tmp_path, "a.jpg")
    assert len(open_folder(tmp_path).splits["train"]) == 1
    (warning,) = warned(messages)
    assert "Cannot write" in warning


def refused(path):
    with pytest.raises(UserError) as caught:
        open_folder(path)
    message = str(caught.value)
    assert "\n" not in message and message.startswith("config.dataset.path")
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
        "is an image by its ending (1 .txt)": refused(tmp_path / "texts"),
        "none of the 1 images of the split 'train' can be read (the first, 'a.jpg', is": refused(
            tmp_path / "damaged"
        ),
        "give the folder of images": refused(""),
    }
    for part, message in messages.items():
        assert part in message
        assert [other for other in messages if other in message] == [part]


def test_what_is_no_image_is_called_by_its_name(tmp_path, image, messages):
    save(image, tmp_path, "a.png")
    contents = {
        "b.jpg": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "is HEIC inside; convert it to .jpg"),
        "c.gif": (b"\0\0\0\x18ftypisom", "is a video inside"),
        "d.png": (b"version https://git-lfs.github.com/spec/v1\noid", "run git lfs pull"),
        "e.jpg": (b"\n<!DOCTYPE html><html>", "is a page of HTML or XML inside, no image"),
        "f.jpg": (b"PK\x03\x04", "is an archive inside; unpack it"),
    }
    for name, (content, _) in contents.items():
        (tmp_path / name).write_bytes(content + bytes(99))
    assert len(open_folder(tmp_path).splits["train"]) == 1
    (warning,) = warned(messages)
    assert all(words in warning for _, words in contents.values())


def test_empty_directories_and_second_ways_to_a_directory_are_said(tmp_path, image, messages):
    for name in ("a", "b"):
        save(image, tmp_path, "train", name, "x.png")
    (tmp_path / "train" / "c").mkdir()
    os.symlink(tmp_path / "train", tmp_path / "val")
    dataset = open_folder(tmp_path)
    assert list(dataset.splits) == ["train"] and dataset.class_names == ("a", "b")
    assert "WARNING Empty directories: 'train/c'." in messages
    words = "Links to directories whose images count already: 'val'."
    assert f"WARNING {words}" in messages


def test_a_path_that_the_shell_left_as_it_is(tmp_path, image, monkeypatch):
    monkeypatch.setenv("MINE", str(tmp_path))
    save(image, tmp_path, "a.png")
    for path in ("$MINE", f" {tmp_path}", f"'{tmp_path}'", f"{tmp_path}/*.png"):
        assert refused(path).endswith(f"; give {str(tmp_path)!r}")
    with pytest.raises(UserError, match=f"give the path alone, {tmp_path}"):
        open_dataset({"name": "folder", "path": f"file://{tmp_path}"})


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
    found = scan.scan(str(tmp_path / "a"))
    assert found.images == ["1.jpg", os.path.join("up", "elsewhere", "2.jpg")]
    assert list(found.unreadable) == [os.path.join("up", "root", "nowhere.jpg")]
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


def test_records_are_pickled_without_pixels_and_name_what_is_gone(tmp_path, image):
    path = save(image, tmp_path, "a.jpg")
    records = pickle.loads(pickle.dumps(open_folder(tmp_path).splits["train"]))
    assert records[0]["image"] == path.read_bytes()
    path.unlink()
    with pytest.raises(UserError, match=r"cannot read '.*a\.jpg' \(No such file"):
        records[0]


def test_every_ending_that_a_decoder_reads_and_others_with_numbers(tmp_path, image, messages):
    for end in ["bmp", "tif", "gif", "jfif", "ppm", "avif", "jp2", "JPE", "webp", "tga"]:
        save(image, tmp_path, f"a.{end}")
    for name in ("b.heic", "c.heic", "d.mp4", "README"):
        (tmp_path / name).write_bytes(b"something")
    (tmp_path / "__MACOSX").mkdir()
    for name in ("__MACOSX/a.jpg", ".DS_Store", "Thumbs.db", "._a.jpg"):
        (tmp_path / name).write_bytes(b"of a system")
    assert len(open_folder(tmp_path).splits["train"]) == 10
    (warning,) = warned(messages)
    assert "convert .heic to .jpg or .png" in warning
    assert "2 .heic" in warning and "1 .mp4" in warning and "1 without an ending" in warning
    assert "db" not in warning


@pytest.mark.filterwarnings("ignore")
def test_a_pipe_a_socket_a_device_and_links_to_themselves(tmp_path, image, messages):
    save(image, tmp_path, "good.png")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "device.png").symlink_to("/dev/zero")
    (tmp_path / "itself.png").symlink_to(tmp_path / "itself.png")
    (tmp_path / "itself").symlink_to(tmp_path / "itself")
    with socket.socket(socket.AF_UNIX) as listener, contextlib.chdir(tmp_path):
        listener.bind("socket.png")
        assert open_folder(tmp_path).splits["train"].paths == ("good.png",)
    (warning,) = warned(messages)
    assert "Skipped 4 of 5 images" in warning
    for name in ("pipe.png", "device.png", "socket.png"):
        assert f"'{name}' (is no regular file)" in warning
    assert "'itself.png' (is a link that cannot be followed (" in warning


def test_a_file_that_becomes_a_pipe_does_not_block_the_check(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    assert check.examine_file(str(tmp_path / "a.png"), 10**8).reason == "is no regular file"


def test_a_huge_file_is_not_read(tmp_path, image):
    path = save(image, tmp_path, "a.png")
    os.truncate(path, 2**34)  # Sparse: it takes no room.
    tracemalloc.start()
    assert check.examine_file(str(path), 10**8).reason == (
        "has 17,179,869,184 bytes, too many for an image"
    )
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_the_limit_of_pixels_is_a_setting(tmp_path, image, messages):
    save(image, tmp_path, "a.png")
    save(image.resize((400, 400)), tmp_path, "b.png")
    section = {"name": "folder", "path": str(tmp_path), "max_pixels": 100_000}
    assert open_dataset(section).splits["train"].paths == ("a.png",)
    assert "'b.png' (has 160,000 pixels, more than 100,000)" in warned(messages)[0]
    assert (
        "Of these, 1 for more pixels than config.dataset.max_pixels=100000; raise"
        in (warned(messages)[1])
    )
    assert len(open_dataset({**section, "max_pixels": 160_000}).splits["train"]) == 2


def test_large_images_are_decoded_one_at_a_time():
    budget, running, most = check._Budget(100), 0, []
    lock = threading.Lock()

    def decode(pixels):
        nonlocal running
        taken = budget.take(pixels)
        with lock:
            running += taken
            most.append(running)
        time.sleep(0.001)
        with lock:
            running -= taken
        budget.give(taken)

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(decode, [30, 70, 10**9, 100, 20, 50] * 10))
    assert len(most) == 60 and max(most) <= 100


def test_16_bits_and_images_without_colour_are_counted(tmp_path, image, messages):
    dark = np.asarray(image.convert("L")).astype(np.uint16) * 16
    Image.fromarray(dark).save(tmp_path / "dark.png")
    save(image, tmp_path, "colour.png")
    dataset = open_folder(tmp_path)
    assert dataset.colourless == 1
    (warning,) = warned(messages)
    assert "by the bits that they fill: 1 image by 12." in warning
    record = dataset.splits["train"][1]
    assert decoding.decode(record["image"], apply_exif=True).max() > 200


def test_the_check_reads_as_training_does(tmp_path, image):
    """An orientation that training cannot follow is found before it."""
    for name in ("good.png", "bad.png"):
        save(image.convert("RGBA"), tmp_path, name)
    transpose = ImageOps.exif_transpose
    calls = []

    def fails_once(picture):
        calls.append(picture)
        if len(calls) == 1:
            raise struct.error("unpack requires a buffer")
        return transpose(picture)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ImageOps, "exif_transpose", fails_once)
        patch.setattr(check.workers, "cores", lambda: 1)
        assert open_folder(tmp_path).splits["train"].paths == ("good.png",)


def test_a_check_of_many_files_tells_how_far_it_is(tmp_path, image, messages, monkeypatch):
    for k in range(5):
        save(image, tmp_path, f"{k}.png")
    monkeypatch.setattr(check, "_PROGRESS_SECONDS", 0)
    open_folder(tmp_path)
    assert any("Checked 3 of 5 images (60%)" in line for line in messages)


def test_too_little_memory_names_the_file_and_is_not_remembered(tmp_path, image, monkeypatch):
    save(image, tmp_path, "a.png")

    def fail(*arguments, **options):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(check.verify, "examine", fail)
        assert "too little memory to read" in refused(tmp_path)
    assert len(open_folder(tmp_path).splits["train"]) == 1

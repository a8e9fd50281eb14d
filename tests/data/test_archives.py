"""Archives as an enemy makes them: refused by what their headers say, in little memory."""

import io
import os
import struct
import tarfile
import tracemalloc
import zipfile
import zlib

import pytest

from tests.data import published
from unnas_jax.commands import prepare
from unnas_jax.core.errors import UserError
from unnas_jax.data import archives, imagenet, shards


@pytest.fixture(autouse=True)
def bounded():
    """No test may take the memory that an archive asks for."""
    tracemalloc.start()
    yield
    assert tracemalloc.get_traced_memory()[1] < 2**27
    tracemalloc.stop()


def zipped(path, content, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("a.png", content)
    return archives.Place(str(path), member="a.png")


def test_a_member_that_unpacks_to_too_much(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_BYTES", 2**20)
    place = zipped(tmp_path / "a.zip", bytes(2**22))
    assert (tmp_path / "a.zip").stat().st_size < 2**14
    with pytest.raises(archives.Damaged, match="has 4,194,304 bytes, more than 1,048,576"):
        archives.read(place)


def test_a_member_that_is_larger_than_it_says(tmp_path):
    place = zipped(tmp_path / "a.zip", bytes(2**26))
    data = (tmp_path / "a.zip").read_bytes()
    (tmp_path / "a.zip").write_bytes(data.replace(struct.pack("<I", 2**26), struct.pack("<I", 9)))
    with pytest.raises(archives.Damaged, match="is damaged in its archive"):
        archives.read(place)


@pytest.mark.parametrize(
    "place, value, words",
    [(8, 1, "is encrypted"), (10, 99, "compression method"), (10, 14, "")],
    ids=["encrypted", "unknown compression", "other compression"],
)
def test_encryption_and_strange_compression(tmp_path, place, value, words):
    where = zipped(tmp_path / "a.zip", b"content" * 100)
    data = bytearray((tmp_path / "a.zip").read_bytes())
    entry = data.index(b"PK\x01\x02")  # In the directory at the end, and before the content.
    data[entry + place : entry + place + 2] = data[place - 2 : place] = struct.pack("<H", value)
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(archives.Damaged, match=f"is damaged in its archive .*{words}"):
        archives.read(where)


@pytest.mark.parametrize("content", [b"", b"PK", bytes(1000)])
def test_no_zip(tmp_path, content):
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(UserError, match="is damaged or cut off .*; download it again"):
        archives.zip_names(str(tmp_path / "a.zip"))


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_header_of_gigabytes(tmp_path, kind):
    info = tarfile.TarInfo("header")
    info.type, info.size = kind, 2**32
    path = tmp_path / "a.tar"
    path.write_bytes(info.tobuf(tarfile.GNU_FORMAT))
    os.truncate(path, 2**33)  # Sparse.
    with pytest.raises(archives.Damaged, match="a header of 4,294,967,296 bytes"):
        list(archives.tar_members(archives.Place(str(path))))


def test_a_huge_file_in_a_folder_or_archive(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"x")
    os.truncate(path, 2**40)
    for place in (archives.Place(str(path)), archives.Place(str(path), 512, 2**39)):
        with pytest.raises(archives.Damaged, match="bytes, more than"):
            archives.read(place)


def test_a_pipe_is_no_file(tmp_path):
    source = tmp_path / "source"
    published.write_folders(source / "train", published.train_images())
    folder = source / "train" / published.SYNSETS[0]
    os.mkfifo(folder / "pipe.JPEG")
    (folder / "nowhere.JPEG").symlink_to("missing")
    (folder / "Thumbs.db").write_bytes(b"")
    recipe = prepare.recipe("imagenet2012", str(source), partial=True)
    report = shards.prepare(recipe, str(tmp_path), 0)
    assert {os.path.basename(p["name"]): p["reason"] for p in report["rejected"]} == {
        "pipe.JPEG": "is no regular file",
        "nowhere.JPEG": "is no regular file",
    }


@pytest.mark.parametrize("name", ["a\nb.JPEG", "a\rb.JPEG", "a\u2028b.JPEG", "a\x85b.JPEG"])
def test_a_line_break_in_a_file_s_name_makes_no_second_name(tmp_path, name):
    images = published.train_images()
    images[published.SYNSETS[0]][name] = published.encode(published.picture(77))
    source = tmp_path / "all.tar"
    source.write_bytes(published.tar_of_tars(images))
    report = shards.prepare(prepare.recipe("imagenet22k", str(source)), str(tmp_path), 0)
    assert report["examples"] == {"train": 12}
    (problem,) = report["rejected"]
    assert problem["reason"].startswith("has '\\") and problem["name"].endswith(name)
    path = tmp_path / "imagenet22k" / "1.0.0"
    assert len((path / "names-train.txt").read_bytes().split(b"\n")) == 13


def test_a_line_break_in_a_class_s_name_makes_no_second_class(tmp_path):
    images = published.train_images()
    images["n0\nn1"] = images[published.SYNSETS[0]]
    source = tmp_path / "all.tar"
    source.write_bytes(published.tar_of_tars(images))
    with pytest.raises(UserError, match=r"the class 'n0\\nn1' in .* has '\\n' in its name"):
        prepare.recipe("imagenet22k", str(source))


def test_labels_that_unpack_to_gigabytes(monkeypatch):
    monkeypatch.setattr(archives, "MAX_BYTES", 2**20)
    part = zlib.compress(bytes(2**23))
    data = bytes(128) + struct.pack("<II", 15, len(part)) + part
    with pytest.raises(ValueError, match="unpacks to too much"):
        imagenet._check_mat(data)


@pytest.mark.parametrize("members", [{}, {"a/meta.mat": b"x"}])
def test_a_development_kit_without_its_files(tmp_path, members):
    buffer = io.BytesIO(published.tar(members.items()))
    path = tmp_path / "ILSVRC2012_devkit_t12.tar.gz"
    path.write_bytes(buffer.getvalue())
    with pytest.raises(UserError, match="cannot read the validation labels in .*lacks"):
        imagenet._truth(str(tmp_path))


def test_labels_in_fields_of_megabytes(tmp_path):
    (tmp_path / "LOC_val_solution.csv").write_text("ImageId,PredictionString\na," + "x" * 2**20)
    with pytest.raises(UserError, match="cannot read the validation labels in .*field larger"):
        imagenet._truth(str(tmp_path))

"""CIFAR-10 from its Python version."""

import io
import os
import pickle
import tarfile

import numpy as np
import pytest

from tests.data import published
from unnas_jax.commands import prepare
from unnas_jax.core.errors import UserError
from unnas_jax.data import archives, decoding, open_dataset, shards

NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def run(source, data_dir):
    return shards.prepare(prepare.recipe("cifar10", str(source)), str(data_dir), 0)


def pack(root):
    path = root / "cifar-10-python.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        archive.add(root / "cifar-10-batches-py", "cifar-10-batches-py")
    return path


@pytest.mark.parametrize("layout", ["folder", "batches", "archive"])
def test_every_pixel(tmp_path, layout):
    batches = published.cifar_batches()
    source = published.write_cifar(tmp_path / "source", batches)
    source = {"folder": source, "batches": source / "cifar-10-batches-py"}.get(layout) or pack(
        source
    )
    report = run(source, tmp_path)
    assert report["examples"] == {"train": 30, "test": 6} and report["rejected"] == []
    dataset = open_dataset({"name": "cifar10", "data_dir": str(tmp_path)})
    assert dataset.class_names == tuple(NAMES)
    np.testing.assert_allclose(dataset.mean, (0.4914, 0.4824, 0.4467), atol=1e-4)
    for split, names in (("train", list(batches)[:5]), ("test", ["test_batch"])):
        records = dataset.splits[split]
        images = np.concatenate([batches[name][0] for name in names])
        labels = [label for name in names for label in batches[name][1]]
        for i in range(len(records)):
            assert records[i]["label"] == labels[i]
            pixels = decoding.decode(records[i]["image"], apply_exif=False)
            np.testing.assert_array_equal(pixels, images[i])


def test_cifar_100(tmp_path):
    """Fine classes, of archives whose batches are named otherwise."""
    random = np.random.default_rng(0)
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    batches = {"train": [99, 0, 1], "test": [52]}
    pixels = {}
    for name, labels in batches.items():
        pixels[name] = random.integers(0, 256, (len(labels), 3072), np.uint8)
        content = {b"data": pixels[name], b"fine_labels": labels, b"coarse_labels": [0, 1, 2]}
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
    report = shards.prepare(prepare.recipe("cifar100", str(tmp_path)), str(tmp_path / "data"), 0)
    assert report["examples"] == {"train": 3, "test": 1}
    dataset = open_dataset({"name": "cifar100", "data_dir": str(tmp_path / "data")})
    assert dataset.num_classes == 100 and dataset.class_names == tuple(sorted(dataset.class_names))
    for split, labels in batches.items():
        records = dataset.splits[split]
        assert [records[i]["label"] for i in range(len(labels))] == labels
        for i in range(len(labels)):
            image = decoding.decode(records[i]["image"], apply_exif=False)
            planes = pixels[split][i].reshape(3, 32, 32)
            np.testing.assert_array_equal(image, planes.transpose(1, 2, 0))


class Evil:
    def __reduce__(self):
        return os.system, ("touch /tmp/unnas_jax_evil",)


@pytest.mark.parametrize(
    "content, reason",
    [
        (b"", ""),
        (pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"labels": [1]}), "has 1 labels"),
        (pickle.dumps({b"data": np.zeros((1, 9), np.uint8), b"labels": [1]}), "has 1 labels"),
        (pickle.dumps({b"data": np.zeros((1, 3072), np.uint8), b"labels": [10]}), "no class"),
        (pickle.dumps(Evil()), r"holds (posix|nt).system"),
        # A module of NumPy that runs a program when it is imported.
        (b"cnumpy.f2py.__main__\nndarray\n.", "holds numpy.f2py.__main__.ndarray"),
        (b"cnumpy.distutils\ndtype\n.", "holds numpy.distutils.dtype"),
        # A table of 2^31 objects, an array of 10^12 bytes, more bytes than there are.
        (b"\x80\x02K\x01r\xff\xff\xff\x7f.", "numbers an object"),
        (b"cnumpy\nndarray\n((L1000000000000L\nttR.", ""),
        (b"\x80\x04B\xff\xff\xff\x7f", ""),
        (b"(" * 10**6, ""),
    ],
    ids=[
        "empty",
        "labels",
        "pixels",
        "class",
        "code",
        "f2py",
        "distutils",
        "memo",
        "array",
        "bytes",
        "marks",
    ],
)
def test_damaged_batches_are_refused(tmp_path, content, reason):
    source = published.write_cifar(tmp_path / "source", published.cifar_batches())
    (source / "cifar-10-batches-py" / "data_batch_3").write_bytes(content)
    with pytest.raises(UserError, match=f"data_batch_3 in .* is damaged .*{reason}.*again"):
        run(source, tmp_path)


def test_a_cut_archive_and_a_missing_batch_are_refused(tmp_path):
    source = published.write_cifar(tmp_path / "source", published.cifar_batches())
    path = pack(source)
    path.write_bytes(path.read_bytes()[:-20000])
    with pytest.raises(UserError, match="in .*cifar-10-python.tar.gz is damaged"):
        run(path, tmp_path)
    (source / "cifar-10-batches-py" / "data_batch_2").unlink()
    with pytest.raises(UserError, match="data_batch_2"):
        run(source, tmp_path / "b")
    with pytest.raises(UserError, match="has neither cifar-10-batches-py/ nor"):
        run(tmp_path, tmp_path / "c")


def test_an_archive_that_unpacks_to_gigabytes_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "_UNPACKED_BYTES", 2**20)
    path = tmp_path / "cifar-10-python.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name in ("filler", "cifar-10-batches-py/data_batch_1"):
            info = tarfile.TarInfo(name)
            info.size = 2**21
            archive.addfile(info, io.BytesIO(bytes(info.size)))
    assert path.stat().st_size < 2**14
    with pytest.raises(UserError, match="is damaged .*unpacks to more than 1,048,576 bytes"):
        run(path, tmp_path)

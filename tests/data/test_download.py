"""Fetching published files, from a server on this machine."""

import hashlib
import http.server
import os
import pathlib
import socket
import threading

import pytest

from tests.data import published as published_files
from tests.data import test_cifar
from unnas_jax.commands import prepare
from unnas_jax.core.errors import UserError
from unnas_jax.data import cifar, download

CONTENT = bytes(range(256)) * 4000


class Server:
    """Serves `content`; breaks off after `cut` bytes of each answer, while there are `cuts`."""

    def __init__(self, content, cut=0, cuts=0, ranges=True, status=0):
        self.ranges_asked = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                nonlocal cuts
                asked = self.headers.get("Range")
                outer.ranges_asked.append(asked)
                if status:
                    return self.send_error(status)
                start = int(asked[6:-1]) if asked and ranges else 0
                if start >= len(content):
                    return self.send_error(416)
                self.send_response(206 if start else 200)
                self.send_header("Content-Length", str(len(content) - start))
                self.end_headers()
                body = content[start:]
                if cuts:
                    cuts, body = cuts - 1, body[:cut]
                self.wfile.write(body)

            def log_message(self, *args):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/data.tar.gz"

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    monkeypatch.setattr(download, "_PAUSE", 0.0)


def published(server, content=CONTENT):
    return download.Published(server.url, hashlib.sha256(content).hexdigest())


def test_fetched_once(tmp_path):
    with Server(CONTENT) as server:
        path = download.fetch(published(server), str(tmp_path / "a"))
        assert (
            pathlib.Path(path).read_bytes() == CONTENT and os.path.basename(path) == "data.tar.gz"
        )
        assert download.fetch(published(server), str(tmp_path / "a")) == path
    assert server.ranges_asked == [None]


def test_goes_on_where_connections_broke_off(tmp_path):
    with Server(CONTENT, cut=300_000, cuts=3) as server:
        path = download.fetch(published(server), str(tmp_path))
    assert pathlib.Path(path).read_bytes() == CONTENT
    assert server.ranges_asked == [None, "bytes=300000-", "bytes=600000-", "bytes=900000-"]


@pytest.mark.parametrize("ranges", [True, False])
def test_goes_on_after_a_kill(tmp_path, ranges):
    (tmp_path / "data.tar.gz.part").write_bytes(CONTENT[:1234])
    with Server(CONTENT, ranges=ranges) as server:
        path = download.fetch(published(server), str(tmp_path))
    assert pathlib.Path(path).read_bytes() == CONTENT
    assert server.ranges_asked == ["bytes=1234-"]


def test_killed_when_all_had_come(tmp_path):
    (tmp_path / "data.tar.gz.part").write_bytes(CONTENT)
    with Server(CONTENT) as server:
        path = download.fetch(published(server), str(tmp_path))
    assert pathlib.Path(path).read_bytes() == CONTENT


def test_another_file_is_removed(tmp_path):
    said = pytest.raises(UserError, match="is not the published file .* --source=FILE")
    with Server(b"Please log in to the network.") as server, said:
        download.fetch(published(server), str(tmp_path))
    assert not [name for name in os.listdir(tmp_path) if not name.endswith(".lock")]


def test_a_damaged_file_is_fetched_again(tmp_path):
    (tmp_path / "data.tar.gz").write_bytes(CONTENT[:-1])
    with Server(CONTENT) as server:
        path = download.fetch(published(server), str(tmp_path))
    assert pathlib.Path(path).read_bytes() == CONTENT


def test_errors(tmp_path):
    with Server(CONTENT, status=404) as server:
        with pytest.raises(UserError, match="answers 404 .* HTTPS_PROXY.* --source=FILE"):
            download.fetch(published(server), str(tmp_path))
        assert len(server.ranges_asked) == 1
    with socket.socket() as taken:  # Nobody listens here, nor can anybody begin to.
        taken.bind(("127.0.0.1", 0))
        server.url = f"http://127.0.0.1:{taken.getsockname()[1]}/data.tar.gz"
        with pytest.raises(UserError, match="cannot be fetched .*refused.* HTTPS_PROXY"):
            download.fetch(published(server), str(tmp_path))
    with pytest.raises(UserError, match="--url='here': is no address"):
        download.fetch(published(server), str(tmp_path), "here")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--data_dir: cannot write"):
        download.fetch(published(server), str(tmp_path / "file" / "below"))


def test_a_connection_that_never_carries_on(tmp_path):
    with Server(CONTENT, cut=0, cuts=100) as server:
        (tmp_path / "data.tar.gz.part").write_bytes(CONTENT[:5000])
        with pytest.raises(UserError, match="continues after the 5,000 bytes that came"):
            download.fetch(published(server), str(tmp_path))


def test_prepare_from_a_mirror(tmp_path, capsys, monkeypatch):
    """The archive of another content is refused; one with the checksum is prepared."""
    source = published_files.write_cifar(tmp_path / "source", published_files.cifar_batches())
    content = test_cifar.pack(source).read_bytes()
    command = ["cifar10", "--download", f"--data_dir={tmp_path / 'data'}", "--workers=0"]
    with Server(content) as server:
        assert prepare.main([*command, f"--url={server.url}"]) == 2
        assert "is not the published file" in capsys.readouterr().err
        version = cifar._VERSIONS["cifar10"]
        genuine = download.Published(version.published.url, hashlib.sha256(content).hexdigest())
        monkeypatch.setattr(cifar, "published", lambda name: genuine)
        assert prepare.main([*command, f"--url={server.url}"]) == 0
        assert "30 train, 6 test" in capsys.readouterr().out
        assert prepare.main([*command, f"--url={server.url}"]) == 0
        assert "is prepared already" in capsys.readouterr().err
    assert len(server.ranges_asked) == 2
    assert sorted(os.listdir(tmp_path / "data")) == ["cifar10", "downloads"]


@pytest.mark.parametrize(
    "arguments, line",
    [
        (
            ["cityscapes", "--download"],
            "--download: is for cifar10, cifar100; cityscapes has terms",
        ),
        (["cifar10", "--download", "--source=x"], "contradict each other"),
        (["cifar10", "--url=http://x"], "--url: is for --download"),
    ],
)
def test_options_that_do_not_fit(tmp_path, capsys, arguments, line):
    assert prepare.main([*arguments, f"--data_dir={tmp_path}"]) == 2
    assert line in capsys.readouterr().err

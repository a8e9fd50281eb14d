"""Cloud Storage's JSON API, served from memory as far as gcsfs, TensorStore and array_record ask.

As the real one it numbers the generations of an object and honours `ifGenerationMatch`, on which
TensorStore relies when several writers meet.
"""

import contextlib
import email
import http.server
import itertools
import json
import re
import threading
import urllib.parse
from collections.abc import Iterator
from typing import Any

BUCKET = "bucket"

_OBJECT = re.compile(
    r"(/download)?/storage/v1/b/([^/]+)/o/([^/]+)"
    r"(?:/(rewriteTo|moveTo)(?:/b/[^/]+)?/o/([^/]+))?"
)
_LIST = re.compile(r"(/upload)?/storage/v1/b/([^/]+)(/o)?")


class _Refused(Exception):
    """An HTTP status that ends a request."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    objects: dict[str, tuple[bytes, int]]  # Content and generation by name.
    uploads: dict[str, tuple[str, bytes]]  # Name and what has come so far, by session.
    numbers: Iterator[int]
    lock: threading.Lock

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _answer(self) -> None:
        path, _, query = self.path.partition("?")
        self.query = dict(urllib.parse.parse_qsl(query))
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            with self.lock:
                status, content, headers = self._content(path)
        except _Refused as refusal:
            status, content, headers = refusal.args[0], b"{}", {}
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_DELETE = _answer

    def _content(self, path: str) -> tuple[int, bytes, dict[str, str]]:
        if match := _OBJECT.fullmatch(path):
            name = urllib.parse.unquote(match[3])
            if match[4]:
                self._put(urllib.parse.unquote(match[5]), self._get(name)[0])
                if match[4] == "moveTo":
                    del self.objects[name]
                return self._json({"done": True})
            if self.command == "DELETE":
                self._get(name)
                del self.objects[name]
                return 204, b"", {}
            if match[1] or self.query.get("alt") == "media":
                return self._media(name)
            return self._json(self._resource(name))
        match = _LIST.fullmatch(path)
        if match is None or match[2] != BUCKET:
            raise _Refused(404)
        if match[1]:
            return self._upload()
        return self._json(
            self._listed() if match[3] else {"name": BUCKET, "kind": "storage#bucket"}
        )

    def _get(self, name: str) -> tuple[bytes, int]:
        if name not in self.objects:
            raise _Refused(404)
        return self.objects[name]

    def _put(self, name: str, content: bytes) -> None:
        wanted = self.query.get("ifGenerationMatch")
        if wanted is not None and int(wanted) != self.objects.get(name, (b"", 0))[1]:
            raise _Refused(412)
        self.objects[name] = content, next(self.numbers)

    def _resource(self, name: str) -> dict[str, Any]:
        content, generation = self._get(name)
        time = "2026-01-01T00:00:00.000Z"
        return {
            "kind": "storage#object",
            "bucket": BUCKET,
            "name": name,
            "size": str(len(content)),
            "generation": str(generation),
            "metageneration": "1",
            "timeCreated": time,
            "updated": time,
        }

    def _json(self, value: Any) -> tuple[int, bytes, dict[str, str]]:
        return 200, json.dumps(value).encode(), {"Content-Type": "application/json"}

    def _media(self, name: str) -> tuple[int, bytes, dict[str, str]]:
        content, generation = self._get(name)
        headers = {"x-goog-generation": str(generation), "Content-Type": "application/octet-stream"}
        if self.query.get("ifGenerationNotMatch") == str(generation):
            return 304, b"", headers
        span = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range") or "")
        if span is None or not content:
            return 200, content, headers
        size = len(content)
        first = int(span[1]) if span[1] else max(size - int(span[2]), 0)
        last = min(int(span[2]), size - 1) if span[1] and span[2] else size - 1
        if first >= size:
            raise _Refused(416)
        headers["Content-Range"] = f"bytes {first}-{last}/{size}"
        return 206, content[first : last + 1], headers

    def _upload(self) -> tuple[int, bytes, dict[str, str]]:
        kind, name = self.query.get("uploadType"), self.query.get("name", "")
        if session := self.query.get("upload_id"):
            name, before = self.uploads[session]
            self.uploads[session] = name, before + self.body
            if (self.headers.get("Content-Range") or "").endswith("/*"):
                return 308, b"", {"Range": f"bytes=0-{len(before + self.body) - 1}"}
            self.body = self.uploads.pop(session)[1]
        elif kind == "resumable":
            session = str(next(self.numbers))
            self.uploads[session] = name or json.loads(self.body)["name"], b""
            host = f"http://{self.headers['Host']}"
            return 200, b"", {"Location": f"{host}{self.path}&upload_id={session}"}
        elif kind == "multipart":
            header = f"Content-Type: {self.headers['Content-Type']}\n\n".encode()
            parts: Any = email.message_from_bytes(header + self.body).get_payload()
            name = name or json.loads(parts[0].get_payload())["name"]
            self.body = parts[1].get_payload(decode=True)
        self._put(name, self.body)
        return self._json(self._resource(name))

    def _listed(self) -> dict[str, Any]:
        prefix, delimiter = self.query.get("prefix", ""), self.query.get("delimiter")
        items, prefixes = [], set()
        for name in sorted(self.objects):
            if not name.startswith(prefix):
                continue
            rest = name.removeprefix(prefix)
            if delimiter and delimiter in rest:
                prefixes.add(prefix + rest.partition(delimiter)[0] + delimiter)
            else:
                items.append(self._resource(name))
        return {"kind": "storage#objects", "items": items, "prefixes": sorted(prefixes)}


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients close connections when they please."""


@contextlib.contextmanager
def serve() -> Iterator[tuple[dict[str, str], dict[str, tuple[bytes, int]]]]:
    """A server with the one bucket `BUCKET`, while the block runs.

    Yields:
      the environment variables that lead all three clients to it; its objects by name.
    """
    objects: dict[str, tuple[bytes, int]] = {}
    state = {"objects": objects, "uploads": {}, "numbers": itertools.count(1)}
    handler = type("Handler", (_Handler,), {**state, "lock": threading.Lock()})
    with _Server(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        address = f"http://127.0.0.1:{server.server_port}"
        names = (
            "STORAGE_EMULATOR_HOST",
            "TENSORSTORE_GCS_HTTP_URL",
            "CLOUD_STORAGE_EMULATOR_ENDPOINT",
        )
        try:
            # gcsfs would ask another service, for every call, which kind of bucket this is.
            yield (
                {**dict.fromkeys(names, address), "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "0"},
                objects,
            )
        finally:
            server.shutdown()
            thread.join()

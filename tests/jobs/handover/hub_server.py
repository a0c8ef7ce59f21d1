"""A Hub on this machine: the requests of huggingface_hub that create, fill and read a repository, kept in memory."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class HubServer(ThreadingHTTPServer):
    """One repository. Every file is a regular one, so no second server for large files is needed."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}       # of the newest commit
        self.created: dict[str, object] = {}    # what the client asked for

    @property
    def address(self) -> str:
        """Of HF_ENDPOINT."""
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: HubServer

    def do_POST(self) -> None:
        path = urlsplit(self.path).path
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if path == "/api/repos/create":
            self.server.created = json.loads(body)
            self.answer({"url": f"{self.server.address}/owner/name"})
        elif path == "/api/validate-yaml":
            self.answer({"warnings": [], "errors": []})
        elif "/preupload/" in path:
            self.answer({"files": [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                                   for file in json.loads(body)["files"]]})
        elif "/commit/" in path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.server.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            self.answer({"commitUrl": f"{self.server.address}/owner/name/commit/{COMMIT}", "commitOid": COMMIT,
                         "success": True})
        else:
            self.send_error(404)

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if path.startswith("/api/models/owner/name/tree/"):
            self.answer([{"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                         for name, content in self.server.files.items()])
        elif path.startswith("/api/models/owner/name"):
            self.answer({"id": "owner/name", "sha": COMMIT, "private": True,
                         "siblings": [{"rfilename": name} for name in self.server.files]})
        elif path.startswith("/owner/name/resolve/") and (name := path.split("/", 5)[5]) in self.server.files:
            content = self.server.files[name]
            self.reply(content, {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha1(content).hexdigest()}"'})
        else:
            self.send_error(404)

    do_HEAD = do_GET

    def answer(self, content: object) -> None:
        self.reply(json.dumps(content).encode(), {"Content-Type": "application/json"})

    def reply(self, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(200)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_) -> None:
        """Nothing is printed."""


@contextmanager
def hub_server() -> Iterator[HubServer]:
    """A server that runs inside the block."""
    server = HubServer()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

"""A hub on this machine: it serves files, takes uploads, and answers as the real one does."""

import base64
import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(ThreadingHTTPServer):
    """Serves `files` ('owner/name/file' -> content), takes others by `token`, and keeps what was asked for."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.private: dict[str, bool] = {}  # of each repository that was made
        self.token, self.status = "", 401  # that may write; how any other is refused
        self.large: dict[str, bytes] = {}  # by the SHA-256 of the content
        self.address = f"http://127.0.0.1:{self.server_address[1]}"


class Answer(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        if self.path.startswith("/api/models/"):
            self.server.asked.append(f"GET {self.path}")
            name = self.path.removeprefix("/api/models/").partition("/revision")[0].partition("?")[0]
            if name in self.server.private:
                self.told({"id": name, "private": self.server.private[name], "siblings": []})
            else:
                self.told({"error": "Repository not found"}, 404, "RepoNotFound")
        else:
            self.answer(body=True)

    def do_PUT(self) -> None:
        data = self.whole()
        self.server.large[hashlib.sha256(data).hexdigest()] = data
        self.told({})

    def do_POST(self) -> None:
        self.server.asked.append(f"POST {self.path}")
        body = self.whole()
        name = self.path.removeprefix("/api/models/")
        if self.path == "/api/validate-yaml":
            self.told({"errors": [], "warnings": []})
        elif self.headers.get("Authorization") != f"Bearer {self.server.token}":
            self.told({"error": "no"}, self.server.status)
        elif self.path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            self.server.private.setdefault(name, asked.get("visibility", "") == "private" or bool(asked.get("private")))
            self.told({"url": f"{self.server.address}/{name}"})
        elif "/preupload/" in self.path:
            kinds = [
                (each["path"], "lfs" if each["path"].endswith(".safetensors") else "regular")
                for each in json.loads(body)["files"]
            ]
            self.told({"files": [{"path": path, "uploadMode": mode, "shouldIgnore": False} for path, mode in kinds]})
        elif self.path.endswith("/info/lfs/objects/batch"):
            held = [{key: each[key] for key in ("oid", "size")} for each in json.loads(body)["objects"]]
            actions = [
                each | {"actions": {"upload": {"href": f"{self.server.address}/{each['oid']}"}}} for each in held
            ]
            self.told({"transfer": "basic", "objects": actions})
        elif "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                self.keep(name.partition("/commit/")[0], line["key"], line["value"])
            url = f"{self.server.address}/{name.partition('/commit/')[0]}/commit/{COMMIT}"
            self.told({"success": True, "commitUrl": url, "commitOid": COMMIT, "hookOutput": ""})
        else:
            self.told({"error": "unknown"}, 404)

    def whole(self) -> bytes:
        """The body, also one that comes in chunks of a length that is told before each."""
        if "Content-Length" in self.headers:
            return self.rfile.read(int(self.headers["Content-Length"]))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def keep(self, name: str, key: str, value: dict[str, Any]) -> None:
        if key == "file":
            self.server.files[f"{name}/{value['path']}"] = base64.b64decode(value["content"])
        elif key == "lfsFile":
            self.server.files[f"{name}/{value['path']}"] = self.server.large[value["oid"]]

    def told(self, value: dict[str, Any], status: int = 200, code: str = "") -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def answer(self, *, body: bool) -> None:
        self.server.asked.append(f"{self.command} {self.path}")
        repository, _, file = self.path.removeprefix("/").partition("/resolve/main/")
        content = self.server.files.get(f"{repository}/{file}")
        known = any(name.startswith(f"{repository}/") for name in self.server.files)
        self.send_response(404 if content is None else 200)
        self.send_header("X-Repo-Commit", COMMIT)
        if content is None:
            self.send_header("X-Error-Code", "EntryNotFound" if known else "RepoNotFound")
        else:
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("Content-Length", str(len(content or b"")))
        self.end_headers()
        if body and content:
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def serving(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub that everything in this process takes for the one there is."""
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # uploads by HTTP, as to mirrors
    yield server
    server.shutdown()
    thread.join()
    server.server_close()

"""A stand-in for the Hugging Face Hub on this machine, which its own client talks to over HTTP."""

import base64
import hashlib
import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest


class Hub:
    """Repositories as lists of commits, each a dict of files; the last is "main"."""

    def __init__(self):
        self.commits: dict[str, list[dict[str, bytes]]] = {}
        self.private: dict[str, bool] = {}
        self.asked: list[str] = []
        self.after: dict[str, object] = {}  # a file's name -> what happens once it was fetched

    @staticmethod
    def name(repo: str, number: int) -> str:
        return hashlib.sha1(f"{repo}{number}".encode()).hexdigest()

    def files(self, repo: str, revision: str = "main") -> dict[str, bytes] | None:
        commits = self.commits.get(repo)
        names = {self.name(repo, n): files for n, files in enumerate(commits or ())}
        return commits[-1] if commits and revision == "main" else names.get(revision)

    def commit_of(self, repo: str, revision: str) -> str:
        return self.name(repo, len(self.commits[repo]) - 1) if revision == "main" else revision

    def put(self, repo: str, files: dict[str, bytes]) -> None:
        self.commits.setdefault(repo, []).append(dict(files))


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_):
        pass

    def answer(self, status=200, body=b"", **headers):
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        self.hub.asked.append(f"{self.command} {self.path}")
        path = self.path.partition("?")[0]
        if found := re.fullmatch(r"/(?:api/resolve-cache/models/)?([\w.-]+/[\w.-]+)/resolve/([^/]+)/(.+)", path):
            repo, revision, file = found.groups()
            files = self.hub.files(repo, revision)
            if files is None:
                return self.answer(404, X_Error_Code="RevisionNotFound" if repo in self.hub.commits else "RepoNotFound")
            commit = self.hub.commit_of(repo, revision)
            if file not in files:
                return self.answer(404, X_Error_Code="EntryNotFound", X_Repo_Commit=commit)
            etag = hashlib.sha1(files[file]).hexdigest()
            self.answer(200, files[file], X_Repo_Commit=commit, ETag=f'"{etag}"')
            if self.command == "GET" and file in self.hub.after:
                self.hub.after.pop(file)()
            return None
        if found := re.fullmatch(r"/api/models/([\w.-]+/[\w.-]+)/(?:tree|revision)/([^/]+)", path):
            files = self.hub.files(*found.groups()) or {}
            if "/tree/" in path:
                said = [{"type": "file", "path": n, "size": len(b), "oid": "0"} for n, b in files.items()]
                return self.answer(200, said)
            commit = self.hub.commit_of(*found.groups())
            said = {"id": found[1], "sha": commit, "siblings": [{"rfilename": name} for name in files]}
            return self.answer(200, said)
        return self.answer(404)

    def do_POST(self):
        self.hub.asked.append(f"POST {self.path}")
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/api/repos/create":
            said = json.loads(body)
            repo = f"{said.get('organization') or 'me'}/{said['name']}"
            there = repo in self.hub.commits
            if not there:
                self.hub.private[repo] = said["private"] if "private" in said else said["visibility"] == "private"
                self.hub.put(repo, {".gitattributes": b""})
            url = f"http://{self.headers['Host']}/{repo}"
            return self.answer(409 if there else 200, {"url": url, "id": repo})
        if self.path == "/api/validate-yaml":
            return self.answer(200, {"errors": [], "warnings": []})
        repo, what = re.fullmatch(r"/api/models/([\w.-]+/[\w.-]+)/(preupload|commit)/main", self.path).groups()
        if what == "preupload":
            files = [
                {"path": one["path"], "uploadMode": "regular", "shouldIgnore": False}
                for one in json.loads(body)["files"]
            ]
            return self.answer(200, {"files": files})
        files = dict(self.hub.commits[repo][-1])
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            elif line["key"] == "deletedFile":
                del files[line["value"]["path"]]
        self.hub.put(repo, files)
        commit = self.hub.commit_of(repo, "main")
        url = f"http://{self.headers['Host']}/{repo}/commit/{commit}"
        return self.answer(200, {"success": True, "commitOid": commit, "commitUrl": url})


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """The stand-in, empty; the client's cache is empty, too."""
    constants = pytest.importorskip("huggingface_hub.constants")
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Own", (Handler,), {"hub": hub}))
    Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    known = {"ENDPOINT": address, "HUGGINGFACE_CO_URL_TEMPLATE": template, "HF_HUB_OFFLINE": False}
    for name, value in known.items():
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    yield hub
    server.shutdown()
    server.server_close()

"""A stand-in for the hub's HTTP interface on the loopback address: as much of it as huggingface_hub asks for here."""

import base64
import hashlib
import json
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Hub:
    """Its repositories: name -> path -> content; ``asked`` lists requests as (method, path)."""

    def __init__(self):
        self.repositories = {}
        self.private = {}
        self.asked = []
        self.refuses_writing = False

    def commit_of(self, name):
        told = json.dumps(
            {path: hashlib.sha1(content).hexdigest() for path, content in self.repositories[name].items()}
        )
        return hashlib.sha1(told.encode()).hexdigest()


class _Answers(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def _send(self, status, body=b"", **headers):
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(content))} | headers).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _body(self):
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        self.hub.asked.append((self.command, self.path))
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/(?:revision|tree)/([^/?]+)(?:\?.*)?", self.path):
            return self._tell(*found.groups())
        if found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.path):
            return self._file(*found.groups())
        return self._send(404)

    def _tell(self, name, revision):
        if name not in self.hub.repositories:
            return self._send(404, {}, X_Error_Code="RepoNotFound")
        if revision not in ("main", self.hub.commit_of(name)):
            return self._send(404, {}, X_Error_Code="RevisionNotFound")
        files = self.hub.repositories[name]
        if "/tree/" in self.path:
            entries = [
                {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for path, content in files.items()
            ]
            return self._send(200, entries)
        siblings = [{"rfilename": path} for path in files]
        return self._send(
            200, {"id": name, "sha": self.hub.commit_of(name), "siblings": siblings, "private": False}
        )

    def _file(self, name, revision, path):
        files = self.hub.repositories.get(name)
        if files is None:
            return self._send(404, b"", X_Error_Code="RepoNotFound")
        if path not in files:
            return self._send(404, b"", X_Error_Code="EntryNotFound", X_Repo_Commit=self.hub.commit_of(name))
        etag = f'"{hashlib.sha1(files[path]).hexdigest()}"'
        return self._send(200, files[path], ETag=etag, X_Repo_Commit=self.hub.commit_of(name))

    def do_POST(self):
        self.hub.asked.append((self.command, self.path))
        body = self._body()
        if self.hub.refuses_writing:
            return self._send(403, {"error": "no"})
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
            if name in self.hub.repositories:
                return self._send(409, {"url": f"{self._address()}/{name}"})
            self.hub.repositories[name], self.hub.private[name] = (
                {},
                asked.get("private") or asked.get("visibility") == "private",
            )
            return self._send(200, {"url": f"{self._address()}/{name}"})
        if self.path == "/api/validate-yaml":
            return self._send(200, {"errors": [], "warnings": []})
        if re.fullmatch(r"/api/models/[^/]+/[^/]+/preupload/[^/]+", self.path):
            files = [
                {**each, "uploadMode": "regular", "shouldIgnore": False} for each in json.loads(body)["files"]
            ]
            return self._send(200, {"files": files})
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/[^/?]+(?:\?.*)?", self.path):
            return self._commit(found[1], body)
        return self._send(404)

    def _commit(self, name, body):
        for line in body.splitlines():
            entry = json.loads(line)
            if entry["key"] == "file":
                value = entry["value"]
                self.hub.repositories[name][value["path"]] = base64.b64decode(value["content"])
        commit = self.hub.commit_of(name)
        return self._send(
            200,
            {"commitUrl": f"{self._address()}/{name}/commit/{commit}", "commitOid": commit, "success": True},
        )

    def _address(self):
        return f"http://127.0.0.1:{self.server.server_port}"


@contextmanager
def standing_in():
    """A hub, and its address."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Answers", (_Answers,), {"hub": hub}))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub, f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

"""A stand-in for W&B's server on 127.0.0.1: what wandb 0.31 sends for runs, their history and an agent's jobs.

Written after what the client was seen to send. A run's history is a list of lines: a post says at which line its own
begin, and a client that continues a run asks how many there are and what the last one says. ``refuse`` makes it say no.
"""

from __future__ import annotations

import gzip
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HISTORY = "wandb-history.jsonl"
KEY = "k3y" + "0" * 37


class _Http(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):
        """A client that has gone away is no news."""


class WandbServer:
    """``runs``: id -> what the server holds of it. A context manager."""

    def __init__(self):
        self.runs = {}
        self.operations = []
        self.sweep = ""  # a sweep file, for agents
        self.jobs = []  # commands that agents get, one a heartbeat
        self.refuse = None  # a status with which history is turned away
        handler = type("Handler", (_Handler,), {"server_state": self})
        self._http = _Http(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._http.shutdown()
        self._http.server_close()
        self._thread.join(5)

    @property
    def url(self):
        return "http://127.0.0.1:%d" % self._http.server_address[1]

    @property
    def environment(self):
        """What a client needs to find this server and no other."""
        return {"WANDB_BASE_URL": self.url, "WANDB_API_KEY": KEY, "WANDB_ERROR_REPORTING": "false"}

    def iterations(self, run):
        """The iteration of every row of a run, in the order of its lines."""
        return [int(json.loads(line)["iteration"]) for line in self.runs[run]["history"]]

    def steps(self, run):
        return [json.loads(line)["_step"] for line in self.runs[run]["history"]]

    # ---- what a client may ask -----------------------------------------------------------------------------------

    def graphql(self, query, given):
        operation = re.search(r"(?:query|mutation)\s+(\w+)", query).group(1)
        self.operations.append(operation)
        if operation in ("ProbeServerCapabilities", "ServerFeaturesQuery"):  # of wandb 0.24, which Python 3.8 has
            return {"QueryType": None, "MutationType": None, "ServerInfoType": None, "serverInfo": {"features": []}}
        if operation == "Viewer":
            return {
                "viewer": {
                    "id": "V",
                    "entity": "me",
                    "username": "me",
                    "email": "",
                    "flags": "{}",
                    "teams": {"edges": []},
                }
            }
        if operation == "RunResumeStatus":
            model = {"id": "M", "name": given["project"], "entity": {"id": "E", "name": "me"}, "bucket": None}
            if given["name"] in self.runs:
                model["bucket"] = self._resumed(given["name"])
            return {"model": model}
        if operation == "UpsertBucket":
            return {"upsertBucket": self._upserted(given)}
        if operation == "CreateRunFiles":
            files = [{"name": name, "uploadUrl": self.url + "/upload/" + name} for name in given["files"]]
            return {"createRunFiles": {"runID": "B", "uploadHeaders": [], "files": files}}
        return self._of_agents(query, given)

    def _resumed(self, run):
        lines = self.runs[run]["history"]
        return {
            "id": "B", "name": run, "displayName": run, "summaryMetrics": "{}", "config": "{}", "tags": [], "notes": "",
            "logLineCount": 0, "eventsLineCount": 0, "eventsTail": "[]", "wandbConfig": '{"t": 1}',
            "historyLineCount": len(lines), "historyTail": json.dumps(lines[-1:]),
        }  # fmt: skip

    def _upserted(self, given):
        run = given["name"]
        inserted = run not in self.runs
        found = self.runs.setdefault(run, {"history": [], "exit": None})
        for key in ("displayName", "groupName", "project", "entity", "sweep"):
            if given.get(key) is not None or key not in found:
                found[key] = given.get(key)
        found["config"] = {**found.get("config", {}), **json.loads(given.get("config") or "{}")}
        project = {"id": "P", "name": given["project"], "entity": {"id": "E", "name": given.get("entity") or "me"}}
        bucket = {
            "id": "B", "name": run, "displayName": found["displayName"], "description": "", "config": "{}",
            "sweepName": given.get("sweep"), "project": project, "historyLineCount": len(found["history"]),
        }  # fmt: skip
        return {"inserted": inserted, "bucket": bucket}

    def _of_agents(self, query, given):
        if "createAgent" in query:
            return {"createAgent": {"agent": {"id": "AGENT"}}}
        if "agentHeartbeat" in query:
            commands, self.jobs = self.jobs[:1], self.jobs[1:]
            return {"agentHeartbeat": {"agent": {"id": "AGENT"}, "commands": json.dumps(commands)}}
        if "sweep(" in query:
            sweep = {"id": "S", "name": given.get("sweep"), "method": "grid", "state": "RUNNING", "config": self.sweep}
            return {"project": {"sweep": {**sweep, "bestLoss": None, "runs": {"edges": []}}}}
        return {}

    def stream(self, run, posted):
        files = posted.get("files") or {}
        if HISTORY in files:
            first = files[HISTORY]["offset"]
            self.runs[run]["history"][first:] = files[HISTORY]["content"]
        if "exitcode" in posted:
            self.runs[run]["exit"] = posted["exitcode"]
        return {}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_state: WandbServer

    def log_message(self, *_):
        pass

    def _body(self):
        if self.headers.get("Transfer-Encoding") == "chunked":
            data, size = b"", -1
            while size:
                size = int(self.rfile.readline(), 16)
                data += self.rfile.read(size)
                self.rfile.readline()
        else:
            data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(data) if self.headers.get("Content-Encoding") == "gzip" else data

    def _answer(self):
        data, state = self._body(), self.server_state
        status, found = 200, {}
        if self.path == "/graphql":
            asked = json.loads(data)
            found = {"data": state.graphql(asked["query"], asked.get("variables") or {})}
        elif self.path.endswith("/file_stream"):
            run, posted = self.path.split("/")[-2], json.loads(data)
            if state.refuse and HISTORY in (posted.get("files") or {}):
                status, found = state.refuse, {"error": "no room for this"}
            else:
                found = state.stream(run, posted)
        text = json.dumps(found).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST = do_PUT = _answer  # noqa: N815 (what the library calls)

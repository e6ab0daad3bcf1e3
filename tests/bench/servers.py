"""The servers that are measured: each started afresh on a core of its own, awaited, and stopped by its process id."""

import base64
import hashlib
import hmac
import json
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
BUILT = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
TIDINGS = BUILT / "tidings"
PLAIN = BUILT / "examples/plain"
NCHAN = Path("/usr/lib/nginx/modules/ngx_nchan_module.so")
MERCURE_KEY = "!ChangeThisMercureHubJWTSecretKey!"

# A server that is not there by then has failed.
READY_S = 30

# What people call them.
NAMES = {
    "tidings": "Tidings",
    "memory": "Tidings, in memory",
    "nchan": "Nchan",
    "plain": "plain axum",
    "ceiling": "the ceiling",
    "mercure": "Mercure",
    "centrifugo": "Centrifugo",
    "centrifugo-redis": "Centrifugo on Redis",
}


class Failed(Exception):
    """A server did not start."""


def cores():
    """The core of the servers and that of the load. On a machine with one they share it."""
    own = sorted(os.sched_getaffinity(0))
    return own[0], own[1 if len(own) > 1 else 0]


def present():
    """The servers that can be measured on this machine."""
    found = ["tidings", "memory", "plain", "ceiling"]
    if nginx() and NCHAN.exists():
        found.append("nchan")
    found += [name for name in ("mercure", "centrifugo") if shutil.which(name)]
    if shutil.which("centrifugo") and shutil.which("redis-server"):
        found.append("centrifugo-redis")
    return found


def nginx():
    return shutil.which("nginx") or shutil.which("/usr/sbin/nginx")


def versions():
    """What is compared, with its version."""
    told = {"tidings": [TIDINGS, "--version"], "mercure": ["mercure", "version"]}
    told["centrifugo"] = ["centrifugo", "version"]
    out = {}
    for name, command in told.items():
        if shutil.which(str(command[0])):
            run = subprocess.run(command, capture_output=True, text=True, check=False)
            out[name] = (run.stdout or run.stderr).strip().splitlines()[0]
    if "nchan" in present():
        about = subprocess.run([nginx(), "-v"], capture_output=True, text=True, check=False)
        package = subprocess.run(
            ["dpkg-query", "-W", "-f", "${Version}", "libnginx-mod-nchan"],
            capture_output=True,
            text=True,
            check=False,
        )
        nchan = package.stdout.strip() or "of unknown version"
        out["nchan"] = f"Nchan {nchan} on {about.stderr.split()[-1]}"
    lock = (ROOT / "Cargo.lock").read_text()
    axum = re.search(r'name = "axum"\nversion = "([^"]+)"', lock)
    out["plain"] = f"axum {axum.group(1)}" if axum else "axum"
    return out


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


class Server:
    """One server, from its start to its end: use it with `with`."""

    def __init__(self, name, pinned=True, env=None, config="", broker=""):
        self.name = name
        self.pinned = pinned
        # Variables of this shell's are no part of what is measured.
        own = {key: value for key, value in os.environ.items() if not key.startswith("TIDINGS_")}
        self.env = own | {"GOMAXPROCS": "1"} | (env or {})
        self.config = config
        # Of those that need one.
        self.broker = broker
        # What each says of itself, for the load.
        self.load = ["--hub", {"memory": "tidings", "ceiling": "plain", "centrifugo-redis": "centrifugo"}.get(name, name)]

    def __enter__(self):
        work = ROOT / "target/bench"
        work.mkdir(parents=True, exist_ok=True)
        self.dir = Path(tempfile.mkdtemp(prefix=f"{self.name}-", dir=work))
        try:
            command, port = self.command()
            self.start(command)
            self.url = self.await_port(port) if port else self.await_line()
        except BaseException:
            self.stop()
            raise
        self.load += ["--url", self.url, "--pid", str(self.process.pid)]
        return self

    def __exit__(self, *_):
        self.stop()

    def command(self):
        """How it is started, and its port unless it finds one itself and says so."""
        if self.name in ("tidings", "memory"):
            if self.name == "memory":
                self.env["TIDINGS_LOG__ENGINE"] = "memory"
            self.env.setdefault("TIDINGS_TRACE", "warn")
            serve = [TIDINGS, "serve", "--listen", "127.0.0.1:0", "--data-dir", self.dir / "data"]
            if self.config:
                serve += ["--config", self.file("tidings.toml", self.config)]
            return serve, None
        if self.name == "ceiling":
            return [TIDINGS, "bench", "ceiling"], None
        if self.name == "plain":
            return [PLAIN, "127.0.0.1:0"], None
        port = free_port()
        if self.name == "nchan":
            text = self.fill("nginx.conf", port, MODULE=NCHAN)
            return [nginx(), "-p", self.dir, "-e", "error.log", "-c", self.file("nginx.conf", text)], port
        if self.name == "mercure":
            text = self.fill("Caddyfile", port, DIR=self.dir, KEY=MERCURE_KEY)
            self.load += ["--publish-header", f"Authorization: Bearer {mercure_token()}"]
            return ["mercure", "run", "--config", self.file("Caddyfile", text)], port
        text = self.fill("centrifugo.json", port)
        if self.broker:
            shared = {"type": "redis", "redis": {"address": self.broker}}
            text = json.dumps(json.loads(text) | {"engine": shared})
        self.load += ["--publish-header", "X-API-Key: bench"]
        return ["centrifugo", "--config", self.file("centrifugo.json", text)], port

    def fill(self, template, port, **values):
        text = (HERE / template).read_text().replace("@PORT@", str(port))
        for name, value in values.items():
            text = text.replace(f"@{name}@", str(value))
        return text

    def file(self, name, text):
        path = self.dir / name
        path.write_text(text)
        return path

    def start(self, command):
        command = [str(part) for part in command]
        if self.pinned:
            command = ["taskset", "-c", str(cores()[0])] + command
        with open(self.dir / "stderr", "w") as errors:
            self.process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=errors, text=True, env=self.env, cwd=self.dir
            )

    def await_line(self):
        """The URL that it prints when it listens. At its end there is none."""
        line = self.process.stdout.readline()
        url = re.search(r"http://[0-9.:]+", line)
        if not url:
            raise Failed(f"{self.name} did not start: {self.errors() or line}")
        return url.group(0)

    def await_port(self, port):
        until = time.monotonic() + READY_S
        while time.monotonic() < until and self.process.poll() is None:
            try:
                with socket.create_connection(("127.0.0.1", port), 1) as asked:
                    # Some listen before there is a worker: any answer will do.
                    asked.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
                    if asked.recv(1):
                        return f"http://127.0.0.1:{port}"
            except OSError:
                time.sleep(0.01)
        raise Failed(f"{self.name} did not start: {self.errors()}")

    def errors(self):
        texts = [path.read_text() for path in (self.dir / "stderr", self.dir / "error.log") if path.exists()]
        return "".join(texts).strip()[-2_000:]

    def stop(self):
        process = getattr(self, "process", None)
        if process:
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()
        shutil.rmtree(self.dir, ignore_errors=True)


def mercure_token():
    """A token with which everything may be published."""

    def part(value):
        return base64.urlsafe_b64encode(value).rstrip(b"=")

    head = part(json.dumps({"alg": "HS256", "typ": "JWT"}).encode())
    claims = part(json.dumps({"mercure": {"publish": ["*"], "subscribe": ["*"]}}).encode())
    signed = head + b"." + claims
    signature = hmac.new(MERCURE_KEY.encode(), signed, hashlib.sha256).digest()
    return (signed + b"." + part(signature)).decode()

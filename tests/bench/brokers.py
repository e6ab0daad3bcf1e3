"""The brokers under a cluster's journal: each private to one measurement, on the load's core, with its data in a
directory that goes with it."""

import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from servers import READY_S, ROOT, Failed, cores, free_port

RABBITMQ = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
# The tests' own, which is newer than Debian's.
NATS = ROOT / "tests/clients/venv/bin/nats-server"

# Each with its settings: `appendfsync` of Redis, `sync_interval` of NATS.
JOURNALS = {
    "redis-always": "Redis always",
    "redis-everysec": "Redis everysec",
    "nats-always": "NATS always",
    "nats": "NATS",
    "rabbitmq": "RabbitMQ",
}

RABBITMQ_ENVIRONMENT = {
    "HOME": "@DIR@",
    "ERL_EPMD_ADDRESS": "127.0.0.1",
    "ERL_EPMD_PORT": "@REGISTER@",
    "RABBITMQ_NODENAME": "bench@PORT@@localhost",
    "RABBITMQ_DIST_PORT": "@BETWEEN@",
    "RABBITMQ_MNESIA_BASE": "@DIR@/data",
    "RABBITMQ_LOG_BASE": "@DIR@/log",
    "RABBITMQ_CONFIG_FILE": "@DIR@/rabbitmq",
    "RABBITMQ_CONF_ENV_FILE": "@DIR@/none",
    "RABBITMQ_ENABLED_PLUGINS_FILE": "@DIR@/plugins",
    # On one core, waiting busily only takes the load's time.
    "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 +sbwt none +sbwtdcpu none +sbwtdio none "
    "-kernel inet_dist_use_interface {127,0,0,1}",
    # Makes the script become the server instead of waiting for it.
    "RUNNING_UNDER_SYSTEMD": "true",
}


def nats_server():
    return str(NATS) if NATS.exists() else shutil.which("nats-server") or shutil.which("/usr/sbin/nats-server")


def version(command, pattern):
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(pattern, run.stdout + run.stderr)
    return found.group(1) if found else None


def versions():
    """The brokers that are here, with their versions."""
    found = {}
    if shutil.which("redis-server"):
        found["redis"] = version(["redis-server", "--version"], r"v=([\d.]+)")
    if nats_server():
        found["nats"] = version([nats_server(), "--version"], r"v([\d.]+)")
    if RABBITMQ.exists():
        names = [path.name for path in Path("/usr/lib/rabbitmq/lib").glob("rabbitmq_server-*")]
        found["rabbitmq"] = names[0].split("-", 1)[1] if names else None
    return {name: told for name, told in found.items() if told}


def present():
    """The journals that can be measured on this machine."""
    here = versions()
    found = [name for name in JOURNALS if name.split("-")[0] in here]
    # Earlier servers cannot be told to sync at once.
    if tuple(int(part) for part in here.get("nats", "0.0").split(".")[:2]) < (2, 10):
        found = [name for name in found if name != "nats-always"]
    return found


class Broker:
    """A broker that runs: use it with `with`."""

    def __init__(self, name):
        self.name = name
        self.processes = []

    def __enter__(self):
        work = ROOT / "target/bench"
        work.mkdir(parents=True, exist_ok=True)
        self.dir = Path(tempfile.mkdtemp(prefix=f"{self.name}-", dir=work))
        self.port = free_port()
        try:
            {"redis": self.redis, "nats": self.nats, "rabbitmq": self.rabbitmq}[self.name.split("-")[0]]()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for process in reversed(self.processes):
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self.dir, ignore_errors=True)

    def redis(self):
        fsync = self.name.split("-")[1]
        options = {"bind": "127.0.0.1", "port": self.port, "dir": self.dir, "save": "", "appendonly": "yes"}
        options["appendfsync"] = fsync
        self.start(["redis-server"] + [word for name, value in options.items() for word in (f"--{name}", value)])
        self.url = f"redis://127.0.0.1:{self.port}"
        self.answers(b"PING\r\n", b"+PONG")

    def nats(self):
        sync = "sync_interval: always" if self.name == "nats-always" else ""
        store = f'jetstream {{ store_dir: "{self.dir}/data", max_file_store: 1TB, {sync} }}'
        (self.dir / "conf").write_text(f"host: 127.0.0.1\nport: {self.port}\n{store}\n")
        self.start([nats_server(), "-c", self.dir / "conf"])
        self.url = f"nats://127.0.0.1:{self.port}"
        self.answers(b'CONNECT {"verbose":false}\r\nSUB a 1\r\nPUB $JS.API.INFO a 0\r\n\r\n', b"streams")

    def rabbitmq(self):
        (self.dir / "rabbitmq.conf").write_text(f"listeners.tcp.1 = 127.0.0.1:{self.port}\n")
        (self.dir / "plugins").write_text("[].\n")
        values = {"@DIR@": self.dir, "@PORT@": self.port, "@REGISTER@": free_port(), "@BETWEEN@": free_port()}
        environment = {}
        for key, value in RABBITMQ_ENVIRONMENT.items():
            for name, filled in values.items():
                value = value.replace(name, str(filled))
            environment[key] = value
        # Its register of names: it would start one that stays behind.
        self.start(["epmd"], environment)
        self.start([RABBITMQ], environment)
        self.url = f"amqp://guest:guest@127.0.0.1:{self.port}"
        self.answers(b"AMQP\x00\x00\x09\x01", b"RabbitMQ")

    def start(self, command, environment=None):
        command = ["taskset", "-c", str(cores()[1])] + [str(part) for part in command]
        with open(self.dir / "out", "a") as out:
            self.processes.append(
                subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=out,
                    env=os.environ | (environment or {}),
                    cwd=self.dir,
                )
            )

    def answers(self, asked, expected):
        until = time.monotonic() + READY_S
        while time.monotonic() < until and self.processes[-1].poll() is None:
            try:
                with socket.create_connection(("127.0.0.1", self.port), 1) as connection:
                    connection.sendall(asked)
                    told = b""
                    while expected not in told:
                        piece = connection.recv(4096)
                        if not piece:
                            raise OSError
                        told += piece
                    return
            except OSError:
                time.sleep(0.02)
        raise Failed(f"{self.name} did not start: {(self.dir / 'out').read_text()[-2_000:]}")

"""A RabbitMQ that ends and starts again as the same node, with a user and password of its own."""

import os
import secrets
import signal
import socket
import subprocess
from pathlib import Path
from typing import Final

from tests.eventually import eventually
from tests.servers import free_port
from worker.embedded.home import Home
from worker.embedded.process import PidFile, Running, spawn, write_private

PROGRAM: Final = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
USER: Final = "keyturn"


class RabbitMQ:
    """One node with its data in `home`; `start` and `stop` may be repeated."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.password = secrets.token_urlsafe(24)
        self.port, self._mapper_port = free_port(), free_port()
        self.directory = home.own_directory("rabbitmq")
        self._environment = self._settings(free_port())
        self._mapper: Running | None = None
        self._server: Running | None = None

    def url(self) -> str:
        """Its address, password included."""
        return f"amqp://{USER}:{self.password}@127.0.0.1:{self.port}//"

    def start(self) -> None:
        """Run the node and wait until it answers: five to eleven seconds."""
        pids, log = self.home.own_directory("pids"), self.home.own_directory("log")
        if self._mapper is None:  # Erlang would start it as a daemon that nobody ends
            self._mapper = spawn(
                ["epmd", "-address", "127.0.0.1", "-port", str(self._mapper_port)],
                pid_file=PidFile(pids / "epmd.json"),
                log=log / "epmd.log",
                env=self._environment,
            )
        self._server = spawn(
            [str(PROGRAM)],
            pid_file=PidFile(pids / "rabbitmq.json"),
            log=log / "rabbitmq.log",
            env=self._environment,
        )
        eventually(self._answers, within=90, every=0.2)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End the node; with SIGKILL at once."""
        if self._server:
            _end_session(self._server, number)
            self._server = None

    def close(self) -> None:
        """End all that was started."""
        self.stop()
        if self._mapper:
            _end_session(self._mapper, signal.SIGTERM)
            self._mapper = None

    def _settings(self, distribution_port: int) -> dict[str, str]:
        (self.directory / "plugins").write_text("[].\n")
        write_private(
            self.directory / "rabbitmq.conf",
            f"listeners.tcp.1 = 127.0.0.1:{self.port}\n"
            f"default_user = {USER}\ndefault_pass = {self.password}\n",
        )
        return {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(self.directory),
            "LANG": "C.UTF-8",
            "ERL_EPMD_PORT": str(self._mapper_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": f"chaos{secrets.token_hex(4)}@localhost",
            "RABBITMQ_DIST_PORT": str(distribution_port),
            "RABBITMQ_CONFIG_FILE": str(self.directory / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.directory / "plugins"),
            "RABBITMQ_MNESIA_BASE": str(self.directory / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.directory / "log"),
            "RABBITMQ_PID_FILE": str(self.directory / "pid"),
        }

    def _answers(self) -> bool:
        assert self._server is not None
        assert self._server.alive(), "RabbitMQ ended"
        with socket.create_connection(("127.0.0.1", self.port), timeout=1) as client:
            client.sendall(b"AMQP\x00\x00\x09\x01")
            return bool(client.recv(8))


def _end_session(process: Running, number: signal.Signals) -> None:
    """End a server that was started through shell scripts, which pass no signal on."""
    try:
        os.killpg(process.identity.pid, number)
        process.popen.wait(20)
    except ProcessLookupError:
        pass
    except subprocess.TimeoutExpired:
        os.killpg(process.identity.pid, signal.SIGKILL)
    process.popen.wait()

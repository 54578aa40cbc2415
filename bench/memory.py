"""How much memory a task takes at its peak, beyond what its process holds when idle."""

import json
import resource
import subprocess
import sys
from pathlib import Path

from models.base import Database
from models.keyring import Keyring
from models.policy import Policy
from tasks import Runtime, flows, run
from worker.logs import configure_logging


def peak_over_idle(url: str, secrets: Path, flow: str, **policy: float) -> float:
    """Megabytes by which a flow's runs raise the resident memory of a fresh process.

    It runs until it finds nothing more; `policy` are the numbers that are not the defaults.
    """
    command = [sys.executable, "-m", "bench.memory", url, str(secrets), flow, json.dumps(policy)]
    answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(json.loads(answer))


def main(url: str, secrets: str, name: str, policy: str) -> None:
    """The fresh process: connected and warm, then the runs; prints megabytes."""
    configure_logging("critical")
    database = Database(url)
    keyring = Keyring.from_directory(Path(secrets))
    runtime = Runtime(database, Policy(**json.loads(policy)), keyring, {})
    run(flows()["accounts.apply_events"], runtime)
    idle = _resident_now()
    while run(flows()[name], runtime):
        pass
    print(_peak() - idle)
    database.close()


def resident(pid: int) -> float:
    """Megabytes of another process that are in memory now."""
    if found := _status("VmRSS", pid):
        return found
    answer = subprocess.run(
        ["/bin/ps", "-o", "rss=", "-p", str(pid)], check=True, capture_output=True, text=True
    ).stdout
    return int(answer) * 1024 / 1e6


def _resident_now() -> float:
    """Megabytes now; where the system does not tell, the peak until now."""
    return _status("VmRSS") or _peak()


def _peak() -> float:
    # Not getrusage where it can be had otherwise: on Linux a child begins with its parent's peak.
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return _status("VmHWM") or (most / 1e6 if sys.platform == "darwin" else most / 1e3)


def _status(name: str, pid: int | None = None) -> float | None:
    try:
        lines = Path(f"/proc/{pid or 'self'}/status").read_text().splitlines()
    except FileNotFoundError:
        return None
    [kilobytes] = [line.split()[1] for line in lines if line.startswith(f"{name}:")]
    return int(kilobytes) * 1024 / 1e6


if __name__ == "__main__":
    main(*sys.argv[1:])

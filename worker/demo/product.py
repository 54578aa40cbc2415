"""The product of the demo, in a process of its own: it verifies keys with the library's `Client`.

The first line on stdin says where the database is, each further one which key came with a request.
Each is answered by one line on stdout. Keys come on stdin, since arguments are seen by others.
(An installed product writes `from keyturn import Client`.)
"""

import json
import signal
import sys

from models import Client


def main() -> None:
    """Answer until stdin ends; recorded uses are written by then."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is for the demo, which ends this
    start = json.loads(sys.stdin.readline())
    url, secrets = start["database_url"], start["secrets_dir"]
    with Client(url, secrets_dir=secrets, actor="demo product") as client:
        for line in sys.stdin:
            request = json.loads(line)
            verdict = client.verify(request["text"], record=request["use"])
            sys.stdout.write(f"{verdict.reason or 'yes'}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()

"""`python -m worker.cli` is the command `keyturn`."""

from worker.cli import main

main()

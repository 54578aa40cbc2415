"""What `celery -A worker.main` runs."""

from worker.boot import boot

app = boot()

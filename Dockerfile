# The image of vmnic's commands: controller, agent, simhost. Everything is locked by hash; nothing in it needs a shell when it runs.
# Where the base cannot be pulled, any image with Python 3.11 or newer, its venv module and kmod does: --build-arg BASE_IMAGE=…
# Where no package index can be reached, `wheels/` holds what requirements-image.lock names: --build-arg PIP_NO_INDEX=1
ARG BASE_IMAGE=python:3.13-slim

FROM ${BASE_IMAGE} AS build
ARG PIP_NO_INDEX
ENV PIP_FIND_LINKS=/wheels PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# pip stays in this stage.
RUN python3 -m venv /opt/pip && python3 -m venv --without-pip /opt/vmnic
COPY requirements-image.lock wheels* /wheels/
RUN /opt/pip/bin/pip --python /opt/vmnic/bin/python install --require-hashes --only-binary :all: --no-compile \
    --requirement /wheels/requirements-image.lock
COPY operator/vmnic /src/vmnic
# A file system that is only read has no place for byte code, and the time of a source file says nothing in an image.
RUN site="$(/opt/vmnic/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" \
    && cp -r /src/vmnic "$site/vmnic" \
    && /opt/vmnic/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash "$site"

FROM ${BASE_IMAGE}
# modprobe, for the agent's init container; and byte code of the standard library, where the base has none.
RUN if ! command -v modprobe >/dev/null; then apt-get -qq update && apt-get -qq install -y --no-install-recommends kmod \
    && rm -rf /var/lib/apt/lists/*; fi \
    && stdlib="$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')" \
    && python3 -m compileall -q -x '/(test|idlelib|tkinter|turtledemo|ensurepip|site-packages|dist-packages)/' "$stdlib"
COPY --from=build /opt/vmnic /opt/vmnic
ENV PYTHONUNBUFFERED=1
# The agent's manifest asks for root, which is who may write /sys.
USER 65532:65532
ENTRYPOINT ["/opt/vmnic/bin/python", "-I", "-m", "vmnic"]

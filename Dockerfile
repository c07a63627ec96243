# The picker as KServe and the llm-d charts start it: /app/epp is the program and the entry point; uid 65532, a
# read-only root file system and no writable /tmp are enough. Byte code is compiled here, as it cannot be at run time.

FROM python:3.13-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY epp ./epp
RUN python -m venv /app/venv \
    && /app/venv/bin/pip install --no-cache-dir '.[kubernetes,ratelimit]' \
    && /app/venv/bin/python -m compileall -q /app/venv/lib

FROM python:3.13-slim
COPY --from=build /app/venv /app/venv
RUN ln -s /app/venv/bin/epp /app/epp
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 65532:65532
EXPOSE 9002 9003 9090
ENTRYPOINT ["/app/epp"]

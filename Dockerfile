# Two stages: the first builds wheels, the second serves a bundle. No torch, no compiler, no root.
#
#   docker build --tag hardpath:0.1.0 .
#   docker run --read-only --publish 127.0.0.1:50051:50051 --volume "$PWD/runs/demo/bundle:/bundle:ro" hardpath:0.1.0

FROM python:3.12-slim-bookworm AS build
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY hardpath hardpath
COPY link link
COPY train train
COPY serve serve
# The wheel is built without the constraints' torch: only what serves a bundle is collected.
RUN python -m pip wheel --no-cache-dir --constraint constraints.txt --wheel-dir /wheels '.[cpu,text,serve]'

FROM python:3.12-slim-bookworm
RUN useradd --system --uid 10001 --no-create-home hardpath
RUN --mount=type=bind,from=build,source=/wheels,target=/wheels \
    python -m pip install --no-cache-dir --no-compile --no-index --find-links /wheels 'hardpath[cpu,text,serve]'
USER 10001
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
EXPOSE 50051
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s CMD ["python", "-m", "serve.probe", "127.0.0.1:50051"]
# Inside a container the loopback address would be out of reach; publish the port where it may be reached from.
ENTRYPOINT ["hardpath", "serve"]
CMD ["/bundle", "--host", "0.0.0.0", "--port", "50051"]

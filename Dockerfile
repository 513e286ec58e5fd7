# The HTTP server of a model folder, on CPUs:
#   docker build -t diffgrm-server .
#   docker run --rm -p 127.0.0.1:8000:8000 -v "$PWD/storefront-model:/model" diffgrm-server
# What follows the image's name are options of `diffgrm serve`, such as --allow-host shop.example (docs/serving.md).

FROM python:3.12-slim AS build
WORKDIR /build
RUN python -m venv /opt/diffgrm
# PyTorch alone and first, as the Makefile does, here from its index of builds without CUDA.
COPY constraints.txt ./
RUN /opt/diffgrm/bin/pip install --no-cache-dir -c constraints.txt torch --index-url https://download.pytorch.org/whl/cpu
COPY pyproject.toml README.md LICENSE ./
COPY src ./src
RUN /opt/diffgrm/bin/pip install --no-cache-dir -c constraints.txt '.[serve]'

FROM python:3.12-slim
COPY --from=build /opt/diffgrm /opt/diffgrm
# The user who may change the catalogue has to own the model's folder: --user, or chown 10001 on the host.
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin diffgrm && mkdir /model && chown diffgrm /model
ENV PATH=/opt/diffgrm/bin:$PATH \
    DIFFGRM_CACHE=/tmp/diffgrm \
    PYTHONUNBUFFERED=1
USER 10001
VOLUME /model
EXPOSE 8000
# /ready: the model is loaded and answers; by a name of loopback, to which every server answers.
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/ready', timeout=4)"]
ENTRYPOINT ["diffgrm", "serve", "/model", "--host", "0.0.0.0", "--port", "8000"]

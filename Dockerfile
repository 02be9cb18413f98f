# A server of exported files, without torch:
#   docker build -t convnext . && docker run --rm -p 8000:8000 -v "$PWD/runs:/runs:ro" convnext /runs/pets/model.onnx
FROM python:3.12-slim
COPY . /src
RUN pip install --no-cache-dir "/src[runtime,serve]"
RUN useradd --create-home convnext
USER convnext
EXPOSE 8000
# Loopback would be the container's own: outside, `-p` decides who reaches the port, and --key-file asks for a key.
ENTRYPOINT ["convnext", "serve", "--host", "0.0.0.0", "--port", "8000"]

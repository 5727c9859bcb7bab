# scoring in a container, for a processor of x86-64 or ARM:
#   docker build --tag wild-whisper .
#   docker run --rm --user "$(id -u)" --volume "$PWD":/data wild-whisper season/ --model classifier.int8.onnx --out results/
# the other commands of scoring likewise: --entrypoint python ... wild-whisper /app/report.py results/
FROM python:3.11.13-slim-bookworm

WORKDIR /app
COPY requirements-score.txt ./
RUN python -m pip install --no-cache-dir --no-compile -r requirements-score.txt
COPY LICENSE report.html config.py count.py predictor.py report.py search.py system.py taxonomy.py ./
COPY archive archive/
COPY evaluation evaluation/
COPY lineages lineages/
COPY runtime runtime/
COPY serving serving/
COPY sounds sounds/
RUN useradd --uid 1000 --create-home listener
USER 1000
WORKDIR /data
ENTRYPOINT ["python", "/app/predictor.py"]

# make demo   the whole way on a pretend field season: adapt, fine-tune, quantise, predict, compare with the answers
# make test   style, types, tests, with the same examples for everybody (make test-all: the slow ones too, and random search)
# make test-browser   the listening report in a real browser; installs Playwright, and chromium where apt exists
# make predictor.pyz   scoring in one file; MODEL=runs/quantize/classifier.int8.onnx goes inside
# make bench-animals   the four commands and the baseline on ../shared/animals, about half an hour
# make bench-whisper   real Whisper: frozen, fine-tuned, cut, beside baselines and BirdNET (make bench-birdnet first); ROWS=cd SEEDS="0 1"
# make bench-systems   Whisper beside the other encoders, their blend, ensembles in INT8; FOLDS="0 1" SYSTEMS="cnn vit"
# make bench-loading   windows per second: whole files, seeking, cache
# make bench-verdict   does stage 1 help real Whisper? Half an hour an arm and seed, 24 of them; goes on where it was stopped; SIZE=demo FOLD=0 SEEDS=0 WAYS="probe frozen"
# make bench-folds   all recordings of ../shared/animals judged by a classifier that never heard them
# make bench-birdnet   the yardstick: BirdNET 2.4 embeddings with logistic regression, in an environment of its own
# make bench-teachers   Whisper imitates BirdNET's embeddings on sound without labels: how much of its lead is made up; FOLD=0 EPOCHS=2 WAY=full
# make bench-self-training   rounds of labelling and training with their brakes and without; FOLDS="0 1" ARMS=bnmstrc
# make bench-recipe   all steps one after the other, each judged against the one before; FOLD=0 WAY="full mask"
# make bench-gpu   makes gpu-pack/, what bench/gpu.py takes to a GPU without network, and tries it at demo size on this CPU
# make bench-soundscapes   soundscapes with exact answers, of every fold: all classifiers of bench-whisper, or FOLDERS="name=folder ..."
# make bench-losses   each loss on the same recordings, with controls
# make bench-ingredients   stage 2 without each of its parts, or with another; WAY=frozen FOLD=1 MINUTES=180 SEEDS="0 1 2"
# make bench-listening   what predictor.py's ways to listen are worth in soundscapes; MODELS="a.onnx b.onnx" FOLD=0
# make bench-context   5, 10 and 20 s heard at once: what it is worth, what it costs
# make bench-bats  calls of bats found within 20 ms, made-up and real ones, at 256 kHz, and at 16 kHz where there are none
# make bench-whales   made-up calls of whales found within a second, at 2 kHz and at 16 kHz
# make bench-cpu   what each way of serving costs on this CPU (SIZE=base); make bench-serving: decoding and scoring together
# make bench-busy   windows per second alone, beside a busy process, beside a second training
# make bench-search   find by example: layers and poolings of Whisper, BirdNET (make bench-birdnet first), log-mel statistics
# make bench-stores   the nearest of many embeddings: ours against faiss, usearch, lancedb where they are installed (COUNT=100000)
# make bench-reliability   what is promised of runs and files that go wrong, and what the tests counted
# make bench-counts   do the intervals of count.py hold the truth? made-up seasons of eight kinds, SEASONS=1000 of each
# make bench-kill   kill -9 at 50 moments of both training loops and the predictor, each resumed and compared
# make bench-cluster   what Dask's workers cost for each recording, and how near 1, 2 and 4 of them come to the ideal
# make bench-scale   the index of 300,000 recordings: seconds and memory of every step
# make bench-mae-speed   visible tokens alone against all, 5 s against 30 s
# Both set up .venv first. TORCH_INDEX=https://download.pytorch.org/whl/cpu takes torch without CUDA.

PYTHON ?= python3
READY := .venv/ready
CHECKS := .venv/ready-checks
# in the order of tests/conftest.py; a process of tests that dies is a failure, and the end
PARALLEL := --numprocesses auto --max-worker-restart 0 --dist loadfile --no-loadscope-reorder

.PHONY: predictor.pyz demo test test-all test-browser check setup bench-animals bench-whisper bench-birdnet bench-teachers bench-gpu bench-loading bench-verdict bench-mae-speed bench-folds bench-losses bench-soundscapes bench-self-training bench-recipe bench-ingredients bench-context bench-listening bench-bats bench-whales bench-cpu bench-serving bench-busy bench-reliability bench-kill bench-scale bench-counts bench-search bench-stores bench-systems bench-cluster

demo: $(READY)
	@.venv/bin/python demo.py

test: check
	@.venv/bin/python -m pytest -m "not slow" $(PARALLEL)

test-all: check
	@.venv/bin/python -m pytest --hypothesis-profile=search $(PARALLEL)

test-browser: $(CHECKS)
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-browser.txt
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || \
	  { command -v apt-get >/dev/null || { echo "no chromium here and no apt to install it with"; exit 1; }; \
	    if [ $$(id -u) = 0 ]; then run=; else run=sudo; fi; \
	    $$run apt-get update -q && $$run apt-get install -y -q --no-install-recommends chromium; }
	@.venv/bin/python -m pytest tests/test_report_browser.py

predictor.pyz: $(READY)
	@.venv/bin/python pack.py $(if $(MODEL),--bundle $(MODEL))

bench-animals: $(READY)
	@.venv/bin/python -m bench.animals

bench-loading: $(READY)
	@.venv/bin/python -m bench.loading

bench-verdict: $(READY)
	@.venv/bin/python -m bench.verdict --size $(or $(SIZE),base) --fold $(or $(FOLD),0) --seeds $(or $(SEEDS),0 1 2) --ways $(or $(WAYS),probe frozen full)

bench-folds: $(READY)
	@.venv/bin/python -m bench.folds

bench-whisper: $(READY)
	@.venv/bin/python -m bench.whisper $(or $(ROWS),bcdef) $(SEEDS)

bench-systems: $(READY)
	@.venv/bin/python -m bench.systems $(if $(FOLDS),--folds $(FOLDS)) $(if $(SYSTEMS),--systems $(SYSTEMS))

bench-birdnet: $(READY)
	@.venv/bin/python -m bench.birdnet

bench-teachers: $(READY)
	@.venv/bin/python -m bench.teachers $(or $(FOLD),0) $(or $(EPOCHS),2) $(WAY)

bench-gpu: $(READY)
	@.venv/bin/python -m bench.gpu pack
	@.venv/bin/python -m bench.gpu run --size demo --out runs/gpu-demo

bench-soundscapes: $(READY)
	@.venv/bin/python -m bench.soundscapes $(FOLDERS)

bench-recipe: $(READY)
	@.venv/bin/python -m bench.recipe $(or $(FOLD),0) $(WAY)

bench-self-training: $(READY)
	@.venv/bin/python -m bench.self_training $(FOLDS) $(ARMS)

bench-losses: $(READY)
	@.venv/bin/python -m bench.losses

bench-ingredients: $(READY)
	@.venv/bin/python -m bench.ingredients $(or $(WAY),frozen) $(or $(FOLD),1) $(or $(MINUTES),180) $(SEEDS)

bench-bats: $(READY)
	@.venv/bin/python -m bench.calls bats

bench-whales: $(READY)
	@.venv/bin/python -m bench.calls whales

bench-context: $(READY)
	@.venv/bin/python -m bench.context

bench-listening: $(READY)
	@.venv/bin/python -m bench.listening $(if $(MODELS),--models $(MODELS)) --fold $(or $(FOLD),0)

bench-cpu: $(READY)
	@.venv/bin/python -m bench.cpu --size $(or $(SIZE),base)

bench-serving: $(READY)
	@.venv/bin/python -m bench.serving $(or $(SIZE),tiny)

bench-busy: $(READY)
	@.venv/bin/python -m bench.busy

bench-reliability: $(CHECKS)
	@.venv/bin/python -m bench.reliability

bench-counts: $(READY)
	@.venv/bin/python -m bench.counts $(or $(SEASONS),1000) $(or $(SEED),0)

bench-kill: $(CHECKS)
	@.venv/bin/python -m bench.kill

bench-search: $(READY)
	@.venv/bin/python -m bench.search

bench-stores: $(READY)
	@.venv/bin/python -m bench.stores $(or $(COUNT),100000)

bench-cluster: $(CHECKS)
	@.venv/bin/python -m bench.cluster $(or $(COUNT),2000)

bench-scale: $(READY)
	@.venv/bin/python -m bench.scale

bench-mae-speed: $(READY)
	@.venv/bin/python -m bench.mae_speed

check: $(CHECKS)
	@echo "style and types ..."
	@.venv/bin/ruff check
	@.venv/bin/ruff format --check
	@.venv/bin/mypy & types=$$!; .venv/bin/pyright && wait $$types

setup: $(READY)

# pip's own bars are lost in a pipe; what is large is named as it comes
install = @{ .venv/bin/python -m pip install --disable-pip-version-check --progress-bar off \
  $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) -r $(1) && touch $(2); } | \
  awk '/^ *(Downloading|Using cached) .*[0-9.]+ [MG]B\)/ && !/metadata/ { print "  " $$(NF - 2) " " $$(NF - 1) " " $$NF; fflush() }'; test -e $(2)

$(READY): requirements.txt requirements-score.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed, this is $$($(PYTHON) --version); try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	  { echo "python3-venv is missing; on Debian or Ubuntu: sudo apt install python3-venv"; exit 1; }
	@echo "setting up .venv: PyTorch, transformers, onnxruntime and the rest of requirements.txt (once, some minutes)"
	@$(PYTHON) -m venv .venv
	@rm -f $(READY)
	$(call install,requirements.txt,$(READY))

$(CHECKS): $(READY) requirements-dev.txt requirements-openvino.txt requirements-cluster.txt
	@echo "and what checks the code: requirements-dev.txt"
	@rm -f $(CHECKS)
	$(call install,requirements-dev.txt,$(CHECKS))

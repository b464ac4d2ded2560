# make            build            make test    every suite, in private instances
# make install    install          make demo    the voiding process, shown
# make help       all targets

EXTENSION  = voiding
EXTVERSION := $(shell sed -n "s/^default_version = '\(.*\)'/\1/p" voiding.control)
MODULE_big = voiding
OBJS       = $(patsubst %.c,%.o,$(sort $(wildcard src/*.c)))
SCRIPT     = voiding--$(EXTVERSION).sql
DATA_built = $(SCRIPT)
EXTRA_CLEAN = $(wildcard src/*.d src/gateway/*.d src/gateway/*.o) src/gateway/page_files.h voiding-gateway test/out build

PG_CPPFLAGS = -DVOIDING_VERSION='"$(EXTVERSION)"'
PG_CFLAGS   = -std=gnu11 -Wall -Wextra -Werror -Wno-unused-parameter -Wno-declaration-after-statement -MMD -MP
override with_llvm := no

REGRESS      = $(patsubst test/sql/%.sql,%,$(sort $(wildcard test/sql/*.sql)))
REGRESS_OPTS = --inputdir=test --outputdir=test/out --load-extension=voiding
ISOLATION    = $(patsubst test/specs/%.spec,%,$(sort $(wildcard test/specs/*.spec)))
ISOLATION_OPTS = --inputdir=test --outputdir=test/out/isolation --load-extension=voiding

PG_CONFIG ?= pg_config
PGXS      := $(shell $(PG_CONFIG) --pgxs 2>/dev/null)
ifneq ($(wildcard $(PGXS)),)
include $(PGXS)
else
# Nothing is installed yet: these targets install what they need.
.DEFAULT_GOAL := help
all install installcheck:
	@echo "PostgreSQL's server headers are missing: run script/setup, or make test" >&2; false
endif

-include $(wildcard src/*.d src/gateway/*.d)

$(OBJS): voiding.control

$(SCRIPT): script/join-sql sql/install.list $(wildcard sql/*.sql sql/*.json)
	script/join-sql > $@.tmp && mv $@.tmp $@

# the gateway, where the libraries that it needs are installed
GATEWAY_LIBS = libmicrohttpd libjwt jansson libpq
GATEWAY_OBJS = $(patsubst %.c,%.o,$(sort $(wildcard src/gateway/*.c)))
GATEWAY_SAYS := $(shell pkg-config --exists $(GATEWAY_LIBS) 2>/dev/null && echo yes)
ifeq ($(GATEWAY_SAYS),yes)
all: gateway
install: install-gateway
endif

gateway: voiding-gateway
voiding-gateway: $(GATEWAY_OBJS)
	$(CC) $(GATEWAY_CFLAGS) $(LDFLAGS) -o $@ $(GATEWAY_OBJS) $(shell pkg-config --libs $(GATEWAY_LIBS))
src/gateway/%.o: src/gateway/%.c voiding.control
	$(CC) -std=gnu11 -D_GNU_SOURCE -O2 -g -Wall -Wextra -Werror $(GATEWAY_CFLAGS) -DVOIDING_VERSION='"$(EXTVERSION)"' -MMD -MP \
		$(shell pkg-config --cflags $(GATEWAY_LIBS)) -c -o $@ $<
src/gateway/page.o: src/gateway/page_files.h
src/gateway/page_files.h: script/embed $(shell find console -type f)
	script/embed console > $@.tmp && mv $@.tmp $@
# the same under AddressSanitizer, for tests
build/gateway-asan: $(wildcard src/gateway/*.[ch]) src/gateway/page_files.h
	mkdir -p build
	$(CC) -std=gnu11 -D_GNU_SOURCE -O1 -g -Wall -Wextra -Werror -fsanitize=address,undefined -fno-sanitize-recover=all \
		-DVOIDING_VERSION='"$(EXTVERSION)"' $(shell pkg-config --cflags $(GATEWAY_LIBS)) -o $@ $(wildcard src/gateway/*.c) \
		$(shell pkg-config --libs $(GATEWAY_LIBS))
# reads logical replication, for tests
build/pgoutput: test/clients/pgoutput.c
	mkdir -p build
	$(CC) -std=gnu11 -D_GNU_SOURCE -O2 -g -Wall -Wextra -Werror -I$(shell $(PG_CONFIG) --includedir) -o $@ $< -L$(shell $(PG_CONFIG) --libdir) -lpq
install-gateway: voiding-gateway
	$(MKDIR_P) '$(DESTDIR)$(bindir)' '$(DESTDIR)$(mandir)/man1'
	$(INSTALL_PROGRAM) voiding-gateway '$(DESTDIR)$(bindir)/'
	$(INSTALL_DATA) src/gateway/voiding-gateway.1 '$(DESTDIR)$(mandir)/man1/'

# pg_regress 15 compares with OUTPUTDIR/expected, later ones with expected
installcheck: test/out/expected test/out/isolation/expected
test/out/expected test/out/isolation/expected:
	mkdir -p $(dir $@) && ln -sfn $(CURDIR)/expected $@

.PHONY: gateway install-gateway test test-workers test-matrix demo bench bench-peers lint check-asan dist help

# what tests and benchmark spread processes with
PLPROXY = postgresql-$(or $(PG_VERSION),15)-plproxy

# what a test of failover needs
PATRONI = patroni python3-etcd etcd-server

# npm may have come with another Node.js than Debian's
test:
	script/setup $(PLPROXY) $(PATRONI) chromium fonts-dejavu-core $$(command -v npm >/dev/null || echo nodejs npm)
	KEEP=build/console script/unprivileged script/modes SERVED=0 "SERVED=2 BY_HAND=0"

test-workers:
	script/setup
	script/unprivileged script/modes "SERVED=1 PRELOAD=0" "SERVED=1 PRELOAD=1" "SERVED=2 PRELOAD=0" "SERVED=2 PRELOAD=1" \
		"SERVED=4 PRELOAD=0" "SERVED=4 PRELOAD=1"

test-matrix:
	script/matrix

demo:
	script/setup
	script/unprivileged script/demo

bench:
	@script/setup $(PLPROXY) gnuplot-nox wrk
	@KEEP=test/bench/results script/unprivileged script/bench

# PgQ's daemon needs libevent; npm may have come with another Node.js than Debian's
bench-peers:
	@script/setup libevent-2.1-7 $$(command -v npm >/dev/null || echo nodejs npm)
	@mkdir -p test/bench/results
	@script/unprivileged script/bench-peers >test/bench/results/peers.txt; status=$$?; \
		cat test/bench/results/peers.txt; exit $$status

lint:
	script/lint

check-asan:
	script/setup $(PLPROXY)
	script/unprivileged env VOIDING_SANITIZE=1 BROWSER=0 script/suites

dist:
	git archive --prefix=voiding-$(EXTVERSION)/ -o voiding-$(EXTVERSION).tar.gz HEAD

help:
	@sed -n 's/^#H //p' Makefile

#H make              build with the pg_config in PATH (or PG_CONFIG=...)
#H make install      install into that PostgreSQL
#H make gateway      build voiding-gateway (make does, where its libraries are)
#H make installcheck regression and isolation tests against a running server
#H make test         install what is missing, build, run every suite in private instances, by hand and with workers
#H make test-workers every suite with 1, 2 and 4 workers, the library preloaded and not
#H make test-matrix  the same on PostgreSQL 15, 17 and 18, as root; MATRIX="17 18", MATRIX_DIR=DIR
#H make demo         the voiding process on billing data; DEMO=once, DEMO_DATA=FILE.csv, DEMO_EVERY=SECONDS, SLOW_DOWN=1
#H make bench        voiding beside the same process by hand, with fsync; BENCH=quick: two minutes
#H make bench-peers  voiding beside graphile-worker, pg-boss and PgQ; BENCH=quick: two minutes
#H make lint         style and duplicate checks
#H make check-asan   the suites under AddressSanitizer
#H make dist         a source archive

# SPDX-License-Identifier: MIT
# Builds everything into build/; `make help` lists the targets.

VERSION := 0.1.0
B := build
# The prerequisites of test, bench and demo may be this file's own goals: one make, all defaults.
.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
.SUFFIXES:
MAKEFLAGS += --no-builtin-rules

# V=1 shows commands whole.
Q := $(if $(V),,@)
say = $(if $(V),,@printf '  %-8s %s\n' '$(1)' '$(2)')

CC ?= cc
CLANG ?= clang
BPFTOOL ?= $(firstword $(wildcard /usr/sbin/bpftool /usr/local/sbin/bpftool) bpftool)
CFLAGS ?= -O2 -g
# In CI a warning is an error.
WERROR ?= $(CI)
WARNINGS := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes $(if $(WERROR),-Werror)
SANITIZE := -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
PACKAGES := libbpf libuv libcurl libssl libcrypto libcares jansson libmicrohttpd libcap-ng libpcre2-8 zlib
ALL_CPPFLAGS = -D_GNU_SOURCE -DDURPINA_VERSION=\"$(VERSION)\" -Ibpf -Icontroller -I$(B) \
	$(PKG_CFLAGS) $(CPPFLAGS)
ALL_CFLAGS = -std=gnu11 $(WARNINGS) $(CFLAGS)
# Asked once, and only when something is compiled: a bare machine has no pkg-config yet.
PKG_CFLAGS = $(eval PKG_CFLAGS := $$(shell pkg-config --cflags $$(PACKAGES)))$(PKG_CFLAGS)
PKG_LIBS = $(eval PKG_LIBS := $$(shell pkg-config --libs $$(PACKAGES)))$(PKG_LIBS)
MULTIARCH = $(shell $(CC) -print-multiarch)

SOURCES := $(sort $(wildcard controller/*.c))
LIB_SOURCES := $(filter-out controller/main.c controller/durpinactl.c,$(SOURCES))
UNIT_TESTS := $(patsubst tests/unit/%.c,%,$(sort $(wildcard tests/unit/test_*.c)))
BPF_TESTS := $(patsubst tests/bpf/%.c,%,$(sort $(wildcard tests/bpf/test_*.c)))
BENCHES := $(filter-out harness,$(patsubst tests/bench/%.c,%,$(sort $(wildcard tests/bench/*.c))))
C_FILES := $(sort $(wildcard bpf/*.[ch] controller/*.[ch] nginx-module/*.[ch] tests/*/*.[ch]))
LUA_FILES := $(sort $(wildcard lua/durpina/*.lua))

OBJECTS := $(patsubst controller/%.c,$(B)/obj/%.o,$(LIB_SOURCES))
ASAN_OBJECTS := $(patsubst controller/%.c,$(B)/asan/obj/%.o,$(LIB_SOURCES))
FUZZ_OBJECTS := $(patsubst controller/%.c,$(B)/fuzz/obj/%.o,$(LIB_SOURCES))
PROGRAMS := $(B)/durpinad $(B)/durpinactl
MODULE := $(B)/ngx_http_durpina_module.so
UNIT_PROGRAMS := $(addprefix $(B)/unit/,$(UNIT_TESTS))
BPF_PROGRAMS := $(addprefix $(B)/bpf/,$(BPF_TESTS))
FUZZ_PROGRAMS := $(patsubst tests/fuzz/%.c,$(B)/fuzz/%,$(sort $(wildcard tests/fuzz/fuzz_*.c)))

#@ all           build durpinad, durpinactl and the nginx module (default)
.PHONY: all
all: $(PROGRAMS) $(MODULE) $(B)/libdurpinad.a $(B)/compile_commands.json

#@ help          this list; V=1 shows commands, WERROR=1 makes warnings errors, CC=clang
.PHONY: help
help:
	@sed -n 's/^#@ /  make /p' $(MAKEFILE_LIST)

# Changes whenever the compiler or its flags do, so that nothing stale is linked.
$(B)/flags: FORCE
	@mkdir -p $(@D)
	@printf '%s\n' '$(CC)' '$(ALL_CFLAGS)' '$(CPPFLAGS) $(LDFLAGS) $(VERSION)' >$@.new
	@cmp -s $@ $@.new && rm $@.new || mv $@.new $@
.PHONY: FORCE
FORCE:

# --- BPF objects and skeletons -------------------------------------------------------------------

# The name of the CPU as libbpf's headers know it: bpf/durpina_seq.h goes by it.
BPF_ARCH := $(patsubst x86_64,x86,$(patsubst aarch64,arm64,$(shell uname -m)))
BPF_OBJECTS := durpina observe connect
SKELETONS := $(patsubst %,$(B)/%.skel.h,$(BPF_OBJECTS))
TEST_SKELETONS := $(B)/connect_xdp.skel.h
.SECONDARY: $(SKELETONS) $(TEST_SKELETONS) $(patsubst %.skel.h,%.bpf.o,$(SKELETONS) $(TEST_SKELETONS))

# $(1): where the source is. Programs are called by the kernel alone: they have no prototypes.
define bpf_rules
$(B)/%.bpf.o: $(1)/%.bpf.c $(B)/flags
	$$(call say,BPF,$$@)
	$$(Q)$$(CLANG) -target bpf -mcpu=v3 -O2 -g -ffreestanding \
		$$(filter-out -Wmissing-prototypes,$$(WARNINGS)) \
		-D__TARGET_ARCH_$$(BPF_ARCH) -Ibpf -idirafter /usr/include/$$(MULTIARCH) -MMD -MP \
		-c $$< -o $$@
endef
$(eval $(call bpf_rules,bpf))
$(eval $(call bpf_rules,tests/bpf))

$(B)/%.skel.h: $(B)/%.bpf.o
	$(call say,SKEL,$@)
	$(Q)$(BPFTOOL) gen skeleton $< name $* >$@

# --- controller ----------------------------------------------------------------------------------

# $(1): directory under build, $(2): extra flags
define controller_rules
$(1)/obj/%.o: controller/%.c $(B)/flags | $(SKELETONS)
	@mkdir -p $$(@D)
	$$(call say,CC,$$@)
	$$(Q)$$(CC) $$(ALL_CPPFLAGS) $$(ALL_CFLAGS) $(2) -MMD -MP -c $$< -o $$@
$(1)/durpinad: $(1)/obj/main.o $(1)/libdurpinad.a
	$$(call say,LINK,$$@)
	$$(Q)$$(CC) $$(ALL_CFLAGS) $(2) $$(LDFLAGS) $$^ $$(PKG_LIBS) -o $$@
$(1)/durpinactl: $(1)/obj/durpinactl.o $(1)/libdurpinad.a
	$$(call say,LINK,$$@)
	$$(Q)$$(CC) $$(ALL_CFLAGS) $(2) $$(LDFLAGS) $$^ $$(PKG_LIBS) -o $$@
endef
$(eval $(call controller_rules,$(B),))
$(eval $(call controller_rules,$(B)/asan,$(SANITIZE)))

# The list of members is a prerequisite: an object that is gone must leave the archive.
$(B)/members: FORCE | $(B)/flags
	@printf '%s\n' $(LIB_SOURCES) >$@.new
	@cmp -s $@ $@.new && rm $@.new || mv $@.new $@
$(B)/libdurpinad.a: $(OBJECTS) $(B)/members
$(B)/asan/libdurpinad.a: $(ASAN_OBJECTS) $(B)/members
%/libdurpinad.a:
	$(call say,AR,$@)
	$(Q)rm -f $@ && $(AR) rcs $@ $(filter %.o,$^)

# --- nginx module, out of tree against the packaged headers --------------------------------------

NGINX_SRC := /usr/share/nginx/src
NGINX_TREE := $(B)/nginx-src
MODULE_SOURCES := $(wildcard nginx-module/*.[ch]) $(wildcard bpf/*.h)

# The C declarations that Lua gives to LuaJIT: the preprocessed header as one string literal.
$(B)/ngx_http_durpina_cdef.h: nginx-module/ngx_http_durpina_ffi.h $(B)/flags
	$(call say,CDEF,$@)
	$(Q){ printf '#define NGX_HTTP_DURPINA_FFI_CDEF \\\n'; \
		sed '/#include/d' $< | $(CC) -E -P -x c - | \
		sed -e 's/[\\"]/\\&/g' -e 's/.*/    "&\\n" \\/' -e '$$s/ \\$$//'; } >$@

# $(1): the tree, $(2): the directory of the module
define nginx_tree_rules
$(1)/objs/Makefile: $(2)/config $(B)/flags $(wildcard $(NGINX_SRC)/conf_flags)
	$$(call say,NGX,configure $(2))
	$$(Q)mkdir -p $$(dir $(1)) && rm -rf $(1) && cp -r $(NGINX_SRC) $(1)
	$$(Q)cd $(1) && DURPINA_BUILD=$$(abspath $(B)) bash -c '. ./conf_flags && \
		./configure "$$$${NGX_CONF_FLAGS[@]}" --with-compat \
		--with-cc="$$(CC)" --with-cc-opt="$$(CFLAGS) -Wextra -Wno-unused-parameter" \
		--add-dynamic-module="$$(CURDIR)/$(2)"' \
		>configure.log 2>&1 || { cat configure.log; rm -rf objs; exit 1; }
endef
$(eval $(call nginx_tree_rules,$(NGINX_TREE),nginx-module))

# nginx's makefile does not know all headers, and the module compiles in a second: always whole. It is
# not copied over the old one: an nginx that has that mapped would crash.
$(MODULE): $(NGINX_TREE)/objs/Makefile $(MODULE_SOURCES) $(B)/ngx_http_durpina_cdef.h
	$(call say,NGX,$@)
	$(Q)find $(NGINX_TREE)/objs/addon -name '*.o' -delete
	$(Q)$(MAKE) -s -C $(NGINX_TREE) -f objs/Makefile modules $(if $(V),,>/dev/null)
	$(Q)cp $(NGINX_TREE)/objs/$(@F) $@.new && mv $@.new $@

# --- tests ---------------------------------------------------------------------------------------

define test_rules
$(B)/$(1)/%: tests/$(1)/%.c $(B)/asan/libdurpinad.a
	@mkdir -p $$(@D)
	$$(call say,CC,$$@)
	$$(Q)$$(CC) $$(ALL_CPPFLAGS) $$(ALL_CFLAGS) $(SANITIZE) -Werror=unused-function -MMD -MP \
		$$< $(B)/asan/libdurpinad.a $$(LDFLAGS) $$(PKG_LIBS) -lcmocka -lm -o $$@
endef
$(eval $(call test_rules,unit))
$(eval $(call test_rules,bpf))
$(BPF_PROGRAMS): | $(TEST_SKELETONS)

$(B)/bench/%.o: tests/bench/%.c $(B)/flags
	@mkdir -p $(@D)
	$(call say,CC,$@)
	$(Q)$(CC) $(ALL_CPPFLAGS) $(ALL_CFLAGS) -MMD -MP -c $< -o $@
$(addprefix $(B)/bench/,$(BENCHES)): %: %.o $(B)/bench/harness.o
	$(call say,LINK,$@)
	$(Q)$(CC) $(ALL_CFLAGS) $(LDFLAGS) $^ -lbpf -lm -o $@

BENCH_TREE := $(B)/bench/nginx-src
BENCH_MODULE := $(B)/bench/ngx_http_bench_module.so
$(eval $(call nginx_tree_rules,$(BENCH_TREE),tests/bench/nginx-module))
$(BENCH_MODULE): $(BENCH_TREE)/objs/Makefile $(wildcard tests/bench/nginx-module/*.c)
	$(call say,NGX,$@)
	$(Q)$(MAKE) -s -C $(BENCH_TREE) -f objs/Makefile modules $(if $(V),,>/dev/null)
	$(Q)cp $(BENCH_TREE)/objs/$(@F) $@.new && mv $@.new $@

.PHONY: tests
tests: all $(UNIT_PROGRAMS) $(BPF_PROGRAMS) $(addprefix $(B)/bench/,$(BENCHES))

#@ check         install what is missing, build, run every test tier (as root)
# T=... runs only these: tier names or test files
.PHONY: check
check: deps
	$(Q)$(MAKE) -j$$(nproc) tests
	$(Q)DURPINA_BUILD=$(abspath $(B)) tests/run $(T)

#@ asan          the controller and the unit tests under ASan and UBSan
.PHONY: asan
asan: $(B)/asan/durpinad $(B)/asan/durpinactl $(UNIT_PROGRAMS)
	$(Q)DURPINA_BUILD=$(abspath $(B)) tests/run unit

# libFuzzer comes with clang; what is not only for it, such as flags, keeps its compiler.
FUZZ_SANITIZE := -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined
$(B)/fuzz/%: private CC = $(CLANG)
$(eval $(call controller_rules,$(B)/fuzz,$(FUZZ_SANITIZE)))
$(B)/fuzz/libdurpinad.a: $(FUZZ_OBJECTS) $(B)/members
$(FUZZ_PROGRAMS): $(B)/fuzz/%: tests/fuzz/%.c $(B)/fuzz/libdurpinad.a
	$(call say,CC,$@)
	$(Q)$(CC) $(ALL_CPPFLAGS) $(ALL_CFLAGS) $(FUZZ_SANITIZE) -fsanitize=fuzzer -MMD -MP \
		$< $(B)/fuzz/libdurpinad.a $(LDFLAGS) $(PKG_LIBS) -o $@

#@ fuzz          the parsers of what others send, T seconds each: T=60
.PHONY: fuzz
fuzz: deps
	$(Q)missing=$$(packaging/missing-packages $(FUZZ_DEPS)); \
	[ -z "$$missing" ] || packaging/install-packages $$missing
	$(Q)$(MAKE) $(FUZZ_PROGRAMS)
	$(Q)DURPINA_BUILD=$(abspath $(B)) tests/fuzz/run $(or $(T),60)

#@ demo          the main job in a minute (as root); KEEP=1 leaves it running
.PHONY: demo
demo: deps
	$(Q)$(MAKE) all
	$(Q)KEEP=$(KEEP) tests/e2e/demo.sh

#@ bench         speed and memory beside nginx and HAProxy (as root); ROUNDS=3 is quick
.PHONY: bench
bench: deps
	$(Q)missing=$$(packaging/missing-packages $(BENCH_DEPS)); \
	[ -z "$$missing" ] || packaging/install-packages $$missing
	$(Q)$(MAKE) all $(addprefix $(B)/bench/,$(BENCHES)) $(BENCH_MODULE)
	$(Q)DURPINA_BUILD=$(abspath $(B)) tests/bench/run $(PART)

# --- packages ------------------------------------------------------------------------------------

BUILD_DEPS := gcc libc6-dev clang bpftool pkg-config libbpf-dev libuv1-dev libcurl4-openssl-dev \
	libc-ares-dev libjansson-dev libmicrohttpd-dev libcap-ng-dev libxxhash-dev uthash-dev \
	libssl-dev zlib1g-dev libpcre2-dev nginx nginx-dev
TEST_DEPS := libnginx-mod-http-lua lua-cjson libcmocka-dev curl jq wrk iproute2 procps \
	luajit2 openssl haproxy nsd python3 python3-grpcio prometheus nftables \
	libnginx-mod-stream bind9-dnsutils redis-server redis-tools python3-redis
LINT_DEPS := clang-format cppcheck lua-check
BENCH_DEPS := haproxy util-linux valgrind
FUZZ_DEPS := libclang-rt-14-dev

#@ deps          install what a bare Debian 12 lacks, and nothing if nothing is missing
# Debian starts an installed nginx at once; policy-rc.d keeps it from taking port 80 here.
.PHONY: deps
deps:
	$(Q)missing=$$(packaging/missing-packages $(BUILD_DEPS) $(TEST_DEPS) $(LINT_DEPS)); \
	[ -z "$$missing" ] || packaging/install-packages $$missing

# --- install -------------------------------------------------------------------------------------

PREFIX ?= /usr/local
SBINDIR ?= $(PREFIX)/sbin
BINDIR ?= $(PREFIX)/bin
LUADIR ?= $(PREFIX)/share/lua/5.1
SYSCONFDIR ?= /etc
NGINX_MODULES ?= /usr/lib/nginx/modules
NGINX_AVAILABLE ?= /usr/share/nginx/modules-available
UNITDIR ?= /lib/systemd/system
SYSUSERSDIR ?= /usr/lib/sysusers.d
INSTALLED = $(SBINDIR)/durpinad $(BINDIR)/durpinactl $(NGINX_MODULES)/ngx_http_durpina_module.so \
	$(NGINX_AVAILABLE)/mod-http-durpina.conf $(UNITDIR)/durpinad.service \
	$(SYSUSERSDIR)/durpina.conf $(LUADIR)/durpina

#@ install       into DESTDIR, under PREFIX (/usr/local)
.PHONY: install
install: all
	install -D -m 755 $(B)/durpinad $(DESTDIR)$(SBINDIR)/durpinad
	install -D -m 755 $(B)/durpinactl $(DESTDIR)$(BINDIR)/durpinactl
	install -D -m 644 $(MODULE) $(DESTDIR)$(NGINX_MODULES)/ngx_http_durpina_module.so
	install -D -m 644 packaging/mod-http-durpina.conf \
		$(DESTDIR)$(NGINX_AVAILABLE)/mod-http-durpina.conf
	install -d $(DESTDIR)$(LUADIR)/durpina
	install -m 644 $(LUA_FILES) $(DESTDIR)$(LUADIR)/durpina
	install -d $(DESTDIR)$(UNITDIR)
	sed 's|@SBINDIR@|$(SBINDIR)|g' packaging/durpinad.service.in \
		>$(DESTDIR)$(UNITDIR)/durpinad.service
	install -D -m 644 packaging/durpina.sysusers $(DESTDIR)$(SYSUSERSDIR)/durpina.conf
	test -e $(DESTDIR)$(SYSCONFDIR)/durpina/durpinad.conf || install -D -m 644 \
		packaging/durpinad.conf $(DESTDIR)$(SYSCONFDIR)/durpina/durpinad.conf

#@ uninstall     what install put there, but for the configuration
.PHONY: uninstall
uninstall:
	rm -rf $(addprefix $(DESTDIR),$(INSTALLED))

# --- housekeeping --------------------------------------------------------------------------------

NGINX_INCLUDES := $(addprefix -I$(NGINX_TREE)/,objs src/core src/event src/event/modules \
	src/os/unix src/http src/http/modules)

$(B)/compile_commands.json: Makefile $(C_FILES) | $(B)/flags
	$(call say,JSON,$@)
	$(Q)packaging/compile-commands '$(CURDIR)' \
		'$(CC) $(ALL_CFLAGS) $(ALL_CPPFLAGS)' '$(NGINX_INCLUDES)' \
		$(filter %.c,$(C_FILES)) >$@

#@ format        reformat all C with clang-format
.PHONY: format
format:
	clang-format -i $(C_FILES)

#@ lint          clang-format, cppcheck and luacheck, changing nothing
# Given a -D, cppcheck reads the code as it is compiled, not every combination of #ifdef in headers.
.PHONY: lint
lint:
	clang-format --dry-run --Werror $(C_FILES)
	cppcheck --quiet -j 2 --error-exitcode=1 --inline-suppr --std=c11 \
		--enable=warning,performance,portability --suppress=missingInclude -D_GNU_SOURCE \
		--suppress='*:/usr/include/*' --suppress=uninitvar \
		$(patsubst %,--include=/usr/include/%.h,uthash utlist jansson) \
		-Ibpf -Icontroller $(SOURCES)
	luacheck --quiet $(LUA_FILES)

#@ clean         remove build/
.PHONY: clean
clean:
	rm -rf $(B)

-include $(wildcard $(B)/*.d $(B)/*/*.d $(B)/asan/*/*.d $(B)/fuzz/*/*.d)

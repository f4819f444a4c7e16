/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "config.h"

#include <cmocka.h> /* last: its macro fail() is not ours */

static char file[64];
static struct config config;
static struct failure failure;

static void write_file(const char *text)
{
    FILE *out = fopen(file, "w");

    assert_non_null(out);
    fputs(text, out);
    assert_int_equal(fclose(out), 0);
}

static int load_with(const char *text, struct invocation *invocation)
{
    write_file(text);
    invocation->file = file;
    invocation->file_given = true;
    failure.text[0] = '\0';
    return config_load(invocation, &config, &failure);
}

static int load(const char *text)
{
    struct invocation invocation = {0};

    return load_with(text, &invocation);
}

/* The text is refused and the message is FILE:LINE: followed by what. */
static void refuses(const char *text, unsigned line, const char *what)
{
    char wanted[256];

    assert_int_equal(load(text), -EINVAL);
    snprintf(wanted, sizeof(wanted), "%s:%u: %s", file, line, what);
    if (strstr(failure.text, wanted) != failure.text)
        fail_msg("got \"%s\", wanted \"%s\"", failure.text, wanted);
}

static int make_file(void **state)
{
    int fd;

    (void) state;
    strcpy(file, "/tmp/durpina-config.XXXXXX");
    fd = mkstemp(file);
    if (fd < 0)
        return -1;
    close(fd);
    return 0;
}

static int remove_file(void **state)
{
    (void) state;
    return unlink(file);
}

static void every_setting_has_a_default(void **state)
{
    struct invocation invocation = {.file = "/nonexistent/durpinad.conf"};

    (void) state;
    assert_int_equal(config_load(&invocation, &config, &failure), 0);
    assert_string_equal(config.pin, "/sys/fs/bpf/durpina");
    assert_string_equal(config.socket, "/run/durpina/api.sock");
    assert_int_equal(config.socket_mode, 0666);
    assert_int_equal(config.upstreams, DURPINA_UPSTREAMS_DEFAULT);
    assert_int_equal(config.peers, DURPINA_PEERS_DEFAULT);
    assert_int_equal(config.slots, DURPINA_SLOTS_DEFAULT);
    assert_int_equal(config.inflight, DURPINA_INFLIGHT_DEFAULT * DURPINA_TRIES_PER_PAGE);
    assert_int_equal(config.request_timeout_ms, 3000);
    assert_int_equal(config.log_level, LOG_LEVEL_NOTICE);
    assert_int_equal(config.listen.n, 0);
}

static void a_file_that_was_asked_for_must_exist(void **state)
{
    struct invocation invocation = {.file = "/nonexistent/durpinad.conf", .file_given = true};

    (void) state;
    assert_int_equal(config_load(&invocation, &config, &failure), -ENOENT);
    assert_non_null(strstr(failure.text, "/nonexistent/durpinad.conf"));
}

static void the_default_file_may_be_missing_but_not_out_of_reach(void **state)
{
    struct invocation invocation = {.file = "/nonexistent/durpinad.conf"};

    (void) state;
    assert_int_equal(config_load(&invocation, &config, &failure), 0);
    invocation.file = "/dev/null/durpinad.conf"; /* ENOTDIR: nobody can say that it is not there */
    assert_int_equal(config_load(&invocation, &config, &failure), -ENOTDIR);
}

static void settings_are_read_in_nginx_syntax(void **state)
{
    (void) state;
    assert_int_equal(load("pin /sys/fs/bpf/x; # a comment\n"
                          "peers 2k; slots\n \"1m\";\n"
                          "socket_mode 0660; state_delay 500ms;\n"
                          "allow_user root 4711; allow_user 4712; allow_group 0;\n"
                          "listen 127.0.0.1:8780; listen [::1]:8781 writable;\n"
                          "resolver 127.0.0.53 [::1]:5353; log_level debug;\n"),
                     0);
    assert_string_equal(config.pin, "/sys/fs/bpf/x");
    assert_int_equal(config.peers, 2048);
    assert_int_equal(config.slots, 1 << 20);
    assert_int_equal(config.socket_mode, 0660);
    assert_int_equal(config.state_delay_ms, 500);
    assert_int_equal(config.allow_users.n, 3);
    assert_int_equal(config.allow_users.ids[0], 0);
    assert_int_equal(config.allow_users.ids[2], 4712);
    assert_int_equal(config.allow_groups.n, 1);
    assert_int_equal(config.listen.n, 2);
    assert_false(config.listen.at[0].writable);
    assert_true(config.listen.at[1].writable);
    assert_int_equal(addr_port(&config.listen.at[1].addr), 8781);
    assert_int_equal(config.resolver.n, 2);
    assert_string_equal(config.resolver.servers[1], "[::1]:5353");
    assert_int_equal(config.log_level, LOG_LEVEL_DEBUG);
}

static void programs_are_on_by_default_and_can_be_told(void **state)
{
    (void) state;
    assert_int_equal(load(""), 0);
    assert_true(config.observe && config.connect);
    assert_string_equal(config.cgroup, "");
    assert_false(config.all_namespaces);
    assert_int_equal(config.mark, 0);
    assert_int_equal(load("observe off; connect off; cgroup /sys/fs/cgroup/web/; mark 0xBEEF;"
                          "network_namespaces all;"),
                     0);
    assert_false(config.observe || config.connect);
    assert_string_equal(config.cgroup, "/sys/fs/cgroup/web");
    assert_true(config.all_namespaces);
    assert_int_equal(config.mark, 0xbeef);
    assert_int_equal(load("mark 4294967295; network_namespaces own;"), 0);
    assert_true(config.mark == UINT32_MAX);
    assert_int_equal(load("mark 0xffffffff;"), 0);
    assert_true(config.mark == UINT32_MAX);

    refuses("observe maybe;", 1, "observe \"maybe\" is neither on nor off");
    refuses("network_namespaces both;", 1, "network_namespaces \"both\" is neither own nor all");
    refuses("cgroup web;", 1, "cgroup \"web\" is no absolute path");
    refuses("mark 4294967296;", 1, "mark \"4294967296\" is no number");
    refuses("mark 0x100000000;", 1, "mark \"0x100000000\" is no number");
    refuses("mark 0x;", 1, "mark \"0x\" is no number");
    refuses("mark -1;", 1, "mark \"-1\" is no number");
    refuses("mark 12a;", 1, "mark \"12a\" is no number");
    refuses("mark 0x0x1;", 1, "mark \"0x0x1\" is no number");
}

static void changed_programs_want_a_restart(void **state)
{
    static struct config running;
    char names[256];

    (void) state;
    assert_int_equal(load(""), 0);
    running = config;
    assert_int_equal(load("observe off; connect off; cgroup /c; network_namespaces all; mark 1;"),
                     0);
    config_restart_needed(&running, &config, names, sizeof(names));
    assert_string_equal(names, "observe, connect, cgroup, network_namespaces, mark");
}

static void v_beside_t_asks_for_more_and_alone_for_the_version(void **state)
{
    char *const both[] = {"durpinad", "-v", "-t"}, *const alone[] = {"durpinad", "-v"};
    char *const cgroup[] = {"durpinad", "--cgroup", "/c"};
    struct invocation invocation;

    (void) state;
    assert_int_equal(invocation_parse(3, both, &invocation, &failure), 0);
    assert_true(invocation.test && invocation.verbose && !invocation.version);
    assert_int_equal(invocation_parse(2, alone, &invocation, &failure), 0);
    assert_true(invocation.version && !invocation.test);
    assert_int_equal(invocation_parse(3, cgroup, &invocation, &failure), 0);
    assert_int_equal(load_with("cgroup /d;", &invocation), 0);
    assert_string_equal(config.cgroup, "/c"); /* the option wins */
}

static void capacities_are_taken_up_to_their_limits(void **state)
{
    static const struct {
        const char *text;
        size_t offset;
        uint32_t value;
    } edges[] = {
        {"upstreams 1;", offsetof(struct config, upstreams), 1},
        {"upstreams 64k;", offsetof(struct config, upstreams), 1 << 16},
        {"peers 1;", offsetof(struct config, peers), 1},
        {"peers 16m;", offsetof(struct config, peers), 1 << 24},
        {"slots 1k;", offsetof(struct config, slots), 1024},
        {"slots 256m;", offsetof(struct config, slots), 1 << 28},
        {"inflight 1;", offsetof(struct config, inflight), 1},
        {"inflight 16m;", offsetof(struct config, inflight), 1 << 24},
    };

    (void) state;
    for (size_t i = 0; i < sizeof(edges) / sizeof(edges[0]); i++) {
        assert_int_equal(load(edges[i].text), 0);
        assert_int_equal(*(uint32_t *) ((char *) &config + edges[i].offset), edges[i].value);
    }
    refuses("upstreams 65537;", 1, "upstreams \"65537\"");
    refuses("peers 16777217;", 1, "peers \"16777217\"");
    refuses("slots 1023;", 1, "slots \"1023\"");
    refuses("slots 268435457;", 1, "slots \"268435457\"");
    refuses("inflight 0;", 1, "inflight \"0\"");
    refuses("inflight 16777217;", 1, "inflight \"16777217\"");
}

static void errors_name_file_line_and_culprit(void **state)
{
    (void) state;
    refuses("\npeeers 5;", 2, "there is no setting \"peeers\"");
    refuses("max-connections 5;", 1, "there is no setting \"max-connections\"");
    refuses("pin /a;\npin /b;", 2, "pin is given twice");
    refuses("pin relative;", 1, "pin \"relative\"");
    refuses("pin /;", 1, "pin \"/\" ends in '/'");
    refuses("state /a/;", 1, "state \"/a/\" ends in '/'");
    refuses("pin;", 1, "pin takes one value");
    refuses("peers { }", 1, "peers is no block");
    refuses("peers 0;", 1, "peers \"0\"");
    refuses("peers -1;", 1, "peers \"-1\"");
    refuses("peers 99g;", 1, "peers \"99g\"");
    refuses("peers 99999999999999999999g;", 1, "peers \"99999999999999999999g\"");
    refuses("peers 5x;", 1, "peers \"5x\"");
    refuses("state_delay soon;", 1, "state_delay \"soon\"");
    refuses("request_timeout 1ms;", 1, "request_timeout \"1ms\"");
    refuses("socket_mode 666;", 1, "socket_mode \"666\"");
    refuses("socket_mode 0999;", 1, "socket_mode \"0999\"");
    refuses("log_level loud;", 1, "log_level \"loud\"");
    refuses("user root;", 1, "user \"root\" is root");
    refuses("user no-such-user-here;", 1, "there is no user \"no-such-user-here\"");
    refuses("allow_user no-such-user-here;", 1, "there is no user \"no-such-user-here\"");
    refuses("allow_group no-such-group;", 1, "there is no group \"no-such-group\"");
    refuses("allow_user 4294967295;", 1, "there is no user \"4294967295\"");
    refuses("allow_user;", 1, "allow_user takes at least one");
    refuses("listen localhost:80;", 1, "listen \"localhost:80\"");
    refuses("listen 127.0.0.1;", 1, "listen \"127.0.0.1\"");
    refuses("listen 127.0.0.1:80 open;", 1, "listen takes an address");
    refuses("resolver dns.example;", 1, "resolver \"dns.example\"");
}

static void vips_are_read_and_bad_ones_are_named(void **state)
{
    (void) state;
    assert_int_equal(load("vip 127.10.0.1:53 upstream=dns; vip 127.10.0.1:53/udp upstream=dns\n"
                          "algorithm=ip-hash; vip [fd00::1]:80 upstream=foo;"),
                     0);
    assert_int_equal(config.vips.n, 3);
    assert_string_equal(config.vips.specs[2].upstream, "foo");
    assert_int_equal(config.vips.specs[1].algorithm, DURPINA_HASH);
    refuses("\nvip;", 2, "a vip is ADDRESS:PORT[/udp] upstream=NAME [algorithm=WORD]");
    refuses("vip 0.0.0.0:80 upstream=foo;", 1, "vip \"0.0.0.0:80\" is the unspecified address");
    refuses("vip 127.0.0.1:0 upstream=foo;", 1, "vip \"127.0.0.1:0\" is no ADDRESS:PORT");
    refuses("vip 127.0.0.1:80;", 1, "vip 127.0.0.1:80: upstream=NAME is missing");
    refuses("vip 127.0.0.1:80 foo;", 1, "vip 127.0.0.1:80: \"foo\" is neither");
    refuses("vip 127.0.0.1:80 upstream=a/b;", 1, "upstream name \"a/b\"");
    refuses("vip 127.0.0.1:80 upstream=a algorithm=least-conn;", 1, "algorithm \"least-conn\"");
    refuses("vip 127.0.0.1:80 upstream=a;\nvip [::ffff:127.0.0.1]:80 upstream=b;", 2,
            "vip [::ffff:127.0.0.1]:80 is given twice");
}

static void there_is_a_limit_of_vips(void **state)
{
    const size_t line = sizeof("vip 127.10.0.1:65535 upstream=foo;");
    char *text = calloc(DURPINA_VIPS_MAX + 1, line), *end = text;

    (void) state;
    assert_non_null(text);
    for (int i = 1; i <= DURPINA_VIPS_MAX; i++)
        end += sprintf(end, "vip 127.10.0.1:%d upstream=foo;", i);
    assert_int_equal(load(text), 0);
    assert_int_equal(config.vips.n, DURPINA_VIPS_MAX);
    sprintf(end, "vip 127.10.0.1:%d upstream=foo;", DURPINA_VIPS_MAX + 1);
    refuses(text, 1, "vip is given more than 1024 times");
    free(text);
}

static void lookups_are_as_told_between_their_limits(void **state)
{
    (void) state;
    assert_int_equal(load(""), 0);
    assert_memory_equal(&config.resolve, &resolve_policy_default, sizeof(config.resolve));
    assert_int_equal(load("resolve off; resolve_min_ttl 1ms; resolve_max_ttl 24h;\n"
                          "resolve_nxdomain 0; resolve_addresses 4096;\n"),
                     0);
    assert_false(config.resolve.follow);
    assert_int_equal(config.resolve.min_ttl_ms, 1);
    assert_int_equal(config.resolve.max_ttl_ms, 86400000);
    assert_int_equal(config.resolve.max_nxdomain, 0);
    assert_int_equal(config.resolve.max_addresses, 4096);
    refuses("resolve yes;", 1, "resolve \"yes\" is neither on nor off");
    refuses("resolve;", 1, "resolve takes one value");
    refuses("resolve_min_ttl 0;", 1, "resolve_min_ttl \"0\"");
    refuses("resolve_max_ttl 25h;", 1, "resolve_max_ttl \"25h\"");
    refuses("resolve_nxdomain 1001;", 1, "resolve_nxdomain \"1001\"");
    refuses("resolve_addresses 0;", 1, "resolve_addresses \"0\"");
    refuses("resolve_addresses 4097;", 1, "resolve_addresses \"4097\"");
}

static void a_refused_file_leaves_the_configuration_alone(void **state)
{
    struct config before;

    (void) state;
    assert_int_equal(load("peers 5k;"), 0);
    before = config;
    assert_int_equal(load("peers 6k; slots none;"), -EINVAL);
    assert_memory_equal(&before, &config, sizeof(config));
}

static void options_override_the_file(void **state)
{
    char *const argv[] = {"durpinad", "--pin", "/a//", "--socket=/b", "--log-level", "info", NULL};
    struct invocation invocation;

    (void) state;
    assert_int_equal(invocation_parse(6, argv, &invocation, &failure), 0);
    assert_int_equal(load_with("pin /c; socket /d; state /e;", &invocation), 0);
    assert_string_equal(config.pin, "/a");
    assert_string_equal(config.socket, "/b");
    assert_string_equal(config.state, "/e");
    assert_int_equal(config.log_level, LOG_LEVEL_INFO);
}

static void wrong_options_are_named(void **state)
{
    static const struct {
        const char *option, *named;
    } wrong[] = {
        {"--frob", "--frob"}, {"--peers=5", "--peers"},
        {"--pin", "--pin"},   {"-c", "-c"},
        {"-x", "-x"},         {"stray", "stray"},
        {"--pi=/x", "--pi"},  {"--pinx=/x", "--pinx"},
        {"--", "--"},
    };
    struct invocation invocation;

    (void) state;
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        char *const argv[] = {"durpinad", (char *) wrong[i].option, NULL};

        assert_int_equal(invocation_parse(2, argv, &invocation, &failure), -EINVAL);
        assert_non_null(strstr(failure.text, wrong[i].named));
    }
}

static void a_bad_value_of_an_option_names_the_option(void **state)
{
    char *const argv[] = {"durpinad", "--log-level=loud", NULL};
    struct invocation invocation;

    (void) state;
    assert_int_equal(invocation_parse(2, argv, &invocation, &failure), 0);
    assert_int_equal(load_with("", &invocation), -EINVAL);
    assert_non_null(strstr(failure.text, "log_level: log_level \"loud\""));
}

static void a_reload_adopts_what_it_may_and_names_the_rest(void **state)
{
    static struct config running;
    char names[256];

    (void) state;
    assert_int_equal(load(""), 0);
    running = config;
    config_restart_needed(&running, &config, names, sizeof(names));
    assert_string_equal(names, "");
    assert_int_equal(load("peers 5k; socket /s; log_level debug; allow_user 7;"), 0);
    config_restart_needed(&running, &config, names, sizeof(names));
    assert_string_equal(names, "socket, peers");
    config_adopt(&running, &config);
    assert_int_equal(running.log_level, LOG_LEVEL_DEBUG);
    assert_int_equal(running.allow_users.ids[0], 7);
    assert_int_equal(running.peers, DURPINA_PEERS_DEFAULT);
    config_restart_needed(&running, &config, names, sizeof(names));
    assert_string_equal(names, "socket, peers");
}

static char *read_whole(const char *path)
{
    FILE *in = fopen(path, "r");
    char *text = calloc(1, 65536);

    assert_non_null(in);
    assert_non_null(text);
    assert_true(fread(text, 1, 65535, in) > 0);
    fclose(in);
    return text;
}

static void packaged_file_and_manual_tell_every_setting(void **state)
{
    char *packaged = read_whole("packaging/durpinad.conf");
    char *manual = read_whole("docs/durpinad.md");
    char wanted[128];

    (void) state;
    for (size_t i = 0; i < config_n_settings; i++) {
        const struct setting *setting = &config_settings[i];

        if (setting->fallback != NULL)
            snprintf(wanted, sizeof(wanted), "\n#%s %s;\n", setting->name, setting->fallback);
        else
            snprintf(wanted, sizeof(wanted), "\n#%s ", setting->name);
        if (strstr(packaged, wanted) == NULL)
            fail_msg("packaging/durpinad.conf lacks \"%s\"", wanted + 1);
        snprintf(wanted, sizeof(wanted), "\n| `%s ", setting->name);
        if (strstr(manual, wanted) == NULL)
            fail_msg("docs/durpinad.md lacks %s", setting->name);
        if (setting->fallback != NULL) {
            snprintf(wanted, sizeof(wanted), "| `%s` |", setting->fallback);
            if (strstr(strstr(manual, setting->name), wanted) == NULL)
                fail_msg("docs/durpinad.md lacks the default of %s", setting->name);
        }
    }
    free(packaged);
    free(manual);
}

static void packaged_file_is_good(void **state)
{
    struct invocation invocation = {.file = "packaging/durpinad.conf", .file_given = true};

    (void) state;
    assert_int_equal(config_load(&invocation, &config, &failure), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_setting_has_a_default),
        cmocka_unit_test(a_file_that_was_asked_for_must_exist),
        cmocka_unit_test(the_default_file_may_be_missing_but_not_out_of_reach),
        cmocka_unit_test(settings_are_read_in_nginx_syntax),
        cmocka_unit_test(programs_are_on_by_default_and_can_be_told),
        cmocka_unit_test(changed_programs_want_a_restart),
        cmocka_unit_test(v_beside_t_asks_for_more_and_alone_for_the_version),
        cmocka_unit_test(capacities_are_taken_up_to_their_limits),
        cmocka_unit_test(errors_name_file_line_and_culprit),
        cmocka_unit_test(vips_are_read_and_bad_ones_are_named),
        cmocka_unit_test(there_is_a_limit_of_vips),
        cmocka_unit_test(lookups_are_as_told_between_their_limits),
        cmocka_unit_test(a_refused_file_leaves_the_configuration_alone),
        cmocka_unit_test(options_override_the_file),
        cmocka_unit_test(wrong_options_are_named),
        cmocka_unit_test(a_bad_value_of_an_option_names_the_option),
        cmocka_unit_test(a_reload_adopts_what_it_may_and_names_the_rest),
        cmocka_unit_test(packaged_file_and_manual_tell_every_setting),
        cmocka_unit_test(packaged_file_is_good),
    };

    return cmocka_run_group_tests(tests, make_file, remove_file);
}

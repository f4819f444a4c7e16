/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model.h"

#include <cmocka.h> /* last: its macro fail() hides the function of failure.h */

/* --- the truth table of docs/states.md --- */

#define DOCUMENT "docs/states.md"
#define ROWS_MAX 32
#define CELL_SIZE 64

enum column { OPERATOR, AGENT_SAYS, AGENT_HEALTHY, VERDICT, MANDATORY, WEIGHT, ADDRESS, PUBLISHED };
#define N_INPUTS PUBLISHED
#define N_COLUMNS (PUBLISHED + 1)

/* The values an input can have, in the order of the enums they stand for. */
static const char *const values[N_INPUTS][5] = {
    [OPERATOR] = {"up", "down", "drain", "maint"},
    [AGENT_SAYS] = {"ready", "drain", "maint"},
    [AGENT_HEALTHY] = {"up", "down"},
    [VERDICT] = {"unknown", "passed", "failed"},
    [MANDATORY] = {"passed", "pending"},
    [WEIGHT] = {"above 0", "0"},
    [ADDRESS] = {"no", "yes"},
};

static char table[ROWS_MAX][N_COLUMNS][CELL_SIZE];
static size_t n_rows;

static void read_row(char *line)
{
    char *rest = line + 1, *cell;

    assert_true(n_rows < ROWS_MAX);
    for (int c = 0; c < N_COLUMNS; c++) {
        cell = strsep(&rest, "|");
        assert_non_null(rest);
        cell += strspn(cell, " `");
        cell[strcspn(cell, "`")] = '\0';
        while (*cell != '\0' && cell[strlen(cell) - 1] == ' ')
            cell[strlen(cell) - 1] = '\0';
        assert_true(strlen(cell) < CELL_SIZE);
        strcpy(table[n_rows][c], cell);
    }
    n_rows++;
}

/* The lines between the one with the titles and the end of the table. */
static int read_table(void **state)
{
    FILE *file = fopen(DOCUMENT, "r");
    char line[512];
    bool inside = false;

    (void) state;
    if (file == NULL)
        fail_msg("%s cannot be read: tests run in the top directory", DOCUMENT);
    while (fgets(line, sizeof(line), file) != NULL) {
        if (strncmp(line, "| operator's word |", 19) == 0)
            inside = true;
        else if (inside && line[0] != '|')
            break;
        else if (inside && line[1] != '-')
            read_row(line);
    }
    fclose(file);
    return 0;
}

static bool cell_has(const char *cell, const char *value)
{
    char copy[CELL_SIZE], *rest = strcpy(copy, cell), *word;

    while ((word = strsep(&rest, ",")) != NULL) {
        word += strspn(word, " ");
        if (strcmp(word, "any") == 0 || strcmp(word, value) == 0)
            return true;
    }
    return false;
}

static const char *documented_state(const size_t input[N_INPUTS])
{
    for (size_t r = 0; r < n_rows; r++) {
        bool fits = true;

        for (size_t c = 0; c < N_INPUTS; c++)
            fits = fits && cell_has(table[r][c], values[c][input[c]]);
        if (fits)
            return table[r][PUBLISHED];
    }
    return "none";
}

static const char *published_state(const size_t input[N_INPUTS])
{
    static const char *const names[] = {
        [DURPINA_PEER_FREE] = "DURPINA_PEER_FREE",
        [DURPINA_PEER_UP] = "DURPINA_PEER_UP",
        [DURPINA_PEER_DOWN] = "DURPINA_PEER_DOWN",
        [DURPINA_PEER_UNHEALTHY] = "DURPINA_PEER_UNHEALTHY",
        [DURPINA_PEER_DRAINING] = "DURPINA_PEER_DRAINING",
        [DURPINA_PEER_CHECKING] = "DURPINA_PEER_CHECKING",
        [DURPINA_PEER_UNRESOLVED] = "DURPINA_PEER_UNRESOLVED",
    };
    struct server server = {.base.weight = 1,
                            .now = {.weight = input[WEIGHT] == 0 ? 1 : 0,
                                    .admin = (enum durpina_admin) input[OPERATOR]}};
    struct peer peer = {.server = &server,
                        .agent = {.said = AGENT_ADMIN | AGENT_HEALTH,
                                  .admin = (enum agent_admin) input[AGENT_SAYS],
                                  .down = input[AGENT_HEALTHY] == 1},
                        .health = (enum durpina_health) input[VERDICT],
                        .checking = input[MANDATORY] == 1,
                        .resolved = input[ADDRESS] == 1};

    return names[model_peer_state(&peer)];
}

static void every_case_is_as_the_document_says(void **state)
{
    size_t input[N_INPUTS] = {0}, cases = 0, c;

    (void) state;
    assert_true(n_rows >= 6);
    do {
        if (strcmp(documented_state(input), published_state(input)) != 0) {
            for (c = 0; c < N_INPUTS; c++)
                print_message("# %s\n", values[c][input[c]]);
            fail_msg("%s says %s, and it is %s", DOCUMENT, documented_state(input),
                     published_state(input));
        }
        cases++;
        for (c = 0; c < N_INPUTS && values[c][++input[c]] == NULL; c++)
            input[c] = 0;
    } while (c < N_INPUTS);
    assert_int_equal(cases, 4 * 3 * 2 * 3 * 2 * 2 * 2);
}

/* A row that no case leads to, or a value that none is called by, is a mistake in the document. */
static void each_line_of_the_document_decides_something(void **state)
{
    size_t input[N_INPUTS] = {0}, c;
    bool used[ROWS_MAX] = {false};

    (void) state;
    do {
        size_t r = 0;

        for (; r < n_rows; r++) {
            bool fits = true;

            for (c = 0; c < N_INPUTS; c++)
                fits = fits && cell_has(table[r][c], values[c][input[c]]);
            if (fits)
                break;
        }
        used[r] = true;
        for (c = 0; c < N_INPUTS && values[c][++input[c]] == NULL; c++)
            input[c] = 0;
    } while (c < N_INPUTS);
    for (size_t r = 0; r < n_rows; r++)
        if (!used[r])
            fail_msg("line %zu of the table in %s holds for nothing", r + 1, DOCUMENT);
}

/* --- what watches have found --- */

static struct model model;
static struct upstream *upstream;
static struct peer *peer;

static void add_monitor(const char *id, const char *type, bool mandatory)
{
    struct monitor *monitor = calloc(1, sizeof(*monitor));
    json_t *options = mandatory ? json_pack("{sb}", "mandatory", 1) : json_object();
    struct failure failure;

    assert_non_null(monitor);
    strcpy(monitor->id, id);
    strcpy(monitor->name, type);
    assert_int_equal(check_parse(type, options, &monitor->check, &failure), 0);
    monitor->options = options;
    upstream->monitors = realloc(upstream->monitors, (upstream->n_monitors + 1) * sizeof(void *));
    assert_non_null(upstream->monitors);
    upstream->monitors[upstream->n_monitors++] = monitor;
    assert_int_equal(model_watch_peer(peer), 0);
    model_review_peer(peer);
}

static struct peer *add_peer(const char *line)
{
    struct server_spec spec;
    struct failure failure;
    struct server *server;
    struct addr addr;

    assert_int_equal(server_line_parse(line, 80, &spec, &failure), 0);
    server = model_new_server(upstream, &spec);
    assert_non_null(server);
    server->peers = calloc(1, sizeof(*server->peers));
    assert_non_null(server->peers);
    assert_int_equal(addr_parse(spec.name, 80, &addr), 0);
    server->peers[0] = model_new_peer(server, &addr);
    assert_non_null(server->peers[0]);
    server->n_peers = 1;
    model_link_server(server);
    return server->peers[0];
}

static int make_model(void **state)
{
    (void) state;
    upstream = model_add_upstream(&model, "foo");
    peer = add_peer("127.0.0.1:80 weight=10 max_conns=7");
    return 0;
}

static int free_model(void **state)
{
    (void) state;
    model_clear(&model);
    return 0;
}

static void found(size_t monitor, enum durpina_health verdict)
{
    struct watch *watch = peer->watches[monitor];

    watch->verdict = verdict;
    watch->pending = watch->pending && verdict != DURPINA_HEALTH_PASSED;
    strcpy(watch->reason, "HTTP 503");
    model_review_peer(peer);
}

static void said(size_t monitor, const char *text)
{
    struct agent_line line;

    assert_int_equal(agent_parse(text, strlen(text), &line), 0);
    agent_apply(&peer->watches[monitor]->word, &line.word);
    model_review_peer(peer);
}

static void one_that_fails_is_enough_and_all_must_pass(void **state)
{
    (void) state;
    add_monitor("a", "tcp", false);
    add_monitor("b", "http", false);
    found(0, DURPINA_HEALTH_PASSED);
    assert_int_equal(peer->health, DURPINA_HEALTH_UNKNOWN);
    found(1, DURPINA_HEALTH_FAILED);
    assert_int_equal(peer->health, DURPINA_HEALTH_FAILED);
    found(1, DURPINA_HEALTH_PASSED);
    assert_int_equal(peer->health, DURPINA_HEALTH_PASSED);
}

static void agents_health_is_no_verdict_and_up_needs_one_that_agrees(void **state)
{
    (void) state;
    add_monitor("agent", "haproxy-agent-check", false);
    found(0, DURPINA_HEALTH_PASSED);
    assert_int_equal(peer->health, DURPINA_HEALTH_UNKNOWN);
    add_monitor("tcp", "tcp", false);
    found(1, DURPINA_HEALTH_PASSED);
    assert_int_equal(peer->health, DURPINA_HEALTH_PASSED);
    found(0, DURPINA_HEALTH_FAILED);
    assert_int_equal(peer->health, DURPINA_HEALTH_PASSED);
    assert_int_equal(model_peer_state(peer), DURPINA_PEER_UNHEALTHY);
    found(0, DURPINA_HEALTH_PASSED);
    found(1, DURPINA_HEALTH_FAILED);
    assert_int_equal(model_peer_state(peer), DURPINA_PEER_UNHEALTHY);
}

static void agents_weight_and_limit_hold_until_an_agent_says_others(void **state)
{
    (void) state;
    add_monitor("agent", "haproxy-agent-check", false);
    said(0, "50% maxconn:30\n");
    assert_int_equal(model_peer_weight(peer), 5);
    assert_int_equal(model_peer_max_conns(peer), 30);
    assert_int_equal(model_peer_initial_weight(peer), 10);
    peer->server->now.weight = 8;
    peer->server->now.max_conns = 9;
    said(0, "up\n");
    assert_int_equal(model_peer_weight(peer), 5);
    assert_int_equal(model_peer_max_conns(peer), 30);
    peer->server->now.weight = 0;
    assert_int_equal(model_peer_weight(peer), 0);
    peer->server->now.weight = 8;
    model_forget_findings(peer->watches[0]);
    assert_true(model_review_peer(peer));
    assert_int_equal(model_peer_weight(peer), 8);
    assert_int_equal(model_peer_max_conns(peer), 9);
}

static void only_an_agent_reverts_what_an_agent_has_set(void **state)
{
    (void) state;
    add_monitor("agent", "haproxy-agent-check", false);
    said(0, "maint\n");
    assert_true(model_peer_in_maintenance(peer));
    peer->server->now.admin = DURPINA_ADMIN_UP;
    found(0, DURPINA_HEALTH_PASSED);
    assert_int_equal(model_peer_state(peer), DURPINA_PEER_DOWN);
    said(0, "drain\n");
    assert_int_equal(model_peer_state(peer), DURPINA_PEER_DRAINING);
    said(0, "up 100%\n");
    assert_int_equal(model_peer_state(peer), DURPINA_PEER_DRAINING);
    said(0, "ready\n");
    assert_int_equal(model_peer_state(peer), DURPINA_PEER_UP);
}

static void of_two_agents_the_stricter_and_the_later_count(void **state)
{
    (void) state;
    add_monitor("a", "haproxy-agent-check", false);
    add_monitor("b", "haproxy-agent-check", false);
    said(0, "drain 10%\n");
    said(1, "ready 40%\n");
    assert_int_equal(model_peer_state(peer), DURPINA_PEER_DRAINING);
    assert_int_equal(model_peer_weight(peer), 4);
    said(0, "ready\n");
    found(0, DURPINA_HEALTH_FAILED);
    found(1, DURPINA_HEALTH_PASSED);
    assert_int_equal(model_peer_state(peer), DURPINA_PEER_UNHEALTHY);
}

static void new_peer_waits_for_each_mandatory_monitor(void **state)
{
    (void) state;
    add_monitor("a", "tcp", true);
    add_monitor("b", "http", true);
    add_monitor("c", "tcp", false);
    assert_int_equal(model_peer_state(peer), DURPINA_PEER_CHECKING);
    found(0, DURPINA_HEALTH_PASSED);
    assert_int_equal(model_peer_state(peer), DURPINA_PEER_CHECKING);
    found(1, DURPINA_HEALTH_FAILED);
    assert_int_equal(model_peer_state(peer), DURPINA_PEER_UNHEALTHY);
    found(1, DURPINA_HEALTH_PASSED);
    assert_int_equal(model_peer_state(peer), DURPINA_PEER_UP);
}

static void mandatory_monitor_leaves_in_what_others_have_passed(void **state)
{
    (void) state;
    add_monitor("a", "tcp", false);
    found(0, DURPINA_HEALTH_PASSED);
    add_monitor("b", "tcp", true);
    assert_int_equal(model_peer_state(peer), DURPINA_PEER_UP);
}

static void maps_tell_of_verdicts_and_of_what_had_traffic(void **state)
{
    (void) state;
    peer->health = DURPINA_HEALTH_FAILED;
    peer->state = DURPINA_PEER_UNHEALTHY;
    add_monitor("a", "tcp", true); /* model_watch_peer() leaves health alone, the review not */
    add_monitor("b", "tcp", false);
    peer->health = DURPINA_HEALTH_FAILED;
    assert_int_equal(model_adopt_health(peer), 0);
    assert_int_equal(peer->watches[0]->verdict, DURPINA_HEALTH_FAILED);
    assert_int_equal(peer->watches[1]->verdict, DURPINA_HEALTH_FAILED);
    assert_true(peer->watches[0]->pending);
    assert_int_equal(peer->ground, GROUND_VERDICT);

    peer->watches[0]->verdict = peer->watches[1]->verdict = DURPINA_HEALTH_UNKNOWN;
    peer->health = DURPINA_HEALTH_UNKNOWN;
    peer->state = DURPINA_PEER_UP;
    assert_int_equal(model_adopt_health(peer), 0);
    assert_false(peer->watches[0]->pending);
    assert_int_equal(peer->watches[0]->verdict, DURPINA_HEALTH_UNKNOWN);
}

static void verdicts_of_the_state_file_hold_unless_the_maps_differ(void **state)
{
    (void) state;
    add_monitor("a", "tcp", false);
    add_monitor("b", "tcp", false);
    found(0, DURPINA_HEALTH_FAILED);
    found(1, DURPINA_HEALTH_PASSED);
    assert_int_equal(model_adopt_health(peer), 0);
    assert_int_equal(peer->watches[1]->verdict, DURPINA_HEALTH_PASSED);
    peer->health = DURPINA_HEALTH_PASSED;
    assert_int_equal(model_adopt_health(peer), 0);
    assert_int_equal(peer->watches[0]->verdict, DURPINA_HEALTH_PASSED);
}

static void peer_that_takes_the_place_of_another_goes_on_with_its_findings(void **state)
{
    struct peer *heir;

    (void) state;
    add_monitor("a", "haproxy-agent-check", false);
    said(0, "drain 50%\n");
    found(0, DURPINA_HEALTH_FAILED);
    peer->state = DURPINA_PEER_UNHEALTHY;
    peer->down_since_ms = 5;
    assert_int_equal(history_add(&peer->history, 1, DURPINA_PEER_UP, DURPINA_PEER_UNHEALTHY, "x"),
                     0);
    heir = model_new_peer(peer->server, &peer->addr);
    assert_non_null(heir);
    assert_int_equal(model_inherit_findings(heir, peer), 0);
    assert_int_equal(model_peer_state(heir), DURPINA_PEER_UNHEALTHY);
    assert_int_equal(heir->agent.admin, AGENT_DRAIN);
    assert_int_equal(model_peer_weight(heir), 5);
    assert_int_equal(heir->state, DURPINA_PEER_UNHEALTHY);
    assert_int_equal(heir->down_since_ms, 5);
    assert_int_equal(history_count(heir->history), 1);
    assert_ptr_not_equal(heir->history, peer->history);
    model_free_peer(heir);
}

static void review_that_finds_nothing_new_says_so(void **state)
{
    (void) state;
    add_monitor("a", "tcp", false);
    assert_false(model_review_peer(peer));
    peer->watches[0]->verdict = DURPINA_HEALTH_PASSED;
    assert_true(model_review_peer(peer));
    assert_false(model_review_peer(peer));
}

/* --- causes --- */

static void assert_cause(enum ground before, const char *wanted)
{
    char cause[256];

    model_peer_cause(peer, before, cause, sizeof(cause));
    assert_string_equal(cause, wanted);
}

static void cause_names_who_and_why(void **state)
{
    (void) state;
    assert_cause(GROUND_NONE, "added");
    assert_cause(GROUND_OPERATOR, "set \"up\"");
    assert_cause(GROUND_ADDRESS, "it has an address");
    assert_cause(GROUND_VERDICT, "not monitored any more");
    assert_cause(GROUND_AGENT, "not monitored any more");
    assert_cause(GROUND_WEIGHT, "weight 10");

    add_monitor("m", "http", true);
    assert_cause(GROUND_NONE, "monitor m has not passed it yet");
    found(0, DURPINA_HEALTH_FAILED);
    assert_cause(GROUND_NONE, "monitor m: HTTP 503");
    found(0, DURPINA_HEALTH_PASSED);
    assert_cause(GROUND_VERDICT, "monitors pass");

    add_monitor("a", "haproxy-agent-check", false);
    said(1, "maint\n");
    assert_cause(GROUND_NONE, "monitor a: agent says \"maint\"");
    said(1, "ready 0%\n");
    assert_cause(GROUND_NONE, "monitor a: weight 0");
    said(1, "100%\n");
    assert_cause(GROUND_AGENT, "monitor a: agent says \"ready\"");
    peer->server->now.weight = 0;
    assert_cause(GROUND_NONE, "weight 0");
    peer->server->now.admin = DURPINA_ADMIN_MAINT;
    assert_cause(GROUND_NONE, "set \"maint\"");
}

static void operators_words_are_read_as_they_are_written(void **state)
{
    enum durpina_admin admin = DURPINA_ADMIN_UP;

    (void) state;
    for (int i = DURPINA_ADMIN_UP; i <= DURPINA_ADMIN_MAINT; i++) {
        assert_int_equal(model_admin_parse(model_admin_word((enum durpina_admin) i), &admin), 0);
        assert_int_equal(admin, i);
    }
    assert_int_equal(model_admin_parse("Up", &admin), -EINVAL);
    assert_int_equal(admin, DURPINA_ADMIN_MAINT);
}

#define WITH_MODEL(test) cmocka_unit_test_setup_teardown(test, make_model, free_model)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_case_is_as_the_document_says),
        cmocka_unit_test(each_line_of_the_document_decides_something),
        WITH_MODEL(one_that_fails_is_enough_and_all_must_pass),
        WITH_MODEL(agents_health_is_no_verdict_and_up_needs_one_that_agrees),
        WITH_MODEL(agents_weight_and_limit_hold_until_an_agent_says_others),
        WITH_MODEL(only_an_agent_reverts_what_an_agent_has_set),
        WITH_MODEL(of_two_agents_the_stricter_and_the_later_count),
        WITH_MODEL(new_peer_waits_for_each_mandatory_monitor),
        WITH_MODEL(mandatory_monitor_leaves_in_what_others_have_passed),
        WITH_MODEL(maps_tell_of_verdicts_and_of_what_had_traffic),
        WITH_MODEL(verdicts_of_the_state_file_hold_unless_the_maps_differ),
        WITH_MODEL(peer_that_takes_the_place_of_another_goes_on_with_its_findings),
        WITH_MODEL(review_that_finds_nothing_new_says_so),
        WITH_MODEL(cause_names_who_and_why),
        WITH_MODEL(operators_words_are_read_as_they_are_written),
    };

    return cmocka_run_group_tests(tests, read_table, NULL);
}

/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "agent.h"

#include <cmocka.h>

#define NONE "- - - -"

static int parse(const char *text, struct agent_line *ret)
{
    return agent_parse(text, strlen(text), ret);
}

/* "health admin weight maxconn", "-" for what was not said. */
static void show(const struct agent_line *line, char *buffer, size_t size)
{
    static const char *const admins[] = {"ready", "drain", "maint"};
    const struct agent_word *word = &line->word;
    char weight[16] = "-", maxconn[16] = "-";

    if (word->said & AGENT_WEIGHT)
        snprintf(weight, sizeof(weight), "%u%s", word->weight, word->is_percent ? "%" : "");
    if (word->said & AGENT_MAXCONN)
        snprintf(maxconn, sizeof(maxconn), "%u", word->maxconn);
    snprintf(buffer, size, "%s %s %s %s", word->said & AGENT_HEALTH ? line->health : "-",
             word->said & AGENT_ADMIN ? admins[word->admin] : "-", weight, maxconn);
}

static void assert_says(const char *text, const char *wanted, const char *unknown)
{
    struct agent_line line;
    char shown[64];

    if (parse(text, &line) != 0)
        fail_msg("\"%s\" is refused", text);
    show(&line, shown, sizeof(shown));
    if (strcmp(shown, wanted) != 0 || strcmp(line.unknown, unknown) != 0)
        fail_msg("\"%s\" says \"%s\", unknown \"%s\"", text, shown, line.unknown);
    assert_int_equal(line.word.down, strchr("-u", shown[0]) == NULL);
    assert_int_equal(line.health[0] == '\0', shown[0] == '-');
}

static void every_keyword_is_known_in_any_case(void **state)
{
    static const struct {
        const char *text, *wanted;
    } lines[] = {
        {"up\n", "up - - -"},
        {"UP\n", "up - - -"},
        {"uP\r\n", "up - - -"},
        {"down\n", "down - - -"},
        {"Down\n", "down - - -"},
        {"stopped\n", "stopped - - -"},
        {"STOPPED\r", "stopped - - -"},
        {"fail\n", "fail - - -"},
        {"fAiL\n", "fail - - -"},
        {"ready\n", "- ready - -"},
        {"READY\n", "- ready - -"},
        {"drain\n", "- drain - -"},
        {"Drain\n", "- drain - -"},
        {"maint\n", "- maint - -"},
        {"MAINT\n", "- maint - -"},
        {"75%\n", "- - 75% -"},
        {"weight:75\n", "- - 75 -"},
        {"WEIGHT:75%\n", "- - 75% -"},
        {"maxconn:30\n", "- - - 30"},
        {"MaxConn:30\n", "- - - 30"},
        {"up ready 75% maxconn:30\n", "up ready 75% 30"},
        {"maxconn:30 75% ready up\n", "up ready 75% 30"},
    };

    (void) state;
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++)
        assert_says(lines[i].text, lines[i].wanted, "");
}

static void words_are_whole(void **state)
{
    static const char *const words[] = {"failed",      "upp",    "xup",     "down.",  "drained",
                                        "maintenance", "u p",    "50",      "%",      "+5%",
                                        "-5%",         ":5",     "maxconn", "weight", "up#",
                                        "down;",       "\"up\"", "ready=1"};

    (void) state;
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        char text[32];

        snprintf(text, sizeof(text), "%s\n", words[i]);
        assert_says(text, NONE, words[i]);
    }
}

static void blanks_and_commas_separate_words(void **state)
{
    (void) state;
    assert_says("up,50%,maxconn:3\n", "up - 50% 3", "");
    assert_says("\tup\t \t50%\n", "up - 50% -", "");
    assert_says(" , ,,up,,\t,\n", "up - - -", "");
    assert_says("\n", NONE, "");
    assert_says("\r\n", NONE, "");
    assert_says(" \t,\n", NONE, "");
    /* Other white space is part of a word. */
    assert_says("up\vdown\n", NONE, "up\vdown");
    assert_says("up\f\n", NONE, "up\f");
}

static void the_last_word_of_a_category_wins(void **state)
{
    (void) state;
    assert_says("up down\n", "down - - -", "");
    assert_says("down up\n", "up - - -", "");
    assert_says("drain maint ready\n", "- ready - -", "");
    assert_says("10% 20% 30%\n", "- - 30% -", "");
    assert_says("10% weight:7\n", "- - 7 -", "");
    assert_says("maxconn:1 maxconn:2\n", "- - - 2", "");
    /* As HAProxy has it, also if it makes no sense. */
    assert_says("10% 20%x\n", NONE, "20%x");
    assert_says("20%x 10%\n", "- - 10% -", "");
    assert_says("maxconn:5 maxconn:\n", NONE, "maxconn:");
}

static void weights_keep_to_their_limits(void **state)
{
    (void) state;
    assert_says("0%\n", "- - 0% -", "");
    assert_says("100%\n", "- - 100% -", "");
    assert_says("007%\n", "- - 7% -", "");
    assert_says("25600%\n", "- - 25600% -", "");
    assert_says("25601%\n", "- - 25600% -", "");
    assert_says("99999999999999999999999%\n", "- - 25600% -", "");
    assert_says("weight:0\n", "- - 0 -", "");
    assert_says("weight:256\n", "- - 256 -", "");
    assert_says("weight:257\n", NONE, "weight:257");
    assert_says("weight:257%\n", "- - 257% -", "");
    assert_says("weight:-1\n", NONE, "weight:-1");
    assert_says("weight:+1\n", NONE, "weight:+1");
    assert_says("weight:\n", NONE, "weight:");
    assert_says("weight: 5\n", NONE, "5 weight:");
    assert_says("weight:5x\n", NONE, "weight:5x");
    assert_says("weight:5.5\n", NONE, "weight:5.5");
    assert_says("5%%\n", NONE, "5%%");
    assert_says("5x%\n", NONE, "5x%");
    assert_says("101 %\n", NONE, "101 %");
}

static void maxconn_keeps_to_its_limits(void **state)
{
    (void) state;
    assert_says("maxconn:0\n", "- - - 0", "");
    assert_says("maxconn:2147483647\n", "- - - 2147483647", "");
    assert_says("maxconn:2147483648\n", "- - - 2147483647", "");
    assert_says("maxconn:99999999999999999999999\n", "- - - 2147483647", "");
    assert_says("maxconn:-1\n", NONE, "maxconn:-1");
    assert_says("maxconn: 5\n", NONE, "5 maxconn:");
    assert_says("maxconn:5k\n", NONE, "maxconn:5k");
}

static void a_number_sign_begins_the_description(void **state)
{
    static const struct {
        const char *text, *description;
    } lines[] = {
        {"down # disk is full\n", "disk is full"},
        {"down #disk is full\r\n", "disk is full"},
        {"down #\t  up 50% # more\n", "up 50% # more"},
        {"down #\n", ""},
        {"down\n", ""},
        {"down,#,x\n", ",x"},
    };
    struct agent_line line;

    (void) state;
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        assert_says(lines[i].text, "down - - -", "");
        assert_int_equal(parse(lines[i].text, &line), 0);
        assert_string_equal(line.description, lines[i].description);
    }
    assert_says("#down\n", NONE, "");
    assert_says("up#down\n", NONE, "up#down");
}

static void only_the_first_line_counts(void **state)
{
    (void) state;
    assert_says("up\ndown\n", "up - - -", "");
    assert_says("up\rdown\n", "up - - -", "");
    assert_says("\nup\n", NONE, "");
    assert_says("\rup\n", NONE, "");
    assert_says("up\ndown", "up - - -", "");
}

static void without_an_end_of_line_all_is_ignored(void **state)
{
    static const struct {
        const char *text;
        size_t len;
    } texts[] = {{"", 0}, {"up", 2}, {"up\n", 2}, {"up\0\n", 4}, {"\0up\n", 4}, {"down # x", 8}};
    struct agent_line line, before;

    (void) state;
    memset(&before, 0x5a, sizeof(before));
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        line = before;
        assert_int_equal(agent_parse(texts[i].text, texts[i].len, &line), -EINVAL);
        assert_memory_equal(&line, &before, sizeof(line));
    }
    assert_int_equal(agent_parse("up\n\0", 4, &line), 0);
}

static void a_line_has_at_most_1024_bytes(void **state)
{
    char text[AGENT_LINE_MAX + 2];
    struct agent_line line;

    (void) state;
    memset(text, ' ', sizeof(text));
    memcpy(text, "down", 4);
    text[AGENT_LINE_MAX - 1] = '\n';
    assert_int_equal(agent_parse(text, AGENT_LINE_MAX, &line), 0);
    assert_string_equal(line.health, "down");
    text[AGENT_LINE_MAX - 1] = ' ';
    text[AGENT_LINE_MAX] = '\n';
    assert_int_equal(agent_parse(text, AGENT_LINE_MAX + 1, &line), -EINVAL);
}

static void long_texts_are_cut(void **state)
{
    char text[512];
    struct agent_line line;

    (void) state;
    memset(text, 'x', sizeof(text));
    text[200] = ' ';
    memcpy(text + 300, " up #", 5);
    text[sizeof(text) - 1] = '\n';
    assert_int_equal(agent_parse(text, sizeof(text), &line), 0);
    assert_int_equal(strlen(line.unknown), AGENT_TEXT_SIZE - 1);
    assert_int_equal(strlen(line.description), AGENT_TEXT_SIZE - 1);
    assert_string_equal(line.health, "up");
}

static void binary_junk_is_one_unknown_word(void **state)
{
    (void) state;
    assert_says("\x01\xff\x80\x1b[31m\n", NONE, "\x01\xff\x80\x1b[31m");
    assert_says("\x80up 50%\n", "- - 50% -", "\x80up");
}

static void unknown_words_do_not_spoil_the_rest(void **state)
{
    (void) state;
    assert_says("foo down bar 50% baz\n", "down - 50% -", "foo bar baz");
    assert_says("state: up, weight 50%\n", "up - 50% -", "state: weight");
}

static bool apply(struct agent_word *word, const char *text)
{
    struct agent_line line;

    assert_int_equal(parse(text, &line), 0);
    return agent_apply(word, &line.word);
}

static void what_is_not_said_stays(void **state)
{
    struct agent_word word = {0};

    (void) state;
    assert_true(apply(&word, "down maint 50% maxconn:7\n"));
    assert_false(apply(&word, "\n"));
    assert_false(apply(&word, "nonsense\n"));
    assert_false(apply(&word, "down maint 50% maxconn:7\n"));

    assert_true(apply(&word, "up\n"));
    assert_false(word.down);
    assert_int_equal(word.admin, AGENT_MAINT);
    assert_true(apply(&word, "ready\n"));
    assert_int_equal(word.admin, AGENT_READY);
    assert_int_equal(word.weight, 50);
    assert_true(apply(&word, "weight:50\n"));
    assert_false(word.is_percent);
    assert_int_equal(word.maxconn, 7);
    assert_true(apply(&word, "maxconn:0\n"));
    assert_int_equal(word.said, AGENT_ADMIN | AGENT_WEIGHT | AGENT_MAXCONN | AGENT_HEALTH);
}

static void the_first_word_is_a_change_even_if_it_says_what_was(void **state)
{
    struct agent_word word = {0};

    (void) state;
    assert_true(apply(&word, "ready\n"));
    assert_true(apply(&word, "up\n"));
    assert_true(apply(&word, "maxconn:0\n"));
    assert_true(apply(&word, "weight:0\n"));
    assert_false(apply(&word, "ready up maxconn:0 weight:0\n"));
}

static void weight_is_a_part_of_the_initial_one(void **state)
{
    static const struct {
        const char *text;
        uint32_t initial, now, wanted;
    } rows[] = {
        {"up\n", 10, 7, 7},
        {"100%\n", 10, 7, 10},
        {"75%\n", 1, 1, 0},
        {"75%\n", 10, 10, 7},
        {"101%\n", 99, 99, 99},
        {"0%\n", 10, 10, 0},
        {"weight:0\n", 10, 10, 0},
        {"weight:5\n", 10, 7, 5},
        {"300%\n", 100, 100, 256},
        {"256%\n", 100, 100, 256},
        {"255%\n", 100, 100, 255},
        {"100%\n", 65535, 65535, 65535},
        {"300%\n", 65535, 65535, 65535},
        {"50%\n", 65535, 65535, 32767},
        {"25600%\n", 1, 1, 256},
        {"weight:256\n", 1, 1, 256},
        {"75%\n", 0, 5, 0},
    };

    (void) state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct agent_word word = {0};

        apply(&word, rows[i].text);
        if (agent_weight(&word, rows[i].initial, rows[i].now) != rows[i].wanted)
            fail_msg("row %zu: %u", i, agent_weight(&word, rows[i].initial, rows[i].now));
    }
}

static void no_agent_lifts_the_operators_weight_0(void **state)
{
    struct agent_word word = {0};

    (void) state;
    apply(&word, "100%\n");
    assert_int_equal(agent_weight(&word, 10, 0), 0);
    apply(&word, "weight:256\n");
    assert_int_equal(agent_weight(&word, 10, 0), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_keyword_is_known_in_any_case),
        cmocka_unit_test(words_are_whole),
        cmocka_unit_test(blanks_and_commas_separate_words),
        cmocka_unit_test(the_last_word_of_a_category_wins),
        cmocka_unit_test(weights_keep_to_their_limits),
        cmocka_unit_test(maxconn_keeps_to_its_limits),
        cmocka_unit_test(a_number_sign_begins_the_description),
        cmocka_unit_test(only_the_first_line_counts),
        cmocka_unit_test(without_an_end_of_line_all_is_ignored),
        cmocka_unit_test(a_line_has_at_most_1024_bytes),
        cmocka_unit_test(long_texts_are_cut),
        cmocka_unit_test(binary_junk_is_one_unknown_word),
        cmocka_unit_test(unknown_words_do_not_spoil_the_rest),
        cmocka_unit_test(what_is_not_said_stays),
        cmocka_unit_test(the_first_word_is_a_change_even_if_it_says_what_was),
        cmocka_unit_test(weight_is_a_part_of_the_initial_one),
        cmocka_unit_test(no_agent_lifts_the_operators_weight_0),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

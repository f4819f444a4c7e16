/* SPDX-License-Identifier: MIT */
/*
 * The agent checks: a line of words (agent.h) from an agent beside the peer. An agent that cannot
 * be reached or makes no sense says nothing, which is not the same as "down".
 */
#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "probe_http.h"
#include "probe_stream.h"

#define SHOWN_TEXT 60        /* bytes of each text of an agent in the reason */
#define UNKNOWN_LOG_MS 60000 /* words of one agent are logged as often at most */

_Static_assert(AGENT_LINE_MAX <= PROBE_ANSWER_MAX, "a whole line fits into the answer");

/* Ends the check for an answer that is no line. */
static void no_line_done(struct probe_target *target, const char *text, size_t n)
{
    if (n == 0)
        probe_done(target, PROBE_SILENT, "closed without an answer");
    else if (memchr(text, '\0', n < AGENT_LINE_MAX ? n : AGENT_LINE_MAX) != NULL)
        probe_done(target, PROBE_SILENT, "answer with a NUL");
    else if (n < AGENT_LINE_MAX)
        probe_done(target, PROBE_SILENT, "answer without an end of line");
    else
        probe_done(target, PROBE_SILENT, "answer over %d bytes", AGENT_LINE_MAX);
}

/* Kept by a target whose agent has ever said such words. */
struct unknown_words {
    char last[AGENT_TEXT_SIZE];
    struct log_throttle throttle;
};

/* An agent says the same every two seconds: what it says wrong is logged when it begins to. It may
 * say another wrong thing each time. */
static void log_unknown(struct probe_target *target, const char *unknown)
{
    struct unknown_words *words = target->kept;
    char skipped[LOG_SKIPPED_SIZE];

    if (strcmp(words != NULL ? words->last : "", unknown) == 0)
        return;
    if (words == NULL)
        words = target->kept = calloc(1, sizeof(*words));
    if (words == NULL)
        return;
    snprintf(words->last, sizeof(words->last), "%s", unknown);
    if (unknown[0] != '\0' &&
        log_throttle(&words->throttle, uv_now(target->prober->loop), UNKNOWN_LOG_MS, skipped))
        log_warn("agent of %s: unknown word \"%s\", the rest of its line counts%s", target->host,
                 unknown, skipped);
}

/* Ends the check by what the agent has answered, n bytes or all of it. */
static void agent_done(struct probe_target *target, const char *text, size_t n)
{
    enum probe_result result = PROBE_SILENT;
    struct agent_line line;
    char says[sizeof("agent says \"stopped\": ") + SHOWN_TEXT];
    size_t length;

    if (agent_parse(text, n, &line) < 0) {
        no_line_done(target, text, n);
        return;
    }
    log_unknown(target, line.unknown);
    if (line.word.said & AGENT_HEALTH) {
        result = line.word.down ? PROBE_FAILED : PROBE_PASSED;
        length = (size_t) snprintf(says, sizeof(says), "agent says \"%s\"", line.health);
        if (line.description[0] != '\0')
            snprintf(says + length, sizeof(says) - length, ": %s", line.description);
    } else {
        snprintf(says, sizeof(says), "agent says nothing of health");
    }
    if (line.unknown[0] == '\0')
        probe_done_agent(target, result, &line, "%s", says);
    else
        probe_done_agent(target, result, &line, "%s; unknown word \"%.*s\"", says, SHOWN_TEXT,
                         line.unknown);
}

static void agent_forget(struct probe_target *target)
{
    free(target->kept);
    target->kept = NULL;
}

/* agent_parse() needs no more: an end of line, or a NUL, after which none counts. */
static bool is_line(const struct probe_target *target, const char *answer, size_t n)
{
    (void) target;
    return strcspn(answer, "\r\n") < n;
}

static void agent_finish(struct probe_target *target, int err, const char *answer, size_t n)
{
    if (err < 0)
        probe_done_errno(target, err);
    else
        agent_done(target, answer, n);
}

static const struct probe_stream_ops stream_ops = {
    .missing = "end of line",
    .is_enough = is_line,
    .finish = agent_finish,
};

static void agent_start(struct probe_target *target)
{
    target->no_answer = PROBE_SILENT;
    probe_stream_start(target, &stream_ops, target->check->agent.send);
}

const struct probe_ops probe_agent_ops = {
    .start = agent_start,
    .cancel = probe_stream_cancel,
    .forget = agent_forget,
};

/* Where the body ends is known, which ends the line as well. */
static void http_agent_judge(struct probe_target *target, const struct http_answer *answer)
{
    char text[AGENT_LINE_MAX + 1];

    if (!check_http_code_ok(&target->check->http, answer->status)) {
        probe_done(target, PROBE_SILENT, "HTTP %ld", answer->status);
        return;
    }
    if (answer->n_body > 0)
        memcpy(text, answer->body, answer->n_body);
    text[answer->n_body] = '\n';
    agent_done(target, text, answer->n_body + 1);
}

static void http_agent_start(struct probe_target *target)
{
    static const struct http_kind kind = {
        .body_max = AGENT_LINE_MAX,
        .keeps_body = true,
        .takes_start = true,
        .judge = http_agent_judge,
    };

    target->no_answer = PROBE_SILENT;
    http_check_start(target, &kind);
}

const struct probe_ops probe_http_agent_ops = {
    .start = http_agent_start,
    .cancel = http_check_cancel,
    .forget = agent_forget,
};

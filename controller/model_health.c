/* SPDX-License-Identifier: MIT */
/* What the operator, monitors and agents make of a peer, each kept apart from the others. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model.h"

/* --- the published state --- */

enum ground model_peer_ground(const struct peer *peer)
{
    enum durpina_admin admin = peer->server->now.admin;
    const struct agent_word *agent = &peer->agent;

    if (admin == DURPINA_ADMIN_DOWN || admin == DURPINA_ADMIN_MAINT)
        return GROUND_OPERATOR;
    if (agent->admin == AGENT_MAINT)
        return GROUND_AGENT;
    if (peer->health == DURPINA_HEALTH_FAILED || agent->down)
        return GROUND_VERDICT;
    if (peer->checking)
        return GROUND_MANDATORY;
    if (admin == DURPINA_ADMIN_DRAIN)
        return GROUND_OPERATOR;
    if (agent->admin == AGENT_DRAIN)
        return GROUND_AGENT;
    if (model_peer_weight(peer) == 0)
        return GROUND_WEIGHT;
    return peer->resolved ? GROUND_NONE : GROUND_ADDRESS;
}

enum durpina_peer_state model_peer_state(const struct peer *peer)
{
    switch (model_peer_ground(peer)) {
    case GROUND_NONE:
        break;
    case GROUND_OPERATOR:
        return peer->server->now.admin == DURPINA_ADMIN_DRAIN ? DURPINA_PEER_DRAINING
                                                              : DURPINA_PEER_DOWN;
    case GROUND_AGENT:
        return peer->agent.admin == AGENT_DRAIN ? DURPINA_PEER_DRAINING : DURPINA_PEER_DOWN;
    case GROUND_VERDICT:
        return DURPINA_PEER_UNHEALTHY;
    case GROUND_MANDATORY:
        return DURPINA_PEER_CHECKING;
    case GROUND_WEIGHT:
        return DURPINA_PEER_DRAINING;
    case GROUND_ADDRESS:
        return DURPINA_PEER_UNRESOLVED;
    }
    return DURPINA_PEER_UP;
}

bool model_peer_in_maintenance(const struct peer *peer)
{
    return peer->server->now.admin == DURPINA_ADMIN_MAINT || peer->agent.admin == AGENT_MAINT;
}

/* --- words --- */

const char *model_state_word(enum durpina_peer_state state)
{
    static const char *const words[] = {
        [DURPINA_PEER_FREE] = "",
        [DURPINA_PEER_UP] = "up",
        [DURPINA_PEER_DOWN] = "down",
        [DURPINA_PEER_UNHEALTHY] = "unhealthy",
        [DURPINA_PEER_DRAINING] = "draining",
        [DURPINA_PEER_CHECKING] = "checking",
        [DURPINA_PEER_UNRESOLVED] = "unresolved",
    };

    return words[state];
}

static const char *const admin_words[] = {
    [DURPINA_ADMIN_UP] = "up",
    [DURPINA_ADMIN_DOWN] = "down",
    [DURPINA_ADMIN_DRAIN] = "drain",
    [DURPINA_ADMIN_MAINT] = "maint",
};

const char *model_admin_word(enum durpina_admin admin)
{
    return admin_words[admin];
}

int model_admin_parse(const char *word, enum durpina_admin *ret)
{
    for (size_t i = 0; i < sizeof(admin_words) / sizeof(admin_words[0]); i++)
        if (strcmp(admin_words[i], word) == 0) {
            *ret = (enum durpina_admin) i;
            return 0;
        }
    return -EINVAL;
}

/* The agent whose word counts: with the strictest admin word, else the last that said this. */
static const struct watch *agent_that_said(const struct peer *peer, enum agent_category category)
{
    const struct watch *found = NULL;

    for (size_t i = 0; i < peer->n_watches; i++) {
        const struct watch *watch = peer->watches[i];

        if ((watch->word.said & category) == 0)
            continue;
        if (category != AGENT_ADMIN || watch->word.admin == peer->agent.admin)
            found = watch;
    }
    return found;
}

static bool passes_any(const struct peer *peer)
{
    for (size_t i = 0; i < peer->n_watches; i++)
        if (peer->watches[i]->verdict == DURPINA_HEALTH_PASSED)
            return true;
    return false;
}

/* Why nothing keeps it from being up any more. */
static void cause_of_up(const struct peer *peer, enum ground before, char *text, size_t size)
{
    const struct watch *watch = agent_that_said(peer, AGENT_ADMIN);

    switch (before) {
    case GROUND_NONE:
        snprintf(text, size, "added");
        return;
    case GROUND_OPERATOR:
        snprintf(text, size, "set \"up\"");
        return;
    case GROUND_AGENT:
        if (watch == NULL)
            break;
        snprintf(text, size, "monitor %s: agent says \"ready\"", watch->monitor->id);
        return;
    case GROUND_VERDICT:
    case GROUND_MANDATORY:
        if (!passes_any(peer))
            break;
        snprintf(text, size, "monitors pass");
        return;
    case GROUND_WEIGHT:
        snprintf(text, size, "weight %u", model_peer_weight(peer));
        return;
    case GROUND_ADDRESS:
        snprintf(text, size, "it has an address");
        return;
    }
    snprintf(text, size, "not monitored any more");
}

static void cause_of_verdict(const struct peer *peer, char *text, size_t size)
{
    for (size_t i = 0; i < peer->n_watches; i++) {
        const struct watch *watch = peer->watches[i];

        if (watch->verdict == DURPINA_HEALTH_FAILED) {
            snprintf(text, size, "monitor %s: %s", watch->monitor->id, watch->reason);
            return;
        }
    }
    snprintf(text, size, "%s", WATCH_REASON_BEFORE);
}

static void cause_of_checking(const struct peer *peer, char *text, size_t size)
{
    for (size_t i = 0; i < peer->n_watches; i++)
        if (peer->watches[i]->pending) {
            snprintf(text, size, "monitor %s has not passed it yet", peer->watches[i]->monitor->id);
            return;
        }
    snprintf(text, size, "%s", WATCH_REASON_BEFORE);
}

void model_peer_cause(const struct peer *peer, enum ground before, char *text, size_t size)
{
    const struct watch *watch;

    switch (model_peer_ground(peer)) {
    case GROUND_NONE:
        cause_of_up(peer, before, text, size);
        return;
    case GROUND_OPERATOR:
        snprintf(text, size, "set \"%s\"", model_admin_word(peer->server->now.admin));
        return;
    case GROUND_AGENT:
        watch = agent_that_said(peer, AGENT_ADMIN);
        snprintf(text, size, "monitor %s: agent says \"%s\"",
                 watch != NULL ? watch->monitor->id : "?", agent_admin_word(peer->agent.admin));
        return;
    case GROUND_VERDICT:
        cause_of_verdict(peer, text, size);
        return;
    case GROUND_MANDATORY:
        cause_of_checking(peer, text, size);
        return;
    case GROUND_WEIGHT:
        watch = agent_that_said(peer, AGENT_WEIGHT);
        if (watch != NULL && peer->server->now.weight != 0)
            snprintf(text, size, "monitor %s: weight 0", watch->monitor->id);
        else
            snprintf(text, size, "weight 0");
        return;
    case GROUND_ADDRESS:
        snprintf(text, size, "no address");
        return;
    }
}

/* --- watches --- */

bool model_monitor_is_agent(const struct monitor *monitor)
{
    return monitor->check->type == CHECK_AGENT || monitor->check->type == CHECK_HTTP_AGENT;
}

bool model_monitor_is_kept(const struct monitor *monitor)
{
    return model_monitor_is_agent(monitor) || monitor->check->persistent;
}

int model_watch_peer(struct peer *peer)
{
    const struct upstream *upstream = peer->server->upstream;
    struct watch **watches;

    if (peer->n_watches == upstream->n_monitors)
        return 0;
    watches = reallocarray(peer->watches, upstream->n_monitors, sizeof(*watches));
    if (watches == NULL)
        return -ENOMEM;
    peer->watches = watches;
    while (peer->n_watches < upstream->n_monitors) {
        const struct monitor *monitor = upstream->monitors[peer->n_watches];
        struct watch *watch = calloc(1, sizeof(*watch));

        if (watch == NULL)
            return -ENOMEM;
        watch->peer = peer;
        watch->monitor = monitor;
        /* A name without address cannot be checked, and has no traffic anyway. */
        watch->pending = monitor->check->mandatory && upstream->monitoring && peer->resolved &&
                         peer->health != DURPINA_HEALTH_PASSED;
        watches[peer->n_watches++] = watch;
    }
    return 0;
}

void model_forget_findings(struct watch *watch)
{
    watch->verdict = DURPINA_HEALTH_UNKNOWN;
    watch->pending = false;
    watch->word = (struct agent_word){0};
    watch->reason[0] = '\0';
}

/* Of the monitors that are no agents: one that fails is enough, all that pass are needed. */
static enum durpina_health health_of(const struct peer *peer)
{
    bool is_any = false, passed = true;

    for (size_t i = 0; i < peer->n_watches; i++) {
        const struct watch *watch = peer->watches[i];

        if (model_monitor_is_agent(watch->monitor))
            continue;
        if (watch->verdict == DURPINA_HEALTH_FAILED)
            return DURPINA_HEALTH_FAILED;
        is_any = true;
        passed &= watch->verdict == DURPINA_HEALTH_PASSED;
    }
    return is_any && passed ? DURPINA_HEALTH_PASSED : DURPINA_HEALTH_UNKNOWN;
}

/* Of several agents the strictest admin word counts, one "down" is enough, and of weights and
 * limits those of the last monitor that says one. */
static struct agent_word word_of(const struct peer *peer)
{
    struct agent_word word = {0};

    for (size_t i = 0; i < peer->n_watches; i++) {
        const struct watch *watch = peer->watches[i];
        struct agent_word said = watch->word;

        if (!model_monitor_is_agent(watch->monitor))
            continue;
        if (watch->verdict != DURPINA_HEALTH_UNKNOWN) {
            said.said |= AGENT_HEALTH;
            said.down = word.down || watch->verdict == DURPINA_HEALTH_FAILED;
        }
        if (said.admin < word.admin)
            said.admin = word.admin;
        agent_apply(&word, &said);
    }
    return word;
}

bool model_review_peer(struct peer *peer)
{
    const enum durpina_health health = health_of(peer);
    const struct agent_word agent = word_of(peer);
    bool checking = false, changed;

    for (size_t i = 0; i < peer->n_watches; i++)
        checking |= peer->watches[i]->pending;
    changed = health != peer->health || checking != peer->checking ||
              !agent_is_same(&agent, &peer->agent);
    peer->health = health;
    peer->agent = agent;
    peer->checking = checking;
    return changed;
}

int model_adopt_health(struct peer *peer)
{
    /* As far as the maps tell: for the cause of the next change. */
    static const enum ground grounds[] = {
        [DURPINA_PEER_FREE] = GROUND_NONE,          [DURPINA_PEER_UP] = GROUND_NONE,
        [DURPINA_PEER_DOWN] = GROUND_OPERATOR,      [DURPINA_PEER_UNHEALTHY] = GROUND_VERDICT,
        [DURPINA_PEER_DRAINING] = GROUND_OPERATOR,  [DURPINA_PEER_CHECKING] = GROUND_MANDATORY,
        [DURPINA_PEER_UNRESOLVED] = GROUND_ADDRESS,
    };
    const enum durpina_health health = peer->health;
    int err = model_watch_peer(peer);
    bool is_known;

    if (err < 0)
        return err;
    peer->ground = grounds[peer->state];
    /* The state file may tell of each of several monitors. */
    is_known = health == DURPINA_HEALTH_UNKNOWN || health == health_of(peer);
    for (size_t i = 0; i < peer->n_watches; i++) {
        struct watch *watch = peer->watches[i];

        /* What had traffic has passed. */
        if (health == DURPINA_HEALTH_PASSED || peer->state == DURPINA_PEER_UP ||
            peer->state == DURPINA_PEER_DRAINING)
            watch->pending = false;
        if (is_known || model_monitor_is_agent(watch->monitor))
            continue;
        watch->verdict = health;
        snprintf(watch->reason, sizeof(watch->reason), "%s", WATCH_REASON_BEFORE);
    }
    return 0;
}

/* The agent whose weight and limit count; NULL: there is none. */
static struct watch *last_agent(const struct peer *peer)
{
    struct watch *agent = NULL;

    for (size_t i = 0; i < peer->n_watches; i++)
        if (model_monitor_is_agent(peer->watches[i]->monitor))
            agent = peer->watches[i];
    return agent;
}

/* From what it cannot be in such a state, up or draining, whichever agent has said so. */
static void free_of_agents(struct peer *peer, enum durpina_peer_state state)
{
    for (size_t i = 0; i < peer->n_watches; i++) {
        struct watch *watch = peer->watches[i];

        if (!model_monitor_is_agent(watch->monitor))
            continue;
        if (state == DURPINA_PEER_UP || watch->word.admin == AGENT_MAINT)
            watch->word.admin = AGENT_READY;
        if (watch->verdict == DURPINA_HEALTH_FAILED)
            watch->verdict = DURPINA_HEALTH_PASSED;
    }
}

void model_adopt_agent(struct peer *peer, const struct durpina_peer_settings *maps)
{
    const enum durpina_admin admin = peer->server->now.admin;
    struct watch *agent = last_agent(peer);
    struct agent_word said = {0};

    if (agent == NULL)
        return;
    if (maps->state == DURPINA_PEER_UP || maps->state == DURPINA_PEER_DRAINING)
        free_of_agents(peer, maps->state);
    if (maps->state == DURPINA_PEER_DOWN && admin != DURPINA_ADMIN_DOWN &&
        admin != DURPINA_ADMIN_MAINT) {
        said.said |= AGENT_ADMIN;
        said.admin = AGENT_MAINT;
    }
    if (maps->state == DURPINA_PEER_DRAINING && admin != DURPINA_ADMIN_DRAIN && maps->weight != 0) {
        said.said |= AGENT_ADMIN;
        said.admin = AGENT_DRAIN;
    }
    if (maps->state == DURPINA_PEER_UNHEALTHY && maps->health != DURPINA_HEALTH_FAILED) {
        agent->verdict = DURPINA_HEALTH_FAILED;
        snprintf(agent->reason, sizeof(agent->reason), "%s", WATCH_REASON_BEFORE);
    }
    if ((maps->derived & DURPINA_DERIVED_MAX_CONNS) != 0) {
        said.said |= AGENT_MAXCONN;
        said.maxconn = maps->max_conns;
    }
    model_review_peer(peer);
    if ((maps->derived & DURPINA_DERIVED_WEIGHT) != 0 && peer->srv_weight <= 1 &&
        maps->weight != model_peer_weight(peer)) {
        said.said |= AGENT_WEIGHT;
        said.weight = maps->weight;
    }
    agent_apply(&agent->word, &said);
    model_review_peer(peer);
}

int model_inherit_findings(struct peer *peer, const struct peer *old)
{
    int err = model_watch_peer(peer);

    if (err < 0)
        return err;
    if (old->history != NULL) {
        peer->history = history_copy(old->history);
        if (peer->history == NULL)
            return -ENOMEM;
    }
    for (size_t i = 0; i < old->n_watches; i++) {
        struct watch *to = peer->watches[i];
        const struct watch *from = old->watches[i];

        to->verdict = from->verdict;
        to->pending = from->pending;
        to->word = from->word;
        memcpy(to->reason, from->reason, sizeof(to->reason));
    }
    peer->state = old->state;
    peer->ground = old->ground;
    peer->down_since_ms = old->down_since_ms;
    peer->downtime_ms = old->downtime_ms;
    model_review_peer(peer);
    return 0;
}

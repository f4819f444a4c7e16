/* SPDX-License-Identifier: MIT */
#include "probe.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "probe_internal.h"

static const struct probe_ops *const ops_by_type[CHECK_TYPES] = {
    [CHECK_HTTP] = &probe_http_ops,
    [CHECK_TCP] = &probe_tcp_ops,
    [CHECK_GRPC] = &probe_grpc_ops,
    [CHECK_AGENT] = &probe_agent_ops,
    [CHECK_HTTP_AGENT] = &probe_http_agent_ops,
    [CHECK_LUA] = &probe_lua_ops,
};

/* An address with its port, and all that is checked there. */
struct probe_endpoint {
    struct probe_target *targets;
    UT_hash_handle hh; /* by name */
    char name[];
};

const struct probe_ops *probe_ops_of(const struct probe_target *target)
{
    return ops_by_type[target->check->type];
}

uint32_t probe_random(void)
{
    uint32_t value = 0;

    /* It parts what would else coincide, nothing more: without entropy 0 does. */
    uv_random(NULL, NULL, &value, sizeof(value), 0, NULL);
    return value;
}

void prober_ref(struct prober *prober)
{
    prober->refs++;
}

void prober_unref(struct prober *prober)
{
    if (--prober->refs == 0)
        free(prober);
}

int prober_create(uv_loop_t *loop, struct prober **ret)
{
    struct prober *prober = calloc(1, sizeof(*prober));

    if (prober == NULL)
        return -ENOMEM;
    prober->loop = loop;
    prober->refs = 1;
    /* Hosts that start together shall not check the same backend together. */
    prober->phase = probe_random();
    probe_pace_begin(prober);
    *ret = prober;
    return 0;
}

void prober_set_socket_hook(struct prober *prober, prober_socket_hook *hook, void *user)
{
    prober->socket_hook = hook;
    prober->socket_hook_user = user;
}

const struct prober_stats *prober_stats(const struct prober *prober)
{
    return &prober->stats;
}

/* --- targets and who shares them ------------------------------------------------------------- */

static struct probe_endpoint *endpoint_get(struct prober *prober, const struct addr *addr)
{
    struct probe_endpoint *endpoint;
    char name[DURPINA_NAME_SIZE];

    addr_format(addr, name, sizeof(name));
    HASH_FIND_STR(prober->endpoints, name, endpoint);
    if (endpoint != NULL)
        return endpoint;
    endpoint = calloc(1, sizeof(*endpoint) + strlen(name) + 1);
    if (endpoint == NULL)
        return NULL;
    strcpy(endpoint->name, name);
    HASH_ADD_STR(prober->endpoints, name, endpoint);
    return endpoint;
}

static void endpoint_put(struct prober *prober, struct probe_endpoint *endpoint)
{
    if (endpoint->targets != NULL)
        return;
    HASH_DEL(prober->endpoints, endpoint);
    free(endpoint);
}

static struct probe_target *target_find(const struct probe_endpoint *endpoint,
                                        const struct check *check, const char *host)
{
    struct probe_target *target;

    DL_FOREACH(endpoint->targets, target)
    {
        if (check_is_same(target->check, check) &&
            (!check_sends_host(check) || strcmp(target->host, host) == 0))
            return target;
    }
    return NULL;
}

static struct probe_target *target_new(struct prober *prober, struct check *check,
                                       const struct addr *addr, const char *host)
{
    struct probe_target *target = calloc(1, sizeof(*target));

    if (target == NULL)
        return NULL;
    target->host = strdup(host);
    if (target->host == NULL) {
        free(target);
        return NULL;
    }
    target->prober = prober;
    target->check = check_ref(check);
    target->addr = *addr;
    prober_ref(prober);
    prober->stats.targets++;
    probe_run_begin(target);
    return target;
}

static void on_closed(uv_handle_t *handle)
{
    struct probe_target *target = handle->data;

    prober_unref(target->prober);
    check_free(target->check);
    free(target->host);
    free(target);
}

static void target_end(struct probe_target *target)
{
    struct prober *prober = target->prober;

    probe_run_end(target);
    if (target->kept != NULL)
        probe_ops_of(target)->forget(target);
    DL_DELETE(target->endpoint->targets, target);
    endpoint_put(prober, target->endpoint);
    prober->stats.targets--;
    uv_close((uv_handle_t *) &target->timer, on_closed);
}

int probe_start(struct prober *prober, struct check *check, const struct addr *addr,
                const char *host, probe_report_cb cb, void *user, struct probe **ret)
{
    struct addr checked = *addr;
    struct probe *probe = calloc(1, sizeof(*probe));
    struct probe_endpoint *endpoint;
    struct probe_target *target;

    if (probe == NULL)
        return -ENOMEM;
    if (check->port != 0 && check->type != CHECK_LUA)
        addr_set_port(&checked, (uint16_t) check->port);
    endpoint = endpoint_get(prober, &checked);
    if (endpoint == NULL) {
        free(probe);
        return -ENOMEM;
    }
    target = target_find(endpoint, check, host);
    if (target == NULL) {
        target = target_new(prober, check, &checked, host);
        if (target == NULL) {
            endpoint_put(prober, endpoint);
            free(probe);
            return -ENOMEM;
        }
        target->endpoint = endpoint;
        DL_APPEND(endpoint->targets, target);
    }
    probe->target = target;
    probe->cb = cb;
    probe->user = user;
    /* In front: a report that is under way is none for it. */
    DL_PREPEND(target->probes, probe);
    prober->stats.probes++;
    *ret = probe;
    return 0;
}

void probe_cancel(struct probe *probe)
{
    struct probe_target *target;

    if (probe == NULL)
        return;
    target = probe->target;
    if (target->to_report == probe)
        target->to_report = probe->next;
    DL_DELETE(target->probes, probe);
    target->prober->stats.probes--;
    free(probe);
    if (target->probes == NULL)
        target_end(target);
}

const struct probe_stats *probe_stats(const struct probe *probe)
{
    return &probe->target->stats;
}

void prober_destroy(struct prober *prober)
{
    if (prober == NULL)
        return;
    /* The last probe of a target takes it along, the last target its endpoint. */
    while (prober->endpoints != NULL)
        probe_cancel(prober->endpoints->targets->probes);
    http_client_destroy(prober->http);
    probe_pace_end(prober);
    prober_unref(prober);
}

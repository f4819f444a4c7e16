/* SPDX-License-Identifier: MIT */
/*
 * The JSON that the control API answers with (docs/api.md): servers, peers, monitors. Reads the
 * model and the counters; clocks are passed in.
 */
#ifndef DURPINAD_API_JSON_H
#define DURPINAD_API_JSON_H

#include <jansson.h>
#include <stdint.h>

#include "durpina_select.h"
#include "model.h"

/* Both clocks, read together: counters are in monotonic time, the API in wall time. */
struct api_clock {
    uint64_t wall_ms;
    uint64_t monotonic_ms;
};
struct api_clock api_clock_now(void);

/* ISO 8601 with milliseconds, UTC. size 32 suffices. */
void api_format_time(uint64_t wall_ms, char *buffer, size_t size);
json_t *api_time_json(uint64_t wall_ms);

/* The state of a peer in the API's words. */
const char *api_state_word(const struct peer *peer, const struct durpina_maps *maps,
                           const struct api_clock *now);

/* New references; NULL if memory is short. */
json_t *api_server_json(const struct server *server, const struct durpina_maps *maps,
                        const struct api_clock *now);
/* One address of a server given by name. */
json_t *api_child_json(const struct peer *peer, const struct durpina_maps *maps,
                       const struct api_clock *now);
/* The server with this id, be it a server's own or that of one of its addresses. */
json_t *api_server_by_id_json(const struct server *server, uint32_t id,
                              const struct durpina_maps *maps, const struct api_clock *now);
/* All of the upstream: servers, each followed by its addresses. */
json_t *api_servers_json(const struct upstream *upstream, const struct durpina_maps *maps,
                         const struct api_clock *now);
json_t *api_peer_json(const struct peer *peer, const struct durpina_maps *maps,
                      const struct api_clock *now);
json_t *api_monitor_json(const struct monitor *monitor);
json_t *api_monitors_json(const struct upstream *upstream);

#endif

/* SPDX-License-Identifier: MIT */
/* Where what a worker does meets what the kernel counts (observe.bpf.c). */
#include "ngx_http_durpina_peer.h"

/* Where tcpi_bytes_acked is in the kernel's struct tcp_info, from Linux 4.1 on. */
#define NGX_HTTP_DURPINA_BYTES_ACKED 120

void
ngx_http_durpina_check_observed(ngx_http_durpina_peer_data_t *d)
{
    static ngx_uint_t said;

    if (said || DURPINA_LOAD(&ngx_http_durpina.maps.meta->observing)) {
        return;
    }

    said = 1;

    ngx_log_error(NGX_LOG_WARN, d->request->connection->log, 0,
                  "durpina: \"source=kernel\" goes by the requests in flight as long as durpinad "
                  "does not observe connections (\"durpinactl kernel\" tells why), in upstream "
                  "\"%V\"", &d->block->host);
}

/*
 * Whether a try that failed had no connection, and the kernel counts it as a failure to connect:
 * no SYN of it was answered, and the socket was closed from outside, or is about to be by nginx
 * after a SYN that had to be sent again (durpina_endpoint_failed()). nginx's own time to connect
 * does not tell: it is taken before nginx looks for an error. A connect() that failed at once has
 * left no socket to look at; it sent no SYN, or none that the kernel counts as a failure.
 */
ngx_uint_t
ngx_http_durpina_is_unconnected(ngx_http_durpina_peer_data_t *d, ngx_peer_connection_t *pc)
{
    union {
        struct tcp_info tcp; /* the C library's, which may end before the kernel's does */
        struct {
            u_char   before[NGX_HTTP_DURPINA_BYTES_ACKED];
            uint64_t bytes_acked; /* the SYN is one */
        } kernel;
    } info;

    socklen_t                  len = sizeof(info);
    ngx_connection_t          *c = pc->connection;
    const struct durpina_maps *maps = &ngx_http_durpina.maps;

    if (pc->cached || c == NULL || c->sent || !DURPINA_LOAD(&maps->meta->observing)
        || !durpina_endpoint_at(maps, DURPINA_LOAD(&maps->peers[d->pick.peer].endpoint)))
    {
        return 0;
    }

    ngx_memzero(&info, sizeof(info));

    if (getsockopt(c->fd, IPPROTO_TCP, TCP_INFO, &info, &len) == -1) {
        return 0;
    }

    return info.kernel.bytes_acked == 0
           && (info.tcp.tcpi_state == TCP_CLOSE
               || (info.tcp.tcpi_state == TCP_SYN_SENT && info.tcp.tcpi_total_retrans));
}

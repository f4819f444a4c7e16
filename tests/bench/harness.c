/* SPDX-License-Identifier: MIT */
#include "harness.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <bpf/bpf.h>

void bench_die(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    fprintf(stderr, "%s: ", program_invocation_short_name);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    exit(1);
}

/* --- maps --- */

/* Maps a pin; *ret_n: its elements, each rounded up to 8 bytes as the kernel does. */
static void *map_pin(const char *pin, const char *name, int protection, uint32_t *ret_n)
{
    char path[512];
    struct bpf_map_info info = {0};
    uint32_t info_len = sizeof(info);
    int fd;

    snprintf(path, sizeof(path), "%s/%s", pin, name);
    fd = bpf_obj_get(path);
    if (fd < 0 || bpf_obj_get_info_by_fd(fd, &info, &info_len) != 0)
        bench_die("%s: %s", path, strerror(errno));

    size_t page = (size_t) sysconf(_SC_PAGESIZE);
    size_t size = (size_t) info.max_entries * ((info.value_size + 7) & ~7U);
    void *map = mmap(NULL, (size + page - 1) & ~(page - 1), protection, MAP_SHARED, fd, 0);

    if (map == MAP_FAILED)
        bench_die("mapping %s: %s", path, strerror(errno));
    close(fd);
    *ret_n = info.max_entries;
    return map;
}

struct durpina_maps bench_maps(const char *pin)
{
    struct durpina_maps maps;
    uint32_t n;

    maps.meta = map_pin(pin, "meta", PROT_READ, &n);
    if (maps.meta->magic != DURPINA_MAGIC || maps.meta->layout_hash != DURPINA_LAYOUT_HASH)
        bench_die("%s: the maps have another layout", pin);
    maps.upstreams = map_pin(pin, "upstreams", PROT_READ, &maps.n_upstreams);
    maps.peers = map_pin(pin, "peers", PROT_READ, &maps.n_peers);
    maps.slots = map_pin(pin, "slots", PROT_READ, &n);
    maps.n_slots = n * DURPINA_SLOTS_PER_ROW;
    maps.counters = map_pin(pin, "counters", PROT_READ | PROT_WRITE, &n);
    maps.cursors = map_pin(pin, "cursors", PROT_READ | PROT_WRITE, &n);
    maps.inflight = map_pin(pin, "inflight", PROT_READ | PROT_WRITE, &maps.n_inflight);
    maps.endpoints = map_pin(pin, "endpoints", PROT_READ, &maps.n_endpoints);
    return maps;
}

struct bench_upstream bench_upstream(const struct durpina_maps *maps, const char *name)
{
    for (uint32_t id = 0; id < maps->n_upstreams; id++) {
        const struct durpina_upstream *u = &maps->upstreams[id];
        uint64_t word = durpina_seq_begin(&u->publish);

        if (word != 0 && strcmp(u->name, name) == 0)
            return (struct bench_upstream){name, id, u->generation, u->view[word & 1].peers.length};
    }
    bench_die("there is no upstream %s", name);
}

uint32_t *bench_peers(const struct durpina_maps *maps, const struct bench_upstream *upstream)
{
    const struct durpina_upstream *u = &maps->upstreams[upstream->id];
    uint32_t *ids = calloc(upstream->n_peers + 1, sizeof(*ids));

    if (!ids)
        bench_die("out of memory");
    for (;;) {
        uint64_t word = durpina_seq_begin(&u->publish);
        struct durpina_table peers = durpina_table(maps, &u->view[word & 1].peers);

        if (peers.length != upstream->n_peers)
            bench_die("%s has other peers than before", upstream->name);
        for (uint32_t i = 0; i < peers.length; i++)
            ids[i] = DURPINA_LOAD(&maps->slots[peers.offset + i]);
        if (!durpina_seq_retry(&u->publish, word))
            return ids;
    }
}

/* Field 22 of /proc/self/stat; the second one may hold spaces, and ends with the last ')'. */
static uint32_t process_start(void)
{
    char text[1024];
    FILE *file = fopen("/proc/self/stat", "r");
    size_t len = file ? fread(text, 1, sizeof(text) - 1, file) : 0;

    if (file)
        fclose(file);
    text[len] = '\0';

    char *at = strrchr(text, ')');

    for (int field = 2; at && field < 22; field++)
        at = strchr(at + 1, ' ');
    if (!at)
        bench_die("/proc/self/stat cannot be read");
    return (uint32_t) strtoull(at + 1, NULL, 10);
}

static uint64_t worker_word(struct durpina_worker worker)
{
    union {
        struct durpina_worker worker;
        uint64_t word;
    } w = {.worker = worker};

    return w.word;
}

void bench_entries(const struct durpina_maps *maps, struct durpina_try **ret, size_t n)
{
    struct durpina_worker self = {.pid = (uint32_t) getpid(), .started = process_start()};
    struct stat ns;
    size_t have = 0;

    if (stat("/proc/self/ns/pid", &ns) != 0)
        bench_die("/proc/self/ns/pid: %s", strerror(errno));
    for (uint32_t i = 0; i < maps->n_inflight && have < n; i++) {
        struct durpina_inflight *page = &maps->inflight[i];
        uint64_t none = 0;

        if (!__atomic_compare_exchange_n(durpina_alias(&page->owner), &none, worker_word(self), 0,
                                         __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
            continue;
        DURPINA_STORE(&page->pid_namespace, ns.st_ino);
        for (uint32_t t = 0; t < DURPINA_TRIES_PER_PAGE && have < n; t++)
            ret[have++] = &page->tries[t];
    }
    if (have < n)
        bench_die("no page of inflight is free");
}

void bench_release(const struct durpina_maps *maps)
{
    struct durpina_worker self = {.pid = (uint32_t) getpid(), .started = process_start()};

    for (uint32_t i = 0; i < maps->n_inflight; i++) {
        struct durpina_inflight *page = &maps->inflight[i];

        if (DURPINA_LOAD(durpina_alias(&page->owner)) == worker_word(self)) {
            DURPINA_STORE(&page->pid_namespace, 0);
            __atomic_store_n(durpina_alias(&page->owner), 0, __ATOMIC_RELEASE);
        }
    }
}

/* --- clocks --- */

static uint64_t read_clock(clockid_t clock)
{
    struct timespec t;

    clock_gettime(clock, &t);
    return (uint64_t) t.tv_sec * 1000000000 + (uint64_t) t.tv_nsec;
}

uint64_t bench_ns(void)
{
    return read_clock(CLOCK_MONOTONIC);
}

uint64_t bench_cpu_ns(void)
{
    return read_clock(CLOCK_THREAD_CPUTIME_ID);
}

void bench_sleep_until(uint64_t ns)
{
    struct timespec t = {.tv_sec = (time_t) (ns / 1000000000), .tv_nsec = (long) (ns % 1000000000)};

    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR)
        ;
}

uint64_t bench_process_cpu_ns(int pid)
{
    char path[64 + sizeof(((struct dirent *) 0)->d_name)];
    uint64_t sum = 0;
    struct dirent *entry;

    snprintf(path, sizeof(path), "/proc/%d/task", pid);

    DIR *tasks = opendir(path);

    if (!tasks)
        bench_die("%s: %s", path, strerror(errno));
    while ((entry = readdir(tasks))) {
        uint64_t ns;
        FILE *file;

        snprintf(path, sizeof(path), "/proc/%d/task/%s/schedstat", pid, entry->d_name);
        file = entry->d_name[0] == '.' ? NULL : fopen(path, "r");
        if (file && fscanf(file, "%" SCNu64, &ns) == 1)
            sum += ns;
        if (file)
            fclose(file);
    }
    closedir(tasks);
    return sum;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *) a, y = *(const double *) b;

    return (x > y) - (x < y);
}

double bench_percentile(double *values, size_t n, double share)
{
    size_t at = (size_t) (share * (double) n);

    qsort(values, n, sizeof(*values), compare);
    return values[at < n ? at : n - 1];
}

/* --- control socket --- */

int bench_connect(const char *socket_path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (strlen(socket_path) >= sizeof(address.sun_path))
        bench_die("%s is too long for a socket", socket_path);
    strcpy(address.sun_path, socket_path);
    if (fd < 0 || connect(fd, (struct sockaddr *) &address, sizeof(address)) != 0)
        bench_die("%s: %s", socket_path, strerror(errno));
    return fd;
}

void bench_patch(int fd, const char *upstream, uint32_t server, const char *body)
{
    char request[512];
    int len = snprintf(request, sizeof(request),
                       "PATCH /api/9/http/upstreams/%s/servers/%" PRIu32 " HTTP/1.1\r\n"
                       "Host: x\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
                       upstream, server, strlen(body), body);

    if (len < 0 || (size_t) len >= sizeof(request))
        bench_die("the request is too long");
    if (send(fd, request, (size_t) len, MSG_NOSIGNAL) != len)
        bench_die("sending to the control socket: %s", strerror(errno));
}

void bench_answer(int fd)
{
    char answer[4096];
    size_t len = 0, wanted = 0;

    while (wanted == 0 || len < wanted) {
        ssize_t n = recv(fd, answer + len, sizeof(answer) - 1 - len, 0);

        if (n <= 0)
            bench_die("the control socket was closed");
        len += (size_t) n;
        answer[len] = '\0';

        const char *end = strstr(answer, "\r\n\r\n");
        const char *length = strcasestr(answer, "\r\nContent-Length:");

        if (!end)
            continue;
        if (!length || length > end)
            bench_die("an answer without length: %s", answer);
        wanted = (size_t) (end + 4 - answer) + strtoul(length + 17, NULL, 10);
        if (wanted >= sizeof(answer))
            bench_die("an answer of %zu bytes", wanted);
    }
    if (strncmp(answer, "HTTP/1.1 200 ", 13) != 0)
        bench_die("refused: %s", answer);
}

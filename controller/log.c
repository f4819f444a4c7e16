/* SPDX-License-Identifier: MIT */
#include "log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "failure.h"

/* A longer record is cut; escaping may make four bytes of one. */
#define TEXT_SIZE 1024
#define RECORD_SIZE (4 * TEXT_SIZE + 64)

static const struct {
    const char *word;
    int priority; /* syslog(3), what the journal reads from "<N>" */
} levels[] = {
    [LOG_LEVEL_ERROR] = {"error", 3},   [LOG_LEVEL_WARN] = {"warn", 4},
    [LOG_LEVEL_NOTICE] = {"notice", 5}, [LOG_LEVEL_INFO] = {"info", 6},
    [LOG_LEVEL_DEBUG] = {"debug", 7},
};

static enum log_level threshold = LOG_LEVEL_INFO;

void log_set_level(enum log_level level)
{
    threshold = level;
}

int log_level_parse(const char *word, enum log_level *ret_level)
{
    for (size_t i = 0; i < sizeof(levels) / sizeof(levels[0]); i++) {
        if (strcmp(levels[i].word, word) == 0) {
            *ret_level = (enum log_level) i;
            return 0;
        }
    }
    return -EINVAL;
}

/* systemd.exec(5), JOURNAL_STREAM: "device:inode" of the stream that the service was given. */
static bool is_journal(void)
{
    const char *stream = getenv("JOURNAL_STREAM");
    unsigned long long device, inode;
    struct stat st;

    return stream != NULL && sscanf(stream, "%llu:%llu", &device, &inode) == 2 &&
           fstat(STDERR_FILENO, &st) == 0 && st.st_dev == device && st.st_ino == inode;
}

static size_t write_prefix(char *buffer, size_t size, enum log_level level)
{
    struct timespec now;
    struct tm tm;
    char stamp[32];
    int n;

    if (is_journal()) {
        n = snprintf(buffer, size, "<%d>", levels[level].priority);
    } else {
        clock_gettime(CLOCK_REALTIME, &now);
        gmtime_r(&now.tv_sec, &tm);
        strftime(stamp, sizeof(stamp), "%Y-%m-%dT%H:%M:%S", &tm);
        n = snprintf(buffer, size, "%s.%03ldZ %s: ", stamp, now.tv_nsec / 1000000,
                     levels[level].word);
    }
    return n < 0 ? 0 : (size_t) n;
}

bool log_throttle(struct log_throttle *throttle, uint64_t now_ms, uint32_t interval_ms,
                  char ret_skipped[LOG_SKIPPED_SIZE])
{
    if (now_ms < throttle->next_ms) {
        throttle->skipped++;
        return false;
    }
    ret_skipped[0] = '\0';
    if (throttle->skipped > 0)
        snprintf(ret_skipped, LOG_SKIPPED_SIZE, " (and %u more before that)", throttle->skipped);
    *throttle = (struct log_throttle){.next_ms = now_ms + interval_ms};
    return true;
}

void log_write(enum log_level level, const char *format, ...)
{
    char text[TEXT_SIZE], record[RECORD_SIZE];
    size_t n;
    va_list ap;

    if (level > threshold)
        return;

    int saved_errno = errno;

    va_start(ap, format);
    vsnprintf(text, sizeof(text), format, ap);
    va_end(ap);

    n = write_prefix(record, sizeof(record), level);
    n += escape_text(text, record + n, sizeof(record) - n);
    record[n++] = '\n';

    /* One write a record, so that those of other writers to the same file do not cut it. There is
     * nobody to tell if it fails. */
    if (write(STDERR_FILENO, record, n) < 0)
        errno = saved_errno;
    errno = saved_errno;
}

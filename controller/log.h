/* SPDX-License-Identifier: MIT */
/*
 * The log: one line a record on stderr, with a journal priority prefix ("<4>") when stderr is the
 * journal, else with a time stamp and the level in words. Values are escaped: a record is one line.
 */
#ifndef DURPINAD_LOG_H
#define DURPINAD_LOG_H

#include <stdbool.h>
#include <stdint.h>

enum log_level {
    LOG_LEVEL_ERROR,
    LOG_LEVEL_WARN,
    LOG_LEVEL_NOTICE,
    LOG_LEVEL_INFO,
    LOG_LEVEL_DEBUG
};

void log_set_level(enum log_level level);
/* "error", "warn", "notice", "info", "debug"; -EINVAL. */
int log_level_parse(const char *word, enum log_level *ret_level);
void log_write(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* For what others can cause as often as they like. All zero at first. */
struct log_throttle {
    uint64_t next_ms;
    unsigned skipped;
};
#define LOG_SKIPPED_SIZE 48

/*
 * Is this one to be logged? One in interval_ms is. Then ret_skipped is what to append: how many
 * were not since the last one that was, "" if none. now_ms: any clock that does not go back.
 */
bool log_throttle(struct log_throttle *throttle, uint64_t now_ms, uint32_t interval_ms,
                  char ret_skipped[LOG_SKIPPED_SIZE]);

#define log_error(...) log_write(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warn(...) log_write(LOG_LEVEL_WARN, __VA_ARGS__)
#define log_notice(...) log_write(LOG_LEVEL_NOTICE, __VA_ARGS__)
#define log_info(...) log_write(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...) log_write(LOG_LEVEL_DEBUG, __VA_ARGS__)

#endif

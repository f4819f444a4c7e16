/* SPDX-License-Identifier: MIT */
/* Options as they come, and what becomes of them. */
#ifndef DURPINA_TEST_CHECK_SCENE_H
#define DURPINA_TEST_CHECK_SCENE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "check.h"

#include <cmocka.h> /* last: its macro fail() hides the function of failure.h */

/* NULL and *failure filled if refused. */
static inline struct check *parse(const char *name, const char *options, struct failure *failure)
{
    json_t *json =
        options != NULL ? json_loads(options, JSON_ALLOW_NUL | JSON_DECODE_ANY, NULL) : NULL;
    struct check *check = NULL;
    int err;

    assert_true(options == NULL || json != NULL);
    err = check_parse(name, json, &check, failure);
    json_decref(json);
    if (err == 0) {
        assert_non_null(check);
    } else {
        assert_int_equal(err, -EINVAL);
        assert_null(check);
        assert_int_equal(failure->status, 400);
        assert_string_equal(failure->code, "MonitorBadOptions");
    }
    return check;
}

static inline struct check *parse_ok(const char *name, const char *options)
{
    struct failure failure = {0};
    struct check *check = parse(name, options, &failure);

    if (check == NULL)
        fail_msg("%s %s: %s", name, options, failure.text);
    return check;
}

static inline void assert_refused(const char *name, const char *options, const char *culprit)
{
    struct failure failure = {0};

    if (parse(name, options, &failure) != NULL)
        fail_msg("%s %s was accepted", name, options);
    if (strstr(failure.text, culprit) == NULL)
        fail_msg("%s %s: \"%s\" does not say %s", name, options, failure.text, culprit);
}

#endif

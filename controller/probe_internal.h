/* SPDX-License-Identifier: MIT */
/* Between the files of the prober: probe.c knows who shares what, probe_run.c knows when. */
#ifndef DURPINAD_PROBE_INTERNAL_H
#define DURPINAD_PROBE_INTERNAL_H

#include "probe_ops.h"

/* A subscription to a target. */
struct probe {
    struct probe_target *target;
    struct probe *prev, *next;
    probe_report_cb cb;
    void *user;
    bool is_told; /* it has heard of a verdict */
};

const struct probe_ops *probe_ops_of(const struct probe_target *target);

uint32_t probe_random(void);

/* Makes its timer and the slot of its first check. */
void probe_run_begin(struct probe_target *target);
/* Ends what runs and takes it out of the schedule; the timer is still to be closed. */
void probe_run_end(struct probe_target *target);

/* What lets the checks keep their pace, from prober_create() to prober_destroy(). */
void probe_pace_begin(struct prober *prober);
void probe_pace_end(struct prober *prober);

#endif

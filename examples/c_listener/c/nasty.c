#include "nasty.h"

#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

static const uint8_t FRAME[] = {'n', 'a', 's', 't', 'y'};

static on_frame_fn registered;
static void *registered_data;

void nasty_call(on_frame_fn on_frame, void *user_data) {
    on_frame(FRAME, sizeof FRAME, user_data);
}

void nasty_register(on_frame_fn on_frame, void *user_data) {
    registered = on_frame;
    registered_data = user_data;
    nasty_call_again();
}

void nasty_call_again(void) {
    nasty_call(registered, registered_data);
}

struct caller {
    on_frame_fn on_frame;
    void *user_data;
    int calls;
};

static void *call_often(void *argument) {
    struct caller *caller = argument;
    for (int n = 0; n < caller->calls; n++)
        nasty_call(caller->on_frame, caller->user_data);
    return NULL;
}

void nasty_threads(on_frame_fn on_frame, void *user_data, int threads, int calls) {
    struct caller caller = {on_frame, user_data, calls};
    pthread_t *all = calloc((size_t)threads, sizeof *all);
    int started = 0;
    while (all && started < threads && !pthread_create(&all[started], NULL, call_often, &caller))
        started++;
    for (int n = 0; n < started; n++)
        pthread_join(all[n], NULL);
    free(all);
}

void nasty_arguments(on_frame_fn on_frame, void *user_data) {
    on_frame(FRAME, sizeof FRAME, NULL);
    on_frame(NULL, 0, user_data);
    on_frame(FRAME, 0, user_data);
    on_frame(NULL, 5, user_data);
    on_frame(FRAME, SIZE_MAX, user_data);
    on_frame(FRAME, (size_t)PTRDIFF_MAX + 1, user_data);
}

int nasty_at_exit(on_frame_fn on_frame, void *user_data) {
    registered = on_frame;
    registered_data = user_data;
    return atexit(nasty_call_again);
}

static struct caller endless;

static void *call_for_ever(void *argument) {
    struct caller *caller = argument;
    for (;;)
        nasty_call(caller->on_frame, caller->user_data);
    return NULL;
}

int nasty_never_ends(on_frame_fn on_frame, void *user_data) {
    pthread_t thread;
    endless = (struct caller){on_frame, user_data, 0};
    int failed = pthread_create(&thread, NULL, call_for_ever, &endless);
    return failed ? failed : pthread_detach(thread);
}

struct nasty_victim {
    pthread_t thread;
    struct caller caller;
    int returned;
};

static void *call_then_be_cancelled(void *argument) {
    struct nasty_victim *victim = argument;
    nasty_call(victim->caller.on_frame, victim->caller.user_data);
    victim->returned = 1;
    for (int n = 0; n < 600; n++)
        usleep(100000);
    return NULL;
}

struct nasty_victim *nasty_victim_start(on_frame_fn on_frame, void *user_data) {
    struct nasty_victim *victim = calloc(1, sizeof *victim);
    if (!victim)
        return NULL;
    victim->caller = (struct caller){on_frame, user_data, 1};
    if (pthread_create(&victim->thread, NULL, call_then_be_cancelled, victim)) {
        free(victim);
        return NULL;
    }
    return victim;
}

void nasty_victim_cancel(struct nasty_victim *victim) {
    pthread_cancel(victim->thread);
}

int nasty_victim_join(struct nasty_victim *victim) {
    void *outcome;
    pthread_join(victim->thread, &outcome);
    int proper = outcome == PTHREAD_CANCELED && victim->returned;
    free(victim);
    return proper;
}

#ifndef C_NASTY_H
#define C_NASTY_H

#include "listener.h"

/* A registration that calls back before it returns. */
void nasty_register(on_frame_fn on_frame, void *user_data);
/* Calls with what nasty_register was given, however long ago. */
void nasty_call_again(void);
/* Calls from several threads at once, and joins them. */
void nasty_threads(on_frame_fn on_frame, void *user_data, int threads, int calls);
/* Calls with NULL user data, NULL data, and lengths that no memory has. */
void nasty_arguments(on_frame_fn on_frame, void *user_data);
/* Calls once; meant to be used from inside a callback. */
void nasty_call(on_frame_fn on_frame, void *user_data);
/* Calls from an atexit handler. */
int nasty_at_exit(on_frame_fn on_frame, void *user_data);
/* Starts a thread that never stops calling. */
int nasty_never_ends(on_frame_fn on_frame, void *user_data);
/* A thread that calls once, then reaches a cancellation point. */
struct nasty_victim;
struct nasty_victim *nasty_victim_start(on_frame_fn on_frame, void *user_data);
void nasty_victim_cancel(struct nasty_victim *victim);
/* Joins and frees; 1 if the cancel took effect after the callback had returned, 0 if never. */
int nasty_victim_join(struct nasty_victim *victim);

#endif

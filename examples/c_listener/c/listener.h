#ifndef C_LISTENER_H
#define C_LISTENER_H

#include <stddef.h>
#include <stdint.h>

/* Called on the listener's thread; data is valid until it returns. */
typedef void (*on_frame_fn)(const uint8_t *data, size_t len, void *user_data);

struct c_listener;

/* Listens for datagrams on a free loopback port. NULL if that fails (errno says why). */
struct c_listener *c_listener_start(on_frame_fn on_frame, void *user_data, uint16_t *port);

/* Asks the thread to end; may be called from the callback. */
void c_listener_request_stop(struct c_listener *listener);

/* Asks the thread to end, joins it and frees the listener. From the callback: EDEADLK, and the
   listener stays. */
int c_listener_stop(struct c_listener *listener);

/* As stop, with pthread_cancel. */
int c_listener_kill(struct c_listener *listener);

/* Asks the thread to end and lets it free the listener by itself. */
void c_listener_detach(struct c_listener *listener);

#endif

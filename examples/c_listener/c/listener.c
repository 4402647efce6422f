#include "listener.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct c_listener {
    int fd;
    pthread_t thread;
    struct sockaddr_in address;
    on_frame_fn on_frame;
    void *user_data;
    atomic_int stopping;
    /* The thread and the owner; the last to go frees. */
    atomic_int owners;
};

static void let_go(struct c_listener *listener) {
    if (atomic_fetch_sub(&listener->owners, 1) == 1) {
        close(listener->fd);
        free(listener);
    }
}

static void thread_ends(void *listener) {
    let_go(listener);
}

static void *listen_for_frames(void *argument) {
    struct c_listener *listener = argument;
    uint8_t buffer[65536];
    pthread_cleanup_push(thread_ends, listener);
    for (;;) {
        ssize_t got = recvfrom(listener->fd, buffer, sizeof buffer, 0, NULL, NULL);
        if (atomic_load(&listener->stopping))
            break;
        if (got >= 0)
            listener->on_frame(buffer, (size_t)got, listener->user_data);
        else if (errno != EINTR)
            break;
    }
    pthread_cleanup_pop(1);
    return NULL;
}

struct c_listener *c_listener_start(on_frame_fn on_frame, void *user_data, uint16_t *port) {
    struct c_listener *listener = calloc(1, sizeof *listener);
    if (!listener)
        return NULL;
    listener->on_frame = on_frame;
    listener->user_data = user_data;
    atomic_init(&listener->owners, 2);
    listener->address.sin_family = AF_INET;
    listener->address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof listener->address;
    int failed;
    listener->fd = socket(AF_INET, SOCK_DGRAM, 0);
    if (listener->fd < 0 || bind(listener->fd, (struct sockaddr *)&listener->address, size) ||
        getsockname(listener->fd, (struct sockaddr *)&listener->address, &size))
        failed = errno;
    else
        failed = pthread_create(&listener->thread, NULL, listen_for_frames, listener);
    if (failed) {
        if (listener->fd >= 0)
            close(listener->fd);
        free(listener);
        errno = failed;
        return NULL;
    }
    *port = ntohs(listener->address.sin_port);
    return listener;
}

void c_listener_request_stop(struct c_listener *listener) {
    atomic_store(&listener->stopping, 1);
    sendto(listener->fd, "", 0, 0, (struct sockaddr *)&listener->address,
           sizeof listener->address);
}

static int join(struct c_listener *listener) {
    int failed = pthread_join(listener->thread, NULL);
    if (!failed)
        let_go(listener);
    return failed;
}

int c_listener_stop(struct c_listener *listener) {
    c_listener_request_stop(listener);
    return join(listener);
}

int c_listener_kill(struct c_listener *listener) {
    pthread_cancel(listener->thread);
    return join(listener);
}

void c_listener_detach(struct c_listener *listener) {
    pthread_detach(listener->thread);
    c_listener_request_stop(listener);
    let_go(listener);
}

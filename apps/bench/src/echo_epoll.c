/* The peer to beat in the echo topic: an epoll server in C, with nothing in it that is not needed.
 * 64 bytes always fit into a socket's buffer, so a short write ends the connection. */
#define _GNU_SOURCE
#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { EVENTS = 256, BUFFER = 16 * 1024 };

/* Serves the connections of a non-blocking listener for ever. Returns errno when it cannot. */
int echo_epoll_serve(int listener)
{
    static char buffer[BUFFER];
    struct epoll_event events[EVENTS];
    struct epoll_event event = { .events = EPOLLIN, .data.fd = listener };
    int epoll = epoll_create1(EPOLL_CLOEXEC);

    if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event) < 0)
        return errno;
    for (;;) {
        int count = epoll_wait(epoll, events, EVENTS, -1);

        if (count < 0 && errno != EINTR)
            return errno;
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;

            if (fd == listener) {
                fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
                event.data.fd = fd;
                if (fd >= 0 && epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0)
                    close(fd);
                continue;
            }
            ssize_t got = read(fd, buffer, sizeof buffer);

            if (got < 0 && errno == EAGAIN)
                continue;
            if (got <= 0 || write(fd, buffer, (size_t)got) != got)
                close(fd);
        }
    }
}

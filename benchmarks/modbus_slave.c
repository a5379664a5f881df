/* A Modbus TCP slave that answers every read of registers at once, for benchmarks: one thread, epoll.
 * Prints the port it listens on. Registers 2n and 2n + 1 hold the float32 230.1 + n / 10. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CONNECTIONS = 65536, REQUEST = 12, LONGEST = 260, EVENTS = 256 };

static unsigned char registers[1024];
static unsigned char kept[CONNECTIONS][REQUEST];
static int have[CONNECTIONS];

static size_t answer(const unsigned char *request, unsigned char *out)
{
    unsigned first = request[8] << 8 | request[9], count = request[10] << 8 | request[11];
    if (count > 125 || first > 256)
        count = 0;
    memcpy(out, request, 8);
    out[4] = 0;
    out[5] = 3 + 2 * count;
    out[8] = 2 * count;
    memcpy(out + 9, registers + 2 * first, 2 * count);
    return 9 + 2 * count;
}

static int serve(int handle)
{
    unsigned char in[REQUEST * 64], out[LONGEST * 64];
    size_t filled = 0;
    ssize_t got = recv(handle, in, sizeof in, 0);
    if (got <= 0)
        return 0;
    for (ssize_t at = 0; at < got; at++) {
        kept[handle][have[handle]++] = in[at];
        if (have[handle] == REQUEST) {
            filled += answer(kept[handle], out + filled);
            have[handle] = 0;
        }
    }
    return send(handle, out, filled, MSG_NOSIGNAL) == (ssize_t)filled;
}

int main(void)
{
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof here;
    for (int at = 0; at < 256; at++) {
        float value = 230.1f + at / 10.0f;
        unsigned bits;
        memcpy(&bits, &value, 4);
        bits = htonl(bits);
        memcpy(registers + 4 * at, &bits, 4);
    }
    int one = 1, door = socket(AF_INET, SOCK_STREAM, 0), poll = epoll_create1(0);
    if (bind(door, (struct sockaddr *)&here, size) || listen(door, 4096) || getsockname(door, (struct sockaddr *)&here, &size))
        return 1;
    printf("%d\n", ntohs(here.sin_port));
    fflush(stdout);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = door}, events[EVENTS];
    epoll_ctl(poll, EPOLL_CTL_ADD, door, &event);
    for (;;) {
        /* Never sleeps: waking a sleeping process costs the writer more than all the rest on a virtual machine. */
        int count = epoll_wait(poll, events, EVENTS, 0);
        for (int at = 0; at < count; at++) {
            int handle = events[at].data.fd;
            if (handle == door) {
                handle = accept(door, 0, 0);
                if (handle < 0 || handle >= CONNECTIONS)
                    continue;
                setsockopt(handle, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                have[handle] = 0;
                event.data.fd = handle;
                epoll_ctl(poll, EPOLL_CTL_ADD, handle, &event);
            } else if (!serve(handle)) {
                close(handle);
            }
        }
    }
}

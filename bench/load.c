/* A client that costs little: sends prepared request frames, keeps N in flight on each connection, counts answers.
 *
 * load SOCKET FRAMES FRAMING CONNECTIONS DEPTH WARM-SECONDS SECONDS
 *
 * FRAMES is a file of  [u32 length][u32 offset of the msgid][bytes], both numbers in the machine's order; the
 * frames are sent in turn. FRAMING is `msgpack` (answers [1, msgid, error, result]; the msgid is one byte, a
 * positive fixint, and names the slot), `echo` (the same frames come back) or `ssh` (u32be length, one in flight).
 * Prints one JSON object: what was counted behind the warm-up, latencies in microseconds, its own CPU seconds.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { SLOTS = 127, SAMPLES = 1 << 22 };
enum framing { MSGPACK, ECHO, SSH };

struct frame { const uint8_t *bytes; uint32_t length, msgid; };
struct connection {
    int fd, waiting;                  /* waiting: registered for EPOLLOUT too */
    uint8_t *in, *out;
    size_t in_length, out_length, out_done;
    uint64_t sent[SLOTS];
};

static struct frame *frames;
static size_t frame_count, next_frame, in_size = 1 << 18, out_size;
static enum framing framing;
static uint32_t *samples;
static uint64_t counted, sampled, errors, item_errors, begin, end;
static char first_error[200], first_reply[2 * 2048 + 1];

static void die(const char *what) { perror(what); exit(1); }

static uint64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + t.tv_nsec;
}

static uint32_t be32(const uint8_t *p) { return (uint32_t)p[0] << 24 | p[1] << 16 | p[2] << 8 | p[3]; }

/* The length of the msgpack value at `p`, or 0 when it is not complete before `limit`. */
static size_t value_length(const uint8_t *p, const uint8_t *limit) {
    const uint8_t *start = p;
    size_t left = 1;                  /* values still to walk over; containers add theirs: no recursion */
    while (left) {
        if (p >= limit) return 0;
        uint8_t b = *p;
        size_t head = 1, body = 0, room = limit - p;
        left--;
        if (b <= 0x7f || b >= 0xe0 || (b >= 0xc0 && b <= 0xc3)) { }
        else if (b <= 0x8f) left += 2 * (b & 15);
        else if (b <= 0x9f) left += b & 15;
        else if (b <= 0xbf) body = b & 31;
        else {
            static const uint8_t heads[32] = { /* 0xc0.. */ 1,1,1,1, 2,3,5, 3,4,6, 5,9, 2,3,5,9, 2,3,5,9, 3,4,6,10,18, 2,3,5, 3,5, 3,5 };
            head = heads[b - 0xc0];
            if (room < head) return 0;
            switch (b) {
            case 0xc4: case 0xd9: body = p[1]; break;
            case 0xc5: case 0xda: body = p[1] << 8 | p[2]; break;
            case 0xc6: case 0xdb: body = be32(p + 1); break;
            case 0xdc: left += p[1] << 8 | p[2]; break;
            case 0xdd: left += be32(p + 1); break;
            case 0xde: left += 2 * (p[1] << 8 | p[2]); break;
            case 0xdf: left += 2 * (size_t)be32(p + 1); break;
            case 0xc7: body = p[1]; break;
            case 0xc8: body = p[1] << 8 | p[2]; break;
            case 0xc9: body = be32(p + 1); break;
            }
        }
        if (room < head + body) return 0;
        p += head + body;
    }
    return p - start;
}

static void note_error(const uint8_t *p, size_t length) {
    if (!errors++) {
        size_t n = 0;
        for (size_t i = 0; i < length && n < sizeof first_error - 1; i++)
            if (p[i] >= 0x20 && p[i] < 0x7f && p[i] != '"' && p[i] != '\\') first_error[n++] = p[i];
    }
}

static void queue(struct connection *c, unsigned slot, uint64_t at) {
    const struct frame *f = &frames[next_frame];
    if (++next_frame == frame_count) next_frame = 0;
    memcpy(c->out + c->out_length, f->bytes, f->length);
    if (framing != SSH) c->out[c->out_length + f->msgid] = slot;
    c->out_length += f->length;
    c->sent[slot] = at;
}

static void flush_out(int epoll, struct connection *c) {
    while (c->out_done < c->out_length) {
        ssize_t n = send(c->fd, c->out + c->out_done, c->out_length - c->out_done, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EAGAIN) break;
        if (n < 0) die("send");
        c->out_done += n;
    }
    int waiting = c->out_done < c->out_length;
    if (!waiting) c->out_done = c->out_length = 0;
    else if (c->out_done) {
        memmove(c->out, c->out + c->out_done, c->out_length - c->out_done);
        c->out_length -= c->out_done;
        c->out_done = 0;
    }
    if (waiting != c->waiting) {
        struct epoll_event ev = {EPOLLIN | (waiting ? EPOLLOUT : 0), {.ptr = c}};
        epoll_ctl(epoll, EPOLL_CTL_MOD, c->fd, &ev);
        c->waiting = waiting;
    }
}

/* One whole answer at `p`: returns its slot. */
static unsigned take(const uint8_t *p, size_t length) {
    if (!*first_reply)
        for (size_t i = 0; i < length && i < 2048; i++) sprintf(first_reply + 2 * i, "%02x", p[i]);
    if (framing == SSH) {
        if (p[4] != 14) note_error(p, length);   /* SSH_AGENT_SIGN_RESPONSE */
        return 0;
    }
    if (p[0] != 0x94 || p[2] >= SLOTS) { fprintf(stderr, "not an answer\n"); exit(1); }
    if (framing == MSGPACK) {
        if (p[1] != 1) { fprintf(stderr, "not an answer\n"); exit(1); }
        if (p[3] != 0xc0) note_error(p + 3, length - 3);
        else if (memmem(p, length, "\xa5" "error", 6)) item_errors++;
    }
    return p[2];
}

static size_t answer_length(const uint8_t *p, size_t room) {
    if (framing != SSH) return value_length(p, p + room);
    if (room < 4) return 0;
    size_t length = 4 + (size_t)be32(p);
    return room < length ? 0 : length;
}

static void readable(int epoll, struct connection *c) {
    ssize_t n = recv(c->fd, c->in + c->in_length, in_size - c->in_length, MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) { fprintf(stderr, "the server closed the connection\n"); exit(1); }
    c->in_length += n;
    uint64_t at = now();
    size_t done = 0, length;
    while ((length = answer_length(c->in + done, c->in_length - done))) {
        unsigned slot = take(c->in + done, length);
        done += length;
        if (at >= begin && at < end) {
            uint64_t took = at - c->sent[slot];
            if (sampled < SAMPLES) samples[sampled++] = took > UINT32_MAX ? UINT32_MAX : took;
            counted++;
        }
        queue(c, slot, at);
    }
    if (done) memmove(c->in, c->in + done, c->in_length -= done);
    else if (c->in_length == in_size) { fprintf(stderr, "an answer is larger than %zu bytes\n", in_size); exit(1); }
    flush_out(epoll, c);
}

static void load_frames(const char *path) {
    int fd = open(path, O_RDONLY);
    struct stat st;
    if (fd < 0 || fstat(fd, &st)) die(path);
    uint8_t *all = malloc(st.st_size);
    if (read(fd, all, st.st_size) != st.st_size) die(path);
    for (uint8_t *p = all; p < all + st.st_size; frame_count++) {
        frames = realloc(frames, (frame_count + 1) * sizeof *frames);
        struct frame *f = &frames[frame_count];
        memcpy(&f->length, p, 4);
        memcpy(&f->msgid, p + 4, 4);
        f->bytes = p + 8;
        p += 8 + f->length;
        if (f->length > out_size) out_size = f->length;
    }
    close(fd);
}

static int dial(const char *path) {
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    strncpy(to.sun_path, path, sizeof to.sun_path - 1);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    while (connect(fd, (struct sockaddr *)&to, sizeof to)) {
        if (errno != EAGAIN) die("connect");   /* the backlog is full */
        usleep(1000);
    }
    return fd;
}

static int by_size(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static double percentile(double share) { return sampled ? samples[(size_t)(share * (sampled - 1))] / 1e3 : 0; }

int main(int argc, char **argv) {
    if (argc != 8) return 2;
    load_frames(argv[2]);
    framing = !strcmp(argv[3], "ssh") ? SSH : !strcmp(argv[3], "echo") ? ECHO : MSGPACK;
    int connections = atoi(argv[4]), depth = atoi(argv[5]);
    double warm = atof(argv[6]), seconds = atof(argv[7]);
    if (depth < 1 || depth > SLOTS || connections < 1 || !frame_count) return 2;
    out_size *= depth + 1;
    samples = malloc(SAMPLES * sizeof *samples);
    struct connection *all = calloc(connections, sizeof *all);
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    for (int i = 0; i < connections; i++) {
        all[i].fd = dial(argv[1]);
        all[i].in = malloc(in_size);
        all[i].out = malloc(out_size);
        struct epoll_event ev = {EPOLLIN, {.ptr = &all[i]}};
        epoll_ctl(epoll, EPOLL_CTL_ADD, all[i].fd, &ev);
    }
    begin = now() + (uint64_t)(warm * 1e9);
    end = begin + (uint64_t)(seconds * 1e9);
    for (int i = 0; i < connections; i++) {
        for (int slot = 0; slot < depth; slot++) queue(&all[i], slot, now());
        flush_out(epoll, &all[i]);
    }
    struct epoll_event events[64];
    while (now() < end) {
        int n = epoll_wait(epoll, events, 64, 100);
        for (int i = 0; i < n; i++) {
            if (events[i].events & EPOLLOUT) flush_out(epoll, events[i].data.ptr);
            if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) readable(epoll, events[i].data.ptr);
        }
        if (!counted && now() > begin + 30000000000u) break;
    }
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    double cpu = used.ru_utime.tv_sec + used.ru_stime.tv_sec + (used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
    qsort(samples, sampled, sizeof *samples, by_size);
    printf("{\"count\": %lu, \"seconds\": %.6f, \"p50_us\": %.2f, \"p99_us\": %.2f, \"max_us\": %.2f, \"errors\": %lu, "
           "\"item_errors\": %lu, \"first_error\": \"%s\", \"first_reply\": \"%s\", \"cpu_seconds\": %.3f}\n",
           (unsigned long)counted, seconds, percentile(0.5), percentile(0.99), percentile(1), (unsigned long)errors,
           (unsigned long)item_errors, first_error, first_reply, cpu);
    return 0;
}

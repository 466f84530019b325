/* A PKCS#11 module for tests: SoftHSM2 on a device that can be pulled out, reset, or made to answer with a given code.
 *
 *   SHIM_MODULE   the module behind it
 *   SHIM_OUTAGE   a file of five 32-bit numbers, read at each call:
 *                 gone    not 0: there is no device (no slot, CKR_DEVICE_REMOVED from what was open)
 *                 resets  grows: sessions from before are invalid, and with them login and session objects
 *                 code    what the next `count` operations answer, in place of doing anything
 *                 count   counted down
 *                 after   how many operations go well before those; counted down
 *   SHIM_SESSIONS a file of which each byte is a session that the token allows, to all processes together; who has
 *                 it has locked it, so it is free again when they end. Without it there is no limit.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>

typedef unsigned long UL;
struct list { unsigned char version[8]; void *function[68]; };
struct outage { volatile uint32_t gone, resets, code, count, after; };

enum { GET_SLOT_LIST = 4, GET_TOKEN_INFO = 6, OPEN_SESSION = 12, CLOSE_SESSION = 13, CLOSE_ALL_SESSIONS = 14, ENCRYPT = 30, DECRYPT = 34, SIGN = 43,
       GENERATE_KEY = 58, GENERATE_RANDOM = 64 };
enum { DEVICE_REMOVED = 0x32, SESSION_COUNT = 0xB1, SESSION_HANDLE_INVALID = 0xB3, TOKEN_NOT_PRESENT = 0xE0 };

static struct list *behind, ours;
static struct outage *outage;
static uint32_t seen;
static UL slot;
static int sessions = -1;                 /* SHIM_SESSIONS */
static struct { UL handle; char taken; } mine[256];

#define BEHIND(index) ((UL (*)())behind->function[index])

static int is_operation(int index) {
    return index == ENCRYPT || index == DECRYPT || index == SIGN || index == GENERATE_KEY || index == GENERATE_RANDOM;
}
static UL before(int index) {
    if (outage->gone) return index == OPEN_SESSION ? TOKEN_NOT_PRESENT : DEVICE_REMOVED;
    if (index > OPEN_SESSION && seen != outage->resets) {
        BEHIND(CLOSE_ALL_SESSIONS)(slot);
        return SESSION_HANDLE_INVALID;
    }
    if (is_operation(index) && outage->count && outage->after) {
        outage->after--;
    } else if (is_operation(index) && outage->count) {
        outage->count--;
        return outage->code;
    }
    return 0;
}
/* No function of the list takes more than eight arguments; those a function has not are passed on unread. */
#define PASS(index)                                                                        \
    static UL pass##index(UL a, UL b, UL c, UL d, UL e, UL f, UL g, UL h) {                \
        UL code = before(index);                                                           \
        if (code && (outage->gone || !is_operation(index) || index == GENERATE_KEY)) return code; \
        UL done = BEHIND(index)(a, b, c, d, e, f, g, h); /* what fails is over, too */      \
        return code ? code : done;                                                         \
    }
/* How many sessions the token allows; a file of 0 bytes or none: no limit. */
static int allowed(void) {
    struct stat facts;
    return sessions < 0 || fstat(sessions, &facts) ? 0 : (int)facts.st_size;
}
static int lock(int place, int kind) {
    struct flock range = {.l_type = kind, .l_whence = SEEK_SET, .l_start = place, .l_len = 1};
    return fcntl(sessions, F_SETLK, &range);
}
/* The place of a session that nobody has; -1 when there is none. */
static int take(void) {
    for (int place = 0; place < allowed(); place++)
        if (!mine[place].taken && !lock(place, F_WRLCK)) return mine[place].taken = 1, place;
    return -1;
}
static void give(int place) {
    mine[place].taken = 0;
    lock(place, F_UNLCK);
}
static UL get_token_info(UL chosen, unsigned char *info) {
    UL code = before(GET_TOKEN_INFO), *limits = (UL *)(info + 96);
    if (!code) code = BEHIND(GET_TOKEN_INFO)(chosen, info);
    if (!code && allowed()) limits[1] = limits[3] = allowed();       /* ulMaxSessionCount, ulMaxRwSessionCount */
    return code;
}
static UL close_session(UL session) {
    UL code = before(CLOSE_SESSION);
    if (!outage->gone) for (int place = 0; place < allowed(); place++)
        if (mine[place].taken && mine[place].handle == session) give(place);
    return code ? code : BEHIND(CLOSE_SESSION)(session);
}
static UL get_slot_list(unsigned char present, UL *list, UL *count) {
    if (!outage->gone) return BEHIND(GET_SLOT_LIST)(present, list, count);
    *count = 0;
    return 0;
}
static UL open_session(UL chosen, UL flags, void *application, void *notify, UL *session) {
    UL code = before(OPEN_SESSION);
    if (code) return code;
    slot = chosen;
    if (seen != outage->resets) BEHIND(CLOSE_ALL_SESSIONS)(slot);
    seen = outage->resets;
    int place = allowed() ? take() : -1;
    if (allowed() && place < 0) return SESSION_COUNT;
    code = BEHIND(OPEN_SESSION)(chosen, flags, application, notify, session);
    if (place >= 0 && code) give(place);
    else if (place >= 0) mine[place].handle = *session;
    return code;
}
#define EACH(X) X(15) X(18) X(19) X(20) X(21) X(22) X(24) X(26) X(27) X(28) X(29) X(30) X(33) X(34) X(42) X(43) \
                X(58) X(59) X(60) X(61) X(62) X(64)
EACH(PASS)

UL C_GetFunctionList(struct list **list) {
    void *module = dlopen(getenv("SHIM_MODULE"), RTLD_NOW);
    UL (*get)(struct list **) = module ? (UL (*)(struct list **))dlsym(module, "C_GetFunctionList") : 0;
    int file = open(getenv("SHIM_OUTAGE"), O_RDWR);
    if (!get || file < 0 || get(&behind)) return 6;
    outage = mmap(0, sizeof *outage, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (outage == MAP_FAILED) return 6;
    if (getenv("SHIM_SESSIONS")) sessions = open(getenv("SHIM_SESSIONS"), O_RDWR);
    seen = outage->resets;
    ours = *behind;
#define SET(index) ours.function[index] = pass##index;
    EACH(SET)
    ours.function[GET_SLOT_LIST] = get_slot_list;
    ours.function[OPEN_SESSION] = open_session;
    ours.function[CLOSE_SESSION] = close_session;
    ours.function[GET_TOKEN_INFO] = get_token_info;
    *list = &ours;
    return 0;
}

/* A PKCS#11 module for tests: SoftHSM2's functions, some of them spoilt as the environment says.
 *
 *   SHIM_MODULE   the module behind it
 *   SHIM          words, blank between: what is spoilt (see the functions)
 *   SHIM_REMOVED  a path: while that file exists the token has been pulled out
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef unsigned long UL;
struct mechanism { UL mechanism; void *parameter; UL length; };
struct attribute { UL type; void *value; UL length; };
struct gcm { unsigned char *iv; UL iv_length, iv_bits; void *aad; UL aad_length, tag_bits; };
struct list { unsigned char version[8]; void *function[68]; };

enum { INITIALIZE = 0, GET_TOKEN_INFO = 6, GET_MECHANISM_LIST = 7, OPEN_SESSION = 12, GET_SESSION_INFO = 15, LOGIN = 18,
       ENCRYPT_INIT = 29, SIGN = 43, UNWRAP_KEY = 61, GENERATE_KEY = 58 };
enum { RSA_PAIR = 0, CURVE_PAIR = 0x1040, EDWARDS_PAIR = 0x1055, GCM = 0x1087, KEY_WRAP = 0x2109, KEY_WRAP_PAD = 0x210A, KEY_WRAP_KWP = 0x210B };

static struct list *behind, spoilt;
static int sessions;

static int says(const char *word) {
    const char *at = getenv("SHIM");
    size_t length = strlen(word);
    while (at && (at = strstr(at, word))) {
        if (at[length] == ' ' || at[length] == 0) return 1;
        at += length;
    }
    return 0;
}
static int removed(void) {
    const char *path = getenv("SHIM_REMOVED");
    return path && access(path, F_OK) == 0;
}
#define BEHIND(index, ...) (((UL (*)())behind->function[index])(__VA_ARGS__))

static UL initialize(void *arguments) {
    if (says("segfault")) raise(SIGSEGV);
    if (says("abort")) abort();
    if (says("exit")) _exit(7);
    if (says("hang")) for (;;) pause();
    if (says("refuses")) return 0x30;                      /* CKR_DEVICE_ERROR */
    if (says("cant-lock") && arguments) return 0x0A;       /* CKR_CANT_LOCK */
    return BEHIND(INITIALIZE, arguments);
}
static UL get_token_info(UL slot, UL *info) {
    if (removed()) return 0xE0;                            /* CKR_TOKEN_NOT_PRESENT */
    UL code = BEHIND(GET_TOKEN_INFO, slot, info);
    UL *flags = (UL *)((char *)info + 96);
    if (says("flag-locked")) *flags |= 0x40000;            /* CKF_USER_PIN_LOCKED */
    if (says("one-session")) flags[1] = flags[3] = 1;      /* ulMaxSessionCount, ulMaxRwSessionCount */
    if (says("one-rw-session")) flags[3] = 1;
    return code;
}
static UL get_mechanism_list(UL slot, UL *list, UL *count) {
    UL code = BEHIND(GET_MECHANISM_LIST, slot, list, count), kept = 0;
    for (UL at = 0; list && !code && at < *count; at++) {
        if (says("no-gcm") && list[at] == GCM) continue;
        if (says("no-ed25519") && list[at] == EDWARDS_PAIR) continue;
        if (says("no-p256") && list[at] == CURVE_PAIR) continue;
        if (says("no-rsa") && list[at] == RSA_PAIR) continue;
        if (says("no-kwp") && list[at] >= KEY_WRAP && list[at] <= KEY_WRAP_KWP) continue;
        list[kept++] = list[at];
    }
    if (list && !code) *count = kept;
    return code;
}
static UL open_session(UL slot, UL flags, void *application, void *notify, UL *session) {
    if (removed()) return 0xE0;
    int most = says("no-session") ? 0 : says("one-session") || says("one-left") ? 1 : 1000;
    if (sessions >= most) return 0xB1;                     /* CKR_SESSION_COUNT */
    if (says("one-rw-session") && sessions == 1 && flags & 2) return 0xB1;
    sessions++;
    return BEHIND(OPEN_SESSION, slot, flags, application, notify, session);
}
static UL get_session_info(UL session, UL *info) {
    UL code = BEHIND(GET_SESSION_INFO, session, info);
    if (says("login-is-lost")) info[1] = 2;                /* CKS_RW_PUBLIC_SESSION */
    return code;
}
static UL login(UL session, UL user, void *pin, UL length) {
    if (says("pin-locked")) return 0xA4;
    if (says("pin-expired")) return 0xA3;
    if (says("officer-is-in")) return 0x104;               /* CKR_USER_ANOTHER_ALREADY_LOGGED_IN */
    UL code = BEHIND(LOGIN, session, user, pin, length);
    return says("user-is-in") && !code ? 0x100 : code;     /* CKR_USER_ALREADY_LOGGED_IN */
}
static UL encrypt_init(UL session, struct mechanism *mechanism, UL key) {
    if (says("own-nonce") && mechanism->mechanism == GCM) ((struct gcm *)mechanism->parameter)->iv[0] ^= 0xA5;
    return BEHIND(ENCRYPT_INIT, session, mechanism, key);
}
static UL sign(UL session, void *data, UL length, void *signature, UL *room) {
    if (removed()) return 0x32;                            /* CKR_DEVICE_REMOVED */
    return BEHIND(SIGN, session, data, length, signature, room);
}
static UL unwrap_key(UL session, void *mechanism, UL key, void *blob, UL length, struct attribute *rows, UL count,
                     UL *handle) {
    static unsigned char yes = 1;
    struct attribute loose[64];
    memcpy(loose, rows, count * sizeof *rows);
    for (UL at = 0; says("unwraps-extractable") && at < count; at++)
        if (loose[at].type == 0x162) loose[at].value = &yes;
    return BEHIND(UNWRAP_KEY, session, mechanism, key, blob, length, loose, count, handle);
}
static UL generate_key(UL session, void *mechanism, struct attribute *rows, UL count, UL *handle) {
    static unsigned char yes = 1;
    struct attribute loose[64];
    memcpy(loose, rows, count * sizeof *rows);
    for (UL at = 0; says("generates-modifiable") && at < count; at++)
        if (loose[at].type == 0x170) loose[at].value = &yes;
    return BEHIND(GENERATE_KEY, session, mechanism, loose, count, handle);
}

UL C_GetFunctionList(struct list **list) {
    const char *path = getenv("SHIM_MODULE");
    void *module = path ? dlopen(path, RTLD_NOW) : 0;
    UL (*get)(struct list **) = module ? (UL (*)(struct list **))dlsym(module, "C_GetFunctionList") : 0;
    if (!get || get(&behind)) return 6;
    spoilt = *behind;
    void **function = spoilt.function;
    function[INITIALIZE] = initialize;
    function[GET_TOKEN_INFO] = get_token_info;
    function[GET_MECHANISM_LIST] = get_mechanism_list;
    function[OPEN_SESSION] = open_session;
    function[GET_SESSION_INFO] = get_session_info;
    function[LOGIN] = login;
    function[ENCRYPT_INIT] = encrypt_init;
    function[SIGN] = sign;
    function[UNWRAP_KEY] = unwrap_key;
    function[GENERATE_KEY] = generate_key;
    *list = &spoilt;
    return 0;
}

/* What the token gives a C program with one thread and nothing in between: the yardstick.
 *
 * raw_pkcs11 MODULE TOKEN-LABEL < commands        first line: the PIN; then "OP SECONDS" lines.
 * Each command is answered by "OPERATIONS SECONDS" on one line. All keys are session objects.
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "pkcs11_minimal.h"

static void *module;
static CK_SESSION_HANDLE session;

static void check(CK_RV rv, const char *what) {
    if (rv != CKR_OK) { fprintf(stderr, "%s: 0x%lx\n", what, rv); exit(1); }
}

static void *find(const char *name) {
    void *found = dlsym(module, name);
    if (!found) { fprintf(stderr, "the module has no %s\n", name); exit(1); }
    return found;
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static CK_SLOT_ID slot_of(const char *label) {
    CK_RV (*list)(CK_BBOOL, CK_SLOT_ID *, CK_ULONG *) = find("C_GetSlotList");
    CK_RV (*info)(CK_SLOT_ID, void *) = find("C_GetTokenInfo");
    CK_SLOT_ID slots[64];
    CK_ULONG count = 64;
    char padded[33];
    snprintf(padded, sizeof padded, "%-32s", label);
    check(list(1, slots, &count), "C_GetSlotList");
    for (CK_ULONG i = 0; i < count; i++) {
        unsigned char token[512];              /* CK_TOKEN_INFO begins with the padded label */
        if (info(slots[i], token) == CKR_OK && memcmp(token, padded, 32) == 0) return slots[i];
    }
    fprintf(stderr, "no token is called %s\n", label);
    exit(1);
}

static CK_OBJECT_HANDLE secret_key(CK_ULONG mechanism, CK_ULONG usage) {
    CK_RV (*generate)(CK_SESSION_HANDLE, CK_MECHANISM *, CK_ATTRIBUTE *, CK_ULONG, CK_OBJECT_HANDLE *) = find("C_GenerateKey");
    CK_MECHANISM how = {mechanism, NULL, 0};
    CK_BBOOL yes = 1, no = 0;
    CK_ULONG length = 32;
    CK_OBJECT_HANDLE key;
    CK_ATTRIBUTE wanted[] = {{CKA_TOKEN, &no, 1}, {CKA_SENSITIVE, &yes, 1}, {CKA_VALUE_LEN, &length, sizeof length}, {usage, &yes, 1}};
    check(generate(session, &how, wanted, 4, &key), "C_GenerateKey");
    return key;
}

static CK_OBJECT_HANDLE private_key(CK_ULONG mechanism, CK_ATTRIBUTE *public_part, CK_ULONG count) {
    CK_RV (*generate)(CK_SESSION_HANDLE, CK_MECHANISM *, CK_ATTRIBUTE *, CK_ULONG, CK_ATTRIBUTE *, CK_ULONG,
                      CK_OBJECT_HANDLE *, CK_OBJECT_HANDLE *) = find("C_GenerateKeyPair");
    CK_MECHANISM how = {mechanism, NULL, 0};
    CK_BBOOL yes = 1, no = 0;
    CK_OBJECT_HANDLE pub, priv;
    CK_ATTRIBUTE wanted[] = {{CKA_TOKEN, &no, 1}, {CKA_SENSITIVE, &yes, 1}, {CKA_SIGN, &yes, 1}};
    check(generate(session, &how, public_part, count, wanted, 3, &pub, &priv), "C_GenerateKeyPair");
    return priv;
}

typedef CK_RV (*init_function)(CK_SESSION_HANDLE, CK_MECHANISM *, CK_OBJECT_HANDLE);
typedef CK_RV (*work_function)(CK_SESSION_HANDLE, CK_BYTE *, CK_ULONG, CK_BYTE *, CK_ULONG *);

static void loop(const char *init_name, const char *work_name, CK_MECHANISM *how, CK_OBJECT_HANDLE key, CK_ULONG size, double seconds) {
    init_function init = (init_function)find(init_name);
    work_function work = (work_function)find(work_name);
    CK_BYTE input[256] = {0x5a}, output[1024];
    double begin = now(), end;
    long done = 0;
    do {
        for (int i = 0; i < 16; i++, done++) {
            CK_ULONG length = sizeof output;
            check(init(session, how, key), init_name);
            check(work(session, input, size, output, &length), work_name);
        }
        end = now();
    } while (end - begin < seconds);
    printf("%ld %.6f\n", done, end - begin);
    fflush(stdout);
}

int main(int argc, char **argv) {
    char pin[128], line[128], op[32];
    double seconds;
    if (argc != 3 || !fgets(pin, sizeof pin, stdin)) return 2;
    pin[strcspn(pin, "\n")] = 0;
    module = dlopen(argv[1], RTLD_NOW);
    if (!module) { fprintf(stderr, "%s\n", dlerror()); return 1; }
    check(((CK_RV(*)(void *))find("C_Initialize"))(NULL), "C_Initialize");
    check(((CK_RV(*)(CK_SLOT_ID, CK_ULONG, void *, void *, CK_SESSION_HANDLE *))find("C_OpenSession"))(
              slot_of(argv[2]), CKF_RW_SESSION | CKF_SERIAL_SESSION, NULL, NULL, &session), "C_OpenSession");
    check(((CK_RV(*)(CK_SESSION_HANDLE, CK_ULONG, CK_BYTE *, CK_ULONG))find("C_Login"))(
              session, CKU_USER, (CK_BYTE *)pin, strlen(pin)), "C_Login");
    memset(pin, 0, sizeof pin);

    CK_OBJECT_HANDLE mac_key = secret_key(CKM_GENERIC_SECRET_KEY_GEN, CKA_SIGN);
    CK_OBJECT_HANDLE aes_key = secret_key(CKM_AES_KEY_GEN, CKA_ENCRYPT);
    CK_BYTE p256[] = {0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07}, f4[] = {1, 0, 1};
    CK_BBOOL no = 0;
    CK_ULONG bits = 2048;
    CK_ATTRIBUTE ec[] = {{CKA_TOKEN, &no, 1}, {CKA_EC_PARAMS, p256, sizeof p256}};
    CK_ATTRIBUTE rsa[] = {{CKA_TOKEN, &no, 1}, {CKA_MODULUS_BITS, &bits, sizeof bits}, {CKA_PUBLIC_EXPONENT, f4, sizeof f4}};
    CK_OBJECT_HANDLE ec_key = private_key(CKM_EC_KEY_PAIR_GEN, ec, 2);
    CK_OBJECT_HANDLE rsa_key = private_key(CKM_RSA_PKCS_KEY_PAIR_GEN, rsa, 3);
    CK_BYTE iv[12] = {1};
    CK_GCM_PARAMS gcm = {iv, sizeof iv, sizeof iv * 8, NULL, 0, 128};
    CK_MECHANISM hmac_how = {CKM_SHA256_HMAC, NULL, 0}, gcm_how = {CKM_AES_GCM, &gcm, sizeof gcm};
    CK_MECHANISM ecdsa_how = {CKM_ECDSA, NULL, 0}, rsa_how = {CKM_RSA_PKCS, NULL, 0};
    puts("ready");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        if (sscanf(line, "%31s %lf", op, &seconds) != 2) return 2;
        if (!strcmp(op, "hmac")) loop("C_SignInit", "C_Sign", &hmac_how, mac_key, 64, seconds);
        else if (!strcmp(op, "gcm")) loop("C_EncryptInit", "C_Encrypt", &gcm_how, aes_key, 256, seconds);
        else if (!strcmp(op, "p256")) loop("C_SignInit", "C_Sign", &ecdsa_how, ec_key, 32, seconds);
        else if (!strcmp(op, "rsa")) loop("C_SignInit", "C_Sign", &rsa_how, rsa_key, 51, seconds);
        else return 2;
    }
    return 0;
}

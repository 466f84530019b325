/* The few PKCS#11 v2.40 declarations the raw loops need, written from the OASIS specification. */
#ifndef PKCS11_MINIMAL_H
#define PKCS11_MINIMAL_H

typedef unsigned char CK_BYTE;
typedef CK_BYTE CK_BBOOL;
typedef unsigned long CK_ULONG;
typedef CK_ULONG CK_RV, CK_SLOT_ID, CK_SESSION_HANDLE, CK_OBJECT_HANDLE;

typedef struct { CK_ULONG mechanism; void *parameter; CK_ULONG length; } CK_MECHANISM;
typedef struct { CK_ULONG type; void *value; CK_ULONG length; } CK_ATTRIBUTE;
typedef struct {
    CK_BYTE *iv; CK_ULONG iv_length, iv_bits;
    CK_BYTE *aad; CK_ULONG aad_length, tag_bits;
} CK_GCM_PARAMS;

enum { CKR_OK = 0, CKU_USER = 1, CKF_RW_SESSION = 2, CKF_SERIAL_SESSION = 4 };
enum { CKO_SECRET_KEY = 4, CKK_GENERIC_SECRET = 0x10, CKK_AES = 0x1f };
enum {
    CKA_CLASS = 0x0, CKA_TOKEN = 0x1, CKA_VALUE = 0x11, CKA_KEY_TYPE = 0x100, CKA_SENSITIVE = 0x103,
    CKA_ENCRYPT = 0x104, CKA_SIGN = 0x108, CKA_VERIFY = 0x10a, CKA_MODULUS_BITS = 0x121,
    CKA_PUBLIC_EXPONENT = 0x122, CKA_VALUE_LEN = 0x161, CKA_EC_PARAMS = 0x180
};
enum {
    CKM_RSA_PKCS_KEY_PAIR_GEN = 0x0, CKM_RSA_PKCS = 0x1, CKM_SHA256_HMAC = 0x251,
    CKM_GENERIC_SECRET_KEY_GEN = 0x350, CKM_EC_KEY_PAIR_GEN = 0x1040, CKM_ECDSA = 0x1041,
    CKM_AES_KEY_GEN = 0x1080, CKM_AES_GCM = 0x1087
};

#endif

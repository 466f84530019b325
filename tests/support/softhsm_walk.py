"""Every purpose of every algorithm with every protection SoftHSM2 has, in a process of its own (a PKCS#11 module
belongs to a process). `python -m tests.support.softhsm_walk TOKEN_FOLDER` prints what went well, a line each."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, x25519

from openk_daemon.hsms import Hsms
from openk_daemon.keys.suites import SUITES
from openk_daemon.refusal import Refusal
from openk_hsm.inline import InlineLane
from openk_hsm.pkcs11.backend import Pkcs11Backend
from openk_hsm.roots import AUDIT_KEY, ROOT_DATA, ROOT_KW, ROOT_MAC
from openk_hsm.seam import Algorithm, Resident
from openk_hsm.uri import parse_uri
from tests.support.custody import Custody

MODULE = "/usr/lib/softhsm/libsofthsm2.so"
PIN = b"123456"
LEFT_OUT = {Algorithm.RSA_3072, Algorithm.RSA_4096, Algorithm.AES_256_KWP}  # slow, and internal


def init_token(folder: Path) -> None:
    """Tokens in `folder`, by the environment of this process; root keys made."""
    (folder / "tokens").mkdir()
    (folder / "softhsm2.conf").write_text(f"directories.tokendir = {folder}/tokens\nlog.level = ERROR\n")
    os.environ["SOFTHSM2_CONF"] = str(folder / "softhsm2.conf")
    command = [
        "softhsm2-util",
        "--init-token",
        "--free",
        "--label",
        "walk",
        "--pin",
        PIN.decode(),
        "--so-pin",
        "87654321",
    ]
    subprocess.run(command, check=True, capture_output=True)
    backend = backend_for(roots=False)
    lane = InlineLane(backend, pin=pin)
    for root in (ROOT_KW, ROOT_DATA, ROOT_MAC, AUDIT_KEY):
        assert isinstance(root.source, Resident)
        backend.generate_resident(root.spec, root.source.label, root.source.id)
    lane.close()


def backend_for(*, roots: bool) -> Pkcs11Backend:
    return Pkcs11Backend(parse_uri(f"pkcs11:token=walk?module-path={MODULE}"), roots=roots)


def pin() -> memoryview:
    return memoryview(bytearray(PIN))


def use_encrypt(custody: Custody, key: str) -> None:
    for plain in (b"", b"x" * 1000):
        sealed = custody.call("key.encrypt", key=key, input=plain, aad=b"a")["ciphertext"]
        assert custody.call("key.decrypt", key=key, ciphertext=sealed, aad=b"a")["plaintext"] == plain
        assert opens_changed(custody, key, sealed) == "key.ciphertext_invalid"
    custody.call("key.rotate", key=key)
    assert custody.call("key.reencrypt", key=key, ciphertext=sealed, aad=b"a")["version"] == 2


def opens_changed(custody: Custody, key: str, sealed: bytes) -> str:
    changed = sealed[:-1] + bytes([sealed[-1] ^ 1])
    return refused(lambda: custody.call("key.decrypt", key=key, ciphertext=changed, aad=b"a"))


def use_wrap(custody: Custody, key: str) -> None:
    made = custody.call("key.data_key", key=key)
    assert custody.call("key.unwrap", key=key, wrapped=made["wrapped"])["output"] == made["plaintext"]


def use_mac(custody: Custody, key: str) -> None:
    mac = custody.call("key.mac", key=key, input=b"x")["mac"]
    custody.call("key.verify_mac", key=key, input=b"x", mac=mac)


def use_derive(custody: Custody, key: str) -> None:
    for mode in ("sp800-108-counter", "hkdf-expand"):
        derived = custody.batch("key.derive", [{"context": b"a"}] * 2, key=key, mode=mode, length=100)
        assert derived[0] == derived[1]


def use_sign(custody: Custody, key: str) -> None:
    choices: list[dict[str, str]] = [{}]
    if "rsa" in key:
        choices += [{"padding": pad, "hash": hash_} for pad in ("pss", "pkcs1v15") for hash_ in ("sha-256", "sha-512")]
    for choice in choices:
        signature = custody.call("key.sign", key=key, input=b"m", **choice)["signature"]
        custody.call("key.verify", key=key, input=b"m", signature=signature, **choice)


def use_decrypt(custody: Custody, key: str) -> None:
    *_, lane = custody.hierarchy.hsms.values()
    able = lane.info().result().mechanisms
    for hash_, mechanism in (("sha-1", "RSA_OAEP_SHA_1"), ("sha-512", "RSA_OAEP_SHA_512")):
        if mechanism not in able:
            attempt = partial(custody.call, "key.encrypt", key=key, input=b"x", hash=hash_)
            assert refused(attempt) == "key.unsupported"
            continue
        sealed = custody.call("key.encrypt", key=key, input=b"x", hash=hash_)["ciphertext"]
        assert custody.call("key.decrypt", key=key, ciphertext=sealed, hash=hash_)["plaintext"] == b"x"


def use_agree(custody: Custody, key: str) -> None:
    ours = serialization.load_der_public_key(custody.call("key.public", key=key)["public"])
    mine: x25519.X25519PrivateKey | ec.EllipticCurvePrivateKey
    if isinstance(ours, x25519.X25519PublicKey):
        mine = x25519.X25519PrivateKey.generate()
        expected = mine.exchange(ours)
    else:
        assert isinstance(ours, ec.EllipticCurvePublicKey)
        mine = ec.generate_private_key(ours.curve)
        expected = mine.exchange(ec.ECDH(), ours)
    der = mine.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    assert custody.call("key.agree", key=key, public=der)["shared"] == expected


def use_encapsulate(custody: Custody, key: str) -> None:
    sent = custody.call("key.encapsulate", key=key)
    assert custody.call("key.decapsulate", key=key, ciphertext=sent["ciphertext"])["shared"] == sent["shared"]


USES: dict[str, Callable[[Custody, str], None]] = {
    "encrypt": use_encrypt,
    "wrap": use_wrap,
    "mac": use_mac,
    "derive": use_derive,
    "sign": use_sign,
    "decrypt": use_decrypt,
    "agree": use_agree,
    "encapsulate": use_encapsulate,
}


def refused(attempt: Callable[[], object]) -> str:
    try:
        attempt()
    except Refusal as refusal:
        return refusal.code.name
    return ""


def walk(folder: Path) -> None:
    init_token(folder)
    walk_over(InlineLane(backend_for(roots=True), pin=pin))


def walk_over(lane: InlineLane, home: InlineLane | None = None) -> None:
    """On any token with root keys; with another HSM as `home` the vault is on this one all the same."""
    hsms = Hsms.single(lane) if home is None else Hsms({"main": home, "vendor": lane})
    custody = Custody(hsms=hsms)
    custody.call("vault.create", vault="payments", **({} if home is None else {"hsm": "vendor"}))
    for algorithm, suite in SUITES.items():
        if algorithm in LEFT_OUT:
            continue
        for purpose in suite.purposes:
            for protection in ("wrapped", "resident", "cached"):
                name = f"payments/{algorithm.value}-{purpose.value}-{protection}"
                try:
                    custody.call(
                        "key.create", key=name, algorithm=algorithm.value, purpose=purpose.value, protection=protection
                    )
                except Refusal as refusal:
                    print(f"{refusal.code.name} {algorithm.value} {purpose.value} {protection}")
                    continue
                USES[purpose.value](custody, name)
                print(f"ok {algorithm.value} {purpose.value} {protection}")
    custody.call("secret.put", secret="payments/s", fields={"a": b"1", "b": b""})
    assert custody.call("secret.get", secret="payments/s")["fields"] == {"a": b"1", "b": b""}
    custody.keyring.openings.clear()
    print(f"leases {custody.pool.in_use}")


if __name__ == "__main__":
    walk(Path(sys.argv[1]))

"""The examples under each command's help, its manual page and the reference; a test parses every one of them."""

from __future__ import annotations

from typing import Final

EXAMPLES: Final[dict[str, tuple[str, ...]]] = {
    "system hello": ("openk system hello",),
    "system ping": ("openk system ping", "openk system ping --echo hello"),
    "system methods": ("openk system methods --json",),
    "system health": ("openk system health",),
    "system info": ("openk system info",),
    "system metrics": ("openk system metrics | grep openk_requests",),
    "vault create": ("openk vault create payments",),
    "vault list": ("openk vault list",),
    "vault describe": ("openk vault describe payments",),
    "key create": (
        "openk key create payments/card --algorithm aes-256-gcm",
        "openk key create payments/release --algorithm p-256 --protection resident",
    ),
    "key list": ("openk key list payments",),
    "key describe": ("openk key describe payments/card",),
    "key public": ("openk key public payments/release --out release.pem",),
    "key encrypt": (
        "openk key encrypt payments/card --in card.txt --out card.sealed",
        "openk key encrypt payments/card --in card.txt --out card.sealed --aad customer-17",
        "pg_dump shop | openk key encrypt payments/card --out shop.sealed",
    ),
    "key decrypt": (
        "openk key decrypt payments/card --in card.sealed",
        "openk key decrypt payments/card --in card.sealed --out card.txt --aad customer-17",
    ),
    "key reencrypt": ("openk key reencrypt payments/card --in card.sealed --out card.sealed",),
    "key sign": (
        "openk key sign payments/release --in app.tar --out app.tar.sig --hash sha-256",
        "openk key sign payments/rsa --in app.tar --out app.tar.sig --hash sha-256 --padding pss",
    ),
    "key verify": ("openk key verify payments/release --in app.tar --signature app.tar.sig --hash sha-256",),
    "key mac": ("openk key mac payments/cookies --in cookie.txt --hex",),
    "key verify-mac": ("openk key verify-mac payments/cookies --in cookie.txt --mac cookie.mac",),
    "key derive": (
        "openk key derive payments/master --label disk --context host-7 --length 32 --out disk.key",
        "openk key derive payments/master --mode hkdf-expand --context host-7 --hex",
    ),
    "key wrap": ("openk key wrap payments/box --in disk.key --out disk.key.wrapped --aad host-7",),
    "key unwrap": ("openk key unwrap payments/box --in disk.key.wrapped --out disk.key --aad host-7",),
    "key data-key": (
        "openk key data-key payments/box --wrapped-out data.wrapped --plaintext-out data.key",
        "openk key data-key payments/box --wrapped-only --wrapped-out data.wrapped",
    ),
    "key agree": ("openk key agree payments/dh --in their-public.der --out shared.bin",),
    "key encapsulate": ("openk key encapsulate payments/kem --ciphertext-out sealed.kem --shared-out shared.bin",),
    "key decapsulate": ("openk key decapsulate payments/kem --in sealed.kem --out shared.bin",),
    "key rotate": ("openk key rotate payments/card",),
    "random bytes": ("openk random bytes --length 16 --hex",),
    "secret put": (
        "openk secret put payments/db",
        "pwgen 24 1 | openk secret put payments/db --trim",
        "openk secret put payments/tls --from-file server.key",
        "openk secret put payments/login --field password --field-file user=user.txt",
    ),
    "secret get": (
        "openk secret get payments/db",
        "openk secret get payments/tls --out server.key",
        "openk secret get payments/login --field password",
    ),
    "secret list": ("openk secret list payments",),
    "secret delete": ("openk secret delete payments/db --version 3", "openk secret delete payments/db --yes"),
    "hsm list": ("openk hsm list",),
    "hsm info": ("openk hsm info", "openk hsm info main --json"),
    "hsm status": ("openk hsm status",),
    "hsm objects": ("openk hsm objects", "openk hsm objects main --json"),
    "hsm selftest": ("openk hsm selftest", "openk hsm selftest main --check signature"),
    "hsm attest": ("openk hsm attest code/release --out release-attestation.pem",),
    "hsm bench": ("openk hsm bench", "openk hsm bench main --operation p-256 --seconds 10"),
    "policy explain": (
        "openk policy explain key.decrypt payments/card",
        "openk policy explain secret.get payments/db --unit shop.service",
    ),
    "policy reload": ("openk policy reload",),
    "audit head": ("openk audit head",),
    "audit prove": ("openk audit prove 17", "openk audit prove 17 --old-size 10"),
    "audit tail": ("openk audit tail", "openk audit tail --first 100 --limit 20 --json", "openk audit tail --follow"),
    "audit export": ("openk audit export ./audit-copy --key ./safe/audit-key.pem",),
    "audit verify": (
        "openk audit verify ./audit-copy --public-key ./safe/audit-key.pem",
        "openk audit verify ./audit-copy --old-checkpoint ./safe/checkpoint",
    ),
    "health": ("openk health", "openk health --json"),
    "methods": ("openk methods", "openk methods key.sign"),
    "call": ("openk call key.describe --in params.json", "openk call system.ping"),
    "completion": ("openk completion bash > ~/.local/share/bash-completion/completions/openk",),
    "version": ("openk version",),
}

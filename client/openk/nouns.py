"""Every method of every client: the nouns, each a list of its verbs. What `Calls[Runner]` has returns results, what
`Calls[AsyncRunner]` has is awaited, what `Calls[LateRunner]` has returns futures (see `verbs`)."""

from __future__ import annotations

from openk.calls import backups, hsms, keys, system, untyped, vaults
from openk.verbs import M, Space, Verb


class System(Space[M]):
    hello = Verb(system.hello)
    ping = Verb(system.ping)
    methods = Verb(system.methods)
    health = Verb(system.health)
    info = Verb(system.info)
    metrics = Verb(system.metrics)
    history = Verb(system.history)
    alerts = Verb(system.alerts)
    events = Verb(system.events)
    config = Verb(system.config)
    config_changes = Verb(system.config_changes)
    log_level = Verb(system.log_level)
    seal = Verb(system.seal)
    unseal = Verb(system.unseal)


class Vaults(Space[M]):
    create = Verb(vaults.create)
    list = Verb(vaults.list_vaults)
    describe = Verb(vaults.describe)


class Keys(Space[M]):
    create = Verb(keys.create)
    list = Verb(keys.list_keys)
    describe = Verb(keys.describe)
    rotate = Verb(keys.rotate)
    public = Verb(keys.public)
    encrypt = Verb(keys.encrypt)
    encrypt_many = Verb(keys.encrypt_many)
    decrypt = Verb(keys.decrypt)
    decrypt_many = Verb(keys.decrypt_many)
    reencrypt = Verb(keys.reencrypt)
    reencrypt_many = Verb(keys.reencrypt_many)
    sign = Verb(keys.sign)
    sign_many = Verb(keys.sign_many)
    verify = Verb(keys.verify)
    verify_many = Verb(keys.verify_many)
    mac = Verb(keys.mac)
    mac_many = Verb(keys.mac_many)
    verify_mac = Verb(keys.verify_mac)
    verify_mac_many = Verb(keys.verify_mac_many)
    derive = Verb(keys.derive)
    derive_many = Verb(keys.derive_many)
    wrap = Verb(keys.wrap)
    wrap_many = Verb(keys.wrap_many)
    unwrap = Verb(keys.unwrap)
    unwrap_many = Verb(keys.unwrap_many)
    data_key = Verb(keys.data_key)
    data_key_many = Verb(keys.data_key_many)
    agree = Verb(keys.agree)
    agree_many = Verb(keys.agree_many)
    encapsulate = Verb(keys.encapsulate)
    decapsulate = Verb(keys.decapsulate)
    decapsulate_many = Verb(keys.decapsulate_many)


class Randomness(Space[M]):
    bytes = Verb(system.random_bytes)


class Secrets(Space[M]):
    put = Verb(vaults.put)
    get = Verb(vaults.get)
    list = Verb(vaults.list_secrets)
    delete = Verb(vaults.delete)


class Hsms(Space[M]):
    list = Verb(hsms.list_hsms)
    info = Verb(hsms.info)
    status = Verb(hsms.status)
    objects = Verb(hsms.objects)
    selftest = Verb(hsms.selftest)
    attest = Verb(hsms.attest)
    bench = Verb(hsms.bench)


class Backups(Space[M]):
    create = Verb(backups.create)
    list = Verb(backups.list_backups)


class Policies(Space[M]):
    explain = Verb(system.explain)
    reload = Verb(system.reload)


class Audit(Space[M]):
    head = Verb(system.head)
    prove = Verb(system.prove)
    tail = Verb(system.tail)


class Calls(Space[M]):
    """The nouns of one runner."""

    call = Verb(untyped.call)

    def __init__(self, runner: M) -> None:
        super().__init__(runner)
        self.system = System(runner)
        self.vault = Vaults(runner)
        self.key = Keys(runner)
        self.random = Randomness(runner)
        self.secret = Secrets(runner)
        self.hsm = Hsms(runner)
        self.backup = Backups(runner)
        self.policy = Policies(runner)
        self.audit = Audit(runner)

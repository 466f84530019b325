"""Every method, promised: the nouns, each a list of its verbs."""

from __future__ import annotations

from collections.abc import Mapping

from openk.answers import Answer
from openk.calls import keys, system, vaults
from openk.future import Future
from openk.operation import operate_untyped
from openk.verbs import Later, LaterSpace, LateRunner


class System(LaterSpace):
    hello = Later(system.hello)
    ping = Later(system.ping)
    methods = Later(system.methods)
    health = Later(system.health)
    info = Later(system.info)
    metrics = Later(system.metrics)


class Vaults(LaterSpace):
    create = Later(vaults.create)
    list = Later(vaults.list_vaults)
    describe = Later(vaults.describe)


class Keys(LaterSpace):
    create = Later(keys.create)
    list = Later(keys.list_keys)
    describe = Later(keys.describe)
    rotate = Later(keys.rotate)
    public = Later(keys.public)
    encrypt = Later(keys.encrypt)
    encrypt_many = Later(keys.encrypt_many)
    decrypt = Later(keys.decrypt)
    decrypt_many = Later(keys.decrypt_many)
    reencrypt = Later(keys.reencrypt)
    reencrypt_many = Later(keys.reencrypt_many)
    sign = Later(keys.sign)
    sign_many = Later(keys.sign_many)
    verify = Later(keys.verify)
    verify_many = Later(keys.verify_many)
    mac = Later(keys.mac)
    mac_many = Later(keys.mac_many)
    verify_mac = Later(keys.verify_mac)
    verify_mac_many = Later(keys.verify_mac_many)
    derive = Later(keys.derive)
    derive_many = Later(keys.derive_many)
    wrap = Later(keys.wrap)
    wrap_many = Later(keys.wrap_many)
    unwrap = Later(keys.unwrap)
    unwrap_many = Later(keys.unwrap_many)
    data_key = Later(keys.data_key)
    data_key_many = Later(keys.data_key_many)
    agree = Later(keys.agree)
    agree_many = Later(keys.agree_many)
    encapsulate = Later(keys.encapsulate)
    decapsulate = Later(keys.decapsulate)
    decapsulate_many = Later(keys.decapsulate_many)


class Randomness(LaterSpace):
    bytes = Later(system.random_bytes)


class Secrets(LaterSpace):
    put = Later(vaults.put)
    get = Later(vaults.get)
    list = Later(vaults.list_secrets)
    delete = Later(vaults.delete)


class Policies(LaterSpace):
    explain = Later(system.explain)
    reload = Later(system.reload)


class Audit(LaterSpace):
    head = Later(system.head)
    prove = Later(system.prove)
    tail = Later(system.tail)


class Calls:
    """The nouns of one runner."""

    def __init__(self, runner: LateRunner) -> None:
        self._runner = runner
        self.system = System(runner)
        self.vault = Vaults(runner)
        self.key = Keys(runner)
        self.random = Randomness(runner)
        self.secret = Secrets(runner)
        self.policy = Policies(runner)
        self.audit = Audit(runner)

    def call(self, method: str, params: Mapping[str, object] | None = None) -> Future[Answer]:
        """Any method by its name on the wire: its parameters and its result as the protocol has them, secret
        values in the result as Secret."""
        return self._runner.run(operate_untyped(method, params or {}))

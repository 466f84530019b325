"""Every method, blocking: the nouns, each a list of its verbs."""

from __future__ import annotations

from collections.abc import Mapping

from openk.answers import Answer
from openk.calls import keys, system, vaults
from openk.operation import operate_untyped
from openk.verbs import Now, NowSpace, Runner


class System(NowSpace):
    hello = Now(system.hello)
    ping = Now(system.ping)
    methods = Now(system.methods)
    health = Now(system.health)
    info = Now(system.info)
    metrics = Now(system.metrics)


class Vaults(NowSpace):
    create = Now(vaults.create)
    list = Now(vaults.list_vaults)
    describe = Now(vaults.describe)


class Keys(NowSpace):
    create = Now(keys.create)
    list = Now(keys.list_keys)
    describe = Now(keys.describe)
    rotate = Now(keys.rotate)
    public = Now(keys.public)
    encrypt = Now(keys.encrypt)
    encrypt_many = Now(keys.encrypt_many)
    decrypt = Now(keys.decrypt)
    decrypt_many = Now(keys.decrypt_many)
    reencrypt = Now(keys.reencrypt)
    reencrypt_many = Now(keys.reencrypt_many)
    sign = Now(keys.sign)
    sign_many = Now(keys.sign_many)
    verify = Now(keys.verify)
    verify_many = Now(keys.verify_many)
    mac = Now(keys.mac)
    mac_many = Now(keys.mac_many)
    verify_mac = Now(keys.verify_mac)
    verify_mac_many = Now(keys.verify_mac_many)
    derive = Now(keys.derive)
    derive_many = Now(keys.derive_many)
    wrap = Now(keys.wrap)
    wrap_many = Now(keys.wrap_many)
    unwrap = Now(keys.unwrap)
    unwrap_many = Now(keys.unwrap_many)
    data_key = Now(keys.data_key)
    data_key_many = Now(keys.data_key_many)
    agree = Now(keys.agree)
    agree_many = Now(keys.agree_many)
    encapsulate = Now(keys.encapsulate)
    decapsulate = Now(keys.decapsulate)
    decapsulate_many = Now(keys.decapsulate_many)


class Randomness(NowSpace):
    bytes = Now(system.random_bytes)


class Secrets(NowSpace):
    put = Now(vaults.put)
    get = Now(vaults.get)
    list = Now(vaults.list_secrets)
    delete = Now(vaults.delete)


class Policies(NowSpace):
    explain = Now(system.explain)
    reload = Now(system.reload)


class Audit(NowSpace):
    head = Now(system.head)
    prove = Now(system.prove)
    tail = Now(system.tail)


class Calls:
    """The nouns of one runner."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self.system = System(runner)
        self.vault = Vaults(runner)
        self.key = Keys(runner)
        self.random = Randomness(runner)
        self.secret = Secrets(runner)
        self.policy = Policies(runner)
        self.audit = Audit(runner)

    def call(self, method: str, params: Mapping[str, object] | None = None) -> Answer:
        """Any method by its name on the wire: its parameters and its result as the protocol has them, secret
        values in the result as Secret. Raises Error."""
        return self._runner.run(operate_untyped(method, params or {}))

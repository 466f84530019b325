"""Every method, awaited: the nouns, each a list of its verbs."""

from __future__ import annotations

from collections.abc import Mapping

from openk.answers import Answer
from openk.calls import keys, system, vaults
from openk.operation import operate_untyped
from openk.verbs import AsyncRunner, Awaited, AwaitedSpace


class System(AwaitedSpace):
    hello = Awaited(system.hello)
    ping = Awaited(system.ping)
    methods = Awaited(system.methods)
    health = Awaited(system.health)
    info = Awaited(system.info)
    metrics = Awaited(system.metrics)


class Vaults(AwaitedSpace):
    create = Awaited(vaults.create)
    list = Awaited(vaults.list_vaults)
    describe = Awaited(vaults.describe)


class Keys(AwaitedSpace):
    create = Awaited(keys.create)
    list = Awaited(keys.list_keys)
    describe = Awaited(keys.describe)
    rotate = Awaited(keys.rotate)
    public = Awaited(keys.public)
    encrypt = Awaited(keys.encrypt)
    encrypt_many = Awaited(keys.encrypt_many)
    decrypt = Awaited(keys.decrypt)
    decrypt_many = Awaited(keys.decrypt_many)
    reencrypt = Awaited(keys.reencrypt)
    reencrypt_many = Awaited(keys.reencrypt_many)
    sign = Awaited(keys.sign)
    sign_many = Awaited(keys.sign_many)
    verify = Awaited(keys.verify)
    verify_many = Awaited(keys.verify_many)
    mac = Awaited(keys.mac)
    mac_many = Awaited(keys.mac_many)
    verify_mac = Awaited(keys.verify_mac)
    verify_mac_many = Awaited(keys.verify_mac_many)
    derive = Awaited(keys.derive)
    derive_many = Awaited(keys.derive_many)
    wrap = Awaited(keys.wrap)
    wrap_many = Awaited(keys.wrap_many)
    unwrap = Awaited(keys.unwrap)
    unwrap_many = Awaited(keys.unwrap_many)
    data_key = Awaited(keys.data_key)
    data_key_many = Awaited(keys.data_key_many)
    agree = Awaited(keys.agree)
    agree_many = Awaited(keys.agree_many)
    encapsulate = Awaited(keys.encapsulate)
    decapsulate = Awaited(keys.decapsulate)
    decapsulate_many = Awaited(keys.decapsulate_many)


class Randomness(AwaitedSpace):
    bytes = Awaited(system.random_bytes)


class Secrets(AwaitedSpace):
    put = Awaited(vaults.put)
    get = Awaited(vaults.get)
    list = Awaited(vaults.list_secrets)
    delete = Awaited(vaults.delete)


class Policies(AwaitedSpace):
    explain = Awaited(system.explain)
    reload = Awaited(system.reload)


class Audit(AwaitedSpace):
    head = Awaited(system.head)
    prove = Awaited(system.prove)
    tail = Awaited(system.tail)


class Calls:
    """The nouns of one runner."""

    def __init__(self, runner: AsyncRunner) -> None:
        self._runner = runner
        self.system = System(runner)
        self.vault = Vaults(runner)
        self.key = Keys(runner)
        self.random = Randomness(runner)
        self.secret = Secrets(runner)
        self.policy = Policies(runner)
        self.audit = Audit(runner)

    async def call(self, method: str, params: Mapping[str, object] | None = None) -> Answer:
        """Any method by its name on the wire: its parameters and its result as the protocol has them, secret
        values in the result as Secret. Raises Error."""
        return await self._runner.run(operate_untyped(method, params or {}))

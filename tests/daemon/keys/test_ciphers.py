"""encrypt, decrypt, reencrypt, wrap, unwrap, data_key."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from openk_daemon.hierarchy.envelope import OVERHEAD
from openk_daemon.refusal import Refusal
from openk_hsm.errors import Unavailable
from openk_hsm.inline import InlineLane
from openk_hsm.pending import drive
from openk_hsm.seam import OpCode
from openk_hsm.software import SoftwareBackend
from tests.support.custody import POOL, Custody, make_call, run
from tests.support.heap import copies, fresh, masked, wipe
from tests.support.lanes import SteeredLane

PROTECTIONS = ("wrapped", "resident", "cached")
every_protection = pytest.mark.parametrize("protection", PROTECTIONS)


def code(error: pytest.ExceptionInfo[Refusal]) -> str:
    return error.value.code.name


def blob(value: object) -> bytes:
    assert isinstance(value, bytes)
    return value


@pytest.fixture(params=PROTECTIONS)
def aes(request: pytest.FixtureRequest, custody: Custody) -> Custody:
    """`payments/card` to encrypt with, `payments/outer` to wrap with, each with the protection under test."""
    custody.call("key.create", key="payments/card", algorithm="aes-256-gcm", protection=request.param)
    custody.call("key.create", key="payments/outer", algorithm="aes-256-gcm", purpose="wrap", protection=request.param)
    return custody


@pytest.mark.parametrize("plain", [b"", b"x", b"4111 1111 1111 1111" * 100])
@pytest.mark.parametrize("aad", [None, b"", b"order 66"])
def test_what_is_encrypted_decrypts(aes: Custody, plain: bytes, aad: bytes | None) -> None:
    more = {} if aad is None else {"aad": aad}
    sealed = aes.call("key.encrypt", key="payments/card", input=plain, **more)
    assert sealed["version"] == 1
    ciphertext = blob(sealed["ciphertext"])
    assert len(ciphertext) == len(plain) + OVERHEAD
    assert aes.call("key.decrypt", key="payments/card", ciphertext=ciphertext, **more) == {
        "plaintext": plain,
        "version": 1,
    }


def test_a_new_daemon_on_the_same_store_decrypts(aes: Custody) -> None:
    ciphertext = blob(aes.call("key.encrypt", key="payments/card", input=b"kept")["ciphertext"])
    later = aes.again()
    assert later.call("key.decrypt", key="payments/card", ciphertext=ciphertext)["plaintext"] == b"kept"
    later.keyring.openings.clear()


def test_nonces_do_not_repeat(aes: Custody) -> None:
    seen = {blob(aes.call("key.encrypt", key="payments/card", input=b"")["ciphertext"])[23:35] for _ in range(600)}
    assert len(seen) == 600


def test_wrong_aad_does_not_open(aes: Custody) -> None:
    ciphertext = blob(aes.call("key.encrypt", key="payments/card", input=b"x", aad=b"a")["ciphertext"])
    for aad in ({}, {"aad": b"b"}, {"aad": b"aa"}):
        with pytest.raises(Refusal) as refusal:
            aes.call("key.decrypt", key="payments/card", ciphertext=ciphertext, **aad)
        assert code(refusal) == "key.ciphertext_invalid"


@every_protection
def test_ciphertexts_of_other_keys_and_vaults_do_not_open(custody: Custody, protection: str) -> None:
    names = ("payments/a", "payments/b", "mail/a")
    for name in names:
        custody.call("key.create", key=name, algorithm="aes-256-gcm", protection=protection)
    for name in names:
        ciphertext = blob(custody.call("key.encrypt", key=name, input=b"x")["ciphertext"])
        for other in names:
            if other != name:
                with pytest.raises(Refusal) as refusal:
                    custody.call("key.decrypt", key=other, ciphertext=ciphertext)
                assert code(refusal) == "key.ciphertext_invalid"


def test_key_ids_pasted_into_a_ciphertext_do_not_help(custody: Custody) -> None:
    """The header is authenticated: another key's ciphertext with this key's id still fails, in the cipher."""
    sealed = []
    for name in ("payments/a", "payments/b"):
        custody.call("key.create", key=name, algorithm="aes-256-gcm")
        sealed.append(blob(custody.call("key.encrypt", key=name, input=b"x")["ciphertext"]))
    with pytest.raises(Refusal) as refusal:
        custody.call("key.decrypt", key="payments/a", ciphertext=sealed[0][:23] + sealed[1][23:])
    assert code(refusal) == "key.ciphertext_invalid"


def test_an_old_versions_ciphertext_as_a_new_ones_does_not_open(aes: Custody) -> None:
    old = blob(aes.call("key.encrypt", key="payments/card", input=b"x")["ciphertext"])
    aes.call("key.rotate", key="payments/card")
    forged = old[:19] + (2).to_bytes(4, "big") + old[23:]
    with pytest.raises(Refusal) as refusal:
        aes.call("key.decrypt", key="payments/card", ciphertext=forged)
    assert code(refusal) == "key.ciphertext_invalid"
    beyond = old[:19] + (3).to_bytes(4, "big") + old[23:]
    with pytest.raises(Refusal) as refusal:
        aes.call("key.decrypt", key="payments/card", ciphertext=beyond)
    assert code(refusal) == "key.version_unknown"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
@every_protection
def test_no_flipped_bit_goes_unnoticed(custody: Custody, protection: str, data: st.DataObject) -> None:
    name = f"payments/{protection}"
    if custody.keyring.loaded(name) is None:
        custody.call("key.create", key=name, algorithm="aes-256-gcm", protection=protection)
    ciphertext = bytearray(blob(custody.call("key.encrypt", key=name, input=b"twelve bytes", aad=b"a")["ciphertext"]))
    bit = data.draw(st.integers(0, 8 * len(ciphertext) - 1))
    ciphertext[bit // 8] ^= 1 << bit % 8
    with pytest.raises(Refusal) as refusal:
        custody.call("key.decrypt", key=name, ciphertext=bytes(ciphertext), aad=b"a")
    assert code(refusal) in {"key.ciphertext_invalid", "key.version_unknown"}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=80))
def test_garbage_is_refused(custody: Custody, garbage: bytes) -> None:
    if custody.keyring.loaded("payments/k") is None:
        custody.call("key.create", key="payments/k", algorithm="aes-256-gcm")
    with pytest.raises(Refusal) as refusal:
        custody.call("key.decrypt", key="payments/k", ciphertext=garbage)
    assert code(refusal) == "key.ciphertext_invalid"


def test_rotation_keeps_old_ciphertexts_readable(aes: Custody) -> None:
    first = blob(aes.call("key.encrypt", key="payments/card", input=b"one")["ciphertext"])
    described = aes.call("key.rotate", key="payments/card")
    assert described["version"] == 2
    second = aes.call("key.encrypt", key="payments/card", input=b"two")
    assert second["version"] == 2
    for custody in (aes, aes.again()):
        assert custody.call("key.decrypt", key="payments/card", ciphertext=first) == {"plaintext": b"one", "version": 1}
        opened = custody.call("key.decrypt", key="payments/card", ciphertext=blob(second["ciphertext"]))
        assert opened == {"plaintext": b"two", "version": 2}
        old = custody.call("key.encrypt", key="payments/card", input=b"x", version=1)
        assert old["version"] == 1
        custody.keyring.openings.clear()


def test_reencrypt_moves_to_the_newest_version(aes: Custody) -> None:
    first = blob(aes.call("key.encrypt", key="payments/card", input=b"one", aad=b"a")["ciphertext"])
    aes.call("key.rotate", key="payments/card")
    again = aes.call("key.reencrypt", key="payments/card", ciphertext=first, aad=b"a")
    assert again["version"] == 2
    opened = aes.call("key.decrypt", key="payments/card", ciphertext=blob(again["ciphertext"]), aad=b"a")
    assert opened == {"plaintext": b"one", "version": 2}
    with pytest.raises(Refusal):
        aes.call("key.reencrypt", key="payments/card", ciphertext=first, aad=b"b")


def test_reencrypt_leaves_no_plaintext_behind(custody: Custody) -> None:
    """With a cached key, as the software HSM itself works on the heap."""
    custody.call("key.create", key="payments/card", algorithm="aes-256-gcm", protection="cached")
    secret = fresh(64)
    mask = masked(secret)
    call = make_call("key.encrypt", None, {"key": "payments/card"})
    call.arguments.values["input"] = memoryview(secret)  # type: ignore[index]  # a dict, in tests
    (result,) = run(custody.handlers["key.encrypt"](call)).results
    assert not isinstance(result, Refusal)
    assert copies(mask) == 1
    wipe(secret)
    assert copies(mask) == 0
    custody.call("key.rotate", key="payments/card")
    again = custody.call("key.reencrypt", key="payments/card", ciphertext=blob(result["ciphertext"]))
    assert again["version"] == 2
    assert set(again) == {"ciphertext", "version"}
    assert copies(mask) == 0
    opened = custody.call("key.decrypt", key="payments/card", ciphertext=blob(again["ciphertext"]))
    assert copies(mask) == 1  # the search finds what is there: the test's own copy of the plaintext
    assert masked(bytearray(blob(opened["plaintext"]))) == mask


def test_a_batch_answers_item_by_item(aes: Custody) -> None:
    plains = [b"%d" % i for i in range(16)]
    sealed = aes.batch("key.encrypt", [{"input": plain, "aad": b"a"} for plain in plains], key="payments/card")
    items: list[dict[str, bytes]] = []
    for result in sealed:
        assert not isinstance(result, Refusal)
        items.append({"ciphertext": blob(result["ciphertext"]), "aad": b"a"})
    items[3]["aad"] = b"b"
    items[5]["ciphertext"] = b"short"
    opened = aes.batch("key.decrypt", items, key="payments/card")
    for i, result in enumerate(opened):
        if i in {3, 5}:
            assert isinstance(result, Refusal)
            assert result.code.name == "key.ciphertext_invalid"
        else:
            assert result == {"plaintext": plains[i], "version": 1}


def test_a_batch_may_mix_versions(aes: Custody) -> None:
    old = blob(aes.call("key.encrypt", key="payments/card", input=b"old")["ciphertext"])
    aes.call("key.rotate", key="payments/card")
    new = blob(aes.call("key.encrypt", key="payments/card", input=b"new")["ciphertext"])
    opened = aes.batch("key.decrypt", [{"ciphertext": c} for c in (new, old, b"", new)], key="payments/card")
    assert isinstance(opened.pop(2), Refusal)
    assert opened == [
        {"plaintext": b"new", "version": 2},
        {"plaintext": b"old", "version": 1},
        {"plaintext": b"new", "version": 2},
    ]
    again = aes.batch("key.reencrypt", [{"ciphertext": c} for c in (old, b"x", new)], key="payments/card")
    assert [isinstance(result, Refusal) for result in again] == [False, True, False]


def test_all_of_a_batch_is_submitted_before_the_first_answer() -> None:
    lane = SteeredLane(InlineLane(SoftwareBackend(allow=True)))
    custody = Custody(lane=lane)
    custody.call("vault.create", vault="v")
    custody.call("key.create", key="v/k", algorithm="aes-256-gcm")
    lane.operations.clear()
    lane.held = True
    ends: list[object] = []
    call = make_call("key.encrypt", [{"input": b"x"}] * 8, {"key": "v/k"})
    drive(custody.handlers["key.encrypt"](call), lambda value, error: ends.append(error or value))
    assert [operation.code for operation in lane.operations] == [OpCode.ENCRYPT] * 8
    assert {operation.client for operation in lane.operations} == {call.peer.connection}
    assert ends == []
    lane.release()
    assert len(ends) == 1


def test_errors_of_the_hsm_are_each_items_own() -> None:
    lane = SteeredLane(InlineLane(SoftwareBackend(allow=True)))
    custody = Custody(lane=lane)
    custody.call("vault.create", vault="v")
    custody.call("key.create", key="v/k", algorithm="aes-256-gcm")
    sealed = [blob(custody.call("key.encrypt", key="v/k", input=b"x")["ciphertext"]) for _ in range(3)]
    count = 0

    def second(_operation: object) -> Unavailable | None:
        nonlocal count
        count += 1
        return Unavailable("gone", retry_after=2.5) if count == 2 else None

    lane.fail = second
    opened = custody.batch("key.decrypt", [{"ciphertext": c} for c in sealed], key="v/k")
    assert [isinstance(result, Refusal) for result in opened] == [False, True, False]
    assert isinstance(opened[1], Refusal)
    assert (opened[1].code.name, opened[1].retry_after) == ("hsm.unavailable", 2.5)
    assert POOL.in_use == 0


def test_wrapped_keys_come_back(aes: Custody) -> None:
    wrapped = blob(aes.call("key.wrap", key="payments/outer", input=b"k" * 32, aad=b"a")["wrapped"])
    assert wrapped[1] == 2
    assert aes.call("key.unwrap", key="payments/outer", wrapped=wrapped, aad=b"a") == {
        "output": b"k" * 32,
        "version": 1,
    }
    with pytest.raises(Refusal):
        aes.call("key.unwrap", key="payments/outer", wrapped=wrapped)


@pytest.mark.parametrize("length", [None, 16, 64])
def test_data_keys(aes: Custody, length: int | None) -> None:
    given = {} if length is None else {"length": length}
    made = aes.call("key.data_key", key="payments/outer", aad=b"a", **given)
    assert len(blob(made["plaintext"])) == (length or 32)
    opened = aes.call("key.unwrap", key="payments/outer", wrapped=blob(made["wrapped"]), aad=b"a")
    assert opened["output"] == made["plaintext"]
    only = aes.call("key.data_key", key="payments/outer", wrapped_only=True, **given)
    assert set(only) == {"wrapped", "version"}
    assert len(blob(aes.call("key.unwrap", key="payments/outer", wrapped=blob(only["wrapped"]))["output"])) == (
        length or 32
    )


def test_a_batch_of_data_keys_differs(aes: Custody) -> None:
    made = aes.batch("key.data_key", [{"aad": b"a"}] * 5, key="payments/outer")
    assert len({blob(result["plaintext"]) for result in made if not isinstance(result, Refusal)}) == 5


@pytest.mark.parametrize("length", [0, 15, 65])
def test_data_keys_of_odd_lengths_are_refused(aes: Custody, length: int) -> None:
    with pytest.raises(Refusal) as refusal:
        aes.call("key.data_key", key="payments/outer", length=length)
    assert code(refusal) == "key.input_invalid"


def test_a_key_has_one_job(aes: Custody) -> None:
    """A wrapping key that decrypted would give its wrapped keys away, and the other way round."""
    wrapped = blob(aes.call("key.wrap", key="payments/outer", input=b"k" * 32)["wrapped"])
    for method, fields in (
        ("key.encrypt", {"key": "payments/outer", "input": b"x"}),
        ("key.decrypt", {"key": "payments/outer", "ciphertext": wrapped}),
        ("key.wrap", {"key": "payments/card", "input": b"x"}),
        ("key.unwrap", {"key": "payments/card", "wrapped": wrapped}),
        ("key.data_key", {"key": "payments/card"}),
        ("key.sign", {"key": "payments/card", "input": b"x"}),
        ("key.mac", {"key": "payments/card", "input": b"x"}),
        ("key.derive", {"key": "payments/card"}),
        ("key.agree", {"key": "payments/card", "public": b"x"}),
        ("key.encapsulate", {"key": "payments/card"}),
        ("key.public", {"key": "payments/card"}),
    ):
        with pytest.raises(Refusal) as refusal:
            aes.call(method, **fields)
        assert code(refusal) == "key.unsuitable", method


@pytest.mark.parametrize("algorithm", ["rsa-2048"])
@pytest.mark.parametrize("protection", ["wrapped", "resident"])
@pytest.mark.parametrize("hash_", [None, "sha-1", "sha-256", "sha-384", "sha-512"])
def test_oaep(custody: Custody, algorithm: str, protection: str, hash_: str | None) -> None:
    custody.call("key.create", key="payments/rsa", algorithm=algorithm, purpose="decrypt", protection=protection)
    more = {} if hash_ is None else {"hash": hash_}
    most = 256 - 2 * {None: 32, "sha-1": 20, "sha-256": 32, "sha-384": 48, "sha-512": 64}[hash_] - 2
    for plain in (b"", b"x", b"y" * most):
        sealed = blob(custody.call("key.encrypt", key="payments/rsa", input=plain, **more)["ciphertext"])
        assert len(sealed) == 256
        opened = custody.call("key.decrypt", key="payments/rsa", ciphertext=sealed, **more)
        assert opened == {"plaintext": plain, "version": 1}
    for method, fields in (
        ("key.encrypt", {"input": b"y" * (most + 1)}),
        ("key.encrypt", {"input": b"y", "aad": b"a"}),
        ("key.decrypt", {"ciphertext": b"y" * 256, "aad": b"a"}),
    ):
        with pytest.raises(Refusal) as refusal:
            custody.call(method, key="payments/rsa", **fields, **more)
        assert code(refusal) == "key.input_invalid"
    for bad in (b"", b"y" * 255, b"y" * 256, sealed[:-1] + bytes([sealed[-1] ^ 1])):
        with pytest.raises(Refusal) as refusal:
            custody.call("key.decrypt", key="payments/rsa", ciphertext=bad, **more)
        assert code(refusal) == "key.ciphertext_invalid"


def test_rsa_old_versions_need_to_be_named(custody: Custody) -> None:
    custody.call("key.create", key="payments/rsa", algorithm="rsa-2048", purpose="decrypt")
    sealed = blob(custody.call("key.encrypt", key="payments/rsa", input=b"x")["ciphertext"])
    custody.call("key.rotate", key="payments/rsa")
    with pytest.raises(Refusal):
        custody.call("key.decrypt", key="payments/rsa", ciphertext=sealed)
    assert custody.call("key.decrypt", key="payments/rsa", ciphertext=sealed, version=1)["plaintext"] == b"x"


def test_nothing_is_encrypted_that_the_hsm_cannot_open() -> None:
    """SoftHSM2 has OAEP with SHA-1 only: better refused now than lost."""
    inner = InlineLane(SoftwareBackend(allow=True))
    lane = SteeredLane(inner)
    lane.information = replace(inner.info().result(), mechanisms=("RSA_OAEP_SHA_1",))
    custody = Custody(lane=lane)
    custody.call("vault.create", vault="v")
    custody.call("key.create", key="v/rsa", algorithm="rsa-2048", purpose="decrypt")
    with pytest.raises(Refusal) as refusal:
        custody.call("key.encrypt", key="v/rsa", input=b"x")
    assert code(refusal) == "key.unsupported"
    assert refusal.value.details == {"possible": ["sha-1"]}
    sealed = blob(custody.call("key.encrypt", key="v/rsa", input=b"x", hash="sha-1")["ciphertext"])
    assert custody.call("key.decrypt", key="v/rsa", ciphertext=sealed, hash="sha-1")["plaintext"] == b"x"

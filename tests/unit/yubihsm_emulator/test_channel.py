"""Sessions' cryptography against vectors computed from a real client and published constants."""

from unittest import mock

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from tests.support.emulated_device import refused
from yubihsm_emulator.channel import Channel, Keys, cmac
from yubihsm_emulator.device import DEFAULT_KEY
from yubihsm_emulator.errors import ErrorCode
from yubihsm_emulator.handshake import Challenge, agree, challenge, encode_point

HOST = bytes.fromhex("0001020304050607")
CARD = bytes.fromhex("08090a0b0c0d0e0f")
AUTHENTICATE = bytes.fromhex("04001100b01410d72022ed0ec1e620c499fbf1a9")
ECHO = bytes.fromhex("050019008c57e64f989677b72d0741b82b2cf367eb587dbb8ed7144b")
ECHOED = bytes.fromhex("8500190016dd1a9db53fef53b95b3931cfbe39f4a673092d54fb1cd3")


def begun() -> Challenge:
    return challenge(DEFAULT_KEY.material, HOST, CARD)


def live() -> Channel:
    return begun().answer(0, AUTHENTICATE[4:])


def test_session_keys_and_cryptograms() -> None:
    keys = begun().keys
    assert keys.enc.hex() == "6a7481280688c6e0acf6226085a33167"
    assert keys.mac.hex() == "4387b8a1aef81f16782246452c6485c1"
    assert keys.rmac.hex() == "3a5b6bcce25badb45333b40160557a67"
    assert begun().card_cryptogram.hex() == "0d89ea51bf1bf533"
    assert begun().host_cryptogram.hex() == "b01410d72022ed0e"


def test_an_echo_is_opened_and_answered_byte_for_byte() -> None:
    channel = live()
    opened = channel.open(0, ECHO[4:])
    assert opened.plaintext == b"\x01\x00\x03abc"
    assert opened.chain.hex() == "eb587dbb8ed7144be04d7919ab99c8b8"
    assert channel.seal(0, opened, b"\x81\x00\x03abc") == ECHOED


@pytest.mark.parametrize("at", range(16))
def test_a_wrong_answer_opens_no_session(at: int) -> None:
    answer = bytearray(AUTHENTICATE[4:])
    answer[at] ^= 1
    refused(ErrorCode.AUTHENTICATION_FAILED, lambda: begun().answer(0, bytes(answer)))


def test_an_answer_counts_for_one_session_only() -> None:
    refused(ErrorCode.AUTHENTICATION_FAILED, lambda: begun().answer(1, AUTHENTICATE[4:]))


@given(st.integers(0, 24 * 8 - 1))
def test_a_flipped_bit_is_refused_and_the_channel_goes_on(bit: int) -> None:
    channel = live()
    sealed = bytearray(ECHO[4:])
    sealed[bit // 8] ^= 1 << bit % 8
    refused(ErrorCode.AUTHENTICATION_FAILED, lambda: channel.open(0, bytes(sealed)))
    assert channel.open(0, ECHO[4:]).plaintext == b"\x01\x00\x03abc"


def test_a_message_is_for_its_session_and_its_turn() -> None:
    channel = live()
    refused(ErrorCode.AUTHENTICATION_FAILED, lambda: channel.open(1, ECHO[4:]))
    channel.seal(0, channel.open(0, ECHO[4:]), b"")
    refused(ErrorCode.AUTHENTICATION_FAILED, lambda: channel.open(0, ECHO[4:]))


@pytest.mark.parametrize("size", [0, 7, 8, 23, 25, 31])
def test_sizes_that_no_message_has(size: int) -> None:
    refused(ErrorCode.WRONG_LENGTH, lambda: live().open(0, bytes(size)))


class Host:
    """The other end of a channel: the same cipher, written down a second time with the roles exchanged."""

    def __init__(self, keys: Keys, chain: bytes) -> None:
        self.channel = Channel(keys, chain)
        self.keys = keys
        self.chain = chain

    def seal(self, plaintext: bytes, padding: bytes | None = None) -> bytes:
        cipher = self.channel._cipher().encryptor()
        padded = plaintext + (b"\x80" + bytes(-(len(plaintext) + 1) % 16) if padding is None else padding)
        ciphertext = cipher.update(padded)
        prefix = b"\x05" + (len(ciphertext) + 9).to_bytes(2, "big") + b"\x03"
        self.chain = cmac(self.keys.mac, self.chain, prefix, ciphertext)
        return ciphertext + self.chain[:8]

    def open(self, frame: bytes) -> bytes:
        assert frame[:4] == b"\x85" + (len(frame) - 3).to_bytes(2, "big") + b"\x03"
        assert cmac(self.keys.rmac, self.chain, frame[:-8])[:8] == frame[-8:]
        padded = self.channel._cipher().decryptor().update(frame[4:-8])
        self.channel._counter += 1
        return padded.rstrip(b"\0")[:-1]


KEYS = Keys(bytes(range(16)), bytes(range(16, 32)), bytes(range(32, 48)))


@given(st.lists(st.tuples(st.binary(max_size=64), st.binary(max_size=64)), max_size=5))
def test_whatever_is_said_arrives_both_ways_in_order(talk: list[tuple[bytes, bytes]]) -> None:
    device, host = Channel(KEYS, bytes(16)), Host(KEYS, bytes(16))
    for said, answered in talk:
        opened = device.open(3, host.seal(said))
        assert opened.plaintext == said
        assert host.open(device.seal(3, opened, answered)) == answered


@pytest.mark.parametrize("padding", [b"\x81" + bytes(15), bytes(16), b"\x80" + bytes(31)])
def test_padding_must_be_one_bit_and_less_than_a_block_of_zeros(padding: bytes) -> None:
    host = Host(KEYS, bytes(16))
    refused(ErrorCode.INVALID_DATA, lambda: Channel(KEYS, bytes(16)).open(3, host.seal(b"x" * 16, padding)))


def test_points_off_the_curve_open_no_session() -> None:
    point = encode_point(ec.derive_private_key(7, ec.SECP256R1()).public_key())
    static = (9).to_bytes(32, "big")
    off = point[:-1] + bytes((point[-1] ^ 1,))
    for material, ephemeral in ((off[1:], point), (point[1:], off), (bytes(64), point), (point[1:], bytes(65))):
        refused(
            ErrorCode.INVALID_DATA, lambda material=material, ephemeral=ephemeral: agree(material, ephemeral, static)
        )
    with mock.patch.object(ec, "generate_private_key", return_value=ec.derive_private_key(11, ec.SECP256R1())):
        first, again = agree(point[1:], point, static), agree(point[1:], point, static)
    assert first.receipt == again.receipt
    assert agree(point[1:], point, static).receipt != first.receipt

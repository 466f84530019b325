from collections.abc import Mapping

from yubihsm_emulator.codes import NOBODY, Command, ObjectType
from yubihsm_emulator.errors import DeviceError, ErrorCode
from yubihsm_emulator.handshake import CHALLENGE_SIZE, POINT_SIZE, Challenge, agree, challenge
from yubihsm_emulator.objects import StoredObject
from yubihsm_emulator.request import Holder, Request
from yubihsm_emulator.sessions import Sessions, Slot
from yubihsm_emulator.spec import Spec, field


class Logins:
    """The two commands that open sessions; they need the sessions, which no other handler sees."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._claimed = NOBODY  # the key of the session being authenticated, for the log

    @property
    def commands(self) -> Mapping[int, Spec]:
        """Their rows of the table."""
        return {
            Command.CREATE_SESSION: Spec(self._create_session, target=field(0), in_clear=True),
            Command.AUTHENTICATE_SESSION: Spec(
                self._authenticate_session, target=lambda _request, _reply: self._claimed, in_clear=True
            ),
        }

    def _create_session(self, request: Request) -> bytes:
        reader = request.reader()
        key_id, first = reader.u16(), reader.rest()
        if len(first) not in {CHALLENGE_SIZE, POINT_SIZE}:
            raise DeviceError(ErrorCode.WRONG_LENGTH)
        key = request.device.store.get(ObjectType.AUTHENTICATION_KEY, key_id)
        if key is None:
            raise DeviceError(ErrorCode.OBJECT_NOT_FOUND)
        request.device.enabled(key.algorithm)
        if (len(key.material) == 32) != (len(first) == CHALLENGE_SIZE):
            raise DeviceError(ErrorCode.INVALID_DATA)
        if len(first) == CHALLENGE_SIZE:
            card_challenge = request.device.random(CHALLENGE_SIZE)
            begun = challenge(key.material, first, card_challenge)
            number = self._sessions.allot(Slot(_holder(key), begun))
            return bytes((number,)) + card_challenge + begun.card_cryptogram
        agreed = agree(key.material, first, request.device.static_key)
        number = self._sessions.allot(Slot(_holder(key), agreed.channel))
        return bytes((number,)) + agreed.point + agreed.receipt

    def _authenticate_session(self, request: Request) -> bytes:
        self._claimed = NOBODY
        reader = request.reader()
        number, answer = reader.u8(), reader.take(2 * CHALLENGE_SIZE)
        reader.end()
        slot = self._sessions.get(number)
        if not isinstance(slot.state, Challenge):
            raise DeviceError(ErrorCode.INVALID_SESSION)
        self._claimed = slot.holder.key_id
        try:
            slot.state = slot.state.answer(number, answer)
        except DeviceError:
            self._sessions.free(number)
            raise
        self._sessions.touch(slot)
        return b""


def _holder(key: StoredObject) -> Holder:
    return Holder(key.id, key.domains, key.capabilities, key.delegated)

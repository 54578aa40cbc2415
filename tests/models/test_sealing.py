"""Sealed secrets open for whom they were sealed, and for nobody else (rule 5.3)."""

import pickle
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import Misconfigured
from models.key_text import Secret, mint
from models.sealing import BrokenSeal, Sealed, Sealer, UnknownKek

OLD, NEW = b"o" * 32, b"n" * 32
KEY, ACCOUNT, ROTATION = UUID(int=1), UUID(int=2), UUID(int=3)
IDS = {"key_id": KEY, "account_id": ACCOUNT, "rotation_id": ROTATION}


def seal(sealer: Sealer, secret: Secret) -> Sealed:
    return sealer.seal(secret, **IDS)


@given(st.text(), st.uuids(), st.uuids(), st.uuids())
def test_what_was_sealed_is_opened(text: str, key: UUID, account: UUID, rotation: UUID) -> None:
    sealer = Sealer({1: OLD})
    ids = {"key_id": key, "account_id": account, "rotation_id": rotation}
    assert sealer.open(sealer.seal(Secret(text), **ids), **ids).reveal() == text


def test_a_box_is_opened_by_another_process_with_the_same_keys() -> None:
    secret = mint("kt")
    assert Sealer({1: OLD}).open(seal(Sealer({1: OLD}), secret), **IDS) == secret


def test_no_two_boxes_are_the_same() -> None:
    sealer, secret = Sealer({1: OLD}), mint("kt")
    boxes = [seal(sealer, secret).box for _ in range(100)]
    assert len({box[:12] for box in boxes}) == len({box[12:] for box in boxes}) == 100


def test_a_box_does_not_hold_the_text() -> None:
    secret = mint("kt")
    sealed = seal(Sealer({1: OLD}), secret)
    assert secret.reveal().encode() not in sealed.box
    assert len(sealed.box) == 12 + len(secret.reveal()) + 16
    assert repr(sealed) == "Sealed(kek=1)"


@pytest.mark.parametrize("name", IDS)
def test_a_box_opens_for_its_own_ids_only(name: str) -> None:
    sealer = Sealer({1: OLD})
    sealed = seal(sealer, mint("kt"))
    with pytest.raises(BrokenSeal, match="cancel the rotation and start a new one"):
        sealer.open(sealed, **{**IDS, name: uuid4()})


def test_a_box_does_not_open_for_its_ids_in_another_order() -> None:
    sealer = Sealer({1: OLD})
    sealed = seal(sealer, mint("kt"))
    with pytest.raises(BrokenSeal):
        sealer.open(sealed, key_id=ACCOUNT, account_id=KEY, rotation_id=ROTATION)


@given(st.data())
def test_every_altered_bit_is_noticed(data: st.DataObject) -> None:
    sealer = Sealer({1: OLD})
    sealed = seal(sealer, mint("kt"))
    bit = data.draw(st.integers(min_value=0, max_value=8 * len(sealed.box) - 1))
    box = bytearray(sealed.box)
    box[bit // 8] ^= 1 << bit % 8
    with pytest.raises(BrokenSeal):
        sealer.open(Sealed(sealed.kek, bytes(box)), **IDS)


def test_every_shorter_or_longer_box_is_refused() -> None:
    sealer = Sealer({1: OLD})
    sealed = seal(sealer, mint("kt"))
    for box in [sealed.box[:length] for length in range(len(sealed.box))] + [sealed.box + b"\0"]:
        with pytest.raises(BrokenSeal):
            sealer.open(Sealed(sealed.kek, box), **IDS)


def test_new_boxes_use_the_highest_version_and_old_ones_still_open() -> None:
    secret = mint("kt")
    before = seal(Sealer({9: OLD}), secret)
    sealer = Sealer({10: NEW, 9: OLD})
    after = seal(sealer, secret)
    assert (before.kek, after.kek, sealer.current) == (9, 10, 10)
    assert sealer.open(before, **IDS) == sealer.open(after, **IDS) == secret


def test_a_missing_key_is_named_with_the_way_to_mend_it() -> None:
    sealed = seal(Sealer({2: NEW}), mint("kt"))
    with pytest.raises(UnknownKek, match="key-encryption key 2 is missing: bring its file back"):
        Sealer({1: OLD}).open(sealed, **IDS)


def test_a_box_does_not_open_under_another_key_of_its_version() -> None:
    sealed = seal(Sealer({1: OLD}), mint("kt"))
    with pytest.raises(BrokenSeal):
        Sealer({1: NEW}).open(sealed, **IDS)


def test_a_box_is_bound_to_the_version_of_its_key() -> None:
    sealer = Sealer({1: OLD, 2: OLD})  # the same key twice: only the version tells them apart
    sealed = seal(sealer, mint("kt"))
    with pytest.raises(BrokenSeal):
        sealer.open(Sealed(1, sealed.box), **IDS)


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {1: b""},
        {1: b"x" * 16},
        {1: b"x" * 31},
        {1: b"x" * 33},
        {1: "x" * 32},
        {1: OLD, 2: b"short"},
        {0: OLD},
        {-1: OLD},
        {32_768: OLD},
        {True: OLD},
        {"1": OLD},
    ],
    ids=lambda keys: repr(keys)[:24] + str(len(repr(keys))),
)
def test_keys_that_cannot_be_used_are_refused(keys: dict[int, bytes]) -> None:
    with pytest.raises(Misconfigured) as raised:
        Sealer(keys)
    assert "xxx" not in str(raised.value)


def test_a_key_of_another_length_is_refused_with_a_recipe() -> None:
    with pytest.raises(Misconfigured, match=r"exactly 32 bytes.*openssl rand -base64 32"):
        Sealer({1: b"x" * 48})


def test_a_sealer_shows_versions_only_and_is_not_pickled() -> None:
    sealer = Sealer({1: OLD, 2: NEW})
    assert repr(sealer) == "<Sealer 2, 1>"
    with pytest.raises(TypeError, match="never pickled"):
        pickle.dumps(sealer)

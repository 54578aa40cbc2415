"""Refusals carry a code for programs and a message for people."""

import pickle

from models.errors import NotFound, Refused


def test_a_refusal_reads_as_its_message() -> None:
    refused = Refused("name_empty", "the name is missing: give one")
    assert str(refused) == refused.message == "the name is missing: give one"
    assert refused.code == "name_empty"
    assert isinstance(refused, ValueError)


def test_what_is_not_found_is_refused() -> None:
    assert isinstance(NotFound("key_unknown", "no such key: see `keys list`"), Refused)


def test_a_refusal_comes_over_a_process_border_whole() -> None:
    there = pickle.loads(pickle.dumps(NotFound("key_unknown", "no such key")))
    assert type(there) is NotFound
    assert (there.code, str(there)) == ("key_unknown", "no such key")

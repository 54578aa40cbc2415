"""The sink of kind aws-secretsmanager, on moto's server; faults on a server of our own."""

import io
import logging
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from typing import Any

import pytest

from models.sinks import Promoting
from tests.servers import free_port
from tests.worker.sinks.aws_peer import Answers, answering
from tests.worker.sinks.given import HAND_OVER, given, later, secret
from worker.logs import configure_logging
from worker.setting_sinks import AwsSink
from worker.sinks import AwsSecretsManager

NAME = f"keyturn/{HAND_OVER.family_id}"
VERSION, LATER = str(HAND_OVER.rotation_id), str(later().rotation_id)
REGION = "eu-central-1"


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = import_module("moto.server").ThreadedMotoServer(
        ip_address="127.0.0.1", port=0, verbose=False
    )
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def service(moto: str) -> Iterator[Any]:
    """The service as an operator sees it, empty."""
    client = (
        import_module("boto3.session")
        .Session()
        .client("secretsmanager", region_name=REGION, endpoint_url=moto)
    )
    with suppress(client.exceptions.ClientError):  # one that is being deleted is listed no more
        client.delete_secret(SecretId=NAME, ForceDeleteWithoutRecovery=True)
    yield client
    client.close()


def sink(endpoint: str, timeout: float = 20.0, **more: Any) -> AwsSecretsManager:
    table = AwsSink(kind="aws-secretsmanager", region=REGION, endpoint=endpoint, **more)
    return AwsSecretsManager(table, timeout=timeout)


def stages(service: Any) -> dict[str, list[str]]:
    found = service.describe_secret(SecretId=NAME)["VersionIdsToStages"]
    return {version: sorted(labels) for version, labels in found.items() if labels}


def text_of(service: Any, stage: str) -> str:
    return str(service.get_secret_value(SecretId=NAME, VersionStage=stage)["SecretString"])


def test_pending_beside_the_current_one_and_current_when_promoted(moto: str, service: Any) -> None:
    service.create_secret(Name=NAME, SecretString="the old key")
    text, made = secret(), sink(moto)
    outcome = made.deliver(HAND_OVER, text)
    assert (outcome.state, outcome.receipt) == (
        "taken",
        f"{NAME}, version {VERSION}, is AWSPENDING",
    )
    assert text_of(service, "AWSCURRENT") == "the old key"
    assert text_of(service, "AWSPENDING") == text.reveal()
    promoted = made.promote(HAND_OVER)
    assert (promoted.state, promoted.receipt) == (
        "taken",
        f"{NAME}, version {VERSION}, is AWSCURRENT",
    )
    assert text_of(service, "AWSCURRENT") == text.reveal()
    assert text_of(service, "AWSPREVIOUS") == "the old key"


def test_the_same_rotation_twice_is_one_version(moto: str, service: Any) -> None:
    service.create_secret(Name=NAME, SecretString="the old key")
    text, made = secret(), sink(moto)
    assert made.deliver(HAND_OVER, text) == made.deliver(HAND_OVER, text)
    assert (
        len(service.list_secret_version_ids(SecretId=NAME, IncludeDeprecated=True)["Versions"]) == 2
    )
    before = stages(service)
    assert made.promote(HAND_OVER) == made.promote(HAND_OVER)
    assert before != stages(service)
    after = stages(service)
    made.deliver(HAND_OVER, text)  # a late repetition takes nothing back
    assert stages(service) == after


def test_the_next_rotation_takes_both_labels(moto: str, service: Any) -> None:
    service.create_secret(Name=NAME, SecretString="the old key")
    first, second, made = secret(), secret(), sink(moto)
    made.deliver(HAND_OVER, first)
    made.promote(HAND_OVER)
    made.deliver(later(), second)
    assert text_of(service, "AWSCURRENT") == first.reveal()
    made.promote(later())
    assert text_of(service, "AWSCURRENT") == second.reveal()
    assert text_of(service, "AWSPREVIOUS") == first.reveal()


def test_a_missing_secret_is_for_a_person(moto: str, service: Any) -> None:
    outcome = sink(moto).deliver(HAND_OVER, secret())
    assert outcome.state == "failed"
    assert "ResourceNotFoundException: there is no such secret: make it" in str(outcome.error)
    assert service.list_secrets()["SecretList"] == []


def test_a_missing_secret_is_made_where_the_settings_say_so(moto: str, service: Any) -> None:
    text, made = secret(), sink(moto, create=True)
    assert made.deliver(HAND_OVER, text).state == "taken"
    assert text_of(service, "AWSPENDING") == text.reveal()
    assert text_of(service, "AWSCURRENT") == text.reveal()  # the first version always is
    assert made.promote(HAND_OVER).state == "taken"
    assert made.deliver(HAND_OVER, text).state == "taken"
    assert len(service.list_secrets()["SecretList"]) == 1


def test_a_secret_that_is_being_deleted_is_for_a_person(moto: str, service: Any) -> None:
    service.create_secret(Name=NAME, SecretString="the old key")
    service.delete_secret(SecretId=NAME)
    outcome = sink(moto, create=True).deliver(HAND_OVER, secret())
    assert outcome.state == "failed"
    assert "is being deleted: restore it" in str(outcome.error)


def test_a_version_that_is_gone_is_not_promoted(moto: str, service: Any) -> None:
    service.create_secret(Name=NAME, SecretString="the old key")
    outcome = sink(moto).promote(HAND_OVER)
    assert (outcome.state, text_of(service, "AWSCURRENT")) == ("failed", "the old key")
    assert "rotate the key again" in str(outcome.error)


def test_it_says_that_it_promotes(moto: str) -> None:
    assert isinstance(sink(moto), Promoting)


@pytest.mark.parametrize(
    ("code", "status", "state"),
    [
        ("AccessDeniedException", 400, "failed"),
        ("EncryptionFailure", 400, "failed"),
        ("InvalidParameterException", 400, "failed"),
        ("InvalidRequestException", 400, "failed"),
        ("ResourceExistsException", 400, "failed"),
        ("ResourceNotFoundException", 400, "failed"),
        ("ThrottlingException", 400, "retry"),
        ("TooManyRequestsException", 429, "retry"),
        ("ExpiredTokenException", 400, "retry"),
        ("InternalServiceError", 500, "retry"),
        ("ServiceUnavailable", 503, "retry"),
    ],
)
def test_an_error_is_told_by_its_code_alone(code: str, status: int, state: str) -> None:
    answers, text = Answers(code, status), secret()
    with answering(answers) as address:
        outcome = sink(address).deliver(HAND_OVER, text)
    assert outcome.state == state
    assert str(outcome.error).startswith(f"{code}: ")
    assert text.reveal()[3:30] not in repr(outcome)
    assert [action for action, _ in answers.requests] == ["DescribeSecret", "PutSecretValue"]
    assert text.reveal() in answers.requests[1][1]


@pytest.mark.parametrize(
    ("fault", "why"), [("hang", "ReadTimeoutError"), ("reset", "ConnectionClosedError")]
)
def test_silence_is_tried_again(fault: str, why: str) -> None:
    answers = Answers(fault)
    with answering(answers) as address:
        outcome = sink(address, timeout=1.0).deliver(HAND_OVER, secret())
    assert (outcome.state, len(answers.requests)) == ("retry", 1)
    assert why in str(outcome.error)


def test_nobody_there() -> None:
    outcome = sink(f"http://127.0.0.1:{free_port()}").deliver(HAND_OVER, secret())
    assert outcome.state == "retry"
    assert "EndpointConnectionError" in str(outcome.error)


def test_without_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with answering(Answers("unused")) as address:
        outcome = sink(address).deliver(HAND_OVER, secret())
    assert outcome.state == "retry"
    assert "NoCredentialsError" in str(outcome.error)


def test_no_name_of_a_key_leads_elsewhere(moto: str, service: Any) -> None:
    outcome = sink(moto, name="k/{key_name}").deliver(given(key_name="../x"), secret())
    assert outcome.state == "failed"
    assert service.list_secrets()["SecretList"] == []


def test_no_log_has_the_key_even_at_level_debug(clean_logging: None) -> None:
    """botocore writes down whole requests there."""
    log, text = io.StringIO(), secret()
    configure_logging("debug", "json", "kt", log)
    logging.getLogger("botocore.endpoint").setLevel(logging.NOTSET)
    with answering(Answers("InternalServiceError", 500)) as address:
        sink(address).deliver(HAND_OVER, text)
    assert "PutSecretValue" not in log.getvalue()
    assert text.reveal()[3:30] not in log.getvalue()

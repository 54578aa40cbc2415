"""New keys in AWS Secrets Manager: AWSPENDING at once, AWSCURRENT when they are confirmed."""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, Final

from models.key_text import Secret
from models.sinks import HandOver, Outcome
from worker.setting_sinks import AwsSink
from worker.sink_names import Unnameable, named

from .optional import loaded, needed

TIMEOUT: Final = 10.0  # seconds for connecting, and for each answer
PENDING, CURRENT = "AWSPENDING", "AWSCURRENT"

_FINAL: Final = {
    "AccessDeniedException": "its policy does not allow this",
    "DecryptionFailure": "it cannot use the secret's KMS key",
    "EncryptionFailure": "it cannot use the secret's KMS key",
    "InvalidParameterException": "it takes no secret of this name or text",
    "InvalidRequestException": "the secret is being deleted, or belongs to another service",
    "ResourceExistsException": "the version of this rotation is there, with another text",
    "ResourceNotFoundException": "there is no such secret: make it, or set `create`",
}
"""Errors (their codes) after which another try would end the same."""


class _Unusable(Exception):
    """The secret cannot be used. Says why, and how to mend it."""


class AwsSecretsManager:
    """One secret for each key; a version of it for each rotation, named by the rotation's id.

    The client request token is that id too, so that a repetition makes no second version. Raises
    Misconfigured where the package boto3 is not installed.
    """

    def __init__(self, table: AwsSink, *, timeout: float = TIMEOUT) -> None:
        needed("boto3", "aws-secretsmanager")
        self._table = table
        self._timeout = timeout

    def deliver(self, hand_over: HandOver, secret: Secret) -> Outcome:
        def put(name: str) -> Outcome:
            try:
                return self._put(name, hand_over, secret)
            except self._client.exceptions.ResourceNotFoundException:
                if not self._table.create:
                    raise
            self._make(name)
            return self._put(name, hand_over, secret)

        return self._tried(hand_over, put)

    def promote(self, hand_over: HandOver) -> Outcome:
        """Move AWSCURRENT to the rotation's version, from whichever has it."""

        def move(name: str) -> Outcome:
            version, stages = str(hand_over.rotation_id), self._stages(name)
            if version not in stages:
                why = "the version of this rotation is there no more: rotate the key again"
                return Outcome(state="failed", error=why)
            if CURRENT not in stages[version]:
                before = [one for one, stage in stages.items() if CURRENT in stage]
                self._client.update_secret_version_stage(
                    SecretId=name,
                    VersionStage=CURRENT,
                    MoveToVersionId=version,
                    **({"RemoveFromVersionId": before[0]} if before else {}),
                )
            return Outcome(state="taken", receipt=f"{name}, version {version}, is {CURRENT}")

        return self._tried(hand_over, move)

    @cached_property
    def _client(self) -> Any:
        config = loaded("botocore.config").Config(
            connect_timeout=self._timeout,
            read_timeout=self._timeout,
            retries={"total_max_attempts": 1},  # the row of the hand-over repeats, and counts
        )
        return (
            loaded("boto3.session")
            .Session()
            .client(
                "secretsmanager",
                region_name=self._table.region,
                endpoint_url=self._table.endpoint,
                config=config,
            )
        )

    def _put(self, name: str, hand_over: HandOver, secret: Secret) -> Outcome:
        version = str(hand_over.rotation_id)
        if version not in self._stages(name):
            self._client.put_secret_value(
                SecretId=name,
                ClientRequestToken=version,
                SecretString=secret.reveal(),
                VersionStages=[PENDING],
            )
        return Outcome(state="taken", receipt=f"{name}, version {version}, is {PENDING}")

    def _stages(self, name: str) -> Mapping[str, Sequence[str]]:
        """The labels of each version that has any."""
        answer = self._client.describe_secret(SecretId=name)
        if "DeletedDate" in answer:
            raise _Unusable(f"the secret {name} is being deleted: restore it, or name another one")
        return answer.get("VersionIdsToStages") or {}

    def _make(self, name: str) -> None:
        try:
            self._client.create_secret(Name=name, Description="API key, put here by Keyturn")
        except self._client.exceptions.ResourceExistsException:
            return  # by another worker, just now

    def _tried(self, hand_over: HandOver, work: Callable[[str], Outcome]) -> Outcome:
        errors = loaded("botocore.exceptions")
        try:
            return work(named(self._table.name, hand_over))
        except (Unnameable, _Unusable) as error:
            return Outcome(state="failed", error=str(error))
        except errors.ClientError as error:
            # Of the answer only its code is told: its message may quote what it was sent.
            code = str(error.response.get("Error", {}).get("Code", "unknown"))[:80]
            why = f"{code}: {_FINAL.get(code, 'the service did not take it')}"
            return Outcome(state="failed" if code in _FINAL else "retry", error=why)
        except errors.BotoCoreError as error:
            why = f"the service cannot be used at present ({type(error).__name__})"
            return Outcome(state="retry", error=why)

"""How a source's messages are proven: by the transport, or by a table `[sources.NAME.proof]`."""

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any, Final, Literal, get_args
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    model_validator,
)

from worker.setting_types import Duration, HomePath, Line, is_loopback, one_line

Algorithm = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
    "Ed25519",
]  # fmt: skip
"""Signatures by a key pair. Those by a shared secret (HS256) and `none` are not among them."""

DEFAULT_ALGORITHMS: Final[tuple[Algorithm, ...]] = ("RS256", "PS256", "ES256", "EdDSA", "Ed25519")

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}")
_PLACES = re.compile(r"\{[^{}]*\}")
_SPELLED_OUT: Final = ("secret", "secrets", "token", "password", "signing_key", "bearer")


def _header_name(value: str) -> str:
    if not _TOKEN.fullmatch(value):
        raise ValueError("not the name of a header: write one like 'X-Signature'")
    return value.lower()


def _key_place(value: str) -> str:
    if "://" not in value:
        return str(one_line(value))
    try:
        parts = urlsplit(one_line(value))
        host, usable = parts.hostname or "", parts.port != 0
    except ValueError:
        host, usable = "", False
    safe = parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host)) if host else 0
    if not (safe and usable) or "@" in parts.netloc or parts.fragment:
        raise ValueError("not a place of public keys: write https://HOST/PATH, or a file's path")
    return value


HeaderName = Annotated[str, AfterValidator(_header_name)]
KeyPlace = Annotated[str, Field(min_length=1, max_length=2000), AfterValidator(_key_place)]
FieldName = Annotated[str, Field(min_length=1, max_length=20, pattern=r"^[A-Za-z0-9_-]+$")]
Short = Annotated[Line, Field(max_length=200)]
MaxAge = Annotated[
    Duration | None,
    Field(
        description="how old a signature may be when its message reaches the broker; '0s': any "
        "age; unset: 5m on streams, any age where the transport does not say when that was",
    ),
]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class _Shared(_Table):
    secret_files: tuple[HomePath, ...] = Field(
        default=(),
        max_length=10,
        description="files of the secrets, each of which is good; a name without a directory is "
        "one in `secrets_dir`; unset: `source-NAME-1`, `source-NAME-2` and so on there",
    )


class HeaderProof(_Shared):
    """A secret that the producer sends along as it is."""

    scheme: Literal["header"] = Field(description="a secret in a header, as it is")
    header: HeaderName = Field(description="the header that holds it")
    prefix: Short = Field(default="", description="what stands before it, such as 'Bearer '")


class HmacProof(_Shared):
    """A keyed digest of the body, in a header."""

    scheme: Literal["hmac"] = Field(description="a keyed digest of the body")
    header: HeaderName = Field(description="the header of the signature")
    digest: Literal["sha256", "sha384", "sha512"] = Field(
        default="sha256", description="the digest: sha256, sha384 or sha512"
    )
    encoding: Literal["hex", "base64"] = Field(
        default="hex", description="how the signature is written: hex or base64"
    )
    prefix: Short = Field(default="", description="what stands before it, such as 'sha256='")
    signature_field: FieldName | None = Field(
        default=None, description="where the header is like `t=1,v1=ab`: the signature's name there"
    )
    timestamp_field: FieldName | None = Field(default=None, description="and the time's name there")
    timestamp_header: HeaderName | None = Field(
        default=None, description="the header of the time, where it has one of its own"
    )
    signed: Short = Field(
        default="{body}", description="what is signed, such as '{timestamp}.{body}'"
    )
    key: Short = Field(default="{secret}", description="the key, such as '{timestamp}{secret}'")
    max_age: MaxAge = None

    @model_validator(mode="after")
    def _fits(self) -> "HmacProof":
        _places("signed", self.signed, needed="{body}")
        _places("key", self.key, needed="{secret}")
        timed = "{timestamp}" in self.signed + self.key
        sources = [self.timestamp_field, self.timestamp_header]
        if timed != any(sources):
            raise ValueError(
                "a time that is not signed proves nothing, and one that is must be found: name "
                "{timestamp} in `signed` or `key`, and timestamp_field or timestamp_header"
            )
        if all(sources):
            raise ValueError(
                "the time stands in one place: keep timestamp_field or timestamp_header"
            )
        if self.timestamp_field and not self.signature_field:
            raise ValueError("timestamp_field needs signature_field: name both, such as t and v1")
        if self.max_age is not None and not timed:
            raise ValueError("max_age: this signature has no time; remove it")
        return self


class StandardProof(_Shared):
    """Standard Webhooks, as Svix and others send them."""

    scheme: Literal["standard-webhooks"] = Field(description="Standard Webhooks, Svix")
    max_age: MaxAge = None


class EcdsaProof(_Table):
    """A signature on the curve P-256, with the key's name beside it."""

    scheme: Literal["ecdsa"] = Field(description="a signature on the curve P-256")
    header: HeaderName = Field(description="the header of the signature")
    key_id_header: HeaderName = Field(description="the header of the key's name")
    keys: KeyPlace = Field(description="file or https URL of the public keys, as GitHub lists them")


class JwsProof(_Table):
    """A message that is a signed token (JWS) itself, such as a Security Event Token."""

    scheme: Literal["jws"] = Field(description="the message is a signed token itself")
    keys: KeyPlace = Field(description="file or https URL of the issuer's keys (JWKS)")
    issuer: Annotated[Short, Field(min_length=1)] = Field(description="what `iss` must be")
    audience: tuple[Annotated[Short, Field(min_length=1)], ...] = Field(
        min_length=1, description="`aud` must name one of these"
    )
    typ: Short = Field(
        default="secevent+jwt",
        description="what the header `typ` must be; 'any': anything, or none",
    )
    algorithms: tuple[Algorithm, ...] = Field(
        default=DEFAULT_ALGORITHMS,
        min_length=1,
        description=f"the signatures that count: some of {', '.join(get_args(Algorithm))}",
    )


class FusionAuthProof(_Shared):
    """A signed token in a header, which holds the SHA-256 of the body."""

    scheme: Literal["fusionauth"] = Field(description="a signed token that names the body's digest")
    header: HeaderName = Field(
        default="x-fusionauth-signature-jwt", description="the header of the token"
    )
    keys: KeyPlace | None = Field(
        default=None,
        description="file or https URL of the keys (JWKS); unset: the token is signed with a "
        "shared secret",
    )
    algorithms: tuple[Algorithm, ...] = Field(
        default=DEFAULT_ALGORITHMS,
        min_length=1,
        description="with `keys`: the signatures that count, as for `jws`",
    )

    @model_validator(mode="after")
    def _one_kind(self) -> "FusionAuthProof":
        if self.keys and self.secret_files:
            raise ValueError("the token is signed by a key pair or by a secret: keep one of both")
        return self


PROOFS: Final = (HeaderProof, HmacProof, StandardProof, EcdsaProof, JwsProof, FusionAuthProof)
SCHEMES: Final = tuple(get_args(table.model_fields["scheme"].annotation)[0] for table in PROOFS)

_TIMED_PAIR: Final = {
    "scheme": "hmac",
    "signature_field": "v1",
    "timestamp_field": "t",
    "signed": "{timestamp}.{body}",
}
PRESETS: Final[Mapping[str, Mapping[str, str]]] = {
    "auth0": {"scheme": "header", "header": "Authorization", "prefix": "Bearer "},
    "clerk": {"scheme": "standard-webhooks"},
    "github": {"scheme": "hmac", "header": "X-Hub-Signature-256", "prefix": "sha256="},
    "github-secret-scanning": {
        "scheme": "ecdsa",
        "header": "Github-Public-Key-Signature",
        "key_id_header": "Github-Public-Key-Identifier",
        "keys": "https://api.github.com/meta/public_keys/secret_scanning",
    },
    "gitguardian": {
        "scheme": "hmac",
        "header": "Gitguardian-Signature",
        "prefix": "sha256=",
        "timestamp_header": "Timestamp",
        "key": "{timestamp}{secret}",
    },
    "gitlab": {"scheme": "header", "header": "X-Gitlab-Token"},
    "keycloak": {"scheme": "hmac", "header": "X-Keycloak-Signature"},
    "okta": {"scheme": "header", "header": "Authorization"},
    "svix": {"scheme": "standard-webhooks"},
    "workos": {**_TIMED_PAIR, "header": "WorkOS-Signature"},
    "wso2": {"scheme": "hmac", "header": "X-WSO2-Event-Signature", "prefix": "sha256="},
    "zitadel": {**_TIMED_PAIR, "header": "ZITADEL-Signature"},
}
"""What producers do, by the name that `scheme` may have instead; a table may state it otherwise."""


def _places(name: str, template: str, *, needed: str) -> None:
    found = _PLACES.findall(template)
    if found.count(needed) != 1 or not set(found) <= {needed, "{timestamp}"}:
        raise ValueError(f"{name}: name {needed} once, and else nothing but {{timestamp}}")


def _spelled(value: object) -> object:
    """A table with its preset filled in."""
    if not isinstance(value, dict):
        return value
    if any(isinstance(value.get(name), str | list) for name in _SPELLED_OUT):
        raise ValueError(
            "no secret stands in this file: put it into a file of its own, source-NAME-1 in "
            "secrets_dir (chmod 600), or name such files by secret_files"
        )
    scheme = value.get("scheme")
    preset = PRESETS.get(scheme) if isinstance(scheme, str) else None
    return {**value, "scheme": scheme} if preset is None else {**preset, **value, **_kind(preset)}


def _kind(preset: Mapping[str, str]) -> dict[str, str]:
    return {"scheme": preset["scheme"]}


def _tag(value: Any) -> str | None:
    if isinstance(value, dict):
        return value.get("scheme") if value.get("scheme") in SCHEMES else None
    return "transport" if value == "transport" else getattr(value, "scheme", None)


Proof = Annotated[
    Annotated[Literal["transport"], Tag("transport")]
    | Annotated[HeaderProof, Tag("header")]
    | Annotated[HmacProof, Tag("hmac")]
    | Annotated[StandardProof, Tag("standard-webhooks")]
    | Annotated[EcdsaProof, Tag("ecdsa")]
    | Annotated[JwsProof, Tag("jws")]
    | Annotated[FusionAuthProof, Tag("fusionauth")],
    Discriminator(
        _tag,
        custom_error_type="proof",
        custom_error_message="input should be 'transport', or a table [sources.NAME.proof] with a "
        "scheme: " + ", ".join((*SCHEMES, *PRESETS)),
    ),
    BeforeValidator(_spelled),
]

DEFAULT_MAX_AGE: Final = timedelta(minutes=5)
"""What Standard Webhooks and Zitadel recommend."""

"""`keyturn accounts`: who owns keys, how producers name them, and what holds them."""

import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from models import accounts, public_keys
from models.accounts import Account, KnownAs
from models.events import Subject
from models.holds import Hold, on_account
from models.operator import Operator
from worker.cli import key_views, output, session, times
from worker.cli.asking import DryRun, Yes, agreed
from worker.cli.output import Json
from worker.settings import Settings

app = typer.Typer(
    name="accounts", no_args_is_help=True, callback=output.group, help="Accounts, which own keys."
)

KEYS_LOOKED_AT = 10_000
"""Keys whose last use is looked at before an account is disabled: the newest ones."""

NAMED = {
    "email": "ada@example.com",
    "phone_number": "+4915112345678",
    "uri": "acct:ada@example.com",
    "external_id": "okta:ada",
    "iss_sub": "https://login.example.com 42",
}
"""Formats that are written before a name, and an example of each."""

_MOVE = "`keyturn accounts email ACCOUNT NEW` moves them."

AccountName = Annotated[
    str, typer.Argument(metavar="ACCOUNT", help="An account's e-mail address or id.")
]
Reason = Annotated[str | None, typer.Option(metavar="TEXT", help="Why, for the audit.")]


@app.command()
def create(
    email: Annotated[str, typer.Argument(metavar="EMAIL", help="Its e-mail address.")],
    role: Annotated[
        str, typer.Option(metavar="ROLE", help="What it may do, and its keys at most.")
    ],
    name: Annotated[str, typer.Option(metavar="TEXT", help="What people call it.")] = "",
    identity: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SOURCE:VALUE", help="Its id at a producer of events; may be repeated."
        ),
    ] = None,
    tenant: Annotated[
        str | None, typer.Option(metavar="TENANT", help="The tenant that it is in: name or id.")
    ] = None,
    json: Json = False,
) -> None:
    """Add an account. Events that waited for it are applied at once.

    In a tenant that is held it is held from the start.
    """
    settings = session.settings()
    subjects = [_subject(settings, one, "--identity") for one in identity or ()]
    with session.operator(settings) as client:
        account = client.create_account(email, role, name=name, identities=subjects, tenant=tenant)
        tell(client, account, json)


@app.command()
def link(
    account: AccountName,
    identity: Annotated[
        str, typer.Argument(metavar="SOURCE:VALUE", help="Its id at a producer of events.")
    ],
    json: Json = False,
) -> None:
    """Let a producer's id name an account from now on."""
    settings = session.settings()
    subject = _subject(settings, identity, "SOURCE:VALUE")
    with session.operator(settings) as client:
        client.link_account(account, subject)
        tell(client, client.account(account), json)


@app.command()
def unlink(
    account: AccountName,
    identity: Annotated[
        str, typer.Argument(metavar="NAME", help="A name that `accounts identities` lists.")
    ],
    yes: Yes = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Let a name mean this account no longer.

    Later events that go by it hit nobody, until another account has it. What holds the account
    stays, and so does the address of its mails: `accounts email` changes that.
    Asks first.
    """
    settings = session.settings()
    subject = _subject(settings, identity, "NAME")
    with session.operator(settings) as client:
        found = client.account(account)
        plan = [f"Later events about {identity} would no longer reach {found.email}."]
        if accounts.identity(subject) == ("email", "", found.email):
            plan.append(f"Its mails would still go there: {_MOVE}")
        would = {"account": found.email, "unlink": subject}
        if agreed("Unlink it?", plan, would, yes=yes, dry_run=dry_run, json=json):
            client.unlink_account(account, subject)
            tell(client, client.account(account), json)


@app.command()
def identities(account: AccountName, json: Json = False) -> None:
    """List the names that producers have or had for an account."""
    with session.operator() as client:
        found = client.known_as(client.account(account).id)
    rows = [
        (_name_of(one), one.linked_at, one.linked_by, one.unlinked_at, one.unlinked_by)
        for one in found
    ]
    headings = ("NAME", "LINKED", "BY", "UNLINKED", "BY")
    output.answer(json, found, output.Table(headings, rows, empty="It has no names."))


def _name_of(one: KnownAs | Subject) -> str:
    if one.format == "opaque":
        return f"{one.issuer}:{one.value}"
    issuer = {"external_id": f"{one.issuer}:", "iss_sub": f"{one.issuer} "}.get(one.format, "")
    return f"{one.format}:{issuer}{one.value}"


def _subject(settings: Settings, text: str, hint: str) -> Subject:
    """A name as `accounts identities` writes it."""
    format, _, rest = text.partition(":")
    if format in settings.sources or format not in NAMED:
        return _issued(settings, "opaque", text, hint)
    if format == "external_id":
        return _issued(settings, format, rest, hint)
    issuer, _, value = rest.rpartition(" ") if format == "iss_sub" else ("", "", rest)
    if not value or (format == "iss_sub" and not issuer):
        example = f"{format}:{NAMED[format]}"
        raise typer.BadParameter(f"write it like '{example}'", param_hint=hint)
    return Subject(format=format, issuer=issuer, value=value)


def _issued(settings: Settings, format: str, text: str, hint: str) -> Subject:
    source, colon, value = text.partition(":")
    if not colon or not value:
        example = f"email:{text}" if "@" in source else "okta:00u1abcd"
        raise typer.BadParameter(f"write SOURCE:VALUE, like {example}", param_hint=hint)
    if source not in settings.sources:
        known = ", ".join(settings.sources)
        raise typer.BadParameter(f"no source {source!r}; choose one of: {known}", param_hint=hint)
    try:
        return Subject(format=format, issuer=source, value=value)
    except ValueError:
        raise typer.BadParameter("the value is too long for an id", param_hint=hint) from None


@app.command("public-key")
def public_key(
    account: AccountName,
    file: Annotated[
        str | None,
        typer.Argument(metavar="FILE", help="Its public key, PEM or JWK; - is stdin."),
    ] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Seal to none from now on.")] = False,
    yes: Yes = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Show or set what new keys are sealed to: a public key.

    It is used by sinks of kind `sealed`. Asks before it takes one key away for another, or for
    none: who has the private half can read each new key.
    """
    if remove and file is not None:
        raise typer.BadParameter("give FILE or --remove, not both", param_hint="--remove")
    jwk = public_keys.read(_text_of(file)) if file is not None else None
    with session.operator() as client:
        found = client.account(account)
        before = client.public_key(found.id)
        if jwk is not None or remove:
            plan = [f"New keys of {found.email} are sealed to {_named(before)} now."]
            plan.append(f"They would be sealed to {_named(jwk)}.")
            would = {"account": found.email, "before": before, "after": jwk}
            asks = dry_run or before not in (None, jwk)
            if asks and not agreed("Do it?", plan, would, yes=yes, dry_run=dry_run, json=json):
                return
            client.register_public_key(found.id, jwk)
        now = client.public_key(found.id)
        document = {"account": found.email, "public_key": now}
        output.answer(json, document, f"New keys of {found.email} are sealed to {_named(now)}.")


def _named(jwk: public_keys.Jwk | None) -> str:
    if jwk is None:
        return "no public key"
    kind = jwk.get("crv") or f"RSA, {public_keys.bits(jwk)} bits"
    return f"the public key {jwk['kid']} ({kind}, SHA-256 {public_keys.thumbprint(jwk)})"


def _text_of(file: str) -> str:
    try:
        if file == "-":
            return sys.stdin.buffer.read(public_keys.LONGEST + 1).decode()
        with Path(file).open("rb") as opened:
            return opened.read(public_keys.LONGEST + 1).decode()
    except OSError as error:
        message = f"cannot read {file}: {error.strerror}"
        raise typer.BadParameter(message, param_hint="FILE") from None
    except UnicodeDecodeError:
        message = f"{file} is no text: give PEM or a JSON Web Key, not DER"
        raise typer.BadParameter(message, param_hint="FILE") from None


@app.command("list")
def list_accounts(
    held: Annotated[
        bool | None, typer.Option("--held/--not-held", help="Only those (not) stopped by a hold.")
    ] = None,
    limit: Annotated[
        int, typer.Option(metavar="N", min=1, max=100_000, help="At most so many.")
    ] = 1000,
    json: Json = False,
) -> None:
    """List accounts by e-mail address."""
    with session.operator() as client:
        found = client.accounts(held=held, limit=limit)
    rows = [(one.email, one.name, one.role, one.keys, _state(one)) for one in found]
    headings = ("EMAIL", "NAME", "ROLE", "ACTIVE KEYS", "STATE")
    output.answer(json, found, output.Table(headings, rows, empty="No accounts."))


def _state(account: Account) -> str:
    return "held" if account.held else "active"


@app.command()
def show(account: AccountName, json: Json = False) -> None:
    """Show one account, its names and what holds it."""
    with session.operator() as client:
        tell(client, client.account(account), json)


def tell(client: Operator, account: Account, json: bool, *said: str) -> None:
    """Print an account as `accounts show` does, behind what is said of it."""
    identities = client.identities(account.id)
    holds = client.holds_of(on_account(account.id))
    tenant_holds = client.tenants.holds_over(account.id)
    names = [_name_of(one) for one in identities]
    facts = output.facts(
        id=account.id,
        email=account.email,
        name=account.name,
        role=account.role,
        tenant=account.tenant,
        state=_state(account),
        active_keys=account.keys,
        created=account.created_at,
        known_as=names,
    )
    linked = Subject(format="email", value=account.email) in identities
    more = () if linked else (f"Its mails go to an address that does not name it: {_MOVE}",)
    document = {
        **output.plain(account),
        "email_linked": linked,
        "identities": identities,
        "holds": holds,
        "tenant_holds": tenant_holds,
    }
    holding = key_views.hold_lines(holds, account.email)
    holding += key_views.hold_lines(tenant_holds, f"Its tenant {account.tenant}")
    output.answer(json, document, *said, facts, *more, *holding)


@app.command()
def disable(
    account: AccountName,
    reason: Reason = None,
    yes: Yes = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Stop all keys of an account until it is enabled again."""
    with session.operator() as client:
        found = client.account(account)
        used = _last_use(client, found)
        plan = [
            f"Disable {found.email} ({found.id}): active keys that stop at once: {found.keys}.",
            f"Its keys were last used: {times.ago(used)}.",
        ]
        would = {"action": "disable", "account": found, "keys": found.keys, "last_used_at": used}
        if agreed("Disable it?", plan, would, yes=yes, dry_run=dry_run, json=json):
            changed = client.disable_account(account, reason)
            done = "is disabled" if changed else "was disabled by an operator before"
            _tell_holds(client, found, changed, f"{found.email} {done}.", json)


def _last_use(client: Operator, account: Account) -> datetime | None:
    keys = client.keys(account=str(account.id), status="active", limit=KEYS_LOOKED_AT)
    return max((key.last_used_at for key in keys if key.last_used_at), default=None)


@app.command()
def enable(
    account: AccountName,
    reason: Reason = None,
    source: Annotated[
        str, typer.Option(metavar="SOURCE", help="Who placed the hold.")
    ] = "operator",
    kind: Annotated[
        str, typer.Option(metavar="KIND", help="What kind of hold it is.")
    ] = "disabled",
    yes: Yes = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Lift one hold of an account, and nothing else.

    It is that of `accounts disable`, unless another one is named. Says which others still stand.
    Asks before it lifts a hold of another kind, such as `compromised`.
    """
    with session.operator() as client:
        found = client.account(account)
        plan = [
            f"The hold {source}/{kind} of {found.email} would be lifted; its keys may work again."
        ]
        would = {"account": found.email, "source": source, "kind": kind}
        doubtful = kind != "disabled" or dry_run
        if doubtful and not agreed("Lift it?", plan, would, yes=yes, dry_run=dry_run, json=json):
            return
        changed = client.enable_account(account, reason, source=source, kind=kind)
        done = "is no longer" if changed else "was not"
        first = f"{found.email} {done} held by {source}/{kind}."
        _tell_holds(client, found, changed, first, json, mend=True)


@app.command()
def confirm_deletions(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="The source, by its name.")],
    yes: Yes = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Let deletions go on that wait for a person.

    Those of a source that cut unusually many accounts at once do. The accounts stay held; their
    keys are deleted, for ever, when the delay has passed.
    """
    with session.operator() as client:
        waiting = client.unconfirmed_deletions(source)
        plan = [f"{len(waiting)} accounts that {source} deleted would lose their keys for ever:"]
        plan += [f"  {email}" for email in waiting[:20]]
        document = {"source": source, "accounts": waiting}
        if waiting and not agreed("Confirm?", plan, document, yes=yes, dry_run=dry_run, json=json):
            return
        count = client.confirm_deletions(source)
        output.answer(json, {"source": source, "confirmed": count}, f"{count} confirmed.")


def _tell_holds(
    client: Operator, account: Account, changed: bool, done: str, json: bool, mend: bool = False
) -> None:
    left = client.holds_of(on_account(account.id))
    document = {
        "id": account.id,
        "email": account.email,
        "changed": changed,
        "held": bool(left),
        "holds": left,
    }
    mends = [_mend(account, hold) for hold in left] if mend else []
    output.answer(json, document, done, *key_views.hold_lines(left, "It"), *mends)


def _mend(account: Account, hold: Hold) -> str:
    named = f"--source {hold.source} --kind {hold.kind}"
    return f"To lift it: keyturn accounts enable {account.email} {named}"

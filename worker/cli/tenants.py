"""`keyturn tenants`: accounts that are held together, and what producers call them."""

from typing import Annotated

import typer

from models.operator import Operator
from models.tenants import Tenant
from worker.cli import key_views, output, session
from worker.cli.asking import DryRun, Yes, agreed
from worker.cli.output import Json
from worker.settings import Settings

app = typer.Typer(
    name="tenants",
    no_args_is_help=True,
    callback=output.group,
    help="Tenants: accounts that are held together.",
)

TenantName = Annotated[str, typer.Argument(metavar="TENANT", help="A tenant's name or id.")]
AccountName = Annotated[
    str, typer.Argument(metavar="ACCOUNT", help="An account's e-mail address or id.")
]
Identity = Annotated[
    str, typer.Argument(metavar="SOURCE:VALUE", help="What a producer of events calls it.")
]
Reason = Annotated[str | None, typer.Option(metavar="TEXT", help="Why, for the audit.")]


@app.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What people call it.")],
    identity: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SOURCE:VALUE", help="What a producer of events calls it; may be repeated."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Add a tenant. Events that waited for it are applied at once."""
    settings = session.settings()
    known_as = [_named(settings, one, "--identity") for one in identity or ()]
    with session.operator(settings) as client:
        _show(client, client.tenants.create(name, known_as=known_as), json)


@app.command("list")
def list_tenants(
    held: Annotated[
        bool | None, typer.Option("--held/--not-held", help="Only those (not) stopped by a hold.")
    ] = None,
    limit: Annotated[
        int, typer.Option(metavar="N", min=1, max=100_000, help="At most so many.")
    ] = 1000,
    json: Json = False,
) -> None:
    """List tenants by name."""
    with session.operator() as client:
        found = client.tenants.listed(held=held, limit=limit)
    rows = [(one.name, one.members, _state(one), one.id) for one in found]
    headings = ("NAME", "ACCOUNTS", "STATE", "ID")
    output.answer(json, found, output.Table(headings, rows, empty="No tenants."))


@app.command()
def show(tenant: TenantName, json: Json = False) -> None:
    """Show one tenant, its names and what holds it."""
    with session.operator() as client:
        _show(client, client.tenants.get(tenant), json)


@app.command()
def link(tenant: TenantName, identity: Identity, json: Json = False) -> None:
    """Let a producer's id name a tenant from now on.

    Events that waited for that are applied at once. An issuer's own id (SSF) is written
    'https://issuer.example VALUE'.
    """
    settings = session.settings()
    source, value = _named(settings, identity, "SOURCE:VALUE")
    with session.operator(settings) as client:
        client.tenants.link(tenant, source, value)
        _show(client, client.tenants.get(tenant), json)


@app.command()
def unlink(
    tenant: TenantName,
    identity: Identity,
    yes: Yes = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Let a name mean this tenant no longer.

    Later events that go by it wait until another tenant has it. What holds the tenant stays. Asks
    first.
    """
    settings = session.settings()
    source, value = _named(settings, identity, "SOURCE:VALUE")
    with session.operator(settings) as client:
        found = client.tenants.get(tenant)
        plan = [f"Later events about {identity} would no longer reach {found.name}."]
        would = {"tenant": found.name, "unlink": {"issuer": source, "value": value}}
        if agreed("Unlink it?", plan, would, yes=yes, dry_run=dry_run, json=json):
            client.tenants.unlink(tenant, source, value)
            _show(client, client.tenants.get(tenant), json)


@app.command()
def join(tenant: TenantName, account: AccountName, json: Json = False) -> None:
    """Have an account be in a tenant, and in no other.

    Where the tenant is held, the account's keys stop at once.
    """
    with session.operator() as client:
        changed = client.tenants.assign(account, tenant)
        _tell_membership(client, account, changed, json)


@app.command()
def leave(
    account: AccountName, yes: Yes = False, dry_run: DryRun = False, json: Json = False
) -> None:
    """Have an account be in no tenant.

    Its keys are free of the tenant's holds at once, and later ones do not reach them. Asks first.
    """
    with session.operator() as client:
        found = client.account(account)
        plan = [
            f"{found.email} would be in no tenant any more; it is in {found.tenant or 'none'} now."
        ]
        would = {"account": found.email, "tenant": found.tenant}
        if agreed("Do it?", plan, would, yes=yes, dry_run=dry_run, json=json):
            _tell_membership(client, account, client.tenants.assign(account, None), json)


@app.command()
def disable(
    tenant: TenantName,
    reason: Reason = None,
    yes: Yes = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Stop all keys of all accounts of a tenant, until it is enabled again.

    Those of accounts that join it later too. The statuses of the keys follow in batches, as the
    worker gets to them.
    """
    with session.operator() as client:
        found = client.tenants.get(tenant)
        plan = [
            f"Disable {found.name} ({found.id}): accounts whose keys stop at once: {found.members}."
        ]
        would = {"action": "disable", "tenant": found}
        if agreed("Disable it?", plan, would, yes=yes, dry_run=dry_run, json=json):
            changed = client.tenants.disable(tenant, reason)
            done = "is disabled" if changed else "was disabled by an operator before"
            _tell_holds(client, found, changed, f"{found.name} {done}.", json)


@app.command()
def enable(
    tenant: TenantName,
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
    """Lift one hold of a tenant, and nothing else.

    It is that of `tenants disable`, unless another one is named. Holds of its accounts stay. Asks
    before it lifts a hold of another kind, such as `compromised`.
    """
    with session.operator() as client:
        found = client.tenants.get(tenant)
        plan = [f"The hold {source}/{kind} of {found.name} would be lifted; keys may work again."]
        would = {"tenant": found.name, "source": source, "kind": kind}
        doubtful = kind != "disabled" or dry_run
        if doubtful and not agreed("Lift it?", plan, would, yes=yes, dry_run=dry_run, json=json):
            return
        changed = client.tenants.enable(tenant, reason, source=source, kind=kind)
        done = "is no longer" if changed else "was not"
        first = f"{found.name} {done} held by {source}/{kind}."
        _tell_holds(client, found, changed, first, json)


def _named(settings: Settings, text: str, hint: str) -> tuple[str, str]:
    """Who calls a tenant so, and its id there."""
    if text.startswith("https://") and " " in text:
        issuer, _, value = text.partition(" ")
        return issuer, value
    source, colon, value = text.partition(":")
    if not colon or not value:
        raise typer.BadParameter("write SOURCE:VALUE, like github:21031067", param_hint=hint)
    if source not in settings.sources:
        known = ", ".join(settings.sources)
        raise typer.BadParameter(f"no source {source!r}; choose one of: {known}", param_hint=hint)
    return source, value


def _state(tenant: Tenant) -> str:
    return "held" if tenant.held else "active"


def _show(client: Operator, tenant: Tenant, json: bool) -> None:
    names, holds = client.tenants.known_as(tenant.id), client.tenants.holds_of(tenant.id)
    facts = output.facts(
        id=tenant.id,
        name=tenant.name,
        state=_state(tenant),
        accounts=tenant.members,
        created=tenant.created_at,
        known_as=[f"{one.issuer} {one.value}" for one in names],
    )
    document = {**output.plain(tenant), "known_as": names, "holds": holds}
    output.answer(json, document, facts, *key_views.hold_lines(holds, tenant.name))


def _tell_membership(client: Operator, account: str, changed: bool, json: bool) -> None:
    found = client.account(account)
    where = f"in tenant {found.tenant}" if found.tenant else "in no tenant"
    state = "; it is held" if found.held else ""
    document = {
        "id": found.id,
        "email": found.email,
        "tenant": found.tenant,
        "changed": changed,
        "held": found.held,
    }
    output.answer(json, document, f"{found.email} is {where}{state}.")


def _tell_holds(client: Operator, tenant: Tenant, changed: bool, done: str, json: bool) -> None:
    left = client.tenants.holds_of(tenant.id)
    document = {
        "id": tenant.id,
        "name": tenant.name,
        "changed": changed,
        "held": bool(left),
        "holds": left,
    }
    mends = [
        f"To lift it: keyturn tenants enable {tenant.name} --source {one.source} --kind {one.kind}"
        for one in left
    ]
    output.answer(json, document, done, *key_views.hold_lines(left, "It"), *mends)

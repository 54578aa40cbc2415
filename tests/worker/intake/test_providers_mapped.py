"""The shipped mappings: what each producer's events mean, and what they must never be taken for."""

from typing import Any

import pytest

from tests.worker.intake.messages import changed, event, fixture, told
from worker.intake.providers import PROVIDERS
from worker.intake.providers.mapping import shipped

ADA = "opaque:oid-42 email:ada@acme.example"
AUTH0 = "opaque:auth0|42 email:ada@example.com"
WORKOS = "opaque:directory_user_42 external_id:8931 email:ada@example.com"
FUSION = "opaque:fa-42 email:ada@example.com"

FIXTURE_MEANINGS = [
    ("entra", "entra-graph-audits",
     [f"disabled transition {ADA}", f"disabled state {ADA}", "none"]),
    ("entra", "entra-eventhub-enable", [f"enabled transition {ADA}"]),
    ("entra", "entra-change-notification", ["none hint opaque:oid-42"]),
    ("google-workspace", "google-workspace-page",
     ["disabled transition email:ada@acme.example", "none",
      "compromised transition email:bob@acme.example"]),
    ("google-workspace", "google-workspace-rename",
     ["identity_changed transition email:ada@acme.example"]),
    ("auth0", "auth0-stream-updated", [f"disabled state {AUTH0}"]),
    ("auth0", "auth0-log-blocked", [f"disabled transition {AUTH0}"]),
    ("workos", "workos-user-updated", [f"disabled transition {WORKOS}"]),
    ("workos", "workos-directory-deleted", ["none hint tenant:directory_42"]),
    ("workos", "workos-user-deleted",
     ["deleted transition opaque:directory_user_42 email:ada@example.com"]),
    ("clerk", "clerk-user-updated", ["disabled state opaque:user_42 email:ada@example.com"]),
    ("fusionauth", "fusionauth-user-delete", [f"deleted transition {FUSION}"]),
    ("fusionauth", "fusionauth-user-update", [f"disabled transition {FUSION}"]),
    ("zitadel", "zitadel-user-deactivated", ["disabled transition opaque:3130"]),
    ("wso2", "wso2-user-deleted", ["deleted transition opaque:ws-42 email:ada@example.com"]),
    ("onelogin", "onelogin-batch", ["disabled transition opaque:42", "none"]),
    ("github", "github-installation-unsuspend", ["enabled transition tenant:7001"]),
    ("github", "github-org-block", ["disabled transition opaque:42"]),
    ("gitlab", "gitlab-user-destroy", ["deleted transition opaque:42 email:ada@example.com"]),
    ("gitlab", "gitlab-failed-login", ["none"]),
    ("gitguardian", "gitguardian-incident", ["none hint"]),
    ("cognito", "cognito-eventbridge-disable", ["disabled transition opaque:0b7f3c1e-sub-42"]),
]  # fmt: skip


@pytest.mark.parametrize(("provider", "name", "meaning"), FIXTURE_MEANINGS)
def test_what_a_message_means(provider: str, name: str, meaning: list[str]) -> None:
    assert told(provider, fixture(name)) == meaning


def test_each_shipped_mapping_has_a_fixture_that_is_tested() -> None:
    assert set(shipped()) <= {provider for provider, _, _ in FIXTURE_MEANINGS} | {"okta"}


AUDIT = "value__0__"
NOTICE = "value__0__"
STATES: list[tuple[str, str, dict[str, Any], list[str]]] = [
    # Entra: failures, other targets, JSON inside of texts.
    ("entra", "entra-graph-audits", {AUDIT + "result": "failure"}, ["none"]),
    ("entra", "entra-graph-audits", {AUDIT + "targetResources__0__type": "ServicePrincipal"},
     ["missing_account"]),
    ("entra", "entra-graph-audits",
     {AUDIT + "targetResources__0__userPrincipalName": "a@x.example,b@x.example"},
     ["disabled transition opaque:oid-42"]),
    ("entra", "entra-graph-audits", {AUDIT + "activityDisplayName": "Restore user"},
     [f"none hint {ADA}"]),
    ("entra", "entra-graph-audits", {AUDIT + "activityDisplayName": "Hard Delete user"},
     [f"deleted transition {ADA}"]),
    ("entra", "entra-graph-audits",
     {AUDIT + "activityDisplayName": "Update user",
      AUDIT + "targetResources__0__modifiedProperties__0__newValue": "[true]"},
     [f"enabled state {ADA}"]),
    ("entra", "entra-graph-audits",
     {AUDIT + "activityDisplayName": "Update user",
      AUDIT + "targetResources__0__modifiedProperties__0__newValue": "not JSON"}, ["none"]),
    ("entra", "entra-graph-audits",
     {AUDIT + "activityDisplayName": "Update user",
      AUDIT + "targetResources__0__modifiedProperties": []}, ["none"]),
    ("entra", "entra-change-notification", {NOTICE + "changeType": "deleted"},
     ["none hint opaque:oid-42"]),
    ("entra", "entra-change-notification", {NOTICE + "resourceData": None},
     ["none hint opaque:oid-42"]),
    ("entra", "entra-change-notification",
     {NOTICE + "resource": "Groups/g", NOTICE + "resourceData": {"id": "g"}}, ["none"]),
    ("entra", "entra-change-notification",
     {NOTICE + "changeType": None, NOTICE + "lifecycleEvent": "missed",
      NOTICE + "resourceData": None, NOTICE + "resource": None}, ["none hint"]),
    # Google: the actor is not the account, and an address that is none is refused.
    ("google-workspace", "google-workspace-rename",
     {"events__0__name": "SUSPEND_USER", "events__0__parameters": []}, ["missing_account"]),
    ("google-workspace", "google-workspace-rename",
     {"events__0__name": "SUSPEND_USER", "events__0__parameters__0__value": "nobody"},
     ["bad_account"]),
    ("google-workspace", "google-workspace-rename", {"events__0__name": "UNDELETE_USER"},
     ["none hint email:ada@acme.example"]),
    ("google-workspace", "google-workspace-rename", {"events__0__name": "CREATE_USER"}, ["none"]),
    ("google-workspace", "google-workspace-rename",
     {"events": {"name": "DELETE_USER",
                 "parameters": [{"name": "USER_EMAIL", "value": "Ada@Acme.example"}]}},
     ["deleted transition email:ada@acme.example"]),
    # Auth0: `blocked` may be missing; the actor of sapi is not the account.
    ("auth0", "auth0-stream-updated", {"data__object__blocked": False}, [f"enabled state {AUTH0}"]),
    ("auth0", "auth0-stream-updated", {"data__object__blocked": None}, ["none"]),
    ("auth0", "auth0-stream-updated", {"data__object__blocked": "true"},
     [f"disabled state {AUTH0}"]),
    ("auth0", "auth0-stream-updated", {"type": "user.created"}, [f"disabled state {AUTH0}"]),
    ("auth0", "auth0-stream-updated",
     {"type": "com.auth0.user.created", "data__object__blocked": False}, ["none"]),
    ("auth0", "auth0-stream-updated", {"type": "com.auth0.user.deleted"},
     [f"deleted transition {AUTH0}"]),
    ("auth0", "auth0-log-blocked", {"data__details__response__body": {}},
     ["disabled transition opaque:auth0|42"]),
    ("auth0", "auth0-log-blocked", {"data__details__request__body": {"name": "Ada"}}, ["none"]),
    ("auth0", "auth0-log-blocked",
     {"data__description": "Delete a User", "data__details__response__body": None},
     ["deleted transition opaque:auth0|42"]),
    ("auth0", "auth0-log-blocked", {"data__type": "fapi"}, ["none"]),
    ("auth0", "auth0-log-blocked", {"data__type": "s"}, ["none"]),
    ("auth0", "auth0-log-blocked", {"data__type": "limit_wc"}, ["none"]),
    ("auth0", "auth0-log-blocked", {"data__type": "sdu"},
     ["deleted transition opaque:auth0|admin"]),
    # WorkOS: a report of the state, unless it says that the state has changed.
    ("workos", "workos-user-updated", {"data__previous_attributes": {"last_name": "X"}},
     [f"disabled state {WORKOS}"]),
    ("workos", "workos-user-updated", {"data__state": "suspended"},
     [f"disabled transition {WORKOS}"]),
    ("workos", "workos-user-updated",
     {"data__state": "active", "data__previous_attributes": {}}, [f"enabled state {WORKOS}"]),
    ("workos", "workos-user-updated", {"event": "dsync.user.created", "data__state": "active"},
     ["none"]),
    ("workos", "workos-user-updated", {"event": "dsync.group.user_removed"}, ["none"]),
    ("workos", "workos-user-updated", {"data__id": None, "data__email": None, "data__idp_id": None},
     ["missing_account"]),
    # Clerk: a lock is a pause.
    ("clerk", "clerk-user-updated", {"data__banned": False, "data__locked": True},
     ["enabled state opaque:user_42 email:ada@example.com"]),
    ("clerk", "clerk-user-updated", {"type": "session.created"}, ["none"]),
    ("clerk", "clerk-user-updated",
     {"data__email_addresses__0__verification__status": "unverified"},
     ["disabled state opaque:user_42"]),
    # FusionAuth: the type wins over the user carried along.
    ("fusionauth", "fusionauth-user-delete", {"event__type": "user.delete.complete"},
     [f"deleted transition {FUSION}"]),
    ("fusionauth", "fusionauth-user-delete",
     {"event__type": "user.deactivate", "event__user__active": True},
     [f"disabled transition {FUSION}"]),
    ("fusionauth", "fusionauth-user-delete",
     {"event__type": "user.reactivate", "event__user__active": False},
     [f"enabled transition {FUSION}"]),
    ("fusionauth", "fusionauth-user-update", {"event__original__active": False},
     [f"disabled state {FUSION}"]),
    ("fusionauth", "fusionauth-user-delete", {"event__type": "user.create"}, ["none"]),
    ("fusionauth", "fusionauth-user-delete", {"event__type": "user.login.success"}, ["none"]),
    # Zitadel: only users are accounts, and an organisation is a tenant.
    ("zitadel", "zitadel-user-deactivated", {"event_type": "user.removed"},
     ["deleted transition opaque:3130"]),
    ("zitadel", "zitadel-user-deactivated", {"event_type": "user.unlocked"},
     ["enabled transition opaque:3130"]),
    ("zitadel", "zitadel-user-deactivated", {"aggregateType": "project"}, ["missing_account"]),
    ("zitadel", "zitadel-user-deactivated",
     {"aggregateType": "org", "event_type": "org.deactivated"},
     ["disabled transition tenant:3130"]),
    ("zitadel", "zitadel-user-deactivated", {"event_type": "user.human.added"}, ["none"]),
    # OneLogin: numbers or their digits; the actor is another member.
    ("onelogin", "onelogin-batch", {"0__event_type_id": "551"},
     ["disabled transition opaque:42", "none"]),
    ("onelogin", "onelogin-batch", {"0__user_id": None}, ["missing_account", "none"]),
    ("onelogin", "onelogin-batch", {"0__event_timestamp": "yesterday"}, ["bad_timestamp", "none"]),
    # GitHub: what is no installation and no block is none; the sender is never the account.
    ("github", "github-installation-unsuspend", {"action": "deleted"}, ["none hint tenant:7001"]),
    ("github", "github-installation-unsuspend", {"action": "created"}, ["none"]),
    ("github", "github-org-block", {"action": "unblocked"}, ["enabled transition opaque:42"]),
    ("github", "github-org-block", {"blocked_user": {"login": "ada"}}, ["missing_account"]),
    # GitLab.
    ("gitlab", "gitlab-user-destroy", {"event_name": "user_remove_from_team"}, ["none"]),
    ("gitlab", "gitlab-user-destroy", {"event_name": "user_rename"}, ["none"]),
    ("gitlab", "gitlab-user-destroy", {"event_name": None, "object_kind": "merge_request"},
     ["none"]),
    ("gitlab", "gitlab-user-destroy", {"user_id": True, "email": None}, ["wrong_type"]),
    # GitGuardian.
    ("gitguardian", "gitguardian-incident", {"action": "incident_resolved"}, ["none"]),
    # Cognito: refused calls, other services, and names that CloudTrail shows.
    ("cognito", "cognito-eventbridge-disable", {"detail__errorCode": "AccessDenied"}, ["none"]),
    ("cognito", "cognito-eventbridge-disable", {"detail__eventSource": "iam.amazonaws.com"},
     ["none"]),
    ("cognito", "cognito-eventbridge-disable", {"detail__eventName": "AdminDeleteUser"},
     ["deleted transition opaque:0b7f3c1e-sub-42"]),
    ("cognito", "cognito-eventbridge-disable", {"detail__eventName": "AdminUserGlobalSignOut"},
     ["none"]),
    ("cognito", "cognito-eventbridge-disable", {"detail__additionalEventData": None},
     ["missing_account"]),
    ("cognito", "cognito-eventbridge-disable",
     {"detail__additionalEventData": None, "detail__requestParameters__username": "a@b.example"},
     ["disabled transition opaque:a@b.example email:a@b.example"]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("provider", "name", "places", "meaning"),
    STATES,
    ids=[f"{provider}-{number}" for number, (provider, *_) in enumerate(STATES)],
)
def test_a_changed_message(
    provider: str, name: str, places: dict[str, Any], meaning: list[str]
) -> None:
    assert told(provider, changed(name, **places))[: len(meaning)] == meaning


@pytest.mark.parametrize(
    ("provider", "name", "id", "time", "sequence"),
    [
        ("entra", "entra-graph-audits", "Directory_1", "2026-11-20T08:10:00.123456+00:00", None),
        ("entra", "entra-change-notification", None, None, None),
        ("google-workspace", "google-workspace-page",
         "C01/admin/2026-11-20T08:20:00.123Z/-901/SUSPEND_USER/ada@acme.example",
         "2026-11-20T08:20:00.123000+00:00", None),
        ("auth0", "auth0-stream-updated", "evt_1", "2026-11-20T08:30:00+00:00", None),
        ("auth0", "auth0-log-blocked", "900200001", "2026-11-20T08:31:00+00:00", None),
        ("workos", "workos-user-updated", "event_1", "2026-11-20T08:40:00+00:00", None),
        ("clerk", "clerk-user-updated", None, "2026-11-20T08:15:00.123000+00:00", None),
        ("fusionauth", "fusionauth-user-delete", "fa-1", "2026-11-20T08:15:00.123000+00:00", None),
        ("zitadel", "zitadel-user-deactivated", "3128/3130/17",
         "2026-11-20T08:22:43.262665+00:00", 17),
        ("wso2", "wso2-user-deleted", "ws-1", "2026-11-20T08:15:00.123000+00:00", None),
        ("onelogin", "onelogin-batch", "ol-1", "2026-11-20T08:50:00+00:00", None),
        ("github", "github-org-block", None, None, None),
        ("gitlab", "gitlab-user-destroy", None, None, None),
        ("gitguardian", "gitguardian-incident",
         "31542/incident_triggered/2026-11-20T09:00:00.930965Z",
         "2026-11-20T09:00:00.930965+00:00", None),
        ("cognito", "cognito-eventbridge-disable", "ct-1", "2026-11-20T09:10:00+00:00", None),
    ],
)  # fmt: skip
def test_id_time_and_order(
    provider: str, name: str, id: str | None, time: str | None, sequence: int | None
) -> None:
    found = event(provider, fixture(name))
    moment = found.occurred_at and found.occurred_at.isoformat()
    assert (found.event_id, moment, found.sequence) == (id, time, sequence)


def test_ids_that_come_as_headers() -> None:
    assert event("clerk", fixture("clerk-user-updated"), svix_id="msg_1").event_id == "msg_1"
    delivered = event("github", fixture("github-org-block"), X_GitHub_Delivery="d-1")
    assert delivered.event_id == "d-1"
    hook = event("gitlab", fixture("gitlab-user-destroy"), idempotency_key="k-1")
    assert hook.event_id == "k-1"


def test_githubs_event_is_in_its_header() -> None:
    message = {"action": "suspend", "installation": {"id": 1, "account": {"id": 7}}}
    assert told("github", message, x_github_event="installation") == [
        "disabled transition tenant:7"
    ]
    assert told("github", message, x_github_event="check_run") == ["none"]
    assert told("github", {"action": "suspend"}) == ["missing_type"]


def test_a_message_cannot_forge_its_headers() -> None:
    forged = {**fixture("clerk-user-updated"), "_headers": {"svix-id": "forged"}}
    assert event("clerk", forged).event_id is None


def test_both_names_of_a_renamed_user() -> None:
    found = event("google-workspace", fixture("google-workspace-rename"))
    assert found.new_subject is not None
    assert found.new_subject.value == "ada.king@acme.example"


def test_the_actor_is_for_information() -> None:
    actors = {
        "entra-graph-audits": "root@acme.example",
        "google-workspace-page": "root@acme.example",
        "auth0-log-blocked": "auth0|admin",
        "zitadel-user-deactivated": "9999",
        "onelogin-batch": "Root",
        "github-org-block": "root",
    }
    for provider, name, _ in FIXTURE_MEANINGS:
        if name in actors:
            assert event(provider, fixture(name)).actor == actors[name]


@pytest.mark.parametrize("provider", sorted(shipped()))
def test_a_page_of_messages_is_read_one_by_one(provider: str) -> None:
    _, name, _ = next(one for one in [*FIXTURE_MEANINGS, OKTA] if one[0] == provider)
    alone = told(provider, fixture(name))
    page = [fixture(name), 7, fixture(name)]
    if isinstance(fixture(name), list):
        page = [*fixture(name), 7, *fixture(name)]
    if provider == "github":
        assert told(provider, page) == ["missing_digest", "not_an_object", "missing_digest"]
        return
    assert told(provider, page) == [*alone, "not_an_object", *alone]


OKTA: tuple[str, str, list[str]] = ("okta", "okta-log-unsuspend", [])


def test_every_provider_is_registered() -> None:
    named = (
        "native ssf scim cloudevents okta keycloak entra google-workspace auth0 workos clerk "
        "fusionauth zitadel wso2 onelogin github gitlab gitguardian cognito"
    )
    assert sorted(PROVIDERS) == sorted(named.split())

"""Sinks from the settings: what is refused at the start, and how it is mended."""

import sys
from pathlib import Path

import pytest

import worker.embedded
from models.errors import Misconfigured
from worker.settings import load_settings
from worker.sink_names import checked
from worker.sinks import AwsSecretsManager, File, Program, Sealed, Vault, make_sinks


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(worker.embedded, "running", lambda data_dir: None)
    return tmp_path


def fault(text: str) -> str:
    """The one line with which a file is refused."""
    Path("keyturn.toml").write_text(text)
    with pytest.raises(Misconfigured) as refusal:
        load_settings()
    _, line = str(refusal.value).splitlines()
    return line.strip()


ALL = """
[sinks.owners]
kind = "sealed"
send = "both"
[sinks.mount]
kind = "file"
directory = "{place}/keys"
name = "{{account}}.{{key_name}}"
[sinks.deploy]
kind = "exec"
command = ["{program}", "--now"]
timeout = "5s"
[sinks.store]
kind = "vault"
address = "https://vault.example.com:8200"
token_file = "/run/vault/token"
path = "keys/{{family_id}}"
[sinks.cloud]
kind = "aws-secretsmanager"
region = "eu-central-1"
create = true
[rotation_policies.default]
sink = "store"
"""


def test_each_kind_can_be_set_and_made(place: Path) -> None:
    Path("keyturn.toml").write_text(ALL.format(place=place, program=sys.executable))
    settings = load_settings()
    made = make_sinks(settings.sinks)
    assert {name: type(sink) for name, sink in made.items()} == {
        "owners": Sealed,
        "mount": File,
        "deploy": Program,
        "store": Vault,
        "cloud": AwsSecretsManager,
    }
    assert settings.rotation_policies["default"].sink == "store"


def test_without_tables_there_is_none() -> None:
    assert make_sinks(load_settings().sinks) == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[rotation_policies.x]\nsink = "y"', "x names the sink 'y', which is none of claim: add"),
        ('[sinks.claim]\nkind = "sealed"', "[sinks.claim]: the name is Keyturn's own"),
        ('[sinks.undecided]\nkind = "sealed"', "[sinks.undecided]: the name is Keyturn's own"),
        ('[sinks.A]\nkind = "sealed"', "[sinks.A]: not a usable name"),
        ("[sinks.a]\n", "[sinks.a] kind: write one of sealed, file, exec, vault, aws-secretsm"),
        ('[sinks.a]\nkind = "fax"', "[sinks.a] kind: write one of sealed, file"),
        ('[sinks.a]\nkind = "sealed"\nsend = "fax"', "[sinks.a] send: input should be 'mail'"),
        ('[sinks.a]\nkind = "file"', "[sinks.a] directory: is missing; add it"),
        ('[sinks.a]\nkind = "file"\ndirectory = "x"', "directory: write the whole path, from / on"),
        ('[sinks.a]\nkind = "file"\ndirectroy = "/x"\ndirectory = "/x"', "mean directory?"),
        ('[sinks.a]\nkind = "exec"\ncommand = []', "[sinks.a] command: "),
        ('[sinks.a]\nkind = "exec"\ncommand = ["sh", "-c"]', "command: write the whole path"),
        ('[sinks.a]\nkind = "exec"\ncommand = ["/a"]\ntimeout = "2m"', "timeout: too long"),
        (
            'lease = "20s"\n[sinks.a]\nkind = "exec"\ncommand = ["/a"]\ntimeout = "11s"',
            "sinks: a: timeout must be at most half of lease (20s)",
        ),
        (
            '[sinks.a]\nkind = "vault"\naddress = "http://v.example.com"\ntoken_file = "/t"',
            "address: the new key would travel in clear: write https://",
        ),
        (
            '[sinks.a]\nkind = "vault"\naddress = "https://u:p@v.example.com"\ntoken_file = "/t"',
            "address: write the scheme, host and port alone",
        ),
        (
            '[sinks.a]\nkind = "vault"\naddress = "https://v"\ntoken_file = "/t"\nfield = "key_id"',
            "field: the secret has a field of this name already",
        ),
        ('[sinks.a]\nkind = "aws-secretsmanager"\nregion = "EU!"', "[sinks.a] region: string"),
    ],
)
def test_a_wrong_table_says_where_and_why(text: str, said: str) -> None:
    assert said in fault(text)


def test_a_role_whose_policy_is_not_there() -> None:
    text = '[roles.a]\npermissions = ["x"]\nrotation_policy = "fast"'
    assert "role a names the rotation policy 'fast', which is none of default" in fault(text)


@pytest.mark.parametrize(
    ("kind", "package", "extra"),
    [
        ('kind = "vault"\naddress = "https://v"\ntoken_file = "/t"', "hvac", "vault"),
        ('kind = "aws-secretsmanager"\nregion = "eu-1"', "boto3", "aws-secretsmanager"),
    ],
)
def test_without_its_package_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, kind: str, package: str, extra: str
) -> None:
    Path("keyturn.toml").write_text(f"[sinks.a]\n{kind}")
    settings = load_settings()

    monkeypatch.delitem(sys.modules, package, raising=False)
    monkeypatch.setattr(sys, "meta_path", [])
    with pytest.raises(Misconfigured) as refusal:
        make_sinks(settings.sinks)
    monkeypatch.undo()
    assert str(refusal.value) == (
        f"a sink of kind {extra} needs the package {package}: install the extras, by"
        f" `make install EXTRAS=1` or `pip install 'keyturn-worker[{extra}]'`"
    )


@pytest.mark.parametrize(
    ("template", "folders", "said"),
    [
        ("{family_id", False, "a brace is not closed"),
        ("{secret}", False, "braces may hold these alone"),
        ("{key_name.__class__}", False, "braces may hold these alone"),
        ("{key_name!r}", False, "braces may hold these alone"),
        ("{}", False, "braces may hold these alone"),
        ("a/{key_id}", False, "and no /"),
        ("a b", True, "write letters"),
        ("../{key_id}", True, "empty or made of dots"),
        ("a//b", True, "empty or made of dots"),
        ("/a", True, "empty or made of dots"),
        ("a/", True, "empty or made of dots"),
        ("", True, "empty or made of dots"),
        (".{key_id}", False, "begins with a dot"),
        ("x" * 201, True, "too long"),
    ],
)
def test_a_template_that_names_nothing_usable(template: str, folders: bool, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        checked(template, folders=folders)


def test_templates_that_do() -> None:
    for template in ("{family_id}", "k-{account}.{key_name}", "a.b"):
        assert checked(template, folders=False) == template
    assert checked("team/{account_id}/{key_id}", folders=True) == "team/{account_id}/{key_id}"

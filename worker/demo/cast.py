"""Who takes part: a dozen accounts, some of them known to Okta or Keycloak by an id of theirs."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Person:
    """An owner of one key. `identity` is SOURCE:VALUE, as `keyturn accounts create` takes it."""

    name: str
    identity: str | None = None

    @property
    def email(self) -> str:
        return f"{self.name}@demo.example"


ADA: Final = Person("ada")
BEN: Final = Person("ben", "okta:00uDEMOben0000000000")
CLEO: Final = Person("cleo", "okta:00uDEMOcleo000000000")
DAN: Final = Person("dan", "okta:00uDEMOdan0000000000")
EVE: Final = Person("eve", "keycloak:4d0f6f0e-51f2-4a43-9e1d-000000000e0e")
FINN: Final = Person("finn", "keycloak:4d0f6f0e-51f2-4a43-9e1d-000000000f0f")
GITA: Final = Person("gita", "keycloak:4d0f6f0e-51f2-4a43-9e1d-000000000a0a")
HUGO: Final = Person("hugo", "okta:00uDEMOhugo000000000")
IRIS: Final = Person("iris")
JON: Final = Person("jon")
KIRA: Final = Person("kira", "okta:00uDEMOkira000000000")
LENA: Final = Person("lena")

EVERYBODY: Final = (IRIS, ADA, BEN, CLEO, DAN, EVE, FINN, GITA, HUGO, JON, KIRA, LENA)
"""Iris comes first: her key lives for one minute, and everything else happens meanwhile."""

LATER: Final = KIRA
"""Whose account is created only after an event about it has come."""

"""Bearer tokens: who may ask. Only their hashes are known here, and they come from outside."""

import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from stages.base import ConfigError

VARIABLE = "SIEVE_TOKENS"
PREFIX = "sieve_"  # scanners for leaked secrets look for such a mark
ENTRY = re.compile(r"([A-Za-z0-9._-]{1,64}):([0-9a-f]{64})(?::(\d{4}-\d{2}-\d{2}))?")


@dataclass(frozen=True)
class Token:
    """What is known of a token.

    Attributes
    ----------
    name : str
        Of its holder, for the log and the rate limit.
    sha256 : str
        Of the token. It holds 256 random bits, so that a slow hash would guard nothing more.
    expires : Timestamp or None
        UTC; from then on it opens nothing.
    """

    name: str
    sha256: str
    expires: pd.Timestamp | None = None


class Tokens:
    """The tokens that are let in.

    Parameters
    ----------
    known : sequence of Token
    """

    def __init__(self, known: list[Token]) -> None:
        self.known = known

    def __len__(self) -> int:
        return len(self.known)

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> "Tokens":
        """Read ``SIEVE_TOKENS``: ``NAME:SHA256`` or ``NAME:SHA256:2027-01-31``, by commas.

        Raises
        ------
        ConfigError
            SV-F36 for anything else; the text itself is not shown.
        """
        words = environment.get(VARIABLE, "").replace(",", " ").split()
        return cls([_token(number, word) for number, word in enumerate(words, start=1)])

    def holder(self, presented: bytes, now: pd.Timestamp) -> str | None:
        """Name of the holder of a token; None if there is none, or it has expired.

        All hashes are compared in constant time, whichever fits.
        """
        digest = hashlib.sha256(presented).hexdigest()
        found = None
        for token in self.known:
            same = hmac.compare_digest(digest, token.sha256)
            if same and (token.expires is None or now < token.expires):
                found = token.name
        return found


def new_token(name: str) -> tuple[str, str]:
    """A new token, and the entry of ``SIEVE_TOKENS`` that lets it in."""
    text = PREFIX + secrets.token_urlsafe(32)
    entry = f"{name}:{hashlib.sha256(text.encode()).hexdigest()}"
    _token(1, entry)
    return text, entry


def _token(number: int, word: str) -> Token:
    found = ENTRY.fullmatch(word)
    expires = pd.NaT if found is None else pd.to_datetime(found[3] or "2100-01-01", errors="coerce")
    if found is None or expires is pd.NaT:
        raise ConfigError(
            f"entry {number} of {VARIABLE} is no NAME:SHA256 or NAME:SHA256:YYYY-MM-DD",
            code="SV-F36",
            where="the environment",
            why="the token itself does not belong there, only its hash",
            cure="python -m pipeline.serve new_token=NAME prints a token and its entry",
        )
    until = pd.Timestamp(found[3], tz="UTC") if found[3] else None
    return Token(found[1], found[2], until)

"""Weights from the Hugging Face hub or its cache on disk; who has no access is told so once, and how to get it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from momkd.errors import ExtractError
from momkd.extract.faults import fault

Made = TypeVar("Made")
AskToken = Callable[[str], str]
"""Shows a message and returns the token that the user types; empty if none."""


def from_hub(encoder: str, repository: str, make: Callable[[], Made], ask_token: AskToken | None) -> Made:
    """Call ``make``, which loads ``encoder`` from ``repository`` or the cache.

    Where the hub refuses, the user is asked for a token once, if ``ask_token`` is given; the token is stored as
    `hf auth login` would, so that nobody is asked again. Raises ExtractError saying what gives access, and what works
    without a network.
    """
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled
    from huggingface_hub.errors import RepositoryNotFoundError as Refused  # also of gated repositories

    try:
        try:
            return make()
        except Refused as error:
            refusal = _refused(encoder, repository)
            if ask_token is None or not _store(ask_token(str(refusal)), encoder):
                raise refusal from error
        try:
            return make()
        except Refused as error:
            raise _refused(encoder, repository) from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, HfHubHTTPError, ConnectionError) as error:
        found = f"its weights are not in the cache, and the hub cannot be reached ({type(error).__name__})"
        mend = (
            f"copy the weights of {_page(repository)} here and give --checkpoint FILE, or fill the cache (HF_HOME) "
            "on a machine with a network"
        )
        raise fault(f"encoder {encoder}", found, mend=mend) from error


def _refused(encoder: str, repository: str) -> ExtractError:
    found = f"the hub gives no access to its weights ({repository}), which are gated"
    mend = (
        f"ask for access at {_page(repository)}, then set HF_TOKEN or run `hf auth login` once; "
        "or download the weights there and give --checkpoint FILE"
    )
    return fault(f"encoder {encoder}", found, mend=mend)


def _store(token: str, encoder: str) -> bool:
    """Store a token; False where none was given."""
    from huggingface_hub import login
    from huggingface_hub.errors import HfHubHTTPError

    if not token.strip():
        return False
    try:
        login(token=token.strip(), add_to_git_credential=False)
    except (HfHubHTTPError, ValueError) as error:
        raise fault(
            f"encoder {encoder}", "the hub does not know this token", mend="make one at hf.co/settings/tokens"
        ) from error
    return True


def _page(repository: str) -> str:
    return f"https://huggingface.co/{repository}"

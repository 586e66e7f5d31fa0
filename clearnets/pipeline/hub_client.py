"""Use the Hugging Face hub's client quietly, with errors of one line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from clearnets import UserError

_ID = re.compile(r"(?!\.)[\w.-]+(?:/[\w.-]+)?")


def is_id(name: str) -> bool:
    """Return whether `name` can be an id on the hub."""
    return bool(_ID.fullmatch(name))


@contextmanager
def one_line_errors(name: str, revision: str | None, *, at: str, what: str) -> Iterator[None]:
    """Turn the client's errors about a hub id, or the network, into errors of one line.

    Args:
        name, revision: the repository that is read.
        at: the parameter that names it.
        what: what it should be, such as "a model".

    Raises:
        UserError: whatever the client raises, with its cure.
    """
    from huggingface_hub import errors

    where = f"{name} at {revision}" if revision else name
    try:
        yield
    except (errors.RepositoryNotFoundError, errors.HFValidationError):
        # A gated repository is one that cannot be read, too.
        raise UserError(
            f"{at} {name!r}: neither a folder nor {what} on the hub that you can read"
        ) from None
    except errors.RevisionNotFoundError:
        raise UserError(f"{name} has no revision {revision!r} on the hub") from None
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled):
        raise UserError(
            f"{where} is not in the hub's cache and the hub is out of reach; set {at} to a "
            f"folder, e.g. one that `hf download {name}` made elsewhere"
        ) from None
    except errors.HfHubHTTPError as error:
        raise UserError(f"{where}: the hub says {' '.join(str(error).split())[:160]}") from None


@contextmanager
def detect_offline() -> Iterator[bool]:
    """Yield whether the hub is out of reach: pass it to the client as `local_files_only`.

    The client itself would retry for half a minute, with a warning for each try, and has no option
    against that. Its warnings are left out in the block; the caller reports errors.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield constants.HF_HUB_OFFLINE or not _answers(constants.ENDPOINT)
    finally:
        logging.set_verbosity(verbosity)


def network_errors() -> tuple[type[BaseException], ...]:
    """Return what the client raises if the network or the hub fails.

    That is `OSError` and the base of the errors of its HTTP library, which differs by release.
    """
    from huggingface_hub.errors import HfHubHTTPError

    return HfHubHTTPError.__bases__


@cache
def _answers(endpoint: str) -> bool:
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    try:
        get_session().head(endpoint, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    except Exception:  # Of the client's HTTP library, which differs by release.
        return False
    return True

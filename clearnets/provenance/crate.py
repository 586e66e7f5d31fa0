"""Describe a deposit in RO-Crate's vocabulary, so that archives and search engines can read it.

The crate follows RO-Crate 1.1 (https://w3id.org/ro/crate/1.1) and its profile Process Run Crate
(https://w3id.org/ro/wfrun/process/0.5): every stage is an action with its inputs and its outputs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from clearnets.provenance.lockfile import Entry, Step

NAME = "ro-crate-metadata.json"
_CRATE = "https://w3id.org/ro/crate/1.1"
_PROFILE = "https://w3id.org/ro/wfrun/process/0.5"
_LICENCE = "LICENSE"
_FIXED = (
    {"@id": _PROFILE, "@type": "CreativeWork", "name": "Process Run Crate"},
    {
        "@id": "files/",
        "@type": "Dataset",
        "name": "The artifacts under their hashes, as DVC lays out a remote",
    },
)


def metadata(
    citation: Mapping[str, Any],
    steps: Sequence[Step],
    *,
    experiment: str,
    commit: str,
    date: str,
    source: str,
    files: Mapping[str, str],
) -> dict[str, Any]:
    """Return the content of NAME.

    Args:
        citation: of CITATION.cff.
        steps: of the recorded run.
        experiment, commit, date: of the run; the date as ISO 8601 has it.
        source: the file of the deposit that holds the source.
        files: other files of the deposit, with what each is.
    """
    authors = [author["name"] for author in citation["authors"]]
    actions = [_action(step, source) for step in steps]
    root = {
        **_about(citation),
        "name": f"{citation['title']}: artifacts of the experiment {experiment}",
        "datePublished": date,
        "author": _refer(f"#{name}" for name in authors),
        "hasPart": _refer((source, *files, "files/")),
        "mentions": _refer(action["@id"] for action in actions),
    }
    descriptor = {
        "@id": NAME,
        "@type": "CreativeWork",
        "about": {"@id": "./"},
        "conformsTo": {"@id": _CRATE},
    }
    code = {
        "@id": source,
        "@type": ["File", "SoftwareSourceCode"],
        "name": f"The repository with its history, at commit {commit}",
        "version": commit,
        "programmingLanguage": "Python",
        "license": {"@id": _LICENCE},
    }
    return {
        "@context": f"{_CRATE}/context",
        "@graph": [
            *(descriptor, root, code),
            *_FIXED,
            *({"@id": f"#{name}", "@type": "Organization", "name": name} for name in authors),
            *({"@id": name, "@type": "File", "name": what} for name, what in files.items()),
            *_artifacts(steps),
            *actions,
        ],
    }


def _about(citation: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the citation says of the whole."""
    return {
        "@id": "./",
        "@type": "Dataset",
        "description": " ".join(citation["abstract"].split()),
        "license": {"@id": _LICENCE},
        "version": citation["version"],
        "keywords": citation["keywords"],
        "conformsTo": {"@id": _PROFILE},
    }


def _refer(ids: Iterable[str]) -> list[dict[str, str]]:
    return [{"@id": identity} for identity in ids]


def _action(step: Step, source: str) -> dict[str, Any]:
    return {
        "@id": f"#stage/{step.name}",
        "@type": "CreateAction",
        "name": step.name,
        "description": step.command,
        "instrument": {"@id": source},
        "object": _refer(_identity(read) for read in step.reads),
        "result": _refer(_identity(made) for made in step.writes),
    }


def _artifacts(steps: Sequence[Step]) -> list[dict[str, Any]]:
    """Return an entity for each content of each file and folder that a stage read or wrote."""
    found = {_identity(entry): entry for step in steps for entry in (*step.reads, *step.writes)}
    return [
        {
            "@id": identity,
            "@type": "Dataset" if entry.is_folder else "File",
            "name": entry.path,
            "identifier": f"md5:{entry.md5}",
            "contentSize": str(entry.size),
        }
        for identity, entry in found.items()
    ]


def _identity(entry: Entry) -> str:
    return f"#{entry.path}@{entry.md5[:12]}"

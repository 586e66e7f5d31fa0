"""The file layout of delphi's runs: explanations and scores are written to it and read from it.

A run of delphi leaves, in a folder:

| file | content |
|---|---|
| explanations/MODULE_latentN.txt | the explanation, a JSON string |
| scores/detection/MODULE_latentN.txt, scores/fuzz/... | a JSON list with an object per example |
| scores/intruder/..., scores/surprisal/..., scores/simulation/... | those scorers' own lists |
| log/hookpoint_firing_counts.pt | by module, how often each latent was active |
| run_config.json | its settings |

An example of detection and fuzzing has the tokens' texts, activations, distance (the quantile of an
active one, 0 the strongest), whether the latent is active, and the judge's prediction, probability
and correct; the last three are null where the answer is missing. delphi's `log.result_analysis`
reads only such lists: one of another scorer in `scores/` makes it fail, so none is written. What it
calls `failed_count` is always 0; a missing answer is a null here and counted by our tables.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clearnets import UserError
from clearnets.autointerp.llm.answers import Answer, tally
from clearnets.autointerp.ranking import area
from clearnets.pipeline.artifacts import write_bytes

EXPLANATIONS, SCORES = "explanations", "scores"
RUN_CONFIG = "run_config.json"
FIRING_COUNTS = Path("log", "hookpoint_firing_counts.pt")
# delphi's name of a scorer's folder, and ours.
FOLDERS = {
    "detection": "detection",
    "fuzz": "fuzzing",
    "intruder": "intruder",
    "simulation": "simulation",
    "surprisal": "surprisal",
}
FOLDER_OF = {scorer: folder for folder, scorer in FOLDERS.items()}
_FILE = re.compile(r"(?P<module>.+)_latent(?P<latent>\d+)\.txt")
QUANTILES = 10


@dataclass(frozen=True)
class Example:
    """One item of detection or fuzzing, judged.

    Attributes:
        strings: the texts of its tokens.
        act_L: the latent's activations.
        activating: whether the answer should be yes.
        prediction, probability: the answer; None where it is missing.
        distance: an active window's quantile, 0 the strongest; of others 0.
    """

    strings: Sequence[str]
    act_L: np.ndarray
    activating: bool
    prediction: bool | None
    probability: float | None
    distance: int

    def record(self) -> dict[str, Any]:
        """Return the item as delphi writes its `ClassifierOutput`."""
        right = None if self.prediction is None else self.prediction == self.activating
        return {
            "str_tokens": list(self.strings),
            "activations": [float(value) for value in self.act_L],
            "distance": self.distance,
            "activating": self.activating,
            "prediction": self.prediction,
            "probability": self.probability,
            "correct": right,
        }


def quantiles(peak_W: np.ndarray) -> np.ndarray:
    """Return each active window's tenth by strength, 0 the strongest; 0 for other windows."""
    strongest_first = np.argsort(-peak_W, kind="stable")
    active = int((peak_W > 0).sum())
    quantile_W = np.zeros(len(peak_W), dtype=np.int64)
    quantile_W[strongest_first[:active]] = QUANTILES * np.arange(active) // max(active, 1)
    return quantile_W


def name_of(module: str, latent: int) -> str:
    """Return the name of a latent's file."""
    return f"{module}_latent{latent}.txt"


def write_explanation(folder: Path, module: str, latent: int, explanation: str) -> None:
    """Write one latent's explanation."""
    _write(folder / EXPLANATIONS / name_of(module, latent), explanation)


def write_scores(
    folder: Path, scorer: str, module: str, latent: int, examples: Sequence[Example]
) -> None:
    """Write the answers of `scorer` (detection, fuzzing) about one latent."""
    path = folder / SCORES / FOLDER_OF[scorer] / name_of(module, latent)
    _write(path, [example.record() for example in examples])


def write_settings(
    folder: Path, modules: Sequence[str], scorers: Sequence[str], min_examples: int
) -> None:
    """Write those settings of a run that delphi's result analysis reads."""
    values = {
        "hookpoints": list(modules),
        "scorers": [FOLDER_OF[scorer] for scorer in scorers],
        "constructor_cfg": {"min_examples": min_examples},
    }
    _write(folder / RUN_CONFIG, values)


def write_firing_counts(folder: Path, counts: Mapping[str, np.ndarray]) -> None:
    """Write, by module, in how many tokens each latent is active. A file of torch tensors, as
    delphi has it; it is read with `weights_only=True`."""
    import torch

    path = folder / FIRING_COUNTS
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {module: torch.from_numpy(count_M) for module, count_M in counts.items()}
    torch.save(tensors, path)


def _write(path: Path, value: Any) -> None:
    write_bytes(path, json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())


@dataclass(frozen=True)
class Found:
    """One latent of a run of delphi.

    Attributes:
        explanation: None where the run has none.
        scores: by scorer, counts as in `judged.jsonl` (see `clearnets.autointerp.records`).
        probabilities: by scorer, those given to positives and to negatives.
    """

    module: str
    latent: int
    explanation: str | None
    scores: Mapping[str, Mapping[str, Any]]
    probabilities: Mapping[str, tuple[list[float], list[float]]]


def read(folder: Path) -> list[Found]:
    """Return the latents of a run of delphi, by module in the order of its numbers, then by latent.

    Raises:
        UserError: there are no explanations and no scores, or a file is not what delphi writes.
    """
    explanations = {key: _explanation(path) for key, path in _files(folder / EXPLANATIONS)}
    scores: dict[tuple[str, int], dict[str, Any]] = {}
    for name, scorer in FOLDERS.items():
        for key, path in _files(folder / SCORES / name):
            scores.setdefault(key, {})[scorer] = _scores(scorer, path)
    if not explanations and not scores:
        raise UserError(
            f"{folder} holds no results of delphi; name a folder with `explanations` and `scores`"
        )
    return [
        Found(
            module,
            latent,
            explanations.get((module, latent)),
            {name: counts for name, (counts, _) in found.items()},
            {name: given for name, (_, given) in found.items() if given != ([], [])},
        )
        for module, latent in sorted({*explanations, *scores}, key=_natural)
        for found in [scores.get((module, latent), {})]
    ]


def _natural(key: tuple[str, int]) -> tuple[Any, ...]:
    """Return a key that sorts layers.10 after layers.9."""
    parts = re.split(r"(\d+)", key[0])
    return ([(int(p), "") if p.isdecimal() else (-1, p) for p in parts], key[1])


def _files(folder: Path) -> Iterator[tuple[tuple[str, int], Path]]:
    for path in sorted(folder.glob("*.txt")) if folder.is_dir() else ():
        if match := _FILE.fullmatch(path.name):
            # delphi writes a slash in a module's name as two hyphens.
            yield (match["module"].replace("--", "/"), int(match["latent"])), path


def _explanation(path: Path) -> str:
    text = _load(path)
    if not isinstance(text, str):
        raise UserError(f"{path}: expected delphi's explanation, a JSON string")
    return text


def _load(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (ValueError, UnicodeDecodeError):
        raise UserError(f"{path} is not JSON; delphi may have been stopped as it wrote") from None


def _scores(scorer: str, path: Path) -> tuple[dict[str, Any], tuple[list[float], list[float]]]:
    """Return the counts, and the probabilities of positives and negatives."""
    results = _load(path)
    try:
        match scorer:
            case "intruder":
                return _intruders(results), ([], [])
            case "simulation":
                return _simulation(results), ([], [])
            case "surprisal":
                return _surprisal(results), ([], [])
        return _classified(results)
    except (KeyError, TypeError, IndexError, ValueError, AttributeError) as error:
        what = f"{type(error).__name__}: {error}"
        raise UserError(f"{path}: not what delphi's {scorer} writes ({what})") from None


def _classified(results: Any) -> tuple[dict[str, Any], tuple[list[float], list[float]]]:
    answers = [
        Answer(
            bool(one["activating"]),
            None if one["prediction"] is None else bool(one["prediction"]),
            one["probability"],
        )
        for one in results
    ]
    positives, negatives = (
        [
            float(one.probability)
            for one in answers
            if one.prediction is not None and one.probability is not None and one.activating is kind
        ]
        for kind in (True, False)
    )
    return tally(answers), (positives, negatives)


def _intruders(results: Any) -> dict[str, Any]:
    """Count answers; where there is none, delphi writes its default result, of no intruder."""
    there = [bool(one["correct"]) for one in results if one["correct_index"] >= 0]
    return {
        "right": sum(there),
        "wrong": len(there) - sum(there),
        "missing": len(results) - len(there),
    }


def _simulation(results: Any) -> dict[str, Any]:
    """Return the correlation over all sequences. delphi takes a missing answer for zeros and does
    not record it: none counts as missing."""
    overall = next((one for one in results if one["distance"] == 0), None)
    correlation = overall["ev_correlation_score"] if overall else None
    known = isinstance(correlation, float | int)
    sequences = len(overall["scored_sequence_simulations"]) if overall else 0
    return {
        "correlation": round(float(correlation), 6) if known else None,
        "answered": sequences,
        "missing": 0,
    }


def _surprisal(results: Any) -> dict[str, Any]:
    """Return the AUROC of the explanation's gain. Padding of delphi's has a loss of 0."""
    gains = []
    for one in results:
        loss_2T = np.array([one["no_explanation"], one["explanation"]], dtype=np.float64)
        without_T, given_T = loss_2T[:, loss_2T.any(axis=0)]
        gains.append((float((without_T - given_T).mean()), any(one["activations"])))
    gain_W, active_W = (np.array(column) for column in zip(*gains))
    return {
        "auroc": area(gain_W, active_W),
        "gain_positives": round(float(gain_W[active_W].mean()), 6) if active_W.any() else None,
        "gain_negatives": round(float(gain_W[~active_W].mean()), 6) if (~active_W).any() else None,
        "answered": len(gains),
        "missing": 0,
    }

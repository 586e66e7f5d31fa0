"""A language model that follows rules, and the stages run with it, for tests with known results."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

from tiny_caches import LAYERS, RUNTIME, config

from clearnets.autointerp.llm.completions import Reply
from clearnets.config import Config
from clearnets.pipeline import paths
from clearnets.pipeline.artifacts import read_jsonl
from clearnets.stages import explain, qualify, score

FOX = 2  # The latent that is active at "fox".
CLIENT = {"kind": "openai", "model": "reader"}
FAMILY = "native"


class Reader:
    """A model that names the word that is marked most often, and judges by looking for it.

    `replies` are said first, one per request; an exception among them is raised.
    """

    def __init__(self, *replies: str | Exception, can_judge: bool = True) -> None:
        self.replies, self.can_judge = list(replies), can_judge
        self.asked: list[str] = []

    def answer(self, text: str) -> str:
        judged = re.search(r"Latent explanation: (.*)\n", text)
        if judged is None:
            marked = Counter(re.findall(r"<<\s*(.*?)>>", text))
            return f"Let me see.\n[EXPLANATION]: {marked.most_common(1)[0][0]}"
        examples = re.findall(r"Example \d+: ?(.*)", text)
        yes = [self._holds(example, judged[1]) for example in examples]
        return "[\n" + ",\n".join(str(int(y == self.can_judge)) for y in yes) + "\n]"

    @staticmethod
    def _holds(example: str, word: str) -> bool:
        marked = re.findall(r"<<\s*(.*?)>>", example)
        return all(m == word for m in marked) if marked else f" {word}" in example

    async def complete(self, messages, settings):
        text = messages[-1]["content"]
        self.asked.append(text)
        said = self.replies.pop(0) if self.replies else self.answer(text)
        if isinstance(said, Exception):
            raise said
        return Reply(said)

    async def close(self):
        pass


def language(client=CLIENT, scorers=("detection", "fuzzing"), shuffled=1, reasked=2, **over):
    """Two latents less than all, explained and judged by a language model."""
    values = config(latents=10).model_dump(mode="json")
    values["explain"] |= {"n_examples_train": 20, "n_non_activating": 10}
    values["explain"]["explainer"] = {
        "kind": "delphi", "explainer": "default", "client": client, "retries": 1,
    }  # fmt: skip
    values["score"] |= {"n_examples_test": 12, "n_non_activating": 12}
    judge = {"kind": "delphi", "scorers": list(scorers), "client": client}
    values["score"]["scorers"] = [judge | {"shuffled": shuffled, "reasked": reasked}]
    values["qualify"] |= {"concepts": 2, "windows": 8}
    for key, value in over.items():
        values[key.split("__")[0]][key.split("__")[1]] = value
    return Config.model_validate_json(json.dumps(values))


def run_all(settings: Config, layers=LAYERS) -> None:
    explain.run(settings, runtime=RUNTIME, family=FAMILY, layers=layers)
    qualify.run(settings, runtime=RUNTIME)
    score.run(settings, runtime=RUNTIME, family=FAMILY, layers=layers)


def explained(layer: int = 0) -> dict[int, dict]:
    found = read_jsonl(paths.explain(FAMILY, 0, f"layers.{layer}.mlp") / "explanations.jsonl")
    return {record["latent"]: record for record in found}


def judged(layer: int = 0, name: str = "judged") -> dict[int, dict]:
    found = read_jsonl(paths.score(FAMILY, 0, f"layers.{layer}.mlp") / f"{name}.jsonl")
    return {record["latent"]: record for record in found}


def results() -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in Path("artifacts").rglob("*") if path.is_file()}

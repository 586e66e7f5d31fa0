"""Where every artifact lives, as functions of names. All paths are relative to the project root.

The root is the working directory of the process: the checkout for the default experiment, and the
experiment's own worktree for every other.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clearnets.families import FamilySpec

ARTIFACTS = Path("artifacts")
WORK = Path(".clearnets/work")
LOGS = Path(".clearnets/logs")
# What stages took on the machine that made the committed results.
TIMES = Path("experiments/times.json")
# What a language model said, as it came; nothing in it is paid for twice.
REPLIES = Path(".clearnets/replies")
WORKTREES = Path(".clearnets/exp")
FIGURES = Path("paper/figures")
PAPER = Path("paper/clearnets.pdf")
# The paper's tables for those who write in LaTeX.
LATEX = Path("paper/tables")
# The pipeline, and DVC's record of its last run.
PIPELINE = Path("dvc.yaml")
CODE = ARTIFACTS / "code.json"
LOCK = Path("dvc.lock")
# The commit of an experiment's run, beside its results.
COMMIT = "commit.txt"


def data() -> Path:
    """Tokenizer, packed tokens per split, concept labels."""
    return ARTIFACTS / "data"


def words() -> Path:
    """`classes.jsonl`: classes of words, which rules may name."""
    return ARTIFACTS / "words"


def train(mlp: str, seed: int) -> Path:
    """One training run: `final/`, `checkpoints/step-*/`, `curve.csv`."""
    return ARTIFACTS / "train" / mlp / f"seed-{seed}"


def checkpoint(mlp: str, seed: int, step: int) -> Path:
    """One checkpoint of a training run, as a Hugging Face folder."""
    return train(mlp, seed) / "checkpoints" / f"step-{step:06d}"


def untrained(mlp: str, seed: int) -> Path:
    """Beside a sparse model that was taken over, one with initial weights."""
    return train(mlp, seed) / "untrained"


def match(seed: int) -> Path:
    """`pair.json`: the checkpoints of equal validation loss."""
    return ARTIFACTS / "match" / f"seed-{seed}"


def coders(family: str, seed: int) -> Path:
    """One folder per hookpoint in sparsify's format."""
    return ARTIFACTS / "coders" / family / f"seed-{seed}"


def reseed(family: str, seed: int) -> Path:
    """The same coders trained with another seed, in sparsify's format."""
    return ARTIFACTS / "reseed" / family / f"seed-{seed}"


def stability(family: str, seed: int) -> Path:
    """Counterparts of the latents of one family in other runs."""
    return ARTIFACTS / "stability" / family / f"seed-{seed}"


def equalize(family: str, seed: int) -> Path:
    """`model/`, a checkpoint of equal end-to-end loss, and `equal.json`, how equal it is."""
    return ARTIFACTS / "equalize" / family / f"seed-{seed}"


def read_by(family: FamilySpec, seed: int) -> dict[str, Path]:
    """The units that the latents of a family are read from, by name."""
    if family.model is None:
        return {"data": data()}
    read = {"data": data(), "match": match(seed), family.model: train(family.model, seed)}
    if family.equal_loss:
        read["equalize"] = equalize(family.name, seed)
    if family.is_coder:
        read["coders"] = coders(family.name, seed)
    return read


def evaluate(seed: int) -> Path:
    """Tables about the pair and its coders."""
    return ARTIFACTS / "evaluate" / f"seed-{seed}"


def cache(family: str, seed: int, split: str) -> Path:
    """Sparse activations on one split, a folder per hookpoint in delphi's layout."""
    return ARTIFACTS / "cache" / family / f"seed-{seed}" / split


def directions(family: str, seed: int, split: str) -> Path:
    """Sparse activations of random directions in the space that native latents read."""
    return ARTIFACTS / "cache" / family / f"seed-{seed}" / f"{split}-directions"


def embed() -> Path:
    """A file of embeddings of all windows of a split, for each split that wants them."""
    return ARTIFACTS / "embed"


def explain(family: str, seed: int, hookpoint: str) -> Path:
    """`explanations.jsonl` for one layer."""
    return ARTIFACTS / "explain" / family / f"seed-{seed}" / hookpoint


def score(family: str, seed: int, hookpoint: str) -> Path:
    """`scores.jsonl` for one layer."""
    return ARTIFACTS / "score" / family / f"seed-{seed}" / hookpoint


def execute(family: str, seed: int) -> Path:
    """What a model predicts with the explanations of one family in the place of its latents."""
    return ARTIFACTS / "execute" / family / f"seed-{seed}"


def effects(family: str, seed: int) -> Path:
    """What the latents of one family do to the next token."""
    return ARTIFACTS / "effects" / family / f"seed-{seed}"


def intervene(family: str, seed: int) -> Path:
    """What interventions on single latents of one family do."""
    return ARTIFACTS / "intervene" / family / f"seed-{seed}"


def circuits(family: str, seed: int) -> Path:
    """Which latents of one family make its model answer questions."""
    return ARTIFACTS / "circuits" / family / f"seed-{seed}"


def overlap(family: str, seed: int) -> Path:
    """What the overlap of explaining and scoring windows is worth to the latents of one family."""
    return ARTIFACTS / "overlap" / family / f"seed-{seed}"


def similarity(family: str, seed: int, hookpoint: str) -> Path:
    """`similarity.jsonl` and `roc.json` for one layer."""
    return ARTIFACTS / "similarity" / family / f"seed-{seed}" / hookpoint


def concepts(family: str, seed: int) -> Path:
    """Tables about the concepts that the latents of one family recover."""
    return ARTIFACTS / "concepts" / family / f"seed-{seed}"


def probes(family: str, seed: int) -> Path:
    """How well probes on the latents of one family find known concepts."""
    return ARTIFACTS / "probes" / family / f"seed-{seed}"


def planted() -> Path:
    """`measures.csv`: measures of latents on a dictionary that is known."""
    return ARTIFACTS / "planted"


def tune(subject: str, seed: int, trial: int) -> Path:
    """`trial.json`: a recipe, and the loss that it came to."""
    return ARTIFACTS / "tune" / subject / f"seed-{seed}" / f"trial-{trial}"


def generalize(task: str) -> Path:
    """`runs.csv`, `curves.csv`, `measures.csv`: what one task's checkpoints look like."""
    return ARTIFACTS / "generalize" / task


def transcripts_of(stage: str, family: str) -> Path:
    """What a language model was asked and said about one family; empty where none was asked."""
    return ARTIFACTS / "transcripts" / stage / family


def transcripts(stage: str, family: str, seed: int, hookpoint: str) -> Path:
    """`transcript.jsonl.gz` of one layer."""
    return transcripts_of(stage, family) / f"seed-{seed}" / hookpoint


def qualify() -> Path:
    """`judges.json`: how well the language models that judge tell known concepts apart."""
    return ARTIFACTS / "qualify"


def sampled() -> Path:
    """`sampled.csv` and `sampled_tokens.csv`: explanations to read."""
    return ARTIFACTS / "sampled"


def browser() -> Path:
    """`index.html`: the latents, for people to look at."""
    return ARTIFACTS / "browser"


def metrics(stage: str) -> Path:
    """The small numbers that `dvc metrics show` reads."""
    return ARTIFACTS / "metrics" / f"{stage}.json"


def results(experiment: str) -> Path:
    """The tidy tables of one experiment."""
    return Path("paper/results") / experiment


def ratings(experiment: str) -> Path:
    """What people answered in the browser's blind rating, a file per rater."""
    return Path("paper/ratings") / experiment


def log(stage: str) -> Path:
    """Untracked log of a stage: wall times, sample texts."""
    return LOGS / f"{stage}.log"

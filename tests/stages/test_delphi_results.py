"""Out to delphi's file layout and back: its own result analysis reads what we export, and we read
what its own scorers write."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import synthetic_text as synthetic

pytest.importorskip("delphi", reason="the extra `delphi` is not installed")

from reading_model import FAMILY, Reader, language, run_all
from tiny_caches import LAYERS, RUNTIME, config

from clearnets import UserError
from clearnets import config as cfg
from clearnets.analysis import delphi_import
from clearnets.analysis.frames import NO_LAYER
from clearnets.analysis.statistics import balanced_accuracy
from clearnets.autointerp.delphi import export, layout
from clearnets.autointerp.llm.completions import RequestFailed
from clearnets.autointerp.llm.delphi_adapter import Latent, LatentRecord, Response, examples_of
from clearnets.pipeline import paths
from clearnets.pipeline.artifacts import read_jsonl
from clearnets.stages import explain, score

from delphi.log import result_analysis  # isort: skip
from delphi.scorers import (  # isort: skip
    DetectionScorer,
    FuzzingScorer,
    IntruderScorer,
)

pytestmark = pytest.mark.usefixtures("tiny_caches")
SETTINGS = cfg.load().collate
MODULES = [f"layers.{layer}.mlp" for layer in LAYERS]


def exported(settings, by=None, **how) -> Path:
    units = score.units(settings, family=FAMILY, layers=LAYERS)
    options = {"firing_counts": False} | how
    export.run(settings, units, seed=0, by=by, out=Path("out"), **options)
    return Path("out")


def by_rules():
    settings = config(latents=10)
    explain.run(settings, runtime=RUNTIME, family=FAMILY, layers=LAYERS)
    score.run(settings, runtime=RUNTIME, family=FAMILY, layers=LAYERS)
    return settings


def ours(name: str) -> dict[tuple[str, int], dict]:
    return {
        (module, one["latent"]): one
        for module in MODULES
        for one in read_jsonl(paths.score(FAMILY, 0, module) / f"{name}.jsonl")
    }


@pytest.mark.parametrize("by", ["rules", "language"])
def test_delphis_result_analysis_gets_our_numbers(by, connected):
    if by == "rules":
        settings, name = by_rules(), "scores"
    else:
        # Some answers are missing.
        connected(Reader(*["?"] * 3))
        settings, name = language(explain__latents=12), "judged"
        explain.run(settings, runtime=RUNTIME, family=FAMILY, layers=LAYERS)
        connected(Reader())
        run_all(settings)
        # It is read from the transcripts.
        connected(None)
    scored = {key: one for key, one in ours(name).items() if one["detection"]}
    folder = exported(settings)
    frame, _ = result_analysis.load_data(folder / "scores", MODULES)
    assert set(frame["score_type"]) == {"detection", "fuzz"}
    assert len(frame.groupby(["module", "latent_idx"])) == len(scored) > 5
    for (module, latent, kind), own in frame.groupby(["module", "latent_idx", "score_type"]):
        counts = scored[module, latent]["fuzzing" if kind == "fuzz" else kind]
        found = result_analysis.compute_confusion(own)
        names = ("true_positives", "false_positives", "true_negatives", "false_negatives")
        assert [found[key] for key in names] == [counts[key] for key in ("tp", "fp", "tn", "fn")]
        accuracy = result_analysis.compute_classification_metrics(found)["accuracy"]
        cells = {cell: counts[cell] for cell in ("tp", "fp", "tn", "fn")}
        assert accuracy == pytest.approx(float(balanced_accuracy(**cells)))
        missing = counts.get("missing_positives", 0) + counts.get("missing_negatives", 0)
        assert own["prediction"].isna().sum() == missing
        # delphi's own count of them is always 0.
        assert found["failed_count"] == 0
    # Where the latent is active in a window of detection, the activations say so.
    detection = frame[frame["score_type"] == "detection"]
    assert (detection["activations"].map(max).gt(0) == detection["activating"]).all()
    assert set(detection.loc[detection["activating"], "distance"]) <= set(range(10))


def test_all_of_delphis_analysis_runs_on_an_export_of_one_layer(monkeypatch, capsys):
    """But for its pictures, which want a browser. Of several modules with firing counts it fails
    on any folder: it looks the second one's up by the rows of the first."""
    import plotly.graph_objects as go

    folder = exported(by_rules(), firing_counts=True)
    drawn = []
    monkeypatch.setattr(go.Figure, "write_image", lambda self, path: drawn.append(Path(path).name))
    monkeypatch.setattr(result_analysis, "import_plotly", lambda: None)

    def analysed(modules):
        scorers = ["detection", "fuzz"]
        result_analysis.log_results(folder / "scores", folder / "visualize", modules, scorers)
        return capsys.readouterr().out

    said = analysed(MODULES[:1])
    scored = [
        one["detection"] for (module, _), one in ours("scores").items() if module == MODULES[0]
    ]
    counts = [one for one in scored if one]
    total = {cell: sum(one[cell] for one in counts) for cell in ("tp", "fp", "tn", "fn")}
    accuracy = float(balanced_accuracy(**total))
    assert f"--- Detection Metrics ---\nClass-Balanced Accuracy: {accuracy:.3f}" in said
    assert any("firing_rates" in name for name in drawn)
    # It looks for the latent's number among the counts, where it should look the count up.
    firing, counts = result_analysis.load_data(folder / "scores", MODULES)
    for row in firing.drop_duplicates(["module", "latent_idx"]).itertuples():
        assert counts[row.module][row.latent_idx] > 0
        if row.latent_idx not in counts[row.module].tolist():
            assert row.firing_count is None
    with pytest.raises(KeyError):
        analysed(MODULES)


def test_the_versions_that_delphi_draws_with_are_documented():
    """With those that are pinned here it fails before it draws, as the page says."""
    root = Path(__file__).parents[2]
    page = (root / "docs/troubleshooting.md").read_text(encoding="utf-8")
    with pytest.raises(AttributeError) as fault:
        result_analysis.import_plotly()
    entry = next(part for part in page.split("\n\n") if "pip install 'plotly<7'" in part)
    assert str(fault.value).rpartition("has ")[2] in entry


@pytest.mark.parametrize("by", ["rules", "language"])
def test_what_we_export_we_read_back(by, connected):
    if by == "rules":
        settings, name = by_rules(), "scores"
    else:
        connected(Reader(*["?"] * 9, RequestFailed("status 500")))
        settings, name = language(), "judged"
        run_all(settings)
    found = {(one.module, one.latent): one for one in layout.read(exported(settings))}
    explained = {
        (module, one["latent"]): one["explanation"]
        for module in MODULES
        for one in read_jsonl(paths.explain(FAMILY, 0, module) / "explanations.jsonl")
        if one["explanation"] is not None
    }
    assert {key: one.explanation for key, one in found.items()} == explained
    for key, record_ in ours(name).items():
        for scorer in ("detection", "fuzzing"):
            if counts := record_[scorer]:
                assert {cell: found[key].scores[scorer][cell] for cell in counts} == counts
            else:
                assert key not in found or not found[key].scores


class Says:
    """A client of delphi's that answers each request by a function of its text."""

    def __init__(self, answer) -> None:
        self.answer = answer

    async def generate(self, prompt, **_) -> Response:
        return Response(text=self.answer(prompt[-1]["content"]))


def shown_by_delphi(active: int, silent: int) -> LatentRecord:
    token_WL = np.array([[3 + (i + j) % 20 for j in range(16)] for i in range(active + silent)])
    act_WL = np.zeros(token_WL.shape, np.float32)
    act_WL[:active, 4] = 1 + np.arange(active)
    yes, no = examples_of(token_WL, act_WL, synthetic.STRINGS)
    parts = {"train": yes, "test": yes, "not_active": no, "examples": yes}
    return LatentRecord(Latent("layers.1.mlp", 0), explanation="foxes", **parts)


def always_yes(text: str) -> str:
    return f"[{', '.join(['1'] * text.count('Example '))}]"


def run_of_delphi(folder: Path, answers) -> None:
    """What delphi's own scorers leave of two latents, as its `__main__` writes it."""
    import orjson

    shown = shown_by_delphi(20, 20)
    (folder / "explanations").mkdir(parents=True)
    for latent in (3, 12):
        # The paths are those of `Latent.__repr__`.
        name = f"layers.1.mlp_latent{latent}"
        (folder / "explanations" / f"{name}.txt").write_bytes(orjson.dumps("foxes"))
        for kind, scorer in (
            ("detection", DetectionScorer(Says(answers), n_examples_shown=5)),
            ("fuzz", FuzzingScorer(Says(answers), n_examples_shown=5)),
        ):
            result = asyncio.run(scorer(shown))
            (folder / "scores" / kind).mkdir(parents=True, exist_ok=True)
            (folder / "scores" / kind / f"{name}.txt").write_bytes(orjson.dumps(result.score))


def test_results_of_delphi_are_read_into_our_tables(tmp_path):
    """Every third prompt is answered by nonsense; the others say yes."""
    turn = iter(range(999))

    def answers(text):
        return "hm" if next(turn) % 3 == 2 else always_yes(text)

    run_of_delphi(tmp_path / "run", answers)
    about = {"family": "sae", "judge": "delphi's own", "settings": SETTINGS}
    assert delphi_import.run(tmp_path / "run", tmp_path / "out", **about) == 2
    frame, _ = result_analysis.load_data(tmp_path / "run/scores", ["layers.1.mlp"])
    judged = pd.read_csv(tmp_path / "out/judged.csv")
    assert len(judged) == 4
    assert set(judged["judge"]) == {"delphi's own"}
    assert set(judged["layer"]) == {1}
    for row in judged.itertuples():
        kind = "fuzz" if row.scorer == "fuzzing" else row.scorer
        own = frame[(frame["latent_idx"] == row.latent) & (frame["score_type"] == kind)]
        confusion = result_analysis.compute_confusion(own)
        numbers = result_analysis.compute_classification_metrics(confusion)
        assert row.accuracy == pytest.approx(numbers["accuracy"], abs=1e-5)
        assert row.recall == pytest.approx(numbers["recall"], abs=1e-5)
        assert row.precision == pytest.approx(numbers["precision"], abs=1e-5)
        assert (row.answered, row.missing) == (
            own["correct"].notna().sum(),
            own["correct"].isna().sum(),
        )
        assert row.missing > 0
    explanations = pd.read_csv(tmp_path / "out/explanations.csv")
    assert list(explanations["latent"]) == [3, 12]
    assert set(explanations["explanation"]) == {"foxes"}
    means = pd.read_csv(tmp_path / "out/judged_means.csv")
    assert set(means["measure"]) == {"accuracy", "precision", "recall"}
    # Where nobody vouches for the judge, the same numbers are a demonstration.
    about["judge"] = None
    delphi_import.run(tmp_path / "run", tmp_path / "bare", **about)
    found = {path.name for path in (tmp_path / "bare").iterdir()}
    assert found == {"explanations.csv", "demonstration.csv", "demonstration_means.csv"}
    shown = pd.read_csv(tmp_path / "bare/demonstration.csv")
    assert set(shown.pop("judge")) == {"imported"}
    assert shown.equals(judged.drop(columns="judge"))


def test_other_scorers_of_delphi_are_read(tmp_path):
    import orjson

    shown = shown_by_delphi(10, 5)
    said = iter(["[RESPONSE]: 0"] * 3)
    intruder = IntruderScorer(Says(lambda _: next(said, "?")), n_examples_shown=5)
    intruders = asyncio.run(intruder(shown)).score
    zero = {"no_explanation": [2.0, 1.0, 0.0], "explanation": [1.0, 1.0, 0.0]}
    none = {"no_explanation": [2.0, 1.0], "explanation": [2.0, 1.5]}
    surprisal = [
        {"text": "a", "distance": 0, "activations": [0.0, 1.0], **zero},
        {"text": "b", "distance": 0.0, "activations": [0.0, 0.0], **none},
    ]
    simulation = [
        {"distance": 1, "ev_correlation_score": 0.9, "scored_sequence_simulations": []},
        {"distance": 0, "ev_correlation_score": 0.25, "scored_sequence_simulations": [{}, {}]},
    ]
    for kind, value in (
        ("intruder", intruders), ("surprisal", surprisal), ("simulation", simulation),
    ):  # fmt: skip
        path = tmp_path / "scores" / kind / "layers.1.mlp_latent7.txt"
        path.parent.mkdir(parents=True)
        path.write_bytes(orjson.dumps(value))
    (one,) = layout.read(tmp_path)
    assert one.explanation is None
    counts = one.scores["intruder"]
    assert counts["missing"] == len(intruders) - 3
    assert counts["right"] == sum(result.correct for result in intruders)
    assert one.scores["surprisal"] == {
        "auroc": 1.0, "gain_positives": 0.5, "gain_negatives": -0.25, "answered": 2, "missing": 0,
    }  # fmt: skip
    assert one.scores["simulation"] == {"correlation": 0.25, "answered": 2, "missing": 0}


@pytest.mark.parametrize("name", ["layers.{}.mlp", "transformer.h.{}", "layer_{}/width_16k/l0_82"])
def test_layers_are_those_of_the_modules_names(tmp_path, name):
    for layer in (10, 9, 2):
        module = name.format(layer).replace("/", "--")
        layout.write_explanation(tmp_path, module, 0, "x")
    made = delphi_import.tables(layout.read(tmp_path), "sae", None, SETTINGS)
    assert list(made["explanations"]["module"]) == [name.format(n) for n in (2, 9, 10)]
    assert list(made["explanations"]["layer"]) == [2, 9, 10]
    assert set(made) == {"explanations"}


def test_two_modules_of_one_layer_are_refused():
    assert delphi_import.layers_of(["tokens"]) == {"tokens": NO_LAYER}
    with pytest.raises(UserError, match="of one layer") as error:
        delphi_import.layers_of(["layers.2.attention", "layers.2.mlp"])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("scores/detection/m_latent0.txt", "[{", "is not JSON"),
        ("scores/detection/m_latent0.txt", '[{"text": 1}]', "not what delphi's detection writes"),
        ("scores/intruder/m_latent0.txt", "[3]", "not what delphi's intruder writes"),
        ("explanations/m_latent0.txt", "[]", "expected delphi's explanation"),
        ("scores/detection/readme.txt", "", "holds no results of delphi"),
    ],
)
def test_what_delphi_did_not_write_is_refused_in_one_line(tmp_path, file, content, words):
    path = tmp_path / "run" / file
    path.parent.mkdir(parents=True)
    path.write_text(content)
    with pytest.raises(UserError, match=words) as error:
        delphi_import.run(
            tmp_path / "run", tmp_path / "out", family="sae", judge=None, settings=SETTINGS
        )
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_exported_is_refused_and_nothing_is_left(connected):
    settings = by_rules()
    with pytest.raises(UserError, match="no language model"):
        exported(settings, by="language")
    connected(Reader())
    judged = language()
    run_all(judged)
    with pytest.raises(UserError, match="--by language"):
        exported(judged, by="rules")
    shutil.rmtree("artifacts/transcripts")
    shutil.rmtree(".clearnets")
    connected(None)
    with pytest.raises(UserError, match="transcripts"):
        exported(judged)
    assert not Path("out").exists()
    assert not Path(".out.part").exists()
    shutil.rmtree(paths.score(FAMILY, 0, MODULES[0]))
    with pytest.raises(UserError, match="score"):
        exported(judged)

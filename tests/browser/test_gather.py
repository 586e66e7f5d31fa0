"""What the page holds, against the artifacts read again in plain Python and against torch."""

from __future__ import annotations

import numpy as np
import pytest
import small_world as world
import tiny_pipeline as tiny
import torch

from clearnets import UserError
from clearnets.autointerp.llm.transcripts import TRANSCRIPT
from clearnets.autointerp.records import EFFECTS, EXPLANATIONS, SCORED
from clearnets.autointerp.rules.language import parse
from clearnets.autointerp.texts import open_texts
from clearnets.browser import gather as module
from clearnets.browser.page import unpack
from clearnets.data.tokens import open_tokens
from clearnets.latents.examples import windows_of
from clearnets.latents.store import load_layer
from clearnets.models.loading import load
from clearnets.pipeline import paths
from clearnets.pipeline.artifacts import read_jsonl, write_bytes
from clearnets.stages import browse


@pytest.fixture(autouse=True)
def _there(place, monkeypatch):
    monkeypatch.chdir(place)


@pytest.fixture(scope="module")
def page(place):
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(place)
        browse.run(world.config(), runtime=world.RUNTIME)
    return unpack((place / paths.browser() / browse.PAGE).read_text(encoding="utf-8"))


def rows(page) -> list[dict]:
    columns = page["latents"]
    made = [dict(zip(columns, values)) for values in zip(*columns.values())]
    for row in made:
        row["name"] = page["families"][row["family"]]
        row["point"] = "tokens" if row["layer"] < 0 else f"layers.{row['layer']}.mlp"
    return made


def dense_windows(name: str, point: str, latent: int, split: str) -> np.ndarray:
    """Activations of all windows of the row-wise cut text, from the cache by a plain loop."""
    store = open_tokens(paths.data())
    tokens_RS = np.asarray(store.split(split))
    act_RS = np.zeros(tokens_RS.shape, np.float32)
    cache = load_layer(paths.cache(name, 0, split), point)
    for at in range(cache.offsets[latent], cache.offsets[latent + 1]):
        act_RS[cache.row[at], cache.position[at]] = cache.act[at]
    act_RS[~store.counted(tokens_RS)] = 0
    return act_RS


def test_it_holds_every_drawn_latent_with_its_explanation_scores_and_concept(page):
    found = rows(page)
    assert page["families"] == list(world.FAMILIES)
    expected = 0
    for name in world.FAMILIES:
        for point in {row["point"] for row in found if row["name"] == name}:
            own = {r["latent"]: r for r in found if (r["name"], r["point"]) == (name, point)}
            explained = read_jsonl(paths.explain(name, 0, point) / EXPLANATIONS)
            scored = read_jsonl(paths.score(name, 0, point) / SCORED)
            assert list(own) == [record["latent"] for record in explained]
            expected += len(explained)
            for record, judged in zip(explained, scored):
                row = own[record["latent"]]
                assert row["explanation"] == record["explanation"]
                assert row["status"] == judged["status"]
                for place, kind in enumerate(("detection", "fuzzing")):
                    counts = judged[kind]
                    if counts is None:
                        assert row["scores"][place] is None
                        continue
                    right = counts["tp"] / (counts["tp"] + counts["fn"])
                    right += counts["tn"] / (counts["tn"] + counts["fp"])
                    assert row["scores"][place] == pytest.approx(right / 2, abs=1e-4)
                n = record["latent"]
                if n < tiny.LATENTS:
                    assert page["concepts"][row["concept"]] == f"concept-{n}"
                    assert row["f1"] == pytest.approx(n / 100)
                else:
                    assert row["concept"] is None
    assert len(found) == expected
    statuses = {row["status"] for row in found}
    assert {"explained", "dead"} <= statuses
    drawn = sum(sum(entry["drawn"].values()) for entry in page["coverage"])
    assert drawn == expected


def test_where_explanations_fire_and_what_executing_them_found(page):
    settings = world.config()
    text = open_texts("explain").of(settings.explain.window)
    told = {
        (point, record["latent"]): record
        for point in settings.hookpoints("native")
        for record in read_jsonl(paths.execute("native", 0) / "latents" / f"{point}.jsonl")
    }
    effects = {
        (record["layer"], record["latent"]): record
        for record in read_jsonl(paths.effects("native", 0) / EFFECTS)
    }
    numbers = {words: n for n, words in enumerate(texts_of_windows("explain"))}
    underlined = 0
    for row in rows(page):
        native, explained = row["name"] == "native", row["explanation"] is not None
        assert (row["simulated"] is not None) == (native and explained)
        if native and explained:
            record = told[row["point"], row["latent"]]
            assert row["simulated"][:2] == pytest.approx([record["on"], record["off"]], rel=1e-2)
            said = effects[row["layer"], row["latent"]]["effect"]
            assert (row["effect"] and row["effect"][0]) == said
        if not explained:
            assert row["fires"] == [None] * len(row["examples"])
            continue
        bits_NB = text.fires(parse(row["explanation"]))
        fires_NL = np.unpackbits(bits_NB.view(np.uint8), axis=-1, count=text.windows.size)
        for places, (window, *_) in zip(row["fires"], row["examples"], strict=True):
            words = tuple(page["tokens"][token] for token in page["text"]["explain"][window])
            assert places == np.flatnonzero(fires_NL[numbers[words]]).tolist()
            underlined += len(places)
    assert underlined
    assert any(row["effect"] for row in rows(page))


def texts_of_windows(split: str) -> list[tuple[str, ...]]:
    store = open_tokens(paths.data())
    tokens_RS, strings = np.asarray(store.split(split)), store.strings()
    windows = windows_of(store.counted(tokens_RS), size=tiny.config().explain.window)
    return [tuple(strings[t] for t in row) for row in windows.cut(tokens_RS).tolist()]


def test_activity_and_examples_are_those_of_the_cache(page):
    store, size = open_tokens(paths.data()), tiny.config().explain.window
    tokens_RS = np.asarray(store.split("explain"))
    counted = int(store.counted(tokens_RS).sum())
    strings = store.strings()
    for row in rows(page)[::7]:
        act_RS = dense_windows(row["name"], row["point"], row["latent"], "explain")
        live = act_RS[act_RS > 0]
        assert row["count"] == len(live) == sum(row["histogram"])
        assert row["rate"] == pytest.approx(len(live) / counted, rel=1e-3)
        if not len(live):
            assert row["examples"] == []
            continue
        assert row["largest"] == pytest.approx(live.max(), rel=1e-3)
        edges = np.linspace(0, live.max(), len(row["histogram"]) + 1)
        assert row["histogram"] == np.histogram(live, edges)[0].tolist()
        acts = {
            tuple(tokens_RS[r, at : at + size].tolist()): act_RS[r, at : at + size]
            for r in range(len(tokens_RS))
            for at in range(0, tokens_RS.shape[1], size)
        }
        peaks = []
        for window, quantile, *pairs in row["examples"]:
            texts = [page["tokens"][t] for t in page["text"]["explain"][window]]
            match = [a for ids, a in acts.items() if [strings[i] for i in ids] == texts]
            levels = np.zeros(size)
            levels[pairs[::2]] = pairs[1::2]
            assert any(np.allclose(levels / 255, a / live.max(), atol=0.004) for a in match)
            peaks.append((quantile, -max(pairs[1::2])))
        assert [q for q, _ in peaks] == sorted(q for q, _ in peaks)
        assert [p for q, p in peaks if q == 0] == sorted(p for q, p in peaks if q == 0)


def test_a_blind_rating_sees_active_and_non_activating_windows_of_other_text(page):
    store = open_tokens(paths.data())
    tokens_RS, size = np.asarray(store.split("score")), tiny.config().explain.window
    strings = store.strings()
    cut = tokens_RS.reshape(-1, size)
    texts = [[strings[i] for i in ids] for ids in cut.tolist()]
    for row in rows(page)[::11]:
        act_NL = dense_windows(row["name"], row["point"], row["latent"], "score").reshape(-1, size)
        for window in row["silent"]:
            shown = [page["tokens"][t] for t in page["text"]["score"][window]]
            assert any(not act_NL[n].any() for n, text in enumerate(texts) if text == shown)
        for window, _, *pairs in row["active"]:
            shown = [page["tokens"][t] for t in page["text"]["score"][window]]
            places = set(pairs[::2])
            assert any(
                set(np.flatnonzero(act_NL[n])) == places for n, t in enumerate(texts) if t == shown
            )
        assert len(row["silent"]) == 4


def direction(name: str, row: dict) -> tuple[torch.Tensor, str]:
    """What a unit of the latent adds to the residual stream, by running the model's own parts."""
    if name in ("native", "random-native"):
        step = 7 if name == "native" else 0
        folder = paths.checkpoint("sparse", 0, step)
        mlp = load(folder).base_model.layers[row["layer"]].mlp
        one = torch.ones(1, 1, 1)
        index = torch.full((1, 1, 1), row["latent"])
        return (mlp.decoder(one, index) - mlp.decoder(0 * one, index))[0, 0], str(folder)
    folder = paths.checkpoint("dense", 0, 7)
    if name == "neurons":
        mlp = load(folder).base_model.layers[row["layer"]].mlp
        width = mlp.dense_4h_to_h.in_features
        one = torch.zeros(width)
        one[row["latent"] % width] = 1 if row["latent"] < width else -1
        return mlp.dense_4h_to_h(one) - mlp.dense_4h_to_h(0 * one), str(folder)
    from safetensors.torch import load_file

    coder = load_file(paths.coders(name, 0) / row["point"] / "sae.safetensors")
    return coder["W_dec"][row["latent"]], str(folder)


@pytest.mark.parametrize("name", ["native", "random-native", "transcoder", "neurons"])
@torch.no_grad()
def test_promoted_tokens_are_those_whose_logits_rise_in_the_model(page, name):
    """Along a direction that dwarfs the rest of the stream the final norm and the unembedding give
    the lens's logits, up to one positive factor and what does not depend on the direction."""
    strings = open_tokens(paths.data()).strings()
    for row in [r for r in rows(page) if r["name"] == name][::6]:
        d, folder = direction(name, row)
        model = load(paths.Path(folder))
        norm, unembed = model.base_model.final_layer_norm, model.get_output_embeddings()
        rises_V = unembed(norm(1e6 * d)) - unembed(norm(torch.zeros_like(d)))
        for ids, largest in zip(row["tokens"], (True, False)):
            wanted = rises_V.topk(5, largest=largest).indices.tolist()
            assert [page["tokens"][t] for t in ids] == [strings[i] for i in wanted]


def test_families_without_a_direction_say_so(page):
    for row in rows(page):
        assert (row["tokens"] is None) == (row["name"] in ("token-unigram", "step0-transcoder"))


def test_the_nearest_are_those_of_a_dense_cosine(page):
    found = rows(page)
    store = open_tokens(paths.data())
    counted_RS = store.counted(np.asarray(store.split("explain")))
    acts = np.stack(
        [dense_windows(r["name"], r["point"], r["latent"], "explain")[counted_RS] for r in found]
    )
    norm = np.maximum(np.linalg.norm(acts, axis=1, keepdims=True), 1e-30)
    cosine = (acts / norm) @ (acts / norm).T
    family = np.array([row["family"] for row in found])
    for i, row in enumerate(found):
        near = {found[other]["family"]: (other, c) for other, c in row["near"]}
        assert row["family"] not in near
        for number in set(range(len(world.FAMILIES))) - {row["family"]}:
            best = cosine[i][family == number].max()
            if best <= 0:
                assert number not in near
            else:
                other, thousandths = near[number]
                assert cosine[i, other] == pytest.approx(best, abs=1e-5)
                assert thousandths == pytest.approx(1000 * best, abs=0.51)


def test_the_same_artifacts_give_the_same_bytes(page):
    before = (paths.browser() / browse.PAGE).read_bytes()
    assert len(before) < 400_000
    from clearnets.browser.page import render

    assert render(module.gather(world.config())).encode() == before


def test_circuits_name_the_latents_of_the_page_and_say_what_the_others_do(page):
    (circuit,) = page["circuits"]
    assert circuit["task"] == "wear"
    assert page["families"][circuit["family"]] == "native"
    found = rows(page)
    in_page = {
        (row["layer"], row["latent"]): number
        for number, row in enumerate(found)
        if row["name"] == "native"
    }
    assert len(circuit["nodes"]) == world.config().circuits.linked
    others = []
    for number, (layer, position, latent, effect, row, said) in enumerate(circuit["nodes"]):
        assert (layer, position, latent) == (number % 2, 1 + number, number)
        assert effect == pytest.approx(1 / (1 + number), rel=1e-2)
        assert row == in_page.get((layer, latent))
        if row is not None:
            assert said is None
        else:
            others.append((layer, latent, said))
    assert [link[:2] for link in circuit["links"]] == [
        *([0, -1], [0, 1], [1, -1], [2, -1], [2, 3], [3, -1])
    ]
    assert others, "not all were drawn"
    for layer, latent, said in others:
        active = dense_windows("native", f"layers.{layer}.mlp", latent, "explain").any()
        assert active or said is None


def test_exchanges_are_found_by_the_explanation(monkeypatch, tmp_path, page):
    import gzip
    import json

    monkeypatch.chdir(tmp_path)
    row = next(r for r in rows(page) if r["explanation"] and r["name"] == "native")
    folder = paths.transcripts("explain", "native", 0, row["point"])
    entries = [
        {
            "model": {"model": "reader"},
            "key": str(n),
            "messages": [{"role": "user", "content": "?"}],
        }
        | ({"reply": {"text": text, "logprobs": None}} if text else {"error": "late"})
        for n, text in enumerate((f"so: {row['explanation']}", "something else", None))
    ]
    text = "".join(json.dumps(entry) + "\n" for entry in entries)
    write_bytes(folder / TRANSCRIPT, gzip.compress(text.encode()))
    from clearnets.browser.findings import Transcripts

    shown, total = Transcripts("native", 0, row["point"]).of(row["explanation"], 4)
    assert total == len(shown) == 1
    assert (shown[0].task, shown[0].model) == ("explain", "reader")
    assert shown[0].messages == [("user", "?")]
    assert row["explanation"] in str(shown[0].reply)
    assert Transcripts("native", 0, row["point"]).of("no such thing", 4) == ([], 0)


def test_a_missing_result_names_its_stage(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="is missing; run `dvc repro"):
        browse.run(world.config(), runtime=world.RUNTIME)

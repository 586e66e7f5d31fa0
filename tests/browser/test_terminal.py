"""A latent on a terminal: the same as in the page, whoever the latent is."""

from __future__ import annotations

import re

import numpy as np
import pytest
import small_world as world
import tiny_pipeline as tiny

from clearnets import UserError
from clearnets.autointerp.records import EFFECTS, EXPLANATIONS
from clearnets.autointerp.rules.language import parse
from clearnets.autointerp.texts import open_texts
from clearnets.browser import terminal
from clearnets.browser.findings import REASONS
from clearnets.pipeline import paths
from clearnets.pipeline.artifacts import read_jsonl


@pytest.fixture(autouse=True)
def _there(place, monkeypatch):
    monkeypatch.chdir(place)


def printed(family: str, layer: str, latent: int, examples: int = 2, *, shades=False) -> list[str]:
    view = terminal.look(world.config(), family, layer, latent, seed=None)
    return [line.plain for line in terminal.lines(view, examples, shades=shades)]


def drawn(family="native", point="layers.1.mlp") -> list[dict]:
    return read_jsonl(paths.explain(family, 0, point) / EXPLANATIONS)


def test_an_explained_latent_with_everything():
    record = next(r for r in drawn() if r["status"] == "explained" and r["latent"] % 2 == 0)
    lines = printed("native", "1", record["latent"])
    assert lines[0] == f"native · layer 1 · latent {record['latent']}"
    assert lines[1] == record["explanation"]
    text = "\n".join(lines)
    assert f"embedding {0.25 + record['latent'] / 1000:.2f}" in text
    assert f"at {record['rate']:.3%} of tokens, in {record['windows']:.2%} of windows" in text
    assert f"concept-{record['latent']} (F1" in text
    assert len(re.search(r"^promotes +(.*)$", text, re.M)[1].split("  ")) == 5
    heading = next(n for n, line in enumerate(lines) if line.startswith("strongest"))
    assert lines[heading] == "strongest; _so_ where the explanation fires"
    strongest = lines[heading + 1 :][:2]
    assert all("<<" in line and ">>" in line for line in strongest)
    shaded = "\n".join(printed("native", "1", record["latent"], shades=True))
    assert "<<" not in shaded
    marks = "<<|>>|_|underlined|(?<=strongest; _)so"
    assert re.sub(marks, "", text) == re.sub(marks, "", shaded)


def test_what_executing_it_found_is_told_and_shown():
    """Of the family whose explanations are executed; of others only where they fire."""
    folder = paths.execute("native", 0) / "latents"
    told = {r["latent"]: r for r in read_jsonl(folder / "layers.1.mlp.jsonl")}
    effects = {
        r["latent"]: r
        for r in read_jsonl(paths.effects("native", 0) / EFFECTS)
        if r["layer"] == 1 and r["effect"]
    }
    latent = next(n for n in effects if told[n]["variance"])
    lines = printed("native", "1", latent)
    assert lines[2] == effects[latent]["effect"]
    r2 = 1 - told[latent]["error"] / told[latent]["variance"]
    text = "\n".join(lines)
    assert f"simulated  {told[latent]['on']:.3g} where the explanation fires" in text
    assert f"(R² {r2:.2f})" in text
    assert f"with AUROC {effects[latent]['effect_auroc']:.2f}" in text
    other = next(r for r in drawn("transcoder") if r["status"] == "explained")
    lines = printed("transcoder", "1", other["latent"])
    assert not any(line.startswith(("simulated", "ablated")) for line in lines)
    assert any("_so_ where the explanation fires" in line for line in lines)


def test_tokens_are_marked_where_the_rule_fires():
    record = next(r for r in drawn() if r["status"] == "explained" and r["rate"] > 0)
    view = terminal.look(world.config(), "native", "1", record["latent"], seed=None)
    texts = open_texts("explain")
    text = texts.of(world.config().explain.window)
    for example in view.seen.examples:
        # The whole split at once, against single windows.
        bits_NB = text.fires(parse(record["explanation"]))
        fires_NL = np.unpackbits(bits_NB.view(np.uint8), axis=-1, count=text.windows.size)
        assert example.fires_L is not None
        assert example.fires_L.tolist() == (fires_NL[example.window] > 0).tolist()


def test_only_labels_are_dim():
    view = terminal.look(world.config(), "native", "1", drawn()[0]["latent"], seed=None)
    for line in terminal.lines(view, 2, shades=True):
        assert "dim" not in str(line.style)
        assert all(span.end <= 11 for span in line.spans if "dim" in str(span.style))


def test_a_latent_that_was_not_explained_says_why_and_is_shown():
    reasons = set()
    for record in drawn():
        if record["status"] != "explained":
            lines = printed("native", "1", record["latent"])
            assert lines[1] == f"no explanation: {REASONS[record['status']]}"
            assert ("strongest" in lines) == (record["rate"] > 0)
            reasons.add(record["status"])
    assert reasons
    known = {record["latent"] for record in drawn()}
    found = {printed("native", "1", n)[1] for n in range(tiny.LATENTS) if n not in known}
    assert "no explanation: not among the latents that were drawn to be explained" in found


def test_what_would_command_a_terminal_is_replaced():
    assert terminal.printable("a\x1b[2Jb\r\n") == "a�[2Jb�↵"


def test_families_without_layers_or_lens():
    lines = printed("token-unigram", "tokens", drawn("token-unigram", "tokens")[0]["latent"])
    assert lines[0].startswith("token-unigram · latent")
    assert not any(line.startswith("promotes") for line in lines)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("saes", "1", 0), "unknown family 'saes'; choose one of native, topk-native"),
        (("sae", "1", 0), "experiment 'default' has no family 'sae'; choose one of native"),
        (("native", "2", 0), "no layer '2'; layers go from 0 to 1"),
        (("native", "tokens", 0), "no layer 'tokens'"),
        (("token-unigram", "0", 0), "token-unigram has no layers; write `tokens`"),
        (("native", "1", 64), "no latent 64: native has latents 0 to 63 in each layer"),
        (("native", "1", -1), "no latent -1"),
    ],
)
def test_a_latent_that_is_not_there_is_one_line(words, says):
    with pytest.raises(UserError) as error:
        terminal.look(world.config(), *words, seed=None)
    assert str(error.value).startswith(says)
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="no training seed 3; choose one of 0"):
        terminal.look(world.config(), "native", "1", 0, seed=3)


def test_piped_it_has_no_colours_and_one_line_per_window(capsys):
    record = next(r for r in drawn() if r["status"] == "explained")
    view = terminal.look(world.config(), "native", "1", record["latent"], seed=None)
    terminal.run(view, 2)
    out = capsys.readouterr().out
    assert "\x1b" not in out
    expected = [line.plain for line in terminal.lines(view, 2, shades=False)]
    assert out.splitlines() == expected

"""Simulated latents against loops, least squares and scikit-learn."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import synthetic_text as synthetic
from scipy.sparse import csc_array
from sklearn.linear_model import Ridge

from clearnets.autointerp import execution
from clearnets.autointerp.execution import Decoder, Levels, Passage
from clearnets.autointerp.rules.language import Clause, Context, Rule, render
from clearnets.autointerp.rules.matcher import Lexicon, read_rows

RULES = [
    Rule((Clause(("fox", "dog")),)),
    None,
    Rule((Clause(("said",), Context("closed-quotation")), Clause(("Tom",)))),
    Rule((Clause((), Context("inside-quotation")),)),
]
TOKENS = synthetic.rows(3, 40)
ROWS = np.array([5, 2, 39, 17])


@pytest.fixture(scope="module")
def text():
    whole = read_rows(TOKENS, synthetic.counted, Lexicon(synthetic.STRINGS), size=synthetic.CTX)
    return execution.whole_rows(whole.rows, ROWS)


@pytest.fixture(scope="module")
def fires(text):
    return execution.fires(text, RULES)


def random_codes(shape: tuple[int, int], seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.random(shape) * (rng.random(shape) < 0.3)


def test_rules_fire_on_counted_positions_in_the_order_of_the_rows(fires):
    expected = []
    for row in TOKENS[ROWS]:
        inside = closed = False
        for token in row[1:]:
            if token <= synthetic.EOS:
                continue
            word, mark = synthetic.STRINGS[token].strip(), '"' in synthetic.STRINGS[token]
            speech = word == "said" and closed
            quoted = inside and not mark
            expected.append([word in ("fox", "dog"), False, speech or word == "Tom", quoted])
            closed = mark and inside
            inside = inside != mark
    assert np.array_equal(fires.toarray(), np.array(expected, dtype=float))
    assert fires.sum(axis=0)[[0, 2, 3]].min() >= 3


def test_cached_activations_are_those_of_the_rows():
    counted_RS = synthetic.counted(TOKENS)
    act_LRS = (
        random_codes((6, *TOKENS.shape)) * (np.random.default_rng(1).random(6) > 0.3)[:, None, None]
    )
    latent, row, position = np.nonzero(act_LRS)
    ends = np.concatenate([[0], np.cumsum((act_LRS > 0).sum(axis=(1, 2)))])
    cache = SimpleNamespace(
        num_latents=6, offsets=ends, row=row, position=position, act=act_LRS[latent, row, position]
    )
    found = execution.cached_codes(cache, counted_RS, ROWS)
    expected = [act_LRS[:, r, s] for r in ROWS for s in range(synthetic.CTX) if counted_RS[r, s]]
    assert np.array_equal(found.toarray(), np.array(expected))


def test_calibration_is_least_squares(fires):
    codes = random_codes(fires.shape)
    levels = execution.calibrate(fires, csc_array(codes))
    errors = levels.squared_errors(fires, csc_array(codes))
    for latent in range(len(RULES)):
        fired = fires.toarray()[:, latent]
        design = np.stack([fired, 1 - fired], axis=1)
        (on, off), *_ = np.linalg.lstsq(design, codes[:, latent], rcond=None)
        if fired.any():
            assert levels.on_L[latent] == pytest.approx(on)
        else:
            assert levels.on_L[latent] == levels.off_L[latent]
        assert levels.off_L[latent] == pytest.approx(off)
        simulated = np.where(fired > 0, on, off)
        assert errors[latent] == pytest.approx(((codes[:, latent] - simulated) ** 2).sum())


def test_a_latent_that_is_a_rule_is_simulated_exactly(fires):
    """And its stand-in writes what it writes."""
    heights = np.array([2.0, 1.0, 0.5, 3.0])
    codes = csc_array(fires * heights)
    records = [
        {"latent": i, "explanation": rule and render(rule), "trigger": rule and "fox"}
        for i, rule in enumerate(RULES)
    ]
    assert execution.rules_of(records)["rules"] == RULES
    assert execution.rules_of(records)["trigger"][2] == Rule((Clause(("fox",)),))
    rng = np.random.default_rng(0)
    decoder = Decoder(rng.normal(size=(4, 5)), rng.normal(size=5))
    token_N = np.arange(fires.shape[0]) % 7
    passage = Passage(token_N, codes, {"rules": fires, "trigger": fires})
    output_ND = codes @ decoder.weight_LD + decoder.bias_D
    order_L = execution.others(np.array([True, False, True, True]), rng)
    made = execution.fit(passage, passage, output_ND, decoder, order_L=order_L, penalty=1e-12)
    assert set(made.stand_ins) == set(execution.STAND_INS)
    for name in ("rules", "graded", "bits", "joint"):
        written = made.stand_ins[name].output(slice(3, 40))
        assert np.allclose(written, output_ND[3:40], atol=1e-5)
    assert not np.allclose(made.stand_ins["shuffled"].output(slice(None)), output_ND, atol=0.1)
    told = execution.tell(records, made, passage, decoder)
    assert [record["error"] for record in told] == pytest.approx([0] * 4, abs=1e-9)
    pooled = execution.pooled(told)
    assert (pooled["latents"], pooled["explained"]) == (4, 3)
    assert pooled["error"] == pytest.approx(0, abs=1e-9)
    weight_L = (decoder.weight_LD**2).sum(axis=1)
    variance_L = codes.toarray().var(axis=0) * len(token_N)
    assert pooled["variance"] == pytest.approx((weight_L * variance_L).sum(), rel=1e-4)


def test_shuffled_rules_of_other_text_tell_next_to_nothing():
    """A rule of independent positions moves a latent by noise alone."""
    rng = np.random.default_rng(1)
    codes = csc_array(random_codes((20_000, 30)))
    other = csc_array((rng.random((20_000, 30)) < 0.1).astype(float))
    levels = execution.calibrate(other, codes)
    mean_L = codes.sum(axis=0) / 20_000
    error = levels.squared_errors(other, codes).sum()
    variance = Levels(mean_L, mean_L).squared_errors(other, codes).sum()
    assert 0 < 1 - error / variance < 0.001


def test_everything_is_fitted_on_one_text_and_shown_on_another(fires):
    """The stand-ins of half of the positions, against numpy, from the other half."""
    rng = np.random.default_rng(2)
    codes = random_codes(fires.shape, seed=4)
    decoder = Decoder(rng.normal(size=(4, 5)), rng.normal(size=5))
    output_ND = rng.normal(size=(len(codes), 5))
    token_N = rng.integers(0, 6, len(codes))
    half = len(codes) // 2
    parts = []
    for part in (slice(half), slice(half, None)):
        own = fires[part]
        parts.append(Passage(token_N[part], csc_array(codes[part]), {"rules": own, "trigger": own}))
    token_N[half] = 6  # Only in the second half.
    order_L = np.array([2, 1, 3, 0])
    made = execution.fit(*parts, output_ND[:half], decoder, order_L=order_L, penalty=0.1).stand_ins
    written_ND = codes[:half] @ decoder.weight_LD + decoder.bias_D
    for name, values in (("token-latents", written_ND), ("token-output", output_ND[:half])):
        by_token = pd.DataFrame(values).groupby(token_N[:half]).mean()
        expected = [
            by_token.loc[token] if token in by_token.index else values.mean(axis=0)
            for token in token_N[half:]
        ]
        assert np.allclose(made[name].output(slice(None)), expected, atol=1e-5)
    mean = codes[:half].mean(axis=0) @ decoder.weight_LD + decoder.bias_D
    assert np.allclose(made["mean"].output(slice(0, 3)), mean, atol=1e-5)
    on_L = [codes[:half, i][codes[:half, i] > 0].mean() for i in range(4)]
    bits = (codes[half:] > 0) * on_L @ decoder.weight_LD + decoder.bias_D
    assert np.allclose(made["bits"].output(slice(None)), bits, atol=1e-5)
    dense = fires.toarray()
    variance = dense[:half].var(axis=0).mean() * half
    ridge = Ridge(alpha=0.1 * variance).fit(dense[:half], output_ND[:half])
    assert np.allclose(made["joint"].output(slice(None)), ridge.predict(dense[half:]), atol=1e-5)
    graded = np.zeros((len(codes) - half, 5)) + decoder.bias_D
    for latent in range(4):
        there = dense[:half, latent] > 0
        off = codes[:half, latent][~there].mean()
        on = codes[:half, latent][there].mean() if there.any() else off
        level = np.full(len(codes) - half, off)
        for place in np.flatnonzero(dense[half:, latent]):
            alike = codes[:half, latent][there & (token_N[:half] == token_N[half + place])]
            level[place] = np.append(alike, on).mean()
        graded += level[:, None] * decoder.weight_LD[latent]
    assert np.allclose(made["graded"].output(slice(None)), graded, atol=1e-5)
    shuffled = np.zeros((len(codes) - half, 5)) + decoder.bias_D
    for latent, other in enumerate(order_L):
        there = dense[:half, other] > 0
        off = codes[:half, latent][~there].mean()
        on = codes[:half, latent][there].mean() if there.any() else off
        level = np.where(dense[half:, other] > 0, on, off)
        shuffled += level[:, None] * decoder.weight_LD[latent]
    assert np.allclose(made["shuffled"].output(slice(None)), shuffled, atol=1e-5)


def test_a_decoder_is_fitted_to_codes(fires):
    rng = np.random.default_rng(0)
    codes = csc_array(random_codes((500, 6)))
    truth = Decoder(rng.normal(size=(6, 3)), rng.normal(size=3))
    output_ND = codes @ truth.weight_LD + truth.bias_D
    zero = Decoder(np.zeros((6, 3)), np.zeros(3))
    found = zero.refit("decoder", codes, output_ND, 1e-12)
    assert np.allclose(found.weight_LD, truth.weight_LD)
    assert np.allclose(found.bias_D, truth.bias_D)
    moved = Decoder(truth.weight_LD, np.zeros(3)).refit("bias", codes, output_ND, 1.0)
    assert np.allclose(moved.bias_D, truth.bias_D)


def test_features_that_never_vary_have_no_weight():
    nothing = csc_array((10, 3))
    found = execution.ridge(nothing, np.arange(20.0).reshape(10, 2), 0.1)
    assert not found.weight_LD.any()
    assert np.allclose(found.bias_D, [9, 10])


def test_shuffling_gives_everyone_anothers_sentence():
    explained_L = np.random.default_rng(0).random(50) < 0.6
    order_L = execution.others(explained_L, np.random.default_rng(1))
    assert (order_L[explained_L] != np.flatnonzero(explained_L)).all()
    assert set(order_L[explained_L]) == set(np.flatnonzero(explained_L))
    assert np.array_equal(order_L[~explained_L], np.flatnonzero(~explained_L))


def test_documents_go_on_in_rows_behind_those_without_an_end():
    rows = np.array([[1, 5, 2, 0], [1, 5, 5, 5], [1, 5, 5, 5], [1, 5, 2, 0], [1, 2, 0, 0]])
    assert execution.documents(rows, eos=2).tolist() == [0, 1, 1, 1, 2]


def test_the_share_kept():
    kl = np.zeros((4, len(execution.NAMES), 2))
    for name, by_place in {"rules": [1, 2, 3, 4], "mean": [2, 8, 4, 0]}.items():
        kl[:, execution.NAMES.index(name)] = np.array(by_place)[:, None] / 2
    found = execution.kept(kl, ["a", "b", "c", "all"], execution.NAMES)
    assert found == {"a": 0.5, "b": 0.75, "c": 0.25, "all": None, "later": round(1 - 5 / 12, 6)}

"""Training against sparsify's Trainer and a kill; initial weights; schedule; rows."""

from __future__ import annotations

import clearnets  # isort: skip  # noqa: F401  # Run as a script, too: it comes before torch.

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_pair import BOS, CTX, EOS, build_models, packed_rows, tiny_config
from tiny_training import (
    NAMES,
    PER_READ,
    REVIVAL,
    ROWS,
    STEPS,
    Stopped,
    assert_same_bits,
    batch,
    batches,
    new_coders,
    stop_at,
    tensors,
    trained,
)
from transformers import get_linear_schedule_with_warmup

from clearnets import UserError
from clearnets.coders import feedforward, library, training
from clearnets.coders.batches import plan_rows
from clearnets.families import FAMILIES

KINDS = ("sae", "transcoder", "skip-transcoder", "groupmax-transcoder")


@pytest.mark.parametrize("family", ["sae", "transcoder", "skip-transcoder"])
def test_same_run_as_sparsifys_trainer(family, tmp_path, monkeypatch):
    from datasets import Dataset
    from sparsify import SparseCoderConfig, TrainConfig, Trainer

    monkeypatch.chdir(tmp_path)
    model = build_models(tiny_config())["dense"]
    config = TrainConfig(
        SparseCoderConfig(
            num_latents=64,
            k=4,
            transcode=FAMILIES[family].transcode,
            skip_connection=FAMILIES[family].skip,
        ),
        batch_size=ROWS,
        optimizer="adam",
        lr=5e-3,
        lr_warmup_steps=2,
        exclude_tokens=[0, BOS, EOS],
        hookpoints=list(NAMES),
        log_to_wandb=False,
        save_dir=str(tmp_path),
    )
    rows = {"input_ids": packed_rows(STEPS * ROWS, 0).astype(np.int64)}
    theirs = Trainer(config, Dataset.from_dict(rows).with_format("torch"), model)
    initial = new_coders(family)
    for name, coder in theirs.saes.items():
        coder.load_state_dict(initial[name].state_dict())
    theirs.fit()

    ours, _ = trained(family, tmp_path, bias_step=0.0)
    expected = tensors(theirs.saes)
    for name, tensor in tensors(ours).items():
        # Sums in another order, and sparsify leaves the decoder as its last step made it: the
        # rate there is near zero, so that its norm is one to 1e-3.
        torch.testing.assert_close(tensor, expected[name], rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize("family", ["sae", "transcoder"])
def test_pieces_of_a_batch_change_only_rounding(family, tmp_path):
    expected, report = trained(family, tmp_path / "whole", steps=6)
    split, again = trained(family, tmp_path / "pieces", steps=6, micro_acc_steps=3)
    expected = tensors(expected)
    for name, tensor in tensors(split).items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-3, atol=1e-4)
    assert again.fvu == pytest.approx(report.fvu, rel=1e-4)
    assert again.dead == report.dead


def test_steps_of_two_batches_by_hand(tmp_path):
    """Adam on the mean of two batches' losses, each normalised by itself; the first rate is 0."""
    coders, _ = trained("transcoder", tmp_path, steps=3, grad_acc_steps=2, bias_step=0.0)
    model = build_models(tiny_config())["dense"]
    for layer, (name, coder) in enumerate(new_coders("transcoder").items()):
        initial = {n: p.detach().clone() for n, p in coder.named_parameters()}
        optimizer = torch.optim.Adam(coder.parameters())
        for step, rate in enumerate((0.0, 2.5e-3, 5e-3)):
            pairs = []
            for one in (batch(2 * step), batch(2 * step + 1)):
                reading, _ = feedforward.read(model, one.tokens_BS)
                pairs.append([r[layer][one.counted_BS] for r in (reading.inputs, reading.outputs)])
            if step == 0:
                training.start_biases(coder, *pairs[0])
            sum(coder(x_ND, y_ND).fvu / 2 for x_ND, y_ND in pairs).backward()
            optimizer.param_groups[0]["lr"] = rate
            optimizer.step()
            optimizer.zero_grad()
        for n, p in coders[name].named_parameters():
            torch.testing.assert_close(p, dict(coder.named_parameters())[n], rtol=0, atol=2e-4)
        assert (coder.W_dec - initial["W_dec"]).abs().max() > 4e-3


@pytest.mark.parametrize("optimizer", ["adam", "signum"])
def test_accumulated_steps_resume_to_the_same_bits(optimizer, tmp_path):
    run = {"steps": STEPS // 2, "grad_acc_steps": 2, "micro_acc_steps": 2, "optimizer": optimizer}
    expected, report = trained("sae", tmp_path / "whole", **run)
    with pytest.raises(Stopped):
        trained("sae", tmp_path / "cut", on_step=stop_at(5), **run)
    steps = []
    resumed, again = trained("sae", tmp_path / "cut", on_step=steps.append, **run)
    assert steps == [5]
    assert_same_bits(expected, resumed)
    assert report == again


def test_bfloat16_trains_float32_coders(tmp_path):
    exact, report = trained("transcoder", tmp_path / "exact")
    rounded, again = trained("transcoder", tmp_path / "rounded", precision="bfloat16")
    assert {tensor.dtype for tensor in tensors(rounded).values()} == {torch.float32}
    for name in NAMES:
        assert 1e-6 < abs(again.fvu[name] - report.fvu[name]) < 0.05
        assert not torch.equal(exact[name].W_dec, rounded[name].W_dec)


def test_initial_weights_are_seeded_by_hookpoint_and_shared_with_the_twin(tmp_path):
    sae, twin = new_coders("sae"), new_coders("random-sae")
    assert_same_bits(sae, twin)
    assert_same_bits(sae, new_coders("sae"))
    weight = sae["layers.0.mlp"].encoder.weight
    assert torch.equal(weight, new_coders("transcoder")["layers.0.mlp"].encoder.weight)
    assert not torch.equal(weight, sae["layers.1.mlp"].encoder.weight)
    assert not torch.equal(weight, new_coders("sae", seed=1)["layers.0.mlp"].encoder.weight)
    before = torch.random.get_rng_state()
    new_coders("sae")
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("family", ["random-sae", "random-transcoder"])
def test_twins_are_centred_and_not_trained(family, tmp_path):
    coders, report = trained(family, tmp_path, steps=0)
    reading, _ = feedforward.read(build_models(tiny_config())["dense"], batch(0).tokens_BS)
    counted = batch(0).counted_BS
    for layer, (name, coder) in enumerate(coders.items()):
        fresh = new_coders(family)[name]
        torch.testing.assert_close(coder.b_dec, reading.outputs[layer][counted].mean(0))
        assert torch.equal(coder.encoder.weight, fresh.encoder.weight)
        assert torch.equal(coder.W_dec, fresh.W_dec)
        if coder.cfg.transcode:
            mean_D = reading.inputs[layer][counted].mean(0)
            expected_L = -(fresh.encoder.weight @ mean_D)
            torch.testing.assert_close(coder.encoder.bias, expected_L)
        assert np.isnan(report.fvu[name])


def test_training_lowers_fvu_and_keeps_decoders_of_unit_norm(tmp_path):
    coders, report = trained("sae", tmp_path)
    untrained, _ = trained("sae", tmp_path / "none", steps=0)
    model = build_models(tiny_config())["dense"]
    last = batch(STEPS - 1)
    reading, _ = feedforward.read(model, last.tokens_BS)
    for layer, name in enumerate(NAMES):
        y_ND = reading.outputs[layer][last.counted_BS]
        before, after = (float(c[name](y_ND).fvu.detach()) for c in (untrained, coders))
        assert after < 0.8 * before
        # The report covers the last step, before its update.
        assert report.fvu[name] == pytest.approx(after, rel=0.1)
        norms_L = coders[name].W_dec.norm(dim=1)
        torch.testing.assert_close(norms_L, torch.ones_like(norms_L))
        with torch.no_grad():
            fired = coders[name].encode(y_ND).top_indices.unique().numel()
        assert report.dead[name] == pytest.approx(1 - fired / 64, abs=0.1)


def test_masked_tokens_change_nothing(tmp_path):
    """What a feedforward does at bos and eos is out of training: attention is the only way."""
    model = build_models(tiny_config())["dense"]
    one = batch(0)
    reading, _ = feedforward.read(model, one.tokens_BS)
    masked = ~one.counted_BS
    assert masked[:, 0].all()
    assert (masked == ((one.tokens_BS <= EOS) | (torch.arange(CTX) == 0))).all()
    results = []
    for scale in (1.0, 50.0):
        changed = [torch.where(masked[..., None], y * scale, y) for y in reading.outputs]

        def fake(*_, changed=changed):
            return feedforward.Reading(reading.inputs, changed, []), changed[-1]

        coders = new_coders("sae")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(feedforward, "read", fake)
            schedule = training.Schedule("adam", 5e-3, 0, 2)
            chain = training.Chain(coders, tmp_path / "coders.pt")
            training.train(model, [chain], lambda _: one, schedule)
        results.append(coders)
    assert_same_bits(*results)


@pytest.mark.parametrize("optimizer", ["adam", "signum"])
def test_interrupted_run_goes_on_to_the_same_bits(optimizer, tmp_path):
    expected, report = trained("sae", tmp_path / "whole", optimizer=optimizer)
    with pytest.raises(Stopped):
        trained("sae", tmp_path / "cut", optimizer=optimizer, on_step=stop_at(7))
    steps = []
    resumed, again = trained("sae", tmp_path / "cut", optimizer=optimizer, on_step=steps.append)
    assert steps == list(range(5, STEPS))
    assert_same_bits(expected, resumed)
    assert report == again


@pytest.mark.parametrize("optimizer", ["adam", "signum"])
def test_families_trained_together_are_those_trained_alone(optimizer, tmp_path):
    """One pass over the data, one family of it interrupted before: the same bits."""

    alone = {kind: trained(kind, tmp_path / kind / "alone", optimizer=optimizer) for kind in KINDS}
    together = {family: new_coders(family) for family in KINDS}
    with pytest.raises(Stopped):
        trained("transcoder", tmp_path / "transcoder", optimizer=optimizer, on_step=stop_at(7))
    assert (tmp_path / "transcoder" / "coders.pt").exists()
    steps = []
    reports = training.train(
        build_models(tiny_config())["dense"],
        [training.Chain(c, tmp_path / family / "coders.pt") for family, c in together.items()],
        batches,
        training.Schedule(optimizer, 5e-3, 2, STEPS, **REVIVAL),
        per_read=PER_READ,
        on_step=steps.append,
    )
    assert steps == list(range(STEPS))
    for (coders, report), again, coders_again in zip(alone.values(), reports, together.values()):
        assert_same_bits(coders, coders_again)
        assert report == again


def test_some_layers_alone_are_those_of_all(tmp_path):
    every, report = trained("sae", tmp_path)
    for name in NAMES:
        coders = {name: new_coders("sae")[name]}
        (alone,) = training.train(
            build_models(tiny_config())["dense"],
            [training.Chain(coders, tmp_path / f"{name}.pt")],
            batches,
            training.Schedule("adam", 5e-3, 2, STEPS, **REVIVAL),
            per_read=PER_READ,
        )
        assert_same_bits(coders, {name: every[name]})
        assert (alone.fvu[name], alone.dead[name]) == (report.fvu[name], report.dead[name])


@pytest.mark.nightly
def test_killed_process_goes_on_to_the_same_bits(tmp_path):
    command = [sys.executable, __file__, str(tmp_path)]
    killed = subprocess.run(command, check=False, cwd=Path(__file__).parent)
    assert killed.returncode == -signal.SIGKILL
    assert (tmp_path / "coders.pt").exists()
    steps = []
    resumed, _ = trained("skip-transcoder", tmp_path, on_step=steps.append)
    assert steps[0] == 5
    expected, _ = trained("skip-transcoder", tmp_path / "whole")
    assert_same_bits(expected, resumed)


def test_signum_saves_the_averaged_weights(tmp_path):
    """Their definition, naively: x is the mean of z weighted by squared rates, y between."""
    coders, _ = trained("transcoder", tmp_path, optimizer="signum", steps=3, bias_step=0.0)
    name = NAMES[0]
    model = build_models(tiny_config())["dense"]
    naive = new_coders("transcoder")[name]
    for step in range(3):
        one = batch(step)
        reading, _ = feedforward.read(model, one.tokens_BS)
        x_ND = reading.inputs[0][one.counted_BS]
        y_ND = reading.outputs[0][one.counted_BS]
        if step == 0:
            training.start_biases(naive, x_ND, y_ND)
            z = {n: p.detach().clone() for n, p in naive.named_parameters()}
            mean = {n: p.clone() for n, p in z.items()}
        naive(x_ND, y_ND).fvu.backward()
        for n, p in naive.named_parameters():
            z[n] -= 5e-3 * p.grad.sign()
            mean[n] += (z[n] - mean[n]) / (step + 1)
            p.data = 0.05 * z[n] + 0.95 * mean[n]
            p.grad = None
    for n, p in coders[name].named_parameters():
        torch.testing.assert_close(p, mean[n], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("optimizer", ["adam", "signum"])
def test_biases_of_silent_latents_rise_by_hand(optimizer, tmp_path):
    """A run of which every step is known: all latents but those of one layer's half are silent."""
    coders = new_coders("transcoder")
    one, off = batch(0), torch.arange(64) % 2 == 0
    for coder in coders.values():
        coder.encoder.weight.data[off] = 0  # They read nothing, so their bias alone moves.
    reading, _ = feedforward.read(build_models(tiny_config())["dense"], one.tokens_BS)
    schedule = training.Schedule(optimizer, 4e-3, 2, 7, bias_step=0.1, silent_steps=3)
    with pytest.MonkeyPatch.context() as patch:
        # Other latents are preferred: at first the bias of these is far below zero.
        start = training.start_biases

        def lowered(coder, x_ND, y_ND):
            start(coder, x_ND, y_ND)
            coder.encoder.bias.data[off] = -10

        patch.setattr(training, "start_biases", lowered)
        training.train(
            build_models(tiny_config())["dense"],
            [training.Chain(coders, tmp_path / "coders.pt", learning_rate=2e-3)],
            batches,
            schedule,
        )
    # Raised after the third step and each of the four behind it, scaled as the rate is.
    shares = [1.0] * 7 if optimizer == "signum" else [0, 1 / 2, 1, 4 / 5, 3 / 5, 2 / 5, 1 / 5]
    for layer, coder in enumerate(coders.values()):
        x_ND = reading.inputs[layer][one.counted_BS].double().numpy()
        expected = -10 + 0.1 * np.sqrt(((x_ND - x_ND.mean(0)) ** 2).mean()) * sum(shares[2:])
        torch.testing.assert_close(
            coder.encoder.bias[off], torch.full((32,), expected).float(), rtol=1e-5, atol=1e-5
        )


@pytest.mark.parametrize(("warmup", "steps"), [(0, 4), (3, 10), (5, 5)])
def test_rates_are_those_of_transformers(warmup, steps):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
    theirs = get_linear_schedule_with_warmup(optimizer, warmup, steps)
    ours = training.Schedule("adam", 0.3, warmup, steps)
    for step in range(steps):
        assert ours.rate(step) == pytest.approx(theirs.get_last_lr()[0])
        optimizer.step()
        theirs.step()
    assert training.Schedule("signum", 0.3, warmup, steps).rate(0) == 0.3


def test_rows_are_distinct_and_named_by_the_seed():
    plan = plan_rows(100, tokens=50 * CTX + 3, batch_size=4, ctx_len=CTX, seed=0)
    assert plan.shape == (12, 4)
    assert len(np.unique(plan)) == plan.size
    again = plan_rows(100, tokens=50 * CTX + 3, batch_size=4, ctx_len=CTX, seed=0)
    assert (plan == again).all()
    other = plan_rows(100, tokens=50 * CTX + 3, batch_size=4, ctx_len=CTX, seed=1)
    assert (plan != other).any()
    assert plan_rows(4, tokens=1, batch_size=4, ctx_len=CTX, seed=0).shape == (1, 4)
    with pytest.raises(UserError, match=r"lower coders\.tokens or raise data\.tokens\.train"):
        plan_rows(47, tokens=48 * CTX, batch_size=4, ctx_len=CTX, seed=0)


def test_a_damaged_coder_is_named(tmp_path):
    folder = tmp_path / "layers.0.mlp"
    with pytest.raises(UserError, match=r"layers\.0\.mlp is missing"):
        library.load_coder(folder)
    coder = new_coders("sae")["layers.0.mlp"]
    coder.save_to_disk(folder)
    same = library.load_coder(folder)
    assert_same_bits({"": coder}, {"": same})
    file = folder / "sae.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(UserError, match=r"sae\.safetensors is damaged"):
        library.load_coder(folder)


def _killed_at_step_7(state: Path) -> None:
    import os

    torch.set_num_threads(1)

    def kill(step: int) -> None:
        if step == 7:
            os.kill(os.getpid(), signal.SIGKILL)

    trained("skip-transcoder", state, on_step=kill)


if __name__ == "__main__":
    _killed_at_step_7(Path(sys.argv[1]))

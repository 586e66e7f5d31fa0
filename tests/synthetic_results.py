"""Writes what the stages before collate leave, with made-up numbers of plausible shape.

The truth is known: every family has a mean score that rises with its firing rate, so that tests
can say what a table must hold.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from clearnets import config
from clearnets.analysis.sources import CONCEPT_TABLES
from clearnets.autointerp import execution
from clearnets.autointerp.records import EFFECTS, ROC_STEPS
from clearnets.autointerp.rules.concept_naming import RULE_COLUMNS
from clearnets.browser import sampled
from clearnets.config import Config
from clearnets.families import DIRECTIONS, FAMILIES
from clearnets.latents import concept_tables, planted_truth, probed_corpus
from clearnets.pipeline import artifacts, paths
from clearnets.pipeline.runtime import seed_for
from clearnets.stages import concepts as stage
from clearnets.stages import intervene, overlap, planted, probes
from clearnets.stages import stability as stage_of_stability

ROOT = Path(__file__).parents[1]
# Mean rule-detection at a firing rate of 1 %, and mean log10 firing rate.
TRUTH = {
    "native": (0.80, -2.2),
    "topk-native": (0.80, -2.2),
    "transcoder": (0.78, -2.1),
    "groupmax-transcoder": (0.79, -2.1),
    "skip-transcoder": (0.77, -2.1),
    "sae": (0.75, -2.0),
    "neurons": (0.68, -1.4),
    "random-native": (0.66, -2.0),
    "random-topk-native": (0.66, -2.0),
    "random-transcoder": (0.70, -2.0),
    "random-groupmax-transcoder": (0.71, -2.0),
    "random-sae": (0.69, -2.0),
    "step0-transcoder": (0.69, -2.0),
    "token-unigram": (0.99, -3.0),
}
COLUMNS = {
    "concepts": concept_tables.CONCEPT_COLUMNS,
    "draws": concept_tables.DRAW_COLUMNS,
    "latents": concept_tables.LATENT_COLUMNS,
    "rules": RULE_COLUMNS,
}
LOSSES = {"unigram": 5.1, "bigram": 2.9, "trigram": 1.9, "generator_bound": 0.62}


def small(**over: Any) -> Config:
    """The default experiment with three layers, two seeds and few latents, and `over` above it."""
    base = config.read_yaml(ROOT / "params.yaml")
    sizes = {
        "seeds": [0, 1],
        "families": list(TRUTH),
        "model": {"num_layers": 3},
        "explain": {"latents": 40},
        "collate": {"resamples": 200, "min_stratum": 10},
    }
    return config.parse(config.overlay(config.overlay(base, sizes), over), "params.yaml")


def few(**over: Any) -> Config:
    """`small` with two families and one task of the observatory, and `over` above it."""
    sizes = {
        "families": ["native", "transcoder"],
        "generalize": {"tasks": ["grokking"]},
    }
    return small(**config.overlay(sizes, over))


def write(cfg: Config) -> None:
    """Write every unit that collate reads, below the working directory."""
    for task in cfg.generalize.tasks:
        _unit("generalize", paths.generalize(task), _observed, task)
    _unit("data", paths.data(), lambda out: artifacts.write_json(out / "stats.json", LOSSES))
    _unit("sample", paths.sampled(), _sampled)
    _unit("planted", paths.planted(), _planted, cfg)
    for seed in cfg.seeds:
        for mlp in cfg.models:
            _unit("train", paths.train(mlp, seed), _curve, mlp, seed)
        _unit("match", paths.match(seed), _pair, cfg, seed)
        _unit("evaluate", paths.evaluate(seed), _evaluation, cfg, seed)
        for family in cfg.families:
            _unit("cache", paths.cache(family, seed, "explain"), _cache, cfg, family)
            _unit("overlap", paths.overlap(family, seed), _overlap, cfg, family, seed)
            _unit("concepts", paths.concepts(family, seed), _concepts, cfg, family, seed)
            _unit("probes", paths.probes(family, seed), _probes, cfg, family, seed)
            if family in cfg.executed_families:
                _unit("execute", paths.execute(family, seed), _executed, cfg, family, seed)
                _unit("effects", paths.effects(family, seed), _effects, cfg, family, seed)
                _unit("intervene", paths.intervene(family, seed), _intervened, cfg, family, seed)
            if family in cfg.circuit_families:
                _unit("circuits", paths.circuits(family, seed), circuits, family, seed)
            if family in cfg.stability_families:
                _unit("stability", paths.stability(family, seed), _stability, cfg, family, seed)
            for layer, point in _points(cfg, family):
                own = (family, seed, point)
                _unit("score", paths.score(*own), _scores, cfg, family, seed, layer)
                _unit("similarity", paths.similarity(*own), _similarity, *own)


def _observed(out: Path, task: str) -> None:
    """Five seeds of two variants in which everything changes at step 100."""
    runs, curves, measures = [], [], []
    for variant in ("dense", "sparse"):
        for seed in range(5):
            name = f"{variant}-{seed}"
            rng = _rng("observed", task, name)
            steps = [0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000]
            losses = [(4 if step < 100 else 0.5) + 0.01 * rng.random() for step in steps]
            train = [4.0 / (1 + step) for step in steps]
            last = (1000, f"{train[-1]:.6g}", 1.0, f"{losses[-1]:.6g}", 0.99)
            runs.append((name, seed, variant, *last, f"{losses[-1] - train[-1]:.6g}", True))
            for step, own, loss in zip(steps, train, losses):
                seen, unseen = 1.0 * (step >= 10), 1.0 * (step >= 100)
                curves.append((name, step, f"{own:.6g}", seen, f"{loss:.6g}", unseen))
                fvu = 0.6 - 0.4 * unseen + 0.01 * rng.random()
                excluded = abs(step - 10) / 100 + 0.1
                norm, needed = f"{30 + rng.random():.4g}", 40 - 30 * unseen
                circuit = (needed, needed + 5, np.log(needed), np.log(needed + 5))
                measures.append((name, step, "", norm, excluded, "", "", *circuit))
                for point in ("attention", "mlp"):
                    stability = "" if step == 0 else f"{0.5 + 0.4 * rng.random():.4g}"
                    found = (f"{fvu:.4g}", stability, *[""] * 4)
                    measures.append((name, step, point, "", "", *found))
    ends = "step,train_loss,train_accuracy,test_loss,test_accuracy"
    _csv(out / "runs.csv", f"run,seed,variant,{ends},gap,reached", runs)
    _csv(out / "curves.csv", f"run,{ends}", curves)
    head = "run,step,hookpoint,parameter_norm,excluded_loss,fvu,stability,"
    head += "circuit_size_zero,circuit_size_patch,node_entropy_zero,node_entropy_patch"
    _csv(out / "measures.csv", head, measures)


def _points(cfg: Config, family: str) -> list[tuple[int, str]]:
    points = FAMILIES[family].hookpoints([cfg.model.hookpoint(n) for n in cfg.model.layers])
    return list(enumerate(points))


def _unit(stage: str, out: Path, fill: Callable[..., None], *about: Any) -> None:
    unit = artifacts.Unit(stage, out, {"stage": stage, "out": str(out)}, {})
    for _, work in artifacts.build_all([unit]):
        fill(work.out, *about)


def _csv(path: Path, head: str, rows) -> None:
    lines = [head, *(",".join(str(cell) for cell in row) for row in rows)]
    path.write_text("\n".join(lines) + "\n")


def _rng(*names) -> np.random.Generator:
    return np.random.default_rng(seed_for(0, *names))


def _curve(out: Path, mlp: str, seed: int) -> None:
    steps = sorted({0, *(2**i for i in range(10)), *range(100, 977, 50), 976})
    final, speed = (0.83, 60) if mlp == "dense" else (0.78, 75)
    loss = [final + (6.93 - final) / (1 + step / speed) ** 1.4 + 0.004 * seed for step in steps]
    rows = [
        (s, s * 4096, "" if s == 0 else f"{x + 0.01:.5f}", f"{x:.5f}")
        for s, x in zip(steps, loss, strict=True)
    ]
    _csv(out / "curve.csv", "step,tokens,train_loss,valid_loss", rows)


def _pair(out: Path, cfg: Config, seed: int) -> None:
    pair = {}
    for mlp in cfg.models:
        step, less = (976, 0.0) if mlp == "dense" else (850, -0.003)
        pair[mlp] = {"step": step, "path": mlp, "valid_loss": 0.951 + less + 0.004 * seed}
        pair[mlp] |= {"difference": less, "matched": True}
    artifacts.write_json(out / "pair.json", pair)


def _evaluation(out: Path, cfg: Config, seed: int) -> None:
    layers, rng = cfg.model.layers, _rng("evaluate", seed)
    # All layers but the last matter.
    typical = np.geomspace(2.5, 0.005, len(layers))
    cost = {m: typical * rng.uniform(0.8, 1.2, len(layers)) for m in cfg.models}
    costs = [(m, n, f"{cost[m][n]:.6f}") for m in cost for n in layers]
    _csv(out / "ablation.csv", "model,layer,cost", costs)
    depth = [(m, f"{1.5 * sum(cost[m][1:]):.6f}", f"{1.5 * sum(cost[m]):.6f}") for m in cost]
    _csv(out / "depth.csv", "model,joint,joint_all", depth)
    base = {"sae": 0.10, "transcoder": 0.16, "skip-transcoder": 0.12}
    base |= {"groupmax-transcoder": 0.18, "random-groupmax-transcoder": 0.75}
    base |= {"random-sae": 0.55, "random-transcoder": 0.71, "step0-transcoder": 0.12}
    rows, spliced = [], []
    for family in cfg.coder_families:
        damage, spec = base[family], FAMILIES[family]
        for n in layers:
            fvu = damage * (1 + 0.5 * np.sin(n)) * rng.uniform(0.9, 1.1)
            ablate = 0.95 + cost["dense"][n]
            recovered = 1 - fvu * 0.8
            splice = 0.95 + cost["dense"][n] * (1 - recovered)
            linear = f"{0.42 - 0.02 * n:.4f}" if spec.transcode else ""
            dead = 0.02 * n + 0.01
            numbers = (8 - dead, dead, 0.55 + 0.03 * n, 0.34 - 0.01 * n, linear)
            losses = (0.95, ablate, splice, recovered)
            losses = ("",) * 4 if spec.untrained_model else losses
            rows.append((family, n, f"{fvu:.5f}", *numbers, *losses))
        if not spec.untrained_model:
            spliced.append((family, 0.95, 5.4, 0.95 + 4.45 * damage * 0.3, 1 - damage * 0.3))
    losses = "loss_clean,loss_ablate,loss_splice,loss_recovered"
    head = "family,layer,fvu,l0,dead,fvu_token_mean,fvu_pca,fvu_linear,"
    _csv(out / "coders.csv", head + losses, rows)
    _csv(out / "splice_all.csv", "family," + losses, spliced)
    natives = [name for name in cfg.families if FAMILIES[name].kind == "native"]
    _csv(
        out / "native.csv",
        "family,layer,l0,dead",
        [(family, n, 7.5, 0.05) for family in natives for n in layers],
    )
    artifacts.write_json(out / "summary.json", _sizes(cfg))


def _sizes(cfg: Config) -> dict[str, Any]:
    """Return parameters, FLOPs and losses of models and coders."""
    dense, sparse = (531_000, 1_100_000, 0.951), (1_190_000, 1_600_000, 0.948)
    columns = ("parameters", "flops_per_token_forward", "heldout_loss")
    models = {
        mlp: dict(zip(columns, numbers))
        | {"parameters_without_embeddings": numbers[0] - 196_608, "training_tokens": 3_997_696}
        for mlp in cfg.models
        for numbers in [dense if mlp == "dense" else sparse]
    }
    coders = {
        family: {"parameters": 1_057_280, "flops_per_token_forward": 1_100_000}
        | {"training_tokens": 300_000 * FAMILIES[family].trained}
        for family in cfg.coder_families
    }
    for family in cfg.coders.existing:
        coders[family]["training_tokens"] = None
    for entry in (*models.values(), *coders.values()):
        entry["flops_per_token_training"] = 3 * entry["flops_per_token_forward"]
        tokens = entry["training_tokens"]
        entry["training_flops"] = tokens and tokens * entry["flops_per_token_training"]
    return {"models": models, "coders": coders}


def _cache(out: Path, cfg: Config, family: str) -> None:
    width: dict[str, int] = {"neurons": 512, "token-unigram": cfg.data.vocab_size}
    width |= dict.fromkeys(cfg.coders.existing, 4096)
    point = {
        "num_latents": width.get(family, cfg.model.num_latents),
        "entries": 1000 if family == "token-unigram" else 7900,
    }
    hookpoints = {name: point for _, name in _points(cfg, family)}
    artifacts.write_json(out / "stats.json", {"tokens": 1000, "hookpoints": hookpoints})


# Share of 50 active windows that are judged right under each protocol, beside half of 50 others.
OVERLAP = {"delphi": 0.8, "disjoint": 0.74, "held-out": 0.7}


def _overlap(out: Path, cfg: Config, family: str, seed: int) -> None:
    """Latents whose scores differ between the protocols by what `OVERLAP` says, with noise."""
    rng = _rng("overlap", family, seed)
    rows = []
    for _, point in _points(cfg, family):
        for latent in range(30):
            rate = float(10 ** rng.normal(-2, 0.5))
            row: dict[str, Any] = {"hookpoint": point, "latent": latent, "rate": rate}
            row |= {"status": "explained", "windows": min(1.0, 20 * rate)}
            if latent == 0:
                rows.append(row | {"status": "dead", "rate": 0, "windows": 0})
                continue
            if latent == 1:
                rows.append(row | {"status": "unscorable"})
                continue
            for protocol, share in OVERLAP.items():
                seen = int(rng.integers(10, 21)) if protocol == "delphi" else 0
                one = row | {"protocol": protocol, "positives": 50, "seen": seen}
                for scorer in ("detection", "fuzzing"):
                    tp = int(rng.binomial(50, share))
                    cells = {"tp": tp, "fn": 50 - tp, "tn": 25, "fp": 25}
                    one |= {f"{scorer}_{cell}": value for cell, value in cells.items()}
                rows.append(one)
    artifacts.write_table(out / overlap.TABLE, overlap.COLUMNS, rows)


# What is left of the divergence of latents at their mean with each stand-in.
LEFT = {
    "bits": 0.1,
    "joint": 0.3,
    "rules": 0.6,
    "graded": 0.5,
    "trigger": 0.8,
    "token-latents": 0.4,
}
LEFT |= {"token-output": 0.5, "shuffled": 0.99, "mean": 1.0, "exact": 0.0}


def _executed(out: Path, cfg: Config, family: str, seed: int) -> None:
    """Forty rows of thirty documents; each layer is worth as much as all below it together."""
    rng = _rng("executed", family, seed)
    points = [point for _, point in _points(cfg, family)]
    worth_P = 0.1 * 2.0 ** np.arange(len(points) + 1)
    left_C = np.array([LEFT[name] for name in execution.NAMES])
    row_R = 0.5 + rng.random(40)
    tokens_R = rng.integers(50, 100, 40)
    kl_PCR = worth_P[:, None, None] * left_C[:, None] * row_R * tokens_R
    clean_R = 2.0 * tokens_R
    sums = {"nll": clean_R + 1.5 * kl_PCR, "kl": kl_PCR, "clean": clean_R, "tokens": tokens_R}
    sums["document"] = np.minimum(np.arange(40), 29)
    artifacts.write_bytes(out / execution.ROWS, save(sums))
    layer = {"latents": 1024, "explained": 900, "error": 3.0, "variance": 4.0}
    told = {"stand_ins": execution.NAMES, "layers": dict.fromkeys(points, layer)}
    artifacts.write_json(out / execution.SUMMARY, told)


def _effects(out: Path, cfg: Config, family: str, seed: int) -> None:
    """Of thirty latents in each layer; own sentences are well above those of others."""
    rng = _rng("effects", family, seed)
    records = []
    for layer, _ in _points(cfg, family):
        for latent in range(30):
            record: dict[str, Any] = {"layer": layer, "latent": latent, "effect": 'Raises "he".'}
            record |= {"tokens_explain": 16, "tokens_score": 16, "cost": rng.normal(0, 0.01)}
            record |= {"divergence": 0.02 * rng.random(), "divergence_random": 0.01}
            for source in ("effect", "lens", "random"):
                chance = source == "random"
                record[f"{source}_auroc"] = (0.5 if chance else 0.8) + 0.1 * rng.normal()
                record[f"{source}_auroc_shuffled"] = 0.5 + 0.05 * rng.normal()
            records.append(record)
    artifacts.write_jsonl(out / EFFECTS, records)


def _intervened(out: Path, cfg: Config, family: str, seed: int) -> None:
    """Of two concepts of each kind, most on target, and of ten latents in each layer."""
    rng, targets, records = _rng("intervene", family, seed), [], []
    kinds = ("lexical", "local", "contextual") if cfg.concept_splits else ()
    for kind, number in product(kinds, range(2)):
        row: dict[str, Any] = {"concept": f"{kind}_{number}", "kind": kind, "layer": 0}
        row |= {"latent": number, "tokens": 40, "inside": 0.3, "outside": 0.01, "own": number}
        row |= {"share": 0.5 + 0.3 * rng.random(), "share_others": 0.1, "share_tokens": 0.05}
        targets.append(row)
    artifacts.write_table(out / intervene.TARGETS, intervene.TARGET_COLUMNS, targets)
    for (layer, _), latent in product(_points(cfg, family), range(10)):
        record = {"layer": layer, "latent": latent, "strength": 2.0, "divergence": 0.2}
        record |= {"steer_auroc": 0.8 + 0.05 * rng.normal(), "random_auroc": 0.5}
        records.append(record | {"steer_auroc_shuffled": 0.5 + 0.05 * rng.normal()})
    artifacts.write_jsonl(out / intervene.STEERED, records)


def _sampled(out: Path) -> None:
    """One latent with two windows of three tokens, of which one reads as a missing value would."""
    names = {"part": "good", "family": "native"}
    latent = names | {"seed": 0, "layer": 1, "latent": 2, "scorer": "rule-detection", "score": 0.8}
    sentences = {"explanation": 'The word "null".', "effect": 'Raises "he".'}
    artifacts.write_table(out / "sampled.csv", sampled.COLUMNS, [latent | sentences])
    tokens = [
        names | {"window": w, "place": p, "text": text, "share": p / 2, "fires": p % 2}
        for w in (1, 2)
        for p, text in enumerate((" the", "null", ","))
    ]
    artifacts.write_table(out / "sampled_tokens.csv", sampled.TOKEN_COLUMNS, tokens)


def circuits(out: Path, family: str, seed: int) -> None:
    """Circuits of one task whose faithfulness is 1 - 1 / (1 + n), and of the control."""
    rng = _rng("circuits", family, seed)
    answers, curves, nodes, links = [], [], [], []
    for task, whole in (("wear", 2.0), ("nonsense", 0.1)):
        record = {"task": task, "pairs": 8, "length": 9, "accuracy": 0.9, "difference": whole}
        record |= {"low": whole - 0.1, "high": whole + 0.1, "done": whole > 1, "nodes": 500}
        record |= {"whole": whole, "none": 0.5, "integrated": whole - 0.5, "errors": 0.1}
        record |= {"integrated_rank": 0.9, "patching_rank": 0.8, "links_rank": 0.7}
        record["tokens"] = ["<bos>"] * 9
        record["answers"] = [" boots", " hat"]
        answers.append(record)
        shares = {("whole", 500): 1.0, ("none", 0): 0.0, ("errors", 0): 0.1, ("latents", 500): 0.9}
        for size in (1, 4, 16, 64):
            shares |= {(kind, size): 1 - 1 / (1 + size) for kind in ("kept", "alone")}
        shares |= {(kind, 16): 0.2 for kind in ("without", "random")}
        noise = 0.01 * rng.normal(size=4)
        for (kind, size), share in shares.items():
            difference = (0.5 + share * (whole - 0.5 + noise)).tolist()
            row = {"task": task, "circuit": kind, "nodes": size}
            curves.append(row | {"difference": difference})
        for latent in range(20):
            place = {"task": task, "layer": latent % 2, "position": 3, "latent": latent * 7}
            nodes.append(place | {"integrated": 1 / (1 + latent), "patching": 0.1})
            ends = [None, latent + 1] if latent % 2 == 0 else [None]
            links += [
                {"task": task, "source": latent, "target": end, "weight": 0.5 / (1 + latent)}
                for end in ends
            ]
    for name, rows in (
        *(("answers", answers), ("circuits", curves), ("nodes", nodes), ("links", links)),
        ("training", _followed(family)),
    ):
        artifacts.write_jsonl(out / f"{name}.jsonl", rows)


def _followed(family: str) -> list[dict[str, Any]]:
    """Two checkpoints, at the second of which a model can do a task."""
    if family not in ("native", "neurons"):
        return []
    rows = []
    for step, done in ((10, False), (100, True)):
        row = {"step": step, "valid_loss": 5 - done, "task": "wear", "pairs": 8}
        row |= {"accuracy": 0.5 + 0.4 * done, "difference": 2.0 * done, "done": done}
        row |= {"whole": 2.0, "none": 0.0, "nodes": 500} if done else {}
        kept = [[size, 2 - 2 / (1 + size)] for size in (1, 4, 16)] if done else []
        rows.append(row | {"kept": kept})
    return rows


def _stability(out: Path, cfg: Config, family: str, seed: int) -> None:
    """Of every seventh latent, those with a score: its counterpart in each other run."""
    rng = _rng("stability", family, seed)
    later = [f"seed-{other}" for other in cfg.seeds if other > seed]
    again = [stage_of_stability.RESEEDED] if family in cfg.reseeded_families else []
    rows = []
    for other, (layer, _), number in product(
        [*again, *later], _points(cfg, family), range(cfg.explain.latents)
    ):
        row: dict[str, Any] = {"other": other, "layer": layer}
        row |= {"latent": 7 * number, "partner": 7 * number}
        row |= {"tokens": int(rng.integers(0, 200)), "null_correlation": 0.2}
        row["decoder_cosine"] = 0.5 if other == stage_of_stability.RESEEDED else None
        rows.append(row | {"correlation": float(np.clip(0.6 + 0.2 * rng.normal(), 0, 1))})
    artifacts.write_table(out / stage_of_stability.LATENTS, stage_of_stability.COLUMNS, rows)


def _planted(out: Path, cfg: Config) -> None:
    """Two measures of dictionaries, each worse than the one before."""
    names = [*planted_truth.DICTIONARIES, *planted.SELECTIONS, "untrained"]
    rows = [
        {"seed": seed, "dictionary": name, "measure": measure, "value": 1 - 0.05 * number}
        | {"trained": name not in planted_truth.DICTIONARIES}
        for seed in cfg.planted.seeds
        for number, name in enumerate(names)
        for measure in ("truth", "stability")
    ]
    artifacts.write_table(out / planted.TABLE, planted.COLUMNS, rows)


def _probes(out: Path, cfg: Config, family: str, seed: int) -> None:
    """Of two concepts of each kind: the more latents a probe reads, the better it is."""
    rng, rows = _rng("probes", family, seed), []
    points = [point for _, point in _points(cfg, family)]
    null = FAMILIES[family].null
    dense = [probes.DENSE] if FAMILIES[family].model else []
    for source, kind, number, size in product(
        [probed_corpus.OWN, *([null] if null in DIRECTIONS else [])] if cfg.concept_splits else (),
        ("lexical", "local", "contextual"),
        range(2),
        [*probes.SIZES, *dense],
    ):
        if size == probes.DENSE and source != probed_corpus.OWN:
            continue
        row: dict[str, Any] = {"source": source, "concept": f"{kind}_{number}", "kind": kind}
        row |= {"positives_fit": 100, "positives_test": 90, "token_set_f1": 0.4, "ngram_f1": 0.5}
        skill = 0.4 + 0.02 * (20 if size == probes.DENSE else int(size))
        row |= {"probe": size, "hookpoint": points[0], "f1_fit": skill, "auroc": 0.6 + skill / 3}
        rows.append(row | {"f1": float(np.clip(skill + 0.05 * rng.normal(), 0, 1))})
    artifacts.write_table(out / probed_corpus.TABLE, probes.COLUMNS, rows)


def _concepts(out: Path, cfg: Config, family: str, seed: int) -> None:
    """Four lexical and two contextual concepts; without rows where the corpus has no labels."""
    rng = _rng("concepts", family, seed)
    tables: dict[str, list[dict[str, Any]]] = {name: [] for name in CONCEPT_TABLES}
    null = FAMILIES[family].null
    sources = [stage.OWN, *([null] if null in DIRECTIONS else [])]
    for source in sources if cfg.concept_splits else ():
        _fill(cfg, tables, source, family, rng)
    for name, rows in tables.items():
        artifacts.write_table(out / f"{name}.csv", COLUMNS[name], rows)


def _fill(cfg: Config, tables: dict[str, list], source: str, family: str, rng) -> None:
    points = [point for _, point in _points(cfg, family)]
    kinds = ["lexical"] * 4 + ["contextual"] * 2
    skill = TRUTH["random-native" if source in DIRECTIONS else family][0]
    for number, kind in enumerate(kinds):
        score = float(np.clip(skill + 0.1 * rng.normal(), 0, 1))
        numbers = {"f1_fit": score, "f1": score, "mcc_fit": score, "mcc": score - 0.05}
        tables["concepts"].append(
            {
                "source": source,
                "concept": f"concept_{number}",
                "kind": kind,
                "positives_fit": 100,
                "positives_test": 90,
                "token_set": 5,
                "token_set_f1_fit": 0.95,
                "token_set_f1": 0.9 if kind == "lexical" else 0.6,
                "hookpoint": points[-1],
                "latent": number,
                "threshold": 0.5,
                **numbers,
                "drawn_f1": score - 0.1,
                "drawn_recovered": 0.4,
                "latents_recovering": 4,
                "layers_recovering": 2,
                "latents_recovering_in_layer": 2,
                "main_latents": 1 + number % 2,
                "main_f1": score,
                "absorbed": 0.02 * number,
            }
        )
        for point in points:
            score = float(np.clip(skill - 0.2 + 0.1 * rng.normal(), 0, 1))
            row = {"source": source, "hookpoint": point, "latent": number, "kind": kind}
            tables["latents"].append(row | {"concept": f"concept_{number}", "f1": score})
            row = {"hookpoint": point, "latent": number, "kind": kind, "f1": score}
            row |= {"concept": f"concept_{number}", "rule_concept": f"concept_{number % 3}"}
            row |= {"rule_f1": score - 0.04, "named": int(number < 3), "as_well": 1}
            if source == stage.OWN:
                tables["rules"].append(row | {"named_by_others": 0.1})
    tables["latents"].append({"source": source, "hookpoint": points[0], "latent": 9, "f1": 0.0})
    for draw in range(20):
        for kind in ("lexical", "contextual"):
            count = kinds.count(kind)
            row = {"source": source, "draw": draw, "kind": kind, "concepts": count}
            row["recovered"] = int(rng.binomial(count, skill))
            row["mean_f1"] = float(np.clip(skill - 0.1 + 0.05 * rng.normal(), 0, 1))
            tables["draws"].append(row)


def _scores(out: Path, cfg: Config, family: str, seed: int, layer: int) -> None:
    rng = _rng("scores", family, seed, layer)
    mean, location = TRUTH[family]
    count = cfg.explain.latents
    rate = np.clip(10 ** rng.normal(location, 0.5, count), 1e-6, 0.5)
    windows = np.clip(1 - (1 - rate) ** rng.uniform(12, 32, count), 1e-6, 1 - 1e-6)
    ends = ["explained", "dead", "too_rare", "too_frequent", "unscorable"]
    status = rng.choice(ends, count, p=[0.72, 0.08, 0.14, 0.02, 0.04])
    records = []
    for i in range(count):
        accuracy = mean + 0.08 * (np.log10(rate[i]) + 2) + rng.normal(0, 0.08)
        record = {
            "latent": i * 7,
            "status": str(status[i]),
            "rate": 0.0 if status[i] == "dead" else float(rate[i]),
            "windows": 0.0 if status[i] == "dead" else float(windows[i]),
        }
        for name, p in (("detection", accuracy), ("fuzzing", accuracy - 0.03)):
            record[name] = _counts(rng, p, status[i])
        records.append(record)
    _shuffle(rng, records)
    lines = [json.dumps(record) for record in records]
    (out / "scores.jsonl").write_text("\n".join(lines) + "\n")


def _shuffle(rng: np.random.Generator, records: list[dict[str, Any]]) -> None:
    there = [record for record in records if record["status"] == "explained"]
    for name in ("detection", "fuzzing"):
        for record in records:
            record[f"{name}_shuffled"] = record[f"{name}_elsewhere"] = None
        for record, shuffled, elsewhere in zip(there, *_others(rng, len(there))):
            record[f"{name}_shuffled"] = float(shuffled)
            record[f"{name}_elsewhere"] = float(elsewhere)


def _others(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean scores of all pairs about chance, from both sides; latents differ as the judged one and
    as the other."""
    judged, giver = rng.normal(0, 0.02, (n, 1)), rng.normal(0, 0.02, (1, n))
    pairs = 0.5 + judged + giver + rng.normal(0, 0.05, (n, n))
    np.fill_diagonal(pairs, 0)
    return pairs.sum(axis=1) / (n - 1), pairs.sum(axis=0) / (n - 1)


def _similarity(out: Path, family: str, seed: int, point: str) -> None:
    """The same latents, scored by embeddings: lower scores in a similar order. Every seventh of
    those with a score by rules is active in too few windows."""
    rng = _rng("similarity", family, seed, point)
    lines = (paths.score(family, seed, point) / "scores.jsonl").read_text().splitlines()
    records, there = [], 0
    for line in map(json.loads, lines):
        record = {key: line[key] for key in ("latent", "status", "rate", "windows")}
        record |= dict.fromkeys(("positives", "negatives", "auroc", "shuffled", "elsewhere"))
        if line["detection"] is not None:
            there += 1
            positives = int(np.clip(4000 * line["windows"], 1, 3999))
            record |= {"positives": positives, "negatives": 4000 - positives}
            if there % 7 == 0:
                record["status"] = "unscorable"
            else:
                share = line["detection"]["tp"] / 50 + line["detection"]["tn"] / 50
                record["auroc"] = float(np.clip(0.3 + 0.2 * share + rng.normal(0, 0.03), 0, 1))
        records.append(record)
    scored = [record for record in records if record["auroc"] is not None]
    for record, shuffled, elsewhere in zip(scored, *_others(rng, len(scored))):
        record |= {"shuffled": float(shuffled), "elsewhere": float(elsewhere)}
    text = "\n".join(json.dumps(record) for record in records)
    (out / "similarity.jsonl").write_text(text + "\n")
    # A curve fpr ** a has the area 1 / (1 + a).
    share = np.linspace(0, 1, ROC_STEPS + 1)
    means = {
        kind: np.mean([record[key] for record in scored]) if scored else None
        for kind, key in (("own", "auroc"), ("shuffled", "shuffled"))
    }
    curves = {kind: m and (share ** (1 / m - 1)).round(6).tolist() for kind, m in means.items()}
    artifacts.write_json(out / "roc.json", {"latents": len(scored), **curves})


def _counts(rng: np.random.Generator, p: float, status: str) -> dict[str, int] | None:
    if status != "explained":
        return None
    p = float(np.clip(p, 0.02, 0.99))
    tp, tn = int(rng.binomial(50, p)), int(rng.binomial(50, p))
    return {"tp": tp, "fp": 50 - tn, "tn": tn, "fn": 50 - tp}

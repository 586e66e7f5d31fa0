"""Experiments: overlays of `params.yaml`, each run in a git worktree of its own.

`experiments/NAME.yaml` holds only what differs from the default. `clearnets exp NAME` checks the
committed code out into `.clearnets/exp/NAME`, writes the resolved parameters there and runs
`dvc repro` on the shared DVC cache. The worktree persists, so a killed run goes on, and a changed
key reruns only what depends on it. At the end the small results are copied to
`paper/results/NAME/` with that run's figures, `dvc.lock`, parameters and commit.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from clearnets import UserError
from clearnets import config as cfg
from clearnets.pipeline import paths
from clearnets.pipeline.artifacts import fingerprint, write_text
from clearnets.pipeline.git import git
from clearnets.pipeline.paths import COMMIT, LOCK

# Folders of artifacts with one folder for each family.
PER_FAMILY = ("coders", "cache", "explain", "score", "overlap", "similarity", "concepts")
# What a run makes: never checked out into a worktree, or the default's results would stand there.
OUTPUTS = (
    *("artifacts", "paper/results", "paper/figures", "paper/clearnets.pdf", "paper/tables"),
    *("dvc.lock", "params.yaml"),
)


def overlay_path(name: str) -> Path:
    """The overlay file of an experiment."""
    return cfg.EXPERIMENTS / f"{name}.yaml"


def place(name: str) -> Path:
    """The experiment's worktree, relative to the checkout."""
    return paths.WORKTREES / name


def resolve(name: str, assignments: list[str]) -> dict[str, Any]:
    """Parameters of an experiment as plain values: the default's, its overlay, the assignments.

    Raises:
        UserError: no such experiment, or a value that does not fit.
    """
    base = cfg.read_yaml(cfg.PARAMS)
    cfg.parse(base, str(cfg.PARAMS))
    path = overlay_path(name)
    over: Any = {"experiment": name}
    if path.exists():
        over = cfg.read_yaml(path)
        if not isinstance(over, dict) or over.get("experiment") != name:
            raise UserError(f"{path}: write `experiment: {name}` as its first key")
    elif not assignments:
        known = ", ".join(cfg.overlays()) or "none yet"
        raise UserError(f"unknown experiment {name!r}; there are: {known}")
    _assign_all(over, assignments, base)
    values = cfg.overlay(base, over)
    _drop_comparison(values)
    config = cfg.parse(values, str(path))
    _name_coders(values)
    _see_from_worktree(name, config, values)
    return values


def _drop_comparison(values: dict[str, Any]) -> None:
    """An overlay without models need not name each of the default's families to remove it."""
    if values.get("models") == []:
        values["families"] = {}
        values["coders"] = {**values["coders"], "families": [], "existing": {}}


def _name_coders(values: dict[str, Any]) -> None:
    """Each family's key of `coders.existing` is there: DVC tracks it by itself. An overlay's null
    has removed one of the default; no key and null mean the same, coders that are trained here."""
    existing = values["coders"]["existing"]
    values["coders"]["existing"] = {**dict.fromkeys(values["coders"]["families"]), **existing}


def assigned(base: dict[str, Any], assignments: list[str]) -> dict[str, Any]:
    """`base`, checked, with `key=value` assignments above it."""
    cfg.parse(base, str(cfg.PARAMS))
    over: dict[str, Any] = {}
    _assign_all(over, assignments, base)
    return cfg.overlay(base, over)


@dataclass(frozen=True)
class _Source:
    """Something that an experiment reads and does not make: a corpus, a tokenizer, a model,
    coders.

    Attributes:
        stage: what reads it.
        at: where in the parameters it is described.
        key: which of its keys may be a local path.
        identity: what its content follows from; empty where only the parameters say.
        part: the feedforward, family or task that alone reads it; none where the stage has none.
    """

    stage: str
    at: tuple[str, ...]
    key: str
    identity: Callable[[], Mapping[str, str]]
    part: str | None = None


def _sources(config: cfg.Config) -> Iterator[_Source]:
    from clearnets.coders import existing
    from clearnets.data import corpora, images, pretrained_tokenizer
    from clearnets.models import pretrained as bases

    corpus, tokenizer, model = config.data.corpus, config.data.tokenizer, config.model
    if isinstance(corpus, cfg.LocalText):
        yield _Source("data", ("data", "corpus"), "path", lambda: corpora.fingerprints(corpus))
    if not isinstance(tokenizer, cfg.TrainedTokenizer):
        hashes = partial(pretrained_tokenizer.tokenizer_fingerprints, tokenizer)
        yield _Source("data", ("data", "tokenizer"), "name", hashes)
    if isinstance(model, cfg.Pretrained):
        yield _Source("train", ("model",), "name", partial(bases.identity, model), "dense")
        if model.sparse is not None:
            identity = partial(bases.identity, model.sparse)
            yield _Source("train", ("model", "sparse"), "name", identity, config.sparse)
    # Its hash is among the parameters already.
    yield _Source("similarity", ("embed",), "model", dict)
    for family, coders in config.coders.existing.items():
        at = ("coders", "existing", family)
        yield _Source("sparsify", at, "name", partial(existing.identity, coders), family)
    for task in config.generalize.tasks:
        if task == "checkpoints":
            yield from _checkpoints(config.generalize.checkpoints)
        pictures = getattr(getattr(config.generalize, task), "pictures", None)
        if isinstance(pictures, cfg.LocalPictures):
            at = ("generalize", task, "pictures")
            yield _Source("generalize", at, "path", partial(images.fingerprints, pictures), task)


def _checkpoints(settings: cfg.Checkpoints | None) -> Iterator[_Source]:
    from clearnets.generalization import checkpoints

    if settings is not None and settings.name is not None:
        identity = partial(checkpoints.identity, settings)
        yield _Source("generalize", ("generalize", "checkpoints"), "name", identity, "checkpoints")


def _see_from_worktree(name: str, config: cfg.Config, values: dict[str, Any]) -> None:
    """Say where local sources are from the worktree, and what all hold: DVC notices a change."""
    if isinstance(config.model, cfg.Pretrained):
        from clearnets.models import pretrained as bases

        for mlp in config.models:
            bases.check(config.model, mlp)
    for source in _sources(config):
        part = _at(values, source.at)
        path, identity = Path(part[source.key]), source.identity()
        if identity:
            part["fingerprint"] = fingerprint(identity)
        if path.exists() and not path.is_absolute():
            part[source.key] = Path(os.path.relpath(path, place(name))).as_posix()


def seen_from_checkout(config: cfg.Config, folder: Path) -> cfg.Config:
    """A config whose local sources are named from `folder`, named from here instead."""
    values = config.model_dump(mode="json")
    for source in _sources(config):
        part = _at(values, source.at)
        path = Path(os.path.normpath(folder / part[source.key]))
        if path.exists():
            part[source.key] = path.as_posix()
    return cfg.parse(values, config.experiment)


def local_sources(config: cfg.Config, stage: str, part: str | None) -> list[str]:
    """Files and folders that a stage reads and no stage makes.

    Args:
        part: the feedforward, family or task that the stage works on, where it has such parts.
    """
    values = config.model_dump(mode="json")
    found = [
        _at(values, source.at)[source.key]
        for source in _sources(config)
        if source.stage == stage and source.part in (None, part)
    ]
    return [path for path in found if Path(path).exists()]


def _at(tree: dict[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    for key in keys:
        tree = tree[key]
    return tree


def enter(name: str, assignments: list[str], values: dict[str, Any]) -> None:
    """Write `assignments` to the overlay, bring the worktree up to date, and move into it.

    Args:
        values: what `resolve` gave for these assignments.

    Raises:
        UserError: this is not a git checkout with a commit.
    """
    if assignments:
        _write_assignments(name, assignments)
    folder = _worktree(name)
    _write_yaml(folder / cfg.PARAMS, values)
    os.chdir(folder)
    _drop_others(set(values["models"]), set(values["families"]))


def _drop_others(models: set[str], families: set[str]) -> None:
    """Results of models and families that the experiment no longer has would enter DVC's hashes."""
    kept = {"train": models, **dict.fromkeys(PER_FAMILY, families)}
    for stage, names in kept.items():
        for folder in (paths.ARTIFACTS / stage).glob("*"):
            if folder.is_dir() and folder.name not in names:
                shutil.rmtree(folder)


def run(name: str, assignments: list[str], *, dry_run: bool) -> None:
    """Run the whole pipeline of an experiment and bring its small results home."""
    values = resolve(name, assignments)
    if dry_run:
        from ruamel.yaml import YAML

        YAML().dump(values, sys.stdout)
        print(
            f"\n# runs {', '.join(f'`{words}`' for words in _commands(values))} in\n{place(name)}"
        )
        print(f"# writes\n{paths.results(name)}")
        return
    home = Path.cwd()
    enter(name, assignments, values)
    for words in _commands(values):
        command = [sys.executable, "-m", *words.split()]
        code = subprocess.run(command, env=_environment(), check=False).returncode
        if code:
            raise UserError(f"experiment {name} stopped; run `clearnets exp {name}` again to go on")
    target = home / paths.results(name)
    _bring_home(paths.results(name), target)
    print(f"results: {target.relative_to(home)}")


def _commands(values: Mapping[str, Any]) -> list[str]:
    """What an experiment runs. One that compares nothing has only the observatory's stages; what
    DVC's last two stages read beside theirs is not there."""
    if values["models"]:
        return ["dvc repro"]
    return ["dvc repro generalize", "clearnets collate", "clearnets figures"]


def _environment() -> dict[str, str]:
    """Of the pipeline's commands, in the worktree: DVC starts them as dvc.yaml has them, so what
    chooses the device and no result reaches them here."""
    bin_folder = str(Path(sys.executable).parent)
    return {
        **os.environ,
        "PATH": os.pathsep.join((bin_folder, os.environ.get("PATH", ""))),
        # The worktree's code, not the checkout's that is installed.
        "PYTHONPATH": str(Path.cwd()),
    }


def _bring_home(tables: Path, target: Path) -> None:
    """Copy tables and figures with the run's lock, parameters and commit; all or nothing."""
    part = target.with_name(f".{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(tables, part)
    shutil.copytree(paths.FIGURES, part / paths.FIGURES.name)
    for file in (LOCK.name, cfg.PARAMS.name):
        shutil.copyfile(file, part / file)
    write_text(part / COMMIT, git("rev-parse", "HEAD") + "\n")
    shutil.rmtree(target, ignore_errors=True)
    part.rename(target)


def show_all() -> None:
    """Print the experiments with the first line of their overlays, and whether they have run."""
    for name in cfg.overlays():
        first = overlay_path(name).read_text(encoding="utf-8").split("\n", 1)[0].lstrip("# ")
        done = "results in git" if paths.results(name).exists() else "not run yet"
        print(f"{name:24} {done:16} {first}")


def parsed(assignments: list[str]) -> dict[str, Any]:
    """`key=value` texts as values by key."""
    return dict(map(_assignment, assignments))


def _assignment(text: str) -> tuple[str, Any]:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UserError(f"--set {text!r}: write key=value, e.g. train.epochs=2")
    try:
        return key, YAML(typ="safe").load(value)
    except YAMLError:
        raise UserError(f"--set {text!r}: the value is not YAML") from None


def _check_key(base: dict[str, Any], key: str) -> None:
    """Any key of the default may be set; the typed config checks deeper ones of other kinds."""
    top = key.split(".", 1)[0]
    if top == "experiment":
        raise UserError("--set experiment: the name of an overlay is the name of its file")
    if top not in base:
        raise UserError(f"--set {key}: unknown key {top!r}; there are: {', '.join(base)}")


def _assign(tree: Any, key: str, value: Any) -> None:
    """Set a dotted key of an overlay. None is kept: there it removes a key of the default."""
    *parents, last = key.split(".")
    for part in parents:
        if not isinstance(tree.get(part), dict):
            tree[part] = {}
        tree = tree[part]
    tree[last] = value


def _assign_all(tree: Any, assignments: list[str], base: dict[str, Any]) -> None:
    """Set every `key=value` in `tree`; `base` says which keys there are."""
    for key, value in map(_assignment, assignments):
        _check_key(base, key)
        _assign(tree, key, value)


def _write_assignments(name: str, assignments: list[str]) -> None:
    """Add the assignments to the overlay file; its comments stay."""
    from io import StringIO

    from ruamel.yaml import YAML

    yaml, path = YAML(), overlay_path(name)
    text = path.read_text(encoding="utf-8") if path.exists() else f"experiment: {name}\n"
    tree = yaml.load(text)
    for key, value in map(_assignment, assignments):
        _assign(tree, key, value)
    out = StringIO()
    yaml.dump(tree, out)
    write_text(path, out.getvalue())


def _write_yaml(path: Path, values: dict[str, Any]) -> None:
    from io import StringIO

    from ruamel.yaml import YAML

    out = StringIO()
    YAML().dump(values, out)
    if not path.exists() or path.read_text(encoding="utf-8") != out.getvalue():
        write_text(path, out.getvalue())


def _worktree(name: str) -> Path:
    """The experiment's worktree, with the code of the checkout's commit and its own outputs."""
    head = git("rev-parse", "HEAD")
    folder = place(name)
    if not (folder / ".git").exists():
        git("worktree", "prune")
        git("worktree", "add", "--detach", "--no-checkout", str(folder), head)
    else:
        git("update-ref", "--no-deref", "HEAD", head, at=folder)
    kept = [f":(exclude){path}" for path in OUTPUTS]
    git("restore", f"--source={head}", "--staged", "--worktree", "--", ".", *kept, at=folder)
    write_text(folder / ".dvc" / "config.local", f"[cache]\n    dir = {_dvc_cache()}\n")
    return folder


def _dvc_cache() -> str:
    """Where the checkout's DVC cache is: its configuration may have it elsewhere.

    Raises:
        UserError: DVC does not say.
    """
    command = [sys.executable, "-m", "dvc", "cache", "dir"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode or not done.stdout.strip():
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(f"`dvc cache dir` failed: {reason}; correct .dvc/config.local")
    return str(Path(done.stdout.strip()).resolve())

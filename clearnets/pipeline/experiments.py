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
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from clearnets import UserError
from clearnets import config as cfg
from clearnets.pipeline import dvc, paths
from clearnets.pipeline.artifacts import fingerprint, write_text
from clearnets.pipeline.commands import dvc_cache, git
from clearnets.pipeline.paths import COMMIT, LOCK
from clearnets.pipeline.stage import Source, table


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
    config = cfg.parse(values, str(path))
    _see_from_worktree(name, config, values)
    return values


def assigned(base: dict[str, Any], assignments: list[str]) -> dict[str, Any]:
    """`base`, checked, with `key=value` assignments above it."""
    cfg.parse(base, str(cfg.PARAMS))
    over: dict[str, Any] = {}
    _assign_all(over, assignments, base)
    return cfg.overlay(base, over)


def _sources(config: cfg.Config) -> Iterator[tuple[str, Source]]:
    """Yield what the stages of an experiment read from outside, each with its stage."""
    for name, stage in table().items():
        if hasattr(stage.module, "sources"):
            yield from ((name, source) for source in stage.module.sources(config))


def _see_from_worktree(name: str, config: cfg.Config, values: dict[str, Any]) -> None:
    """Say where local sources are from the worktree, and what all hold: DVC notices a change."""
    for _, source in _sources(config):
        part = _at(values, source.at)
        path, identity = Path(part[source.key]), source.identity()
        if identity:
            part["fingerprint"] = fingerprint(identity)
        if path.exists() and not path.is_absolute():
            part[source.key] = Path(os.path.relpath(path, place(name))).as_posix()


def seen_from_checkout(config: cfg.Config, folder: Path) -> cfg.Config:
    """A config whose local sources are named from `folder`, named from here instead."""
    values = config.model_dump(mode="json")
    for _, source in _sources(config):
        part = _at(values, source.at)
        path = Path(os.path.normpath(folder / part[source.key]))
        if path.exists():
            part[source.key] = path.as_posix()
    return cfg.parse(values, config.experiment)


def local_sources(config: cfg.Config, stage: str, item: str | None) -> list[str]:
    """Return the files and folders that a stage reads for one item and no stage makes."""
    values = config.model_dump(mode="json")
    found = [
        _at(values, source.at)[source.key]
        for name, source in _sources(config)
        if name == stage and source.item in (None, item)
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
    config = cfg.parse(values, name)
    _write_yaml(folder / cfg.PARAMS, values)
    write_text(folder / paths.PIPELINE, dvc.pipeline(config))
    os.chdir(folder)
    _drop_others(config)


def _drop_others(config: cfg.Config) -> None:
    """Remove results of items that the experiment no longer has: they would enter DVC's hashes."""
    for stage in table().values():
        for template in stage.outputs:
            if stage.over and "{item}" in template:
                own = {Path(template.format(item=item)) for item in stage.items(config)}
                for path in Path().glob(template.format(item="*")):
                    if path not in own:
                        shutil.rmtree(path) if path.is_dir() else path.unlink()


def run(name: str, assignments: list[str], *, processes: int, dry_run: bool) -> None:
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
        code = subprocess.run(command, env=_environment(processes), check=False).returncode
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


def _environment(processes: int) -> dict[str, str]:
    """Of the pipeline's commands, in the worktree: DVC starts them as dvc.yaml has them, so what
    chooses the device and no result reaches them here."""
    bin_folder = str(Path(sys.executable).parent)
    return {
        **os.environ,
        "PATH": os.pathsep.join((bin_folder, os.environ.get("PATH", ""))),
        # The worktree's code, not the checkout's that is installed.
        "PYTHONPATH": str(Path.cwd()),
        "CLEARNETS_PROCESSES": str(processes),
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
    # What a run makes: the default's results would stand there.
    outputs = [path.split("/{")[0] for stage in table().values() for path in stage.outputs]
    made = [path for path in outputs if not path.startswith("artifacts/")]
    made += ["artifacts", *map(str, (paths.PIPELINE, LOCK, cfg.PARAMS))]
    kept = [f":(exclude){path}" for path in made]
    git("restore", f"--source={head}", "--staged", "--worktree", "--", ".", *kept, at=folder)
    write_text(folder / ".dvc" / "config.local", f"[cache]\n    dir = {dvc_cache()}\n")
    return folder

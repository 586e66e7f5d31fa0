"""Run experiments: overlays of `params.yaml`, each in a git worktree of its own.

`experiments/NAME.yaml` holds only what differs from the default. `clearnets exp NAME` checks the
committed code out into `.clearnets/exp/NAME`, writes the resolved parameters there and runs
`clearnets repro` on the shared DVC cache. The worktree persists, so a killed run goes on, and a
changed key reruns only what depends on it. At the end tables and figures are copied to
`paper/results/NAME/` with that run's `dvc.lock`, parameters and commit.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

from clearnets import UserError
from clearnets import config as cfg
from clearnets.pipeline import paths
from clearnets.pipeline.artifacts import fingerprint, write_text
from clearnets.pipeline.commands import dvc_cache, git
from clearnets.pipeline.paths import COMMIT, LOCK
from clearnets.pipeline.stage import Source, table


def _overlay_file(name: str) -> Path:
    return cfg.EXPERIMENTS / f"{name}.yaml"


def worktree(name: str) -> Path:
    """Return the experiment's worktree, relative to the checkout."""
    return paths.WORKTREES / name


def resolve(name: str | None, assignments: list[str]) -> dict[str, Any]:
    """Return plain parameters: the default's, an experiment's overlay, `key=value` assignments.

    An experiment's local sources are named from its worktree; the default, where `name` is None,
    has none.

    Raises:
        UserError: no such experiment, or a value that does not fit.
    """
    base = cfg.read_yaml(cfg.PARAMS)
    cfg.parse(base, str(cfg.PARAMS))
    overs = _overlays(name, assignments) if name else [{}]
    for key, value in parse_assignments(assignments).items():
        _check_key(base, key)
        _assign(overs[-1], key, value)
    values = reduce(cfg.overlay, overs, base)
    if values.get("models") == []:  # An overlay need not also remove what compares them.
        values["families"], values["coders"] = [], {**values["coders"], "existing": {}}
    if name:
        config = cfg.parse(values, str(_overlay_file(name)))
        _name_sources_from_worktree(name, config, values)
    return values


def _overlays(name: str, assignments: list[str]) -> list[dict[str, Any]]:
    """Return the overlays of an experiment in order: below it that of its `base`, if it has one."""
    over = _read_overlay(name, assignments)
    found, base = [over], over.pop("base", None)
    while base is not None:
        if base not in cfg.overlays() or base in {each["experiment"] for each in found}:
            raise UserError(f"{_overlay_file(name)}: base: {base!r} is no other experiment")
        found.insert(0, _read_overlay(base, []))
        base = found[0].pop("base", None)
    return found


def _read_overlay(name: str, assignments: list[str]) -> dict[str, Any]:
    """Return the overlay of an experiment; one that only assignments make has no file yet."""
    path = _overlay_file(name)
    if path.exists():
        over = cfg.read_yaml(path)
        if not isinstance(over, dict) or over.get("experiment") != name:
            raise UserError(f"{path}: write `experiment: {name}` as its first key")
        return over
    if not assignments:
        known = ", ".join(cfg.overlays()) or "none yet"
        raise UserError(f"unknown experiment {name!r}; there are: {known}")
    return {"experiment": name}


def _sources(config: cfg.Config) -> Iterator[tuple[str, Source]]:
    """Yield what the stages of an experiment read from outside, each with its stage."""
    for name, stage in table().items():
        if hasattr(stage.module, "sources"):
            yield from ((name, source) for source in stage.module.sources(config))


def _name_sources_from_worktree(name: str, config: cfg.Config, values: dict[str, Any]) -> None:
    """Make paths of local sources relative to the worktree, and add fingerprints of all sources.

    By the fingerprint, a tracked parameter, DVC notices that a source has changed.
    """
    for _, source in _sources(config):
        part = _at(values, source.at)
        path, identity = Path(part[source.key]), source.identity()
        if identity:
            part["fingerprint"] = fingerprint(identity)
        if path.exists() and not path.is_absolute():
            part[source.key] = Path(os.path.relpath(path, worktree(name))).as_posix()


def name_sources_from_here(config: cfg.Config, folder: Path) -> cfg.Config:
    """Return a config whose local sources are relative to here, where they were to `folder`."""
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
    folder = _update_worktree(name)
    config = cfg.parse(values, name)
    write_text(folder / cfg.PARAMS, _as_yaml(values))
    os.chdir(folder)
    _drop_others(config)
    # By the worktree's own code, which is that of the last commit.
    _run("clearnets plan", name)


def _drop_others(config: cfg.Config) -> None:
    """Remove results of items that the experiment no longer has: they would enter DVC's hashes."""
    for stage in table().values():
        for template in stage.outputs:
            if stage.over and "{item}" in template:
                own = {Path(template.format(item=item)) for item in stage.items(config)}
                for path in Path().glob(template.format(item="*")):
                    # DVC keeps a file of its own beside its outputs.
                    if path not in own and not path.name.startswith("."):
                        shutil.rmtree(path) if path.is_dir() else path.unlink()


def run(name: str, assignments: list[str], *, dry_run: bool, options: str = "") -> None:
    """Run the whole pipeline of an experiment and bring its small results home.

    Args:
        options: of `clearnets repro`.
    """
    values = resolve(name, assignments)
    commands = _commands(values, options)
    if dry_run:
        listed = ", ".join(f"`{words}`" for words in commands)
        print(f"{_as_yaml(values)}\n# runs {listed} in\n{worktree(name)}")
        print(f"# writes\n{paths.results(name)}")
        return
    home = Path.cwd()
    enter(name, assignments, values)
    for words in commands:
        _run(words, name)
    target = home / paths.results(name)
    _copy_results(paths.results(name), target)
    print(f"results: {target.relative_to(home)}")


def _commands(values: Mapping[str, Any], options: str) -> list[str]:
    """Return the commands that an experiment runs.

    One that compares nothing has only its observatory and its search for recipes: DVC cannot run
    the last two, which also read results of the others.
    """
    if values["families"]:
        return [f"clearnets repro{options}"]
    there = {"generalize": values["generalize"]["tasks"]}
    there |= {"tune": [*values["tune"]["models"], *values["tune"]["families"]]}
    stages = " ".join(stage for stage, items in there.items() if items)
    return [f"clearnets repro {stages}{options}", "clearnets collate", "clearnets figures"]


def _run(words: str, name: str) -> None:
    """Run a command in an experiment's worktree, the working directory, by the code there."""
    bin_folder = str(Path(sys.executable).parent)
    environment = {
        **os.environ,
        "PATH": os.pathsep.join((bin_folder, os.environ.get("PATH", ""))),
        # Not the checkout's code, which is installed.
        "PYTHONPATH": str(Path.cwd()),
    }
    command = [sys.executable, "-m", *words.split()]
    with subprocess.Popen(command, env=environment) as process:
        try:
            code = process.wait()
        except KeyboardInterrupt:  # It has it, too, and ends when it has cleaned up.
            process.wait()
            raise
    if code:
        raise UserError(f"experiment {name} stopped; run `clearnets exp {name}` again to go on")


def _copy_results(tables: Path, target: Path) -> None:
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
        first = _overlay_file(name).read_text(encoding="utf-8").split("\n", 1)[0].lstrip("# ")
        done = "results in git" if paths.results(name).exists() else "not run yet"
        print(f"{name:24} {done:16} {first}")


def parse_assignments(assignments: list[str]) -> dict[str, Any]:
    """Return the values of `key=value` texts by key."""
    return dict(map(_parse_assignment, assignments))


def _parse_assignment(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UserError(f"--set {text!r}: write key=value, e.g. train.epochs=2")
    return key, cfg.parse_yaml(value, f"--set {key}: {value!r:.40}")


def _check_key(base: dict[str, Any], key: str) -> None:
    """Raise `UserError` unless the default has the key's first part; the config checks the rest."""
    top = key.split(".", 1)[0]
    if top == "experiment":
        raise UserError("--set experiment: the name of an overlay is the name of its file")
    if top not in base:
        raise UserError(f"--set {key}: unknown key {top!r}; there are: {', '.join(base)}")


def _assign(tree: Any, key: str, value: Any) -> None:
    """Set a dotted key of an overlay. None stays in it: there it removes a key of the default."""
    *parents, last = key.split(".")
    for part in parents:
        if not isinstance(tree.get(part), dict):
            tree[part] = {}
        tree = tree[part]
    tree[last] = value


def _write_assignments(name: str, assignments: list[str]) -> None:
    """Add the assignments to the overlay file; its comments stay."""
    from ruamel.yaml import YAML

    path = _overlay_file(name)
    text = path.read_text(encoding="utf-8") if path.exists() else f"experiment: {name}\n"
    tree = YAML().load(text)
    for key, value in parse_assignments(assignments).items():
        _assign(tree, key, value)
    write_text(path, _as_yaml(tree))


def _as_yaml(values: Any) -> str:
    from io import StringIO

    from ruamel.yaml import YAML

    out = StringIO()
    YAML().dump(values, out)
    return out.getvalue()


def _update_worktree(name: str) -> Path:
    """Bring the worktree to the code of the checkout's commit; its own outputs stay."""
    head = git("rev-parse", "HEAD")
    folder = worktree(name)
    if not (folder / ".git").exists():
        git("worktree", "prune")
        git("worktree", "add", "--detach", "--no-checkout", str(folder), head)
    else:
        git("update-ref", "--no-deref", "HEAD", head, at=folder)
    # Outputs of the commit are those of the default.
    outputs = [path.split("/{")[0] for stage in table().values() for path in stage.outputs]
    own = [path for path in outputs if not path.startswith("artifacts/")]
    own += ["artifacts", *map(str, (paths.PIPELINE, LOCK, cfg.PARAMS))]
    excluded = [f":(exclude){path}" for path in own]
    git("restore", f"--source={head}", "--staged", "--worktree", "--", ".", *excluded, at=folder)
    write_text(folder / ".dvc" / "config.local", f"[cache]\n    dir = {dvc_cache()}\n")
    return folder

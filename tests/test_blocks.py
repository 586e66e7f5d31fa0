"""Every block of code of the README and docs/ says what there is: commands, options, files, names.

The blocks of docs/extending.md are run by `test_extending.py`.
"""

from __future__ import annotations

import ast
import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from typer.main import get_command

from clearnets import cli, config

ROOT = Path(__file__).parents[1]
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in (
        *(ROOT / "README.md", ROOT / "experiments/README.md"),
        *sorted((ROOT / "docs").glob("*.md")),
    )
}
COMMANDS = get_command(cli.app).commands
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
BLOCK = re.compile(r"^( *)```(\S*)([^\n]*)\n(.*?)^\1```$", re.M | re.S)
# Words that begin a command of ours, behind what only sets it going.
OURS = ("clearnets", "make", "python")
LAUNCHERS = re.compile(r"^(\(?cd \S+ && |[A-Z_]+=\S+ |\.venv/bin/|torchrun .*?-m )+")


def blocks(kind: str) -> list[tuple[str, str]]:
    """The blocks of a language that are no file of an example, each with its page."""
    return [
        (page, block)
        for page, text in PAGES.items()
        for _, language, rest, block in BLOCK.findall(text)
        if language == kind and not rest.strip()
    ]


def shell_lines() -> Iterator[str]:
    """Each command of ours in a block without a language."""
    for _, block in blocks(""):
        for line in block.replace("\\\n", " ").splitlines():
            command = LAUNCHERS.sub("", line.strip())
            if command.partition(" ")[0] in OURS:
                yield command


LINES = sorted(set(shell_lines()))
INLINE = sorted(set(re.findall(r"`clearnets ([a-z][^`]*)`", "\n".join(PAGES.values()))))


def options(command: str) -> set[str]:
    return {name for param in COMMANDS[command].params for name in param.opts} | {"--help"}


def test_there_are_commands_to_check():
    assert len(LINES) > 30
    assert len(INLINE) > 60
    assert {line.split()[0] for line in LINES} == set(OURS)


@pytest.mark.parametrize("line", LINES)
def test_a_command_in_a_block_is_one_that_can_be_typed(line):
    program, *words = shlex.split(line, comments=True)
    words = [word.rstrip(")") for word in words]
    if program == "make":
        assert {word for word in words if "=" not in word} <= TARGETS
    elif program == "python":
        assert words[0] == "-m" or (ROOT / words[0]).exists()
    else:
        command, *rest = words
        # Parses it, values and all, and runs nothing.
        COMMANDS[command].make_context(command, rest)


@pytest.mark.parametrize("words", INLINE)
def test_a_command_in_a_sentence_exists_with_its_options(words):
    command, *rest = words.split()
    named = {word.partition("=")[0] for word in rest if word.startswith("--")}
    assert named <= options(command)


@pytest.mark.parametrize("words", ["nothing", "score --nothing"])
def test_the_check_sees_what_is_not_there(words):
    command, *rest = words.split()
    with pytest.raises((KeyError, AssertionError)):
        assert set(rest) <= options(command)


@pytest.mark.parametrize(("page", "block"), blocks("yaml"))
def test_an_overlay_in_a_block_fits_the_parameters(page, block):
    changes = YAML(typ="safe").load(block)
    config.parse(config.overlay(config.read_yaml(ROOT / config.PARAMS), changes), page)


@pytest.mark.parametrize(("page", "block"), blocks("python"))
def test_python_in_a_block_imports_what_there_is(page, block):
    for node in ast.walk(ast.parse(block)):
        if isinstance(node, ast.Import):
            names = [(name.name, None) for name in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [(node.module or "", name.name) for name in node.names]
        else:
            continue
        for module, name in names:
            if module.partition(".")[0] == "clearnets":
                found = importlib.import_module(module)
                assert name is None or hasattr(found, name)


def test_every_block_is_of_a_kind_that_is_checked():
    kinds = {language for text in PAGES.values() for _, language, _, _ in BLOCK.findall(text)}
    assert kinds <= {"", "python", "yaml", "diff", "mermaid"}


@pytest.mark.parametrize(
    "target", sorted(set(re.findall(r"(?:^|`)make ([a-z-]+)", "\n".join(PAGES.values()), re.M)))
)
def test_make_targets_exist(target):
    assert target in TARGETS

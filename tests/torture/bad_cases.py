"""Bad inputs as tables: options, parameters, corpora, damages of artifacts, environments.

Options, parameters, files of parameters and corpora are refused with exit code 2 and one line, and
nothing is written. A damaged artifact is refused, too, where its size or its form tells.
"""

from __future__ import annotations

# Command lines in a checkout in which the smoke experiment has been run.
OPTIONS = """
explain
explain --aux
explain --aux saes
explain --aux sae
explain --aux native --layers 9
explain --aux native --layers 1-0
explain --aux native --layers -1
explain --aux native --layers 0,,1
explain --aux native --layers ''
explain --aux native --layers all
explain --aux native --layers 0-1-2
explain --aux native --layers 99999999999999999999
explain --aux native --device tpu
explain --aux native --device cuda:x
explain --aux native --device ''
explain --aux native extra
explain --aux native --set explain.latents=5
explain --aux native --experiment nothing
explain --aux native --experiment ../smoke
explain --aux native --experiment smoke/
train --mlp spare
train --mlp sparse_topk
train
match --seed
sparsify --aux native
sparsify --aux token-unigram
cache --aux ''
score --aux native --layers 2
generalize
generalize chess
tune native
execute --aux sae
circuits --aux nothing
repro nothing
repro cache@nothing
repro --jobs -1
repro --jobs two
repro --jobs 2 --scheduler tcp://127.0.0.1:1
exp nothing
exp smoke --dry-run --set
exp smoke --dry-run --set =3
exp smoke --dry-run --set train
exp smoke --dry-run --set experiment=other
exp smoke --dry-run --jobs -2
exp --new other
exp smoke --new other --base .
exp --new other --base nowhere/at/all
exp --new other --base .
show native 0 99999
show native 0 -1
show native 2 0
show native x 0
show native 0 x
show native tokens 0
show sae 0 0
show native 0 3 --seed 7
show native 0 3 --examples -1
circuit --aux native --task nothing
circuit --aux sae --task wear
circuit --aux native
circuit --aux native --task wear --latents 0
generate x --aux native --layers 7
generate x --aux sae
generate x --aux native --tokens -1
generate x --aux native --temperature -1
generate x --aux native --temperature nan
generate x --aux native --latents -1
generate x --aux native --seed 9
trace
trace nothing.csv
trace ../outside
trace clearnets/cli/entry.py
trace .
verify --rerun -1
verify --experiment nothing
status --experiment nothing
import nothing.ckpt out
import params.yaml out
import paper out
import artifacts/code.json out
import artifacts/train/dense/seed-0/manifest.json out
import package:nothing out
import package: out
export out
export out --aux native --by me
export out --aux native --by language
export out --aux native --seed 4
export artifacts --aux native
export-model out --mlp none
export-model out --mlp sparse_topk
export-model artifacts --mlp dense
import-scores nowhere out --aux native
import-scores paper out --aux native
import-scores artifacts out --aux saes
bundle
bundle out --without nothing
bundle artifacts
bundle params.yaml
compare nothing other
compare smoke nothing
compare smoke smoke --rel -1
compare smoke smoke --rel x
compare smoke smoke --abs nan
compare smoke smoke --tables nothing
compare smoke@nothing smoke
claims --experiment nothing
figures --experiment nothing
paper --experiment nothing
nothing
--nothing
explian --aux native
"""

# Keys and values that fit no parameters, for `exp smoke --dry-run --set`.
PARAMETERS = """
nothing=1
model=3
model=
model.nothing=1
model.k=0
model.k=100000
model.k=1.5
model.hidden_size=33
model.hidden_size=1e30
model.num_heads=0
model.rotary_fraction=2
model.kind=rnn
model.kind=pretrained
models=[]x
models=[dense, dense]
models=[rnn]
models={dense: 1}
families=[saes]
families=[native, native]
families=native
seeds=[]
seeds=[-1]
seeds=[0, 0]
seeds=[1.5]
threads=0
threads=many
skip=[train]
skip=all
data.corpus.kind=magic
data.corpus={kind: local}
data.corpus={kind: local, path: 3}
data.corpus={kind: hub}
data.tokenizer.vocab_size=1
data.tokenizer={kind: pretrained}
data.ctx_len=0
data.ctx_len=1
data.tokens.train=-1
data.tokens.train=0
data.tokens.nothing=1
train.betas=[0.9]
train.betas=[0.9, 1.5]
train.learning_rate={dense: 0.1, nothing: 1}
train.learning_rate=-1
train.precision=float8
train.batch_size=0
train.grad_acc_steps=3
coders.existing={saes: here}
coders.optimizer=sgd
cache.latent_splits=0
explain.train_type=best
explain.explainer.kind=oracle
explain.explainer={kind: delphi}
explain.explainer={kind: delphi, explainer: default, client: {kind: openai}}
explain.explainer={kind: delphi, explainer: default, client: {kind: gguf, model: nothing.gguf}}
explain.protocol=none
explain.non_activating=similar
explain.window=0
explain.window=100000
explain.ratio_top=1.5
score.scorers=[]
score.scorers=[{kind: oracle}]
score.scorers=[{kind: rules}, {kind: rules}]
qualify.min_auroc=2
concepts.recovered=-1
generalize.tasks=[chess]
generalize.grokking.modulus=1
generalize.grokking.train_share=1.5
generalize.grid.train=[]
collate.confidence=1.5
collate.resamples=-1
stability.shared=2
planted.seeds=[]
circuits.sizes=[]
circuits.sizes=[-1]
execute.families=[nothing]
explain.latents=!!python/object:os.system
explain.latents=[
explain.latents="
explain.latents=*a
explain..latents=3
.explain=3
explain.latents.more=3
"""

# By the type of a parameter's value, values that are of no right type.
MISFITS = {
    bool: ["3", "maybe", "[]", "{a: 1}"],
    int: ["none-such", "[]", "{a: 1}", ".nan", "1.5", "12:30:00", "true"],
    float: ["none-such", "[]", "{a: 1}", ".nan", "-.inf", "2026-01-01"],
    str: ["[]", "{a: 1}", "3", "true", "none-such\\0"],
    list: ["3", "{a: 1}", "[[]]", "[none-such, 1]", "[{a: 1}]"],
    dict: ["3", "[]", "{none-such: 1}", "text"],
    type(None): ["[]", "{a: 1}", "1.5"],
}

# Contents of params.yaml.
FILES = {
    "empty": b"",
    "no mapping": b"- 1\n",
    "one word": b"experiment\n",
    "not UTF-8": b"experiment: caf\xe9\n",
    "UTF-16": "experiment: default\n".encode("utf-16"),
    "null bytes": b"\0" * 64,
    "torn": b"experiment: smoke\nseeds: [0",
    "tabs": b"experiment: smoke\nmodel:\n\thidden_size: 3\n",
    "key twice": b"experiment: smoke\nexperiment: smoke\n",
    "only a name": b"experiment: smoke\n",
    "two documents": b"experiment: smoke\n---\nexperiment: smoke\n",
    "binary": bytes(range(256)),
}

# File name and content of a local corpus, and further keys of data.corpus.
CORPORA: list[tuple[str, bytes | None, dict[str, object]]] = [
    ("missing.txt", None, {}),
    ("empty.txt", b"", {}),
    ("blank.txt", b"\n \n\t\n", {}),
    ("latin1.txt", b"caf\xe9 au lait\n", {}),
    ("utf16.txt", "One story.\n".encode("utf-16"), {}),
    ("one.txt", b"One story.\n", {}),
    ("alike.txt", b"The same story.\n\n" * 50, {}),
    ("marks.txt", b"<|endoftext|>\n" * 9, {}),
    ("binary.txt", bytes(range(256)) * 9, {}),
    ("truncated.txt", "One story é".encode()[:-1], {}),
    ("small.txt", b"".join(b"Story %d is short.\n\n" % n for n in range(9)), {}),
    ("table.csv", b"text\nOne story.\n", {}),
    ("archive.txt.gz", b"\x1f\x8b\x08\x00", {}),
    ("none", b"One story.\n", {}),
    ("empty.jsonl", b"", {}),
    ("torn.jsonl", b'{"text": "One', {}),
    ("list.jsonl", b'["One story."]\n', {}),
    ("number.jsonl", b'{"text": 3}\n', {}),
    ("nested.jsonl", b'{"text": {"text": "One"}}\n', {}),
    ("column.jsonl", b'{"story": "One story."}\n', {}),
    ("nothing.jsonl", b'{"text": null}\n' * 9, {}),
    ("surrogate.jsonl", b'{"text": "\\ud800"}\n', {}),
    ("deep.jsonl", b'{"text": ' + b"[" * 100_000 + b"\n", {}),
    ("digits.jsonl", b'{"text": ' + b"9" * 10_000 + b"}\n", {}),
    ("other.jsonl", b'{"text": "One story."}\n', {"text_column": "story"}),
    ("empty.parquet", b"", {}),
    ("torn.parquet", b"PAR1\x15\x04\x15", {}),
    ("garbage.parquet", b"PAR1" + b"\xff" * 64 + b"PAR1", {}),
    ("split.txt", b"One story.\n", {"split": "test"}),
    ("slice.txt", b"One story.\n", {"split": "train[:x%]"}),
    ("empty-slice.txt", b"One story.\n\nAnother.\n", {"split": "train[:0%]"}),
    ("slice-text.txt", b"One story.\n", {"split": "["}),
]

# Shell lines in such a checkout, with the exit codes that are right.
ENVIRONMENTS: list[tuple[str, set[int]]] = [
    ("env -u HOME clearnets show native 0 3", {0, 2}),
    ("HOME=/nowhere clearnets claims", {0, 1, 2}),
    ("HOME=/dev/null clearnets status", {0, 2}),
    ("PATH=$BIN clearnets exp smoke", {2}),
    ("PATH=$BIN clearnets status", {0, 2}),
    ("PATH=$BIN clearnets trace artifacts/code.json", {0, 2}),
    ("env -i $BIN/clearnets --version", {0}),
    ("LANG=C LC_ALL=C PYTHONUTF8=0 PYTHONIOENCODING=ascii clearnets show native 0 3", {0, 2}),
    ("LC_ALL=no_SUCH.locale clearnets status", {0}),
    ("PYTHONIOENCODING=latin-1 clearnets --help", {0}),
    ("NO_COLOR=1 clearnets status", {0}),
    ("FORCE_COLOR=1 clearnets status", {0}),
    ("COLUMNS=10 clearnets explain --help", {0}),
    ("COLUMNS=1 clearnets show native 0 3", {0, 2}),
    ("COLUMNS=0 clearnets --help", {0}),
    ("COLUMNS=wide clearnets --help", {0}),
    ("TERM=nothing clearnets --help", {0}),
    ("TZ=Nowhere/Nowhere clearnets status", {0}),
    ("TMPDIR=/nowhere clearnets compute", {0}),
    ("WORLD_SIZE=2 RANK=0 clearnets match", {0, 2}),
    ("WORLD_SIZE=two clearnets match", {0, 2}),
    ("OMP_NUM_THREADS=many clearnets explain --aux native", {0, 2}),
    ("OMP_NUM_THREADS=0 clearnets explain --aux native", {0, 2}),
    ("CUDA_VISIBLE_DEVICES=nothing clearnets explain --aux native", {0}),
    ("PYTHONOPTIMIZE=2 clearnets explain --aux native", {0}),
    ("PYTHONDONTWRITEBYTECODE=1 clearnets match", {0}),
    ("PYTHONWARNINGS=error clearnets --version", {0}),
    ("GIT_DIR=/nowhere clearnets trace artifacts/code.json", {0, 2}),
    ("cd / && clearnets match", {2}),
    ("cd / && clearnets status", {2}),
    ("cd / && clearnets repro", {2}),
    ("cd / && clearnets exp smoke", {2}),
    ("mkdir gone && cd gone && rmdir ../gone && clearnets match", {2}),
    ("ulimit -n 12; clearnets --version", {0, 1}),
    ("clearnets status <&-", {0}),
    ("clearnets status >/dev/full", {2}),
    ("clearnets claims --experiment smoke | true", {0}),
    ("clearnets --help | true", {0}),
    ("read_only clearnets match", {0, 2}),
    ("rm -r artifacts/match; read_only clearnets match", {2}),
    ("read_only clearnets figures", {0, 2}),
    ("read_only clearnets repro", {2}),
    ("read_only clearnets exp smoke", {2}),
    ("read_only clearnets status", {0, 2}),
    ("touch out && clearnets export-model out --mlp dense", {2}),
    ("rm -r artifacts/match && touch artifacts/match && clearnets match", {2}),
    ("rm -r .clearnets && touch .clearnets && rm -r artifacts/match && clearnets match", {2}),
    ("chmod 000 params.yaml; chmod 644 params.yaml; clearnets match", {0}),
    ("rm params.yaml && ln -s params.yaml params.yaml && clearnets match", {2}),
    ("rm -r artifacts/match; clearnets repro --scheduler nonsense", {2}),
    ("rm -r artifacts/match; clearnets repro --scheduler tcp://", {2}),
    ("rm -r artifacts/match; clearnets repro --scheduler tcp://127.0.0.1:99999", {2}),
    ("echo '[' > dvc.yaml; clearnets status", {2}),
    ("echo '[' > dvc.yaml; clearnets repro", {1, 2}),
    ("echo '[' > dvc.lock; clearnets status", {2}),
    ("echo '[' > dvc.lock; clearnets verify", {2}),
    ("echo '[]' > dvc.lock; clearnets trace artifacts/code.json", {2}),
    ("echo '[' > dvc.lock; clearnets repro", {1, 2}),
    ("rm dvc.lock; clearnets verify", {1, 2}),
    ("rm dvc.yaml; clearnets status", {0, 2}),
    ("rm dvc.yaml; clearnets repro match", {0, 1, 2}),
    ("rm -r .dvc; clearnets repro", {2}),
    ("rm -rf .git; clearnets exp smoke", {2}),
    ("echo '[' > experiments/smoke.yaml; clearnets exp smoke", {2}),
]

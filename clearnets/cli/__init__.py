"""The command line.

| module | holds |
|---|---|
| `entry` | the app: which commands there are, in their order and panels; `main` |
| `errors` | a user's mistake, a full disk, a damaged result and Ctrl-C as one line |
| `options` | the options that several commands share |
| `place` | where a command works, and how it runs a stage there |
| `preview`, `outcome` | what `--dry-run` prints, and what is printed at the end |
| `stages`, `paper`, `look`, `exchange`, `experiments` | the commands, a module per panel |

A command is a function that chooses what to work on and calls a module outside this package.
Nothing heavy is imported before a command runs, so that `clearnets --help` is instant.
"""

from clearnets.cli.entry import app, main

__all__ = ["app", "main"]

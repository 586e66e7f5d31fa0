"""`python -m clearnets`, and so `torchrun --nproc-per-node 2 -m clearnets train --mlp sparse`."""

from clearnets.cli import main

main()

"""`python -m clearnets`, which torchrun needs: `torchrun --nproc-per-node 2 -m clearnets train …`."""

from clearnets.cli import main

main()

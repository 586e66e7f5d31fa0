"""The stages of the pipeline, one file each: what it reads and writes, and how it is run."""

"""Run DVC's stages side by side, on Dask workers here or on a cluster."""

"""What the project uses of dask 2026.8."""

from dask import config as config

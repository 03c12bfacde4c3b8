"""Artefacts kept between notebooks and runs, and digests of what they depend on."""

from crane_lab.store.artefacts import Record, Store, StoreFormatError
from crane_lab.store.files import DiskFullError, atomic_path, write_table
from crane_lab.store.sources import ROOT, source_digest

__all__ = [
    "ROOT",
    "DiskFullError",
    "Record",
    "Store",
    "StoreFormatError",
    "atomic_path",
    "source_digest",
    "write_table",
]

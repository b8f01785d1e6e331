"""Runs and what they leave: whole files, fingerprints of contents, one hold on an output folder, the environment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from predilect.lazy import attach

if TYPE_CHECKING:
    from predilect.runs.csv_files import CsvRows as CsvRows
    from predilect.runs.csv_files import csv_writer as csv_writer
    from predilect.runs.environment import hardware as hardware
    from predilect.runs.environment import method_versions as method_versions
    from predilect.runs.environment import versions as versions
    from predilect.runs.files import read_json as read_json
    from predilect.runs.files import whole_file as whole_file
    from predilect.runs.files import whole_folder as whole_folder
    from predilect.runs.files import write_json as write_json
    from predilect.runs.files import write_rows as write_rows
    from predilect.runs.files import write_text as write_text
    from predilect.runs.fingerprints import catalogue_fingerprint as catalogue_fingerprint
    from predilect.runs.fingerprints import data_fingerprint as data_fingerprint
    from predilect.runs.fingerprints import differences as differences
    from predilect.runs.fingerprints import table_fingerprint as table_fingerprint
    from predilect.runs.fingerprints import weights_fingerprint as weights_fingerprint
    from predilect.runs.output import OutputFolder as OutputFolder
    from predilect.runs.output import temporary_folder as temporary_folder

_NAMES = {
    "CsvRows": "predilect.runs.csv_files",
    "OutputFolder": "predilect.runs.output",
    "catalogue_fingerprint": "predilect.runs.fingerprints",
    "csv_writer": "predilect.runs.csv_files",
    "data_fingerprint": "predilect.runs.fingerprints",
    "differences": "predilect.runs.fingerprints",
    "hardware": "predilect.runs.environment",
    "method_versions": "predilect.runs.environment",
    "read_json": "predilect.runs.files",
    "table_fingerprint": "predilect.runs.fingerprints",
    "temporary_folder": "predilect.runs.output",
    "versions": "predilect.runs.environment",
    "weights_fingerprint": "predilect.runs.fingerprints",
    "whole_file": "predilect.runs.files",
    "whole_folder": "predilect.runs.files",
    "write_json": "predilect.runs.files",
    "write_rows": "predilect.runs.files",
    "write_text": "predilect.runs.files",
}

__all__ = [
    "CsvRows",
    "OutputFolder",
    "catalogue_fingerprint",
    "csv_writer",
    "data_fingerprint",
    "differences",
    "hardware",
    "method_versions",
    "read_json",
    "table_fingerprint",
    "temporary_folder",
    "versions",
    "weights_fingerprint",
    "whole_file",
    "whole_folder",
    "write_json",
    "write_rows",
    "write_text",
]

__getattr__, __dir__ = attach(__name__, _NAMES)

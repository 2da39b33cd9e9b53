"""Files that appear whole or not at all, and their checksums."""
import csv
import hashlib
import json
import os
from pathlib import Path


def write_text(path, text):
    """Write beside `path`, then rename; the folder is made."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.partial")
    beside.write_text(text, encoding="utf-8", newline="")
    os.replace(beside, path)


def sha256(path):
    """The checksum of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path, content):
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_csv(path, columns, rows):
    """Rows are sequences in the order of `columns`, or mappings."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.partial")
    with open(beside, "w", encoding="utf-8", newline="") as file:
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(columns)
        lines.writerows([row[c] for c in columns] if isinstance(row, dict) else row for row in rows)
    os.replace(beside, path)

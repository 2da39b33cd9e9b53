"""Speech of a data set on the hub, kept there in parquet: speakers first, then just the rows needed.

The label column is read alone. Audio is fetched by row group, parquet's smallest part that can be read by
itself, each at most once: what has been fetched is kept on disk. A candidate's `batch` is its row group, so
that a speaker's utterances are taken from few of them.
"""

import itertools
import logging
import re
import unicodedata
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import ClassLabel, Features, load_dataset_builder
from huggingface_hub import HfApi, HfFileSystem
from tqdm import tqdm

from src.common.hub import Lock, explained
from src.runtime.audio import decode
from src.runtime.errors import AudioError, InputError, one_line
from src.sources.candidate import Candidate
from src.sources.speaker_metadata import sex_of

SPEAKER_COLUMNS = ("label", "speaker", "speaker_id", "spk_id", "client_id")
NAME_COLUMNS = ("file", "path", "id")
SEX_COLUMNS = ("sex", "gender")
_CONNECTIONS = 8
_log = logging.getLogger(__name__)


def candidates(
    repo: str, config: str, revision: str | None, seconds: float, spool: str | Path, speaker_column: str | None = None
) -> list[Candidate]:
    """Every row that has a speaker, of all splits of the configuration.

    Little more than `seconds` of each will be decoded. `spool` is an existing empty folder for what is
    fetched; the caller removes it. The speaker is what `speaker_column` holds, or the first of SPEAKER_COLUMNS that
    is there, a label as its name, in Unicode's normal form C; utt_id is the row's file name, made relative and
    unique, part the split. A speaker's sex is that of their rows that tell one, if they all tell the
    same. Raises InputError where the hub, the repository, its revision, the configuration or
    a column is not there, or a file is not the one that was locked; reading a candidate raises it too when
    the hub fails.
    """
    what = f"data.repo: {repo}"
    files = _files(repo, config, revision, what)
    index = partial(_index, speaker_column, what=f"{what}: data.config {config}")
    with ThreadPoolExecutor(_CONNECTIONS) as pool:
        indexed = pool.map(index, [url for _, url in files])
        shards = list(tqdm(indexed, "speaker labels", len(files), unit="file", disable=None))
    sexes = defaultdict(set)
    for _, _, rows in shards:
        for speaker, _, sex in rows:
            sexes[speaker] |= {sex} - {""}
    offered, used, batch = [], set(), 0
    for (split, _), (parquet, audio, rows) in zip(files, shards, strict=True):
        rows = iter(rows)
        for group in range(parquet.num_row_groups):
            fetched = _RowGroup(parquet, group, audio, Path(spool, f"{batch}.arrow"), what)
            for row in range(parquet.metadata.row_group(group).num_rows):
                speaker, name, _ = next(rows)
                if speaker is not None:
                    utt_id = _unique(name or f"{speaker}/{split}", split, used)
                    sex = min(sexes[speaker]) if len(sexes[speaker]) == 1 else ""
                    offered.append(Candidate(utt_id, speaker, partial(fetched.decode, row, seconds), batch, sex, split))
            batch += 1
    without = sum(len(rows) for *_, rows in shards) - len(offered)
    if without:
        _log.warning("%s: passed over: rows without a speaker (%d)", what, without)
    return offered


def _files(repo, config, revision, what):
    """(split, url) of the configuration's parquet files, all at the commit that is locked, and locked themselves.

    Too large to be fetched whole, they are held to the SHA-256 that the hub stores them by.
    """
    lock = Lock("datasets", repo, revision, what)
    with explained(what, lock):
        newest = HfApi().dataset_info(repo, revision=lock.commit or revision).sha
        commit = lock.commit or newest
        try:
            # hf:// keeps a folder of that name in the working directory from being taken instead.
            builder = load_dataset_builder(f"hf://datasets/{repo}", config, revision=commit)
        except (ValueError, RuntimeError, FileNotFoundError) as error:
            raise InputError(f"{what}: data.config {config}: {one_line(error)}") from None
        splits = builder.config.data_files or {}
        files = [(str(split), url) for split in sorted(splits) for url in sorted(map(str, splits[split]))]
        if not files or not all(url.endswith(".parquet") for _, url in files):
            raise InputError(f"{what}: data.config {config}: its data are not in parquet files")
        inside = re.compile(rf"hf://datasets/{re.escape(repo)}@([0-9a-f]+)/(.+)")
        names = {"README.md"}  # the card says which files there are
        for _, url in files:
            match = inside.fullmatch(url)
            if match is None or ".." in PurePosixPath(url).parts:
                raise InputError(f"{what}: data.config {config}: {url} is not in this repository")
            commit, name = match.groups()
            names.add(name)
        stored = {name: HfFileSystem().info(f"hf://datasets/{repo}@{commit}/{name}") for name in sorted(names)}
    # Files too small for large file storage have git's hash.
    digests = {name: file["lfs"].sha256 if file["lfs"] else f"git:{file['blob_id']}" for name, file in stored.items()}
    lock.check(str(commit), digests)
    return files


def _index(speaker_column, url, what):
    """The opened parquet file, the name of its column of audio, and (speaker, file name, sex) of its rows."""
    with explained(what):
        try:
            # No cache: parquet asks for the ranges that it needs, and reading ahead would fetch the audio.
            parquet = pq.ParquetFile(HfFileSystem().open(url, "rb", cache_type="none"))
            features = Features.from_arrow_schema(parquet.schema_arrow)
            leaves = [parquet.schema.column(i).path for i in range(len(parquet.schema))]
            speakers = (speaker_column,) if speaker_column else SPEAKER_COLUMNS
            audio = next((name for name in ("audio", *features) if f"{name}.bytes" in leaves), None)
            kinds = speakers, (*NAME_COLUMNS, f"{audio}.path"), SEX_COLUMNS
            columns = [next((name for name in names if name in leaves), None) for names in kinds]
            if columns[0] is None or audio is None:
                lacking = (
                    f"of speakers ({' or '.join(speakers)}); data.speaker_column names it" if audio else "of audio"
                )
                raise InputError(f"{what}: no column {lacking}; its columns are {', '.join(features)}")
            table = parquet.read(columns=list({*columns} - {None})).flatten()
        except pa.ArrowException as error:
            raise InputError(f"{what}: {url}: not readable as parquet: {one_line(error)}") from None
    values = [_texts(table.column(name), features.get(name)) if name else [None] * len(table) for name in columns]
    return parquet, audio, [(speaker, name, sex_of(sex or "")) for speaker, name, sex in zip(*values, strict=True)]


def _texts(column, feature):
    """A column's values, a class label's as its name, in Unicode's normal form C: str, or None where there is none."""
    values = column.to_pylist()
    if isinstance(feature, ClassLabel):
        names = dict(enumerate(feature.names))
        values = [names.get(value) for value in values]
    return [None if value in (None, "") else unicodedata.normalize("NFC", str(value)) for value in values]


def _unique(name, split, used):
    path = "/".join(part for part in PurePosixPath(name).parts if part not in ("/", "..")) or "unnamed"
    path = path if path not in used else f"{split}/{path}"
    names = itertools.chain([path], (f"{path}~{copy}" for copy in itertools.count(2)))
    utt_id = next(name for name in names if name not in used)
    used.add(utt_id)
    return utt_id


@dataclass(frozen=True)
class _RowGroup:
    """The audio of one row group: fetched when first needed, then read from `spooled`."""

    parquet: pq.ParquetFile
    group: int
    audio: str
    spooled: Path
    what: str

    def decode(self, row, seconds):
        if not self.spooled.exists():
            self._fetch()
        with pa.memory_map(str(self.spooled)) as file:
            data = pa.ipc.open_file(file).read_all().column(self.audio)[row].as_py()
        if not data or not data["bytes"]:
            raise AudioError("empty")
        return decode(BytesIO(data["bytes"]), seconds)

    def _fetch(self):
        with explained(self.what):
            try:
                table = self.parquet.read_row_group(self.group, columns=[f"{self.audio}.bytes"])
            except pa.ArrowException as error:
                raise InputError(f"{self.what}: not readable as parquet: {one_line(error)}") from None
        with pa.OSFile(str(self.spooled), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)

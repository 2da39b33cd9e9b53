import pytest

from src.data import manifest
from src.data.manifest import Row
from src.runtime.errors import InputError

ROWS = [
    Row('a/with, comma and "quotes".wav', "a", "test", "data/audio/00001.flac", 3.0000625, 0),
    Row("b/new\nline\rö.wav", "b", "calibration", "data/audio/00000.flac", 8.0, 1, "f", "train"),
]
HEADER = "utt_id,speaker,split,path,seconds,seen,sex,part"


def test_rows_survive_writing_and_reading(tmp_path):
    path = tmp_path / "manifest.csv"
    manifest.write(ROWS, path)
    assert manifest.read(path) == ROWS
    assert path.read_text().startswith(f"{HEADER}\n")
    assert [file.name for file in tmp_path.iterdir()] == ["manifest.csv"]
    assert manifest.select(ROWS, "test") == ROWS[:1]


@pytest.mark.parametrize(
    "text, message",
    [
        (None, "no such file; run the stage sample_data"),
        ("", f"line 1: the columns {HEADER} are needed"),
        (f"{HEADER}\na,b,test,p,3.0,0,,\na,b,test,p,long,0,,\n", "line 3: could not convert string to float: 'long'"),
        (f"{HEADER}\na,b,test,p,3.0,yes,,\n", "line 2: invalid literal for int"),
        (f"{HEADER}\na,b\n", "line 2: 2 values, 8 are needed"),
    ],
)
def test_what_is_not_a_manifest_is_an_error(tmp_path, text, message):
    path = tmp_path / "manifest.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=message):
        manifest.read(path)

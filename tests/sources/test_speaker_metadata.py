import pytest

from src.runtime.errors import InputError
from src.sources.speaker_metadata import SpeakerTable, read_tables

VOX1 = (
    "VoxCeleb1 ID\tVGGFace1 ID\tGender\tNationality\tSet\nid10001\tA.J._Buckley\tm\tIreland\tdev\n"
    "id10005\tAdrianne_León\tf\tUSA\tdev\n"
)
VOX2 = "VoxCeleb2 ID ,VGGFace2 ID ,Gender ,Set \nid00012 ,n000012 ,m ,dev \nid00019 ,n000019 ,f ,dev \n"


def read_sexes(folder):
    return {name: sex for table in read_tables(folder) for name, sex in table.sexes.items()}


@pytest.fixture
def speech(tmp_path):
    (tmp_path / "wav").mkdir()
    return tmp_path / "wav"


def test_own_file(speech):
    assert read_sexes(speech) == {}
    (speech / "speakers.csv").write_text("age,sex,speaker\n40,F,ann\n,male,bob\n9,,kim\n\n", encoding="utf-8-sig")
    (speech / "vox1_meta.csv").write_text(VOX1)
    assert read_sexes(speech) == {"ann": "f", "bob": "m", "kim": ""}


@pytest.mark.parametrize("place", ["wav", "."])
def test_files_of_voxceleb_in_the_folder_or_beside_it(speech, place, monkeypatch):
    (speech.parent / place / "vox1_meta.csv").write_text(VOX1, encoding="utf-8")
    (speech.parent / place / "vox2_meta.csv").write_text(VOX2.replace(",", "\t") if place == "wav" else VOX2)
    expected = {"id10001": "m", "id10005": "f", "id00012": "m", "id00019": "f"}
    assert read_sexes(speech) == expected
    monkeypatch.chdir(speech)
    assert read_sexes(".") == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "line 1: the columns speaker,sex are needed"),
        ("name,sex\nann,f\n", "line 1: the columns speaker,sex are needed, not ['name,sex']"),
        ("speaker,sex\nann,f\nbob,x\n", "line 3: speaker 'bob', sex 'x': a name and f, m or nothing needed"),
        ("speaker,sex\n,f\n", "line 2: speaker '', sex 'f'"),
        ("speaker,sex\nann\n", "line 2: 1 value, 2 are needed"),
        ("speaker,sex\nann,f\nann,m\n", "line 3: ann: another sex than in a line before"),
        ("speaker,sex\nann,f\nJosé,m\n".encode("latin-1"), "line 3: not in UTF-8; save the file as UTF-8"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(speech, text, said):
    (speech / "speakers.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError) as caught:
        read_sexes(speech)
    assert str(caught.value).startswith(f"{speech / 'speakers.csv'}: {said}")


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_what_a_spreadsheet_makes_of_it_is_read(speech, delimiter, encoding):
    text = "\r\n".join(delimiter.join(row) for row in (("speaker", "sex"), ("Zoe\u0308", "f"), ("", ""), ("bob", "m")))
    (speech / "speakers.csv").write_bytes(f"{text}\r\n".encode(encoding))
    assert read_sexes(speech) == {"Zo\u00eb": "f", "bob": "m"}


def test_whoever_gives_a_file_learns_how_much_of_it_is_used(tmp_path):
    table = SpeakerTable(tmp_path / "speakers.csv", {"1": "f", "2": "m", "ann": "f"})
    assert table.usage({"1", "2", "ann", "bob"}) == "all 3 speakers of speakers.csv are in the folder"
    assert table.usage({"1", "bob"}) == "2 of 3 speakers of speakers.csv are not in the folder: 2, ann"
    lost = "3 of 3 speakers of speakers.csv are not in the folder: '1', for one, where the folder has '0001'"
    assert table.usage({"0001", "0002"}) == lost

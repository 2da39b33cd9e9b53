import pytest

from src.runtime.errors import InputError
from src.sources.sexes import read_sexes

VOX1 = (
    "VoxCeleb1 ID\tVGGFace1 ID\tGender\tNationality\tSet\nid10001\tA.J._Buckley\tm\tIreland\tdev\n"
    "id10005\tAdrianne_León\tf\tUSA\tdev\n"
)
VOX2 = "VoxCeleb2 ID ,VGGFace2 ID ,Gender ,Set \nid00012 ,n000012 ,m ,dev \nid00019 ,n000019 ,f ,dev \n"


@pytest.fixture
def speech(tmp_path):
    (tmp_path / "wav").mkdir()
    return tmp_path / "wav"


def test_own_file(speech):
    assert read_sexes(speech) == {}
    (speech / "speakers.csv").write_text("age,sex,speaker\n40,F,ann\n,male,bob\n9,,kim\n\n", encoding="utf-8-sig")
    (speech / "vox1_meta.csv").write_text(VOX1)
    assert read_sexes(speech) == {"ann": "f", "bob": "m"}


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
        ("", "line 1: the columns speaker and sex are needed"),
        ("speaker;sex\nann;f\n", "line 1: the columns speaker and sex are needed"),
        ("speaker,sex\nann,f\nbob,x\n", "line 3: speaker 'bob', sex 'x': a name and f, m or nothing needed"),
        ("speaker,sex\n,f\n", "line 2: speaker '', sex 'f'"),
        ("speaker,sex\nann\n", "line 2: 1 values, 2 are needed"),
        ("speaker,sex\nann,f\nann,m\n", "line 3: ann: another sex than in a line before"),
        (b"speaker,sex\n\xff,f\n", "cannot be read"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(speech, text, said):
    (speech / "speakers.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError) as caught:
        read_sexes(speech)
    assert str(caught.value).startswith(f"{speech / 'speakers.csv'}: {said}")

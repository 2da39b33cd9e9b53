import pytest

from src.encoder.checkpoint import LABELS
from src.encoder.labels import training_speakers
from src.runtime.errors import InputError

END = "================\n'starting_index' => 0\n"


def checkpoint(folder, text):
    (folder / LABELS).write_text(text)
    return folder


def test_labels_are_read_down_to_the_separator(tmp_path):
    text = "'id10001' => 0\n\"it's => odd\" => 1\n7 => 2\n" + END
    assert training_speakers(checkpoint(tmp_path, text)) == {"id10001", "it's => odd", "7"}


def test_speechbrain_writes_what_is_read(tmp_path):
    from src.encoder.load import prepare_speechbrain

    prepare_speechbrain()
    from speechbrain.dataio.encoder import CategoricalEncoder

    encoder = CategoricalEncoder()
    encoder.update_from_iterable(["b", "a", "ö 'x'"])
    encoder.save(tmp_path / LABELS)
    assert training_speakers(tmp_path) == {"a", "b", "ö 'x'"}


def test_labels_are_in_one_unicode_normal_form(tmp_path):
    assert training_speakers(checkpoint(tmp_path, "'Zoe\u0308' => 0\n" + END)) == {"Zo\u00eb"}


def test_without_the_file_all_speakers_are_unseen(tmp_path, caplog):
    assert training_speakers(tmp_path) == set()
    assert "all speakers count as unseen" in caplog.text


@pytest.mark.parametrize(
    "text, message",
    [
        ("'a' => 0\nb => 1\n" + END, "line 2"),
        ("'a' => 0\n" + "-" * 5_000 + "1 => 1\n" + END, "line 2"),
        ("'a' => 0\n", "no ==== line"),
        ("9**9**9 => 0\n" + END, "line 1"),
        ("'a' => 0\n" * 500_000 + END, "4,194,304 are the most that is read"),
    ],
)
def test_another_file_of_that_name_is_an_error(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        training_speakers(checkpoint(tmp_path, text))


def test_a_relative_path_in_a_copy_of_the_repository_is_explained(tmp_path, monkeypatch):
    copy = tmp_path / ".dvc/tmp/exps/abc"
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)
    with pytest.raises(InputError, match=f"looked for at {copy.parent}/mine; .* give an absolute path"):
        training_speakers("../mine")
    with pytest.raises(InputError, match=r"not a hub id \(owner/name\)$"):
        training_speakers("/mine")


@pytest.mark.parametrize("count, unseen", [(7_204, 0), (7_205, 40), (7_206, 0)])
def test_a_voxceleb_dev_checkpoint_was_not_trained_on_the_test_speakers(tmp_path, count, unseen):
    text = "".join(f"'id{10_001 + index}' => {index}\n" for index in range(count)) + END
    assert len(training_speakers(checkpoint(tmp_path, text))) == count - unseen


def test_voxceleb_test_speakers_are_unseen_by_the_published_checkpoint(shared):
    seen = training_speakers(shared / "hub/root/models/speechbrain/spkrec-ecapa-voxceleb")
    superb = {f"id{number}" for number in range(10_001, 10_001 + 1_251)}
    assert superb - seen == {f"id{number}" for number in range(10_270, 10_310)}

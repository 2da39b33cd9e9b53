"""Stage `breakdown`: where quantisation hurts first, by condition and by group of layers."""

if __name__ == "__main__":
    from src.common.command import command

    command("src.breakdown", alone=True)

import torch

from src.common import layout, params
from src.common.files import write_csv
from src.data import manifest
from src.data.recordings import load_audio
from src.evaluate import conditions, trials
from src.quantize import ptq, qat, sensitivity
from src.runtime.audio import SAMPLE_RATE

BABBLE = 64  # validation utterances that babble is made of
FEATURES, SECONDS = 16, 3  # validation utterances, and how much of each, that the sensitivity is measured on


def main() -> None:
    torch.set_num_threads(1)  # sums, and so the last digits, do not depend on the number of cores
    config = params.load()
    rows = manifest.read()
    validation = manifest.needed(rows, "validation")
    layers = _sensitivity(config, rows, manifest.spread(validation, FEATURES))
    enrolments = config.evaluate.enrolments
    tested = trials.evaluated_rows(rows, config.evaluate.protocol, enrolments)
    lines = conditions.breakdown(
        {name: layout.model(name) for name in layout.MODELS},
        conditions.choose(tested, enrolments, config.breakdown.utterances),
        [load_audio(row) for row in manifest.spread(validation, BABBLE)],
        config.breakdown,
        enrolments,
        config.evaluate.bootstrap,
        config.seed,
    )
    write_csv(layout.table("sensitivity"), sensitivity.COLUMNS, layers)
    write_csv(layout.table("breakdown"), conditions.COLUMNS, lines)
    worst = max(
        (dict(zip(conditions.COLUMNS, line)) for line in lines if line[-1]), key=lambda line: float(line["difference"])
    )
    group = min(
        (line for line in layers if line["group"] != sensitivity.ALL), key=lambda line: line["embedding_sqnr_db"]
    )
    print(
        f"breakdown: {worst['model']} loses most at {worst['condition']} {worst['level']}, "
        f"{100 * float(worst['difference']):+.2f} points of EER; the most sensitive layers are "
        f"{group['group']}, {group['embedding_sqnr_db']:.1f} dB"
    )


def _sensitivity(config, rows, heard):
    ranges = ptq.read_ranges()
    front_end, _, prepared = ptq.prepare_encoder(config, rows)
    student = qat.fake_quantise(prepared, ranges)
    waveforms = [torch.from_numpy(load_audio(row)[: SECONDS * SAMPLE_RATE])[None] for row in heard]
    return sensitivity.sensitivity(student, [front_end(waveform) for waveform in waveforms])

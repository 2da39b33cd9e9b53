"""The report's sentences: what was tested, the verdict, and the five questions answered.

A difference counts as shown when its 95 % interval excludes 0. Multiplications moved to INT8, operations
removed and time measured are told apart everywhere: only the last is a saving that a user would feel.
"""

import math
from dataclasses import dataclass
from pathlib import Path

from src.common.layout import SHIPPED
from src.evaluate.accuracy import KEYS
from src.evaluate.test_set import ALL
from src.reporting.decision import choice, effect, losses, quantised
from src.reporting.numbers import MEASURES, count, difference, largest_loss, level, points, share, significant, speed
from src.reporting.results import DIFFERENCE

HYPERPARAMETERS = {
    "learning_rate": "learning rate",
    "weight_decay": "weight decay",
    "batch_size": "batch size",
    "speaker_loss_weight": "weight of the speaker loss",
}
GROUPS = {ALL: "all test speakers", "unseen": "unseen speakers", "seen": "seen speakers"}
MARK = "†"


@dataclass(frozen=True)
class Answer:
    """`blocks`: a paragraph is a str, a list of points a list of str."""

    question: str
    blocks: list


def named(group, results):
    """A group of speakers, marked where the encoder was trained on some of them."""
    return GROUPS[group] + mark(results.over_seen(group))


def mark(seen):
    return f" {MARK}" if seen else ""


def verdict(results):
    """The outcome in a sentence."""
    best, speakers = choice(results), _speakers(results)
    if best is None:
        return (
            f"INT8 costs accuracy on {speakers}: {', '.join(_lost(results))}; what costs none is the exact "
            f"rewrite in fp32.onnx: {_rewrite(results)}, and it was "
            f"{_faster(results.models['fp32'], brief=True)}."
        )
    figures = best.over(results.groups[0])
    (top1, ci), (eer, eer_ci) = (difference(key, figures) for key in ("top1_accuracy", "eer"))
    before, after = results.profile["gmacs"], best.cost["gmacs"]
    loss = "a loss of EER within the margin" if effect("eer", figures) == "worse" else "no loss of accuracy shown"
    return (
        f"{best.title} computes {after:.3f} GMACs instead of SpeechBrain’s {before:.3f}, {share(1 - after / before)} "
        f"fewer, {share(best.cost['int8_mac_share'])} of them on 8-bit integers, and was "
        f"{_faster(best, brief=True)}, with {loss} on {speakers}: EER {eer} points (95 % interval {eer_ci}), "
        f"top-1 {top1} points ({ci})."
    )


def qualification(results):
    """What belongs to the verdict: the margin, what could have been shown, which other model lost. Sentences."""
    best = choice(results)
    if best is None:
        return " ".join(
            f"{model.title}: {margin(model.over(results.groups[0]), results)}" for model in quantised(results)
        )
    return " ".join([margin(best.over(results.groups[0]), results), *(f"{loss}." for loss in _lost(results))])


def _lost(results):
    return [
        f"{model.title} was shown to lose in {_named(losses(model, results))}"
        for model in quantised(results)
        if losses(model, results)
    ]


def margin(figures, results):
    """Whether the EER's loss stays within the margin, and what the test could have shown: a sentence."""
    excluded = "excluded" if figures["noninferior"] else "not excluded"
    return (
        f"An EER higher by {points(results.params.evaluate.margin)} or more is {excluded}; the smallest EER "
        f"difference that this test would show four times in five is "
        f"{points(figures['smallest_detectable_eer'])}."
    )


def material(results):
    """What was tested, and on what: sentences."""
    data, encoder = results.params.data, results.params.encoder
    if encoder.source == SHIPPED:
        model = (
            f"{SHIPPED}, the small ECAPA-TDNN that comes with the repository so that the pipeline runs "
            "anywhere; it was trained on synthetic speech and is not for production"
        )
    elif Path(encoder.source).is_dir():
        model = f"the ECAPA-TDNN in {encoder.source}"
    else:
        model = f"{encoder.source}, revision {encoder.revision or 'newest'}"
    source = {
        "synthetic": "synthetic speech from espeak-ng, a demonstration set and not real speech: figures on "
        "it show that the pipeline works, and say nothing about real voices",
        "folder": f"speech in {data.path}" + (f", trial list {data.trials}" if data.trials else ""),
        "hub": f"{data.repo}, config {data.config}, revision {data.revision or 'newest'}",
    }[data.source]
    if results.params.evaluate.protocol == "superb-si":
        source += (
            "; speaker identification of SUPERB with the official splits: test speakers are enrolled from its "
            "train split and probed with its test split"
        )
    return [f"Encoder: {model}.", f"Data: {source}.", *_normalisation(results), *_shared(results), _sizes(results)]


def _normalisation(results):
    """How scores were normalised, as a list of sentences: none without."""
    evaluate = results.params.evaluate
    if evaluate.normalisation == "none":
        return []
    top = f", its {evaluate.cohort_top} likest" if evaluate.normalisation == "as-norm" else ""
    return [f"Scores: {evaluate.normalisation} against the speakers of the split finetune{top}."]


def _shared(results):
    """A warning where fine-tuning heard test speakers, as a list of sentences."""
    if not results.shared:
        return []
    return [
        f"Warning: {count(results.shared, 'test speaker')} {'is' if results.shared == 1 else 'are'} in the "
        "split finetune too, and evaluate.allow_shared_speakers permits it: the accuracy is not that on new "
        "speakers."
    ]


def answers(results):
    """The five questions, each an Answer."""
    return [answer(results) for answer in (_baseline, _ptq_cost, _ptq_accuracy, _search, _trade_off)]


def _baseline(results):
    fp32, profile, main = results.models["fp32"], results.profile, results.groups[0]
    top1, eer, *costs = ("{}{} ({})".format(*_with_unit(key, fp32.over(main))) for key in KEYS)
    enrolled = results.test.groups[main][results.test.identification.enrol_speakers].sum()
    timing, times = fp32.timing, fp32.timing["models"]
    plain = ["{}{} ({})".format(*_with_unit(key, results.logmel(main))) for key in KEYS[:2]]
    parity = math.floor(1e7 * fp32.accuracy["parity_cosine"]) / 1e7  # never rounded up to 1
    return Answer(
        "How accurate is the encoder before quantisation, and what does it compute?",
        [
            f"With {named(main, results)}, top-1 identification among {enrolled:,} enrolments is right for {top1} of the "
            f"test utterances. The EER is {eer}, the normalised minDCF {costs[0]} at a target prior of 0.01 and "
            f"{costs[1]} at 0.05. In brackets: 95 % intervals.",
            f"Without a model, the cosine of the mean and standard deviation of log-mel features is right for "
            f"{plain[0]}, with an EER of {plain[1]}: that much of the task channel, room and timbre alone solve.",
            f"SpeechBrain’s network computes {profile['gmacs']:.4f} GMACs for {profile['seconds']:g} s of audio "
            f"by fvcore’s count, which is {profile['gflops']:.4f} GFLOPs at 2 a multiply-accumulate, with "
            f"{profile['params_million']:.2f} million parameters. fp32.onnx is the same encoder rewritten "
            f"exactly: {_rewrite(results)}, and its embeddings have a cosine of at least {parity:.7f} to "
            f"SpeechBrain’s. Its front end, from waveform to features, takes {profile['front_end_gmacs']:.4f} "
            "GMACs more.",
            f"Time measured: {times['fp32']['median_ms']:.1f} ms for fp32.onnx and "
            f"{times['speechbrain']['median_ms']:.1f} ms for SpeechBrain; fp32.onnx was {_faster(fp32)}. Both "
            f"ran in turns, {count(timing['rounds'], 'round')} at batch 1 on "
            f"{count(timing['threads'], 'CPU thread')}, and so did every INT8 model with fp32.onnx.",
        ],
    )


def _ptq_cost(results):
    ptq = results.models["ptq"]
    return Answer(
        "What does INT8 by post-training quantisation cost, and what does it save?",
        [
            "These are different things, and they do not add up:",
            _savings(ptq, results),
            f"It takes {count(ptq.accuracy['calibration_utterances'], 'calibration utterance')} and no training. "
            "What it costs in accuracy is the next answer.",
        ],
    )


def _ptq_accuracy(results):
    return Answer(
        "How accurate is the encoder after post-training quantisation?", _compared(results.models["ptq"], results)
    )


def _search(results):
    search, main = results.search, results.groups[0]
    qat, ptq = (level("eer", results.models[name].over(main))[0] for name in ("qat", "ptq"))
    question = "What does quantisation-aware training under the search bring, and with which hyperparameters?"
    return Answer(
        question,
        [
            _chosen(search, results.trials, results.params.qat_search),
            *_compared(results.models["qat"], results),
            f"Its EER is {qat} %, that of post-training quantisation {ptq} %. Both were compared with fp32 and "
            "not with each other, so these two figures alone do not show one of them to be better.",
            "What it saves:",
            _savings(results.models["qat"], results),
        ],
    )


def _chosen(search, rows, wanted):
    """Which trial was chosen, why, and with which hyperparameters."""
    trials, best = count(search["n_trials"], "trial"), search["chosen"]
    before, reference = search["objective_untrained"], search["objective_fp32"]
    if not search["passed_validation"]:
        return (
            f"None of {trials} was shown to raise the EER of validation speakers by less than "
            f"{points(wanted.eer_margin)}, with no loss of top-1 shown, so this is the plain INT8 model, with nothing removed and nothing "
            f"trained. Its objective, the speaker loss over validation speakers (lower is better), is "
            f"{before:.4f}; fp32 has {reference:.4f}."
        )
    chosen = ", ".join(
        f"{title} {best[key] if isinstance(best[key], int) else significant(best[key])}"
        for key, title in HYPERPARAMETERS.items()
    )
    row = next(row for row in rows if int(row["trial"]) == best["trial"])
    value, low, high = (float(row[name]) for name in DIFFERENCE)
    change, ci = difference("eer", {"difference": {"eer": {"value": value, "low": low, "high": high}}})
    return (
        f"Of {trials}, trial {best['trial'] + 1} computes least, {float(row['gmacs']):.4f} GMACs, among those that no other "
        f"beats in objective, GMACs and size at once and whose EER on validation speakers is shown to be higher than "
        f"fp32’s by less than {points(wanted.eer_margin)} ({change} points, 95 % interval {ci}) and whose top-1 is not "
        f"shown to be lower. It was trained with "
        f"{chosen}, and then anew for {count(wanted.final_steps, 'step')}. Its objective, the speaker loss over "
        f"validation speakers (lower is better), is {float(row['objective']):.4f}; fp32 has {reference:.4f}, the plain INT8 "
        f"model before any training {before:.4f}."
    )


def _trade_off(results):
    best = choice(results)
    others = [
        _losses(model, results)
        if losses(model, results)
        else f"{model.title} has no shown loss either; where two compute the same, the lower EER decided"
        for model in quantised(results)
        if model is not best
    ]
    limits = ["A difference that was not shown may still be there: the intervals say how large.", _sizes(results)]
    if results.params.data.source == "synthetic":
        limits.append("The speech is synthetic: measure on speech like your own before you rely on it.")
    question = "What is the largest reduction of computation that does not hurt identification?"
    if best is None:
        return Answer(
            question,
            [
                f"The exact rewrite in fp32.onnx, among the models compared: {_rewrite(results)}, and it was "
                f"{_faster(results.models['fp32'])}. None in INT8 comes without a shown loss:",
                [f"{line}." for line in others],
                " ".join(limits),
            ],
        )
    moved, removed, size, time = _savings(best, results)
    beyond = " beyond the margin" if effect("eer", best.over(results.groups[0])) == "worse" else ""
    return Answer(
        question,
        [
            f"{best.title}, among the models compared: no loss in top-1 or EER was shown{beyond}.",
            [moved, f"{removed} The exact rewrite before it: {_rewrite(results)}.", size, time],
            " ".join([*(f"{line}." for line in others), *limits]),
        ],
    )


def _savings(model, results):
    """What the model saves against fp32.onnx: multiplications moved, operations removed, size, time."""
    fp32, share_run = results.models["fp32"], share(model.cost["int8_mac_share"])
    share_offered = share(model.cost["int8_mac_share_in_file"])
    offered = f"; the file offers {share_offered}" if share_offered != share_run else ""
    after, before = (f"{each.cost['gmacs']:.4f}" for each in (model, fp32))
    same = f"none, it has the {after} GMACs of fp32.onnx"
    size, full = model.cost["size_mb"], fp32.cost["size_mb"]
    times = model.timing["models"]
    return [
        f"Moved to INT8: {share_run} of the multiply-accumulates, counted in the graph that ONNX Runtime "
        f"makes of the file{offered}.",
        f"Operations removed by quantising: {same if after == before else f'{before} GMACs become {after}'}.",
        f"Size: {size:.2f} MB, {share(size / full)} of the {full:.2f} MB of fp32.onnx.",
        f"Time measured: {times[model.name]['median_ms']:.1f} ms, and {times['fp32']['median_ms']:.1f} ms "
        f"for fp32.onnx; {_faster(model)}.",
    ]


def _compared(model, results):
    """Blocks: what the model loses or gains in accuracy against fp32."""
    main = results.groups[0]
    figures, fp32 = model.over(main), results.models["fp32"].over(main)
    kinds = {key: effect(key, figures) for key in KEYS}
    found = [
        f"{word} in {_named(key for key in KEYS if kinds[key] == kind)}"
        for kind, word in (("worse", "a loss"), ("better", "a gain"))
        if kind in kinds.values()
    ]
    shown = f"{', and '.join(found)} was shown" if found else "no difference in accuracy was shown"
    return [
        f"Against fp32, {shown}; on {_speakers(results)}:",
        [
            "{}: {}{}, and {}{} in fp32; {}.".format(
                MEASURES[key].title, *_with_unit(key, figures)[:2], *_with_unit(key, fp32)[:2], _change(key, figures)
            )
            for key in KEYS
        ],
        margin(figures, results),
    ]


def _change(key, figures):
    """What the difference to fp32 is, and what it shows."""
    kind = effect(key, figures)
    if kind == "same":
        return "no difference in any resample"
    if kind == "open":
        return (
            f"no difference was shown, {_interval(key, figures)}: the interval excludes a loss larger "
            f"than {largest_loss(key, figures)}{MEASURES[key].points}"
        )
    word = "loss" if kind == "worse" else "gain"
    return f"a {word} was shown, {_interval(key, figures)}: the interval excludes 0"


def _interval(key, figures):
    value, ci = difference(key, figures)
    return f"{value}{MEASURES[key].points}, 95 % interval {ci}"


def _named(keys):
    return " and ".join(MEASURES[key].title for key in keys)


def _losses(model, results):
    figures = model.over(results.groups[0])
    return f"{model.title} loses in " + " and in ".join(
        f"{MEASURES[key].title} ({_interval(key, figures)})" for key in losses(model, results)
    )


def _with_unit(key, figures):
    value, ci = level(key, figures)
    return value, MEASURES[key].unit, ci


def _rewrite(results):
    before, after = results.profile["gmacs"], results.profile["rewritten_gmacs"]
    fewer = f"{share(1 - after / before)} fewer" if after < before else "none removed"
    return f"{before:.4f} GMACs become {after:.4f}, {fewer}"


def _faster(model, brief=False):
    """How many times as fast a model was as its latency file's reference; `brief` leaves out the interval."""
    reference = {"speechbrain": "SpeechBrain", "fp32": "fp32.onnx"}[model.timing["reference"]]
    value, ci = speed(model.taken)
    ci = "" if brief else f" (95 % interval {ci})"
    if model.taken["speedup_ci"]["low"] <= 1 <= model.taken["speedup_ci"]["high"]:
        return f"not shown to differ in speed from {reference}, {value} times as fast{ci}"
    return f"{value} times as fast as {reference}{ci}"


def _speakers(results):
    """Who was tested, in short: `48 synthetic speakers`."""
    main = results.groups[0]
    number = results.models["fp32"].over(main)["speakers"]
    if results.params.data.source == "synthetic":
        return f"{number:,} synthetic speakers"
    if results.over_seen(main):
        if results.seen < number:
            return f"{number:,} speakers, {results.seen:,} of which the encoder was trained on"
        return f"{number:,} speakers that the encoder was trained on"
    return f"{number:,} unseen speakers"


def _sizes(results):
    figures = results.models["fp32"].over(results.groups[0])
    return (
        f"The test has {count(figures['speakers'], 'speaker')} and {count(figures['trials'], 'trial')}, "
        f"{figures['target_trials']:,} of them target trials; the 95 % intervals are from "
        f"{count(results.params.evaluate.bootstrap, 'resample')} of the speakers, those of differences "
        "paired."
    )

import copy
import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from src.quantize import ptq, qat
from tests.quantize.conftest import FRAMES, Frames

HYPERPARAMETERS = qat.Hyperparameters(learning_rate=1e-3, weight_decay=0.0, batch_size=8, speaker_loss_weight=0.1)


def student(calibrated):
    return qat.fake_quantise(copy.deepcopy(calibrated[0]), calibrated[1])


def finetune(network, calibrated, speech, hyperparameters=HYPERPARAMETERS, steps=12, seed=0):
    tuned = student(calibrated)
    numbers = [int(name[1:]) for name in speech[1]]
    loss = qat.finetune(
        tuned,
        network,
        Frames(),
        speech[0],
        numbers,
        hyperparameters,
        steps=steps,
        samples=40 * 80,
        seed=seed,
        device="cpu",
    )
    return tuned, loss


def test_fake_quantisation_gives_what_the_converted_graph_gives(calibrated, features):
    fake, converted = student(calibrated), ptq.convert(calibrated[0])
    for x in features:
        assert torch.allclose(fake(x), converted(x), rtol=0, atol=1e-5)


def test_every_weight_of_the_encoder_is_trained_and_the_ranges_are_not(network, calibrated, speech):
    before, (after, _) = student(calibrated), finetune(network, calibrated, speech)
    trained = dict(after.named_parameters())
    assert len(trained) == len(list(network.parameters()))
    for name, value in before.named_parameters():
        assert not torch.equal(value, trained[name]), name
    for module, name in ((m, n) for n, m in after.named_modules() if isinstance(m, qat.FixedQParamsFakeQuantize)):
        assert torch.equal(module.scale, before.get_submodule(name).scale)


def test_fine_tuning_brings_the_student_nearer_to_its_teacher(network, calibrated, speech):
    def distance(tuned):
        x = torch.from_numpy(np.stack(speech[0])).unflatten(1, (FRAMES, 80))
        with torch.no_grad():
            return (1 - F.cosine_similarity(tuned(x), network(x))).mean().item()

    # Weights that are off, as an 8-bit rounding of this small network hardly hurts it.
    spoilt = copy.deepcopy(calibrated[0])
    with torch.no_grad():
        for parameter in spoilt.parameters():
            parameter += 0.05 * parameter.abs().mean() * torch.randn(parameter.shape, generator=torch.manual_seed(0))
    hyperparameters = qat.Hyperparameters(learning_rate=1e-3, weight_decay=0.0, batch_size=12, speaker_loss_weight=0.0)
    before = distance(student((spoilt, calibrated[1])))
    after, _ = finetune(network, (spoilt, calibrated[1]), speech, hyperparameters, steps=40)
    assert distance(after) < 0.8 * before
    # What was learnt is what the integer graph computes.
    assert np.isclose(distance(ptq.convert(after)), distance(after), rtol=1e-3)


def test_fine_tuning_repeats(network, calibrated, speech):
    (first, loss), (second, again) = (finetune(network, calibrated, speech, steps=4) for _ in range(2))
    assert loss == again
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters()))


@pytest.mark.parametrize("change", ["seed", "speaker_loss_weight"])
def test_another_seed_or_speaker_loss_weight_gives_other_weights(network, calibrated, speech, change):
    first, _ = finetune(network, calibrated, speech, steps=2)
    if change == "seed":
        second, _ = finetune(network, calibrated, speech, steps=2, seed=1)
    else:
        other = dataclasses.replace(HYPERPARAMETERS, speaker_loss_weight=0.2)
        second, _ = finetune(network, calibrated, speech, other, steps=2)
    assert all(not torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters()))


@pytest.mark.parametrize(("steps", "last"), [(12, 3), (3, 1)])
def test_the_training_loss_is_the_mean_of_the_last_quarter(network, calibrated, speech, steps, last, monkeypatch):
    backward, losses = torch.Tensor.backward, []
    monkeypatch.setattr(torch.Tensor, "backward", lambda loss: losses.append(loss.item()) or backward(loss))
    _, loss = finetune(network, calibrated, speech, steps=steps)
    assert len(losses) == steps and len(set(losses)) == steps
    assert loss == float(np.mean(losses[-last:]))


def test_leave_one_out_against_its_definition(monkeypatch):
    embeddings, speakers = torch.randn(7, 5, generator=torch.manual_seed(0)), torch.tensor([0, 0, 1, 1, 1, 2, 2])
    monkeypatch.setattr(qat, "LEFT_OUT", 3)
    prototypes, unit = torch.cat(list(qat.leave_one_out(embeddings, speakers))), F.normalize(embeddings)
    for i in range(7):
        for speaker in range(3):
            others = [unit[j] for j in range(7) if speakers[j] == speaker and j != i]
            assert torch.allclose(prototypes[i, speaker], torch.stack(others).mean(0), atol=1e-6)
    losses = [qat.speaker_loss(embeddings[i : i + 1], prototypes[i], speakers[i : i + 1]) for i in range(7)]
    assert torch.isclose(qat.leave_one_out_loss(embeddings, speakers), torch.stack(losses).mean())


def test_speaker_loss_does_not_saturate():
    speakers = torch.tensor([0, 1])
    prototypes = torch.eye(2)
    losses = [qat.speaker_loss(torch.tensor([[1.0, off], [off, 1.0]]), prototypes, speakers) for off in (0.9, 0.7, 0.5)]
    assert losses[0] > losses[1] > losses[2] > 0  # all are identified right, and it still falls


def test_crops_use_every_waveform_once_before_any_again():
    waveforms = [np.full(n, i, "float32") for i, n in enumerate((50, 100, 10, 70))]
    taken = list(qat.crops(waveforms, 40, 2, 4, np.random.default_rng(0)))
    assert all(batch.shape == (2, 40) for batch, _ in taken)
    order = [int(i) for _, indices in taken for i in indices]
    assert sorted(order[:4]) == sorted(order[4:]) == [0, 1, 2, 3]
    assert all((batch == indices[:, None]).all() for batch, indices in taken)

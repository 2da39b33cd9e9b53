import copy
import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torchao.quantization.pt2e import FixedQParamsObserver

from src.quantize import ptq, qat
from tests.quantize.conftest import FRAMES, Frames

HYPERPARAMETERS = qat.Hyperparameters(learning_rate=1e-3, weight_decay=0.0, batch_size=8, speaker_loss_weight=0.1)


def student(calibrated):
    return qat.fake_quantise(copy.deepcopy(calibrated[0]), calibrated[1])


@pytest.fixture(scope="module")
def crops(network, speech):
    return cut(network, speech)


def cut(network, speech, seed=0):
    waveforms, names = speech
    numbers = [int(name[1:]) for name in names]
    return qat.crops(network, Frames(), waveforms, numbers, samples=40 * 80, seed=seed, device="cpu", each=2)


def finetune(calibrated, crops, hyperparameters=HYPERPARAMETERS, steps=12, seed=0):
    tuned = student(calibrated)
    return tuned, qat.finetune(tuned, crops, hyperparameters, steps=steps, seed=seed)


def test_fake_quantisation_gives_what_the_converted_graph_gives(calibrated, features):
    fake, converted = student(calibrated), ptq.convert(calibrated[0])
    for x in features:
        assert torch.allclose(fake(x), converted(x), rtol=0, atol=1e-5)


def test_every_weight_of_the_encoder_is_trained_and_the_ranges_are_not(network, calibrated, crops):
    before, (after, _) = student(calibrated), finetune(calibrated, crops)
    trained = dict(after.named_parameters())
    assert len(trained) == len(list(network.parameters()))
    for name, value in before.named_parameters():
        assert not torch.equal(value, trained[name]), name
    for module, name in ((m, n) for n, m in after.named_modules() if isinstance(m, qat.FakeQuantizedActivations)):
        assert torch.equal(module.scale, before.get_submodule(name).scale)


def test_fine_tuning_brings_the_student_nearer_to_its_teacher(network, calibrated, speech, crops):
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
    after, _ = finetune((spoilt, calibrated[1]), crops, hyperparameters, steps=40)
    assert distance(after) < 0.8 * before
    # What was learnt is what the integer graph computes.
    assert np.isclose(distance(ptq.convert(after)), distance(after), rtol=1e-3)


@pytest.mark.parametrize("damage", [0.01, 0.03])
def test_at_the_unit_rate_the_first_step_moves_the_embeddings_as_far_as_they_are_from_the_teachers(
    network, crops, damage
):
    probed = qat.Crops(*(part[:24] for part in (crops.features, crops.targets, crops.speakers)), crops.prototypes)
    spoilt = copy.deepcopy(network).requires_grad_(True)
    with torch.no_grad():
        for parameter in spoilt.parameters():
            parameter += damage * parameter.abs().mean() * torch.randn(parameter.shape, generator=torch.manual_seed(0))
        before = spoilt(probed.features)
    rate = qat.unit_rate(spoilt, probed, 0.0)
    with torch.no_grad():
        assert torch.equal(spoilt(probed.features), before)  # what is tried is a copy
    qat.finetune(spoilt, probed, qat.Hyperparameters(rate, 0.0, 24, 0.0), steps=1, seed=0)
    with torch.no_grad():
        moved = (1 - F.cosine_similarity(spoilt(probed.features), before)).mean().item()
    distance = (1 - F.cosine_similarity(before, probed.targets)).mean().item()
    assert moved == pytest.approx(distance + qat.QUANTISED, rel=0.3)


def test_fine_tuning_repeats(calibrated, crops):
    (first, loss), (second, again) = (finetune(calibrated, crops, steps=4) for _ in range(2))
    assert loss == again
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters()))


@pytest.mark.parametrize("change", ["seed", "speaker_loss_weight"])
def test_another_seed_or_speaker_loss_weight_gives_other_weights(calibrated, crops, change):
    first, _ = finetune(calibrated, crops, steps=2)
    if change == "seed":
        second, _ = finetune(calibrated, crops, steps=2, seed=1)
    else:
        other = dataclasses.replace(HYPERPARAMETERS, speaker_loss_weight=0.2)
        second, _ = finetune(calibrated, crops, other, steps=2)
    assert all(not torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters()))


@pytest.mark.parametrize(("steps", "last"), [(12, 3), (3, 1)])
def test_the_training_loss_is_the_mean_of_the_last_quarter(calibrated, crops, steps, last, monkeypatch):
    backward, losses = torch.Tensor.backward, []
    monkeypatch.setattr(torch.Tensor, "backward", lambda loss: losses.append(loss.item()) or backward(loss))
    _, loss = finetune(calibrated, crops, steps=steps)
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


def test_crops_are_of_their_speakers_and_have_what_the_teacher_makes_of_them(network, speech, crops):
    assert len(crops.features) == 2 * len(speech[0]) and crops.features.shape[1:] == (40, 80)
    with torch.no_grad():
        torch.testing.assert_close(crops.targets, torch.cat([network(one[None]) for one in crops.features]))
    plain = len(speech[0])
    for one, number in zip(crops.features[:plain], crops.speakers):
        (source,) = [i for i, wave in enumerate(speech[0]) if one.flatten()[0].item() in wave]
        assert speech[1][source] == f"s{number}"
        place = speech[0][source].tolist().index(one.flatten()[0].item())
        np.testing.assert_array_equal(one.flatten(), speech[0][source][place : place + 40 * 80])
    assert (crops.speakers[plain:] == crops.speakers[:plain] + crops.speakers[:plain].max() + 1).all()
    mean = F.normalize(crops.targets[crops.speakers == 3]).sum(0)
    torch.testing.assert_close(F.normalize(crops.prototypes[3], dim=0), F.normalize(mean, dim=0))
    assert not torch.equal(cut(network, speech, seed=1).features, crops.features)
    short = [np.arange(80, dtype="float32"), np.arange(80, dtype="float32")]
    repeated = qat.crops(network, Frames(), short, [0, 1], samples=40 * 80, seed=0, device="cpu", each=1)
    assert torch.equal(repeated.features[0, 0], repeated.features[0, 39])


def test_crops_after_the_first_are_slower_and_faster_and_of_other_voices():
    samples, rate = 40 * 80, 16_000
    tone = np.sin(2 * np.pi * 1000 * np.arange(2 * samples) / rate).astype("float32")
    heard = qat.crops(lambda features: features.mean(1), Frames(), [tone], [0], samples=samples, seed=0, device="cpu")
    spectra = np.abs(np.fft.rfft(heard.features.flatten(1).numpy()))
    assert (spectra.argmax(1) * rate / samples).tolist() == [1000, 900, 1100]
    assert heard.speakers.tolist() == [0, 1, 2] and len(heard.prototypes) == 3


def test_every_crop_is_used_once_before_any_again_and_the_rate_rises_and_falls(calibrated, crops):
    seen, rates, step = [], [], torch.optim.AdamW.step

    def watched(optimizer, *args, **kwargs):
        rates.append(optimizer.param_groups[0]["lr"])
        return step(optimizer, *args, **kwargs)

    tuned = student(calibrated)
    tuned.register_forward_pre_hook(lambda _, inputs: seen.extend(one.flatten()[0].item() for one in inputs[0]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", watched)
        qat.finetune(tuned, crops, HYPERPARAMETERS, steps=12, seed=0, warm_up=3, decay=(1.0, 0.5))
    assert sorted(seen[:48]) == sorted(seen[48:]) == sorted(one.flatten()[0].item() for one in crops.features)
    assert rates[0] < rates[1] < rates[2] and rates[3:] == sorted(rates[3:], reverse=True)
    assert 0.5e-3 < rates[-1] < 0.52e-3 and max(rates) < 1e-3


@pytest.mark.parametrize("scale", [0.0173, 0.5])
def test_activations_are_quantised_as_torch_does_bit_for_bit(scale):
    options = {"scale": scale, "zero_point": 100, "quant_min": 0, "quant_max": 255}
    observer = FixedQParamsObserver.with_args(**options, dtype=torch.uint8, qscheme=torch.per_tensor_affine)
    ours = qat.FakeQuantizedActivations(observer)
    values = 2 * torch.randn(4, 300, generator=torch.Generator().manual_seed(0))
    values[0, :256] = scale * (torch.arange(256) - 100.5)  # halves between two levels
    one, other = values.clone().requires_grad_(), values.clone().requires_grad_()
    given, expected = ours(one), torch.fake_quantize_per_tensor_affine(other, *options.values())
    assert torch.equal(given, expected) and len(given.unique()) > 20
    for each in (given, expected):
        (each * torch.arange(1, 1 + each.numel()).view_as(each)).sum().backward()
    assert torch.equal(one.grad, other.grad)
    assert (one.grad == 0).any() == (scale < 0.1)
    ours.disable_fake_quant()
    assert ours(values) is values

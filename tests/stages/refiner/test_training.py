import numpy as np
import pytest
import torch

from stages.refiner.lstm import Lstm
from stages.refiner.nets import seeded
from stages.refiner.training import Epochs, Learner, Samples, Schedule, Steps, train
from stages.refiner.windows import Inputs


def samples(bars=40, assets=3, seed=0):
    """Sides that follow the last feature."""
    draw = np.random.default_rng(seed)
    rows = bars * assets
    features = draw.standard_normal((rows, 2)).astype("float32")
    inputs = Inputs(features, np.zeros((rows, 0), dtype="float32"), window=1)
    target = np.digitize(features[:, 1], [-0.4, 0.4])
    bar = np.tile(np.arange(bars), assets)
    return Samples(inputs, np.arange(rows), bar, target, np.ones(rows, dtype="float32"))


def learner(rate=0.01, average=0.0):
    with seeded(0):
        return Learner(Lstm(2, 0, 1, hidden=4, dropout=0.0), Steps(rate, 0.0, average), 0.0)


def seen(epochs):
    return [tuple(row) for x_BLF, *_ in epochs for row in x_BLF[:, -1].tolist()]


def test_an_epoch_shows_every_sample_once():
    some = samples()
    epochs = Epochs(some, 32, generator=np.random.default_rng(0))
    first, second = seen(epochs), seen(epochs)
    assert len(epochs) == 4
    assert sorted(first) == sorted(second) == sorted(map(tuple, some.inputs.features.tolist()))
    assert first != second


@pytest.mark.parametrize("stride", [2, 5])
def test_strided_epochs_show_all_bars_in_turn(stride):
    some = samples()
    epochs = Epochs(some, 1000, stride)
    passes = [seen(epochs) for _ in range(stride)]
    assert [len(one) for one in passes] == [len(some) / stride] * stride
    assert len(set(sum(passes, []))) == len(some)


def test_without_a_generator_samples_come_in_order():
    assert seen(Epochs(samples(), 7)) == list(map(tuple, samples().inputs.features.tolist()))


def test_the_loss_is_that_of_three_weighted_sides():
    pupil = learner()
    some = samples()
    weight = np.linspace(0.5, 1.5, len(some)).astype("float32")
    some = Samples(some.inputs, some.ends, some.bar, some.target, weight)
    loss = pupil.training_step(some.batch(np.arange(len(some))), 0).detach()
    x_BLF, static_BS, target, _ = some.batch(np.arange(len(some)))
    z_sell, z_buy = pupil.net(x_BLF, static_BS).detach().double().numpy().T
    odds = np.exp(np.stack([z_sell, np.zeros_like(z_sell), z_buy], axis=1))
    chosen = odds[np.arange(len(some)), target] / odds.sum(axis=1)
    assert float(loss) == pytest.approx((-np.log(chosen) * weight).mean(), rel=1e-5)


def test_the_weights_that_were_best_on_the_tail_are_kept():
    rash = learner(rate=0.5)  # leaps over the best weights
    tail = Epochs(samples(seed=1), 50)
    net = train(rash, Epochs(samples(), 16), tail, Schedule(8, 8, "cpu", progress=False))
    with torch.no_grad():
        losses = torch.cat([rash._losses(net, batch, 0) for batch in tail])
    assert float(losses.mean()) == pytest.approx(rash.best, rel=1e-5)
    assert not net.training
    assert not any(weights.requires_grad for weights in net.parameters())


def test_the_running_mean_is_that_of_the_weights_after_each_step():
    pupil, trail = learner(average=0.7), []
    follow = pupil.on_train_batch_end

    def noting(*told):
        trail.append(pupil.net.head.bias.detach().double().numpy().copy())
        follow(*told)

    pupil.on_train_batch_end = noting
    net = train(pupil, Epochs(samples(), 8), None, Schedule(2, 2, "cpu", progress=False))
    expected = trail[0]
    for step, weights in enumerate(trail[1:], start=1):
        decay = min(0.7, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * weights
    assert len(trail) == 30
    np.testing.assert_allclose(net.head.bias, expected, rtol=1e-5)
    assert not np.allclose(net.head.bias, trail[-1], rtol=1e-3)


def test_a_running_mean_is_better_than_the_last_of_restless_weights():
    last, mean = (
        train(learner(0.3, average), Epochs(samples(), 8), None, Schedule(12, 12, "cpu", False))
        for average in (0.0, 0.95)
    )
    judge, tail = learner(), Epochs(samples(bars=400, seed=1), 5000)
    with torch.no_grad():
        losses = [judge._losses(net, batch, 0).mean() for net in (last, mean) for batch in tail]
    assert losses[1] < losses[0] - 0.02


def test_training_stops_when_the_tail_stops_gaining():
    backwards = samples(seed=1)
    backwards = Samples(
        backwards.inputs, backwards.ends, backwards.bar, 2 - backwards.target, backwards.weight
    )
    epochs = Epochs(samples(), 16)
    train(learner(), epochs, Epochs(backwards, 50), Schedule(50, 2, "cpu", progress=False))
    assert epochs.epoch < 10


def test_no_file_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    schedule = Schedule(1, 1, "cpu", progress=True)
    train(learner(), Epochs(samples(), 64), Epochs(samples(seed=1), 64), schedule)
    assert not list(tmp_path.iterdir())

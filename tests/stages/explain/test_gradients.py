import numpy as np
import pytest
import torch
from torch import nn

from stages.explain.gradients import Points, integrated_gradients
from stages.refiner.gru import Gru
from stages.refiner.lstm import Lstm
from stages.refiner.tcn import Tcn
from stages.refiner.transformer import Transformer

LENGTH, WIDTH = 5, 4


def points(count, seed):
    draw = np.random.default_rng(seed)
    window = draw.standard_normal((count, LENGTH, WIDTH)).astype("float32")
    return Points(window, draw.standard_normal((count, 2)).astype("float32"))


def network(kind, stretch, **sizes):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        net = kind(n_features=WIDTH, n_static=2, window=LENGTH, **sizes)
        for weights in net.parameters():  # fresh nets are too nearly linear to be a test
            weights.data *= stretch
    return net.eval().requires_grad_(False)


NETS = {
    "lstm": network(Lstm, 3, hidden=6),
    "gru": network(Gru, 3, hidden=6),
    "tcn": network(Tcn, 2, hidden=6, levels=2),
    "transformer": network(Transformer, 1.5, hidden=8, heads=2),
}


@pytest.fixture(params=NETS)
def net(request):
    return NETS[request.param]


def test_contributions_are_those_of_captum(net):
    captum = pytest.importorskip("captum.attr")
    rows, references = points(3, 0), points(2, 1)
    ours = integrated_gradients(net, rows, references, nodes=32, most=32)
    oracle = captum.IntegratedGradients(net)
    for n, r, o in np.ndindex(3, 2, 2):
        start, end = (
            (torch.from_numpy(p.window[[i]]), torch.from_numpy(p.static[[i]]))
            for p, i in ((references, r), (rows, n))
        )
        window, static = oracle.attribute(end, start, target=o, n_steps=32, method="gausslegendre")
        np.testing.assert_allclose(ours.window[n, r, o], window[0].sum(dim=0), atol=2e-5)
        moved = rows.static[n] - references.static[r]
        np.testing.assert_allclose(ours.slope[n, r, o] * moved, static[0], atol=2e-5)


def test_contributions_add_up_to_what_the_net_says(net):
    rows, references = points(6, 0), points(4, 1)
    shares = integrated_gradients(net, rows, references)
    says = [net(*map(torch.from_numpy, (p.window, p.static))).numpy() for p in (rows, references)]
    moved = rows.static[:, None] - references.static[None]
    total = shares.window.sum(axis=3) + (shares.slope * moved[:, :, None]).sum(axis=3)
    np.testing.assert_allclose(total, says[0][:, None] - says[1][None], atol=1.1e-4)
    assert np.abs(shares.gap).max() < 1.1e-4


def test_nodes_are_doubled_where_they_do_not_do(net):
    rows, references = points(6, 0), points(4, 1)
    coarse = integrated_gradients(net, rows, references, nodes=2, most=2)
    fine = integrated_gradients(net, rows, references, nodes=2)
    assert np.abs(coarse.gap).max() > 1e-3
    assert np.abs(fine.gap).max() < 1.1e-4
    # pairs that were good enough at once keep their bits
    done = (np.abs(coarse.gap) <= 1e-4).all(axis=2)
    assert (fine.window[done] == coarse.window[done]).all()


def test_a_pair_has_the_same_bits_among_others(net):
    rows, references = points(12, 0), points(5, 1)
    together = integrated_gradients(net, rows, references)
    some = Points(rows.window[[11, 7]], rows.static[[11, 7]])
    alone = integrated_gradients(net, some, references)
    for name in ("window", "slope", "gap", "lags"):
        assert (getattr(alone, name) == getattr(together, name)[[11, 7]]).all()


def test_a_row_that_is_its_own_reference_has_no_reasons(net):
    one = points(1, 0)
    shares = integrated_gradients(net, one, one)
    assert not shares.window.any()
    assert not shares.gap.any()


class Linear(nn.Module):
    """Known gradients: 2 on the first feature of the last bar, 3 on the first static input."""

    def forward(self, x_BLF, static_BS):
        return torch.stack([2 * x_BLF[:, -1, 0], 3 * static_BS[:, 0]], dim=1)


def test_a_linear_net_is_explained_by_its_weights():
    rows, references = points(3, 0), points(2, 1)
    shares = integrated_gradients(Linear(), rows, references, nodes=1)
    moved = rows.window[:, None, -1, 0] - references.window[None, :, -1, 0]
    np.testing.assert_allclose(shares.window[..., 0, 0], 2 * moved, rtol=1e-6)
    assert not shares.window[..., 1:].any()
    assert not shares.window[..., 1, :].any()
    np.testing.assert_array_equal(shares.slope, np.broadcast_to([[0, 0], [3, 0]], (3, 2, 2, 2)))


def test_a_net_without_static_inputs_is_explained_by_its_window_alone():
    bare = Lstm(n_features=WIDTH, n_static=0, window=LENGTH, hidden=6).eval().requires_grad_(False)
    rows, references = (Points(p.window, p.static[:, :0]) for p in (points(3, 0), points(2, 1)))
    shares = integrated_gradients(bare, rows, references, pull=pulls(rows, references))
    assert shares.slope.shape == (3, 2, 1, 0)
    assert np.abs(shares.gap).max() < 1.1e-4
    assert np.abs(shares.window).max() > 0.01


def pulls(rows, references, seed=5):
    return np.random.default_rng(seed).normal(size=(len(rows), len(references), 2))


def test_weighted_outputs_are_explained_in_one_pass_as_one_by_one(net):
    rows, references = points(3, 0), points(4, 1)
    pull = pulls(rows, references)
    each = integrated_gradients(net, rows, references, nodes=16, most=16)
    once = integrated_gradients(net, rows, references, nodes=16, most=16, pull=pull)
    weighted = [
        (once.window, (each.window * pull[..., None]).sum(axis=2)),
        (once.slope, (each.slope * pull[..., None]).sum(axis=2)),
        (once.gap, (each.gap * pull).sum(axis=2)),
    ]
    for mine, theirs in weighted:
        np.testing.assert_allclose(mine[:, :, 0], theirs, atol=2e-6)
    assert once.window.shape == (3, 4, 1, WIDTH)


def test_bars_sum_to_the_window_and_a_bar_that_moved_nothing_has_nothing(net):
    rows, references = points(3, 0), points(4, 1)
    shares = integrated_gradients(net, rows, references, pull=pulls(rows, references))
    np.testing.assert_allclose(
        shares.lags.sum(axis=1), shares.window[:, :, 0].mean(axis=1), atol=1e-12
    )
    padded = np.concatenate([np.zeros_like(rows.window[:, :2]), rows.window[:, 2:]], axis=1)
    empty = np.concatenate([np.zeros_like(references.window[:, :2]), references.window[:, 2:]], 1)
    ends = Points(padded, rows.static), Points(empty, references.static)
    shares = integrated_gradients(net, *ends, pull=pulls(*ends))
    np.testing.assert_array_equal(shares.lags[:, :2], 0)
    assert shares.lags[:, 2:].all()


def test_bars_beyond_what_a_net_sees_get_exactly_nothing():
    short = network(Tcn, 2, hidden=6, levels=1)  # sees three bars
    rows, references = points(3, 0), points(4, 1)
    shares = integrated_gradients(short, rows, references, pull=pulls(rows, references))
    np.testing.assert_array_equal(shares.lags[:, : LENGTH - 3], 0)
    assert shares.lags[:, -3:].any(axis=(0, 2)).all()


def test_a_weighted_pair_has_the_same_bits_among_others(net):
    rows, references = points(12, 0), points(5, 1)
    pull = pulls(rows, references)
    together = integrated_gradients(net, rows, references, nodes=2, pull=pull)
    some = Points(rows.window[[11, 7]], rows.static[[11, 7]])
    alone = integrated_gradients(net, some, references, nodes=2, pull=pull[[11, 7]])
    for name in ("window", "slope", "gap", "lags"):
        assert (getattr(alone, name) == getattr(together, name)[[11, 7]]).all()


def test_what_no_weight_asks_for_costs_no_pass():
    seen = []

    def counted(x_BLF, static_BS):
        seen.append(len(x_BLF))
        return NETS["lstm"](x_BLF, static_BS)

    rows, references = points(3, 0), points(2, 1)
    rise, nothing = pulls(rows, references), np.zeros((3, 2, 2))
    shares = integrated_gradients(counted, rows, references, pull=nothing, rise=rise)
    assert seen == []
    assert not shares.lags.any()
    assert not shares.gap.any()
    integrated_gradients(counted, rows, references, nodes=2, most=2, pull=rise, rise=rise)
    assert seen == [4, 4, 4]  # 2 pairs of a row at 2 points; the outputs at the ends were given


@pytest.mark.parametrize("nodes", [80, 128, 250])
def test_many_nodes_are_spread_over_several_chunks(net, nodes):
    rows, references = points(2, 0), points(2, 1)
    few, many = (
        integrated_gradients(net, rows, references, nodes=n, most=n, pull=pulls(rows, references))
        for n in (16, nodes)
    )
    np.testing.assert_allclose(many.window, few.window, atol=1e-4)
    assert np.abs(many.gap).max() < 1e-5


class Plain(nn.Module):
    """Activations as functions, and one module used twice: what escapes hooks."""

    def __init__(self):
        super().__init__()
        self.mix = nn.Linear(WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH + 2, 2)

    def forward(self, x_BLF, static_BS):
        hidden = torch.tanh(self.mix(torch.relu(self.mix(x_BLF)))).mean(dim=1)
        return self.head(torch.cat([hidden, static_BS], dim=1))


def test_functional_activations_and_modules_used_twice_are_seen():
    # shap#3938, #3725: explainers that hang on modules lose or double these
    with torch.random.fork_rng():
        torch.manual_seed(0)
        plain = Plain().eval().requires_grad_(False)
    shares = integrated_gradients(plain, points(4, 0), points(3, 1), nodes=64)
    assert np.abs(shares.gap).max() < 1e-3  # a kink is met between two nodes
    assert np.abs(shares.window).max() > 0.01


def test_what_captum_and_shap_make_of_an_lstm_does_not_add_up_and_ours_does():
    """DeepLiftShap says nothing of it; shap's DeepExplainer fails its own check or is wrong."""
    captum = pytest.importorskip("captum.attr")
    rows, references = points(4, 0), points(3, 1)
    lstm = NETS["lstm"]

    class Bare(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = lstm

        def forward(self, x_BLF):
            return self.lstm(x_BLF, torch.zeros(len(x_BLF), 2))

    still = Points(rows.window, np.zeros_like(rows.static))
    start = Points(references.window, np.zeros_like(references.static))
    x, r = torch.from_numpy(rows.window), torch.from_numpy(references.window)
    bare = Bare()
    due = (bare(x)[:, 0] - bare(r)[:, 0].mean()).numpy()
    theirs = captum.DeepLiftShap(bare).attribute(x.requires_grad_(True), r, target=0)
    off = np.abs(theirs.sum(dim=(1, 2)).detach().numpy() - due).max()
    ours = integrated_gradients(lstm, still, start).window[:, :, 0].sum(axis=2).mean(axis=1)
    assert off > 0.1 * np.abs(due).max()  # if this fails, the library has been mended
    np.testing.assert_allclose(ours, due, atol=1.1e-4)
    shap = pytest.importorskip("shap")
    # shap#3415, #2653: nn.LSTM is not recognised
    with pytest.raises(AssertionError, match="SHAP explanations do not sum"):
        shap.DeepExplainer(bare, r).shap_values(x.detach())


@pytest.mark.parametrize("nodes", [0, 257])
def test_too_few_and_too_many_nodes_are_refused(nodes):
    with pytest.raises(ValueError, match=f"got {nodes}"):
        integrated_gradients(Linear(), points(1, 0), points(1, 1), nodes=nodes)


def test_without_points_there_is_nothing_to_explain():
    with pytest.raises(ValueError, match="got 0 and 2"):
        integrated_gradients(Linear(), points(0, 0), points(2, 1))

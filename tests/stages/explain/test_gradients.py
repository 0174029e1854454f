import numpy as np
import pytest
import torch
from torch import nn

from stages.explain.gradients import Points, integrated_gradients
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
    rows, references = points(40, 0), points(9, 1)
    together = integrated_gradients(net, rows, references)
    some = Points(rows.window[[31, 7]], rows.static[[31, 7]])
    alone = integrated_gradients(net, some, references)
    for name in ("window", "slope", "gap"):
        assert (getattr(alone, name) == getattr(together, name)[[31, 7]]).all()


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


@pytest.mark.parametrize("nodes", [0, 3, 512])
def test_a_number_of_nodes_that_does_not_fill_a_chunk_is_refused(nodes):
    with pytest.raises(ValueError, match=f"got {nodes}"):
        integrated_gradients(Linear(), points(1, 0), points(1, 1), nodes=nodes)


def test_without_points_there_is_nothing_to_explain():
    with pytest.raises(ValueError, match="got 0 and 2"):
        integrated_gradients(Linear(), points(0, 0), points(2, 1))

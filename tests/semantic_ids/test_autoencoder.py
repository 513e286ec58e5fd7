"""Gradients, the optimiser and Sinkhorn against what others say of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from diffgrm.semantic_ids.tokenizers.autoencoder import AdamW, Autoencoder, Perceptron, balanced
from diffgrm.semantic_ids.tokenizers.codebooks import Codebooks

SIZES, WIDTH, BATCH = (5, 3, 4), 2, 11


def small_network(residual, dtype=np.float64):
    """Three digits between layers of a few units, with an unused row in two of the codebooks."""
    generator = np.random.default_rng(3)
    inner = WIDTH if residual else 3 * WIDTH
    encoder, decoder = (Perceptron.drawn(widths, generator) for widths in ([6, 7, inner], [inner, 7, 6]))
    for perceptron in (encoder, decoder):
        perceptron.weights = [weight.astype(dtype) for weight in perceptron.weights]
        perceptron.biases = [generator.normal(size=bias.shape).astype(dtype) for bias in perceptron.biases]
    books = generator.normal(size=(3, 5, WIDTH)).astype(dtype)
    for digit, size in enumerate(SIZES):
        books[digit, size:] = 0
    return Autoencoder(encoder, Codebooks(books, SIZES, residual), decoder), generator.normal(size=(BATCH, 6))


def through(layers, rows):
    weights, biases = layers
    for place, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        rows = rows @ weight + bias
        rows = rows.relu() if place < len(weights) - 1 else rows
    return rows


@pytest.mark.parametrize("residual", [False, True])
def test_gradients_are_those_of_automatic_differentiation_with_stops(residual):
    network, rows = small_network(residual)
    losses, found = network.gradients(rows, 0.25)
    tensors = [torch.tensor(parameter, requires_grad=True) for parameter in network.parameters]
    encoder, books, decoder = (tensors[:2], tensors[2:4]), tensors[4], (tensors[5:7], tensors[7:9])
    x = torch.tensor(rows)
    inner, picked, targets, left = through(encoder, x), [], [], None
    left = inner
    for digit, size in enumerate(SIZES):
        target = left if residual else inner[:, digit * WIDTH : (digit + 1) * WIDTH]
        code = torch.cdist(target.detach(), books[digit, :size].detach()).argmin(1)
        picked.append(books[digit, code])
        targets.append(target)
        left = left - picked[-1].detach() if residual else left
    picked, targets = torch.stack(picked, 1), torch.stack(targets, 1)
    quantised = picked.sum(1) if residual else picked.flatten(1)
    straight = inner + (quantised - inner).detach()
    reconstruction = ((through(decoder, straight) - x) ** 2).mean()
    quantisation = ((targets.detach() - picked) ** 2).mean()
    (reconstruction + quantisation + 0.25 * ((targets - picked.detach()) ** 2).mean()).backward()
    assert losses == pytest.approx((reconstruction.item(), quantisation.item()))
    for gradient, tensor in zip(found, tensors, strict=True):
        assert np.allclose(gradient, tensor.grad.numpy(), atol=1e-12)
    assert all(np.abs(gradient).max() > 1e-4 for gradient in found)


def test_a_perceptrons_gradients_are_finite_differences():
    perceptron, rows = small_network(False)[0].encoder, np.random.default_rng(0).normal(size=(4, 6))
    weights = np.random.default_rng(1).normal(size=(4, 6))

    def value():
        return (perceptron(rows) * weights).sum()

    found, of_input = perceptron.gradients(perceptron.states(rows), weights)
    for array, gradient in [*zip(perceptron.parameters, found, strict=True), (rows, of_input)]:
        for place in np.ndindex(array.shape):
            before, array[place] = array[place], array[place] + 1e-6
            higher = value()
            array[place] = before - 1e-6
            assert gradient[place] == pytest.approx((higher - value()) / 2e-6, abs=1e-6)
            array[place] = before


def test_adamw_is_that_of_pytorch():
    generator = np.random.default_rng(0)
    ours = [generator.normal(size=shape) for shape in [(3, 4), (5,)]]
    theirs = [torch.nn.Parameter(torch.tensor(array)) for array in ours]
    optimiser, reference = AdamW(ours, 0.01, 0.1), torch.optim.AdamW(theirs, 0.01, weight_decay=0.1)
    for _ in range(20):
        gradients = [generator.normal(size=array.shape) for array in ours]
        optimiser.step(gradients)
        for parameter, gradient in zip(theirs, gradients, strict=True):
            parameter.grad = torch.tensor(gradient)
        reference.step()
    for array, parameter in zip(ours, theirs, strict=True):
        assert np.allclose(array, parameter.detach().numpy(), atol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_sinkhorn_of_as_many_rows_as_codes_is_the_cheapest_permutation(seed):
    distances = np.random.default_rng(seed).random((12, 12))
    codes = balanced(distances, 0.003, 5000)
    assert sorted(codes) == list(range(12)) and (codes == linear_sum_assignment(distances)[1]).all()


def test_sinkhorn_evens_out_codes_that_the_nearest_would_leave_empty():
    generator = np.random.default_rng(0)
    points = generator.normal(size=(400, 3)) + 10 * (np.arange(400) % 8 == 0)[:, None]
    distances = ((points[:, None] - 3 * generator.normal(size=(8, 3))) ** 2).sum(-1)
    counts = np.bincount(balanced(distances, 0.003, 500), minlength=8)
    assert counts.min() >= 45 and np.bincount(distances.argmin(1), minlength=8).min() < 10
    assert np.isfinite(balanced(np.zeros((4, 3)), 0.003, 10)).all()


@pytest.mark.parametrize("residual", [False, True])
def test_costs_and_errors_of_codebooks_are_what_trying_every_change_gives(residual):
    network, rows = small_network(residual)
    books, points = network.codebooks, network.encoder(rows)
    codes = books.codes(points)
    costs = books.costs(points, codes)
    for digit, size in enumerate(SIZES):
        for code in range(size):
            changed = codes.copy()
            changed[:, digit] = code
            assert np.allclose(costs[:, digit, code], books.errors(points, changed))
    assert np.allclose(books.targets(points, codes)[:, 0], points[:, :WIDTH])
    assert (books.codes(points, lambda distances: distances.argmax(1))[:, :-1] == codes[:, :-1]).all()
    gap = books.targets(points, codes) - books.rows(codes)
    left = (gap[:, -1] ** 2).sum(1) if residual else (gap**2).sum((1, 2))
    assert np.allclose(left, books.errors(points, codes))

"""Estimators of dx/dc that perturb the costs: closed forms, unbiasedness, variances, formulas by hand."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy import stats

import lpdiff
from lpdiff import problems
from lpdiff.gradients import IMLE, AbstractNoise, Adaptive, Gaussian, Gumbel, Perturbed, SumOfGamma

F64 = torch.float64
SAMPLES = 40_000
ERRORS = 4.5  # standard errors of a mean that are chance: one in 150,000


def simplex_argmin(costs: np.ndarray) -> np.ndarray:
    return np.eye(costs.shape[1])[costs.argmin(axis=1)]


def box_argmin(costs: np.ndarray) -> np.ndarray:
    """x of 0 <= x <= 1."""
    return (costs < 0).astype(float)


def run(rule, argmin, c, g, seed):
    """x and dL/dc of a rule by an argmin of one line: no solver, no torch."""
    outputs = rule.forward(argmin, c, argmin(c), np.random.default_rng(seed))
    return outputs[0], rule.cotangent(argmin, c, outputs, g)


def assert_mean(estimates: np.ndarray, expected: np.ndarray, least: float = 0.0) -> None:
    """Independent, unbiased estimates (K, ...): their mean, within its standard error."""
    mean = estimates.mean(axis=0)
    error = estimates.std(axis=0, ddof=1) / np.sqrt(len(estimates))
    assert (np.abs(mean - expected) <= ERRORS * error + 1e-12).all(), (mean, expected, error)
    assert (error < 0.05 * (least + np.abs(expected).max())).all(), "too noisy to tell"


def many(rule, argmin, c, g, seed, runs=SAMPLES):
    """Estimates of x and of dL/dc, one a row: the rule's batch is as many copies of one item."""
    return run(rule, argmin, np.repeat(c[None], runs, axis=0), np.repeat(g[None], runs, axis=0), seed)


VARIANTS = [
    {"samples": samples, "antithetic": antithetic, "leave_one_out": leave_one_out}
    for samples, antithetic in ((1, False), (2, False), (2, True), (4, True))
    for leave_one_out in (False, True)
]


# -- closed forms ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", VARIANTS)
def test_gumbel_on_the_simplex_is_softmax(how):
    """In the mean over many runs of few samples, so that a bias of any of the variants would show."""
    c, g = np.array([0.3, -0.2, 0.5, 0.0]), np.array([1.0, -2.0, 0.5, 3.0])
    for temperature in (0.5, 1.5):
        x, gradient = many(Perturbed(temperature, noise="gumbel", **how), simplex_argmin, c, g, 0)
        theta = torch.tensor(c, requires_grad=True)
        expected = torch.softmax(-theta / temperature, 0)
        (jacobian,) = torch.autograd.grad((torch.from_numpy(g) * expected).sum(), theta)
        assert_mean(x, expected.detach().numpy())
        assert_mean(gradient, jacobian.numpy(), least=0.5)


@pytest.mark.parametrize("how", VARIANTS)
def test_gaussian_on_the_box_is_the_normal_distribution(how):
    c, g = np.array([0.3, -0.8, 0.0]), np.array([1.0, -2.0, 0.5])
    x, gradient = many(Perturbed(0.7, **how), box_argmin, c, g, 1)
    assert_mean(x, stats.norm.cdf(-c / 0.7))
    assert_mean(gradient, -g * stats.norm.pdf(c / 0.7) / 0.7, least=0.5)


def test_gumbel_on_the_box_shows_its_sign():
    """Not symmetric: P(c - Z < 0) with Z a Gumbel, which is not the same as P(c + Z < 0)."""
    c, g = np.array([0.3, -0.8, 0.0]), np.array([1.0, -2.0, 0.5])
    x, gradient = many(Perturbed(0.7, 2, "gumbel"), box_argmin, c, g, 2)
    assert_mean(x, 1 - stats.gumbel_r.cdf(c / 0.7))
    assert_mean(gradient, -g * stats.gumbel_r.pdf(c / 0.7) / 0.7, least=0.5)


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("antithetic", [False, True])
def test_multiplicative_noise_on_the_simplex(antithetic, sign):
    """P(c_0 e^{s Z_0} < c_1 e^{s Z_1}) = Phi(log(c_1 / c_0) / (s sqrt 2)) for positive costs."""
    c, g, s = sign * np.array([1.0, 1.3]), np.array([2.0, -1.0]), 0.6
    rule = Perturbed(s, 4, multiplicative=True, antithetic=antithetic)
    x, gradient = many(rule, simplex_argmin, c, g, 3)
    at = sign * np.log(c[1] / c[0]) / (s * np.sqrt(2))
    first = stats.norm.cdf(at)
    assert_mean(x, np.array([first, 1 - first]))
    slope = sign * stats.norm.pdf(at) / (s * np.sqrt(2)) * np.array([-1 / c[0], 1 / c[1]])
    assert_mean(gradient, (g[0] - g[1]) * slope, least=0.5)


def test_multiplicative_noise_keeps_signs_and_means():
    seen = []

    def argmin(costs):
        seen.append(costs)
        return box_argmin(costs)

    c = np.repeat([[2.0, -3.0, 0.0]], 2000, axis=0)
    x, gradient = run(Perturbed(0.5, 10, multiplicative=True), argmin, c, np.ones_like(c), 4)
    np.testing.assert_array_equal(x, box_argmin(c))
    costs = np.concatenate(seen)
    assert (np.sign(costs) == np.sign(c[0])).all()
    assert costs[:, 0].std() > 0.5
    np.testing.assert_allclose(costs.mean(axis=0), c[0], rtol=0.02)
    assert not gradient[:, 2].any()  # stays zero whatever Z is
    rule = Perturbed(0.5, 10, multiplicative=True)
    _, gradient = run(rule, simplex_argmin, np.abs(c), np.tile([1.0, 2.0, 3.0], (2000, 1)), 4)
    assert np.isfinite(gradient).all()


@dataclass(frozen=True)
class Logistic(AbstractNoise):
    """What a user may give: on the box it makes the sigmoid."""

    def sample(self, rng, shape):
        return rng.logistic(size=shape)

    def score(self, z):
        return np.tanh(z / 2)

    def mirror(self, z):
        return -z


@pytest.mark.parametrize("antithetic", [False, True])
def test_noise_of_the_user(antithetic):
    c, g, s = np.array([0.3, -0.8, 0.0]), np.array([1.0, -2.0, 0.5]), 0.4
    x, gradient = many(Perturbed(s, 4, Logistic(), antithetic=antithetic), box_argmin, c, g, 5)
    inside = 1 / (1 + np.exp(c / s))
    assert_mean(x, inside)
    assert_mean(gradient, -g * inside * (1 - inside) / s, least=0.5)


# -- finite differences, variances -------------------------------------------------------------------------


@pytest.mark.parametrize("noise", ["gaussian", "gumbel"])
def test_against_finite_differences_of_the_smoothed_problem(noise):
    """Assignments: x_eps with the same random numbers at both ends of a step, against the estimator."""
    rng = np.random.default_rng(6)
    c, g = torch.from_numpy(rng.uniform(size=(3, 3))), torch.from_numpy(rng.normal(size=(3, 3)))
    move = g / g.norm() + 0.3 * torch.from_numpy(rng.normal(size=(3, 3)))
    samples, step = 40_000, 0.05

    def smoothed(c, seed):
        rule = Perturbed(0.5, samples, noise, generator=seed)
        return (g * problems.assignment(c, gradient=rule).indicator).sum()

    leaf = c.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(smoothed(leaf, 0), leaf)
    with torch.no_grad():
        expected = [
            (smoothed(c + step * move, k) - smoothed(c - step * move, k)) / (2 * step) for k in (1, 2)
        ]
    found = float((gradient * move).sum())
    assert abs(found) > 0.3
    for difference in expected:
        assert found == pytest.approx(float(difference), abs=0.04)


def test_variance_reduction_reduces_variance():
    """The same mean (see the closed forms), and the spread of estimates of one cost: less and less."""
    c, g = np.array([0.3, -0.2, 0.5, 0.0]), np.array([5.0, 4.0, 6.0, 7.0])  # far from mean zero
    for noise in ("gaussian", "gumbel"):

        def spread(noise=noise, **how):
            _, gradient = many(Perturbed(1.0, 8, noise, **how), simplex_argmin, c, g, 7, runs=4000)
            return gradient.var(axis=0).sum()

        plain = spread(leave_one_out=False)
        baseline = spread()
        pairs = spread(antithetic=True, leave_one_out=False)
        both = spread(antithetic=True)
        assert baseline < plain / 5
        assert pairs < plain / 2
        assert both < plain / 5
    found = many(Perturbed(1.0, 8), simplex_argmin, c, g, 7, runs=4000)[1].var(axis=0).sum()
    halved = many(Perturbed(1.0, 16), simplex_argmin, c, g, 7, runs=4000)[1].var(axis=0).sum()
    assert halved == pytest.approx(found / 2, rel=0.15)


def test_leave_one_out_by_hand():
    c, g = np.array([[0.3, -0.2, 0.5]]), np.array([[1.0, -2.0, 4.0]])
    for antithetic in (False, True):
        rule = Perturbed(0.8, 6, "gumbel", antithetic=antithetic)
        outputs = rule.forward(simplex_argmin, c, c, np.random.default_rng(8))
        x, z = outputs[1][0], outputs[2][0]
        np.testing.assert_array_equal(x, simplex_argmin(c - 0.8 * z))
        total = np.zeros(3)
        for m in range(6):
            with_m = {m, (m + 3) % 6} if antithetic else {m}
            others = [x[k] @ g[0] for k in range(6) if k not in with_m]
            total -= (x[m] @ g[0] - np.mean(others)) * (1 - np.exp(-z[m])) / (0.8 * 6)
        np.testing.assert_allclose(rule.cotangent(simplex_argmin, c, outputs, g)[0], total, rtol=1e-12)


# -- noise -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("noise", "law"), [(Gaussian(), stats.norm), (Gumbel(), stats.gumbel_r)])
def test_noise_is_what_its_name_says(noise, law):
    z = np.linspace(-2.5, 5, 50)
    slope = (law.logpdf(z + 1e-6) - law.logpdf(z - 1e-6)) / 2e-6
    np.testing.assert_allclose(noise.score(z), -slope, atol=1e-7)
    np.testing.assert_allclose(noise.mirror(z), law.isf(law.cdf(z)), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(noise.mirror(noise.mirror(z)), z, rtol=1e-7, atol=1e-9)
    drawn = noise.sample(np.random.default_rng(9), (200, 50))
    assert drawn.shape == (200, 50)
    assert stats.kstest(drawn.ravel(), law.cdf).pvalue > 1e-3
    assert stats.kstest(noise.mirror(drawn).ravel(), law.cdf).pvalue > 1e-3


def test_mirror_of_a_gumbel_far_out():
    z = np.array([-4.0, 30.0, 36.0, 40.0])
    mirrored = Gumbel().mirror(z)
    assert np.isfinite(mirrored).all()
    np.testing.assert_allclose(Gumbel().mirror(mirrored), z, rtol=1e-9)


def test_sums_of_gammas_add_up_to_a_gumbel():
    rng = np.random.default_rng(10)
    for degree in (1, 3, 5):
        noise = SumOfGamma(degree, terms=400)
        drawn = noise.sample(rng, (3000, degree))
        assert drawn.shape == (3000, degree)
        assert stats.kstest(drawn.sum(axis=1), stats.gumbel_r.cdf).pvalue > 1e-3
    i = np.arange(1, 11)
    drawn = SumOfGamma().sample(rng, (200_000,))
    assert drawn.mean() == pytest.approx((np.sum(1 / i) - np.log(10)) / 5, abs=0.006)
    assert drawn.var() == pytest.approx(np.sum(1 / i**2) / 5, rel=0.05)


def test_noise_without_score_or_mirror_says_so():
    for method in ("score", "mirror"):
        with pytest.raises(NotImplementedError, match=f"SumOfGamma has no {method}"):
            getattr(SumOfGamma(), method)(np.zeros(3))

    class Scored(AbstractNoise):
        def sample(self, rng, shape):
            return rng.uniform(size=shape)

        def score(self, z):
            return np.zeros_like(z)

    with pytest.raises(ValueError, match="antithetic noise must have a mirror"):
        Perturbed(noise=Scored(), antithetic=True)


def test_noise_of_a_wrong_shape_is_refused():
    class Short(AbstractNoise):
        def sample(self, rng, shape):
            return rng.uniform(size=shape[1:])

    class Broken(AbstractNoise):
        def sample(self, rng, shape):
            return np.full(shape, np.nan)

    lp = lpdiff.LinearProgram(A_eq=np.ones((1, 4)), b_eq=[1.0])
    with pytest.raises(ValueError, match=r"Short.sample: expected shape \(3, 10, 4\), got \(10, 4\)"):
        _ = lpdiff.solve(lp, c=torch.ones(3, 4), gradient=IMLE(noise=Short(), generator=0)).x
    with pytest.raises(ValueError, match=r"Broken.sample: expected finite numbers"):
        _ = lpdiff.solve(lp, c=torch.ones(3, 4), gradient=IMLE(noise=Broken(), generator=0)).x


# -- implicit MLE ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recorded(AbstractNoise):
    """Gives what it was given."""

    z: tuple[tuple[float, ...], ...]

    def sample(self, rng, shape):
        z = np.tile(np.array(self.z), (shape[0], 1, 1))
        z.flags.writeable = False
        return z


def test_imle_by_its_formula():
    rng = np.random.default_rng(11)
    samples, n = 6, 5
    z = rng.gumbel(size=(samples, n))
    noise = Recorded(tuple(map(tuple, z)))
    c, g = rng.normal(size=(20, n)), rng.normal(size=(20, n))
    lp = lpdiff.LinearProgram(A_eq=np.ones((1, n)), b_eq=[1.0])
    for strength, relative, two_sided in ((2.0, False, False), (2.0, False, True), (0.6, True, False)):
        leaf = torch.tensor(c, requires_grad=True)
        rule = IMLE(strength, 0.4, samples, noise, relative=relative, two_sided=two_sided)
        x = lpdiff.solve(lp, c=leaf, gradient=rule).x
        (gradient,) = torch.autograd.grad((torch.from_numpy(g) * x).sum(), leaf)
        here, change = np.zeros_like(c), np.zeros_like(c)
        length = np.full((20, 1), strength)
        if relative:
            length = strength * np.linalg.norm(c, axis=1, keepdims=True)
            length = length / np.linalg.norm(g, axis=1, keepdims=True)
        for draw in z:
            at = c - 0.4 * draw
            here += simplex_argmin(at) / samples
            ahead = simplex_argmin(at + length * g)
            behind = simplex_argmin(at - length * g) if two_sided else simplex_argmin(at)
            change += (ahead - behind) / (samples * length * (2 if two_sided else 1))
        np.testing.assert_allclose(x.detach().numpy(), here, atol=1e-12)
        np.testing.assert_allclose(gradient.numpy(), change, atol=1e-12)
        assert np.abs(change).max() > 0.05


def test_imle_of_hardly_any_noise_is_interpolation():
    rng = np.random.default_rng(12)
    c, g = rng.normal(size=(30, 5)), rng.normal(size=(30, 5))
    for two_sided in (False, True):
        x, gradient = run(IMLE(2.0, 1e-12, 3, two_sided=two_sided), simplex_argmin, c, g, 0)
        rule = lpdiff.gradients.Interpolation(2.0, two_sided=two_sided)
        np.testing.assert_allclose(x, simplex_argmin(c), rtol=1e-15)
        np.testing.assert_allclose(gradient, run(rule, simplex_argmin, c, g, 0)[1], atol=1e-15)


def test_imle_with_gumbel_noise_samples_the_softmax():
    c, g = np.array([0.3, -0.2, 0.5, 0.0]), np.zeros(4)
    x, gradient = many(IMLE(1.0, 0.5, 2, "gumbel"), simplex_argmin, c, g, 13)
    assert_mean(x, torch.softmax(-torch.from_numpy(c) / 0.5, 0).numpy())
    assert not gradient.any()


def test_imle_of_small_steps_is_the_gradient_of_the_perturbed_optimiser():
    """Differences with shared noise estimate the derivative of x_eps along g, up to O(lambda)."""
    c, g = np.array([0.3, -0.2, 0.5, 0.0]), np.array([1.0, -2.0, 0.5, 3.0])
    _, gradient = many(IMLE(0.02, 1.0, 4, "gumbel", two_sided=True), simplex_argmin, c, g, 14)
    theta = torch.tensor(c, requires_grad=True)
    (jacobian,) = torch.autograd.grad((torch.from_numpy(g) * torch.softmax(-theta, 0)).sum(), theta)
    assert_mean(gradient, jacobian.numpy(), least=0.5)


def test_adaptive_imle_counts_per_item_and_sample():
    rng = np.random.default_rng(15)
    z = rng.gumbel(size=(4, 5))
    state = Adaptive(0.5, density=0.25, step=0.125, decay=0.5)
    rule = IMLE(state, 0.4, 4, Recorded(tuple(map(tuple, z))))
    c, g = rng.normal(size=(6, 5)), rng.normal(size=(6, 5))
    _, gradient = run(rule, simplex_argmin, c, g, 0)
    length = 0.5 * np.linalg.norm(c, axis=1, keepdims=True) / np.linalg.norm(g, axis=1, keepdims=True)
    points = (c - 0.4 * z[:, None]).reshape(-1, 5)
    rise = simplex_argmin(points + np.tile(length * g, (4, 1))) - simplex_argmin(points)
    np.testing.assert_allclose(gradient, rise.reshape(4, 6, 5).mean(axis=0) / length, rtol=1e-12)
    density = 0.5 * 0.25 + 0.5 * np.count_nonzero(rise) / 24
    assert state.density == pytest.approx(density)
    assert state.alpha == 0.5 + (0.125 if density < 1 else -0.125)


# -- end to end --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sense", ["min", "max"])
def test_gumbel_through_a_solver_is_softmax(sense):
    lp = lpdiff.LinearProgram(A_eq=np.ones((1, 4)), b_eq=[1.0], sense=sense)
    c = torch.tensor([0.3, -0.2, 0.5, 0.0], dtype=F64, requires_grad=True)
    g = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=F64)
    x = lpdiff.solve(lp, c=c, gradient=Perturbed(1.0, 100_000, "gumbel", generator=16)).x
    expected = torch.softmax(-c if sense == "min" else c, 0)
    torch.testing.assert_close(x, expected, rtol=0, atol=0.01)
    found, jacobian = (torch.autograd.grad((g * p).sum(), c)[0] for p in (x, expected))
    torch.testing.assert_close(found, jacobian, rtol=0, atol=0.03)


def test_all_samples_are_solved_in_one_call():
    calls = []

    def argmin(costs):
        calls.append(len(costs))
        return simplex_argmin(costs)

    c, g = np.ones((3, 4)), np.ones((3, 4))
    for rule, expected in (
        (Perturbed(samples=8, antithetic=True), [24]),
        (IMLE(samples=5), [15, 15]),
        (IMLE(samples=5, two_sided=True), [15, 30]),
        (lpdiff.gradients.Interpolation(two_sided=True), [6]),
        (lpdiff.gradients.Identity("both"), []),
    ):
        calls.clear()
        outputs = rule.forward(argmin, c, simplex_argmin(c), np.random.default_rng(0))
        rule.cotangent(argmin, c, outputs, g)
        assert calls == expected


def test_training_with_a_perturbed_optimiser_finds_costs():
    """What it is for: costs whose mean choice is the one asked for."""
    lp = lpdiff.LinearProgram(A_eq=np.ones((1, 3)), b_eq=[1.0])
    wanted = torch.tensor([0.6, 0.3, 0.1], dtype=F64)
    c = torch.zeros(3, dtype=F64, requires_grad=True)
    rule = Perturbed(1.0, 400, "gumbel", generator=17)
    optimizer = torch.optim.Adam([c], lr=0.1)
    for _ in range(120):
        optimizer.zero_grad()
        (lpdiff.solve(lp, c=c, gradient=rule).x - wanted).square().sum().backward()
        optimizer.step()
    torch.testing.assert_close(torch.softmax(-c.detach(), 0), wanted, rtol=0, atol=0.03)

"""Closed forms and properties of the analysis."""

import doctest
import importlib
import math
import pkgutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tb_bnlens.analysis
from tb_bnlens.analysis import advice, drift, noise
from tb_bnlens.analysis.convergence import steps_to_converge
from tb_bnlens.analysis.distance import convergence_error, distance
from tb_bnlens.analysis.effective import differs, shrink_per_update
from tb_bnlens.analysis.forecast import updates_to_loss
from tb_bnlens.analysis.memory import start_error, start_memory
from tb_bnlens.analysis.renewal import renewed_error

# Two shared cores: a deadline would test the neighbours.
settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")

MODULES = [m.name for m in pkgutil.iter_modules(tb_bnlens.analysis.__path__)]
betas = st.floats(0.01, 0.9999)
errors = st.floats(1e-6, 1e6)


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_run(name: str) -> None:
    failed, _ = doctest.testmod(importlib.import_module(f"tb_bnlens.analysis.{name}"))
    assert failed == 0


@pytest.mark.parametrize(("beta", "steps"), [(0.99, 448), (0.999, 4498)])
def test_story_1_arithmetic(beta: float, steps: int) -> None:
    error = convergence_error(0.0, 0.1, 0.0, 1.0, 0.0)
    assert steps_to_converge(error, beta, 0.1) == steps


@given(errors, betas, st.floats(0.001, 1.0))
def test_steps_are_the_least_number_that_suffices(error: float, beta: float, tolerance: float) -> None:
    n = float(steps_to_converge(error, beta, tolerance))
    assert error * beta**n <= tolerance * (1 + 1e-6)
    if n > 0:
        assert error * beta ** (n - 1) > tolerance * (1 - 1e-6)


@given(st.floats(0.11, 1e4), st.floats(0.3, 0.99), st.floats(1e-3, 10.0), st.floats(1.0, 300.0))
def test_steps_of_an_error_that_is_renewed_are_those_of_the_recursion(
    error: float, beta: float, renewed: float, age: float
) -> None:
    n = float(steps_to_converge(error, beta, 0.1, renewed=renewed, age=age))
    e, counted = error, 0
    while e > 0.1:
        e = beta * e + (1 - beta) * renewed * math.exp(-counted / age)
        counted += 1
    assert abs(n - counted) <= 1
    assert n >= float(steps_to_converge(error, beta, 0.1))


def test_a_movement_without_end_converges_below_the_tolerance_only() -> None:
    assert steps_to_converge(1.0, 0.9, 0.1, renewed=0.11).tolist() == math.inf
    assert steps_to_converge(1.0, 0.9, 0.1, renewed=0.05).tolist() == math.ceil(math.log(0.05 / 0.95) / math.log(0.9))
    # As fast as it fades: n beta^(n-1) has its own closed form.
    age = -1 / math.log(0.9)
    assert 22 < steps_to_converge(1.0, 0.9, 0.1, renewed=0.5, age=age).tolist() < 50


@given(st.floats(0.0, 10.0), st.floats(0.5, 0.999), st.floats(0.01, 10.0), st.integers(1, 500))
def test_what_is_renewed_is_seen_in_how_an_error_falls(start: float, beta: float, renewed: float, updates: int) -> None:
    error = start
    for _ in range(updates):
        error = beta * error + (1 - beta) * renewed
    assert float(renewed_error(start, error, beta, updates)) == pytest.approx(renewed, rel=1e-2)
    # Of an error that only fades nothing is renewed, whatever the rounding of the record.
    faded = np.float32(start * beta**updates)
    assert float(renewed_error(np.float32(start), faded, beta, updates)) == 0.0


@given(errors, st.integers(1, 10**6))
def test_converging_momentum_converges_and_no_larger_one_does(error: float, updates: int) -> None:
    beta = float(advice.converging_momentum(error, updates))
    assert beta <= 1.0
    if beta < 1.0:
        assert error * beta**updates == pytest.approx(0.1, rel=1e-6)


@given(st.floats(1e-8, 1.0), st.floats(1e-3, 10.0))
def test_tracking_momentum_is_a_minimum(rate: float, sigma: float) -> None:
    def cost(beta: float) -> float:
        return float(drift.permanent_lag(rate, beta)) ** 2 + float(noise.noise_floor(sigma, beta)) ** 2

    best = float(advice.tracking_momentum(rate, sigma))
    around = [b for b in (best - 1e-3 * (1 - best), best + 1e-3 * (1 - best)) if 0 <= b < 1]
    assert all(cost(best) <= cost(b) * (1 + 1e-9) for b in around)


@pytest.mark.parametrize("rate", [1e-7, 1e-6, 1e-5])
def test_tracking_momentum_tends_to_the_cube_root_law(rate: float) -> None:
    assert 1 - float(advice.tracking_momentum(rate, 1.0)) == pytest.approx((4 * rate**2) ** (1 / 3), rel=0.02)


@given(betas, st.integers(0, 10**5))
def test_start_memory_is_what_repeated_updates_leave(beta: float, updates: int) -> None:
    assert float(start_memory(beta, updates)) == pytest.approx(math.exp(updates * math.log(beta)), rel=1e-6, abs=1e-300)


@given(betas, st.integers(0, 2000), st.floats(0.01, 10.0), st.floats(0.01, 10.0))
def test_start_error_is_exact_for_the_variance(beta: float, updates: int, v: float, s0: float) -> None:
    s = v + beta**updates * (s0 - v)
    assert float(start_error(0.0, v, 0.0, s0, beta, updates)) == pytest.approx(abs(s - v) / v, rel=1e-6, abs=1e-9)


def test_noise_floor_is_seen_in_a_long_replay() -> None:
    rng = np.random.default_rng(0)
    beta, m, seen = 0.9, np.zeros(200), []
    for x in rng.standard_normal((3000, 200)):
        m = beta * m + (1 - beta) * x
        seen.append(m)
    assert np.std(seen[200:]) == pytest.approx(float(noise.noise_floor(1.0, beta)), rel=0.02)


def test_permanent_lag_is_seen_in_a_long_replay() -> None:
    beta, rate, m = 0.99, 0.01, 0.0
    for t in range(5000):
        m = beta * m + (1 - beta) * rate * t
    assert rate * 4999 - m == pytest.approx(float(drift.permanent_lag(rate, beta)), rel=1e-6)


def test_drift_is_not_seen_in_noise() -> None:
    rng = np.random.default_rng(1)
    n_short, n_long, channels = 20, 100, 16
    trials = 4000
    shift = np.sqrt(np.mean(rng.normal(0, np.sqrt(1 / n_short + 1 / n_long), (trials, channels)) ** 2, axis=1))
    rates = drift.rate(shift, np.full(trials, np.sqrt(1 / n_short + 1 / n_long)), 40.0, channels)
    assert np.mean(rates > 0) < 0.001


@given(st.floats(0.01, 100.0), st.floats(-100.0, 100.0), st.floats(0.0, 0.1))
def test_distance_is_zero_only_in_agreement(v: float, mu: float, epsilon: float) -> None:
    assert float(distance(mu, v, mu, v, epsilon)) == 0.0
    assert float(distance(mu, v, mu + 1.0, v, epsilon)) > 0


def test_loss_forecast_interpolates_geometrically() -> None:
    n = np.arange(0, 600, 100)
    assert updates_to_loss(n, 1e4 * 0.98**n, 1.0) == pytest.approx(math.log(1e-4) / math.log(0.98), rel=1e-6)


def test_loss_forecast_interpolates_the_excess_over_its_limit() -> None:
    n = np.array([0, 30, 300, 1000])
    loss = 1.0 + 1e4 * 0.98**n
    assert updates_to_loss(n, loss, 1.1, limit=1.0) == pytest.approx(math.log(1e-5) / math.log(0.98), rel=1e-6)


def test_loss_forecast_with_overflow_and_without_points() -> None:
    assert updates_to_loss([0, 10, 20], [math.inf, math.inf, 1.0], 2.0) == 20
    assert math.isnan(updates_to_loss([], [], 1.0))
    assert updates_to_loss([0, 10, 20], [5.0, 1.0, 5.0], 2.0) == math.inf


def test_shrink_needs_three_records() -> None:
    assert np.isnan(shrink_per_update(np.ones((2, 1)), np.array([[1.0], [2.0]]))).all()


def test_momentum_one_differs_from_anything_that_moves() -> None:
    assert differs(0.999, 1.0)
    assert not differs(0.99, 0.99)

"""What a Hessian's spectrum is like: its extreme eigenvalues, and its density."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pontryagin.diagnostics.hessian import HessianOperator, Vector
from pontryagin.problem import ProblemError


@dataclass(frozen=True)
class Extremes:
    """The least and the greatest eigenvalues, each in increasing order, float64."""

    lowest: Float[Tensor, " count"]
    highest: Float[Tensor, " count"]

    @property
    def negative_curvature(self) -> float:
        """|least| / greatest in absolute value where the least is negative, else 0: how much of a saddle it
        is."""
        least, greatest = float(self.lowest[0]), float(self.highest[-1])
        return -least / max(abs(greatest), abs(least)) if least < 0 else 0.0


@dataclass(frozen=True)
class Density:
    """phi(lambda) on a grid, with integral 1: phi * size is the number of eigenvalues per unit.

    width: the standard deviation of the Gaussian that every eigenvalue is smeared with.
    """

    grid: Float[Tensor, " point"]
    density: Float[Tensor, " point"]
    width: float


def extreme_eigenvalues(hessian: HessianOperator, count: int = 5, *, tolerance: float = 1e-6,
                        iterations: int = 1000, seed: int = 0) -> Extremes:
    """The `count` least and greatest eigenvalues by the implicitly restarted Lanczos method (ARPACK), or of
    the whole matrix where that is smaller than the Krylov space. Needs scipy.

    Of a multiple eigenvalue the method may find fewer copies than there are.

    Args:
        hessian: the operator, (size, size).
        count: how many at each end, 1 to size; five show whether the ends are alone.
        tolerance: of the eigenvalues, relative: 1e-6 is what float32 products can give.
        iterations: restarts at most; a cap, for a spectrum that never settles.
        seed: of the first vector, so that the same values come every time.

    Raises:
        ProblemError: count outside of its range, no scipy, or no convergence in so many restarts.
        NonFiniteError: a product is not finite.
    """
    if not 1 <= count <= hessian.size:
        raise ProblemError(f"extreme_eigenvalues: expected a count in [1, {hessian.size}], found {count}")
    if hessian.size <= max(4 * count, 20):
        values = torch.linalg.eigvalsh(hessian.dense().double().cpu())
        return Extremes(values[:count], values[-count:])
    try:
        from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh
    except ImportError as error:
        raise ProblemError("extreme eigenvalues need scipy: pip install 'pontryagin[analysis]'") from error

    def matvec(vector: np.ndarray) -> np.ndarray:
        found = hessian(torch.from_numpy(vector.reshape(-1)).to(hessian.device, hessian.dtype))
        return found.double().cpu().numpy()

    operator = LinearOperator((hessian.size, hessian.size), matvec=matvec, dtype=np.float64)
    start = np.random.default_rng(seed).standard_normal(hessian.size)
    ends = []
    for which in ("SA", "LA"):
        try:
            values = eigsh(operator, k=count, which=which, v0=start, tol=tolerance, maxiter=iterations,
                           return_eigenvectors=False)
        except ArpackNoConvergence as error:
            raise ProblemError(f"extreme_eigenvalues: {len(error.eigenvalues)} of {count} eigenvalues "
                               f"converged in {iterations} restarts; ask for more iterations, a larger "
                               "tolerance or another count") from error
        ends.append(torch.from_numpy(np.sort(values)))
    return Extremes(*ends)


def spectral_density(hessian: HessianOperator, *, probes: int = 10, steps: int = 80, points: int = 800,
                     width: float | None = None, seed: int = 0) -> Density:
    """The density phi of the eigenvalues by stochastic Lanczos quadrature (Ubaru, Chen and Saad 2017).

    phi = mean over probes of sum_k w_k N(lambda_k, width^2), lambda_k the eigenvalues of the tridiagonal
    matrix of a probe's Lanczos steps and w_k the squared first components of its eigenvectors. The mass at
    isolated eigenvalues is exact on average over probes; their places are exact for the outermost ones.

    Args:
        hessian: the operator, (size, size).
        probes: random directions; the error of the masses falls with their root.
        steps: of Lanczos for each probe, one product each; min(steps, size) are taken.
        points: of the grid, from 4 widths below the least node to 4 above the greatest.
        width: standard deviation of the Gaussians, in units of the eigenvalues; by default 1/200 of the
            range, so that 800 points resolve each with four.
        seed: of the probes.

    Raises:
        ProblemError: probes < 1, steps < 2 or points < 2.
        NonFiniteError: a product is not finite.
    """
    if probes < 1 or steps < 2 or points < 2:
        raise ProblemError("spectral_density: expected probes >= 1, steps >= 2 and points >= 2, found "
                           f"{probes}, {steps}, {points}")
    generator = torch.Generator().manual_seed(seed)
    nodes, weights = [], []
    for _ in range(probes):
        probe = torch.randn(hessian.size, generator=generator, dtype=torch.float64)
        diagonal, beside = lanczos(hessian, probe.to(hessian.device), min(steps, hessian.size))
        matrix = torch.diag(diagonal) + torch.diag(beside, 1) + torch.diag(beside, -1)
        values, vectors = torch.linalg.eigh(matrix)
        nodes.append(values)
        weights.append(vectors[0].square() / probes)
    places, masses = torch.cat(nodes), torch.cat(weights)
    span = float(places.max() - places.min()) or max(abs(float(places[0])), 1.0)
    width = span / 200 if width is None else width
    grid = torch.linspace(float(places.min()) - 4 * width, float(places.max()) + 4 * width, points,
                          dtype=torch.float64)
    bells = torch.exp(-0.5 * ((grid[:, None] - places) / width).square()) / (width * (2 * torch.pi) ** 0.5)
    return Density(grid, bells @ masses, width)


def lanczos(hessian: HessianOperator, start: Vector, steps: int) -> tuple[Float[Tensor, " steps"],
                                                                          Float[Tensor, " steps-1"]]:
    """Diagonal and off-diagonal of the tridiagonal matrix of `steps` Lanczos steps, in float64,
    orthogonalized against all earlier vectors; fewer steps when the Krylov space ends."""
    vector = (start / start.norm()).double()
    basis, diagonal, beside = [vector], [], []
    for step in range(steps):
        image = hessian(basis[-1].to(hessian.dtype)).double()
        diagonal.append(torch.dot(image, basis[-1]))
        for _ in range(2):  # twice is enough
            known = torch.stack(basis)
            image = image - known.mT @ (known @ image)
        rest = image.norm()
        if step == steps - 1 or rest <= 1e-10 * max(1e-300, float(torch.stack(diagonal).abs().max())):
            break
        beside.append(rest)
        basis.append(image / rest)
    empty = vector.new_zeros(0)
    return torch.stack(diagonal).cpu(), (torch.stack(beside) if beside else empty).cpu()

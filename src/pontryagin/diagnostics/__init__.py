"""What a run or a trained network is like, read from records and models: nothing here changes anything."""

from pontryagin.diagnostics.hessian import HessianOperator, module_hessian, problem_hessian
from pontryagin.diagnostics.iterations import (
    ScalarWriter,
    iteration_row,
    log_scalars,
    rejected_share,
    stage_rows,
    write_csv,
)
from pontryagin.diagnostics.spectrum import Density, Extremes, extreme_eigenvalues, spectral_density

__all__ = ["Density", "Extremes", "HessianOperator", "ScalarWriter", "extreme_eigenvalues", "iteration_row",
           "log_scalars", "module_hessian", "problem_hessian", "rejected_share", "spectral_density",
           "stage_rows", "write_csv"]

"""`pontryagin reproduce binary` and `ternary`: training over discrete weights, beside Li and Hao (ICML
2018)."""

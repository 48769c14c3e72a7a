"""Discrete weights packed into bits: files, sizes, and models that compute with them."""

from pontryagin.export.file import PackedState, load_packed, packed_state, save_packed, whole_state
from pontryagin.export.model import detected_sets, with_packed_weights
from pontryagin.export.packed import Packed, PackedWeight, packed_weight
from pontryagin.export.report import SizeReport, size_report

__all__ = ["Packed", "PackedState", "PackedWeight", "SizeReport", "detected_sets", "load_packed",
           "packed_state", "packed_weight", "save_packed", "size_report", "whole_state",
           "with_packed_weights"]

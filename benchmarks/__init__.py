"""What developers measure, as ratios within one run: `python -m benchmarks.NAME`. What users measure is the
command `pontryagin bench`, in pontryagin.bench; tasks and memory are taken from there."""

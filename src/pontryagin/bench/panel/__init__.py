"""The panel: networks of the kinds that people train, EMSA as it comes, and rivals that are tuned."""

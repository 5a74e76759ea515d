"""What residua costs, measured: one module per question, run by ``python -m benchmarks.run``."""

"""The main job, end to end, on real data: `make demo`, or `python -m demo` in tests/ once everything is built."""

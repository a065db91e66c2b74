"""The parts of `bench/same_results.py`: data, commands, the process that runs them, comparison."""

"""The four stories as short training runs: ``python -m demo`` trains one, prints the report and serves the tab."""

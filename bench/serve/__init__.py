"""The server under load: `python -m bench.serve`."""

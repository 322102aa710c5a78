"""The page of a run: what was found, how far to trust it, and how to cite and repeat it."""

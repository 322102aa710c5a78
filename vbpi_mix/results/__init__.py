"""From draws of a trained mixture to estimates, diagnostics, corrected posteriors and the files of a run."""

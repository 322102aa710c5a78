"""Sections of the benchmark report, one module a claim.

Every module has ``section(results)``, which reads the result files of its claim below that folder and returns
a `_sections.Section`, or None where there are none. ``report.py`` collects them.
"""

"""One verdict: metrics, thresholds, intervals and tests on predictions; no files and no pictures."""

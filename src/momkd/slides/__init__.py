"""Slides: feature files in, validated bags of patches out; graphs and normalisers. Knows no label and no patient."""

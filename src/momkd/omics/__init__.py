"""Omics tables in, validated arrays out: reading, gene selection, scaling, and the gene report."""

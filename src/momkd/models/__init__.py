"""Tensors in, tensors out: the network of the paper and its parts. No file and no table is known here."""

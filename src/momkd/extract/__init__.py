"""Slides → tissue → patches → features, on LazySlide and wsidata (extra ``wsi``); knows no label and no model."""

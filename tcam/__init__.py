"""Weakly-supervised video object localization: TCAM and its family (arXiv 2208.14542, 2303.09044)."""

"""Only what CoLo-CAM (arXiv 2303.09044) adds to tcam."""

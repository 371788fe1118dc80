"""Processes, files, settings, devices and the command line around tcam."""

"""Formats that others read: files of results, not of what a report says about them."""

"""A report as one page that needs nothing else: no server, no network."""

from evalkit.report.html.page import html_page

__all__ = ["html_page"]

"""The rules of an audit. Adding one is a function from evidence to findings in a module here, and a line in RULES."""

from __future__ import annotations

from collections.abc import Sequence

from evalkit.audit.figures import SEVERITIES, AuditedFigures, AuditFinding, Figure, Rule
from evalkit.audit.readers.figure_csv import published_registry
from evalkit.audit.rules.bounds import maps_against_mrrs, unread_cells, wrong_averages, wrong_values
from evalkit.audit.rules.copies import repeated_figures
from evalkit.audit.rules.lattice import off_the_lattice, other_cutoff
from evalkit.audit.rules.published import changed_figures, known_mistakes, mixed_protocols, wrong_main_scores

RULES: tuple[Rule, ...] = (
    wrong_values,
    off_the_lattice,
    other_cutoff,
    wrong_averages,
    repeated_figures,
    changed_figures,
    known_mistakes,
    maps_against_mrrs,
    mixed_protocols,
    wrong_main_scores,
    unread_cells,
)


def check_figures(figures: Sequence[Figure]) -> list[AuditFinding]:
    """Put figures to every rule, beside the registry of published figures; errors first, else in the rules' order."""
    evidence = AuditedFigures(tuple(figures), published_registry())
    found = [finding for rule in RULES for finding in rule(evidence)]
    return sorted(found, key=lambda finding: SEVERITIES.index(finding.severity))

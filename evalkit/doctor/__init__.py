"""What can be told of a model on a task before hours of inference: measured on a sample, judged by a table of checks."""

from evalkit.doctor.checks import CHECKS, Check, judge_evidence
from evalkit.doctor.examination import SECONDS, examine
from evalkit.doctor.records import Evidence, Opinion

__all__ = ["CHECKS", "SECONDS", "Check", "Evidence", "Opinion", "examine", "judge_evidence"]

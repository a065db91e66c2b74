"""The sections of the page, in their order: each a function of facts, words and pictures."""

from headstart.reporting.about_accuracy import test_section
from headstart.reporting.about_data import data_section, map_section, suspects_section
from headstart.reporting.about_making import how_section
from headstart.reporting.about_model import (
    answer_section,
    compared_section,
    curves_section,
    more_data_section,
    trust_section,
)
from headstart.reporting.about_robustness import robustness_section
from headstart.reporting.about_why import why_section

SECTIONS = (
    answer_section,
    data_section,
    curves_section,
    test_section,
    why_section,
    trust_section,
    robustness_section,
    compared_section,
    more_data_section,
    suspects_section,
    map_section,
    how_section,
)

"""The sections of the page, in their order: each a function of facts, words and pictures."""

from headstart.report.about_data import data_section, map_section, suspects_section
from headstart.report.about_making import how_section
from headstart.report.about_model import (
    answer_section,
    compared_section,
    curves_section,
    more_data_section,
    trust_section,
)
from headstart.report.about_test import test_section

SECTIONS = (
    answer_section,
    data_section,
    curves_section,
    test_section,
    trust_section,
    compared_section,
    more_data_section,
    suspects_section,
    map_section,
    how_section,
)

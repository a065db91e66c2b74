"""The sections of the page in order: each a function of facts, words and pictures."""

from headstart.reporting.accuracy import test_section
from headstart.reporting.comparison import compared_section
from headstart.reporting.curves import curves_section
from headstart.reporting.data import data_section
from headstart.reporting.embedding import map_section
from headstart.reporting.explanations import why_section
from headstart.reporting.learning_curve import more_data_section
from headstart.reporting.provenance import how_section
from headstart.reporting.robustness import robustness_section
from headstart.reporting.summary import answer_section
from headstart.reporting.suspects import suspects_section
from headstart.reporting.trust import trust_section

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

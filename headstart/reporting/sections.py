"""The sections of the page in order, each a function from facts and words to its blocks."""

from collections.abc import Callable

from headstart.reporting.accuracy import test_section
from headstart.reporting.blocks import PageBlock
from headstart.reporting.comparison import compared_section
from headstart.reporting.curves import curves_section
from headstart.reporting.data import data_section
from headstart.reporting.embedding import map_section
from headstart.reporting.explanations import why_section
from headstart.reporting.facts import Facts
from headstart.reporting.learning_curve import more_data_section
from headstart.reporting.provenance import how_section
from headstart.reporting.robustness import robustness_section
from headstart.reporting.summary import answer_section
from headstart.reporting.suspects import suspects_section
from headstart.reporting.trust import trust_section
from headstart.reporting.words import Words

SECTIONS: dict[str, Callable[[Facts, Words], list[PageBlock]]] = {
    "answer": answer_section,
    "data": data_section,
    "curves": curves_section,
    "test": test_section,
    "why": why_section,
    "trust": trust_section,
    "robustness": robustness_section,
    "compared": compared_section,
    "more-data": more_data_section,
    "suspects": suspects_section,
    "map": map_section,
    "how": how_section,
}

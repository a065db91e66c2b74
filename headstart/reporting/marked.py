"""Section: the worst and the best answers, their words marked by what they add."""

from collections.abc import Sequence

from markupsafe import Markup

from headstart.explaining.tokens.marking import marked
from headstart.explaining.tokens.saved import ExplainedTextRow
from headstart.reporting.blocks import ExampleCard, Gallery, Heading, PageBlock, Text
from headstart.reporting.facts import Facts
from headstart.reporting.words import Words, data, path_line

MARKS = {
    "red": Markup('<mark class="for" style="--s:1">'),
    "blue": Markup('<mark class="against" style="--s:1">'),
    "end": Markup("</mark>"),
}


def marked_section(facts: Facts, w: Words, rows: Sequence[ExplainedTextRow]) -> list[PageBlock]:
    better = sum(row.deletion.area.ours < row.deletion.area.random for row in rows)
    judged = w("marked.judged", n=len(rows), better=w.count(better))
    blocks: list[PageBlock] = [Text(w("marked.lead", **MARKS), "lead"), Text(judged)]
    if 2 * better <= len(rows):
        blocks.append(Text(w("marked.distrust"), "warning"))
    named = ("why.wrong", "why.right") if facts.of_classes else ("why.worst", "why.best")
    for title, right in zip(named, (False, True), strict=True):
        cards = [_card(row, w, facts) for row in rows if row.right == right]
        if cards:
            blocks += [Heading(w(title)), Gallery(cards)]
    return [*blocks, Text(w("marked.note"), "note")]


def _card(row: ExplainedTextRow, w: Words, facts: Facts) -> ExampleCard:
    """Return the marked text, with the answer and the areas under its deletion curves."""
    area = row.deletion.area
    lines = [_answer(row, w, facts)]
    if row.label != (row.answer or row.name):
        key = "test.really" if facts.of_classes else "why.truth"
        lines.append(w(key, label=_value(row.label, w, facts)))
    lines.append(w("marked.area", ours=w.brief(area.ours), random=w.brief(area.random)))
    mark = ("right" if row.right else "wrong") if facts.of_classes else ""
    text = Markup(marked(row.text, row.words))  # everything in it is escaped
    return ExampleCard("", [*lines, path_line(row.path)], mark, text)


def _answer(row: ExplainedTextRow, w: Words, facts: Facts) -> str:
    """Return the explained class or label with its probability, or the answer itself."""
    if not row.answer:
        shown = w.percent(row.score)
        return Markup("{} <span class=number>{}</span>").format(data(row.name), shown)
    return _value(row.answer, w, facts)


def _value(text: str, w: Words, facts: Facts) -> Markup:
    """Return a label; a number is rounded."""
    if facts.of_classes:
        return data(text)
    try:
        return data(w.brief(float(text)))
    except ValueError:
        return data(text)

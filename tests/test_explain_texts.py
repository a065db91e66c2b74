"""Explanations of texts: what each word adds, where it stands, and how it is shown."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from listening import Lines
from torch import Tensor

import headstart as hs
from headstart.backbones.inputs import Encoded
from headstart.base.errors import SpecError, UnknownName
from headstart.cli.main import main
from headstart.explaining.tokens import text_model
from headstart.explaining.tokens.attributing import (
    _slopes_in_turn,
    _slopes_together,
    attribute_tokens,
)
from headstart.explaining.tokens.explaining import explain_text
from headstart.explaining.tokens.explanation import TextExplanation
from headstart.explaining.tokens.marking import marked
from headstart.explaining.tokens.saved import MarkedWord
from headstart.explaining.tokens.text_model import TextGradModel, text_model_of
from headstart.explaining.tokens.words import by_word, words_of
from headstart.heads.linear import LinearHead
from headstart.modalities.text.inputs import TextInput
from headstart.modalities.text.packaged import PACKAGED, tokenizer_file
from headstart.models.model import Model
from headstart.targets.registry import TARGETS

PLAIN = "the day was and we had a walk by river with some friends".split()


def planted(n: int = 160) -> list[tuple[str, str]]:
    """Texts of plain words, of which those with "rainy" are bad."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(n):
        words = [*rng.choice(PLAIN, 6), PLAIN[0] if i % 2 else "rainy"]
        rows.append((" ".join(rng.permutation(words)), "good" if i % 2 else "bad"))
    return rows


@pytest.fixture(scope="module")
def model() -> Model:
    data = hs.read(planted(), input="text")
    return hs.fit(data, backbone="tiny-text:32", strategy="extract", store=None).model


def explained(model: Model, text: str, name: str | None = None) -> TextExplanation:
    return explain_text(text_model_of(model), "x", Encoded("x", text.encode()), name)


def strongest(why: TextExplanation) -> str:
    word = max(why.words, key=lambda word: abs(word.adds))
    return why.text[word.start : word.end]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("It's naïve, really…", ["It's", "naïve", ",", "really", "…"]),
        ("👩‍🚀 и 👍🏽!", ["👩‍🚀", "и", "👍🏽!"]),
        ("今日は good", ["今", "日", "は", "good"]),
        ("हिन्दी है", ["हिन्दी", "है"]),
        (" \n", []),
    ],
)
def test_a_text_has_words(text: str, words: list[str]) -> None:
    assert [text[a:b] for a, b in words_of(text)] == words


def test_a_token_is_divided_among_its_words() -> None:
    spans, words = np.array([[-1, -1], [0, 2], [2, 6], [6, 8]]), [(0, 4), (5, 6), (6, 8)]
    sums = by_word(np.array([9.0, 1.0, 6.0, 3.0]), spans, words)
    assert sums.tolist() == [1.0 + 4.0, 2.0, 3.0]


def test_spans_point_at_the_characters_of_each_token_in_every_window() -> None:
    input, text = TextInput(window=8), "Ünïcode 👍 İs — 今日 fine. " * 6
    batch, spans = input.prepare(text), input.spans(text)
    assert len(spans) > 3
    assert spans.shape[:2] == batch["ids"].shape
    own = spans[..., 0] >= 0
    assert own.sum() == batch["mask"].sum() - len(spans)  # each window begins with a special token
    ids = [input.prepare(text[a:b])["ids"][0, 1] for a, b in spans[own]]
    assert ids == batch["ids"][own].tolist()


@pytest.mark.parametrize("name", ["minilm", "use_multilingual"])
def test_spans_of_packaged_tokenizers_point_at_their_characters(name: str) -> None:
    if PACKAGED[name].folder is None:
        pytest.skip(f"the package of {name} is not installed")
    text = "Это 👩‍🚀 naïve; 今日は! fine"
    input = TextInput.of(PACKAGED[name].format, tokenizer_file(name), 64)
    spans = input.spans(text)[0]
    shown = [text[a:b].strip() for a, b in spans if a >= 0]
    assert "".join(shown) == text.replace(" ", "")
    assert {"fine", "👩‍🚀"} <= set(shown)


def test_words_add_up_to_the_difference_of_the_evidence(model: Model) -> None:
    opened = text_model_of(model)
    places = opened.places("the rainy day was a walk. " * 12)
    found = attribute_tokens(opened, places, 1)
    assert len(places.ids) > 1
    assert found.complete
    assert found.error < 1e-4 * abs(found.difference)
    assert (found.values[~places.own] == 0).all()


def test_control_one_step_of_the_integral_is_not_complete() -> None:
    model = hs.fit(hs.read(planted(), input="text"), backbone="tiny-text:32", store=None).model
    opened = text_model_of(model)
    places = opened.places("the rainy day was a walk")
    coarse, fine = (attribute_tokens(opened, places, 0, steps) for steps in ((1,), (60,)))
    assert fine.error < coarse.error / 10


def test_the_word_that_decides_adds_most_and_is_hidden_first(model: Model) -> None:
    for text, _ in planted(20)[::2]:
        why = explained(model, text)
        assert strongest(why) == "rainy"
        assert why.deletion.area("ours") < why.deletion.area("random")
        assert why.deletion.ours[0] == pytest.approx(why.score, abs=1e-6)


def test_control_a_shuffled_head_finds_other_words(model: Model) -> None:
    assert isinstance(model.head, LinearHead)
    shuffled = np.random.default_rng(0).permutation(model.head.weight)
    other = Model(model.backbone, LinearHead(shuffled, model.head.bias), model.target)
    found = [strongest(explained(other, text)) for text, _ in planted(20)[::2]]
    assert found.count("rainy") < 5


def test_the_score_is_the_models_and_the_other_class_has_the_opposite_words(model: Model) -> None:
    text = "a rainy walk"
    good, bad = (explained(model, text, name) for name in ("good", "bad"))
    scores = model.predict([text], store=None).scores[0]
    assert good.score == pytest.approx(scores[1], abs=1e-5)
    assert [w.adds for w in good.words] == pytest.approx([-w.adds for w in bad.words], abs=1e-3)


@pytest.mark.parametrize(
    ("kind", "labels"),
    [
        ("labels", ["a", "a|b"]),
        ("number", ["-1.5", "20"]),
        ("grades", ["low", "high"]),
    ],
)
def test_every_kind_of_answer_is_explained(kind: str, labels: list[str]) -> None:
    rows = [(text, labels[label == "good"]) for text, label in planted(80)]
    columns = TARGETS[kind].cells([value for _, value in rows])
    cells = [{"text": text, **c} for (text, _), c in zip(rows, columns, strict=True)]
    pandas = pytest.importorskip("pandas")
    data = hs.read(pandas.DataFrame(cells), kind, ordered=labels if kind == "grades" else ())
    model = hs.fit(data, backbone="tiny-text:32", strategy="extract", store=None).model
    why = explained(model, "the rainy walk", "b" if kind == "labels" else None)
    assert strongest(why) == "rainy"
    answered = model.predict(["the rainy walk"], store=None)
    topic = model.target.topics().index(why.name)
    degree = model.target.degree(answered.outputs, topic)[0]
    assert why.score == pytest.approx(degree, rel=1e-4)
    assert bool(why.answer) == (kind != "labels")
    if kind == "number":
        assert float(why.answer) == pytest.approx(float(answered.names[0]), rel=1e-4)


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert", "modernbert", "gpt2"])
def test_a_model_of_transformers_is_explained(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    from transformer_folders import films, write_model

    folder = write_model(tmp_path, kind)
    data = hs.read(films(24), input="text")
    model = hs.fit(data, backbone=f"hf:{folder}", strategy="extract", store=None).model
    why = explained(model, "the film 👍 was very good. " * 20)
    assert why.error <= 0.05 * sum(abs(word.adds) for word in why.words)
    assert why.score == pytest.approx(model.predict([why.text], store=None).scores.max(), abs=1e-4)


def test_marked_text_is_escaped() -> None:
    text = '<script>alert("1")</script> & so'
    words = [MarkedWord(a, b, (-1.0) ** i) for i, (a, b) in enumerate(words_of(text))]
    html = marked(text, words)
    assert "<script" not in html
    assert html.count("<mark") == html.count("</mark>") == len(words)
    assert 'class="against heavy"' in html
    assert marked(text, []) == "&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt; &amp; so"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    lines = [f'"{text} <i>{i}</i>",{label}' for i, (text, label) in enumerate(planted(80))]
    (folder / "rows.csv").write_text("\n".join(["text,label", *lines]))
    words = ["--backbone", "tiny-text:16", "--strategy", "extract", "--store", str(folder / "st")]
    assert main(["train", str(folder / "rows.csv"), "--out", str(folder / "run"), *words]) == 0
    return folder / "run"


def test_a_report_holds_marked_texts(run: Path) -> None:
    saved = json.loads((run / "explained.json").read_text())
    page = (run / "report.html").read_text()
    assert saved["rows"]
    assert page.count('<mark class="for heavy"') >= len(saved["rows"])
    assert "<i>" not in page.partition("<body")[2].replace("<i></i>", "")


def test_the_command_explains_a_sentence(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    store = ["--store", str(run.parent / "st")]
    assert main(["explain", str(run), "--text", "a rainy walk", *store]) == 0
    out = capsys.readouterr().out
    assert "for      rainy +" in out
    assert "alike    bad" in out
    assert max(map(len, out.splitlines())) <= 80
    assert "rainy</mark>" in (tmp_path / "explained" / "1.html").read_text()
    (tmp_path / "two.txt").write_text("the rainy walk")
    assert main(["explain", str(run), "two.txt", "--json", *store]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["class"] == "bad"
    assert found["text"] == "the rainy walk"
    distances = [near["distance"] for near in found["nearest"]]
    assert len(distances) == 5
    assert distances == sorted(distances)
    assert [w["adds"] > 0 for w in found["words"] if w["start"] == 4] == [True]


def test_python_explains_the_worst_and_best_answers_of_a_run(run: Path, tmp_path: Path) -> None:
    lines = Lines()
    found = hs.explain(run, out=tmp_path / "out", store=run.parent / "st", listener=lines)
    assert len(found) >= 4
    assert {file.suffix for file in (tmp_path / "out").iterdir()} == {".html", ".json"}
    assert "<mark" in found[0]._repr_html_()


@pytest.mark.parametrize("name", ["two.json", "01.json"])  # of a text, of a mistake of the run
def test_values_beside_a_page_are_never_written_over_a_file(
    run: Path, tmp_path: Path, name: str
) -> None:
    (tmp_path / "two.txt").write_text("the rainy walk")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("mine")
    texts = tmp_path / "two.txt" if name == "two.json" else None
    with pytest.raises(SpecError, match=rf"{name} is there already: name another"):
        hs.explain(run, texts, out=tmp_path / "out", store=None)
    assert [file.name for file in (tmp_path / "out").iterdir()] == [name]
    assert (tmp_path / "out" / name).read_text() == "mine"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "gradcam"}, "pictures"),
        ({"class_name": "goof"}, "good"),
    ],
)
def test_settings_for_pictures_and_wrong_names_are_refused(
    run: Path, settings: dict[str, str], message: str
) -> None:
    with pytest.raises((SpecError, UnknownName), match=message):
        hs.explain(run, ["a text here"], store=None, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("words", [1, 3, 12])
def test_points_of_the_path_read_at_once_give_what_one_by_one_gives(
    model: Model, words: int
) -> None:
    opened = text_model_of(model)
    places = opened.places("the rainy day was a walk. " * words)
    at = np.array([0.1, 0.5, 0.9])
    together = _slopes_together(opened, places, 1, at)
    in_turn = np.concatenate([_slopes_in_turn(opened, places, 1, at[i : i + 1]) for i in range(3)])
    assert together.shape == (3, *places.ids.shape)
    np.testing.assert_allclose(together, in_turn, atol=1e-5 * np.abs(in_turn).max())


def test_versions_of_a_text_read_at_once_have_the_features_of_each(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = text_model_of(model)
    places = opened.places("the rainy day was a walk. " * 3)
    gone = np.random.default_rng(0).random((5, *places.ids.shape)) < 0.4
    gone &= places.own
    at_once = opened.features_without(places, gone)
    each = np.concatenate([opened.features(places, version) for version in gone])
    np.testing.assert_allclose(at_once, each, atol=1e-6)
    monkeypatch.setattr(text_model, "AT_ONCE", 0)  # as of a text with many windows
    np.testing.assert_array_equal(opened.features_without(places, gone), each)


def test_a_short_text_is_explained_in_few_passes(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = list[int]()
    above = TextGradModel.above

    def counted(self: TextGradModel, hidden: Tensor, mask: Any) -> Tensor:
        passes.append(len(hidden))
        return above(self, hidden, mask)

    monkeypatch.setattr(TextGradModel, "above", counted)
    explained(model, "the rainy day was a walk")
    assert len(passes) < 16  # it took a pass a point of the path and a version of the text

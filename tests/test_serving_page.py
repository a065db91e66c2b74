"""The page of the server in a browser: pictures, the camera, texts, both languages, phones."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browsers import chromium
from conftest import write_shapes
from PIL import Image
from served import Running, running
from test_serving import fitted_texts, noise, saved, until

import headstart as hs

CAMERA = ("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium(*CAMERA) as started:
        yield started


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    return saved(write_shapes(folder / "shapes"), folder / "cells")


@pytest.fixture(scope="module")
def server(bundle: Path) -> Iterator[Running]:
    with running(bundle) as found:
        yield found


@contextmanager
def opened(browser: Any, server: Running, language: str = "en", **how: Any) -> Iterator[Any]:
    """Open the page; at the end nothing must have been said on the console."""
    context = browser.new_context(locale=language, permissions=["camera"], **how)
    page, said = context.new_page(), list[str]()
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(server.server.url)
    page.wait_for_selector("main > .panel:not([hidden])")
    yield page
    assert said == []
    context.close()


def drop(page: Any, name: str, data: bytes, kind: str = "image/png") -> None:
    """Drop a file on the page, as a hand would."""
    page.evaluate(
        """([name, data, kind]) => {
            const moved = new DataTransfer();
            moved.items.add(new File([new Uint8Array(data)], name, { type: kind }));
            for (const type of ["dragover", "drop"])
                document.getElementById("drop").dispatchEvent(
                    new DragEvent(type, { dataTransfer: moved, bubbles: true, cancelable: true }));
        }""",
        [name, list(data), kind],
    )


def bars(page: Any) -> dict[str, float]:
    page.wait_for_selector(".card .bar")
    return {
        bar.get_attribute("data-name"): float(bar.get_attribute("data-score"))
        for bar in page.query_selector_all(".card:first-child .bar")
    }


def picture() -> bytes:
    file = io.BytesIO()
    rng = np.random.default_rng(5)
    pixels = rng.normal(80, 30, size=(20, 20, 3)).clip(0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.mark.long
def test_a_dropped_picture_shows_the_scores_of_predict(
    browser: Any, server: Running, bundle: Path
) -> None:
    said = hs.load(bundle).predict(Image.open(io.BytesIO(picture())), store=None)
    wanted = dict(zip(said.classes, said.scores[0].tolist(), strict=True))
    with opened(browser, server) as page:
        drop(page, "dark.png", picture())
        assert bars(page) == pytest.approx(wanted, abs=1e-3)
        assert page.inner_text(".card .title") == said.names[0]


def test_a_dropped_text_gets_the_sentence(browser: Any, server: Running) -> None:
    with opened(browser, server) as page:
        drop(page, "notes.txt", b"only words", "text/plain")
        page.wait_for_selector(".card .error")
        assert "not a picture but a text file" in page.inner_text(".card .error")


def test_unknown_is_shown_with_its_reason_in_both_languages(browser: Any, server: Running) -> None:
    with opened(browser, server) as page:
        drop(page, "noise.png", noise())
        page.wait_for_selector(".card .unknown")
        assert "unlike the examples" in page.inner_text(".card .reason")
        page.click("#language")
        assert page.inner_text(".card .unknown") == "неизвестно"
        assert "не похоже на примеры" in page.inner_text(".card .reason")
    with opened(browser, server, "ru-RU") as page:
        assert page.inner_text("#choose") == "Выбрать файлы"


def test_the_camera_takes_a_picture_and_is_let_go(browser: Any, server: Running) -> None:
    with opened(browser, server) as page:
        page.click("#camera")
        until(lambda: page.evaluate("document.getElementById('video').videoWidth > 0"))
        page.click("#shoot")
        assert sum(bars(page).values()) == pytest.approx(1, abs=1e-3)
        page.keyboard.press("Escape")
        assert page.is_hidden("#viewfinder")
        assert page.evaluate("document.getElementById('video').srcObject") is None


def test_the_keyboard_alone_does(browser: Any, server: Running, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(picture())
    with opened(browser, server) as page:
        with page.expect_file_chooser() as chooser:
            page.press("#choose", "Enter")
        chooser.value.set_files(tmp_path / "a.png")
        assert len(bars(page)) == 2
        page.focus("#clear")
        page.keyboard.press("Enter")
        assert page.is_hidden("#history")


def test_names_are_shown_as_they_are(browser: Any, server: Running) -> None:
    with opened(browser, server) as page:
        drop(page, "<img src=x onerror=alert(1)>.png", picture())
        bars(page)
        assert page.inner_text(".card .name") == "<img src=x onerror=alert(1)>.png"


@pytest.mark.parametrize("language", ["en", "ru"])
@pytest.mark.parametrize("dark", [False, True])
def test_a_phone_shows_it_whole(browser: Any, server: Running, language: str, dark: bool) -> None:
    how: dict[str, Any] = {"viewport": {"width": 360, "height": 740}}
    how["color_scheme"] = "dark" if dark else "light"
    with opened(browser, server, language, **how) as page:
        drop(page, "a-name-without-any-space-" * 8 + ".png", picture())
        bars(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        assert page.is_visible(".touch")
        assert page.is_hidden("[data-word=drop]")


def test_the_token_is_asked_for_once(browser: Any, bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("a-token-of-many-characters")
    with running(bundle, token_file=str(tmp_path / "token")) as server:
        context = browser.new_context()
        page = context.new_page()
        page.goto(server.server.url)
        page.wait_for_selector("#login:not([hidden])")
        page.fill("#token", "a-token-of-many-characters")
        page.keyboard.press("Enter")
        page.wait_for_selector("#pictures:not([hidden])")
        page.reload()
        page.wait_for_selector("#pictures:not([hidden])")
        assert page.evaluate("document.cookie") == ""
        context.close()


def test_texts_are_typed_and_sent_by_the_keyboard(browser: Any, tmp_path: Path) -> None:
    fitted = fitted_texts(tmp_path)
    said = fitted.model.predict(["a lovely film"], store=None)
    with running(hs.save(fitted, tmp_path / "films")) as server, opened(browser, server) as page:
        page.fill("#text", "a lovely film")
        page.keyboard.press("Control+Enter")
        wanted = dict(zip(said.classes, said.scores[0].tolist(), strict=True))
        assert bars(page) == pytest.approx(wanted, abs=1e-3)

"""The page in headless Chromium: what a person does, by mouse and by keyboard, and what the URL then says."""

import pytest

pytestmark = pytest.mark.slow


def opened(browser, port, query=""):
    browser.call("Page.navigate", url=f"http://127.0.0.1:{port}/{query}")
    browser.until("document.readyState === 'complete' && document.getElementById('status')?.textContent.includes('pictures')")


def count(browser) -> int:
    return browser.run("document.querySelectorAll('#results li').length")


def test_a_word_is_typed_and_stands_in_the_url(browser, port):
    opened(browser, port)
    assert browser.run("document.getElementById('status').textContent") == "12 pictures to search among"
    browser.run("document.getElementById('word').focus()")
    browser.call("Input.insertText", text="entities")
    for kind in ("keyDown", "keyUp"):
        browser.call("Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", windowsVirtualKeyCode=13, text="\r")
    browser.until("document.getElementById('status').textContent.includes('most probable first')")
    assert browser.run("location.search") == "?word=entities"
    assert count(browser) == 12
    assert "1000 classes" in browser.run("document.getElementById('senses').textContent")


def test_every_tile_is_the_next_query_and_back_goes_back(browser, port):
    opened(browser, port, "?word=entities")
    browser.until("document.querySelectorAll('#results li').length === 12")
    browser.run("scrollTo(0, 500); document.querySelector('#results a').click()")
    browser.until("location.search.startsWith('?item=') && !document.getElementById('picture').hidden")
    browser.until("scrollY === 0 && document.activeElement.tagName === 'MAIN'")  # not in the middle of what was there before
    assert "most similar first" in browser.run("document.getElementById('status').textContent")
    browser.run("history.back()")
    browser.until("location.search === '?word=entities' && document.getElementById('picture').hidden")


def test_a_chosen_picture_is_explained(browser, port, pictures):
    opened(browser, port)
    root = browser.call("DOM.getDocument")["root"]["nodeId"]
    node = browser.call("DOM.querySelector", nodeId=root, selector="#file")["nodeId"]
    browser.call("DOM.setFileInputFiles", nodeId=node, files=[str(pictures / "<b>03.png")])
    browser.until("location.search.startsWith('?picture=') && !document.getElementById('picture').hidden")
    browser.until("document.getElementById('seen').complete && document.getElementById('seen').naturalWidth === 32")
    assert browser.run("document.querySelectorAll('#guesses button').length") == 5
    browser.run("document.querySelector('#guesses button').click()")
    browser.until("!document.getElementById('heat').hidden && document.getElementById('heat').naturalWidth === 32")
    assert browser.run("document.querySelector('#guesses button').getAttribute('aria-pressed')") == "true"
    assert count(browser) == 12


def test_names_are_text_and_nothing_else(browser, port):
    opened(browser, port, "?item=0")
    browser.until("document.querySelectorAll('#results li').length === 11")
    assert browser.run("document.querySelectorAll('b').length") == 0
    assert browser.run("document.querySelector('#results img').alt").startswith("<b>")


def test_pictures_are_square_and_the_page_is_as_wide_as_a_telephone(browser, port):
    browser.call("Emulation.setDeviceMetricsOverride", width=390, height=844, deviceScaleFactor=1, mobile=True)
    opened(browser, port, "?item=0&word=entities")
    browser.until("document.querySelectorAll('#results li').length === 11")
    box = "document.querySelector('#results img').getBoundingClientRect()"
    assert browser.run(f"Math.abs({box}.width - {box}.height)") < 1
    assert browser.run("document.documentElement.scrollWidth") <= 390
    below, above = (f"document.querySelector('{tag}').getBoundingClientRect()" for tag in ("main", "aside"))
    assert browser.run(f"{above}.bottom <= {below}.top")  # the picture that was asked with comes before sixty others
    browser.call("Emulation.setDeviceMetricsOverride", width=1280, height=900, deviceScaleFactor=1, mobile=False)


def test_without_the_picture_the_word_stays(browser, port):
    opened(browser, port, "?item=0&word=entities")
    browser.until("!document.getElementById('picture').hidden")
    browser.run("document.getElementById('without').click()")
    browser.until("location.search === '?word=entities' && document.getElementById('picture').hidden")


def test_a_mistake_is_said(browser, port):
    browser.call("Page.navigate", url=f"http://127.0.0.1:{port}/?word=tromboni")
    browser.until("document.readyState === 'complete' && document.getElementById('error')?.hidden === false")
    assert "Did you mean 'trombone'" in browser.run("document.getElementById('error').textContent")
    assert count(browser) == 0


def test_all_can_be_reached_by_keyboard_and_has_a_name(browser, port):
    opened(browser, port, "?item=0&word=entities")
    browser.until("document.querySelectorAll('#results li').length === 11")
    named = "e.textContent.trim() || e.labels?.length || e.querySelector('img[alt]')"
    assert browser.run(f"[...document.querySelectorAll('a, button, input')].filter(e => !({named})).length") == 0
    assert browser.run("[...document.querySelectorAll('#results img')].every(i => i.alt)") is True
    assert browser.run("[...document.querySelectorAll('a, button, input')].every(e => e.tabIndex === 0)") is True

"""maps.html: every image is there once, in order, and a name is never markup."""

import re

from radimagenet_jax.reports import maps_page
from radimagenet_jax.reports.maps_page import Card

FACTS = {"title": "slices <1>", "network": "runs/covid"}


def card(number, **fields):
    stem = f"{number:03}"
    return Card(f"key {stem}", f"{stem}.png", f"{stem}-map.png", number / 200, "yes", **fields)


def shown(path):
    return re.findall(r'title="key (\d+)"', path.read_text())


def test_images_come_by_their_score_and_none_is_left_out(tmp_path):
    first = maps_page.write(
        tmp_path, [card(number) for number in range(130)], maps_page.Shown("yes", 2.5, FACTS)
    )
    pages = [first, tmp_path / "maps-2.html", tmp_path / "maps-3.html"]
    assert [int(each) for page in pages for each in shown(page)] == list(range(129, -1, -1))
    assert 'href="maps-2.html"' in first.read_text()
    assert 'href="maps.html"' in pages[1].read_text()
    assert "images 121 to 130 of 130" in pages[2].read_text()


def test_a_wrong_call_is_marked_and_names_are_no_markup(tmp_path):
    hostile = Card("<script>x</script>", 'a"b#1.png', "c d.png", 0.25, "yes", "no")
    text = maps_page.write(tmp_path, [hostile], maps_page.Shown("yes", 1, FACTS)).read_text()
    assert "<script" not in text
    assert "slices &lt;1&gt;" in text
    assert 'src="a%22b%231.png"' in text
    assert re.search(r'class="wrong">called yes, is no', text)
    assert "0.250" in text
    for told in ("−1", "+1", "not for clinical use", "without its map"):
        assert told in text


def test_no_image_is_said(tmp_path):
    text = maps_page.write(tmp_path, [], maps_page.Shown("yes", 1, FACTS)).read_text()
    assert "No image could be scored." in text
